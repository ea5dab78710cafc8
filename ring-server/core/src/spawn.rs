//! Processes that start processes: `ProcessSpawner` and `ProcessHandle`.
//!
//! # Theory of operation
//! Spawning is the one operation of the server that takes storage: it makes a
//! process. It decodes the request, asks the machine for an address space with
//! the program in it, lets [`Server::create_process`] turn the grants into
//! holds, has the machine start the thread, and only then gives the parent its
//! result capabilities. Whatever fails on the way, everything before it is
//! undone and the parent gets an exception.
//!
//! Result capabilities, in this order: the `ProcessHandle`, the child's
//! `CapabilityManager`, and a client facet of each endpoint that was made for
//! the child.
//!
//! A handle's record outlives the process, so that `wait` answers whenever it
//! is called; it goes when the last hold on it does.
//!
//! # Invariants
//! - **H1** A record is running exactly while its process lives, and then the
//!   process names it.
//! - **H2** A waiter is charged one outstanding operation.

use alloc::vec::Vec;

use capnp::Word;
use capnp::serialize::{NoAllocSliceSegments, read_message_from_flat_slice_no_alloc};
use capnp::traits::HasStructSize;
use capos_config::capos_capnp::process_handle::wait_results;
use capos_config::capos_capnp::process_spawner::{spawn_params, spawn_results};
use capos_config::capos_capnp::{self, CapGrantMode, cap_grant, cap_grant_source};
use capos_config::ring::{CAP_ERR_INVALID_PARAMS_BUFFER, CapCqe, CapSqe};
use capos_config::service_object::ServiceReceiverCookie;
use capos_config::{
    KernelCapSource, PRESERVE_CLIENT_ENDPOINT_BADGE, SHARED_PARK_SPACE_INTERFACE_ID,
};

use sel4_capos_schema::method::{CREATE_ENDPOINT, CREATE_NOTIFICATION};

use crate::cap_table::{CapId, Hold, HoldOrigin};
use crate::capset::{CAPSET_PAGE_BYTES, CapSetError};
use crate::class::Class;
use crate::dispatch::{Caller, Outcome};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::grants::{Grant, GrantSource, Passing};
use crate::ids::Pid;
use crate::kernel::{Refusal, malformed};
use crate::limits::Capacity;
use crate::machine::{Machine, PrepareError};
use crate::objects::Object;
use crate::pool::Pool;
use crate::rendezvous::result_of;
use crate::results::{INDEX_RESULT_BYTES, ResultCaps};
use crate::server::{CreateError, ProcessSpec, Server};
use crate::session::SessionId;
use crate::sessions::minted;
use crate::waiting::Waiting;

/// Exit code of a process that was ended through its handle.
pub const EXIT_TERMINATED: i64 = 137;
/// Exit code of a process that was ended for a fault.
pub const EXIT_FAULT: i64 = 139;

/// Longest program name in a boot package.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Grants of one spawn: as many as a CapSet page has lines.
const GRANTS_MAX: u32 = capos_config::capset::CAPSET_MAX_ENTRIES as u32;

mod method {
    pub const SPAWN: u16 = 0;
    pub const CREATE_PIPE: u16 = 1;
    pub const WAIT: u16 = 0;
    pub const TERMINATE: u16 = 1;
}

/// The params of a request, copied.
pub(crate) struct Params {
    words: Vec<Word>,
    len: usize,
}

impl Params {
    /// The params as a message.
    pub(crate) fn message(&self) -> Result<Message<'_>, Refusal> {
        let mut bytes = &Word::words_to_bytes(&self.words)[..self.len];
        let options = capos_config::default_reader_options();
        read_message_from_flat_slice_no_alloc(&mut bytes, options).map_err(malformed)
    }
}

type Message<'a> = capnp::message::Reader<NoAllocSliceSegments<'a>>;

/// A request to start a program, as it was decoded.
pub(crate) struct Request<'a> {
    pub(crate) name: capnp::Result<capnp::text::Reader<'a>>,
    pub(crate) program: capnp::Result<capnp::text::Reader<'a>>,
    pub(crate) grants: capnp::Result<capnp::struct_list::Reader<'a, cap_grant::Owned>>,
}

/// What a parent is given of its child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// Handle, manager, and a facet of each endpoint made for it.
    Management,
    /// The same, with a handle that can be given into another session.
    Mediation,
    /// The handle.
    Handle,
    /// The handle, and a facet of the one endpoint made for it.
    Worker,
}

impl Given {
    const fn has_manager(self) -> bool {
        matches!(self, Self::Management | Self::Mediation)
    }
}

/// A program to be started.
pub(crate) struct Order<'a> {
    pub(crate) program: &'a str,
    pub(crate) grants: &'a [Grant<'a>],
    /// The session it runs in; its parent's otherwise.
    pub(crate) session: Option<SessionId>,
    /// Whether grants of any scope may enter that session.
    pub(crate) regrant: bool,
    pub(crate) given: Given,
}

impl Order<'_> {
    fn result_caps(&self) -> usize {
        let made = self.sources().filter(|&source| is_endpoint(source)).count();
        match self.given {
            Given::Management | Given::Mediation => 2 + made,
            Given::Handle => 1,
            Given::Worker => 1 + made,
        }
    }

    /// Whoever opens sessions starts the programs of all of them, and may answer
    /// for as many as its parent.
    fn opens_sessions(&self) -> bool {
        self.sources()
            .any(|source| source == KernelCapSource::SessionManager)
    }

    /// What is made for the child.
    fn sources(&self) -> impl Iterator<Item = KernelCapSource> {
        self.grants.iter().filter_map(|grant| match grant.source {
            GrantSource::Kernel(source) => Some(source),
            _ => None,
        })
    }
}

/// Whether this source makes an endpoint.
pub(crate) const fn is_endpoint(source: KernelCapSource) -> bool {
    matches!(
        source,
        KernelCapSource::Endpoint | KernelCapSource::ChatEndpoint
    )
}

/// A facet that keeps its labels and discloses nothing.
const PLAIN_FACET: Passing = Passing::Client {
    interface_id: None,
    badge: None,
    disclosure_scope: 0,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running(Pid),
    Ended(i64),
}

/// What a `ProcessHandle` names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandleRecord {
    state: State,
    pub(crate) waiter: Option<Waiting>,
}

/// All handle records.
pub(crate) type Handles = Pool<HandleRecord>;

/// An empty table of handle records: each is behind an object.
pub(crate) fn handles(capacity: &Capacity) -> Handles {
    Pool::with_capacity(capacity.objects)
}

impl<M: Machine> Server<M> {
    /// CALL to a `ProcessSpawner`.
    pub(crate) fn call_spawner(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Outcome {
        let spawned = match sqe.method_id {
            method::SPAWN => self.spawn(machine, caller, sqe),
            CREATE_NOTIFICATION => self.create_notification(machine, caller, sqe),
            CREATE_ENDPOINT => self.create_endpoint(machine, caller, sqe),
            method::CREATE_PIPE => self.create_pipe(machine, caller, sqe),
            _ => Err(Exception::unimplemented().into()),
        };
        match spawned {
            Ok(cqe) => Outcome::Complete(cqe),
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    /// CALL to a `ProcessHandle`.
    pub(crate) fn call_handle(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
    ) -> Outcome {
        let outcome = match sqe.method_id {
            method::WAIT => self.wait_for_exit(machine, caller, sqe, index),
            method::TERMINATE => self.terminate(machine, sqe, index),
            _ => Err(Exception::unimplemented().into()),
        };
        match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    #[cold]
    pub(crate) fn refuse(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        refusal: Refusal,
    ) -> Outcome {
        let code = match refusal {
            Refusal::Transport(code) => code,
            Refusal::Exception(exception) => {
                self.raise_to(machine, caller.thread.pid, result_of(sqe), exception)
            }
        };
        Outcome::code(sqe, code)
    }

    /// Copies the params of a request to start a program: its texts are used
    /// until it is carried out.
    pub(crate) fn copy_params(
        &self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<Params, Refusal> {
        let fault = Refusal::Transport(CAP_ERR_INVALID_PARAMS_BUFFER);
        let len = sqe.len as usize;
        let mut words = Word::allocate_zeroed_vec(len.div_ceil(size_of::<Word>()));
        let bytes = &mut Word::words_to_bytes_mut(&mut words)[..len];
        let read = machine.read(caller.thread.pid, sqe.addr, bytes);
        read.map_err(|_| fault)?;
        Ok(Params { words, len })
    }

    /// `ProcessSpawner.spawn`.
    fn spawn(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Result<CapCqe, Refusal> {
        let params = self.copy_params(machine, caller, sqe)?;
        let message = params.message()?;
        let request: spawn_params::Reader<'_> = message.get_root().map_err(malformed)?;
        let request = Request {
            name: request.get_name(),
            program: request.get_binary_name(),
            grants: request.get_grants(),
        };
        let program = text(request.program.clone())?;
        let grants = self.requested_grants(caller, request, kernel_source)?;
        let order = Order {
            program,
            grants: &grants,
            session: None,
            regrant: false,
            given: Given::Management,
        };
        self.spawn_granted(machine, caller, sqe, &order)
    }

    /// The grants of a request, checked as far as the request alone can be
    /// wrong. `served` says what may be made for the child.
    pub(crate) fn requested_grants<'a>(
        &self,
        caller: Caller,
        request: Request<'a>,
        served: impl Fn(capos_capnp::KernelCapSource) -> Option<KernelCapSource>,
    ) -> Result<Vec<Grant<'a>>, Refusal> {
        // A name for people; only its form can be wrong.
        text(request.name)?;
        let program = text(request.program)?;
        if program.is_empty() || program.len() > NAME_BYTES_MAX {
            return Err(Exception::invalid_argument("no such program").into());
        }
        let list = request.grants.map_err(malformed)?;
        if list.len() > GRANTS_MAX {
            return Err(Exception::invalid_argument("too many grants").into());
        }
        let grants = list
            .iter()
            .map(|grant| self.grant(caller.thread.pid, grant, &served))
            .collect::<Result<Vec<_>, Refusal>>()?;
        check_names(&grants)?;
        Ok(grants)
    }

    /// Whether a process may have a kernel source made for its child. Authority
    /// over how threads are scheduled comes from a manifest and goes from parent
    /// to child.
    fn may_make(&self, from: Pid, source: KernelCapSource) -> bool {
        let wanted = match source {
            KernelCapSource::SchedulingContext => Object::SchedulingContexts,
            KernelCapSource::SchedulingPolicy => Object::SchedulingPolicy,
            _ => return true,
        };
        let holds = self.process(from).map(|process| process.caps.iter());
        holds.is_some_and(|mut holds| {
            holds.any(|(_, hold)| {
                self.objects.get(hold.object) == Some(wanted)
                    && self.objects.is_current(hold.epoch, hold.observed_epoch)
            })
        })
    }

    /// One requested grant.
    fn grant<'a>(
        &self,
        from: Pid,
        grant: cap_grant::Reader<'a>,
        served: impl Fn(capos_capnp::KernelCapSource) -> Option<KernelCapSource>,
    ) -> Result<Grant<'a>, Refusal> {
        let name = text(grant.get_name())?;
        let badge = grant.get_badge();
        let source = grant.get_source().map_err(malformed)?;
        let mode = grant.get_mode().map_err(|_| bad("unknown grant mode"))?;
        match source.which().map_err(|_| bad("unknown grant source"))? {
            cap_grant_source::Kernel(source) => {
                let source = source.map_err(|_| bad("unknown kernel source"))?;
                let source = served(source).ok_or(Exception::unimplemented())?;
                if !self.may_make(from, source) {
                    return Err(Exception::failed("not yours to give: you hold none").into());
                }
                if mode != CapGrantMode::Raw {
                    return Err(bad("kernel sources are granted raw"));
                }
                Ok(Grant {
                    badge,
                    ..Grant::kernel(name, source)
                })
            }
            cap_grant_source::Capability(()) => {
                let cap = CapId::from_raw(grant.get_cap_id());
                let interface_id = grant.get_interface_id();
                let passing = match mode {
                    CapGrantMode::Raw => self.raw_grant(from, cap, interface_id, badge)?,
                    CapGrantMode::Move => Passing::Move,
                    CapGrantMode::ClientEndpoint => Passing::Client {
                        interface_id: Some(interface_id),
                        badge: (badge != PRESERVE_CLIENT_ENDPOINT_BADGE).then_some(badge),
                        disclosure_scope: self.disclosure_scope_of(from, cap),
                    },
                    CapGrantMode::ServiceObject => {
                        self.service_object(from, cap, interface_id, badge)?
                    }
                };
                Ok(Grant::held(name, from, cap, passing))
            }
        }
    }

    /// What a facet of this capability may disclose: as much as itself.
    fn disclosure_scope_of(&self, from: Pid, cap: CapId) -> u64 {
        let hold = self
            .process(from)
            .and_then(|process| process.caps.lookup(cap, &self.objects).ok());
        hold.map_or(0, |hold| hold.disclosure_scope)
    }

    /// A facet that stands for one object of a service: its badge is a
    /// receiver cookie, by which the service finds the object.
    fn service_object(
        &self,
        from: Pid,
        cap: CapId,
        interface_id: u64,
        badge: u64,
    ) -> Result<Passing, Refusal> {
        let process = self.process(from).ok_or(bad("no such capability"))?;
        let hold = process.caps.lookup(cap, &self.objects);
        let hold = hold.map_err(|_| bad("no such capability"))?;
        let cookie = match badge {
            PRESERVE_CLIENT_ENDPOINT_BADGE => hold.badge,
            badge => badge,
        };
        if ServiceReceiverCookie::decode(cookie).is_none() {
            return Err(bad("not a receiver cookie"));
        }
        Ok(Passing::Client {
            interface_id: Some(interface_id),
            badge: Some(cookie),
            disclosure_scope: hold.disclosure_scope,
        })
    }

    /// A raw grant repeats what the holder has; it relabels nothing.
    fn raw_grant(
        &self,
        from: Pid,
        cap: CapId,
        interface_id: u64,
        badge: u64,
    ) -> Result<Passing, Refusal> {
        let process = self.process(from).ok_or(bad("no such capability"))?;
        let hold = process
            .caps
            .lookup(cap, &self.objects)
            .map_err(|_| bad("no such capability"))?;
        let is_memory = matches!(self.objects.get(hold.object), Some(Object::MemoryObject(_)));
        if is_memory && interface_id == SHARED_PARK_SPACE_INTERFACE_ID && badge == 0 {
            return Ok(Passing::SharedParkSpace);
        }
        if hold.interface_id != interface_id || hold.badge != badge {
            return Err(bad("a raw grant cannot relabel"));
        }
        Ok(Passing::Raw)
    }

    /// Starts a program and gives the parent what it is to have.
    pub(crate) fn spawn_granted(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        order: &Order<'_>,
    ) -> Result<CapCqe, Refusal> {
        let grants = order.grants;
        self.check_result_room(caller, sqe, SPAWN_RESULT_BYTES, order.result_caps())?;
        let parent = self.process(caller.thread.pid).ok_or(bad("no parent"))?;
        let limits = match order.opens_sessions() {
            true => parent.limits,
            false => parent.limits.for_child(),
        };
        let (session, class) = match order.session {
            Some(session) => (session, Class::Application),
            None => (parent.session, parent.class.of_child()),
        };
        self.check_family(caller.thread.pid)?;
        let embryo = machine.prepare(order.program).map_err(prepare_refused)?;
        let mut capset = [0; CAPSET_PAGE_BYTES];
        let spec = ProcessSpec::new(embryo.ring, embryo.space)
            .limits(limits)
            .grants(grants)
            .session(session)
            .regranting(order.regrant)
            .class(class);
        let child = match self.create_reserving(spec, &mut capset) {
            Ok(child) => child,
            Err(error) => {
                machine.discard();
                return Err(create_refused(&error).into());
            }
        };
        self.sponsor(child, caller.thread.pid);
        let launched = machine.launch(child, class, &capset);
        let given = launched
            .map_err(|error| prepare_refused(error).into())
            .and_then(|()| self.give_results(machine, caller, sqe, child, order.given));
        match given {
            Ok(_) => self.finish_moves(grants),
            Err(_) => {
                self.destroy_process(machine, child);
                self.give_back_moves(grants);
            }
        }
        given
    }

    /// Gives the parent what it is to have of the child, and writes the result.
    fn give_results(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        child: Pid,
        what: Given,
    ) -> Result<CapCqe, Refusal> {
        let mut given = ResultCaps::new();
        if let Err(error) = self.insert_results(caller.thread.pid, child, what, &mut given) {
            self.take_results_back(caller.thread.pid, &given);
            return Err(create_refused(&error).into());
        }
        let mut result = [0; SPAWN_RESULT_BYTES];
        let len = emit_spawned(&mut result, what).unwrap_or(result.len());
        self.write_results(machine, caller, sqe, &result[..len], &given)
    }

    fn insert_results(
        &mut self,
        parent: Pid,
        child: Pid,
        what: Given,
        given: &mut ResultCaps,
    ) -> Result<(), CreateError> {
        let record = HandleRecord {
            state: State::Running(child),
            waiter: None,
        };
        let index = self.handles.insert(record);
        let index = index.map_err(|_| CreateError::ObjectsExhausted)?;
        match self.mint_object(Object::ProcessHandle(index)) {
            Ok(hold) => {
                if let Some(process) = self.process_mut(child) {
                    process.handle = Some(index);
                }
                let hold = match what {
                    Given::Mediation => minted(hold),
                    _ => Hold {
                        origin: HoldOrigin::ResultCap,
                        ..hold
                    },
                };
                self.insert_result(parent, hold, hold.origin, given)?;
            }
            Err(error) => {
                self.handles.remove(index);
                return Err(error);
            }
        }
        if what.has_manager() {
            let manager = self.mint_object(Object::CapabilityManager(child))?;
            self.insert_result(parent, manager, HoldOrigin::ResultCap, given)?;
        }
        if what == Given::Handle {
            return Ok(());
        }
        for owner in self.endpoints_made_for(child) {
            let facet = self.facet_of_owned(child, owner, PLAIN_FACET)?;
            let origin = HoldOrigin::SpawnedEndpoint;
            self.insert_result(parent, facet, origin, given)?;
        }
        Ok(())
    }

    /// `SpawnerExtension.createEndpoint`: an endpoint for others to serve.
    fn create_endpoint(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<CapCqe, Refusal> {
        let full = Exception::overloaded("too many endpoints");
        self.check_result_room(caller, sqe, INDEX_RESULT_BYTES, 1)?;
        let pid = caller.thread.pid;
        let limits = self.process(pid).ok_or(full)?.limits;
        if self
            .process(pid)
            .is_none_or(|maker| maker.made.endpoints >= limits.endpoints)
        {
            return Err(full.into());
        }
        let minted = self.mint_endpoint(&limits);
        let hold = minted.map_err(|error| create_refused(&error))?;
        if let Some(Object::EndpointOwner(index)) = self.objects.get(hold.object)
            && let Some(endpoint) = self.endpoints.table.get_mut(index)
        {
            endpoint.payer = Some(pid);
        }
        if let Some(maker) = self.process_mut(pid) {
            maker.made.endpoints += 1;
        }
        let origin = HoldOrigin::ResultCap;
        self.give_one(machine, caller, sqe, Hold { origin, ..hold })
    }

    /// The child's own endpoints that came into being with it.
    fn endpoints_made_for(&self, child: Pid) -> Vec<CapId> {
        let Some(process) = self.process(child) else {
            return Vec::new();
        };
        let made = process.caps.iter().filter(|(_, hold)| {
            hold.origin == HoldOrigin::Kernel
                && matches!(
                    self.objects.get(hold.object),
                    Some(Object::EndpointOwner(_))
                )
        });
        made.map(|(id, _)| id).collect()
    }

    /// `ProcessHandle.wait`: the exit code, now or when there is one.
    fn wait_for_exit(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
    ) -> Result<Outcome, Refusal> {
        let gone = Exception::disconnected("no such process");
        let record = *self.handles.get(index).ok_or(gone)?;
        let waiter = Waiting::new(caller, sqe);
        if let State::Ended(code) = record.state {
            let result = self.write_exit_code(machine, &waiter, code);
            return Ok(Outcome::code(sqe, result));
        }
        if record.waiter.is_some() {
            return Err(Exception::failed("someone waits already").into());
        }
        let process = self.process_mut(caller.thread.pid).ok_or(gone)?;
        process.begin_outstanding()?;
        if let Some(record) = self.handles.get_mut(index) {
            record.waiter = Some(waiter);
        }
        Ok(Outcome::Pending)
    }

    /// `ProcessHandle.terminate`: ends the process; nothing happens if it has
    /// ended.
    fn terminate(&mut self, machine: &mut M, sqe: &CapSqe, index: u32) -> Result<Outcome, Refusal> {
        let gone = Exception::disconnected("no such process");
        let record = *self.handles.get(index).ok_or(gone)?;
        if let State::Running(pid) = record.state {
            self.end_process(machine, pid, EXIT_TERMINATED);
        }
        Ok(Outcome::code(sqe, 0))
    }

    /// Writes `wait`'s result; returns the completion code.
    fn write_exit_code(&mut self, machine: &mut M, waiter: &Waiting, code: i64) -> i32 {
        let mut bytes = [0; WAIT_RESULT_BYTES];
        let len = emit_exit_code(&mut bytes, code).unwrap_or(bytes.len());
        self.write_result(machine, waiter, &bytes[..len])
    }

    /// Tells a process's handle that it ended, and whoever waits.
    pub(crate) fn settle_handle(&mut self, machine: &mut M, handle: Option<u32>, code: i64) {
        let Some(record) = handle.and_then(|index| self.handles.get_mut(index)) else {
            return;
        };
        record.state = State::Ended(code);
        if let Some(waiter) = record.waiter.take() {
            let result = self.write_exit_code(machine, &waiter, code);
            self.finish_waiting(machine, &waiter, result);
        }
    }

    /// Forgets what a process that is gone was waiting for.
    pub(crate) fn forget_exit_waits(&mut self, pid: Pid) {
        for record in self.handles.values_mut() {
            record.waiter.take_if(|waiter| waiter.thread.pid == pid);
        }
    }

    /// The last hold on a handle is gone: the process goes on, unwatched.
    pub(crate) fn close_handle(&mut self, machine: &mut M, index: u32) {
        let Some(record) = self.handles.remove(index) else {
            return;
        };
        if let State::Running(pid) = record.state
            && let Some(process) = self.process_mut(pid)
        {
            process.handle = None;
        }
        if let Some(waiter) = record.waiter {
            let closed = Exception::disconnected("handle released");
            self.fail_waiting(machine, &waiter, closed);
        }
    }

    /// As [`Server::close_handle`], where nobody can wait yet.
    pub(crate) fn discard_handle(&mut self, index: u32) {
        if let Some(record) = self.handles.remove(index)
            && let State::Running(pid) = record.state
            && let Some(process) = self.process_mut(pid)
        {
            process.handle = None;
        }
    }

    /// Operations of `pid` that wait for an exit (H2).
    pub(crate) fn exit_waits(&self, pid: Pid) -> usize {
        let waits = |record: &HandleRecord| record.waiter.is_some_and(|w| w.thread.pid == pid);
        self.handles.iter().filter(|(_, r)| waits(r)).count()
    }

    /// Asserts H1.
    pub(crate) fn check_handles(&self) {
        self.handles.check();
        for (index, record) in self.handles.iter() {
            if let State::Running(pid) = record.state {
                let handle = self.process(pid).and_then(|process| process.handle);
                assert_eq!(handle, Some(index), "H1: handle {index}");
            }
        }
    }
}

/// A message of one word of data: table, pointer, data.
const SPAWN_RESULT_BYTES: usize = 3 * size_of::<Word>();
const WAIT_RESULT_BYTES: usize = 3 * size_of::<Word>();

/// Handle first, manager second. The results of launchers are as long, and do
/// not have a manager.
fn emit_spawned(out: &mut [u8], what: Given) -> Result<usize, NoRoom> {
    let size = <spawn_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u16(root, 0, 0)?;
    if what.has_manager() {
        message.set_u16(root, 1, 1)?;
    }
    message.finish()
}

fn emit_exit_code(out: &mut [u8], code: i64) -> Result<usize, NoRoom> {
    let size = <wait_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u64(root, 0, code as u64)?;
    message.finish()
}

pub(crate) fn bad(message: &'static str) -> Refusal {
    Exception::invalid_argument(message).into()
}

pub(crate) fn text<'a>(text: capnp::Result<capnp::text::Reader<'a>>) -> Result<&'a str, Refusal> {
    text.map_err(malformed)?
        .to_str()
        .map_err(|_| bad("text is not UTF-8"))
}

/// Checks that a child can find each grant by its name.
fn check_names(grants: &[Grant<'_>]) -> Result<(), Refusal> {
    for (index, grant) in grants.iter().enumerate() {
        let earlier = &grants[..index];
        if grant.name.is_empty() || earlier.iter().any(|other| other.name == grant.name) {
            return Err(bad("bad grant name"));
        }
    }
    Ok(())
}

/// The sources a spawner can mint for a child; others are refused.
pub(crate) fn kernel_source(source: capos_capnp::KernelCapSource) -> Option<KernelCapSource> {
    use capos_capnp::KernelCapSource as Wire;
    Some(match source {
        Wire::Console => KernelCapSource::Console,
        Wire::Timer => KernelCapSource::Timer,
        Wire::ParkSpace => KernelCapSource::ParkSpace,
        Wire::Endpoint => KernelCapSource::Endpoint,
        Wire::ChatEndpoint => KernelCapSource::ChatEndpoint,
        Wire::ProcessSpawner => KernelCapSource::ProcessSpawner,
        Wire::BootPackage => KernelCapSource::BootPackage,
        Wire::VirtualMemory => KernelCapSource::VirtualMemory,
        Wire::FrameAllocator => KernelCapSource::FrameAllocator,
        Wire::ThreadControl => KernelCapSource::ThreadControl,
        Wire::ThreadSpawner => KernelCapSource::ThreadSpawner,
        Wire::WallClock => KernelCapSource::WallClock,
        Wire::EntropySource => KernelCapSource::EntropySource,
        Wire::SessionManager => KernelCapSource::SessionManager,
        Wire::SchedulingContext => KernelCapSource::SchedulingContext,
        Wire::SchedulingPolicy => KernelCapSource::SchedulingPolicy,
        Wire::TerminalSession => KernelCapSource::TerminalSession,
        _ => return None,
    })
}

#[cold]
fn prepare_refused(error: PrepareError) -> Exception {
    match error {
        PrepareError::NoSuchProgram => Exception::invalid_argument("no such program"),
        PrepareError::BadProgram => Exception::invalid_argument("the program was refused"),
        PrepareError::NoMemory => Exception::overloaded("out of memory"),
    }
}

#[cold]
pub(crate) fn create_refused(error: &CreateError) -> Exception {
    match error {
        CreateError::TooManyProcesses | CreateError::PidsExhausted => {
            Exception::overloaded("too many processes")
        }
        CreateError::CapSlotsExhausted => Exception::overloaded("capability slots exhausted"),
        CreateError::ObjectsExhausted => Exception::overloaded("objects exhausted"),
        CreateError::PagesExhausted => Exception::overloaded("frame grant quota exhausted"),
        CreateError::NoMemory => Exception::overloaded("out of memory"),
        CreateError::Unsupported(_) => Exception::unimplemented(),
        CreateError::CapSet(CapSetError::Full) => Exception::overloaded("too many grants"),
        CreateError::CapSet(_) => Exception::invalid_argument("bad grant name"),
        CreateError::NoSuchSession => Exception::disconnected("session ended"),
        CreateError::NoSuchHold => Exception::invalid_argument("no such capability"),
        CreateError::NotTransferable => Exception::failed("capability cannot be passed on"),
        CreateError::CrossesSession => Exception::failed("capability cannot leave its session"),
        CreateError::Relabel => Exception::failed("a delegated facet cannot be relabelled"),
        CreateError::NotAnEndpoint => Exception::invalid_argument("not an endpoint"),
        CreateError::NotMemory => Exception::invalid_argument("not a memory object"),
        CreateError::NoBootSecret => Exception::failed("no boot secret"),
    }
}
