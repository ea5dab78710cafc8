//! Lets a program sleep until that is refused, and proves that it meets the
//! quota of one program and that a second one, which sleeps too, does not
//! notice.
#![no_std]
#![no_main]

use capos::prelude::*;
use raw_ring::proof::{self, equal};
use raw_ring::{Proof, family, latency};

const NAME: &str = "sleeps-until-refused";
/// `PROCESS_TIMER_SLEEP_WAITER_LIMIT` of the ABI.
const QUOTA: u64 = 8;

fn prove(runtime: &mut Runtime) -> Proof {
    let grants = [family::same(runtime, "console")?];
    let taken = latency::isolation(runtime, NAME, "sleeper", &grants)?;
    equal("sleeps at one time", taken, QUOTA)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, NAME, prove)
}

entry_point!(main);
