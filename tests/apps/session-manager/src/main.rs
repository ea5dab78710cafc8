//! Logs in, asks for bundles, and tries each of it where it must not work.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use alloc::vec;

use capos::client::{LoginSelector, LoginSelectorKind, LoginSourceMetadata};
use capos::prelude::*;
use capos::{
    AuditLogClient, AuthStrength, AuthorityBrokerClient, CapabilityRef, CapabilityType, Console,
    CredentialStoreClient, ExceptionType, OwnedCapability, PrincipalKind, ProcessHandle,
    RestrictedLauncherClient, RestrictedShellLauncherClient, RuntimeRingClient,
    SessionManagerClient, ShellBundleResult, SystemInfoClient, UserSession, UserSessionClient,
};
use raw_ring::proof::{self, Failure, Proof, equal, that};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const PASSWORD: &[u8] = b"correct horse";
const MINUTE_MS: u64 = 60_000;

struct Tester<'a, 'b> {
    ring: &'a mut RuntimeRingClient<'b>,
    sessions: SessionManagerClient,
    broker: AuthorityBrokerClient,
    launcher: RestrictedShellLauncherClient,
    terminal: CapabilityRef,
    console: CapabilityRef,
}

fn refusal<T>(outcome: &Result<T, ClientError>) -> Option<ExceptionType> {
    match outcome {
        Err(ClientError::Application(exception)) => Some(exception.exception_type()),
        _ => None,
    }
}

fn failed(what: &str) -> impl Fn(ClientError) -> Failure + '_ {
    move |error| Failure::new(format!("{what}: {error:?}"))
}

impl Tester<'_, '_> {
    fn login(
        &mut self,
        method: &str,
        account: &str,
        proof: &[u8],
    ) -> Result<OwnedCapability<UserSession>, ClientError> {
        let selector = LoginSelector {
            kind: LoginSelectorKind::AccountName,
            value: account.as_bytes(),
        };
        let source = LoginSourceMetadata {
            terminal_event_id: b"terminal event",
            source: "console",
            remote_addr: &[],
        };
        let started = self
            .sessions
            .login_wait(self.ring, method, selector, proof, source, FOREVER);
        started.map(|started| started.session)
    }

    fn info(
        &mut self,
        session: &OwnedCapability<UserSession>,
    ) -> Result<capos::SessionInfo, ClientError> {
        UserSessionClient::from_capability(session.capability()).info_wait(self.ring, FOREVER)
    }

    fn bundle(
        &mut self,
        session: &OwnedCapability<UserSession>,
        profile: &str,
    ) -> Result<ShellBundleResult, ClientError> {
        let session = session.capability();
        self.broker
            .shell_bundle_wait(self.ring, session, profile, FOREVER)
    }

    fn binaries(&mut self, bundle: &ShellBundleResult) -> Result<usize, Failure> {
        let launcher = bundle.launcher.capability();
        let names = RestrictedLauncherClient::from_capability(launcher)
            .list_binaries_wait(self.ring, FOREVER);
        names.map(|names| names.len()).map_err(failed("binaries"))
    }

    fn anonymous(&mut self) -> Proof {
        let session = self.sessions.anonymous_wait(self.ring, FOREVER);
        let session = session.map_err(failed("anonymous"))?.session;
        let info = self.info(&session).map_err(failed("info"))?;
        equal("kind", info.principal_kind, PrincipalKind::Anonymous)?;
        equal("strength", info.auth_strength, AuthStrength::None)?;
        equal("profile", &*info.profile, "anonymous")?;
        let lasts = info.expires_at_ms - info.created_at_ms;
        equal("lifetime", lasts, 5 * MINUTE_MS)?;
        let other = self.sessions.anonymous_wait(self.ring, FOREVER);
        let other = other.map_err(failed("anonymous"))?.session;
        let other = self.info(&other).map_err(failed("info"))?;
        that(info.session_id != other.session_id, "two sessions")?;
        that(info.principal_id != other.principal_id, "two nobodies")?;
        let bundle = self.bundle(&session, "anonymous");
        let bundle = bundle.map_err(failed("anonymous bundle"))?;
        equal("programs", self.binaries(&bundle)?, 0)?;
        equal("endpoints", bundle.service_endpoints.len(), 0)?;
        for profile in ["operator", "guest", "", "root"] {
            let bundle = self.bundle(&session, profile);
            equal(profile, refusal(&bundle), Some(ExceptionType::Failed))?;
        }
        let guest = self.sessions.guest_wait(self.ring, FOREVER);
        equal("guest", refusal(&guest), Some(ExceptionType::Failed))
    }

    fn logins_that_fail(&mut self) -> Proof {
        let refused = Some(ExceptionType::Failed);
        let wrong = self.login("password", "operator", b"wrong");
        equal("wrong", refusal(&wrong), refused)?;
        let stranger = self.login("password", "stranger", PASSWORD);
        equal("stranger", refusal(&stranger), refused)?;
        let nameless = self.login("password", "\u{1b}[2J:", PASSWORD);
        equal("no name", refusal(&nameless), refused)?;
        let long = vec![b'x'; 20_000];
        let long = self.login("password", "operator", &long);
        equal("too long", refusal(&long), refused)?;
        let unknown = self.login("passkey", "operator", PASSWORD);
        let invalid = Some(ExceptionType::InvalidArgument);
        equal("unknown method", refusal(&unknown), invalid)?;
        let key = self.sessions.ssh_public_key_wait(
            self.ring,
            "operator",
            "ssh-ed25519",
            &[1; 32],
            b"signed",
            &[2; 64],
            &[],
            FOREVER,
        );
        equal("keys", refusal(&key), Some(ExceptionType::Unimplemented))
    }

    fn operator(&mut self) -> Result<OwnedCapability<UserSession>, Failure> {
        let session = self.login("password", "operator", PASSWORD);
        let session = session.map_err(failed("login"))?;
        let info = self.info(&session).map_err(failed("info"))?;
        equal("kind", info.principal_kind, PrincipalKind::Operator)?;
        equal("strength", info.auth_strength, AuthStrength::Password)?;
        equal("profile", &*info.profile, "operator")?;
        let lasts = info.expires_at_ms - info.created_at_ms;
        equal("lifetime", lasts, 15 * MINUTE_MS)?;
        let bundle = self.bundle(&session, "operator");
        let bundle = bundle.map_err(failed("operator bundle"))?;
        equal("programs", self.binaries(&bundle)?, 1)?;
        let info = bundle.system_info.capability();
        let hostname = SystemInfoClient::from_capability(info).hostname_wait(self.ring, FOREVER);
        equal("hostname", &*hostname.map_err(failed("hostname"))?, "proof")?;
        let remote = self.broker.remote_client_bundle_wait(
            self.ring,
            session.capability(),
            "operator",
            FOREVER,
        );
        remote.map_err(failed("remote bundle"))?;
        Ok(session)
    }

    /// Sessions that are named but not held.
    fn forged_sessions(&mut self) -> Proof {
        for cap_id in [self.console.cap_id(), 0x00ff_ffff, u32::MAX] {
            let forged = CapabilityRef::new(cap_id, UserSession::INTERFACE_ID);
            let forged = forged.typed::<UserSession>();
            let forged = forged.ok_or_else(|| Failure::new("no such type"))?;
            let bundle = self
                .broker
                .shell_bundle_wait(self.ring, forged, "operator", FOREVER);
            let invalid = Some(ExceptionType::InvalidArgument);
            equal("a forged session", refusal(&bundle), invalid)?;
        }
        Ok(())
    }

    fn launch(
        &mut self,
        session: &OwnedCapability<UserSession>,
    ) -> Result<OwnedCapability<ProcessHandle>, ClientError> {
        let (terminal, session) = (self.terminal, session.capability().raw());
        self.launcher.launch_shell_wait(
            self.ring,
            "shell",
            terminal,
            session,
            "operator",
            &[],
            FOREVER,
        )
    }

    fn logout(&mut self, session: &OwnedCapability<UserSession>) -> Proof {
        UserSessionClient::from_capability(session.capability())
            .logout_wait(self.ring, FOREVER)
            .map_err(failed("logout"))?;
        let bundle = self.bundle(session, "operator");
        that(refusal(&bundle).is_some(), "a bundle after logout")?;
        let launched = self.launch(session);
        that(refusal(&launched).is_some(), "a shell after logout")
    }

    /// Nobody logs in before there is a password; then it is made.
    fn setup(&mut self, credentials: &mut CredentialStoreClient) -> Proof {
        let early = self.login("password", "operator", PASSWORD);
        equal("early", refusal(&early), Some(ExceptionType::Failed))?;
        let made = credentials.create_console_password_wait(self.ring, PASSWORD, FOREVER);
        let made = made.map_err(failed("setup"))?;
        that(made.configured && made.volatile, "there is a password")
    }

    /// Params that are none, of every method and of some that are not there.
    fn malformed(&mut self) -> Proof {
        let interfaces = [
            (self.sessions.capability().cap_id(), &[0u16, 3][..], 4),
            (self.broker.capability().cap_id(), &[0, 1], 2),
            (self.launcher.capability().cap_id(), &[0], 1),
        ];
        for (cap_id, methods, unknown) in interfaces {
            for method in methods.iter().chain(&[unknown, 99, u16::MAX]) {
                for params in [&[][..], &[0xff; 7], &[0xff; 64], &[0x41; 4096]] {
                    let call = self
                        .ring
                        .submit_call(cap_id, *method, params.into(), room());
                    let call = call.map_err(ClientError::Ring).map_err(failed("submit"))?;
                    let completion = self.ring.wait(call, FOREVER).map_err(ClientError::Ring);
                    let completion = completion.map_err(failed("wait"))?;
                    let outcome = capos::decode_completed_call(&completion);
                    let without_keys = methods.len() == 2 && unknown == 4 && *method == 3;
                    let expected = if *method >= unknown || without_keys {
                        ExceptionType::Unimplemented
                    } else {
                        ExceptionType::InvalidArgument
                    };
                    equal(
                        &format!("method {method}"),
                        refusal(&outcome),
                        Some(expected),
                    )?;
                }
            }
        }
        Ok(())
    }
}

fn room() -> Box<[u8]> {
    vec![0; 512].into_boxed_slice()
}

/// A record whose texts would like to be lines.
fn hostile_record(audit: &mut AuditLogClient, ring: &mut RuntimeRingClient<'_>) -> Proof {
    let record = capos::AuditRecord {
        event_type: capos::AuditEventType::Setup,
        result_class: capos::AuditResultClass::Ok,
        reason_class: capos::AuditReasonClass::None,
        terminal_event_id: &[],
        session_id: b"a session in clear",
        principal_id: &[],
        profile: "x\naudit: event=auth result=ok",
        auth_method: "\u{1b}[2J",
        volatile: false,
    };
    audit
        .record_wait(ring, record, FOREVER)
        .map_err(failed("record"))
}

fn prove(runtime: &mut Runtime) -> Proof {
    let missing = |_| Failure::new("a capability is missing");
    let capset = runtime.capset();
    let sessions = capset.get_client(b"session_manager").map_err(missing)?;
    let broker = capset.get_client(b"authority_broker").map_err(missing)?;
    let launcher = capset.get_client(b"shell_launcher").map_err(missing)?;
    let mut audit = capset.get_client(b"audit_log").map_err(missing)?;
    let mut credentials = capset.get_client(b"credential_store").map_err(missing)?;
    let terminal = capset.get(b"terminal").map_err(missing)?;
    let console = capset.get_typed::<Console>(b"console").map_err(missing)?;
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))?;
    hostile_record(&mut audit, &mut ring)?;
    let mut tester = Tester {
        ring: &mut ring,
        sessions,
        broker,
        launcher,
        terminal,
        console: console.raw(),
    };
    tester.anonymous()?;
    tester.setup(&mut credentials)?;
    tester.logins_that_fail()?;
    tester.malformed()?;
    tester.forged_sessions()?;
    let session = tester.operator()?;
    tester.logout(&session)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "session-manager", prove)
}

entry_point!(main);
