//! The services a login goes through.
//!
//! A client is made for each call: one that was told `disconnected` would say
//! so for ever, and the service may have been started again meanwhile.

use alloc::string::String;
use alloc::vec::Vec;

use capos::client::{LoginSelector, LoginSelectorKind, LoginSourceMetadata};
use capos::{
    Capability, Client, ClientError, CredentialStore, CredentialStoreClient, ExceptionType, Manual,
    OwnedCapability, ProcessHandle, ProcessHandleClient, RestrictedShellLauncher,
    RestrictedShellLauncherClient, RingClientError, SessionManager, SessionManagerClient,
    SessionStartResult, SpawnGrant, SpawnGrantMode, SpawnGrantSource, SystemInfo, SystemInfoClient,
    TerminalSession, Timer, TimerClient, UserSession, UserSessionClient,
};

use crate::default_hostname;
use crate::desk::{Desk, FOREVER};

/// Method of a login with a password.
const PASSWORD: &str = "password";
const NS_PER_MS: u64 = 1_000_000;
/// How long a shell may take to end with its session.
const GRACE_NS: u64 = 2_000_000_000;
/// Where logins come from.
const SOURCE: &str = "console";

/// Why somebody does not get in.
#[derive(Clone, Copy)]
pub(crate) enum Refused {
    /// By decision.
    Denied,
    /// There is too much to do.
    Busy,
    /// Who would decide is not there.
    Away,
}

impl Refused {
    fn of(error: &ClientError) -> Self {
        match error {
            ClientError::Application(exception) => match exception.exception_type() {
                ExceptionType::Overloaded => Self::Busy,
                ExceptionType::Disconnected => Self::Away,
                _ => Self::Denied,
            },
            _ => Self::Away,
        }
    }
}

/// A session, and the profile it has.
pub(crate) struct Entered {
    session: OwnedCapability<UserSession>,
    profile: String,
    expires_at_ms: u64,
}

/// What the program holds.
pub(crate) struct Door {
    pub(crate) terminal: Capability<TerminalSession>,
    pub(crate) sessions: Capability<SessionManager>,
    pub(crate) launcher: Capability<RestrictedShellLauncher>,
    pub(crate) credentials: Option<Capability<CredentialStore>>,
    pub(crate) system: Option<Capability<SystemInfo>>,
    pub(crate) timer: Option<Capability<Timer>>,
    pub(crate) manual: Option<Capability<Manual>>,
}

impl Door {
    /// The system's name.
    pub(crate) fn hostname(&self, desk: &mut Desk<'_>) -> String {
        let name = self.system.and_then(|system| {
            let mut client = SystemInfoClient::from_capability(system);
            client.hostname_wait(&mut desk.ring, FOREVER).ok()
        });
        name.filter(|name| !name.is_empty())
            .unwrap_or_else(default_hostname)
    }

    /// The message of the day, if there is one.
    pub(crate) fn motd(&self, desk: &mut Desk<'_>) -> Option<String> {
        let mut client = SystemInfoClient::from_capability(self.system?);
        let motd = client.motd_wait(&mut desk.ring, FOREVER).ok()?;
        Some(motd).filter(|motd| !motd.is_empty())
    }

    /// Whether a password is set; `None` if nobody can say.
    pub(crate) fn has_password(&self, desk: &mut Desk<'_>) -> Option<bool> {
        let mut client = CredentialStoreClient::from_capability(self.credentials?);
        let call = client.console_password_status(&mut *desk.ring).ok()?;
        let completion = desk.ring.wait(call, FOREVER).ok()?;
        let status = client.finish_console_password_status(completion).ok()?;
        Some(status.configured)
    }

    /// Sets the first password; whether it is volatile.
    pub(crate) fn make_password(
        &self,
        desk: &mut Desk<'_>,
        password: &[u8],
    ) -> Result<bool, Refused> {
        let credentials = self.credentials.ok_or(Refused::Denied)?;
        let mut client = CredentialStoreClient::from_capability(credentials);
        let made = client
            .create_console_password(&mut *desk.ring, password)
            .and_then(|call| desk.ring.wait(call, FOREVER).map_err(ClientError::Ring))
            .and_then(|completion| client.finish_create_console_password(completion))
            .map_err(|error| Refused::of(&error))?;
        match made.configured {
            true => Ok(made.volatile),
            false => Err(Refused::Denied),
        }
    }

    /// Opens the session of an account.
    pub(crate) fn password(
        &self,
        desk: &mut Desk<'_>,
        name: &str,
        password: &[u8],
    ) -> Result<Entered, Refused> {
        let selector = LoginSelector {
            kind: LoginSelectorKind::AccountName,
            value: name.as_bytes(),
        };
        let source = LoginSourceMetadata {
            terminal_event_id: &[],
            source: SOURCE,
            remote_addr: &[],
        };
        let started = SessionManagerClient::from_capability(self.sessions).login_wait(
            &mut desk.ring,
            PASSWORD,
            selector,
            password,
            source,
            FOREVER,
        );
        enter(desk, started)
    }

    /// Opens a session for nobody in particular.
    pub(crate) fn anonymous(&self, desk: &mut Desk<'_>) -> Result<Entered, Refused> {
        let mut client = SessionManagerClient::from_capability(self.sessions);
        let started = client.anonymous_wait(&mut desk.ring, FOREVER);
        enter(desk, started)
    }

    /// Opens a session of the guest account.
    pub(crate) fn guest(&self, desk: &mut Desk<'_>) -> Result<Entered, Refused> {
        let mut client = SessionManagerClient::from_capability(self.sessions);
        let started = client.guest_wait(&mut desk.ring, FOREVER);
        enter(desk, started)
    }

    /// Runs a shell in the session; its exit code.
    pub(crate) fn shell(&self, desk: &mut Desk<'_>, entered: &Entered) -> Result<i64, Refused> {
        let passed = [
            ("timer", self.timer.map(Capability::raw)),
            ("manual", self.manual.map(Capability::raw)),
        ];
        let grants = passed.into_iter().filter_map(|(name, capability)| {
            Some(SpawnGrant {
                name,
                mode: SpawnGrantMode::Raw,
                source: SpawnGrantSource::Capability(capability?),
                badge: 0,
            })
        });
        let grants: Vec<SpawnGrant<'_>> = grants.collect();
        let handle = RestrictedShellLauncherClient::from_capability(self.launcher)
            .launch_shell_wait(
                &mut desk.ring,
                "shell",
                self.terminal.raw(),
                entered.session.capability().raw(),
                &entered.profile,
                &grants,
                FOREVER,
            )
            .map_err(|error| Refused::of(&error))?;
        self.attend(desk, entered, handle.capability())
            .map_err(|error| Refused::of(&error))
    }

    /// Waits for a shell. One that does not end with its session is ended: it
    /// may be waiting for something, and the terminal is the machine's only one.
    fn attend(
        &self,
        desk: &mut Desk<'_>,
        entered: &Entered,
        shell: Capability<ProcessHandle>,
    ) -> Result<i64, ClientError> {
        let mut shell = ProcessHandleClient::from_capability(shell);
        let wait = shell.wait(&mut *desk.ring)?;
        let end_ns = entered.expires_at_ms.saturating_mul(NS_PER_MS);
        let end_ns = end_ns.saturating_add(GRACE_NS);
        loop {
            let left_ns = match self.timer {
                None => FOREVER,
                Some(timer) => {
                    let mut timer = TimerClient::from_capability(timer);
                    let now = timer.now_wait(&mut *desk.ring, FOREVER)?;
                    end_ns.saturating_sub(now.monotonic_ns)
                }
            };
            if left_ns == 0 {
                shell.terminate_wait(&mut *desk.ring, FOREVER)?;
            }
            let patience_ns = if left_ns == 0 { FOREVER } else { left_ns };
            match desk.ring.wait(wait, patience_ns) {
                Ok(completed) => return shell.finish_wait(completed),
                Err(RingClientError::Timeout | RingClientError::TargetStillPending) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends a session. One that is over already needs no ending.
    pub(crate) fn leave(&self, desk: &mut Desk<'_>, entered: Entered) {
        let mut client = UserSessionClient::from_capability(entered.session.capability());
        let _ = client.logout_wait(&mut *desk.ring, FOREVER);
    }
}

/// A session that was opened, with its profile.
fn enter(
    desk: &mut Desk<'_>,
    started: Result<SessionStartResult, ClientError>,
) -> Result<Entered, Refused> {
    let session = started.map_err(|error| Refused::of(&error))?.session;
    let info = UserSessionClient::from_capability(session.capability())
        .info_wait(&mut *desk.ring, FOREVER)
        .map_err(|error| Refused::of(&error))?;
    Ok(Entered {
        session,
        profile: info.profile,
        expires_at_ms: info.expires_at_ms,
    })
}
