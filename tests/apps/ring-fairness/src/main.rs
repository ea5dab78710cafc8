//! Works and sleeps beside processes that never let go of their rings: one
//! floods the system with NOPs, one with submissions that are all wrong.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::prelude::*;
use capos::syscall::cap_enter;
use raw_ring::family;
use raw_ring::proof::{self, Failure, Proof, equal, that};
use raw_ring::{Process, Sqe, call, nop};

const NOW: u16 = 0;
/// Exit code of a process that was ended through its handle.
const TERMINATED: i64 = 137;
const NAPS: u64 = 20;
const NAP_NS: u64 = 10_000_000;
/// Naps may take longer beside two greedy neighbours, but not that much.
const LIMIT_NS: u64 = NAPS * 15 * NAP_NS;
const CALLS: u32 = 2000;

fn now_ns(process: &mut Process, timer: u32) -> Result<u64, Failure> {
    let params = proof::no_params();
    let mut result = [0; 64];
    let sqe = call(timer, NOW).params(&params).result(&mut result);
    process.ring.expect("Timer.now", sqe, 32)?;
    let mut word = [0; 8];
    word.copy_from_slice(&result[16..24]);
    Ok(u64::from_le_bytes(word))
}

fn work(process: &mut Process) -> Proof {
    let timer = process.cap("timer")?;
    let start = now_ns(process, timer)?;
    for _ in 0..NAPS {
        let before = now_ns(process, timer)?;
        equal("completions", cap_enter(1, NAP_NS).ok(), Some(0))?;
        let nap = now_ns(process, timer)? - before;
        that(nap >= NAP_NS, "a nap was too short")?;
    }
    let napped = now_ns(process, timer)? - start;
    for _ in 0..CALLS {
        process.ring.expect("NOP", nop(), 0)?;
    }
    let worked = now_ns(process, timer)? - start - napped;
    let (napped_ms, worked_ms) = (napped / 1_000_000, worked / 1_000_000);
    process.print(&format!(
        "ring-fairness: {NAPS} naps in {napped_ms} ms, {CALLS} NOPs in {worked_ms} ms"
    ))?;
    that(napped < LIMIT_NS, "the neighbours take all the time")
}

fn prove(runtime: &mut Runtime) -> Proof {
    let console = family::same(runtime, "console")?;
    let endpoint = family::held(runtime, "endpoint")?;
    let nops = family::spawn(runtime, "flooder", &[console])?;
    let wrong = family::facet("wrong", endpoint);
    let wrong = family::spawn(runtime, "flooder", &[console, wrong])?;
    work(&mut Process::new(runtime))?;
    for flooder in [nops, wrong] {
        flooder.terminate(runtime)?;
        equal("a flooder", flooder.wait(runtime)?, TERMINATED)?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "ring-fairness", prove)
}

entry_point!(main);
