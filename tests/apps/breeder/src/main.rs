//! Starts idle programs until that is refused, goes on trying for a while, and
//! ends them all: the hog of `spawns-until-refused`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use capos::prelude::*;
use raw_ring::family::{self, Child};
use raw_ring::latency::Hog;
use raw_ring::proof::{self, Failure, equal, that};
use raw_ring::{Process, Proof};

/// Waits for ever when it is granted no endpoint.
const IDLE: &str = "dialler";
const TERMINATED: i64 = 137;

/// Starts children until it may not; they live on.
fn breed(runtime: &mut Runtime) -> Vec<Child> {
    core::iter::from_fn(|| family::spawn(runtime, IDLE, &[]).ok()).collect()
}

fn prove(runtime: &mut Runtime) -> Proof {
    let mut hog = Hog::new(&Process::new(runtime))?;
    let children = breed(runtime);
    hog.full(&mut Process::new(runtime), children.len() as u64)?;
    while hog.goes_on(&mut Process::new(runtime))? {
        let refused = family::spawn(runtime, IDLE, &[]);
        that(refused.is_err(), "one more child than it may have")?;
    }
    for child in &children {
        child.terminate(runtime)?;
        equal("exit code", child.wait(runtime)?, TERMINATED)?;
    }
    drop(children);
    let flushed = runtime.flush_releases();
    flushed.map_err(|_| Failure::new("releases"))
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "breeder", prove)
}

entry_point!(main);
