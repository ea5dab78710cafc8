//! Lets a program take memory until that is refused, and proves that it meets
//! its own quota and that nobody else notices: a second program answers and
//! wakes as before, and others can still start programs.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::KernelCapSource;
use capos::prelude::*;
use raw_ring::proof::{self, that};
use raw_ring::{Process, Proof, family, latency};

const NAME: &str = "allocates-until-refused";
const HOG: &str = "gobbler";
/// Pages a program may commit: 64 MiB.
const QUOTA: u64 = 16_384;

fn prove(runtime: &mut Runtime) -> Proof {
    let grants = [
        family::same(runtime, "console")?,
        family::fresh("vm", KernelCapSource::VirtualMemory),
    ];
    let taken = latency::isolation(runtime, NAME, HOG, &grants)?;
    Process::new(runtime).print(&format!("{NAME}: refused after {taken} pages"))?;
    that(taken == QUOTA, "not the quota of one program")
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, NAME, prove)
}

entry_point!(main);
