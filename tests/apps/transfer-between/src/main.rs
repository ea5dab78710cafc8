//! Receives capabilities from another process and sends some back: copies
//! leave both with one, moves leave the sender without, and a transfer that
//! its receiver has no room for leaves everything where it was.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::{CapabilityType, KernelCapSource};
use raw_ring::family;
use raw_ring::proof::{self, Proof, equal};
use raw_ring::{Mailbox, Message, Process, Sqe, call, copied, moved, receive, release, returns};

const NOW: u16 = 0;
const NOW_BYTES: i32 = 32;

fn ask_timer(process: &mut Process, timer: u32, result: i32) -> Proof {
    let params = proof::no_params();
    let mut room = [0; 64];
    let now = call(timer, NOW).params(&params).result(&mut room);
    process.ring.expect("Timer.now", now, result).map(drop)
}

/// The sender copies its console and moves its timer.
fn take(process: &mut Process, endpoint: u32) -> Proof {
    // Room for the message, not for the records: the call must survive.
    let mut small = Mailbox::new(56 + 4 + 16);
    let sqe = receive(endpoint, &mut small);
    process.ring.expect("a small receive", sqe, -3)?;
    let mut mailbox = Mailbox::new(256);
    let cqe = process.ring.perform(receive(endpoint, &mut mailbox))?;
    let delivery = mailbox.delivery(&cqe)?;
    equal("params", delivery.params, b"take".as_slice())?;
    equal("records", delivery.records.len(), 2)?;
    let [console, timer] = [delivery.records[0], delivery.records[1]];
    equal("interface", console.interface_id, Console::INTERFACE_ID)?;
    equal("interface", timer.interface_id, Timer::INTERFACE_ID)?;
    process.print_through(console.cap_id, "parent: printed through the child's copy")?;
    ask_timer(process, timer.cap_id, NOW_BYTES)?;
    // Back it goes, with the answer; the copy stays here until it is released.
    let answer = Message::new(b"back", &[moved(timer.cap_id), copied(console.cap_id)]);
    let sqe = returns(endpoint, delivery.call_id).message(&answer);
    process.ring.expect("RETURN", sqe, 0)?;
    ask_timer(process, timer.cap_id, -4)?;
    process.ring.expect("RELEASE", release(console.cap_id), 0)?;
    Ok(())
}

/// The sender finds out that it cannot pass on what is its alone.
fn refuse(process: &mut Process, endpoint: u32) -> Proof {
    let mut mailbox = Mailbox::new(256);
    let cqe = process.ring.perform(receive(endpoint, &mut mailbox))?;
    let delivery = mailbox.delivery(&cqe)?;
    equal("params", delivery.params, b"done".as_slice())?;
    equal("records", delivery.records.len(), 0)?;
    let sqe = returns(endpoint, delivery.call_id);
    process.ring.expect("RETURN", sqe, 0).map(drop)
}

fn prove(runtime: &mut Runtime) -> Proof {
    let endpoint = family::held(runtime, "endpoint")?;
    let grants = [
        family::same(runtime, "console")?,
        family::fresh("timer", KernelCapSource::Timer),
        family::fresh("own", KernelCapSource::Endpoint),
        family::facet("parent", endpoint),
    ];
    let child = family::spawn(runtime, "sender", &grants)?;
    let mut process = Process::new(runtime);
    take(&mut process, endpoint.cap_id())?;
    refuse(&mut process, endpoint.cap_id())?;
    child.succeeds(runtime, "the sender")
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "transfer-between", prove)
}

entry_point!(main);
