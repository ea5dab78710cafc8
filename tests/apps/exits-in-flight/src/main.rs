//! Exits in the middle of everything: calls queued with capabilities on their
//! way, calls delivered and not answered, receives and sleeps that wait. The
//! system ends it all; the exit code is the proof.
#![no_std]
#![no_main]

use capos::capos_capnp;
use capos::prelude::*;
use raw_ring::proof::{self, equal};
use raw_ring::{Loopback, Mailbox, Message, Process, Proof, Sqe, call, copied, moved, receive};

const SLEEP: u16 = 1;
const FOREVER_NS: u64 = u64::MAX;
const SUCCESS: i64 = 77;

fn entangle(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let other = Loopback::new(process, "other")?;
    let (console, timer) = (process.cap("console")?, process.cap("timer")?);
    let mut result = Mailbox::new(64);
    let copy = Message::new(b"copy", &[copied(console)]);
    let open = own.deliver(process, &copy, &mut result)?;
    equal(
        "delivered",
        open.mailbox.delivery(&open.cqe)?.records.len(),
        1,
    )?;
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<capos_capnp::timer::sleep_params::Builder<'_>>()
        .set_duration_ns(FOREVER_NS);
    let params = capnp::serialize::write_message_to_words(&message);
    let sleep = call(timer, SLEEP).params(&params);
    process.ring.start(sleep)?;
    let both = Message::new(b"both", &[copied(console), moved(timer)]);
    process.ring.start(own.call(&both, &mut result))?;
    process.ring.start(own.call(&copy, &mut result))?;
    let mut mailbox = Mailbox::new(256);
    process.ring.start(receive(other.endpoint, &mut mailbox))?;
    process.ring.start(receive(other.endpoint, &mut mailbox))?;
    equal("completions", process.ring.unclaimed(), 0)
}

fn main(runtime: Runtime) -> i64 {
    match proof::run(&runtime, "exits-in-flight", entangle) {
        0 => SUCCESS,
        code => code,
    }
}

entry_point!(main);
