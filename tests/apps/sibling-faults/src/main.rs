//! Starts a program that reads address 0, one that divides by zero and one
//! that behaves: the first two die alone, and their parent is told.
#![no_std]
#![no_main]

use capos::prelude::*;
use raw_ring::family;
use raw_ring::proof::{self, Process, Proof, equal};

const SEVEN: i64 = 7;
/// Exit code of a process that was ended for a fault.
const FAULT: i64 = 139;

fn prove(runtime: &mut Runtime) -> Proof {
    for (program, code) in [
        ("null-deref", FAULT),
        ("exit-seven", SEVEN),
        ("divides-by-zero", FAULT),
        ("exit-seven", SEVEN),
    ] {
        let child = family::spawn(runtime, program, &[])?;
        equal(program, child.wait(runtime)?, code)?;
        // Whoever asks later is told the same.
        equal(program, child.wait(runtime)?, code)?;
    }
    Process::new(runtime).print("still here")
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "sibling-faults", prove)
}

entry_point!(main);
