//! Starts `thread-lifecycle`, whose last thread ends with a code of its own,
//! and is told that code as the program's.
#![no_std]
#![no_main]

use capos::KernelCapSource;
use capos::prelude::*;
use raw_ring::family;
use raw_ring::proof::{self, Proof, equal};

/// What the last thread of `thread-lifecycle` ends with.
const LAST_CODE: i64 = 7;

fn prove(runtime: &mut Runtime) -> Proof {
    let grants = [
        family::same(runtime, "console")?,
        family::fresh("control", KernelCapSource::ThreadControl),
        family::fresh("threads", KernelCapSource::ThreadSpawner),
        family::fresh("park", KernelCapSource::ParkSpace),
    ];
    let child = family::spawn(runtime, "thread-lifecycle", &grants)?;
    equal("the exit code", child.wait(runtime)?, LAST_CODE)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "last-thread", prove)
}

entry_point!(main);
