//! The terminal as its one foreground reader sees it: visible and hidden lines,
//! bounds, cancellation, end of input, and what was typed at the wrong time.
//!
//! Each step asks with a prompt of its own, and the scenario types the answer.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::prelude::*;
use capos::{
    ClientError, ExceptionType, LineEcho, LineStatus, RuntimeRingClient, TerminalReadResult,
    TerminalSessionClient, TimerClient,
};
use raw_ring::PATIENCE_NS;
use raw_ring::proof::{self, Failure, Proof, equal, that};

/// Long enough for the scenario to type ahead, on a machine that is held up, too.
const PAUSE_NS: u64 = 3_000_000_000;
const LINE_BYTES: u32 = 64;

struct Desk<'a, 'b> {
    terminal: TerminalSessionClient,
    timer: TimerClient,
    ring: &'a mut RuntimeRingClient<'b>,
}

impl Desk<'_, '_> {
    fn say(&mut self, text: &str) -> Proof {
        self.terminal
            .write_line_wait(&mut **self.ring, text, PATIENCE_NS)
            .map_err(|error| Failure::new(format!("writeLine: {error:?}")))
    }

    fn ask_with(
        &mut self,
        prompt: &str,
        max: u32,
        echo: LineEcho,
        allow_empty: bool,
    ) -> Result<TerminalReadResult, ClientError> {
        self.terminal.read_line_wait(
            &mut **self.ring,
            prompt,
            max,
            echo,
            allow_empty,
            PATIENCE_NS,
        )
    }

    fn ask(&mut self, prompt: &str, echo: LineEcho) -> Result<TerminalReadResult, Failure> {
        self.ask_with(prompt, LINE_BYTES, echo, false)
            .map_err(|error| Failure::new(format!("{prompt}: {error:?}")))
    }

    fn expect(&mut self, prompt: &str, echo: LineEcho, line: &[u8]) -> Proof {
        let read = self.ask(prompt, echo)?;
        equal(prompt, read.status, LineStatus::Submitted)?;
        equal(prompt, &*read.line, line)
    }

    fn pause(&mut self) -> Proof {
        self.timer
            .sleep_wait(&mut **self.ring, PAUSE_NS, PATIENCE_NS)
            .map(drop)
            .map_err(|error| Failure::new(format!("sleep: {error:?}")))
    }
}

fn lines(desk: &mut Desk<'_, '_>) -> Proof {
    desk.expect("visible: ", LineEcho::Visible, b"hello there")?;
    desk.expect("hidden: ", LineEcho::Hidden, b"open sesame")?;
    desk.expect("edited: ", LineEcho::Visible, b"hello")?;
    let bounded = desk
        .ask_with("bounded: ", 4, LineEcho::Visible, false)
        .map_err(|error| Failure::new(format!("bounded: {error:?}")))?;
    equal("bounded", &*bounded.line, b"1234")?;
    let empty = desk
        .ask_with("empty: ", LINE_BYTES, LineEcho::Visible, true)
        .map_err(|error| Failure::new(format!("empty: {error:?}")))?;
    equal(
        "empty",
        (empty.status, empty.line.len()),
        (LineStatus::Submitted, 0),
    )?;
    desk.expect("not empty: ", LineEcho::Visible, b"x")
}

fn ends(desk: &mut Desk<'_, '_>) -> Proof {
    let cancelled = desk.ask("cancelled: ", LineEcho::Visible)?;
    let nothing = (LineStatus::Cancelled, 0);
    equal(
        "cancelled",
        (cancelled.status, cancelled.line.len()),
        nothing,
    )?;
    let cancelled = desk.ask("cancelled secret: ", LineEcho::Hidden)?;
    equal("secret", (cancelled.status, cancelled.line.len()), nothing)?;
    let closed = desk.ask("closed: ", LineEcho::Visible)?;
    equal(
        "closed",
        (closed.status, closed.line.len()),
        (LineStatus::Closed, 0),
    )
}

/// What is typed while nobody reads: kept for a visible line of the same
/// reader, scrubbed before a hidden one and after a cancellation.
fn typed_ahead(desk: &mut Desk<'_, '_>) -> Proof {
    desk.expect("ready: ", LineEcho::Visible, b"ready")?;
    desk.say("type ahead now")?;
    desk.pause()?;
    desk.expect("kept: ", LineEcho::Visible, b"kept line")?;
    desk.say("type a stale secret now")?;
    desk.pause()?;
    desk.expect("scrubbed: ", LineEcho::Hidden, b"fresh secret")?;
    desk.say("type after a secret now")?;
    desk.expect("fresh: ", LineEcho::Visible, b"fresh line")?;
    let cancelled = desk.ask("stale: ", LineEcho::Visible)?;
    equal("stale", cancelled.status, LineStatus::Cancelled)?;
    // Behind the ^C there is more, some of it still on its way.
    desk.pause()?;
    desk.expect("clean: ", LineEcho::Visible, b"clean line")
}

/// A second read while one waits is refused, and the first goes on.
fn one_reader(desk: &mut Desk<'_, '_>) -> Proof {
    let first = desk
        .terminal
        .read_line(
            &mut **desk.ring,
            "first: ",
            LINE_BYTES,
            LineEcho::Visible,
            false,
        )
        .map_err(|error| Failure::new(format!("first: {error:?}")))?;
    match desk.ask_with("second: ", LINE_BYTES, LineEcho::Visible, false) {
        Err(ClientError::Application(exception)) => {
            equal(
                "second",
                exception.exception_type(),
                ExceptionType::Overloaded,
            )?;
        }
        other => return Err(Failure::new(format!("second reader: {other:?}"))),
    }
    let completion = desk
        .ring
        .wait(first, PATIENCE_NS)
        .map_err(|error| Failure::new(format!("first: {error:?}")))?;
    let read = desk
        .terminal
        .finish_read_line(completion)
        .map_err(|error| Failure::new(format!("first: {error:?}")))?;
    equal("first", &*read.line, b"still the first")
}

fn bad_requests(desk: &mut Desk<'_, '_>) -> Proof {
    let long = "p".repeat(300);
    for (prompt, max) in [(&*long, LINE_BYTES), ("none: ", 0)] {
        match desk.ask_with(prompt, max, LineEcho::Visible, false) {
            Err(ClientError::Application(exception)) => {
                equal(
                    "kind",
                    exception.exception_type(),
                    ExceptionType::InvalidArgument,
                )?;
            }
            other => return Err(Failure::new(format!("bad request: {other:?}"))),
        }
    }
    Ok(())
}

fn prove(runtime: &mut Runtime) -> Proof {
    let terminal = runtime
        .capset()
        .get_client::<TerminalSessionClient>(b"terminal")
        .map_err(|_| Failure::new("no terminal"))?;
    let timer = runtime
        .capset()
        .get_client::<TimerClient>(b"timer")
        .map_err(|_| Failure::new("no timer"))?;
    let stranger = runtime.capset().get(b"nothing");
    that(stranger.is_err(), "a capability nobody granted")?;
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))?;
    let mut desk = Desk {
        terminal,
        timer,
        ring: &mut ring,
    };
    bad_requests(&mut desk)?;
    lines(&mut desk)?;
    ends(&mut desk)?;
    typed_ahead(&mut desk)?;
    one_reader(&mut desk)?;
    desk.say("terminal smoke ok")
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "terminal-smoke", prove)
}

entry_point!(main);
