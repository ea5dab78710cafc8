//! Keeps the number of every capability it gives back. None ever works again,
//! and when a slot has no fresh number left it is not used any more.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use capos::prelude::*;
use capos_config::ring::{
    CAP_ERR_INVALID_REQUEST, CAP_ERR_INVALID_TRANSFER_DESCRIPTOR, CAP_ERR_INVOKE_FAILED,
};
use raw_ring::proof::{self, equal, line_params, that};
use raw_ring::{Loopback, Mailbox, Message, Process, Proof, Sqe, call, copied, moved, release};

const SLOT_MASK: u32 = (1 << 24) - 1;
const WRITE_LINE: u16 = 1;
/// More than the generations of one slot, fewer than those of two.
const ROUNDS: usize = 400;
/// Numbers of one slot.
const GENERATIONS: usize = 256;

fn is_stale(process: &mut Process, own: Loopback, id: u32) -> Proof {
    let text = line_params("stale");
    let call = call(id, WRITE_LINE).params(&text);
    process.ring.expect("CALL", call, CAP_ERR_INVOKE_FAILED)?;
    let again = release(id);
    let invalid = CAP_ERR_INVALID_REQUEST;
    process.ring.expect("RELEASE", again, invalid)?;
    for descriptor in [copied(id), moved(id)] {
        let message = Message::new(&[], &[descriptor]);
        let mut result = Mailbox::new(64);
        let sqe = own.call(&message, &mut result);
        let invalid = CAP_ERR_INVALID_TRANSFER_DESCRIPTOR;
        process.ring.expect("a stale descriptor", sqe, invalid)?;
    }
    Ok(())
}

fn prove(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let console = process.cap("console")?;
    let message = Message::new(&[], &[copied(console)]);
    let mut given_back: Vec<u32> = Vec::new();
    for _ in 0..ROUNDS {
        let records = own.pass(process, &message)?;
        equal("records", records.len(), 1)?;
        let id = records[0].cap_id;
        that(!given_back.contains(&id), "a number was given twice")?;
        if let Some(&last) = given_back.last() {
            is_stale(process, own, last)?;
        }
        process.ring.expect("RELEASE", release(id), 0)?;
        is_stale(process, own, id)?;
        given_back.push(id);
    }
    for &id in given_back.iter().step_by(7) {
        is_stale(process, own, id)?;
    }
    let first = given_back[0] & SLOT_MASK;
    let uses = given_back.iter().filter(|&&id| id & SLOT_MASK == first);
    equal("uses of the first slot", uses.count(), GENERATIONS)?;
    let last = given_back[ROUNDS - 1] & SLOT_MASK;
    that(last != first, "a spent slot was used again")
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "stale-caps", prove)
}

entry_point!(main);
