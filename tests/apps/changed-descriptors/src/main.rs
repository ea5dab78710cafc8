//! Rewrites params and descriptors of a call after it was submitted, while it
//! waits and after it was delivered. What arrives is what was submitted.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::{CapSqe, CapabilityType};
use capos_config::ring;
use raw_ring::proof::{self, equal};
use raw_ring::{Loopback, Mailbox, Message, Process, Proof, copied, moved, release, returns};

const SUBMITTED: u8 = b's';
const REWRITTEN: u8 = b'R';

/// One call that names the timer, rewritten to move the console away.
fn rewritten(process: &mut Process, own: Loopback, timer: u32, console: u32) -> Proof {
    let mut message = Message::new(&[SUBMITTED; 64], &[copied(timer), copied(timer)]);
    let mut result = Mailbox::new(64);
    let sqe = own.call(&message, &mut result);
    let queued = process.ring.start(sqe)?;
    message.fill_params(REWRITTEN);
    message.replace_transfer(0, moved(console));
    message.replace_transfer(1, moved(own.endpoint));
    overwrite_entries(process);
    let open = own.receive(process, queued)?;
    let delivery = open.mailbox.delivery(&open.cqe)?;
    equal("params", delivery.params, [SUBMITTED; 64].as_slice())?;
    equal("records", delivery.records.len(), 2)?;
    for record in &delivery.records {
        equal("interface", record.interface_id, Timer::INTERFACE_ID)?;
        process.ring.expect("RELEASE", release(record.cap_id), 0)?;
    }
    process.print("the console is still here")?;
    answered(process, own, open.cqe.call_id, timer)?;
    let cqe = process.ring.wait(queued)?;
    let records = result.records(&cqe)?;
    equal("result", result.written(&cqe)?, [SUBMITTED; 16].as_slice())?;
    equal("records of the result", records.len(), 1)?;
    equal("interface", records[0].interface_id, Timer::INTERFACE_ID)?;
    process
        .ring
        .expect("RELEASE", release(records[0].cap_id), 0)?;
    process.print("and still")
}

/// Writes garbage over every entry of the queue, which are all taken.
fn overwrite_entries(process: &mut Process) {
    for slot in 0..ring::SQ_ENTRIES {
        // SAFETY: an entry of the mapped ring page.
        unsafe {
            let entry: *mut CapSqe = ring::sqe_at(process.ring.base(), slot).cast_mut();
            entry.cast::<[u8; 64]>().write_volatile([0xff; 64]);
        }
    }
}

/// Returns the call; the payload is rewritten before the caller looks.
fn answered(process: &mut Process, own: Loopback, call_id: u32, timer: u32) -> Proof {
    let mut payload = Message::new(&[SUBMITTED; 16], &[copied(timer)]);
    let sqe = raw_ring::Sqe::message(returns(own.endpoint, call_id), &payload);
    let returned = process.ring.start(sqe)?;
    payload.fill_params(REWRITTEN);
    payload.replace_transfer(0, moved(own.endpoint));
    equal("RETURN", process.ring.wait(returned)?.result, 0)
}

fn prove(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let (timer, console) = (process.cap("timer")?, process.cap("console")?);
    for _ in 0..4 {
        rewritten(process, own, timer, console)?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "changed-descriptors", prove)
}

entry_point!(main);
