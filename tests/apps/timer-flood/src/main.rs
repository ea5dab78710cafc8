//! Sleeps more often than it may: what is too much is refused at once, the
//! rest ends in time, once each, and then there is room again.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use capos::capos_capnp::{self, ExceptionType};
use capos::prelude::*;
use raw_ring::proof::{self, equal};
use raw_ring::{Mailbox, Process, Proof, Sqe, call, exception};

/// `Timer.sleep`.
const SLEEP: u16 = 1;
/// `PROCESS_TIMER_SLEEP_WAITER_LIMIT` of the ABI.
const SLEEPS_MAX: usize = 8;
const FLOOD: usize = 30;
const ROUNDS: usize = 3;
/// Long beside what the flood takes, even where many programs share the
/// processor.
const NAP_NS: u64 = 1_000_000_000;

fn sleep_params(duration_ns: u64) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<capos_capnp::timer::sleep_params::Builder<'_>>()
        .set_duration_ns(duration_ns);
    capnp::serialize::write_message_to_words(&message)
}

fn round(process: &mut Process, timer: u32, params: &[u8]) -> Proof {
    let mut result = Mailbox::new(256);
    let mut asleep = Vec::new();
    for _ in 0..FLOOD {
        let sleep = call(timer, SLEEP).params(params).result(result.bytes_mut());
        let user_data = process.ring.start(sleep)?;
        match process.ring.find(user_data) {
            None => asleep.push(user_data),
            Some(refused) => {
                let kind = ExceptionType::Overloaded;
                exception::expect("a sleep too many", &refused, result.bytes(), kind)?;
            }
        }
    }
    equal("sleeps", asleep.len(), SLEEPS_MAX)?;
    for user_data in asleep {
        equal("a sleep", process.ring.wait(user_data)?.result, 0)?;
    }
    equal("stray completions", process.ring.unclaimed(), 0)
}

fn prove(process: &mut Process) -> Proof {
    let timer = process.cap("timer")?;
    let params = sleep_params(NAP_NS);
    for _ in 0..ROUNDS {
        round(process, timer, &params)?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "timer-flood", prove)
}

entry_point!(main);
