//! Starts one child after the other, far more than can live at one time; then
//! as many as can live at one time, ends them all and starts one more.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;

use capos::prelude::*;
use raw_ring::family;
use raw_ring::proof::{self, Failure, Process, Proof, equal, that};

/// More than process slots, and more than one process's memory allows.
const CHILDREN: usize = 200;
const SEVEN: i64 = 7;
const TERMINATED: i64 = 137;
/// More than process slots.
const CROWD: usize = 80;
const LEAST: usize = 8;

fn one_by_one(runtime: &mut Runtime) -> Proof {
    for _ in 0..CHILDREN {
        let child = family::spawn(runtime, "exit-seven", &[])?;
        equal("exit code", child.wait(runtime)?, SEVEN)?;
    }
    Ok(())
}

/// Starts idle children until that is refused; how many there were.
fn crowd(runtime: &mut Runtime) -> Result<usize, Failure> {
    let mut children = Vec::new();
    while children.len() < CROWD {
        match family::spawn(runtime, "dialler", &[]) {
            Ok(child) => children.push(child),
            Err(refused) => {
                // Say which limit it was.
                let line = format!("spawn-loop: {refused:?}");
                Process::new(runtime).print(&line)?;
                break;
            }
        }
    }
    let count = children.len();
    that(count < CROWD, "processes without end")?;
    for child in children {
        child.terminate(runtime)?;
        equal("exit code", child.wait(runtime)?, TERMINATED)?;
    }
    Ok(count)
}

fn prove(runtime: &mut Runtime) -> Proof {
    one_by_one(runtime)?;
    let first = crowd(runtime)?;
    that(first >= LEAST, "too few processes")?;
    let line = format!("spawn-loop: {first} children at one time");
    Process::new(runtime).print(&line)?;
    equal("the second crowd", crowd(runtime)?, first)?;
    let child = family::spawn(runtime, "exit-seven", &[])?;
    equal("exit code", child.wait(runtime)?, SEVEN)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "spawn-loop", prove)
}

entry_point!(main);
