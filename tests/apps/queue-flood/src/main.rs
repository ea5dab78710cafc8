//! Calls itself until it is refused, without serving; then serves. What was
//! accepted is delivered in order and answered once, what was refused was
//! refused at once, and afterwards everything works as before.
//!
//! Receives have a quota of their own: a process whose calls fill its endpoint
//! can still receive them.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use capos::capos_capnp::ExceptionType;
use capos::prelude::*;
use capos_config::ring::CAP_ERR_APPLICATION_EXCEPTION;
use raw_ring::proof::{self, Failure, equal, that};
use raw_ring::{
    Loopback, Mailbox, Message, Process, Proof, Sqe, cancel, exception, receive, returns,
};

/// More than any quota allows.
const FLOOD: usize = 500;
const ROUNDS: usize = 3;
/// The least that must be accepted before a refusal.
const LEAST: usize = 16;

/// Calls until one is refused; the `user_data` of the accepted ones.
fn flood_calls(
    process: &mut Process,
    own: Loopback,
    result: &mut Mailbox,
) -> Result<Vec<u64>, Failure> {
    let mut accepted = Vec::new();
    for n in 0..FLOOD {
        let message = Message::new(&(n as u32).to_le_bytes(), &[]);
        let user_data = process.ring.start(own.call(&message, result))?;
        if let Some(refused) = process.ring.find(user_data) {
            let kind = ExceptionType::Overloaded;
            exception::expect("the call too many", &refused, result.bytes(), kind)?;
            return Ok(accepted);
        }
        accepted.push(user_data);
    }
    Err(Failure::new("calls were queued without end"))
}

fn serve(process: &mut Process, own: Loopback, accepted: &[u64]) -> Proof {
    for (n, &user_data) in accepted.iter().enumerate() {
        let open = own.receive(process, user_data)?;
        let delivery = open.mailbox.delivery(&open.cqe)?;
        let expected = (n as u32).to_le_bytes();
        equal("the order", delivery.params, expected.as_slice())?;
        let answer = returns(own.endpoint, delivery.call_id).params(&expected);
        process.ring.expect("RETURN", answer, 0)?;
        equal("answered", process.ring.wait(user_data)?.result, 4)?;
    }
    equal("stray completions", process.ring.unclaimed(), 0)
}

/// Receives until one is refused, then withdraws all.
fn flood_receives(process: &mut Process, own: Loopback) -> Proof {
    let mut mailbox = Mailbox::new(256);
    let mut accepted = Vec::new();
    loop {
        that(accepted.len() < FLOOD, "receives were queued without end")?;
        let user_data = process.ring.start(receive(own.endpoint, &mut mailbox))?;
        match process.ring.find(user_data) {
            None => accepted.push(user_data),
            Some(refused) => {
                equal(
                    "the receive too many",
                    refused.result,
                    CAP_ERR_APPLICATION_EXCEPTION,
                )?;
                break;
            }
        }
    }
    that(accepted.len() >= LEAST, "too few receives")?;
    for user_data in accepted {
        process
            .ring
            .expect("CANCEL", cancel(own.endpoint, user_data), 0)?;
        that(process.ring.wait(user_data)?.result < 0, "a cancelled RECV")?;
    }
    equal("stray completions", process.ring.unclaimed(), 0)
}

fn prove(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let mut result = Mailbox::new(256);
    let mut first = None;
    for _ in 0..ROUNDS {
        let accepted = flood_calls(process, own, &mut result)?;
        that(accepted.len() >= LEAST, "too few calls")?;
        equal("room", accepted.len(), *first.get_or_insert(accepted.len()))?;
        serve(process, own, &accepted)?;
        flood_receives(process, own)?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "queue-flood", prove)
}

entry_point!(main);
