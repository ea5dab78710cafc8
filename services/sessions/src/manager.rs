//! `SessionManager`: who gets a session.

use alloc::vec::Vec;

use capos::capos_capnp::{self, session_manager};
use capos::{
    AuditEventType, AuditReasonClass, AuditResultClass, AuthStrength, CallId, Client,
    CompletedCall, CredentialCheckStatus, CredentialStoreClient, EntropyStatus, ExceptionType,
    OwnedCapability, PrincipalKind, RuntimeRingClient, UserSession,
};
use policy::sessions::{Opening, Selector};
use sel4_capos_client::NewSession;
use service::{Call, FOREVER, Refusal, Reply, Server, ServerError, empty_message, refuse};

use crate::desk::{Desk, Login, named};
use crate::record::Decision;

const PASSWORD: &str = "password";
/// Bytes of a session's identity, and of a principal that is nobody.
const ID_BYTES: usize = 32;
/// Longest identity of a terminal's or connection's event.
const EVENT_BYTES_MAX: usize = 64;
/// Logins that wait for their password to be checked.
const LOGINS_MAX: usize = 6;

mod ordinal {
    pub(super) const LOGIN: u16 = 0;
    pub(super) const GUEST: u16 = 1;
    pub(super) const ANONYMOUS: u16 = 2;
    pub(super) const SSH_PUBLIC_KEY: u16 = 3;
}

fn denied() -> Refusal {
    refuse(ExceptionType::Failed, "login denied")
}

impl Desk {
    /// Answers a call of the session manager, or lets it wait for a password
    /// to be checked.
    pub(crate) fn manage(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
        mut call: Call,
    ) -> Result<(), ServerError> {
        server.make_room(ring)?;
        let (answer, decision) = match call.method {
            ordinal::LOGIN => match self.login(ring, &call) {
                Ok((id, opening, decision)) => {
                    call.erase_params();
                    let login = Login {
                        call,
                        opening,
                        decision,
                    };
                    self.logins.push((id, login));
                    return Ok(());
                }
                Err(refusal) => {
                    call.erase_params();
                    let mut decision = Decision::about(AuditEventType::Auth, PASSWORD);
                    let unavailable = AuditResultClass::Unavailable;
                    (decision.result, decision.reason) = (unavailable, AuditReasonClass::Policy);
                    (Err(refusal), Some(decision))
                }
            },
            ordinal::GUEST => self.guest(ring),
            ordinal::ANONYMOUS => self.anonymous(ring),
            ordinal::SSH_PUBLIC_KEY => self.ssh_public_key(ring, &call),
            _ => crate::desk::no_such_method(),
        };
        self.settle(ring, server, call, answer, decision)
    }

    /// Has the password of a login checked, whoever it is for.
    fn login(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &Call,
    ) -> Result<(CallId, Option<Opening>, Decision), Refusal> {
        let message = call.message()?;
        let params: session_manager::login_params::Reader<'_> = message.get_root()?;
        if params.get_method()?.to_str()? != PASSWORD {
            let message = "authentication method is not known";
            return Err(refuse(ExceptionType::InvalidArgument, message));
        }
        let opening = self.selected(params.get_selector()?)?;
        let event = params.get_source()?.get_terminal_event_id()?;
        if event.len() > EVENT_BYTES_MAX {
            let message = "identity is too long";
            return Err(refuse(ExceptionType::InvalidArgument, message));
        }
        let mut decision = Decision::about(AuditEventType::Auth, PASSWORD);
        decision.terminal_event_id = event.to_vec();
        if self.logins.len() >= LOGINS_MAX {
            return Err(refuse(ExceptionType::Overloaded, "too many logins"));
        }
        let Some(credentials) = self.credentials else {
            return Err(refuse(ExceptionType::Failed, "no password is configured"));
        };
        let id = CredentialStoreClient::from_capability(credentials)
            .verify_console_password(ring, params.get_proof()?)
            .map_err(|error| named("credential store", &error))?;
        Ok((id, opening, decision))
    }

    fn selected(
        &self,
        selector: capos_capnp::login_selector::Reader<'_>,
    ) -> Result<Option<Opening>, Refusal> {
        use capos_capnp::LoginSelectorKind as Kind;
        let value = selector.get_value()?;
        Ok(match selector.get_kind()? {
            Kind::AccountName => core::str::from_utf8(value)
                .ok()
                .and_then(|name| self.accounts.by_console_password(Selector::Account(name))),
            Kind::PrincipalId => self
                .accounts
                .by_console_password(Selector::Principal(value)),
        })
    }

    /// Takes in what became of a password.
    pub(crate) fn checked(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
        id: CallId,
        completed: CompletedCall,
    ) -> Result<(), ServerError> {
        let Some(index) = self.logins.iter().position(|(known, _)| *known == id) else {
            return Ok(());
        };
        let (_, login) = self.logins.swap_remove(index);
        let Login {
            call,
            opening,
            mut decision,
        } = login;
        let answer = self.authenticated(ring, opening, completed, &mut decision);
        self.settle(ring, server, call, answer, Some(decision))
    }

    fn authenticated(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        opening: Option<Opening>,
        completed: CompletedCall,
        decision: &mut Decision,
    ) -> Result<Reply, Refusal> {
        decision.reason = AuditReasonClass::Password;
        let Some(credentials) = self.credentials else {
            return Err(denied());
        };
        let checked = CredentialStoreClient::from_capability(credentials)
            .finish_verify_console_password(completed);
        let status = checked.map_err(|error| {
            decision.result = AuditResultClass::Failed;
            named("credential store", &error)
        })?;
        match (status.status, opening) {
            (CredentialCheckStatus::Success, Some(opening)) => {
                decision.reason = AuditReasonClass::None;
                self.open(ring, &opening, AuthStrength::Password, decision)
            }
            (CredentialCheckStatus::Unavailable, _) => {
                let unavailable = AuditResultClass::Unavailable;
                (decision.result, decision.reason) = (unavailable, AuditReasonClass::SetupRequired);
                Err(refuse(ExceptionType::Failed, "no password is configured"))
            }
            _ => {
                decision.result = AuditResultClass::Denied;
                Err(denied())
            }
        }
    }

    fn guest(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
    ) -> (Result<Reply, Refusal>, Option<Decision>) {
        let mut decision = Decision::about(AuditEventType::Session, "guest");
        let answer = match self.accounts.guest() {
            Some(opening) => self.open(ring, &opening, AuthStrength::None, &mut decision),
            None => Err(refuse(ExceptionType::Failed, "guest sessions are disabled")),
        };
        decision.conclude(&answer, AuditResultClass::Denied, AuditReasonClass::Policy);
        (answer, Some(decision))
    }

    fn anonymous(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
    ) -> (Result<Reply, Refusal>, Option<Decision>) {
        let mut decision = Decision::about(AuditEventType::Session, "anonymous");
        let opening = self.accounts.anonymous();
        let answer = self.open(ring, &opening, AuthStrength::None, &mut decision);
        decision.conclude(&answer, AuditResultClass::Failed, AuditReasonClass::None);
        (answer, Some(decision))
    }

    fn ssh_public_key(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &Call,
    ) -> (Result<Reply, Refusal>, Option<Decision>) {
        let mut decision = Decision::about(AuditEventType::Auth, "publicKey");
        let answer = self
            .by_ssh_key(call)
            .and_then(|opening| self.open(ring, &opening, AuthStrength::PublicKey, &mut decision));
        decision.conclude(&answer, AuditResultClass::Denied, AuditReasonClass::Policy);
        (answer, Some(decision))
    }

    fn by_ssh_key(&self, call: &Call) -> Result<Opening, Refusal> {
        if !self.accounts.has_keys() {
            let message = "no account has a key";
            return Err(refuse(ExceptionType::Unimplemented, message));
        }
        let message = call.message()?;
        let params: session_manager::ssh_public_key_params::Reader<'_> = message.get_root()?;
        let key = (params.get_algorithm()?.to_str()?, params.get_public_key()?);
        self.accounts
            .by_ssh_key(
                params.get_username()?.to_str()?,
                key,
                params.get_auth_bytes()?,
                params.get_signature()?,
            )
            .ok_or_else(denied)
    }

    /// Opens a session under a fresh identity.
    fn open(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        opening: &Opening,
        strength: AuthStrength,
        decision: &mut Decision,
    ) -> Result<Reply, Refusal> {
        let session_id = self.fresh_id(ring)?;
        let principal_id = match &opening.principal_id {
            Some(id) => id.clone(),
            None => self.fresh_id(ring)?,
        };
        let session = NewSession {
            session_id: &session_id,
            principal_id: &principal_id,
            kind: client_kind(opening.kind),
            auth_strength: strength,
            display_name: &opening.display_name,
            profile: opening.profile.name(),
            profile_class: opening.profile.class(),
            lifetime_ns: opening.lifetime_ns,
        };
        let opened: OwnedCapability<UserSession> = self
            .mint
            .open_wait(ring, &session, FOREVER)
            .map_err(|error| {
                decision.result = AuditResultClass::Failed;
                named("session", &error)
            })?;
        decision.profile = opening.profile.name().into();
        (decision.session_id, decision.principal_id) = (session_id, principal_id);
        let mut reply = Reply::void();
        let index = reply.give(opened);
        let mut message = empty_message();
        let mut results: session_manager::login_results::Builder<'_> = message.init_root();
        results.set_session_index(index);
        reply.set_message(&message);
        Ok(reply)
    }

    fn fresh_id(&mut self, ring: &mut RuntimeRingClient<'_>) -> Result<Vec<u8>, Refusal> {
        let filled = self.entropy.fill_wait(ring, ID_BYTES as u32, FOREVER);
        let filled = filled.ok().filter(|f| f.status == EntropyStatus::Ok);
        let id = filled.filter(|filled| filled.data.len() == ID_BYTES);
        id.map(|filled| filled.data.to_vec())
            .ok_or_else(|| refuse(ExceptionType::Failed, "no entropy for an identity"))
    }
}

const fn client_kind(kind: capos_config::PrincipalKind) -> PrincipalKind {
    use capos_config::PrincipalKind as Kind;
    match kind {
        Kind::Human => PrincipalKind::Human,
        Kind::Operator => PrincipalKind::Operator,
        Kind::Service => PrincipalKind::Service,
        Kind::Guest => PrincipalKind::Guest,
        Kind::Anonymous => PrincipalKind::Anonymous,
        Kind::Pseudonymous => PrincipalKind::Pseudonymous,
    }
}
