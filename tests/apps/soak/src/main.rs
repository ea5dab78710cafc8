//! Starts a program that takes a bit of everything, ends it at a random point
//! unless it ends by itself, and begins again, as often as it is told.
//!
//! The root task compares its books each time this program is alone again; the
//! scenario asks its log for the outcome. What this program can see of its own
//! it compares itself: the numbers of the capabilities that each spawn gives.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::KernelCapSource;
use capos::prelude::*;
use capos::syscall::cap_enter;
use raw_ring::chance::Chance;
use raw_ring::family::{self, Child};
use raw_ring::proof::{self, Failure, equal, that};
use raw_ring::{Mailbox, Process, Proof, Sqe, call};

const LODGER: &str = "lodger";
const WAIT: u16 = 0;
const TERMINATE: u16 = 1;
const DEFAULT_SEED: u64 = 1;
/// Longest life of a lodger, in nanoseconds.
const LIFE_NS: u64 = 2_000_000;
const LEFT: i64 = 7;
/// Its own threads were in its way.
const GAVE_UP: i64 = 8;
const TERMINATED: i64 = 137;
const FAULTED: i64 = 139;

/// How lodgers ended.
#[derive(Default)]
struct Tally {
    left: u64,
    terminated: u64,
    faulted: u64,
}

impl Tally {
    fn count(&mut self, code: i64) -> Proof {
        let kind = match code {
            LEFT | GAVE_UP => &mut self.left,
            TERMINATED => &mut self.terminated,
            FAULTED => &mut self.faulted,
            other => return equal("a lodger's exit code", other, TERMINATED),
        };
        *kind += 1;
        Ok(())
    }
}

/// Waits until the lodger ends or its time is up, and then ends it.
fn outlive(runtime: &Runtime, child: &Child, life_ns: u64) -> Result<i64, Failure> {
    let mut process = Process::new(runtime);
    let [handle, _] = child.result_ids();
    let mut answer = Mailbox::new(256);
    let wait = call(handle, WAIT).result(answer.bytes_mut());
    let user_data = process.ring.fresh_user_data();
    process.ring.submit(&[wait.user_data(user_data)]);
    let entered = cap_enter(1, life_ns);
    that(entered.is_ok(), "cap_enter")?;
    if process.ring.find(user_data).is_none() {
        process
            .ring
            .expect("terminate", call(handle, TERMINATE), 0)?;
        process.ring.wait(user_data)?;
    }
    drop(process);
    child_code(&answer)
}

/// The exit code: one word behind the header and the pointer of the message.
fn child_code(answer: &Mailbox) -> Result<i64, Failure> {
    const AT: usize = 16;
    let word = answer.bytes()[AT..AT + 8].try_into();
    word.map(i64::from_le_bytes)
        .map_err(|_| Failure::new("an exit code"))
}

fn cycle(runtime: &mut Runtime, chance: &mut Chance) -> Result<i64, Failure> {
    let seed = format!("seed-{}", chance.below(1 << 40));
    let grants = [
        family::fresh("endpoint", KernelCapSource::Endpoint),
        family::fresh("timer", KernelCapSource::Timer),
        family::fresh("spawner", KernelCapSource::ProcessSpawner),
        family::fresh("threads", KernelCapSource::ThreadSpawner),
        family::fresh("control", KernelCapSource::ThreadControl),
        family::fresh("park", KernelCapSource::ParkSpace),
        family::fresh("vm", KernelCapSource::VirtualMemory),
        family::fresh("frames", KernelCapSource::FrameAllocator),
        family::fresh(&seed, KernelCapSource::Timer),
    ];
    let child = family::spawn(runtime, LODGER, &grants)?;
    let code = outlive(runtime, &child, chance.below(LIFE_NS))?;
    drop(child);
    let flushed = runtime.flush_releases();
    flushed.map_err(|error| Failure::new(format!("releases: {error:?}")))?;
    Ok(code)
}

fn prove(runtime: &mut Runtime) -> Proof {
    let process = Process::new(runtime);
    let cycles = process.told("cycles");
    let cycles = cycles.ok_or_else(|| Failure::new("no capability `cycles-N`"))?;
    let seed = process.told("seed").unwrap_or(DEFAULT_SEED);
    drop(process);
    Process::new(runtime).print(&format!("soak: {cycles} cycles, seed {seed}"))?;
    let mut chance = Chance::new(seed);
    let mut tally = Tally::default();
    for number in 0..cycles {
        let code = cycle(runtime, &mut chance);
        let counted = code.and_then(|code| tally.count(code));
        counted.map_err(|failure| failure.within(&format!("cycle {number}")))?;
    }
    let Tally {
        left,
        terminated,
        faulted,
    } = tally;
    let line = format!("soak: {left} left, {terminated} terminated, {faulted} faulted");
    Process::new(runtime).print(&line)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "soak", prove)
}

entry_point!(main);
