//! A paste of 2048 lines, 64 KiB: each arrives, whole and in its place, while
//! the reader takes its time now and then.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::prelude::*;
use capos::{LineEcho, LineStatus, TerminalSessionClient, TimerClient};
use raw_ring::PATIENCE_NS;
use raw_ring::proof::{self, Failure, Proof, equal};

const LINES: usize = 2048;
/// Every so many lines the reader rests, longer than the line is full.
const RESTS_EVERY: usize = 256;
const REST_NS: u64 = 50_000_000;

fn prove(runtime: &mut Runtime) -> Proof {
    let capset = runtime.capset();
    let mut terminal = capset
        .get_client::<TerminalSessionClient>(b"terminal")
        .map_err(|_| Failure::new("no terminal"))?;
    let mut timer = capset
        .get_client::<TimerClient>(b"timer")
        .map_err(|_| Failure::new("no timer"))?;
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))?;
    let mut prompt = "paste now: ";
    for number in 0..LINES {
        let read = terminal
            .read_line_wait(
                &mut *ring,
                prompt,
                64,
                LineEcho::Visible,
                false,
                PATIENCE_NS,
            )
            .map_err(|error| Failure::new(format!("line {number}: {error:?}")))?;
        equal("status", read.status, LineStatus::Submitted)?;
        let expected = format!("{number:07} the line has its number");
        equal("line", &*read.line, expected.as_bytes())?;
        prompt = "";
        if number.is_multiple_of(RESTS_EVERY) {
            timer
                .sleep_wait(&mut *ring, REST_NS, PATIENCE_NS)
                .map_err(|error| Failure::new(format!("sleep: {error:?}")))?;
        }
    }
    terminal
        .write_line_wait(&mut *ring, "every line arrived", PATIENCE_NS)
        .map_err(|error| Failure::new(format!("writeLine: {error:?}")))
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "terminal-paste", prove)
}

entry_point!(main);
