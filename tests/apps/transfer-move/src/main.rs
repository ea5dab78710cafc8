//! A moved capability arrives and is gone where it came from, with a CALL and
//! with a RETURN; until it arrives, its source can be neither sent nor given
//! back.
#![no_std]
#![no_main]

use capos::CapabilityType;
use capos::prelude::*;
use capos_config::ring::{CAP_ERR_INVALID_REQUEST, CAP_ERR_INVOKE_FAILED};
use raw_ring::proof::{self, equal, no_params, that};
use raw_ring::{Loopback, Mailbox, Message, Process, Proof, Record, Sqe, call, moved, release};

/// `Timer.now`, whose result is one message of this length.
const NOW: u16 = 0;
const NOW_BYTES: i32 = 32;

fn works(process: &mut Process, timer: u32) -> Proof {
    let params = no_params();
    let mut result = [0; 64];
    let now = call(timer, NOW).params(&params).result(&mut result);
    process.ring.expect("Timer.now", now, NOW_BYTES).map(drop)
}

fn is_gone(process: &mut Process, timer: u32) -> Proof {
    let params = no_params();
    let mut result = [0; 64];
    let now = call(timer, NOW).params(&params).result(&mut result);
    let (failed, invalid) = (CAP_ERR_INVOKE_FAILED, CAP_ERR_INVALID_REQUEST);
    process.ring.expect("CALL of the source", now, failed)?;
    let again = release(timer);
    process
        .ring
        .expect("RELEASE of the source", again, invalid)?;
    Ok(())
}

fn arrived(process: &mut Process, records: &[Record], source: u32) -> Result<u32, proof::Failure> {
    equal("records", records.len(), 1)?;
    equal("interface", records[0].interface_id, Timer::INTERFACE_ID)?;
    that(records[0].cap_id != source, "the source's number arrived")?;
    is_gone(process, source)?;
    works(process, records[0].cap_id)?;
    Ok(records[0].cap_id)
}

fn with_a_call(process: &mut Process, own: Loopback, timer: u32) -> Result<u32, proof::Failure> {
    let message = Message::new(b"take", &[moved(timer)]);
    let mut result = Mailbox::new(64);
    let queued = process.ring.start(own.call(&message, &mut result))?;
    equal("ended at once", process.ring.unclaimed(), 0)?;
    let busy = process.ring.perform(release(timer))?.result;
    that(busy < 0, "RELEASE of a capability on its way succeeded")?;
    let open = own.receive(process, queued)?;
    let records = open.mailbox.delivery(&open.cqe)?.records;
    let timer = arrived(process, &records, timer)?;
    own.answer(process, &open, &Message::new(&[], &[]))?;
    Ok(timer)
}

fn with_a_return(process: &mut Process, own: Loopback, timer: u32) -> Result<u32, proof::Failure> {
    let mut result = Mailbox::new(64);
    let open = own.deliver(process, &Message::new(&[], &[]), &mut result)?;
    let cqe = own.answer(process, &open, &Message::new(&[], &[moved(timer)]))?;
    equal("payload", cqe.result, 0)?;
    arrived(process, &result.records(&cqe)?, timer)
}

fn prove(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let mut timer = process.cap("timer")?;
    works(process, timer)?;
    for _ in 0..3 {
        timer = with_a_call(process, own, timer)?;
        timer = with_a_return(process, own, timer)?;
    }
    process.ring.expect("RELEASE", release(timer), 0).map(drop)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "transfer-move", prove)
}

entry_point!(main);
