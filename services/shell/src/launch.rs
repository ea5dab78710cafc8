//! `run`, `spawn`, `wait`, and the bridge between a program and the terminal.
//!
//! Programs call `stdio`; the shell answers while it waits for one of them.
//! What a program in the background asks for waits at the endpoint until then.
//!
//! The bridge belongs to the first live session that calls during a wait. A call
//! from another live session means that somebody else got hold of the program's
//! terminal: it gets an empty result, and the program is ended.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use capos::capos_capnp::LineStatus as WireStatus;
use capos::capos_capnp::std_i_o;
use capos::{
    CallId, Client, ExceptionType, LineEcho, PRESERVE_CLIENT_ENDPOINT_BADGE, RestrictedLauncher,
    RestrictedLauncherClient, SpawnGrant, SpawnGrantMode, SpawnGrantSource, StdIOReadMode,
    decode_stdio_read_params, decode_stdio_write_params,
};
use service::{Call, Completion, Event, FOREVER, Refusal, Reply, Server, empty_message, refuse};
use shell_core::command::{GrantMode, Launch};
use shell_core::{LineError, printable};

use crate::Shell;
use crate::children::{CHILDREN_MAX, Child, State};
use crate::errors::Trouble;
use crate::terminal::{self, Line};

/// A live session, as the ring ABI marks it.
const LIVE: u32 = capos_abi::ENDPOINT_CALLER_SESSION_LIVE;

mod ordinal {
    pub(super) const WRITE: u16 = 0;
    pub(super) const READ: u16 = 1;
    pub(super) const CLOSE: u16 = 2;
}

/// The bridge during one wait.
#[derive(Default)]
struct Bridge {
    /// The session it belongs to: reference and epoch.
    caller: Option<[u64; 3]>,
    /// A read that waits for the person, and the program's call.
    reading: Option<(CallId, Call)>,
    is_closed: bool,
    is_breached: bool,
}

impl Shell<'_> {
    pub(crate) fn run(&mut self, launch: &Launch) -> Result<(), Trouble> {
        let mut child = self.start(launch, &launch.binary)?;
        let outcome = self.attend(&mut child);
        self.report(&child, outcome)
    }

    pub(crate) fn spawn(&mut self, launch: &Launch, name: String) -> Result<(), Trouble> {
        self.look_after_children();
        if self.children.place(&name).is_ok() {
            return Err(Trouble::Text(format!(
                "there is a ${name} already; `release` it first"
            )));
        }
        if self.children.0.len() == CHILDREN_MAX {
            let text = format!("{CHILDREN_MAX} programs are the most; `release` one that ended");
            return Err(Trouble::Text(text));
        }
        let child = self.start(launch, &name)?;
        let text = format!("started ${}", printable(&name));
        self.children.0.push(child);
        Ok(self.say(&text)?)
    }

    pub(crate) fn wait(&mut self, name: &str) -> Result<(), Trouble> {
        self.look_after_children();
        let place = self.children.place(name)?;
        let mut child = self.children.0.remove(place);
        let outcome = match child.state {
            State::Runs(_) => self.attend(&mut child),
            State::Ended(_) | State::Lost(_) => Ok(()),
        };
        self.report(&child, outcome)
    }

    fn report(&mut self, child: &Child, outcome: Result<(), Trouble>) -> Result<(), Trouble> {
        outcome?;
        let name = printable(&child.name);
        let text = match &child.state {
            State::Ended(code) => format!("[shell] {name} exited with {code}"),
            State::Lost(reason) => format!("[shell] {name} was lost: {reason}"),
            State::Runs(_) => format!("[shell] {name} runs"),
        };
        Ok(self.say(&text)?)
    }

    /// Starts a program, and a call that waits for its end.
    fn start(&mut self, launch: &Launch, name: &str) -> Result<Child, Trouble> {
        let launcher = self.holdings.get::<RestrictedLauncher>("launcher");
        let launcher = launcher.ok_or_else(|| Trouble::held("launcher"))?;
        let mut grants = Vec::with_capacity(launch.grants.len());
        for grant in &launch.grants {
            let Some(holding) = self.holdings.find(&grant.source) else {
                return Err(Trouble::Line(LineError {
                    column: grant.column,
                    reason: format!("this shell holds no @{}", grant.source),
                }));
            };
            let (mode, badge) = match grant.mode {
                GrantMode::Raw => (SpawnGrantMode::Raw, 0),
                GrantMode::Client => (
                    SpawnGrantMode::ClientEndpoint,
                    PRESERVE_CLIENT_ENDPOINT_BADGE,
                ),
            };
            grants.push(SpawnGrant {
                name: &grant.name,
                source: SpawnGrantSource::Capability(holding.capability),
                mode,
                badge,
            });
        }
        let mut client = RestrictedLauncherClient::from_capability(launcher);
        let handle = client.spawn_wait(&mut self.ring, name, &launch.binary, &grants, FOREVER)?;
        let mut waiter = capos::ProcessHandleClient::from_capability(handle.capability());
        let wait = waiter.wait(&mut self.ring)?;
        Ok(Child {
            name: String::from(name),
            binary: launch.binary.clone(),
            handle,
            state: State::Runs(wait),
        })
    }

    /// Serves programs until `child` has ended.
    fn attend(&mut self, child: &mut Child) -> Result<(), Trouble> {
        let State::Runs(wait) = child.state else {
            return Ok(());
        };
        let Some(mut server) = self.stdio.take() else {
            let completed = self.ring.wait(wait, FOREVER);
            let completed = completed.map_err(capos::ClientError::Ring)?;
            child.state = State::Ended(child.client().finish_wait(completed)?);
            return Ok(());
        };
        let outcome = self.bridge(&mut server, child, wait);
        self.stdio = Some(server);
        outcome
    }

    fn bridge(
        &mut self,
        server: &mut Server,
        child: &mut Child,
        wait: CallId,
    ) -> Result<(), Trouble> {
        let mut bridge = Bridge::default();
        loop {
            let mut watched = Vec::from([wait]);
            watched.extend(bridge.reading.as_ref().map(|(read, _)| *read));
            match server.next(&mut self.ring, &watched)? {
                Event::Completed(call, completed) if call == wait => {
                    let Completion(completed) = completed;
                    child.state = match child.client().finish_wait(completed) {
                        Ok(code) => State::Ended(code),
                        Err(error) => State::Lost(crate::errors::describe(&error)),
                    };
                    return self.end_bridge(server, bridge);
                }
                Event::Completed(_, completed) => {
                    if let Some((_, call)) = bridge.reading.take() {
                        let answer = self.line_read(completed);
                        server.answer(&mut self.ring, call, answer)?;
                    }
                }
                Event::Call(call) => self.program_calls(server, child, &mut bridge, call)?,
            }
        }
    }

    /// The terminal has one reader: a read that was begun for a program that is
    /// gone has to end before the next prompt.
    fn end_bridge(&mut self, server: &mut Server, bridge: Bridge) -> Result<(), Trouble> {
        if let Some((read, call)) = bridge.reading {
            self.say("\n[shell] the program is gone; Enter goes on")?;
            let gone = refuse(ExceptionType::Disconnected, "the program is gone");
            server.answer(&mut self.ring, call, Err(gone))?;
            let completed = self.ring.wait(read, FOREVER);
            drop(completed.map_err(capos::ClientError::Ring)?);
        }
        if bridge.is_breached {
            return Err(Trouble::text(
                "the program was ended: another session called its terminal",
            ));
        }
        Ok(())
    }

    fn program_calls(
        &mut self,
        server: &mut Server,
        child: &Child,
        bridge: &mut Bridge,
        call: Call,
    ) -> Result<(), Trouble> {
        let caller = [
            call.caller.scoped_ref,
            call.caller.scoped_ref_hi,
            call.caller.epoch,
        ];
        let is_live = call.caller.flags & LIVE != 0;
        let is_other = bridge.caller.is_some_and(|owner| owner != caller);
        if !is_live || is_other {
            server.answer(&mut self.ring, call, Ok(Reply::void()))?;
            if is_live && !bridge.is_breached {
                bridge.is_breached = true;
                child.client().terminate_wait(&mut self.ring, FOREVER)?;
            }
            return Ok(());
        }
        bridge.caller = Some(caller);
        if call.method == ordinal::READ && !bridge.is_closed {
            return self.program_reads(server, bridge, call);
        }
        let answer = self.program_says(bridge, &call);
        Ok(server.answer(&mut self.ring, call, answer)?)
    }

    fn program_reads(
        &mut self,
        server: &mut Server,
        bridge: &mut Bridge,
        call: Call,
    ) -> Result<(), Trouble> {
        let begun = if bridge.reading.is_some() {
            Err(refuse(ExceptionType::Overloaded, "somebody reads already"))
        } else {
            self.begin_read(&call)
        };
        match begun {
            Ok(read) => {
                bridge.reading = Some((read, call));
                Ok(())
            }
            Err(refusal) => Ok(server.answer(&mut self.ring, call, Err(refusal))?),
        }
    }

    fn begin_read(&mut self, call: &Call) -> Result<CallId, Refusal> {
        let malformed = |_| refuse(ExceptionType::InvalidArgument, "malformed params");
        refuse_capabilities(call)?;
        let request = decode_stdio_read_params(call.params()).map_err(malformed)?;
        let echo = match request.mode {
            StdIOReadMode::Hidden => LineEcho::Hidden,
            StdIOReadMode::Line | StdIOReadMode::Block => LineEcho::Visible,
        };
        let prompt = printable(&request.prompt);
        let (most, allow_empty) = (request.max_bytes, request.allow_empty);
        let read = self
            .terminal
            .begin(&mut self.ring, &prompt, most, echo, allow_empty);
        read.map_err(|_| refuse(ExceptionType::Failed, "the terminal cannot be read"))
    }

    /// What the person typed, as the program gets it.
    fn line_read(&mut self, completed: Completion) -> Result<Reply, Refusal> {
        let Completion(completed) = completed;
        let failed = |_| refuse(ExceptionType::Failed, "the terminal cannot be read");
        let line = self.terminal.finish(completed).map_err(failed)?;
        Ok(match line {
            Line::Submitted(line) => read_results(WireStatus::Submitted, &terminal::text(&line)),
            Line::Cancelled => read_results(WireStatus::Cancelled, ""),
            Line::Closed => read_results(WireStatus::Closed, ""),
        })
    }

    /// Calls that are answered at once.
    fn program_says(&mut self, bridge: &mut Bridge, call: &Call) -> Result<Reply, Refusal> {
        match call.method {
            ordinal::WRITE => {
                refuse_capabilities(call)?;
                let malformed = |_| refuse(ExceptionType::InvalidArgument, "malformed params");
                let write = decode_stdio_write_params(call.params()).map_err(malformed)?;
                if bridge.is_closed {
                    return Err(refuse(ExceptionType::Disconnected, "stdio was closed"));
                }
                let text = printable(&write.text.replace("\r\n", "\n"));
                let shown = self.terminal.show(&mut self.ring, &text);
                shown.map_err(|_| refuse(ExceptionType::Failed, "the terminal is gone"))?;
                Ok(Reply::void())
            }
            ordinal::READ => Ok(read_results(WireStatus::Closed, "")),
            ordinal::CLOSE => {
                bridge.is_closed = true;
                Ok(Reply::void())
            }
            _ => Err(service::unknown_method()),
        }
    }
}

/// A terminal has no use for capabilities; what came is released.
fn refuse_capabilities(call: &Call) -> Result<(), Refusal> {
    if call.capability_count() == 0 {
        return Ok(());
    }
    let reason = "stdio takes no capabilities";
    Err(refuse(ExceptionType::InvalidArgument, reason))
}

fn read_results(status: WireStatus, text: &str) -> Reply {
    let mut message = empty_message();
    let mut results: std_i_o::read_results::Builder<'_> = message.init_root();
    results.set_status(status);
    results.set_text(text);
    Reply::message(&message)
}
