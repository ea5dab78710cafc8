//! Gives everything the same name. The system does not look at names: each
//! entry completes once, and the process has itself to blame for the rest.
#![no_std]
#![no_main]

use capos::CapSqe;
use capos::prelude::*;
use capos_config::ring::{CAP_ERR_INVALID_REQUEST, SQ_ENTRIES};
use raw_ring::proof::{self, Failure, equal, that};
use raw_ring::{
    Loopback, Mailbox, Message, Process, Proof, Sqe, cancel, nop, receive, release, returns,
};

const NAME: u64 = 0x5a5a;

/// The result of the next completion, which bears the name.
fn next(process: &mut Process) -> Result<capos::CapCqe, Failure> {
    process.ring.wait(NAME)
}

fn several_at_once(process: &mut Process) -> Proof {
    let mut entries = [nop().user_data(NAME); SQ_ENTRIES as usize];
    for (index, entry) in entries.iter_mut().enumerate() {
        if index % 2 == 1 {
            *entry = release(u32::MAX).user_data(NAME);
        }
    }
    process.ring.flush(&entries)?;
    for index in 0..entries.len() {
        let expected = if index % 2 == 1 {
            CAP_ERR_INVALID_REQUEST
        } else {
            0
        };
        let cqe = process.ring.take();
        let cqe = cqe.ok_or_else(|| Failure::new("a completion is missing"))?;
        equal("name", cqe.user_data, NAME)?;
        equal("result", cqe.result, expected)?;
    }
    equal("more", process.ring.unclaimed(), 0)
}

/// Caller, receiver and both answers under one name.
fn both_ends(process: &mut Process, own: Loopback) -> Proof {
    let mut mailboxes = [Mailbox::new(128), Mailbox::new(128)];
    let mut results = [Mailbox::new(64), Mailbox::new(64)];
    let message = Message::new(b"same", &[]);
    for mailbox in &mut mailboxes {
        let sqe: CapSqe = receive(own.endpoint, mailbox);
        process.ring.flush(&[sqe.user_data(NAME)])?;
    }
    for result in &mut results {
        let sqe = own.call(&message, result);
        process.ring.flush(&[sqe.user_data(NAME)])?;
    }
    let ids = [next(process)?.call_id, next(process)?.call_id];
    that(ids[0] != ids[1], "one call id for two calls")?;
    for (id, mailbox) in ids.into_iter().zip(&mailboxes) {
        that(mailbox.bytes()[56..60] == *b"same", "a message is missing")?;
        let answer = returns(own.endpoint, id).params(b"twins");
        process.ring.flush(&[answer.user_data(NAME)])?;
    }
    let mut total = 0;
    for _ in 0..4 {
        total += next(process)?.result;
    }
    equal("two answers and two returns", total, 10)?;
    for result in &results {
        that(result.bytes()[..5] == *b"twins", "an answer is missing")?;
    }
    equal("more", process.ring.unclaimed(), 0)
}

/// CANCEL finds one of two receives that bear the name, the older one.
fn cancelled(process: &mut Process, own: Loopback) -> Proof {
    let mut mailboxes = [Mailbox::new(128), Mailbox::new(128)];
    for mailbox in &mut mailboxes {
        let sqe = receive(own.endpoint, mailbox);
        process.ring.flush(&[sqe.user_data(NAME)])?;
    }
    for _ in &mailboxes {
        process
            .ring
            .expect("CANCEL", cancel(own.endpoint, NAME), 0)?;
        that(next(process)?.result < 0, "a cancelled RECV")?;
        equal("more", process.ring.unclaimed(), 0)?;
    }
    process
        .ring
        .expect("CANCEL", cancel(own.endpoint, NAME), -4)
        .map(drop)
}

fn prove(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    several_at_once(process)?;
    both_ends(process, own)?;
    cancelled(process, own)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "duplicate-user-data", prove)
}

entry_point!(main);
