//! Who a program is that was started into a session. An endpoint sees that
//! session whatever the program calls through, and never the session that a
//! caller merely holds. What belongs to one session does not enter another but by
//! the trusted path; a call after the session's end is not delivered; and what a
//! caller holds can be had while its call is served, by whoever serves it.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::prelude::*;
use capos::{
    AuthStrength, Capability, CapabilityRef, Console, Endpoint, ExceptionType, KernelCapSource,
    OwnedCapability, PrincipalKind, ProcessHandle, ProcessHandleClient, RestrictedLauncher,
    RestrictedLauncherClient, RuntimeRingClient, SpawnGrant, Timer, UserSession, UserSessionClient,
};
use capos_abi::ENDPOINT_SESSION_PROFILE_OPERATOR;
use raw_ring::proof::{self, Failure, Proof, equal, that};
use raw_ring::{Loopback, Mailbox, Message, PATIENCE_NS, Process, Sqe, family, receive, returns};
use sel4_capos_client::{NewSession, SessionMintClient};

const VISITOR: &str = "visitor";
const SECOND_NS: u64 = 1_000_000_000;
const NEVER: u64 = u64::MAX;

/// A caller's session as an endpoint sees it: reference and epoch.
type Reference = (u64, u64, u64);

/// A call that was received.
struct Visit {
    call_id: u32,
    caller: Reference,
    badge: u64,
    /// The caller's number for the capability it called through, as it says.
    number: u32,
}

/// What the proof works with.
struct Host<'a> {
    runtime: &'a mut Runtime,
    endpoint: CapabilityRef,
}

fn failed(what: &str) -> impl Fn(ClientError) -> Failure + '_ {
    move |error| Failure::new(format!("{what}: {error:?}"))
}

/// Says so unless `outcome` is an exception of type `kind`.
fn refused<T>(what: &str, outcome: Result<T, ClientError>, kind: ExceptionType) -> Proof {
    match outcome {
        Ok(_) => Err(Failure::new(format!("{what}: accepted"))),
        Err(ClientError::Application(exception)) => equal(what, exception.exception_type(), kind),
        Err(error) => Err(failed(what)(error)),
    }
}

/// Receives a call at `endpoint`.
fn take(process: &mut Process, endpoint: CapabilityRef) -> Result<Visit, Failure> {
    let mut mailbox = Mailbox::new(256);
    let receiving = receive(endpoint.cap_id(), &mut mailbox);
    let cqe = process.ring.perform(receiving)?;
    let delivery = mailbox.delivery(&cqe)?;
    let session = delivery.header.caller_session;
    equal("disclosed", session.disclosed_fields, 0)?;
    let number = delivery.params.try_into().map(u32::from_le_bytes);
    Ok(Visit {
        call_id: delivery.call_id,
        caller: (session.scoped_ref, session.scoped_ref_hi, session.epoch),
        badge: delivery.badge,
        number: number.unwrap_or_default(),
    })
}

fn answer(process: &mut Process, endpoint: CapabilityRef, visit: &Visit) -> Proof {
    let answer = returns(endpoint.cap_id(), visit.call_id).params(b"ok");
    process.ring.expect("RETURN", answer, 0).map(drop)
}

impl Host<'_> {
    fn mint(&self) -> Result<SessionMintClient, Failure> {
        let mint = self.runtime.capset().get_client(b"mint");
        mint.map_err(|_| Failure::new("no session mint"))
    }

    fn ring(&mut self) -> Result<RuntimeRingClient<'_>, Failure> {
        let ring = self.runtime.ring_client();
        ring.map_err(|_| Failure::new("no ring client"))
    }

    fn open(
        &mut self,
        id: &str,
        lifetime_ns: u64,
    ) -> Result<OwnedCapability<UserSession>, Failure> {
        let session = NewSession {
            session_id: id.as_bytes(),
            principal_id: b"somebody",
            kind: PrincipalKind::Operator,
            auth_strength: AuthStrength::Password,
            display_name: id,
            profile: "operator",
            profile_class: ENDPOINT_SESSION_PROFILE_OPERATOR,
            lifetime_ns,
        };
        let mut mint = self.mint()?;
        mint.open_wait(&mut self.ring()?, &session, PATIENCE_NS)
            .map_err(failed("open"))
    }

    fn launcher(
        &mut self,
        session: &OwnedCapability<UserSession>,
    ) -> Result<OwnedCapability<RestrictedLauncher>, Failure> {
        let (mut mint, session) = (self.mint()?, session.capability());
        mint.launcher_wait(&mut self.ring()?, session, &[VISITOR], PATIENCE_NS)
            .map_err(failed("launcher"))
    }

    /// Starts the visitor with the calling side of the endpoint, and `more`.
    fn launch(
        &mut self,
        launcher: &OwnedCapability<RestrictedLauncher>,
        badge: u64,
        more: Option<SpawnGrant<'_>>,
    ) -> Result<Result<OwnedCapability<ProcessHandle>, ClientError>, Failure> {
        let parent = family::labelled("parent", self.endpoint, badge);
        let grants = [Some(parent), more].into_iter().flatten();
        let grants: alloc::vec::Vec<_> = grants.collect();
        let mut launcher = RestrictedLauncherClient::from_capability(launcher.capability());
        Ok(launcher.spawn_wait(&mut self.ring()?, VISITOR, VISITOR, &grants, PATIENCE_NS))
    }

    fn succeeds(&mut self, child: &OwnedCapability<ProcessHandle>) -> Proof {
        let mut child = ProcessHandleClient::from_capability(child.capability());
        let code = child.wait_wait(&mut self.ring()?, PATIENCE_NS);
        equal("the visitor", code.map_err(failed("wait"))?, 0)
    }

    fn receive(&mut self) -> Result<Visit, Failure> {
        take(&mut Process::new(self.runtime), self.endpoint)
    }

    fn answer(&mut self, visit: &Visit) -> Proof {
        answer(&mut Process::new(self.runtime), self.endpoint, visit)
    }

    /// Calls the endpoint itself. A call that somebody else had left there would
    /// be seen in its place.
    fn own_reference(&mut self) -> Result<Reference, Failure> {
        let own = Loopback {
            endpoint: self.endpoint.cap_id(),
        };
        let message = Message::new(&[], &[]);
        let mut result = Mailbox::new(64);
        let mut process = Process::new(self.runtime);
        let call = process.ring.start(own.call(&message, &mut result))?;
        let visit = take(&mut process, self.endpoint)?;
        answer(&mut process, self.endpoint, &visit)?;
        equal("the own call", process.ring.wait(call)?.result, 2)?;
        Ok(visit.caller)
    }

    /// Who a visitor from `launcher` is.
    fn visit(
        &mut self,
        launcher: &OwnedCapability<RestrictedLauncher>,
        badge: u64,
    ) -> Result<Reference, Failure> {
        let child = self
            .launch(launcher, badge, None)?
            .map_err(failed("launch"))?;
        let visit = self.receive()?;
        equal("badge", visit.badge, badge)?;
        self.answer(&visit)?;
        self.succeeds(&child)?;
        Ok(visit.caller)
    }

    /// A launcher decides whose session it is; holding a `UserSession` does not.
    fn launched_is_who_was_chosen(
        &mut self,
        alpha: &OwnedCapability<RestrictedLauncher>,
        beta: &OwnedCapability<RestrictedLauncher>,
        own: Reference,
    ) -> Proof {
        let first = self.visit(alpha, 1)?;
        let again = self.visit(alpha, 77)?;
        let other = self.visit(beta, 1)?;
        equal("two of one session", again, first)?;
        that(first != other, "two sessions, one reference")?;
        that(first != own && other != own, "the session of the launcher")?;
        equal("the holder of both", self.own_reference()?, own)
    }

    /// A console is its session's; a timer is anybody's. `SessionMint.spawn` is
    /// the trusted path.
    fn only_the_trusted_path(
        &mut self,
        session: Capability<UserSession>,
        launcher: &OwnedCapability<RestrictedLauncher>,
    ) -> Proof {
        let console = family::same(self.runtime, "console")?;
        let launched = self.launch(launcher, 1, Some(console))?;
        refused("a console", launched, ExceptionType::Failed)?;
        let grants = [console, family::labelled("parent", self.endpoint, 1)];
        let mut mint = self.mint()?;
        let names = (VISITOR, VISITOR);
        let child = mint.spawn_wait(&mut self.ring()?, session, names, &grants, PATIENCE_NS);
        let child = child.map_err(failed("spawn"))?.handle;
        let visit = self.receive()?;
        self.answer(&visit)?;
        self.succeeds(&child)
    }

    /// A capability of a caller: while its call is served, of the right
    /// interface, and by nobody else.
    fn callers_capabilities(&mut self, launcher: &OwnedCapability<RestrictedLauncher>) -> Proof {
        let child = self.launch(launcher, 1, None)?.map_err(failed("launch"))?;
        let visit = self.receive()?;
        let (call_id, number) = (visit.call_id, visit.number);
        let mut mint = self.mint()?;
        let invalid = ExceptionType::InvalidArgument;
        {
            let mut ring = self.ring()?;
            let had: Result<OwnedCapability<Endpoint>, _> =
                mint.caller_capability_wait(&mut ring, call_id, number, PATIENCE_NS);
            had.map_err(failed("what the caller holds"))?;
            for (what, call_id, number) in [
                ("unknown call", call_id.wrapping_add(1), number),
                ("no call", 0, number),
                ("far call", u32::MAX, number),
                ("unknown capability", call_id, number.wrapping_add(1)),
                ("far capability", call_id, u32::MAX),
            ] {
                let had: Result<OwnedCapability<Endpoint>, _> =
                    mint.caller_capability_wait(&mut ring, call_id, number, PATIENCE_NS);
                refused(what, had, invalid)?;
            }
            let had: Result<OwnedCapability<Timer>, _> =
                mint.caller_capability_wait(&mut ring, call_id, number, PATIENCE_NS);
            refused("a timer it is not", had, invalid)?;
            let had: Result<OwnedCapability<Console>, _> =
                mint.caller_capability_wait(&mut ring, call_id, number, PATIENCE_NS);
            refused("a console it is not", had, invalid)?;
        }
        self.strangers_ask(call_id, number)?;
        self.answer(&visit)?;
        let mut ring = self.ring()?;
        let late: Result<OwnedCapability<Endpoint>, _> =
            mint.caller_capability_wait(&mut ring, call_id, number, PATIENCE_NS);
        refused("an answered call", late, invalid)?;
        drop(ring);
        self.succeeds(&child)
    }

    /// Another holder of a mint asks about a call that this program serves.
    fn strangers_ask(&mut self, call_id: u32, number: u32) -> Proof {
        let timer = family::held(self.runtime, "timer")?;
        let (call, cap) = (format!("call-{call_id}"), format!("cap-{number}"));
        let told = |name| SpawnGrant {
            name,
            ..family::same(self.runtime, "timer").unwrap_or_else(|_| family::facet(name, timer))
        };
        let grants = [
            family::fresh("mint", KernelCapSource::SessionManager),
            told(&call),
            told(&cap),
        ];
        let stranger = family::spawn(self.runtime, VISITOR, &grants)?;
        stranger.succeeds(self.runtime, "the stranger")
    }

    /// Calls after the session's end are refused, and never arrive.
    fn nothing_arrives_late(&mut self, own: Reference) -> Proof {
        let session = self.open("short", SECOND_NS)?;
        let launcher = self.launcher(&session)?;
        let late = SpawnGrant {
            name: "late",
            ..family::same(self.runtime, "timer")?
        };
        let child = self.launch(&launcher, 1, Some(late))?;
        self.succeeds(&child.map_err(failed("launch"))?)?;
        equal("what is at the endpoint", self.own_reference()?, own)?;
        let launched = self.launch(&launcher, 1, None)?;
        refused("a launch afterwards", launched, ExceptionType::Disconnected)?;
        let mut session = UserSessionClient::from_capability(session.capability());
        let info = session.info_wait(&mut self.ring()?, PATIENCE_NS);
        refused("its info", info, ExceptionType::Disconnected)
    }
}

fn prove(runtime: &mut Runtime) -> Proof {
    let endpoint = family::held(runtime, "endpoint")?;
    let mut host = Host { runtime, endpoint };
    let own = host.own_reference()?;
    let (alpha, beta) = (host.open("alpha", NEVER)?, host.open("beta", NEVER)?);
    equal("a holder of sessions", host.own_reference()?, own)?;
    let (in_alpha, in_beta) = (host.launcher(&alpha)?, host.launcher(&beta)?);
    host.launched_is_who_was_chosen(&in_alpha, &in_beta, own)?;
    host.only_the_trusted_path(alpha.capability(), &in_alpha)?;
    host.callers_capabilities(&in_alpha)?;
    host.nothing_arrives_late(own)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "session-launched", prove)
}

entry_point!(main);
