//! Answers calls it has no right to: unknown, answered before, or delivered
//! through another endpoint. The call itself stays open and is answered right.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos_config::ring::CAP_ERR_INVOKE_FAILED;
use raw_ring::proof::{self, equal, that};
use raw_ring::{Loopback, Mailbox, Message, Process, Proof, Sqe, returns};

fn refuse(process: &mut Process, what: &str, endpoint: u32, call_id: u32) -> Proof {
    let forged = returns(endpoint, call_id).params(b"forged answer");
    process.ring.expect(what, forged, CAP_ERR_INVOKE_FAILED)?;
    equal(what, process.ring.unclaimed(), 0)
}

fn prove(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let other = Loopback::new(process, "other")?;
    refuse(process, "without any call", own.endpoint, 1)?;
    let mut answered = 0_u32;
    for _ in 0..40 {
        let mut result = Mailbox::new(64);
        let queued = process
            .ring
            .start(own.call(&Message::new(b"ask ", &[]), &mut result))?;
        // Not delivered yet: no number can name it.
        for id in [0, 1, answered, answered.wrapping_add(1)] {
            refuse(process, "before delivery", own.endpoint, id)?;
        }
        let open = own.receive(process, queued)?;
        let id = open.cqe.call_id;
        that(id != 0 && id != answered, "a call id was used again")?;
        refuse(process, "another endpoint", other.endpoint, id)?;
        let console = process.cap("console")?;
        refuse(process, "no endpoint", console, id)?;
        for wrong in [0, answered, id ^ 1, id ^ 0x8000_0000, !id, u32::MAX] {
            refuse(process, "another number", own.endpoint, wrong)?;
        }
        let right = Message::new(b"right answer", &[]);
        let cqe = own.answer(process, &open, &right)?;
        equal("answer", result.written(&cqe)?, b"right answer".as_slice())?;
        refuse(process, "a second time", own.endpoint, id)?;
        answered = id;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "foreign-return", prove)
}

entry_point!(main);
