//! Transfers that must fail: each with its code, none with a trace. After every
//! one the sources work and the next capability gets the number it would have
//! got anyway.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use capos::CapSqe;
use capos::capos_capnp::ExceptionType;
use capos::prelude::*;
use capos_config::process_layout::USER_STACK_TOP;
use capos_config::ring::{
    CAP_ERR_INVALID_PARAMS_BUFFER, CAP_ERR_INVALID_RESULT_BUFFER,
    CAP_ERR_INVALID_TRANSFER_DESCRIPTOR, CAP_ERR_TRANSFER_ABORTED, CAP_ERR_TRANSFER_NOT_SUPPORTED,
    CapTransferDescriptor, EndpointMessageHeader, MAX_TRANSFER_DESCRIPTORS,
};
use raw_ring::proof::{self, Failure, equal, no_params, that};
use raw_ring::{
    Loopback, Mailbox, Message, Process, Proof, Sqe, call, copied, exception, moved, receive,
    release, returns,
};

/// Low bits of a capability number: its slot.
const SLOT_MASK: u32 = (1 << 24) - 1;
const NOW: u16 = 0;
const NOW_BYTES: i32 = 32;
/// More slots than a process has.
const MORE_THAN_FITS: usize = 300;

struct Sender {
    own: Loopback,
    console: u32,
    timer: u32,
    /// Slot that the next capability goes to.
    next_slot: u32,
}

impl Sender {
    fn new(process: &mut Process) -> Result<Self, Failure> {
        let mut sender = Self {
            own: Loopback::new(process, "endpoint")?,
            console: process.cap("console")?,
            timer: process.cap("timer")?,
            next_slot: 0,
        };
        sender.next_slot = sender.probe(process)?;
        Ok(sender)
    }

    /// Makes and gives back one capability; its slot.
    fn probe(&self, process: &mut Process) -> Result<u32, Failure> {
        let message = Message::new(&[], &[copied(self.console)]);
        let records = self.own.pass(process, &message)?;
        equal("records of the probe", records.len(), 1)?;
        process
            .ring
            .expect("RELEASE", release(records[0].cap_id), 0)?;
        Ok(records[0].cap_id & SLOT_MASK)
    }

    /// Checks that nothing was left behind.
    fn unharmed(&self, process: &mut Process, what: &str) -> Proof {
        let check = |process: &mut Process| {
            let params = no_params();
            let mut result = [0; 64];
            let now = call(self.timer, NOW).params(&params).result(&mut result);
            process.ring.expect("Timer.now", now, NOW_BYTES)?;
            let write = proof::line_params("");
            let write = call(self.console, 0).params(&write[..0]);
            let answer = process.ring.perform(write)?.result;
            that(answer != -4, "the console is gone")?;
            equal("the next slot", self.probe(process)?, self.next_slot)?;
            equal("stray completions", process.ring.unclaimed(), 0)
        };
        check(process).map_err(|failure| failure.within(what))
    }

    /// A CALL that is refused when it is submitted.
    fn refused(&self, process: &mut Process, what: &str, sqe: CapSqe, code: i32) -> Proof {
        let mut result = [0; 64];
        let sqe = sqe.result(&mut result);
        process.ring.expect(what, sqe, code)?;
        self.unharmed(process, what)
    }

    fn to_endpoint(&self, message: &Message) -> CapSqe {
        call(self.own.endpoint, 0).message(message)
    }
}

fn wrong_target(process: &mut Process, s: &Sender) -> Proof {
    let unsupported = CAP_ERR_TRANSFER_NOT_SUPPORTED;
    for descriptor in [copied(s.timer), moved(s.timer)] {
        let message = Message::new(&[], &[descriptor]);
        let sqe = call(s.console, 0).message(&message);
        s.refused(process, "to a kernel object", sqe, unsupported)?;
    }
    Ok(())
}

fn wrong_source(process: &mut Process, s: &Sender) -> Proof {
    let unsupported = CAP_ERR_TRANSFER_NOT_SUPPORTED;
    let invalid = CAP_ERR_INVALID_TRANSFER_DESCRIPTOR;
    let forged = s.timer ^ 0x5a00_0000;
    let cases = [
        (
            "copy of an endpoint owner",
            copied(s.own.endpoint),
            unsupported,
        ),
        (
            "move of an endpoint owner",
            moved(s.own.endpoint),
            unsupported,
        ),
        ("copy of a forged number", copied(forged), invalid),
        ("move of a forged number", moved(forged), invalid),
        ("copy of no slot", copied(SLOT_MASK), invalid),
    ];
    for (what, bad, code) in cases {
        // Alone, behind good ones and in front of good ones.
        let good = [copied(s.console), moved(s.timer)];
        for list in [
            [bad].as_slice(),
            &[good[0], good[1], bad],
            &[bad, good[0], good[1]],
        ] {
            let message = Message::new(b"text", list);
            s.refused(process, what, s.to_endpoint(&message), code)?;
        }
    }
    Ok(())
}

fn wrong_descriptor(process: &mut Process, s: &Sender) -> Proof {
    let invalid = CAP_ERR_INVALID_TRANSFER_DESCRIPTOR;
    let descriptor = |transfer_mode, _reserved0| CapTransferDescriptor {
        cap_id: s.timer,
        transfer_mode,
        _reserved0,
    };
    for (mode, reserved) in [
        (0, 0),
        (3, 0),
        (4, 0),
        (0x8001, 0),
        (0xffff, 0),
        (1, 1),
        (2, 0x8000),
    ] {
        let message = Message::new(&[], &[copied(s.console), descriptor(mode, reserved)]);
        let sqe = s.to_endpoint(&message);
        s.refused(process, "a descriptor's bits", sqe, invalid)?;
    }
    let list = [copied(s.console); MAX_TRANSFER_DESCRIPTORS + 1];
    let message = Message::new(&[], &list);
    s.refused(process, "too many", s.to_endpoint(&message), invalid)?;
    let message = Message::new(&[0; 4], &[copied(s.console), copied(s.timer)]);
    for len in [1, 2, 3] {
        let sqe = CapSqe {
            len,
            ..s.to_endpoint(&message)
        };
        s.refused(process, "misaligned", sqe, invalid)?;
    }
    Ok(())
}

/// Params at the very end of the stack: the descriptors would lie behind it.
fn unreadable_descriptors(process: &mut Process, s: &Sender) -> Proof {
    let sqe = CapSqe {
        addr: USER_STACK_TOP - 8,
        len: 8,
        xfer_cap_count: 1,
        ..call(s.own.endpoint, 0)
    };
    let unreadable = CAP_ERR_INVALID_PARAMS_BUFFER;
    s.refused(process, "unreadable descriptors", sqe, unreadable)?;
    let sqe = CapSqe {
        addr: USER_STACK_TOP - 12,
        ..sqe
    };
    s.refused(process, "half a descriptor", sqe, unreadable)
}

/// The receiver has no room for the records: its loss, the call waits on.
fn small_receive(process: &mut Process, s: &mut Sender) -> Proof {
    let message = Message::new(b"text", &[copied(s.console), moved(s.timer)]);
    let mut result = Mailbox::new(64);
    let queued = process.ring.start(s.own.call(&message, &mut result))?;
    let exact = size_of::<EndpointMessageHeader>() + 4 + 2 * 16;
    for room in [exact - 1, exact - 32, 64] {
        let mut mailbox = Mailbox::new(room);
        let sqe = receive(s.own.endpoint, &mut mailbox);
        let invalid = CAP_ERR_INVALID_RESULT_BUFFER;
        process.ring.expect("a small receive", sqe, invalid)?;
        equal("the call", process.ring.unclaimed(), 0)?;
    }
    let mut mailbox = Mailbox::new(exact);
    let cqe = process
        .ring
        .perform(receive(s.own.endpoint, &mut mailbox))?;
    let delivery = mailbox.delivery(&cqe)?;
    equal("records", delivery.records.len(), 2)?;
    let [first, second] = [delivery.records[0].cap_id, delivery.records[1].cap_id];
    process
        .ring
        .expect("RETURN", returns(s.own.endpoint, cqe.call_id), 0)?;
    process.ring.wait(queued)?;
    process.ring.expect("RELEASE", release(first), 0)?;
    s.timer = second;
    s.next_slot = s.probe(process)?;
    Ok(())
}

/// The caller has no room for the records of a RETURN: its exception, and the
/// server keeps what it wanted to send.
fn small_result(process: &mut Process, s: &Sender) -> Proof {
    for (payload, list) in [
        (b"".as_slice(), [moved(s.timer)].as_slice()),
        (b"twelve bytes", &[copied(s.console), moved(s.timer)]),
    ] {
        let exact = payload.len() + 16 * list.len();
        let mut result = Mailbox::new(200);
        let message = Message::new(&[], &[]);
        let sqe = CapSqe {
            result_len: exact as u32 - 1,
            ..s.own.call(&message, &mut result)
        };
        let queued = process.ring.start(sqe)?;
        let open = s.own.receive(process, queued)?;
        let answer = Message::new(payload, list);
        let sqe = returns(s.own.endpoint, open.cqe.call_id).message(&answer);
        let aborted = CAP_ERR_TRANSFER_ABORTED;
        process.ring.expect("RETURN without room", sqe, aborted)?;
        let caller = process.ring.wait(queued)?;
        that(caller.result < 0, "a result that did not fit succeeded")?;
        equal("capabilities", caller.cap_count, 0)?;
        s.unharmed(process, "a small result")?;
    }
    Ok(())
}

/// A RETURN with bad descriptors is the server's error: the call stays open.
fn bad_return(process: &mut Process, s: &Sender) -> Proof {
    let mut result = Mailbox::new(64);
    let open = s
        .own
        .deliver(process, &Message::new(&[], &[]), &mut result)?;
    let bad = Message::new(&[], &[moved(s.timer), moved(s.own.endpoint)]);
    let sqe = returns(s.own.endpoint, open.cqe.call_id).message(&bad);
    let unsupported = CAP_ERR_TRANSFER_NOT_SUPPORTED;
    process
        .ring
        .expect("RETURN of an owner", sqe, unsupported)?;
    equal("the caller", process.ring.unclaimed(), 0)?;
    s.own.answer(process, &open, &Message::new(&[], &[]))?;
    s.unharmed(process, "a bad return")
}

/// No slot is free: the transfer is aborted, for copies and moves alike.
fn full_table(process: &mut Process, s: &Sender) -> Proof {
    let mut copies = Vec::new();
    let lists = [MAX_TRANSFER_DESCRIPTORS, 1];
    for count in lists {
        let message = Message::new(&[], &[copied(s.console); MAX_TRANSFER_DESCRIPTORS][..count]);
        while copies.len() < MORE_THAN_FITS {
            let mut result = Mailbox::new(64);
            let queued = process.ring.start(s.own.call(&message, &mut result))?;
            let mut mailbox = Mailbox::new(raw_ring::loopback::ROOM);
            let receiving = process.ring.start(receive(s.own.endpoint, &mut mailbox))?;
            if let Some(refused) = process.ring.find(queued) {
                equal("without a slot", refused.result, CAP_ERR_TRANSFER_ABORTED)?;
                let cancel = raw_ring::cancel(s.own.endpoint, receiving);
                process.ring.expect("CANCEL", cancel, 0)?;
                process.ring.wait(receiving)?;
                break;
            }
            let cqe = process.ring.wait(receiving)?;
            copies.extend(mailbox.delivery(&cqe)?.records);
            process
                .ring
                .expect("RETURN", returns(s.own.endpoint, cqe.call_id), 0)?;
            process.ring.wait(queued)?;
        }
    }
    that(copies.len() < MORE_THAN_FITS, "slots without end")?;
    for record in copies.into_iter().rev() {
        process.ring.expect("RELEASE", release(record.cap_id), 0)?;
    }
    s.unharmed(process, "a full table")
}

/// An exception with capabilities is malformed; without, it is delivered.
fn exceptions(process: &mut Process, s: &Sender) -> Proof {
    let mut result = Mailbox::new(256);
    let message = Message::new(&[], &[]);
    let dead = call(s.own.endpoint ^ 0x0100_0000, 0).message(&message);
    let dead = dead.result(result.bytes_mut());
    process.ring.expect("a forged endpoint", dead, -4)?;
    let unknown = call(s.timer, 99).result(result.bytes_mut());
    let cqe = process.ring.perform(unknown)?;
    exception::expect(
        "an unknown method",
        &cqe,
        result.bytes(),
        ExceptionType::Unimplemented,
    )
}

fn prove(process: &mut Process) -> Proof {
    let mut sender = Sender::new(process)?;
    sender.unharmed(process, "at the start")?;
    wrong_target(process, &sender)?;
    wrong_source(process, &sender)?;
    wrong_descriptor(process, &sender)?;
    unreadable_descriptors(process, &sender)?;
    exceptions(process, &sender)?;
    bad_return(process, &sender)?;
    small_result(process, &sender)?;
    small_receive(process, &mut sender)?;
    full_table(process, &sender)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "transfer-failures", prove)
}

entry_point!(main);
