//! Where calls arrive, wait for a password to be checked and for their record to
//! be written, and leave.

use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use capos::prelude::*;
use capos::{
    AuditLog, AuditLogClient, CallId, Capability, CapabilityRef, CredentialStore, ExceptionType,
    OwnedCapability, ProcessHandle, RingClientError, RuntimeRingClient, SessionInfo, SystemInfo,
    UserSession, UserSessionClient,
};
use policy::sessions::{Accounts, Opening, Profile};
use sel4_capos_client::SessionMintClient;
use service::{Call, Event, FOREVER, Refusal, Reply, Server, ServerError, refuse, unknown_method};

use crate::launcher::Asker;
use crate::record::Decision;

/// Records on their way; as long as so many are, nothing more is decided but
/// logins whose passwords were being checked.
const RECORDS_MAX: usize = 8;
/// How long a record may take before its decision is told all the same, and
/// further ones are refused.
const RECORD_PATIENCE_NS: u64 = 2_000_000_000;

/// How often that wait is taken up again.
const LOOKS_MAX: u32 = 32;

/// A login whose password is being checked.
pub(crate) struct Login {
    pub(crate) call: Call,
    /// Whose session is to be opened; `None` if there is no such account.
    pub(crate) opening: Option<Opening>,
    pub(crate) decision: Decision,
}

/// A decision whose record is on its way.
pub(crate) struct Decided {
    record: CallId,
    /// The call and its answer, until that is told.
    untold: Option<(Call, Result<Reply, Refusal>)>,
}

/// Everything the service works with. Clients of other services are made for
/// each call: one that was told `disconnected` would say so for ever, and its
/// service may have been started again meanwhile.
pub(crate) struct Desk {
    pub(crate) mint: SessionMintClient,
    pub(crate) entropy: EntropySourceClient,
    pub(crate) system_info: Capability<SystemInfo>,
    pub(crate) credentials: Option<Capability<CredentialStore>>,
    pub(crate) audit: Option<Capability<AuditLog>>,
    pub(crate) accounts: Accounts,
    pub(crate) endpoints: Vec<(String, CapabilityRef)>,
    pub(crate) logins: Vec<(CallId, Login)>,
    pub(crate) decided: Vec<Decided>,
    /// The last shell started for each session that asked, oldest first.
    pub(crate) shells: Vec<(Asker, OwnedCapability<ProcessHandle>)>,
}

/// A caller's session, as it is now.
pub(crate) struct Caller {
    pub(crate) session: OwnedCapability<UserSession>,
    pub(crate) info: SessionInfo,
    pub(crate) profile: Profile,
}

mod endpoint {
    pub(super) const MANAGER: usize = 0;
    pub(super) const BROKER: usize = 1;
}

impl Desk {
    /// Serves until that is no longer possible.
    pub(crate) fn serve(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
    ) -> Result<Infallible, ServerError> {
        loop {
            let mut watched: Vec<CallId> = self.logins.iter().map(|(id, _)| *id).collect();
            watched.extend(self.decided.iter().map(|decided| decided.record));
            let is_any_untold = self.decided.iter().any(|decided| decided.untold.is_some());
            let patience_ns = if is_any_untold {
                RECORD_PATIENCE_NS
            } else {
                FOREVER
            };
            match server.next_within(ring, &watched, patience_ns)? {
                None => self.tell_all(ring, server)?,
                Some(Event::Call(call)) => self.call(ring, server, call)?,
                Some(Event::Completed(id, completion)) => {
                    let mut decided = self.decided.iter();
                    match decided.position(|decided| decided.record == id) {
                        Some(index) => self.is_recorded(ring, server, index)?,
                        None => self.checked(ring, server, id, completion.0)?,
                    }
                }
            }
        }
    }

    fn call(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
        mut call: Call,
    ) -> Result<(), ServerError> {
        if !self.records_are_kept(ring, server)? {
            call.erase_params();
            let refusal = refuse(ExceptionType::Overloaded, "audit log does not keep up");
            return server.answer(ring, call, Err(refusal));
        }
        match call.endpoint {
            endpoint::MANAGER => self.manage(ring, server, call),
            endpoint::BROKER => {
                let (answer, decision) = self.broker(ring, &call);
                self.settle(ring, server, call, answer, decision)
            }
            _ => {
                let (answer, decision) = self.launch(ring, &mut call);
                self.settle(ring, server, call, answer, decision)
            }
        }
    }

    /// Whether the audit log keeps up: with too many records on their way, the
    /// first of them is waited for.
    fn records_are_kept(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
    ) -> Result<bool, ServerError> {
        if self.decided.len() < RECORDS_MAX {
            return Ok(true);
        }
        let first = self.decided[0].record;
        // Anything else that is completed meanwhile cuts the wait short.
        let written = (0..LOOKS_MAX).find_map(|_| match ring.wait(first, RECORD_PATIENCE_NS) {
            Err(RingClientError::TargetStillPending) => None,
            other => Some(other.is_ok()),
        });
        let written = written.unwrap_or(false);
        if written {
            self.is_recorded(ring, server, 0)?;
        } else {
            self.tell_all(ring, server)?;
        }
        Ok(written)
    }

    /// Records a decision; its call is answered when the log has answered, so
    /// that a log which lives has written down what anybody knows.
    pub(crate) fn settle(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
        call: Call,
        answer: Result<Reply, Refusal>,
        decision: Option<Decision>,
    ) -> Result<(), ServerError> {
        server.make_room(ring)?;
        let record = self.audit.zip(decision).and_then(|(audit, decision)| {
            let mut audit = AuditLogClient::from_capability(audit);
            audit.record(ring, decision.record()).ok()
        });
        match record {
            Some(record) => {
                let untold = Some((call, answer));
                self.decided.push(Decided { record, untold });
                Ok(())
            }
            // A log that is gone must not keep people out of the system.
            None => server.answer(ring, call, answer),
        }
    }

    /// Takes in that the log has written a record, or refused it, or ended.
    fn is_recorded(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
        index: usize,
    ) -> Result<(), ServerError> {
        match self.decided.remove(index).untold {
            Some((call, answer)) => server.answer(ring, call, answer),
            None => Ok(()),
        }
    }

    /// Answers every call whose record takes too long: what was decided has
    /// happened, and the log must not keep people out of the system.
    fn tell_all(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
    ) -> Result<(), ServerError> {
        for decided in &mut self.decided {
            if let Some((call, answer)) = decided.untold.take() {
                server.answer(ring, call, answer)?;
            }
        }
        Ok(())
    }

    /// The session that a caller names by a capability of its own, if it is
    /// live and of the profile asked for.
    pub(crate) fn caller_session(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &Call,
        cap_id: u32,
        profile: &str,
        decision: &mut Decision,
    ) -> Result<Caller, Refusal> {
        let session: OwnedCapability<UserSession> = self
            .mint
            .caller_capability_wait(ring, call.id(), cap_id, FOREVER)
            .map_err(|error| named("session", &error))?;
        let mut client = UserSessionClient::from_capability(session.capability());
        let info = client.info_wait(ring, FOREVER);
        let info = info.map_err(|error| named("session", &error))?;
        decision.concern(&info);
        let asked = Profile::named(profile);
        match asked.filter(|asked| asked.name() == info.profile) {
            Some(profile) => Ok(Caller {
                session,
                info,
                profile,
            }),
            None => Err(refuse(
                ExceptionType::Failed,
                "profile does not match the session",
            )),
        }
    }
}

/// A refusal for what another part of the system refused.
pub(crate) fn named(what: &str, error: &ClientError) -> Refusal {
    match error {
        ClientError::Application(exception) => Refusal {
            kind: exception.exception_type(),
            message: alloc::format!("{what}: {}", exception.message()),
        },
        _ => Refusal {
            kind: ExceptionType::Failed,
            message: alloc::format!("{what} cannot be used"),
        },
    }
}

/// What a method that is not there gets; nothing is recorded of it.
pub(crate) fn no_such_method() -> (Result<Reply, Refusal>, Option<Decision>) {
    (Err(unknown_method()), None)
}
