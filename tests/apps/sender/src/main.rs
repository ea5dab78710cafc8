//! Sends its parent a copy of its console and its timer itself, gets the timer
//! back under a new number, and tries to send what cannot be sent.
#![no_std]
#![no_main]

use capos::CapabilityType;
use capos::prelude::*;
use raw_ring::proof::{self, equal, that};
use raw_ring::{Mailbox, Message, Process, Proof, Sqe, call, copied, moved, release};

const NOW: u16 = 0;
const NOW_BYTES: i32 = 32;

fn ask_timer(process: &mut Process, timer: u32, result: i32) -> Proof {
    let params = proof::no_params();
    let mut room = [0; 64];
    let now = call(timer, NOW).params(&params).result(&mut room);
    process.ring.expect("Timer.now", now, result).map(drop)
}

fn prove(process: &mut Process) -> Proof {
    let parent = process.cap("parent")?;
    let (console, timer) = (process.cap("console")?, process.cap("timer")?);
    ask_timer(process, timer, NOW_BYTES)?;
    let message = Message::new(b"take", &[copied(console), moved(timer)]);
    let mut result = Mailbox::new(256);
    let sqe = call(parent, 1).message(&message).result(result.bytes_mut());
    let cqe = process.ring.perform(sqe)?;
    equal("the answer", result.written(&cqe)?, b"back".as_slice())?;
    let records = result.records(&cqe)?;
    equal("records", records.len(), 2)?;
    equal("interface", records[0].interface_id, Timer::INTERFACE_ID)?;
    that(records[0].cap_id != timer, "the old number came back")?;
    ask_timer(process, timer, -4)?;
    ask_timer(process, records[0].cap_id, NOW_BYTES)?;
    process.print_through(
        records[1].cap_id,
        "child: printed through the parent's copy",
    )?;
    process
        .ring
        .expect("RELEASE", release(records[1].cap_id), 0)?;
    let own = process.cap("own")?;
    for descriptor in [copied(own), moved(own)] {
        let message = Message::new(b"own ", &[copied(console), descriptor]);
        let sqe = call(parent, 1).message(&message);
        process.ring.expect("an owner", sqe, -6)?;
    }
    let done = call(parent, 1).params(b"done");
    process.ring.expect("done", done, 0).map(drop)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "sender", prove)
}

entry_point!(main);
