//! What an endpoint adds to a call, in ticks of the time stamp counter, apart
//! from switching programs: this program calls itself, with one trap for CALL
//! and RECV and one for RETURN.
//!
//! Where time is counted in instructions, a tick is one instruction. The lines
//! are over [`ROUNDS`] rounds, both traps together:
//!
//! - `bench loopback-call order=recv-first` and `order=call-first`: with a
//!   receiver that waits, and with a call that is queued;
//! - `bench loopback-call disclosure=all`: the caller asks to disclose all of
//!   its session;
//! - `bench transfer mode=copy caps=N` and `mode=move caps=N`: the call brings N
//!   capabilities. They are given up between rounds; moved ones are what the
//!   round before brought.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;

use capos::CapSqe;
use capos::prelude::*;
use capos::syscall::cap_enter;
use raw_ring::bench::{Samples, ticks};
use raw_ring::loopback::ROOM;
use raw_ring::memory_entries;
use raw_ring::proof::{self, Failure, equal, that};
use raw_ring::{
    Loopback, Mailbox, Message, Process, Proof, RawRing, Sqe, copied, moved, receive, release,
    returns,
};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const ROUNDS: usize = 101;
const WARM_UP_ROUNDS: usize = 5;
const COUNTS: [usize; 3] = [1, 4, 16];
/// Every field that can be disclosed.
const EVERYTHING: u64 = capos_config::ENDPOINT_SESSION_DISCLOSURE_ALLOWED_MASK;
const CALLED: u64 = 1;
const RECEIVED: u64 = 2;
const RETURNED: u64 = 3;

/// The buffers of a round, which are the same in each.
struct Buffers {
    mailbox: Mailbox,
    result: Mailbox,
}

/// Enters with these entries and waits for `count` completions.
fn enter(ring: &mut RawRing, entries: &[CapSqe], count: u32) -> Proof {
    ring.submit(entries);
    that(cap_enter(count, FOREVER).is_ok(), "cap_enter")
}

/// One call from its submission to its answer, in the order given; what
/// arrived goes into `arrived`.
fn round(
    process: &mut Process,
    own: Loopback,
    call: CapSqe,
    receive_first: bool,
    buffers: &mut Buffers,
    arrived: &mut Vec<u32>,
) -> Result<u64, Failure> {
    let calling = call.result(buffers.result.bytes_mut()).user_data(CALLED);
    let receiving = receive(own.endpoint, &mut buffers.mailbox).user_data(RECEIVED);
    let entries = match receive_first {
        true => [receiving, calling],
        false => [calling, receiving],
    };
    let ring = &mut process.ring;
    let start = ticks();
    enter(ring, &entries, 1)?;
    let delivered = ring.take();
    let delivered = delivered.ok_or_else(|| Failure::new("no delivery"))?;
    let answer = returns(own.endpoint, delivered.call_id).user_data(RETURNED);
    enter(ring, &[answer], 2)?;
    let answered = [ring.take(), ring.take()];
    let taken = ticks() - start;
    equal("RECV", delivered.user_data, RECEIVED)?;
    let good = |cqe: &Option<capos::CapCqe>| cqe.is_some_and(|cqe| cqe.result == 0);
    that(answered.iter().all(good), "the answer")?;
    let delivery = buffers.mailbox.delivery(&delivered)?;
    arrived.clear();
    arrived.extend(delivery.records.iter().map(|record| record.cap_id));
    Ok(taken)
}

fn plain(process: &mut Process, own: Loopback) -> Proof {
    let nothing = Message::new(&[], &[]);
    let call = raw_ring::call(own.endpoint, raw_ring::loopback::METHOD).message(&nothing);
    let disclosing = CapSqe {
        session_disclosure: EVERYTHING,
        ..call
    };
    let cases = [
        ("loopback-call order=recv-first", call, true),
        ("loopback-call order=call-first", call, false),
        ("loopback-call disclosure=all", disclosing, true),
    ];
    let mut arrived = Vec::new();
    let mut buffers = buffers();
    for (name, call, receive_first) in cases {
        let samples = Samples::take(WARM_UP_ROUNDS, ROUNDS, || {
            round(
                process,
                own,
                call,
                receive_first,
                &mut buffers,
                &mut arrived,
            )
        })?;
        process.print(&samples.line(name))?;
    }
    Ok(())
}

fn buffers() -> Buffers {
    Buffers {
        mailbox: Mailbox::new(ROOM),
        result: Mailbox::new(ROOM),
    }
}

fn let_go(process: &mut Process, caps: &[u32]) -> Proof {
    for &cap in caps {
        process.ring.expect("RELEASE", release(cap), 0)?;
    }
    Ok(())
}

fn call_with(own: Loopback, message: &Message) -> CapSqe {
    raw_ring::call(own.endpoint, raw_ring::loopback::METHOD).message(message)
}

fn copies(process: &mut Process, own: Loopback, source: u32, count: usize) -> Proof {
    let sources: Vec<_> = (0..count).map(|_| copied(source)).collect();
    let message = Message::new(&[], &sources);
    let call = call_with(own, &message);
    let (mut arrived, mut buffers) = (Vec::with_capacity(count), buffers());
    let samples = Samples::take(WARM_UP_ROUNDS, ROUNDS, || {
        let taken = round(process, own, call, true, &mut buffers, &mut arrived)?;
        equal("arrived", arrived.len(), count)?;
        let_go(process, &arrived)?;
        Ok(taken)
    })?;
    process.print(&samples.line(&format!("transfer mode=copy caps={count}")))
}

fn moves(process: &mut Process, own: Loopback, source: u32, count: usize) -> Proof {
    let sources: Vec<_> = (0..count).map(|_| copied(source)).collect();
    let message = Message::new(&[], &sources);
    let (mut held, mut buffers) = (Vec::with_capacity(count), buffers());
    let call = call_with(own, &message);
    round(process, own, call, true, &mut buffers, &mut held)?;
    let samples = Samples::take(WARM_UP_ROUNDS, ROUNDS, || {
        let sources: Vec<_> = held.iter().map(|&cap| moved(cap)).collect();
        let message = Message::new(&[], &sources);
        let call = call_with(own, &message);
        let taken = round(process, own, call, true, &mut buffers, &mut held)?;
        equal("arrived", held.len(), count)?;
        Ok(taken)
    })?;
    let_go(process, &held)?;
    process.print(&samples.line(&format!("transfer mode=move caps={count}")))
}

fn prove(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let allocator = process.cap("frames")?;
    let mut answer = Mailbox::new(memory_entries::ANSWER_BYTES);
    let none = proof::no_params();
    let ring = &mut process.ring;
    let method = memory_entries::frames::ALLOC_FRAME;
    let made = memory_entries::perform(ring, allocator, method, &none, &mut answer)?;
    let source = memory_entries::allocated(&answer, &made)?;
    plain(process, own)?;
    for count in COUNTS {
        copies(process, own, source, count)?;
    }
    for count in COUNTS {
        moves(process, own, source, count)?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "bench-transfer", prove)
}

entry_point!(main);
