//! Paperclips at a terminal.
//!
//! Holds: `stdio` (the calling side) and `timer`, and nothing else. Seconds pass
//! in the workshop as they pass outside: before each command, and once a second
//! while the person thinks.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::prelude::*;
use capos::{
    CallId, CompletedCall, Endpoint, LineStatus, RingClientError, RuntimeRingClient, StdIOClient,
    StdIOReadMode, StdIOReadRequest, StdIOStream,
};
use paperclips_rules::Game;
use service::FOREVER;

const SECOND_NS: u64 = 1_000_000_000;
/// Longest line, in bytes.
const LINE_BYTES_MAX: u32 = 80;

const EXIT_BUNDLE: i64 = 2;
const EXIT_FAILED: i64 = 3;

struct Workshop<'r> {
    ring: RuntimeRingClient<'r>,
    stdio: StdIOClient,
    timer: TimerClient,
    game: Game,
    /// When the last whole second was over.
    clock_ns: u64,
}

impl Workshop<'_> {
    fn say(&mut self, text: &str) -> Result<(), ClientError> {
        let line = format!("{text}\n");
        self.stdio
            .write_wait(&mut self.ring, StdIOStream::Stdout, &line, FOREVER)
    }

    fn play(&mut self) -> Result<(), ClientError> {
        let opening = self.game.opening();
        self.say(&opening)?;
        self.clock_ns = self.timer.now_wait(&mut self.ring, FOREVER)?.monotonic_ns;
        loop {
            let read = self.begin_read()?;
            let completed = self.line(read)?;
            let result = self.stdio.finish_read(completed)?;
            match result.status {
                LineStatus::Closed => break,
                LineStatus::Cancelled => continue,
                LineStatus::Submitted => {}
            }
            self.pass_time()?;
            let reply = self.game.command(&result.text);
            self.say(&reply.text)?;
            if reply.exit {
                break;
            }
        }
        self.stdio.close_wait(&mut self.ring, FOREVER)
    }

    fn begin_read(&mut self) -> Result<CallId, ClientError> {
        let request = StdIOReadRequest {
            prompt: "paperclips> ".into(),
            mode: StdIOReadMode::Line,
            max_bytes: LINE_BYTES_MAX,
            allow_empty: true,
        };
        self.stdio.read(&mut self.ring, &request)
    }

    /// Waits for the line while the workshop works.
    fn line(&mut self, read: CallId) -> Result<CompletedCall, ClientError> {
        loop {
            match self.ring.wait(read, SECOND_NS) {
                Ok(completed) => return Ok(completed),
                Err(RingClientError::Timeout | RingClientError::TargetStillPending) => {
                    self.pass_time()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets pass in the game what has passed outside.
    fn pass_time(&mut self) -> Result<(), ClientError> {
        let now = self.timer.now_wait(&mut self.ring, FOREVER)?.monotonic_ns;
        let seconds = now.saturating_sub(self.clock_ns) / SECOND_NS;
        self.clock_ns += seconds * SECOND_NS;
        match self.game.tick(seconds) {
            Some(news) => self.say(&news),
            None => Ok(()),
        }
    }
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let stdio = capset
        .get(b"stdio")
        .ok()
        .and_then(|stdio| stdio.typed::<Endpoint>());
    let (Some(stdio), Ok(timer)) = (stdio, capset.get_client::<TimerClient>(b"timer")) else {
        return EXIT_BUNDLE;
    };
    let Ok(ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let mut workshop = Workshop {
        ring,
        stdio: StdIOClient::new(stdio),
        timer,
        game: Game::default(),
        clock_ns: 0,
    };
    match workshop.play() {
        Ok(()) => 0,
        Err(_) => EXIT_FAILED,
    }
}

entry_point!(main);
