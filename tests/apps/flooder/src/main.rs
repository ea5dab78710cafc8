//! Submits a queue full again and again, for ever: NOPs, or if it was given
//! something called `wrong`, entries that are refused.
#![no_std]
#![no_main]

use capos::prelude::*;
use raw_ring::proof::{self, equal};
use raw_ring::{Process, Proof, Sqe, entry, nop};

/// The queue's length.
const BATCH: usize = 16;
/// No operation.
const UNKNOWN: u8 = 0xee;

fn flood(process: &mut Process) -> Proof {
    let wrong = process.cap("wrong").is_ok();
    let sqe = if wrong { entry(UNKNOWN) } else { nop() };
    let expected = if wrong { -1 } else { 0 };
    loop {
        process.ring.flush(&[sqe.user_data(5); BATCH])?;
        for _ in 0..BATCH {
            let result = process.ring.take().map(|cqe| cqe.result);
            equal("result", result, Some(expected))?;
        }
    }
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "flooder", flood)
}

entry_point!(main);
