//! Starts shells in an operator's session, and tries to start something else, in
//! another session, or with more than a shell may have. `shell-probe` stands in
//! for the shell and looks at what it got.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec;

use capos::client::{LoginSelector, LoginSelectorKind, LoginSourceMetadata};
use capos::prelude::*;
use capos::{
    AuthorityBrokerClient, Capability, CapabilityRef, CapabilityType, ExceptionType,
    KernelCapSource, OwnedCapability, ProcessHandle, ProcessHandleClient, ProcessSpawner,
    RestrictedShellLauncher, RestrictedShellLauncherClient, RuntimeRingClient,
    SessionManagerClient, SpawnGrant, SpawnGrantMode, SpawnGrantSource, Timer, UserSession,
    UserSessionClient,
};
use raw_ring::proof::{self, Failure, Proof, equal};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const PASSWORD: &[u8] = b"correct horse";
/// As long as a guest's session lasts: `guestMs` of the description.
const GUEST_NS: u64 = 2_000_000_000;
const INVALID: Option<ExceptionType> = Some(ExceptionType::InvalidArgument);
const FAILED: Option<ExceptionType> = Some(ExceptionType::Failed);

struct Tester<'a, 'b> {
    ring: &'a mut RuntimeRingClient<'b>,
    launcher: Capability<RestrictedShellLauncher>,
    terminal: CapabilityRef,
    session: CapabilityRef,
    timer: CapabilityRef,
    spawner: CapabilityRef,
    manager: CapabilityRef,
}

type Launched = Result<OwnedCapability<ProcessHandle>, ClientError>;

fn refusal<T>(outcome: &Result<T, ClientError>) -> Option<ExceptionType> {
    match outcome {
        Err(ClientError::Application(exception)) => Some(exception.exception_type()),
        _ => None,
    }
}

fn failed(what: &str) -> impl Fn(ClientError) -> Failure + '_ {
    move |error| Failure::new(format!("{what}: {error:?}"))
}

const fn pass(name: &str, capability: CapabilityRef, mode: SpawnGrantMode) -> SpawnGrant<'_> {
    SpawnGrant {
        name,
        source: SpawnGrantSource::Capability(capability),
        mode,
        badge: 0,
    }
}

/// Of a process that somebody ended.
const EXIT_TERMINATED: i64 = 137;

const fn made(source: KernelCapSource) -> SpawnGrant<'static> {
    SpawnGrant {
        name: "made",
        source: SpawnGrantSource::Kernel(source),
        mode: SpawnGrantMode::Raw,
        badge: 0,
    }
}

impl Tester<'_, '_> {
    fn launch(&mut self, name: &str, profile: &str, grants: &[SpawnGrant<'_>]) -> Launched {
        // One that was told `disconnected` would say so for ever.
        RestrictedShellLauncherClient::from_capability(self.launcher).launch_shell_wait(
            self.ring,
            name,
            self.terminal,
            self.session,
            profile,
            grants,
            FOREVER,
        )
    }

    /// The one program there is: whatever the process is called, the probe runs
    /// and finds terminal, session, launcher, system info, stdio and what was
    /// passed through. That the result is one `ProcessHandle` and nothing else
    /// is checked by the published client.
    fn only_the_shell(&mut self) -> Proof {
        let clock = [pass("clock", self.timer, SpawnGrantMode::Raw)];
        for name in ["shell", "exit-seven"] {
            let shell = self.launch(name, "operator", &clock);
            let shell = shell.map_err(failed("launch"))?;
            let mut handle = ProcessHandleClient::from_capability(shell.capability());
            let code = handle.wait_wait(self.ring, FOREVER);
            equal(name, code.map_err(failed("wait"))?, 0)?;
        }
        for name in ["", &"n".repeat(65)] {
            let launched = self.launch(name, "operator", &[]);
            equal("name of a process", refusal(&launched), INVALID)?;
        }
        Ok(())
    }

    /// A terminal has one shell: the next one ends the last, whoever has
    /// forgotten that, and however little it does.
    fn one_at_a_time(&mut self) -> Proof {
        let rests = [pass("rest", self.timer, SpawnGrantMode::Raw)];
        let first = self.launch("shell", "operator", &rests);
        let first = first.map_err(failed("first"))?;
        let mut first = ProcessHandleClient::from_capability(first.capability());
        let wait = first.wait(self.ring).map_err(failed("wait"))?;
        let clock = [pass("clock", self.timer, SpawnGrantMode::Raw)];
        let second = self.launch("shell", "operator", &clock);
        let second = second.map_err(failed("second"))?;
        let ended = self.ring.wait(wait, FOREVER).map_err(ClientError::Ring);
        let code = ended.and_then(|ended| first.finish_wait(ended));
        equal("first", code.map_err(failed("wait"))?, EXIT_TERMINATED)?;
        let mut second = ProcessHandleClient::from_capability(second.capability());
        let code = second.wait_wait(self.ring, FOREVER);
        equal("second", code.map_err(failed("wait"))?, 0)
    }

    fn only_its_profile(&mut self) -> Proof {
        for profile in ["guest", "anonymous", "", "root"] {
            let launched = self.launch("shell", profile, &[]);
            equal(profile, refusal(&launched), FAILED)?;
        }
        Ok(())
    }

    /// Sessions and terminals the caller does not hold.
    fn only_what_is_held(&mut self) -> Proof {
        let session = self.session;
        for forged in [self.timer.cap_id(), 0x00ff_ffff, u32::MAX] {
            self.session = CapabilityRef::new(forged, UserSession::INTERFACE_ID);
            let launched = self.launch("shell", "operator", &[]);
            equal("no session", refusal(&launched), INVALID)?;
        }
        self.session = session;
        let terminal = core::mem::replace(&mut self.terminal, self.timer);
        let launched = self.launch("shell", "operator", &[]);
        self.terminal = terminal;
        equal("no terminal", refusal(&launched), INVALID)
    }

    fn no_authority(&mut self) -> Proof {
        for source in [
            KernelCapSource::ProcessSpawner,
            KernelCapSource::NetworkManager,
            KernelCapSource::TcpListenAuthority,
            KernelCapSource::SshDevelopmentHostKey,
            KernelCapSource::AuthorizedKeyStore,
            KernelCapSource::Timer,
        ] {
            let launched = self.launch("shell", "operator", &[made(source)]);
            equal("made by the system", refusal(&launched), INVALID)?;
        }
        let disguised = |id: CapabilityRef| CapabilityRef::new(id.cap_id(), Timer::INTERFACE_ID);
        let (timer, spawner, manager) = (self.timer, self.spawner, self.manager);
        let raw = SpawnGrantMode::Raw;
        for (what, grant) in [
            ("a spawner", pass("extra", spawner, raw)),
            ("a session manager", pass("extra", manager, raw)),
            ("a session", pass("extra", self.session, raw)),
            ("a terminal", pass("extra", self.terminal, raw)),
            (
                "a disguised spawner",
                pass("extra", disguised(spawner), raw),
            ),
            (
                "a disguised manager",
                pass("extra", disguised(manager), raw),
            ),
            ("moved", pass("clock", timer, SpawnGrantMode::Move)),
            (
                "made anew",
                pass("clock", timer, SpawnGrantMode::ServiceObject),
            ),
            ("terminal", pass("terminal", timer, raw)),
            ("session", pass("session", timer, raw)),
            ("launcher", pass("launcher", timer, raw)),
            ("stdio", pass("stdio", timer, raw)),
            ("no name", pass("", timer, raw)),
        ] {
            let launched = self.launch("shell", "operator", &[grant]);
            equal(what, refusal(&launched), INVALID)?;
        }
        let clock = pass("clock", timer, raw);
        let launched = self.launch("shell", "operator", &[clock, clock]);
        equal("one name twice", refusal(&launched), INVALID)?;
        let launched = self.launch("shell", "operator", &vec![clock; 9]);
        equal("too many", refusal(&launched), INVALID)
    }

    /// A guest's bundle is theirs as long as the session lasts.
    fn a_guest_in_time(
        &mut self,
        sessions: &mut SessionManagerClient,
        broker: &mut AuthorityBrokerClient,
        timer: &mut TimerClient,
    ) -> Proof {
        let guest = sessions.guest_wait(self.ring, FOREVER);
        let guest = guest.map_err(failed("guest"))?.session;
        let mut bundle = |ring: &mut _, profile| {
            broker.shell_bundle_wait(ring, guest.capability(), profile, FOREVER)
        };
        let first = bundle(self.ring, "guest").map_err(failed("a guest's bundle"))?;
        equal("endpoints", first.service_endpoints.len(), 0)?;
        equal("profile", refusal(&bundle(self.ring, "operator")), FAILED)?;
        timer
            .sleep_wait(self.ring, GUEST_NS, FOREVER)
            .map_err(failed("sleep"))?;
        let late = refusal(&bundle(self.ring, "guest"));
        equal("late", late, Some(ExceptionType::Disconnected))?;
        let session = core::mem::replace(&mut self.session, guest.capability().raw());
        let launched = self.launch("shell", "guest", &[]);
        self.session = session;
        equal(
            "late",
            refusal(&launched),
            Some(ExceptionType::Disconnected),
        )
    }

    /// After logout there is no session to start a shell in.
    fn nothing_after_logout(&mut self, session: Capability<UserSession>) -> Proof {
        UserSessionClient::from_capability(session)
            .logout_wait(self.ring, FOREVER)
            .map_err(failed("logout"))?;
        let launched = self.launch("shell", "operator", &[]);
        let over = Some(ExceptionType::Disconnected);
        equal("after logout", refusal(&launched), over)
    }
}

fn login(
    sessions: &mut SessionManagerClient,
    ring: &mut RuntimeRingClient<'_>,
) -> Result<OwnedCapability<UserSession>, Failure> {
    let selector = LoginSelector {
        kind: LoginSelectorKind::AccountName,
        value: b"operator",
    };
    let source = LoginSourceMetadata {
        terminal_event_id: &[],
        source: "console",
        remote_addr: &[],
    };
    sessions
        .login_wait(ring, "password", selector, PASSWORD, source, FOREVER)
        .map(|started| started.session)
        .map_err(failed("login"))
}

fn prove(runtime: &mut Runtime) -> Proof {
    let missing = |_| Failure::new("a capability is missing");
    let capset = runtime.capset();
    let mut sessions: SessionManagerClient =
        capset.get_client(b"session_manager").map_err(missing)?;
    let mut broker = capset.get_client(b"authority_broker").map_err(missing)?;
    let mut clock = capset.get_client(b"timer").map_err(missing)?;
    let launcher = capset.get_typed(b"launcher").map_err(missing)?;
    let terminal = capset.get(b"terminal").map_err(missing)?;
    let timer = capset.get(b"timer").map_err(missing)?;
    let spawner = capset.get_typed::<ProcessSpawner>(b"spawner");
    let spawner = spawner.map_err(missing)?.raw();
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))?;
    let session = login(&mut sessions, &mut ring)?;
    let mut tester = Tester {
        ring: &mut ring,
        launcher,
        terminal,
        session: session.capability().raw(),
        timer,
        spawner,
        manager: sessions.capability().raw(),
    };
    tester.a_guest_in_time(&mut sessions, &mut broker, &mut clock)?;
    tester.no_authority()?;
    tester.only_what_is_held()?;
    tester.only_its_profile()?;
    tester.only_the_shell()?;
    tester.one_at_a_time()?;
    tester.nothing_after_logout(session.capability())
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "restricted-shell-launcher", prove)
}

entry_point!(main);
