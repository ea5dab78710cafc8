//! In the place of `login`, with what `login` holds and nothing else: tries to
//! get at what an operator gets, without the operator's password.
//!
//! It speaks on the terminal, since it has no console, and ends with 0 if
//! nothing of what it tried succeeded.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;

use capos::client::{LoginSelector, LoginSelectorKind, LoginSourceMetadata};
use capos::prelude::*;
use capos::{
    AuthStrength, AuthorityBroker, AuthorityBrokerClient, CallId, CapSet, Capability,
    CapabilityRef, CapabilityType, Client, CredentialStoreClient, ExceptionType, KernelCapSource,
    OwnedCapability, PrincipalKind, ProcessHandle, ProcessHandleClient,
    RestrictedShellLauncherClient, RuntimeRingClient, SessionManagerClient, SpawnGrant,
    SpawnGrantMode, SpawnGrantSource, TerminalSessionClient, TimerClient, UserSession,
    UserSessionClient,
};
use raw_ring::proof::{Failure, Proof, equal, that};
use sel4_capos_client::{NewSession, SessionMint, SessionMintClient};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
/// What `login` holds.
const HELD: [&str; 7] = [
    "credential_store",
    "manual",
    "restricted_shell_launcher",
    "session_manager",
    "system_info",
    "terminal",
    "timer",
];
/// Numbers of capabilities that are tried.
const NUMBERS: u32 = 512;
/// Wrong passwords.
const ATTEMPTS: usize = 10_000;
/// Of them at one time; more than are taken.
const AT_ONCE: usize = 12;
/// How long to wait for one of them to be answered before looking again.
const LOOK_NS: u64 = 10_000_000;
/// Longer than an anonymous session lasts here.
const EXPIRY_NS: u64 = 11_000_000_000;
/// What the program that stands in for the shell ends with.
const SHELL_CODE: i64 = 7;

struct Tester<'a, 'b> {
    ring: &'a mut RuntimeRingClient<'b>,
    capset: CapSet,
}

fn failed(what: &str) -> impl Fn(ClientError) -> Failure + '_ {
    move |error| Failure::new(format!("{what}: {error:?}"))
}

fn refusal<T>(outcome: &Result<T, ClientError>) -> Option<ExceptionType> {
    match outcome {
        Err(ClientError::Application(exception)) => Some(exception.exception_type()),
        _ => None,
    }
}

/// A capability that may be none, or another.
fn claimed<T: CapabilityType>(number: u32) -> Result<Capability<T>, Failure> {
    let claimed = CapabilityRef::new(number, T::INTERFACE_ID).typed();
    claimed.ok_or_else(|| Failure::new("no such type"))
}

fn begin_login(
    sessions: &mut SessionManagerClient,
    ring: &mut RuntimeRingClient<'_>,
    proof: &[u8],
) -> Result<CallId, ClientError> {
    let selector = LoginSelector {
        kind: LoginSelectorKind::AccountName,
        value: b"operator",
    };
    let source = LoginSourceMetadata {
        terminal_event_id: &[],
        source: "console",
        remote_addr: &[],
    };
    sessions.login(&mut **ring, "password", selector, proof, source)
}

impl Tester<'_, '_> {
    fn held(&self, name: &str) -> Result<CapabilityRef, Failure> {
        let held = self.capset.get(name.as_bytes());
        held.map_err(|_| Failure::new(format!("no {name}")))
    }

    fn client<C: Client>(&self, name: &str) -> Result<C, Failure> {
        let held = self.held(name)?.typed();
        let held = held.ok_or_else(|| Failure::new(format!("{name} is another interface")))?;
        Ok(C::from_capability(held))
    }

    fn say(&mut self, text: &str) -> Proof {
        let mut terminal: TerminalSessionClient = self.client("terminal")?;
        terminal
            .write_line_wait(&mut **self.ring, text, FOREVER)
            .map_err(failed("terminal"))
    }

    fn launch(
        &mut self,
        session: CapabilityRef,
        profile: &str,
        grants: &[SpawnGrant<'_>],
    ) -> Result<OwnedCapability<ProcessHandle>, ClientError> {
        let terminal = self.capset.get(b"terminal");
        let terminal = terminal.map_err(|_| ClientError::MessageEncode)?;
        let launcher = self.capset.get_typed(b"restricted_shell_launcher");
        let launcher = launcher.map_err(|_| ClientError::MessageEncode)?;
        RestrictedShellLauncherClient::from_capability(launcher).launch_shell_wait(
            self.ring, "shell", terminal, session, profile, grants, FOREVER,
        )
    }

    fn anonymous(&mut self) -> Result<OwnedCapability<UserSession>, Failure> {
        let mut sessions: SessionManagerClient = self.client("session_manager")?;
        let started = sessions.anonymous_wait(self.ring, FOREVER);
        Ok(started.map_err(failed("anonymous"))?.session)
    }

    fn holds_no_more(&mut self) -> Proof {
        let mut names: Vec<&[u8]> = Vec::new();
        let entries: Vec<_> = self.capset.iter().collect();
        for entry in &entries {
            names.push(entry.name_bytes());
        }
        names.sort_unstable();
        equal("what login holds", names, HELD.map(str::as_bytes).to_vec())
    }

    /// The session of nobody, as if it were an operator's.
    fn nobody(&mut self, session: CapabilityRef) -> Proof {
        for profile in ["operator", "guest", "", "anonymous "] {
            let launched = self.launch(session, profile, &[]);
            equal(profile, refusal(&launched), Some(ExceptionType::Failed))?;
        }
        let invalid = Some(ExceptionType::InvalidArgument);
        for name in HELD {
            let passed = SpawnGrant {
                name: "mine",
                source: SpawnGrantSource::Capability(self.held(name)?),
                mode: SpawnGrantMode::Raw,
                badge: 0,
            };
            if matches!(name, "manual" | "system_info" | "timer") {
                continue;
            }
            let launched = self.launch(session, "anonymous", &[passed]);
            equal(name, refusal(&launched), invalid)?;
        }
        for source in [
            KernelCapSource::ProcessSpawner,
            KernelCapSource::SessionManager,
            KernelCapSource::AuthorityBroker,
        ] {
            let made = SpawnGrant {
                name: "made",
                source: SpawnGrantSource::Kernel(source),
                mode: SpawnGrantMode::Raw,
                badge: 0,
            };
            let launched = self.launch(session, "anonymous", &[made]);
            equal("a grant of the system", refusal(&launched), invalid)?;
        }
        Ok(())
    }

    /// Sessions, brokers and mints that are named and not held.
    fn forged(&mut self, own: &OwnedCapability<UserSession>) -> Proof {
        let held = HELD.map(|name| self.held(name).map(CapabilityRef::cap_id));
        let mut numbers: Vec<u32> = (0..NUMBERS).chain([u32::MAX, 1 << 24, 1 << 31]).collect();
        for number in held {
            numbers.push(number?);
        }
        for number in numbers {
            if number == own.cap_id() {
                continue;
            }
            let session = claimed::<UserSession>(number)?;
            let launched = self.launch(session.raw(), "operator", &[]);
            that(launched.is_err(), "a shell in a forged session")?;
            let broker = claimed::<AuthorityBroker>(number)?;
            for profile in ["operator", "anonymous"] {
                let bundle = AuthorityBrokerClient::from_capability(broker).shell_bundle_wait(
                    self.ring,
                    own.capability(),
                    profile,
                    FOREVER,
                );
                that(bundle.is_err(), "a bundle of what is no broker")?;
            }
            let mint = SessionMintClient::from_capability(claimed::<SessionMint>(number)?);
            that(self.open(mint).is_err(), "a session of what is no mint")?;
        }
        Ok(())
    }

    fn open(
        &mut self,
        mut mint: SessionMintClient,
    ) -> Result<OwnedCapability<UserSession>, ClientError> {
        let session = NewSession {
            session_id: b"forged",
            principal_id: b"forged",
            kind: PrincipalKind::Operator,
            auth_strength: AuthStrength::Password,
            display_name: "operator",
            profile: "operator",
            profile_class: 0,
            lifetime_ns: u64::MAX,
        };
        mint.open_wait(self.ring, &session, FOREVER)
    }

    /// A password of its own in place of the one there is.
    fn replaces_no_password(&mut self) -> Proof {
        let mut store: CredentialStoreClient = self.client("credential_store")?;
        let made = store.create_console_password_wait(&mut **self.ring, b"of my own", FOREVER);
        equal("setup", refusal(&made), Some(ExceptionType::Failed))
    }

    /// A shell in a session that was left, and in one that is over.
    fn replayed(&mut self, left: &OwnedCapability<UserSession>) -> Proof {
        let mut client = UserSessionClient::from_capability(left.capability());
        client
            .logout_wait(&mut **self.ring, FOREVER)
            .map_err(failed("logout"))?;
        let over = self.anonymous()?;
        let mut timer: TimerClient = self.client("timer")?;
        timer
            .sleep_wait(&mut **self.ring, EXPIRY_NS, FOREVER)
            .map_err(failed("sleep"))?;
        for session in [left, &over] {
            for profile in ["anonymous", "operator"] {
                let launched = self.launch(session.capability().raw(), profile, &[]);
                that(launched.is_err(), "a shell in a session that is over")?;
            }
            let info = UserSessionClient::from_capability(session.capability())
                .info_wait(&mut **self.ring, FOREVER);
            let disconnected = Some(ExceptionType::Disconnected);
            equal("a session that is over", refusal(&info), disconnected)?;
        }
        Ok(())
    }

    /// As many passwords as can be tried, more at once than are taken.
    fn guesses(&mut self) -> Result<(usize, usize), Failure> {
        let (mut denied, mut overloaded) = (0, 0);
        let mut pending: Vec<CallId> = Vec::new();
        for attempt in 0..ATTEMPTS {
            while pending.len() >= AT_ONCE {
                self.look(&mut pending, &mut denied, &mut overloaded)?;
            }
            let mut sessions: SessionManagerClient = self.client("session_manager")?;
            let guess = format!("guess {attempt}");
            let call = begin_login(&mut sessions, self.ring, guess.as_bytes());
            pending.push(call.map_err(failed("login"))?);
        }
        while !pending.is_empty() {
            self.look(&mut pending, &mut denied, &mut overloaded)?;
        }
        Ok((denied, overloaded))
    }

    /// Takes in which logins were answered.
    fn look(
        &mut self,
        pending: &mut Vec<CallId>,
        denied: &mut usize,
        overloaded: &mut usize,
    ) -> Proof {
        let ring = |error| Failure::new(format!("ring: {error:?}"));
        self.ring.cap_enter(1, LOOK_NS).map_err(ring)?;
        let mut left = Vec::with_capacity(AT_ONCE);
        for call in pending.drain(..) {
            let Some(completion) = self.ring.try_complete(call).map_err(ring)? else {
                left.push(call);
                continue;
            };
            match capos::decode_completed_call(&completion) {
                Err(ClientError::Application(exception)) => match exception.exception_type() {
                    ExceptionType::Failed => *denied += 1,
                    ExceptionType::Overloaded => *overloaded += 1,
                    other => return equal("a guess", other, ExceptionType::Failed),
                },
                other => return Err(Failure::new(format!("a guess: {other:?}"))),
            }
        }
        *pending = left;
        Ok(())
    }

    /// What nobody may have: a shell that can do next to nothing.
    fn lets_nobody_in(&mut self) -> Proof {
        let session = self.anonymous()?;
        let shell = self.launch(session.capability().raw(), "anonymous", &[]);
        let shell = shell.map_err(failed("launch"))?;
        let mut handle = ProcessHandleClient::from_capability(shell.capability());
        let code = handle.wait_wait(&mut **self.ring, FOREVER);
        equal("the shell", code.map_err(failed("wait"))?, SHELL_CODE)
    }

    fn prove(&mut self) -> Proof {
        self.holds_no_more()?;
        let session = self.anonymous()?;
        self.nobody(session.capability().raw())?;
        self.forged(&session)?;
        self.replaces_no_password()?;
        self.replayed(&session)?;
        drop(session);
        self.lets_nobody_in()?;
        let (denied, overloaded) = self.guesses()?;
        let line = format!("hostile-login: {denied} guesses denied, {overloaded} not looked at");
        self.say(&line)?;
        equal("guesses", denied + overloaded, ATTEMPTS)?;
        that(denied > 0, "some guesses are looked at")?;
        self.lets_nobody_in()
    }
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let Ok(mut ring) = runtime.ring_client() else {
        return 2;
    };
    let mut tester = Tester {
        ring: &mut ring,
        capset,
    };
    let outcome = tester.prove();
    let line = match &outcome {
        Ok(()) => "hostile-login: proved".into(),
        Err(failure) => format!("hostile-login: FAILED: {failure:?}"),
    };
    let _ = tester.say(&line);
    i64::from(outcome.is_err())
}

entry_point!(main);
