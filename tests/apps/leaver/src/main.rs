//! Leaves in the middle. As a server it takes one call and exits without an
//! answer; as a caller it submits several and exits without waiting.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::syscall::exit;
use raw_ring::proof::{self, equal};
use raw_ring::timer::Timer;
use raw_ring::{Mailbox, Message, Process, Proof, Sqe, call, copied, moved, receive};

/// Long enough for a parent to receive.
const WHILE_NS: u64 = 50_000_000;

fn serve(process: &mut Process, own: u32) -> Proof {
    let mut mailbox = Mailbox::new(256);
    let cqe = process.ring.perform(receive(own, &mut mailbox))?;
    equal("records", mailbox.delivery(&cqe)?.records.len(), 1)?;
    exit(0)
}

fn ask(process: &mut Process) -> Proof {
    let parent = process.cap("parent")?;
    let (console, timer) = (process.cap("console")?, process.cap("timer")?);
    let first = Message::new(b"copy", &[copied(console)]);
    let second = Message::new(b"move", &[moved(timer)]);
    let mut result = Mailbox::new(64);
    let sqe = call(parent, 1).message(&first).result(result.bytes_mut());
    process.ring.start(sqe)?;
    // Until the first call is taken: who runs when is not for this to assume.
    Timer::new(timer).sleep(&mut process.ring, WHILE_NS)?;
    for message in [&second, &first] {
        let sqe = call(parent, 1).message(message).result(result.bytes_mut());
        process.ring.start(sqe)?;
    }
    exit(0)
}

fn prove(process: &mut Process) -> Proof {
    match process.cap("server") {
        Ok(own) => serve(process, own),
        Err(_) => ask(process),
    }
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "leaver", prove)
}

entry_point!(main);
