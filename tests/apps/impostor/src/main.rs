//! Answers calls that were delivered to another process, on request: it owns
//! the same endpoint and is told the call's number, and still must not.
#![no_std]
#![no_main]

use capos::prelude::*;
use raw_ring::proof::{self, Failure, equal};
use raw_ring::{Mailbox, Process, Proof, Sqe, receive, returns};

const ATTACK: u16 = 1;

/// Answers call `id` in every way; how often that succeeded.
fn attack(process: &mut Process, shared: u32, own: u32, id: u32) -> Result<u8, Failure> {
    let mut successes = 0;
    for endpoint in [shared, own] {
        for sqe in [
            returns(endpoint, id).params(b"no"),
            returns(endpoint, id),
            capos::CapSqe {
                flags: 16,
                ..returns(endpoint, id)
            },
        ] {
            successes += u8::from(process.ring.perform(sqe)?.result >= 0);
        }
    }
    Ok(successes)
}

fn prove(process: &mut Process) -> Proof {
    let (shared, own) = (process.cap("endpoint")?, process.cap("own")?);
    loop {
        let mut mailbox = Mailbox::new(256);
        let cqe = process.ring.perform(receive(own, &mut mailbox))?;
        let delivery = mailbox.delivery(&cqe)?;
        let id = delivery.call_id;
        if delivery.header.method_id != ATTACK {
            return process.ring.expect("RETURN", returns(own, id), 0).map(drop);
        }
        let target = delivery.params.try_into().map(u32::from_le_bytes);
        let target = target.map_err(|_| Failure::new("no call id"))?;
        let successes = attack(process, shared, own, target)?;
        let answer = returns(own, id).params(core::slice::from_ref(&successes));
        process.ring.expect("RETURN", answer, 0)?;
        equal("successes", successes, 0)?;
    }
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "impostor", prove)
}

entry_point!(main);
