//! `RestrictedShellLauncher`: how a shell starts in a session.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::any::Any;

use capos::capos_capnp::{self, CapGrantMode, restricted_shell_launcher};
use capos::{
    AuditEventType, AuditReasonClass, AuditResultClass, CapabilityRef, CapabilityType, Client,
    Console, Endpoint, ExceptionType, KernelCapSource, LogSink, Manual, OwnedCapability,
    PRESERVE_CLIENT_ENDPOINT_BADGE, ProcessHandle, ProcessHandleClient, RuntimeRingClient,
    SpawnGrant, SpawnGrantMode, SpawnGrantSource, StdIO, SystemInfo, TerminalSession, Timer,
    WallClock,
};
use policy::launch::{self, Asked, Mode, Rejected};
use policy::sessions::SHELL;
use service::{Call, FOREVER, Refusal, Reply, empty_message, refuse};

use crate::desk::{Caller, Desk, named, no_such_method};
use crate::record::Decision;

const LAUNCH_SHELL: u16 = 0;
/// Longest name of a process.
const NAME_BYTES_MAX: usize = 64;

/// Sessions that shells were started for whose last shell is known.
const SHELLS_MAX: usize = 8;

/// The session a shell is asked for in, as this endpoint is told of it:
/// reference and epoch.
pub(crate) type Asker = [u64; 3];

fn asker(call: &Call) -> Asker {
    let caller = &call.caller;
    [caller.scoped_ref, caller.scoped_ref_hi, caller.epoch]
}

/// A capability of the caller's that is passed through.
struct Passed<'a> {
    name: &'a str,
    mode: SpawnGrantMode,
    badge: u64,
    capability: CapabilityRef,
    _held: Box<dyn Any>,
}

fn rejected(reason: Rejected) -> Refusal {
    let message = match reason {
        Rejected::Number => "too many grants",
        Rejected::Name => "name of a grant cannot be used",
        Rejected::Source => "grant is not of a capability that is held",
        Rejected::Mode => "grant cannot be made that way",
        Rejected::Interface => "grant is of an interface that gives authority",
    };
    refuse(ExceptionType::InvalidArgument, message)
}

impl Desk {
    /// Answers a call of the shell launcher.
    pub(crate) fn launch(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &mut Call,
    ) -> (Result<Reply, Refusal>, Option<Decision>) {
        if call.method != LAUNCH_SHELL {
            return no_such_method();
        }
        let mut decision = Decision::about(AuditEventType::ShellLaunch, "launchShell");
        let answer = self.launch_shell(ring, call, &mut decision);
        decision.conclude(&answer, AuditResultClass::Denied, AuditReasonClass::Policy);
        (answer, Some(decision))
    }

    fn launch_shell(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &Call,
        decision: &mut Decision,
    ) -> Result<Reply, Refusal> {
        let message = call.message()?;
        let params: restricted_shell_launcher::launch_shell_params::Reader<'_> =
            message.get_root()?;
        let name = params.get_name()?.to_str()?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let message = "name of the process cannot be used";
            return Err(refuse(ExceptionType::InvalidArgument, message));
        }
        let profile = params.get_profile()?.to_str()?;
        let cap_id = params.get_session_cap_id();
        let caller = self.caller_session(ring, call, cap_id, profile, decision)?;
        let terminal: OwnedCapability<TerminalSession> = self
            .mint
            .caller_capability_wait(ring, call.id(), params.get_terminal_cap_id(), FOREVER)
            .map_err(|error| named("terminal", &error))?;
        let passed = self.pass_through(ring, call, params.get_grants()?)?;
        let asker = asker(call);
        self.end_last_shell(ring, asker)?;
        let handle = self.start(ring, name, &caller, &terminal, &passed)?;
        let mut reply = Reply::void();
        // The next launch may let go of it while this answer waits for its record.
        let index = reply.give(handle.clone());
        if self.shells.len() == SHELLS_MAX {
            self.shells.remove(0);
        }
        self.shells.push((asker, handle));
        let mut message = empty_message();
        let mut results: restricted_shell_launcher::launch_shell_results::Builder<'_> =
            message.init_root();
        results.set_handle_index(index);
        reply.set_message(&message);
        Ok(reply)
    }

    /// Ends the shell that was started for this session before, if it has not
    /// ended: whoever asked for it may have ended meanwhile, and its terminal is
    /// about to be somebody else's.
    fn end_last_shell(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        asker: Asker,
    ) -> Result<(), Refusal> {
        let Some(place) = self.shells.iter().position(|(last, _)| *last == asker) else {
            return Ok(());
        };
        let (_, handle) = self.shells.remove(place);
        let mut client = ProcessHandleClient::from_capability(handle.capability());
        let ended = client.terminate_wait(ring, FOREVER);
        ended.map_err(|error| named("last shell", &error))
    }

    /// Copies of what the caller wants the shell to have besides.
    fn pass_through<'a>(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &Call,
        grants: capnp::struct_list::Reader<'a, capos_capnp::cap_grant::Owned>,
    ) -> Result<Vec<Passed<'a>>, Refusal> {
        if grants.len() as usize > launch::GRANTS_MAX {
            return Err(rejected(Rejected::Number));
        }
        let asked = grants.iter().map(asked).collect::<Result<Vec<_>, _>>()?;
        let endpoints: Vec<&str> = self
            .endpoints
            .iter()
            .map(|(name, _)| name.as_ref())
            .collect();
        launch::check(&asked, &endpoints).map_err(rejected)?;
        let mut passed = Vec::with_capacity(asked.len());
        for (grant, asked) in grants.iter().zip(&asked) {
            let (capability, held) =
                self.callers(ring, call, grant.get_cap_id(), asked.interface_id)?;
            let (mode, badge) = match asked.mode {
                Mode::ClientEndpoint => (SpawnGrantMode::ClientEndpoint, grant.get_badge()),
                Mode::Raw | Mode::Other => (SpawnGrantMode::Raw, 0),
            };
            passed.push(Passed {
                name: asked.name,
                mode,
                badge,
                capability,
                _held: held,
            });
        }
        Ok(passed)
    }

    /// A copy of what the caller holds, if it has this interface, one of those
    /// that may be passed through.
    fn callers(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &Call,
        cap_id: u32,
        interface_id: u64,
    ) -> Result<(CapabilityRef, Box<dyn Any>), Refusal> {
        match interface_id {
            Console::INTERFACE_ID => self.caller_held::<Console>(ring, call, cap_id),
            Endpoint::INTERFACE_ID => self.caller_held::<Endpoint>(ring, call, cap_id),
            LogSink::INTERFACE_ID => self.caller_held::<LogSink>(ring, call, cap_id),
            Manual::INTERFACE_ID => self.caller_held::<Manual>(ring, call, cap_id),
            StdIO::INTERFACE_ID => self.caller_held::<StdIO>(ring, call, cap_id),
            SystemInfo::INTERFACE_ID => self.caller_held::<SystemInfo>(ring, call, cap_id),
            Timer::INTERFACE_ID => self.caller_held::<Timer>(ring, call, cap_id),
            WallClock::INTERFACE_ID => self.caller_held::<WallClock>(ring, call, cap_id),
            _ => Err(rejected(Rejected::Interface)),
        }
    }

    fn caller_held<T: CapabilityType + 'static>(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &Call,
        cap_id: u32,
    ) -> Result<(CapabilityRef, Box<dyn Any>), Refusal> {
        let copy: OwnedCapability<T> = self
            .mint
            .caller_capability_wait(ring, call.id(), cap_id, FOREVER)
            .map_err(|error| named("grant", &error))?;
        Ok((copy.capability().raw(), Box::new(copy)))
    }

    fn start(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        name: &str,
        caller: &Caller,
        terminal: &OwnedCapability<TerminalSession>,
        passed: &[Passed<'_>],
    ) -> Result<OwnedCapability<ProcessHandle>, Refusal> {
        let entitled = self
            .accounts
            .entitlement(&caller.info.principal_id, caller.profile);
        let binaries: Vec<&str> = entitled.binaries.iter().map(AsRef::as_ref).collect();
        let session = caller.session.capability();
        let launcher = self.mint.launcher_wait(ring, session, &binaries, FOREVER);
        let launcher = launcher.map_err(|error| named("launcher", &error))?;
        let mut grants = Vec::from([
            raw("terminal", terminal.capability().raw()),
            raw("session", session.raw()),
            raw("launcher", launcher.capability().raw()),
            facet("system_info", self.system_info.raw()),
            SpawnGrant {
                name: "stdio",
                source: SpawnGrantSource::Kernel(KernelCapSource::Endpoint),
                mode: SpawnGrantMode::Raw,
                badge: 0,
            },
        ]);
        if entitled.endpoints {
            let shared = self.endpoints.iter();
            grants.extend(shared.map(|(name, endpoint)| facet(name, *endpoint)));
        }
        grants.extend(passed.iter().map(|grant| SpawnGrant {
            name: grant.name,
            source: SpawnGrantSource::Capability(grant.capability),
            mode: grant.mode,
            badge: grant.badge,
        }));
        let spawned = self
            .mint
            .spawn_wait(ring, session, (name, SHELL), &grants, FOREVER)
            .map_err(|error| named("shell", &error))?;
        Ok(spawned.handle)
    }
}

fn raw(name: &str, capability: CapabilityRef) -> SpawnGrant<'_> {
    SpawnGrant {
        name,
        source: SpawnGrantSource::Capability(capability),
        mode: SpawnGrantMode::Raw,
        badge: 0,
    }
}

fn facet(name: &str, capability: CapabilityRef) -> SpawnGrant<'_> {
    SpawnGrant {
        name,
        source: SpawnGrantSource::Capability(capability),
        mode: SpawnGrantMode::ClientEndpoint,
        badge: PRESERVE_CLIENT_ENDPOINT_BADGE,
    }
}

/// A grant as the policy sees it.
fn asked(grant: capos_capnp::cap_grant::Reader<'_>) -> Result<Asked<'_>, Refusal> {
    let source = grant.get_source()?;
    let is_held = matches!(
        source.which()?,
        capos_capnp::cap_grant_source::Which::Capability(())
    );
    Ok(Asked {
        name: grant.get_name()?.to_str()?,
        interface_id: grant.get_interface_id(),
        is_held,
        mode: match grant.get_mode()? {
            CapGrantMode::Raw => Mode::Raw,
            CapGrantMode::ClientEndpoint => Mode::ClientEndpoint,
            CapGrantMode::Move | CapGrantMode::ServiceObject => Mode::Other,
        },
    })
}
