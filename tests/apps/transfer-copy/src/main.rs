//! A copied capability arrives as another number for the same thing, with a
//! CALL and with a RETURN; the sender keeps its own, and sending again makes
//! one more.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::{CapabilityType, Endpoint};
use capos_config::ring::{CAP_ERR_INVALID_REQUEST, CAP_ERR_INVOKE_FAILED, EndpointMessageHeader};
use raw_ring::proof::{self, equal, that};
use raw_ring::{Loopback, Mailbox, Message, Process, Proof, Record, call, copied, release};

/// Checks what arrived, uses it, gives it back and checks that it is gone.
fn use_up(process: &mut Process, console: u32, arrived: Record) -> Proof {
    equal("interface", arrived.interface_id, Console::INTERFACE_ID)?;
    that(arrived.cap_id != console, "the sender's own number arrived")?;
    process.print_through(arrived.cap_id, "printed through the copy")?;
    process.ring.expect("RELEASE", release(arrived.cap_id), 0)?;
    let gone = call(arrived.cap_id, 0);
    process
        .ring
        .expect("CALL afterwards", gone, CAP_ERR_INVOKE_FAILED)?;
    let again = release(arrived.cap_id);
    let invalid = CAP_ERR_INVALID_REQUEST;
    process.ring.expect("RELEASE afterwards", again, invalid)?;
    process.print_through(console, "printed through the source")
}

fn with_a_call(process: &mut Process, own: Loopback, console: u32) -> Proof {
    let message = Message::new(b"four", &[copied(console), copied(console)]);
    let mut seen = [0; 4];
    for round in seen.chunks_exact_mut(2) {
        let mut result = Mailbox::new(64);
        let open = own.deliver(process, &message, &mut result)?;
        let delivery = open.mailbox.delivery(&open.cqe)?;
        equal("params", delivery.params, b"four".as_slice())?;
        equal(
            "interface",
            delivery.header.interface_id,
            Endpoint::INTERFACE_ID,
        )?;
        equal("records", delivery.records.len(), 2)?;
        // Records are bytes: behind four bytes of params they are not aligned.
        let expected = size_of::<EndpointMessageHeader>() as i32 + 4;
        equal("result", open.cqe.result, expected)?;
        for (place, record) in round.iter_mut().zip(&delivery.records) {
            *place = record.cap_id;
        }
        own.answer(process, &open, &Message::new(&[], &[]))?;
    }
    for (index, &cap_id) in seen.iter().enumerate() {
        that(!seen[..index].contains(&cap_id), "a number was given twice")?;
        let interface_id = Console::INTERFACE_ID;
        let record = Record {
            cap_id,
            interface_id,
        };
        use_up(process, console, record)?;
    }
    Ok(())
}

fn with_a_return(process: &mut Process, own: Loopback, console: u32) -> Proof {
    let mut result = Mailbox::new(64);
    let open = own.deliver(process, &Message::new(&[], &[]), &mut result)?;
    let payload = Message::new(b"result, 16 bytes", &[copied(console)]);
    let cqe = own.answer(process, &open, &payload)?;
    equal(
        "payload",
        result.written(&cqe)?,
        b"result, 16 bytes".as_slice(),
    )?;
    let records = result.records(&cqe)?;
    equal("records", records.len(), 1)?;
    use_up(process, console, records[0])
}

fn prove(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let console = process.cap("console")?;
    with_a_call(process, own, console)?;
    with_a_return(process, own, console)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "transfer-copy", prove)
}

entry_point!(main);
