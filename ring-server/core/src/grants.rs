//! What a new process is granted, and how each grant becomes a hold.

use capos_config::KernelCapSource;

use crate::cap_table::{CapError, CapId, CapTable, Hold, HoldOrigin, TransferKind};
use crate::cap_table::{TransferMode, TransferScope};
use crate::capset::CapSetPage;
use crate::ids::Pid;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::objects::{EpochId, Object, ObjectId};
use crate::server::{CreateError, Server};
use crate::session::SessionId;

/// How a capability of another process is passed on at spawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// The same authority again, whatever its transfer mode: for endpoint
    /// owners and other sources that only their holder may share.
    Raw,
    /// The same authority again; needs transfer mode Copy.
    Copy,
    /// The authority itself; needs transfer mode Copy or Move.
    Move,
    /// Of a memory object, the authority to park on its words and no more:
    /// a `SharedParkSpace`.
    SharedParkSpace,
    /// The calling side of an endpoint. `None` keeps what the source has; only
    /// an owner may choose something else.
    Client {
        /// Interface the facet speaks.
        interface_id: Option<u64>,
        /// Badge delivered with its calls.
        badge: Option<u64>,
        /// Caller-session fields it may disclose; an owner chooses, others
        /// can only take away.
        disclosure_scope: u64,
    },
}

/// What a process is granted under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantSource {
    /// A kernel capability, named as manifests name it; an endpoint source
    /// makes a new endpoint, owned by the grantee.
    Kernel(KernelCapSource),
    /// A capability of a live process.
    Held {
        /// Its holder.
        from: Pid,
        /// Its number there.
        cap: CapId,
        /// How it is passed on.
        passing: Passing,
    },
    /// Management of a live process's capabilities.
    Manager(Pid),
}

/// One line of a process's CapSet.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The name the program looks up.
    pub name: &'a str,
    /// Where the capability comes from.
    pub source: GrantSource,
    /// Badge of a kernel capability's hold; 0 unless its source gives badges a
    /// meaning.
    pub badge: u64,
    /// Session fields of callers that an endpoint's owner may disclose to itself
    /// when it calls; 0 for everything else.
    pub disclosure_scope: u64,
}

impl<'a> Grant<'a> {
    /// A kernel capability with badge 0.
    pub const fn kernel(name: &'a str, source: KernelCapSource) -> Self {
        Self::new(name, GrantSource::Kernel(source))
    }

    /// A capability of `from`, passed on as `passing`.
    pub const fn held(name: &'a str, from: Pid, cap: CapId, passing: Passing) -> Self {
        Self::new(name, GrantSource::Held { from, cap, passing })
    }

    /// The calling side of an endpoint of `from`, labels kept, nothing
    /// disclosed.
    pub const fn client(name: &'a str, from: Pid, cap: CapId) -> Self {
        let passing = Passing::Client {
            interface_id: None,
            badge: None,
            disclosure_scope: 0,
        };
        Self::held(name, from, cap, passing)
    }

    /// Management of `of`.
    pub const fn manager(name: &'a str, of: Pid) -> Self {
        Self::new(name, GrantSource::Manager(of))
    }

    const fn new(name: &'a str, source: GrantSource) -> Self {
        let badge = 0;
        Self {
            name,
            source,
            badge,
            disclosure_scope: 0,
        }
    }
}

/// For whom grants are made.
#[derive(Clone, Copy)]
pub(crate) struct Grantee<'a> {
    pub(crate) session: SessionId,
    pub(crate) limits: &'a Limits,
    /// Whether whoever grants may regrant into any session.
    pub(crate) regrant: bool,
}

/// A grant that was minted: its hold, and the source to remove when all
/// grants succeeded.
struct Minted {
    hold: Hold,
    moved: Option<(Pid, CapId)>,
}

impl<M: Machine> Server<M> {
    /// Inserts all grants, or none. The sources of moves stay reserved.
    pub(crate) fn insert_grants(
        &mut self,
        grantee: Grantee<'_>,
        grants: &[Grant<'_>],
        caps: &mut CapTable,
        page: &mut CapSetPage<'_>,
    ) -> Result<(), CreateError> {
        for (index, grant) in grants.iter().enumerate() {
            if let Err(error) = self.insert_grant(grantee, grant, caps, page) {
                self.undo_grants(&grants[..index], caps);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes the sources of moves whose grantee exists now.
    pub(crate) fn finish_moves(&mut self, grants: &[Grant<'_>]) {
        for grant in grants {
            self.finish_move(grant);
        }
    }

    /// Gives the sources of moves back whose grantee is gone again.
    pub(crate) fn give_back_moves(&mut self, grants: &[Grant<'_>]) {
        for (from, cap) in grants.iter().filter_map(move_source) {
            self.give_back(from, cap);
        }
    }

    fn insert_grant(
        &mut self,
        grantee: Grantee<'_>,
        grant: &Grant<'_>,
        caps: &mut CapTable,
        page: &mut CapSetPage<'_>,
    ) -> Result<(), CreateError> {
        let Minted { hold, moved } = self.mint(grantee, grant)?;
        let inserted = match caps.insert(hold) {
            Ok(id) => page
                .push(grant.name, id, hold.interface_id)
                .map_err(CreateError::from),
            Err(error) => {
                self.release_hold(hold);
                Err(error.into())
            }
        };
        if let (Err(_), Some((from, cap))) = (inserted, moved) {
            self.give_back(from, cap);
        }
        inserted
    }

    /// Releases what was inserted and gives sources of moves back.
    fn undo_grants(&mut self, grants: &[Grant<'_>], caps: &mut CapTable) {
        self.give_back_moves(grants);
        self.release_table(caps);
    }

    fn give_back(&mut self, from: Pid, cap: CapId) {
        if let Some(process) = self.process_mut(from) {
            // Absent or unreserved sources have nothing to give back.
            let _ = process.caps.rollback_move(cap);
        }
    }

    /// Removes the source of a move whose grantee exists now.
    fn finish_move(&mut self, grant: &Grant<'_>) {
        if let Some((from, cap)) = move_source(grant)
            && let Some(process) = self.process_mut(from)
            && let Ok(hold) = process.caps.commit_move(cap)
        {
            self.release_hold(hold);
        }
    }

    fn mint(&mut self, grantee: Grantee<'_>, grant: &Grant<'_>) -> Result<Minted, CreateError> {
        let fresh = |hold| Minted { hold, moved: None };
        match grant.source {
            GrantSource::Kernel(KernelCapSource::Endpoint | KernelCapSource::ChatEndpoint) => {
                let hold = self.mint_endpoint(grantee.limits)?;
                let disclosure_scope = grant.disclosure_scope;
                Ok(fresh(Hold {
                    disclosure_scope,
                    ..hold
                }))
            }
            GrantSource::Kernel(source) => {
                let hold = self.mint_root(Object::from_source(source)?)?;
                let badge = grant.badge;
                Ok(fresh(Hold { badge, ..hold }))
            }
            GrantSource::Manager(pid) => {
                self.process(pid).ok_or(CreateError::NoSuchHold)?;
                self.mint_object(Object::CapabilityManager(pid)).map(fresh)
            }
            GrantSource::Held { from, cap, passing } => self.mint_held(grantee, from, cap, passing),
        }
    }

    /// A hold on a stateless kernel object.
    fn mint_root(&mut self, object: Object) -> Result<Hold, CreateError> {
        let root = self.roots.iter().find(|&&(root, _)| root == object);
        let &(_, id) = root.ok_or(CreateError::ObjectsExhausted)?;
        let epoch = self.objects.insert_epoch();
        let epoch = epoch.ok_or(CreateError::ObjectsExhausted)?;
        self.objects.retain_object(id);
        Ok(kernel_hold(object, id, epoch))
    }

    /// The first hold on a new object.
    pub(crate) fn mint_object(&mut self, object: Object) -> Result<Hold, CreateError> {
        let id = self.objects.insert(object);
        let id = id.ok_or(CreateError::ObjectsExhausted)?;
        match self.objects.insert_epoch() {
            Some(epoch) => Ok(kernel_hold(object, id, epoch)),
            None => {
                self.objects.release_object(id);
                Err(CreateError::ObjectsExhausted)
            }
        }
    }

    pub(crate) fn mint_endpoint(&mut self, limits: &Limits) -> Result<Hold, CreateError> {
        if self.secret.is_none() {
            return Err(CreateError::NoBootSecret);
        }
        let index = self.endpoints.create(limits);
        let index = index.ok_or(CreateError::ObjectsExhausted)?;
        let minted = self.mint_object(Object::EndpointOwner(index));
        if minted.is_err() {
            self.remove_endpoint(index);
        }
        minted
    }

    fn mint_held(
        &mut self,
        grantee: Grantee<'_>,
        from: Pid,
        cap: CapId,
        passing: Passing,
    ) -> Result<Minted, CreateError> {
        let (session, objects) = (grantee.session, &mut self.objects);
        let source = self.processes[from.slot()]
            .as_deref_mut()
            .filter(|process| process.pid == from)
            .ok_or(CreateError::NoSuchHold)?;
        let hold = *source.caps.lookup(cap, objects)?;
        let facet = matches!(passing, Passing::Client { .. });
        let minting = facet && matches!(objects.get(hold.object), Some(Object::EndpointOwner(_)));
        let same_session = source.session == session;
        // Whoever may decide who somebody is stays where it is, whatever happens.
        let mint = matches!(objects.get(hold.object), Some(Object::SessionMint));
        let leaves = !mint && (grantee.regrant || hold.may_leave_session());
        let enters = minting || same_session || leaves;
        if !enters {
            return Err(CreateError::CrossesSession);
        }
        let (kind, raw) = match passing {
            Passing::Move => (TransferKind::Move, false),
            Passing::Copy => (TransferKind::Copy, false),
            Passing::Raw | Passing::SharedParkSpace | Passing::Client { .. } => {
                (TransferKind::Copy, true)
            }
        };
        // What a spawn gave its parent was made for it to label.
        let labels = hold.origin == HoldOrigin::SpawnedEndpoint;
        let prepared = source.caps.prepare_spawn_grant(cap, kind, raw, objects)?;
        let moved = prepared.source.map(|cap| (from, cap));
        match self.derive_hold(prepared.hold, passing, labels) {
            Ok(hold) => Ok(Minted { hold, moved }),
            Err(error) => {
                self.release_hold(prepared.hold);
                if let Some((from, cap)) = moved {
                    self.give_back(from, cap);
                }
                Err(error)
            }
        }
    }

    /// Gives a prepared hold an epoch cell of its own, and narrows it to a
    /// facet if that is asked for. Consumes the references of `hold` if it
    /// succeeds, takes none if it fails.
    pub(crate) fn derive_hold(
        &mut self,
        hold: Hold,
        passing: Passing,
        labels: bool,
    ) -> Result<Hold, CreateError> {
        let below = self
            .objects
            .insert_epoch_below(hold.epoch, hold.observed_epoch);
        let epoch = below.ok_or(CreateError::ObjectsExhausted)?;
        let derived = match passing {
            Passing::Client {
                interface_id,
                badge,
                disclosure_scope,
            } => self.facet(hold, (interface_id, badge), disclosure_scope, labels),
            Passing::SharedParkSpace => self.park_space_of(hold),
            _ => Ok(hold),
        };
        match derived {
            Ok(derived) => {
                self.objects.release_epoch(hold.epoch);
                Ok(Hold {
                    epoch,
                    observed_epoch: 0,
                    ..derived
                })
            }
            Err(error) => {
                self.objects.release_epoch(epoch);
                Err(error)
            }
        }
    }

    /// The calling side of the endpoint behind `hold`. The owner chooses labels,
    /// and the parent that was given it at a spawn (`labels`); a delegated
    /// facet keeps its own.
    fn facet(
        &mut self,
        hold: Hold,
        (interface_id, badge): (Option<u64>, Option<u64>),
        disclosure_scope: u64,
        labels: bool,
    ) -> Result<Hold, CreateError> {
        let interface_id = interface_id.unwrap_or(hold.interface_id);
        let badge = badge.unwrap_or(hold.badge);
        match self.objects.get(hold.object) {
            Some(Object::EndpointOwner(index)) => {
                let object = self.client_object(index)?;
                self.objects.release_object(hold.object);
                Ok(Hold {
                    object,
                    interface_id,
                    badge,
                    disclosure_scope,
                    transfer_mode: TransferMode::Copy,
                    transfer_scope: TransferScope::CrossSessionShareable,
                    ..hold
                })
            }
            Some(Object::EndpointClient(_)) => {
                if !labels && (interface_id != hold.interface_id || badge != hold.badge) {
                    return Err(CreateError::Relabel);
                }
                let disclosure_scope = disclosure_scope & hold.disclosure_scope;
                Ok(Hold {
                    interface_id,
                    badge,
                    disclosure_scope,
                    ..hold
                })
            }
            _ => Err(CreateError::NotAnEndpoint),
        }
    }

    /// A client facet of an endpoint that `owner` holds as `cap`.
    pub(crate) fn facet_of_owned(
        &mut self,
        owner: Pid,
        cap: CapId,
        passing: Passing,
    ) -> Result<Hold, CreateError> {
        let session = self.process(owner).ok_or(CreateError::NoSuchHold)?.session;
        let limits = Limits::CEILING;
        let grantee = Grantee {
            session,
            limits: &limits,
            regrant: false,
        };
        self.mint_held(grantee, owner, cap, passing)
            .map(|minted| minted.hold)
    }

    /// The object that facets of an endpoint name, with one more reference.
    fn client_object(&mut self, index: u32) -> Result<ObjectId, CreateError> {
        let endpoint = self.endpoints.table.get_mut(index);
        let endpoint = endpoint.ok_or(CreateError::NoSuchHold)?;
        if let Some(object) = endpoint.client {
            self.objects.retain_object(object);
            return Ok(object);
        }
        let object = self.objects.insert(Object::EndpointClient(index));
        endpoint.client = object;
        object.ok_or(CreateError::ObjectsExhausted)
    }
}

fn move_source(grant: &Grant<'_>) -> Option<(Pid, CapId)> {
    match grant.source {
        GrantSource::Held {
            from,
            cap,
            passing: Passing::Move,
        } => Some((from, cap)),
        _ => None,
    }
}

/// The hold a process gets on a kernel object at start.
fn kernel_hold(object: Object, id: ObjectId, epoch: EpochId) -> Hold {
    Hold {
        object: id,
        epoch,
        observed_epoch: 0,
        interface_id: object.interface_id(),
        badge: 0,
        disclosure_scope: 0,
        transfer_mode: transfer_mode(object),
        transfer_scope: transfer_scope(object),
        origin: HoldOrigin::Kernel,
        pages: 0,
    }
}

/// Transfer mode of a kernel object's first hold.
pub const fn transfer_mode(object: Object) -> TransferMode {
    match object {
        Object::Console
        | Object::TerminalSession
        | Object::Timer
        | Object::BootPackage
        | Object::EndpointClient(_)
        | Object::WallClock
        | Object::Notification(_)
        | Object::MemoryObject(_)
        | Object::SharedParkSpace(_)
        | Object::UserSession(_) => TransferMode::Copy,
        // An end is a linear resource; only a raw spawn grant shares it, as
        // `fork` shares a descriptor.
        Object::PipeRead(_) | Object::PipeWrite(_) => TransferMode::Move,
        Object::ParkSpace
        | Object::VirtualMemory
        | Object::FrameAllocator
        | Object::EntropySource
        | Object::ProcessSpawner
        | Object::ProcessHandle(_)
        | Object::CapabilityManager(_)
        | Object::ThreadControl
        | Object::ThreadSpawner
        | Object::ThreadHandle(_)
        | Object::EndpointOwner(_)
        | Object::SessionMint
        | Object::RestrictedLauncher(_) => TransferMode::NonTransferable,
    }
}

/// Transfer scope of a kernel object's first hold: time is the same in every
/// session, and telling it lets nobody change anything.
const fn transfer_scope(object: Object) -> TransferScope {
    match object {
        Object::Timer | Object::WallClock => TransferScope::CrossSessionShareable,
        _ => TransferScope::SameSession,
    }
}

impl From<CapError> for CreateError {
    fn from(error: CapError) -> Self {
        match error {
            CapError::SlotsExhausted => Self::CapSlotsExhausted,
            CapError::PagesExhausted => Self::PagesExhausted,
            CapError::NotFound | CapError::StaleGeneration | CapError::Revoked => Self::NoSuchHold,
            CapError::TransferNotAllowed
            | CapError::TransferPending
            | CapError::InvalidTransferOrigin => Self::NotTransferable,
        }
    }
}
