//! `SessionMint`, and what this system adds to `ProcessSpawner` and
//! `ThreadControl`.

use alloc::boxed::Box;
use alloc::vec;

use capnp::message::{Builder, HeapAllocator};
use capos::capos_capnp::{cap_grant, process_spawner};
use capos::ring::CopyTransfer;
use capos::{
    AuthStrength, CallId, CapCqe, Capability, CapabilityRef, CapabilityType, Client, ClientError,
    CompletedCall, Endpoint, OwnedCapability, PrincipalKind, ProcessSpawner, ProcessSpawnerClient,
    RestrictedLauncher, RingClientError, RuntimeRingClient, SpawnGrant, SpawnResult, ThreadControl,
    Transport, UserSession, decode_completed_call,
};
use sel4_capos_schema::notification_capnp::spawner_extension;
use sel4_capos_schema::session_capnp::{session_mint, thread_control_extension};
use sel4_capos_schema::{SESSION_MINT_INTERFACE_ID, method};

use crate::{RESULT_BYTES, State, finished, only_capability};

/// Marks a capability to open sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionMint;

impl CapabilityType for SessionMint {
    const INTERFACE_ID: u64 = SESSION_MINT_INTERFACE_ID;
}

/// What a new session is.
#[derive(Clone, Copy, Debug)]
pub struct NewSession<'a> {
    /// Its identity, 1 to 32 bytes; no open session has the same.
    pub session_id: &'a [u8],
    /// Whose it is; at most 32 bytes.
    pub principal_id: &'a [u8],
    /// What kind of principal that is.
    pub kind: PrincipalKind,
    /// How they proved it.
    pub auth_strength: AuthStrength,
    /// Their name for people; at most 96 bytes.
    pub display_name: &'a str,
    /// Name of the profile they work under; at most 64 bytes.
    pub profile: &'a str,
    /// `ENDPOINT_SESSION_PROFILE_*` of the ring ABI.
    pub profile_class: u16,
    /// Nanoseconds until it ends by itself; `u64::MAX` for never.
    pub lifetime_ns: u64,
}

/// Opens sessions and starts programs in them.
#[derive(Debug)]
pub struct SessionMintClient(State<SessionMint>);

impl Client for SessionMintClient {
    type Capability = SessionMint;

    fn from_capability(capability: Capability<SessionMint>) -> Self {
        let broken = false;
        Self(State { capability, broken })
    }

    fn capability(&self) -> Capability<SessionMint> {
        self.0.capability
    }

    fn is_broken(&self) -> bool {
        self.0.broken
    }
}

impl SessionMintClient {
    /// Opens a session.
    ///
    /// # Errors
    /// The ring's, or an exception: `invalidArgument` for what the schema
    /// refuses, `overloaded` when there are too many sessions.
    pub fn open_wait(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        session: &NewSession<'_>,
        timeout_ns: u64,
    ) -> Result<OwnedCapability<UserSession>, ClientError> {
        self.one_capability(ring, method::OPEN, open_params(session), timeout_ns)
    }

    /// Makes a launcher of the programs named, in a session.
    ///
    /// # Errors
    /// The ring's, or an exception: `disconnected` if the session ended.
    pub fn launcher_wait(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        session: Capability<UserSession>,
        binaries: &[&str],
        timeout_ns: u64,
    ) -> Result<OwnedCapability<RestrictedLauncher>, ClientError> {
        let params = launcher_params(session.cap_id(), binaries);
        self.one_capability(ring, method::LAUNCHER, params, timeout_ns)
    }

    /// A copy of what the process whose call is being served holds as `cap_id`.
    ///
    /// # Errors
    /// The ring's, or an exception: `invalidArgument` if there is no such call
    /// or capability.
    pub fn caller_capability_wait<T: CapabilityType>(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call_id: u32,
        cap_id: u32,
        timeout_ns: u64,
    ) -> Result<OwnedCapability<T>, ClientError> {
        let params = caller_capability_params(call_id, cap_id, T::INTERFACE_ID);
        self.one_capability(ring, method::CALLER_CAPABILITY, params, timeout_ns)
    }

    /// The calling side of an endpoint of this process, as interface `T`.
    ///
    /// # Errors
    /// The ring's, or an exception.
    pub fn facet_wait<T: CapabilityType>(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        endpoint: Capability<Endpoint>,
        badge: u64,
        disclosure_scope: u64,
        timeout_ns: u64,
    ) -> Result<OwnedCapability<T>, ClientError> {
        let labels = (T::INTERFACE_ID, badge, disclosure_scope);
        let params = facet_params(endpoint.cap_id(), labels);
        self.one_capability(ring, method::FACET, params, timeout_ns)
    }

    /// Starts a program in a session.
    ///
    /// # Errors
    /// As `ProcessSpawner.spawn`, and `disconnected` if the session ended.
    pub fn spawn_wait(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        session: Capability<UserSession>,
        (name, binary): (&str, &str),
        grants: &[SpawnGrant<'_>],
        timeout_ns: u64,
    ) -> Result<SpawnResult, ClientError> {
        if self.0.broken {
            return Err(ClientError::BrokenCapability);
        }
        let mint = CapabilityRef::new(
            self.0.capability.cap_id(),
            <ProcessSpawner as CapabilityType>::INTERFACE_ID,
        );
        let spawner = mint.typed::<ProcessSpawner>();
        let spawner = spawner.ok_or(ClientError::MessageEncode)?;
        let mut spawner = ProcessSpawnerClient::from_capability(spawner);
        let mut into = IntoSession {
            ring,
            session: session.cap_id(),
        };
        let call = spawner.spawn(&mut into, name, binary, grants)?;
        spawner.wait_spawn_with_parent_endpoints(ring, call, timeout_ns)
    }

    fn one_capability<T: CapabilityType>(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        method: u16,
        params: Box<[u8]>,
        timeout_ns: u64,
    ) -> Result<OwnedCapability<T>, ClientError> {
        let call = self.0.submit(&mut **ring, method, params)?;
        only_capability(ring, call, timeout_ns)
    }
}

/// Turns what the published client of `ProcessSpawner.spawn` submits into
/// `SessionMint.spawn`: the requests differ by the session, the results do not.
struct IntoSession<'a, R> {
    ring: &'a mut R,
    session: u32,
}

impl<R: Transport> Transport for IntoSession<'_, R> {
    fn submit_call(
        &mut self,
        cap_id: u32,
        _method_id: u16,
        params: Box<[u8]>,
        result: Box<[u8]>,
    ) -> Result<CallId, RingClientError> {
        let params = into_session(&params, self.session).unwrap_or_default();
        self.ring.submit_call(cap_id, method::SPAWN, params, result)
    }

    fn submit_call_with_copy_transfers(
        &mut self,
        cap_id: u32,
        method_id: u16,
        params: Box<[u8]>,
        result: Box<[u8]>,
        transfers: &[CopyTransfer],
    ) -> Result<CallId, RingClientError> {
        self.ring
            .submit_call_with_copy_transfers(cap_id, method_id, params, result, transfers)
    }

    fn submit_call_borrowed_wait_forever(
        &mut self,
        cap_id: u32,
        method_id: u16,
        params: &[u8],
        result: &mut [u8],
    ) -> Result<CapCqe, RingClientError> {
        self.ring
            .submit_call_borrowed_wait_forever(cap_id, method_id, params, result)
    }

    fn wait(&mut self, call: CallId, timeout_ns: u64) -> Result<CompletedCall, RingClientError> {
        self.ring.wait(call, timeout_ns)
    }

    fn try_complete(&mut self, call: CallId) -> Result<Option<CompletedCall>, RingClientError> {
        self.ring.try_complete(call)
    }

    fn release_wait(&mut self, cap_id: u32, timeout_ns: u64) -> Result<i32, RingClientError> {
        self.ring.release_wait(cap_id, timeout_ns)
    }
}

/// A spawn request with a session; `None` for what no client encodes.
fn into_session(mut params: &[u8], session: u32) -> Option<Box<[u8]>> {
    let options = capos::default_reader_options();
    let message = capnp::serialize::read_message_from_flat_slice_no_alloc(&mut params, options);
    let message = message.ok()?;
    let request: process_spawner::spawn_params::Reader<'_> = message.get_root().ok()?;
    let mut out = Builder::new_default();
    let mut spawn: session_mint::spawn_params::Builder<'_> = out.init_root();
    spawn.set_session_cap_id(session);
    spawn.set_name(request.get_name().ok()?);
    spawn.set_binary_name(request.get_binary_name().ok()?);
    let grants: capnp::struct_list::Reader<'_, cap_grant::Owned> = request.get_grants().ok()?;
    spawn.reborrow().get_grants().set_as(grants).ok()?;
    Some(finished(&out))
}

/// Makes an endpoint that the caller owns and can grant, raw, to others.
///
/// # Errors
/// The ring's, or an exception: `unimplemented` on a system without the
/// extension, `overloaded` when this process made too many.
pub fn create_endpoint_wait(
    spawner: Capability<ProcessSpawner>,
    ring: &mut RuntimeRingClient<'_>,
    timeout_ns: u64,
) -> Result<OwnedCapability<Endpoint>, ClientError> {
    let mut message = Builder::new_default();
    let _: spawner_extension::create_endpoint_params::Builder<'_> = message.init_root();
    let call = submit(
        ring,
        spawner.cap_id(),
        method::CREATE_ENDPOINT,
        finished(&message),
    )?;
    only_capability(ring, call, timeout_ns)
}

/// Makes the calling process an application for good.
///
/// # Errors
/// The ring's, or an exception: `unimplemented` on a system without the
/// extension.
pub fn leave_service_class_wait(
    control: Capability<ThreadControl>,
    ring: &mut RuntimeRingClient<'_>,
    timeout_ns: u64,
) -> Result<(), ClientError> {
    let mut message = Builder::new_default();
    let _: thread_control_extension::leave_service_class_params::Builder<'_> = message.init_root();
    let call = submit(
        ring,
        control.cap_id(),
        method::LEAVE_SERVICE_CLASS,
        finished(&message),
    )?;
    let completion = ring.wait(call, timeout_ns).map_err(ClientError::Ring)?;
    decode_completed_call(&completion).map(drop)
}

fn submit(
    ring: &mut RuntimeRingClient<'_>,
    cap_id: u32,
    method: u16,
    params: Box<[u8]>,
) -> Result<CallId, ClientError> {
    let result = vec![0; RESULT_BYTES].into_boxed_slice();
    ring.submit_call(cap_id, method, params, result)
        .map_err(ClientError::Ring)
}

fn open_params(session: &NewSession<'_>) -> Box<[u8]> {
    let mut message: Builder<HeapAllocator> = Builder::new_default();
    let mut params: session_mint::open_params::Builder<'_> = message.init_root();
    params.set_session_id(session.session_id);
    params.set_principal_id(session.principal_id);
    params.set_kind(kind(session.kind));
    params.set_auth_strength(strength(session.auth_strength));
    params.set_display_name(session.display_name);
    params.set_profile(session.profile);
    params.set_profile_class(session.profile_class);
    params.set_lifetime_ns(session.lifetime_ns);
    finished(&message)
}

/// The schema's ordinal.
const fn kind(kind: PrincipalKind) -> u16 {
    use capos::capos_capnp::PrincipalKind as Wire;
    let wire = match kind {
        PrincipalKind::Human => Wire::Human,
        PrincipalKind::Operator => Wire::Operator,
        PrincipalKind::Service => Wire::Service,
        PrincipalKind::Guest => Wire::Guest,
        PrincipalKind::Anonymous => Wire::Anonymous,
        PrincipalKind::Pseudonymous => Wire::Pseudonymous,
    };
    wire as u16
}

/// The schema's ordinal.
const fn strength(strength: AuthStrength) -> u16 {
    use capos::capos_capnp::AuthStrength as Wire;
    let wire = match strength {
        AuthStrength::None => Wire::None,
        AuthStrength::LocalPresence => Wire::LocalPresence,
        AuthStrength::Password => Wire::Password,
        AuthStrength::HardwareKey => Wire::HardwareKey,
        AuthStrength::MultiParty => Wire::MultiParty,
        AuthStrength::PublicKey => Wire::PublicKey,
    };
    wire as u16
}

fn launcher_params(session: u32, binaries: &[&str]) -> Box<[u8]> {
    let mut message: Builder<HeapAllocator> = Builder::new_default();
    let mut params: session_mint::launcher_params::Builder<'_> = message.init_root();
    params.set_session_cap_id(session);
    let mut list = params.init_binaries(binaries.len() as u32);
    for (index, name) in binaries.iter().enumerate() {
        list.set(index as u32, name);
    }
    finished(&message)
}

fn caller_capability_params(call_id: u32, cap_id: u32, interface_id: u64) -> Box<[u8]> {
    let mut message: Builder<HeapAllocator> = Builder::new_default();
    let mut params: session_mint::caller_capability_params::Builder<'_> = message.init_root();
    params.set_call_id(call_id);
    params.set_cap_id(cap_id);
    params.set_interface_id(interface_id);
    finished(&message)
}

fn facet_params(
    endpoint: u32,
    (interface_id, badge, disclosure_scope): (u64, u64, u64),
) -> Box<[u8]> {
    let mut message: Builder<HeapAllocator> = Builder::new_default();
    let mut params: session_mint::facet_params::Builder<'_> = message.init_root();
    params.set_endpoint_cap_id(endpoint);
    params.set_interface_id(interface_id);
    params.set_badge(badge);
    params.set_disclosure_scope(disclosure_scope);
    finished(&message)
}
