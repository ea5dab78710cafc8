//! Stands in for the shell and the person before it: starts a demo with the
//! capabilities it asks for, types lines when it has said what they answer, and
//! shows on the console all that the demo says.
//!
//! Which demo it is follows from what this program holds: with `chat` it is the
//! chat client, with `timer` the workshop.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use capos::capos_capnp::{LineStatus, std_i_o};
use capos::prelude::*;
use capos::{
    CallId, Endpoint, PRESERVE_CLIENT_ENDPOINT_BADGE, ProcessHandleClient, ProcessSpawnerClient,
    RuntimeRingClient, SpawnGrant, SpawnGrantMode, SpawnGrantSource, decode_stdio_read_params,
    decode_stdio_write_params,
};
use service::{Call, Completion, Event, FOREVER, Refusal, Reply, Server, empty_message};

const WRITE: u16 = 0;
const READ: u16 = 1;
const CLOSE: u16 = 2;

const EXIT_BUNDLE: i64 = 2;
const EXIT_FAILED: i64 = 3;
const EXIT_SCRIPT: i64 = 4;

/// What the demo must have said, and what is typed then.
type Step = (&'static str, &'static str);

const CHAT: &[Step] = &[
    ("/join <channel>, /leave, /who, /exit", "/who"),
    ("members: member-1", "hello from shell"),
    ("#lobby <member-1> hello from shell", "/join #other"),
    ("#other member-1 joined", "/leave"),
    ("left #other", "said to nobody"),
    ("you are nowhere", "/join not a channel"),
    ("takes nobody", "/dance"),
    ("does not work like that", "/exit"),
];
const WORKSHOP: &[Step] = &[
    ("for what you can do", "status"),
    ("clips made: 0", "buy marketing"),
    ("marketing level: 1", "make"),
    ("clips made: 1", "make 100"),
    ("make takes no number", "buy autoclipper"),
    ("autoclippers: 1", "run 3"),
    ("(+3)", "projects"),
    ("no projects", "exit"),
];

struct Host {
    console: ConsoleClient,
    said: String,
    script: Vec<Step>,
    /// A read that waits until the demo has said what it should.
    reading: Option<Call>,
}

impl Host {
    fn take(&mut self, ring: &mut RuntimeRingClient<'_>, call: &Call) -> Result<Reply, Refusal> {
        match call.method {
            WRITE => {
                let write = decode_stdio_write_params(call.params());
                let text = write.map_or_else(|_| String::from("?"), |write| write.text);
                self.said.push_str(&text);
                let line = text.trim_end_matches('\n');
                let _ = self.console.write_line_wait(ring, line, FOREVER);
                Ok(Reply::void())
            }
            CLOSE => Ok(Reply::void()),
            _ => Err(service::unknown_method()),
        }
    }

    /// The line that answers what was said; none as long as that is to come.
    fn line(&mut self) -> Option<Reply> {
        let Some((awaited, line)) = self.script.first().copied() else {
            return Some(read(LineStatus::Closed, ""));
        };
        if !self.said.contains(awaited) {
            return None;
        }
        self.said.clear();
        self.script.remove(0);
        Some(read(LineStatus::Submitted, line))
    }

    /// Serves the demo until it ends; gives its exit code.
    fn serve(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
        (child, wait): (&mut ProcessHandleClient, CallId),
    ) -> Option<i64> {
        loop {
            match server.next(ring, &[wait]).ok()? {
                Event::Completed(_, Completion(completed)) => {
                    return child.finish_wait(completed).ok();
                }
                Event::Call(call) if call.method == READ => {
                    let request = decode_stdio_read_params(call.params()).ok()?;
                    let prompt = request.prompt.trim_end().to_string();
                    self.console.write_line_wait(ring, &prompt, FOREVER).ok()?;
                    self.reading = Some(call);
                }
                Event::Call(call) => {
                    let answer = self.take(ring, &call);
                    server.answer(ring, call, answer).ok()?;
                }
            }
            if let Some(call) = self.reading.take() {
                match self.line() {
                    Some(reply) => server.answer(ring, call, Ok(reply)).ok()?,
                    None => self.reading = Some(call),
                }
            }
        }
    }
}

fn read(status: LineStatus, text: &str) -> Reply {
    let mut message = empty_message();
    let mut results: std_i_o::read_results::Builder<'_> = message.init_root();
    results.set_status(status);
    results.set_text(text);
    Reply::message(&message)
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let (Ok(console), Ok(mut spawner), Ok(stdio)) = (
        capset.get_client::<ConsoleClient>(b"console"),
        capset.get_client::<ProcessSpawnerClient>(b"process_spawner"),
        capset.get_typed::<Endpoint>(b"stdio"),
    ) else {
        return EXIT_BUNDLE;
    };
    let client = |name, capability| SpawnGrant {
        name,
        source: SpawnGrantSource::Capability(capability),
        mode: SpawnGrantMode::ClientEndpoint,
        badge: PRESERVE_CLIENT_ENDPOINT_BADGE,
    };
    let stdio_grant = client("stdio", stdio.raw());
    let (program, grants, script) = match (capset.get(b"chat"), capset.get(b"timer")) {
        (Ok(chat), _) => ("chat-client", [stdio_grant, client("chat", chat)], CHAT),
        (_, Ok(timer)) => {
            let timer = SpawnGrant {
                name: "timer",
                source: SpawnGrantSource::Capability(timer),
                mode: SpawnGrantMode::Raw,
                badge: 0,
            };
            ("paperclips", [stdio_grant, timer], WORKSHOP)
        }
        _ => return EXIT_BUNDLE,
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let Ok(mut server) = Server::new(&mut ring, &[stdio], 2, 1024) else {
        return EXIT_FAILED;
    };
    let Ok(child) = spawner.spawn_wait(&mut ring, program, program, &grants, FOREVER) else {
        return EXIT_FAILED;
    };
    let mut child = ProcessHandleClient::from_capability(child.capability());
    let Ok(wait) = child.wait(&mut ring) else {
        return EXIT_FAILED;
    };
    let mut host = Host {
        console,
        said: String::new(),
        script: script.to_vec(),
        reading: None,
    };
    match host.serve(&mut ring, &mut server, (&mut child, wait)) {
        Some(0) if host.script.is_empty() => 0,
        Some(_) | None => EXIT_SCRIPT,
    }
}

entry_point!(main);
