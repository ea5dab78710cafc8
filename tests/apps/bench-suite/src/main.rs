//! Runs every benchmark of the personality, one after the other, in one boot.
//!
//! Each is a program with fresh capabilities of its own, and runs alone: this
//! one waits for its end.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use capos::prelude::*;
use capos::{KernelCapSource, Runtime};
use raw_ring::proof::{self, Proof};
use raw_ring::{Process, family};

type Grants = &'static [(&'static str, KernelCapSource)];

const CONSOLE: (&str, KernelCapSource) = ("console", KernelCapSource::Console);
const TIMER: (&str, KernelCapSource) = ("timer", KernelCapSource::Timer);
const SPAWNER: (&str, KernelCapSource) = ("spawner", KernelCapSource::ProcessSpawner);
const FRAMES: (&str, KernelCapSource) = ("frames", KernelCapSource::FrameAllocator);
const ENDPOINT: (&str, KernelCapSource) = ("endpoint", KernelCapSource::Endpoint);

/// Programs and what they get.
const PROGRAMS: [(&str, Grants); 10] = [
    ("bench-ring", &[CONSOLE, TIMER]),
    ("bench-transfer", &[CONSOLE, ENDPOINT, FRAMES]),
    ("bench-endpoint", &[CONSOLE, SPAWNER]),
    ("bench-notification", &[CONSOLE, SPAWNER]),
    (
        "bench-threads",
        &[
            CONSOLE,
            ("control", KernelCapSource::ThreadControl),
            ("threads", KernelCapSource::ThreadSpawner),
            ("park", KernelCapSource::ParkSpace),
        ],
    ),
    ("bench-timer", &[CONSOLE, TIMER]),
    (
        "bench-memory",
        &[
            CONSOLE,
            ("vm", KernelCapSource::VirtualMemory),
            FRAMES,
            ENDPOINT,
        ],
    ),
    ("bench-zerocopy", &[CONSOLE, FRAMES, SPAWNER]),
    ("bench-spawn", &[CONSOLE, SPAWNER]),
    ("bench-revoke", &[CONSOLE, ENDPOINT, FRAMES, SPAWNER]),
];

fn prove(runtime: &mut Runtime) -> Proof {
    for (program, sources) in PROGRAMS {
        Process::new(runtime).print(&alloc::format!("suite {program}"))?;
        let grants = sources
            .iter()
            .map(|&(name, source)| family::fresh(name, source));
        let grants: Vec<_> = grants.collect();
        let child = family::spawn(runtime, program, &grants)?;
        child.succeeds(runtime, program)?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "bench-suite", prove)
}

entry_point!(main);
