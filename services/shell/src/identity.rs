//! `session`, `login`, `setup`, `logout`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use capos::client::{LoginSelector, LoginSelectorKind, LoginSourceMetadata};
use capos::{
    AuditEventType, AuditLog, AuditLogClient, AuditReasonClass, AuditRecord, AuditResultClass,
    AuthStrength, AuthorityBroker, AuthorityBrokerClient, Client, ClientError, CredentialStore,
    CredentialStoreClient, ExceptionType, LineEcho, OwnedCapability, PrincipalKind, SessionInfo,
    SessionManager, SessionManagerClient, UserSession, UserSessionClient,
};
use service::FOREVER;
use shell_core::printable;
use zeroize::Zeroizing;

use crate::Shell;
use crate::errors::Trouble;
use crate::terminal::Line;

/// How this shell's terminal is called in records.
const SOURCE: &str = "console";
/// How a password is called as a method of proof.
const PASSWORD: &str = "password";

impl Shell<'_> {
    /// Whether this shell opens sessions itself.
    pub(crate) fn is_by_itself(&self) -> bool {
        self.holdings.find("session_manager").is_some()
    }

    fn sessions(&self) -> Result<SessionManagerClient, Trouble> {
        let manager = self.holdings.service::<SessionManager>("session_manager");
        manager
            .map(SessionManagerClient::from_capability)
            .ok_or_else(|| {
                Trouble::text(
                    "this shell was started in its session; `exit` leads back to the login",
                )
            })
    }

    fn credentials(&self) -> Result<CredentialStoreClient, Trouble> {
        let store = self.holdings.service::<CredentialStore>("credential_store");
        let store = store.ok_or_else(|| Trouble::held("credential_store"))?;
        Ok(CredentialStoreClient::from_capability(store))
    }

    pub(crate) fn session_info(&mut self) -> Result<SessionInfo, Trouble> {
        let session = self.holdings.get::<UserSession>("session");
        let session = session.ok_or_else(|| Trouble::held("session"))?;
        Ok(UserSessionClient::from_capability(session).info_wait(&mut self.ring, FOREVER)?)
    }

    pub(crate) fn session(&mut self) -> Result<String, Trouble> {
        let info = self.session_info()?;
        let kind = match info.principal_kind {
            PrincipalKind::Human => "human",
            PrincipalKind::Operator => "operator",
            PrincipalKind::Service => "service",
            PrincipalKind::Guest => "guest",
            PrincipalKind::Anonymous => "anonymous",
            PrincipalKind::Pseudonymous => "pseudonymous",
        };
        let strength = match info.auth_strength {
            AuthStrength::None => "none",
            AuthStrength::LocalPresence => "local presence",
            AuthStrength::Password => PASSWORD,
            AuthStrength::HardwareKey => "hardware key",
            AuthStrength::MultiParty => "several parties",
            AuthStrength::PublicKey => "public key",
        };
        let expires = match info.expires_at_ms {
            0 | u64::MAX => String::from("never"),
            at => format!("{at} ms after boot"),
        };
        Ok(format!(
            "principal: {}\nkind: {kind}\nauthentication: {strength}\nprofile: {}\nexpires: {expires}",
            printable(&info.principal_display_name),
            printable(&info.profile)
        ))
    }

    /// Opens an anonymous session and takes its bundle.
    pub(crate) fn become_anonymous(&mut self) -> Result<(), Trouble> {
        let started = self.sessions()?.anonymous_wait(&mut self.ring, FOREVER)?;
        self.take_bundle(&started.session)
    }

    /// Exchanges the bundle for the one of `session`.
    fn take_bundle(&mut self, session: &OwnedCapability<UserSession>) -> Result<(), Trouble> {
        let mut client = UserSessionClient::from_capability(session.capability());
        let profile = client.info_wait(&mut self.ring, FOREVER)?.profile;
        let broker = self.holdings.service::<AuthorityBroker>("authority_broker");
        let broker = broker.ok_or_else(|| Trouble::held("authority_broker"))?;
        let bundle = AuthorityBrokerClient::from_capability(broker).shell_bundle_wait(
            &mut self.ring,
            session.capability(),
            &profile,
            FOREVER,
        )?;
        self.holdings.exchange(bundle);
        let _ = self.ring.flush_releases();
        Ok(())
    }

    /// Asks for a password. None if the person thought better of it.
    fn password(&mut self, prompt: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Trouble> {
        let line = self
            .terminal
            .ask(&mut self.ring, prompt, LineEcho::Hidden)?;
        Ok(match line {
            Line::Submitted(password) => Some(password),
            Line::Cancelled | Line::Closed => None,
        })
    }

    pub(crate) fn login(&mut self, name: Option<&str>) -> Result<(), Trouble> {
        self.sessions()?;
        let Some(password) = self.password("password: ")? else {
            return Ok(self.say("[shell] login cancelled")?);
        };
        self.log_in(name.unwrap_or_default(), &password)
    }

    fn log_in(&mut self, name: &str, password: &[u8]) -> Result<(), Trouble> {
        let selector = LoginSelector {
            kind: LoginSelectorKind::AccountName,
            value: name.as_bytes(),
        };
        let source = LoginSourceMetadata {
            terminal_event_id: b"",
            source: SOURCE,
            remote_addr: b"",
        };
        let started = self.sessions()?.login_wait(
            &mut self.ring,
            PASSWORD,
            selector,
            password,
            source,
            FOREVER,
        );
        let outcome = match started {
            Ok(started) => self.take_bundle(&started.session),
            Err(ClientError::Application(exception))
                if exception.exception_type() == ExceptionType::Failed =>
            {
                Err(Trouble::Text(printable(exception.message())))
            }
            Err(error) => Err(error.into()),
        };
        let class = match &outcome {
            Ok(()) => AuditResultClass::Ok,
            Err(_) => AuditResultClass::Denied,
        };
        self.record(AuditEventType::Auth, class, AuditReasonClass::Password);
        outcome?;
        self.name_prompt();
        let info = self.session_info()?;
        let (name, profile) = (
            printable(&info.principal_display_name),
            printable(&info.profile),
        );
        Ok(self.say(&format!("[shell] logged in as {name}; bundle: {profile}"))?)
    }

    pub(crate) fn setup(&mut self) -> Result<(), Trouble> {
        self.sessions()?;
        let mut store = self.credentials()?;
        let status = store.console_password_status_wait(&mut self.ring, FOREVER)?;
        if status.configured {
            return Err(Trouble::text("a password is configured; use `login`"));
        }
        let Some(password) = self.password("new password: ")? else {
            return Ok(self.say("[shell] setup cancelled")?);
        };
        let repeated = self.password("repeat it: ")?;
        if repeated.as_deref() != Some(&*password) {
            return Err(Trouble::text("the two are not the same"));
        }
        let status = store.create_console_password_wait(&mut self.ring, &password, FOREVER)?;
        self.record(
            AuditEventType::Setup,
            AuditResultClass::Ok,
            AuditReasonClass::SetupCreate,
        );
        if status.volatile {
            self.say("[shell] the password is volatile: kept in memory, gone after a reboot")?;
        }
        self.log_in("", &password)
    }

    pub(crate) fn logout(&mut self) -> Result<(), Trouble> {
        let session = self.holdings.get::<UserSession>("session");
        let session = session.ok_or_else(|| Trouble::held("session"))?;
        if !self.is_by_itself() {
            self.stop_all();
        }
        UserSessionClient::from_capability(session).logout_wait(&mut self.ring, FOREVER)?;
        self.record(
            AuditEventType::Session,
            AuditResultClass::Ok,
            AuditReasonClass::None,
        );
        self.holdings.drop_bundle();
        if !self.is_by_itself() {
            self.end_with_session();
            return Ok(());
        }
        let outcome = self.become_anonymous();
        self.name_prompt();
        outcome?;
        Ok(self.say("[shell] logged out")?)
    }

    /// Records an event where there is a log to record it in. A log that is away
    /// stops nobody: it is the service's to notice that records are missing.
    fn record(
        &mut self,
        event_type: AuditEventType,
        result_class: AuditResultClass,
        reason_class: AuditReasonClass,
    ) {
        let Some(log) = self.holdings.service::<AuditLog>("audit_log") else {
            return;
        };
        let profile = self.session_info().map(|info| info.profile);
        let record = AuditRecord {
            event_type,
            result_class,
            reason_class,
            terminal_event_id: b"",
            session_id: b"",
            principal_id: b"",
            profile: &profile.unwrap_or_default(),
            auth_method: PASSWORD,
            volatile: true,
        };
        let _ = AuditLogClient::from_capability(log).record_wait(&mut self.ring, record, FOREVER);
    }
}
