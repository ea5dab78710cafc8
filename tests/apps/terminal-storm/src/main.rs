//! Reads lines in every way, whatever comes, until one says that it is over.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;

use capos::prelude::*;
use capos::{LineEcho, TerminalReadResult, TerminalSession, TerminalSessionClient, TimerClient};
use raw_ring::PATIENCE_NS;
use raw_ring::proof::{self, Failure, Proof, that};
use sel4_capos_client::read_edited_wait;

/// Longer than any storm.
const STORM_NS: u64 = 3_600_000_000_000;
/// The line that ends it.
const LAST: &[u8] = b"the end";
/// Longest line that is asked for; one in three asks for fewer.
const LINE_BYTES: u32 = 256;
/// Every so many lines the reader rests, so that input waits for it.
const RESTS_EVERY: usize = 512;
const REST_NS: u64 = 1_000_000;

fn prove(runtime: &mut Runtime) -> Proof {
    let capset = runtime.capset();
    let mut terminal = capset
        .get_client::<TerminalSessionClient>(b"terminal")
        .map_err(|_| Failure::new("no terminal"))?;
    let capability = capset
        .get_typed::<TerminalSession>(b"terminal")
        .map_err(|_| Failure::new("no terminal"))?;
    let mut timer = capset
        .get_client::<TimerClient>(b"timer")
        .map_err(|_| Failure::new("no timer"))?;
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))?;
    let history: Vec<&str> = ["first", "second", "third"].into();
    let mut over = false;
    let mut reads = 0_usize;
    while !over {
        let ring = &mut *ring;
        let read = match reads % 3 {
            0 => terminal.read_line_wait(ring, "> ", 16, LineEcho::Visible, true, STORM_NS),
            1 => terminal.read_line_wait(ring, "? ", LINE_BYTES, LineEcho::Hidden, true, STORM_NS),
            _ => read_edited_wait(capability, ring, "$ ", LINE_BYTES, &history, STORM_NS),
        };
        let TerminalReadResult { line, .. } =
            read.map_err(|error| Failure::new(format!("read {reads}: {error:?}")))?;
        that(line.len() <= LINE_BYTES as usize, "a line that is too long")?;
        that(
            core::str::from_utf8(&line).is_ok(),
            "a line that is no text",
        )?;
        over = &*line == LAST;
        reads += 1;
        if reads.is_multiple_of(RESTS_EVERY) {
            timer
                .sleep_wait(ring, REST_NS, PATIENCE_NS)
                .map_err(|error| Failure::new(format!("sleep: {error:?}")))?;
        }
    }
    terminal
        .write_line_wait(&mut *ring, "the storm is over", PATIENCE_NS)
        .map_err(|error| Failure::new(format!("writeLine: {error:?}")))
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "terminal-storm", prove)
}

entry_point!(main);
