//! Sleeps as often at one time as it may, and goes on trying to sleep more: the
//! hog of `sleeps-until-refused`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use capos::capos_capnp::ExceptionType;
use capos::prelude::*;
use raw_ring::latency::Hog;
use raw_ring::proof::{self, Failure, equal};
use raw_ring::timer::sleep_params;
use raw_ring::{Mailbox, Process, Proof, Sqe, call, exception};

const SLEEP: u16 = 1;
/// Longer than it goes on trying.
const LONG_NS: u64 = 600_000_000;
/// More than may be.
const FLOOD: usize = 64;

/// Starts one sleep; its `user_data`, or nothing if that was refused.
fn sleep(process: &mut Process, room: &mut Mailbox) -> Result<Option<u64>, Failure> {
    let params = sleep_params(LONG_NS);
    let entry = call(process.cap("timer")?, SLEEP)
        .params(&params)
        .result(room.bytes_mut());
    let user_data = process.ring.start(entry)?;
    let Some(refused) = process.ring.find(user_data) else {
        return Ok(Some(user_data));
    };
    let kind = ExceptionType::Overloaded;
    exception::expect("a sleep too many", &refused, room.bytes(), kind)?;
    Ok(None)
}

fn prove(process: &mut Process) -> Proof {
    let mut hog = Hog::new(process)?;
    let mut room = Mailbox::new(256);
    let mut asleep = Vec::new();
    while asleep.len() < FLOOD
        && let Some(user_data) = sleep(process, &mut room)?
    {
        asleep.push(user_data);
    }
    hog.full(process, asleep.len() as u64)?;
    while hog.goes_on(process)? {
        equal("one more sleep", sleep(process, &mut room)?, None)?;
    }
    for user_data in asleep {
        equal("a sleep", process.ring.wait(user_data)?.result, 0)?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "sleeper", prove)
}

entry_point!(main);
