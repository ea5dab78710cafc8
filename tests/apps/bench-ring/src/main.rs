//! What the ways into the system cost, in ticks of the time stamp counter.
//!
//! Where time is counted in instructions, a tick is one instruction. Each line
//! is `bench NAME median=N min=N max=N`, over 101 rounds, without the cost of
//! reading the counter. Parameters are encoded once, beforehand.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use capos::prelude::*;
use capos::syscall::{cap_enter, legacy_ambient_write_is_rejected};
use capos::{CapSqe, capos_capnp};
use capos_config::ring::{CAP_OP_CALL, CAP_OP_NOP};
use raw_ring::bench::{Samples, ticks};
use raw_ring::{RawRing, entry};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const ROUNDS: usize = 101;
const WARM_UP_ROUNDS: usize = 3;
const CONSOLE_WRITE: u16 = 0;
const TIMER_NOW: u16 = 0;
const BATCHES: [usize; 3] = [1, 4, 16];

/// Durations of `action`; the first rounds, which find caches cold and memory
/// unbacked, are not counted.
fn measure(overhead: u64, mut action: impl FnMut()) -> Samples {
    let mut samples = Samples::with_capacity(ROUNDS);
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        let start = ticks();
        action();
        let taken = ticks() - start;
        if round >= WARM_UP_ROUNDS {
            samples.add(taken.saturating_sub(overhead));
        }
    }
    samples
}

struct Report {
    lines: Vec<String>,
    overhead: u64,
}

impl Report {
    fn add(&mut self, name: &str, action: impl FnMut()) {
        let samples = measure(self.overhead, action);
        self.lines.push(samples.line(name));
    }
}

/// Submits `entries`, waits for them and takes the completions; counts those
/// that are not what a working system answers.
fn round(ring: &mut RawRing, entries: &[CapSqe], failures: &mut usize) {
    ring.submit(entries);
    let complete = cap_enter(entries.len() as u32, FOREVER);
    let answered = core::iter::from_fn(|| ring.take()).filter(|cqe| cqe.result >= 0);
    let answered = answered.count();
    if complete.is_err() || answered != entries.len() {
        *failures += 1;
    }
}

fn call(cap_id: u32, method_id: u16, params: &[u8], result: &mut [u8]) -> CapSqe {
    CapSqe {
        cap_id,
        method_id,
        addr: params.as_ptr() as u64,
        len: params.len() as u32,
        result_addr: result.as_mut_ptr() as u64,
        result_len: result.len() as u32,
        ..entry(CAP_OP_CALL)
    }
}

fn empty_write_params() -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<capos_capnp::console::write_params::Builder<'_>>()
        .set_data(&[]);
    capnp::serialize::write_message_to_words(&message)
}

fn now_params() -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message.init_root::<capos_capnp::timer::now_params::Builder<'_>>();
    capnp::serialize::write_message_to_words(&message)
}

fn measure_all(runtime: &Runtime, started: u64, failures: &mut usize) -> Option<Vec<String>> {
    let capset = runtime.capset();
    let console: ConsoleClient = capset.get_client(b"console").ok()?;
    let timer: TimerClient = capset.get_client(b"timer").ok()?;
    // SAFETY: the runtime's page; its ring client is not in use meanwhile.
    let mut ring = unsafe { RawRing::new(runtime.ring()) };
    let mut report = Report {
        lines: Vec::from([format!("bench first-instruction at={started}")]),
        overhead: measure(0, || {}).min(),
    };
    report.add("refused-trap", || {
        if !legacy_ambient_write_is_rejected() {
            *failures += 1;
        }
    });
    report.add("cap_enter-empty", || {
        if cap_enter(0, 0).is_err() {
            *failures += 1;
        }
    });
    for batch in BATCHES {
        let entries = [entry(CAP_OP_NOP); 16];
        let name = format!("nop batch={batch}");
        report.add(&name, || round(&mut ring, &entries[..batch], failures));
    }
    // Nothing is held under the highest number.
    let unheld = call(u32::MAX, 0, &[], &mut []);
    for batch in BATCHES {
        let entries = [unheld; 16];
        let name = format!("call-not-held batch={batch}");
        report.add(&name, || {
            ring.submit(&entries[..batch]);
            let complete = cap_enter(batch as u32, FOREVER);
            let refused = core::iter::from_fn(|| ring.take()).filter(|cqe| cqe.result < 0);
            let refused = refused.count();
            if complete.is_err() || refused != batch {
                *failures += 1;
            }
        });
    }
    let mut result = [0; 256];
    let params = empty_write_params();
    let write = call(
        console.capability().cap_id(),
        CONSOLE_WRITE,
        &params,
        &mut result,
    );
    for batch in BATCHES {
        let entries = [write; 16];
        let name = format!("console-write-empty batch={batch}");
        report.add(&name, || round(&mut ring, &entries[..batch], failures));
    }
    let params = now_params();
    let now = call(timer.capability().cap_id(), TIMER_NOW, &params, &mut result);
    report.add("timer-now", || round(&mut ring, &[now], failures));
    report.add("timer-now batch=16", || {
        round(&mut ring, &[now; 16], failures);
    });
    Some(report.lines)
}

fn main(mut runtime: Runtime) -> i64 {
    let started = ticks();
    let mut failures = 0;
    let Some(lines) = measure_all(&runtime, started, &mut failures) else {
        return 1;
    };
    let Ok(mut console) = runtime.capset().get_client::<ConsoleClient>(b"console") else {
        return 2;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return 3;
    };
    for line in &lines {
        if console.write_line_wait(&mut ring, line, FOREVER).is_err() {
            return 4;
        }
    }
    if failures == 0 { 0 } else { 5 }
}

entry_point!(main);
