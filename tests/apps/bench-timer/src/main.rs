//! How late a sleeper wakes, in ticks of the time stamp counter.
//!
//! Only where time is counted in instructions is a tick a nanosecond, so that
//! the length asked for can be subtracted. The lines are, over [`ROUNDS`]
//! sleeps each,
//!
//! - `bench sleep-overshoot ns=N`: from the moment the sleep should have ended,
//!   counted from before CALL, to the sleeper holding its completion;
//! - `bench sleep-overshoot-of-eight`: the same for the last of eight sleeps
//!   that end together, in one program.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::CapSqe;
use capos::prelude::*;
use capos::syscall::cap_enter;
use raw_ring::bench::{Samples, ticks};
use raw_ring::proof::{self, Failure, that};
use raw_ring::timer::sleep_params;
use raw_ring::{Process, Proof, RawRing, Sqe, call};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const SLEEP: u16 = 1;
const ROUNDS: usize = 41;
const WARM_UP_ROUNDS: usize = 3;
const LENGTHS_NS: [u64; 5] = [10_000, 100_000, 1_000_000, 10_000_000, 25_000_000];
const TOGETHER: usize = 8;
const TOGETHER_NS: u64 = 1_000_000;

/// Sleeps as often as there are entries, which end together; how late the last
/// completion came.
fn overshoot(ring: &mut RawRing, entries: &[CapSqe], length_ns: u64) -> Result<u64, Failure> {
    let start = ticks();
    ring.submit(entries);
    let entered = cap_enter(entries.len() as u32, FOREVER);
    let completions = core::iter::from_fn(|| ring.take());
    let slept = completions.filter(|cqe| cqe.result == 0).count();
    let taken = ticks() - start;
    that(entered.is_ok() && slept == entries.len(), "a sleep")?;
    taken
        .checked_sub(length_ns)
        .ok_or_else(|| Failure::new("a sleep was short"))
}

fn measure(process: &mut Process, count: usize, length_ns: u64) -> Result<Samples, Failure> {
    let params = sleep_params(length_ns);
    let entry = call(process.cap("timer")?, SLEEP).params(&params);
    let entries = [entry; TOGETHER];
    Samples::take(WARM_UP_ROUNDS, ROUNDS, || {
        overshoot(&mut process.ring, &entries[..count], length_ns)
    })
}

fn prove(process: &mut Process) -> Proof {
    for length_ns in LENGTHS_NS {
        let samples = measure(process, 1, length_ns)?;
        process.print(&samples.line(&format!("sleep-overshoot ns={length_ns}")))?;
    }
    let samples = measure(process, TOGETHER, TOGETHER_NS)?;
    process.print(&samples.line("sleep-overshoot-of-eight"))
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "bench-timer", prove)
}

entry_point!(main);
