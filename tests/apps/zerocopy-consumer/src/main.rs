//! Checks records in a page that its parent shares, one for each call or as
//! many as there are for each notification. Methods are listed in
//! [`raw_ring::zerocopy::method`].
//!
//! Each way takes one trap: RETURN goes in with the next RECV, and a signal with
//! the next wait.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::CapSqe;
use capos::prelude::*;
use capos::syscall::cap_enter;
use raw_ring::exchange::Exchange;
use raw_ring::objects::{Object, PAGE, READ_WRITE, granted};
use raw_ring::proof::{self, Failure, Proof, equal};
use raw_ring::records::{Consumer, Refusal, SharedPage};
use raw_ring::zerocopy::{LAST, SOME, Totals, method};
use raw_ring::{Mailbox, Process, RawRing, Sqe, receive, returns};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const RECEIVED: u64 = 1;
const RETURNED: u64 = 2;

struct Request {
    call_id: u32,
    method: u16,
    words: [u64; 2],
    object: Option<u32>,
}

/// Enters with `entries`, a RECV the last of them; what it brought.
fn enter(ring: &mut RawRing, entries: &[CapSqe], mailbox: &Mailbox) -> Result<Request, Failure> {
    ring.submit(entries);
    cap_enter(entries.len() as u32, FOREVER).map_err(|_| Failure::new("cap_enter"))?;
    let mut received = None;
    while let Some(cqe) = ring.take() {
        match cqe.user_data {
            RECEIVED => received = Some(cqe),
            _ => equal("RETURN", cqe.result, 0)?,
        }
    }
    let cqe = received.ok_or_else(|| Failure::new("nothing received"))?;
    let delivery = mailbox.delivery(&cqe)?;
    let word = |at| {
        let bytes = delivery.params.get(at..at + 8).unwrap_or_default();
        bytes.try_into().map_or(0, u64::from_le_bytes)
    };
    Ok(Request {
        call_id: delivery.call_id,
        method: delivery.header.method_id,
        words: [word(0), word(8)],
        object: delivery.records.first().map(|record| record.cap_id),
    })
}

fn attach(ring: &mut RawRing, request: &Request) -> Result<SharedPage, Failure> {
    let object = request
        .object
        .ok_or_else(|| Failure::new("no object came"))?;
    let object = Object(object);
    equal("size", granted("info", object.info(ring))?, (1, PAGE))?;
    let at = granted("map", object.map(ring, 0, (0, PAGE), READ_WRITE))?;
    // The mapping stays without the capability.
    object.release(ring)?;
    // SAFETY: the page was just mapped for reading and writing, stays for good,
    // and nothing of Rust's is in it.
    Ok(unsafe { SharedPage::new(at) })
}

fn add(totals: &mut Totals, checksum: u64) {
    totals.records += 1;
    totals.sum = totals.sum.wrapping_add(checksum);
}

/// Checks the one record that a call is about.
fn check(page: SharedPage, request: &Request, totals: &mut Totals) {
    let [slot, checksum] = request.words;
    let slot = u32::try_from(slot).unwrap_or(u32::MAX);
    match page.check(slot, checksum) {
        Ok(checksum) => add(totals, checksum),
        Err(refusal) => totals.refusal = refusal as u64,
    }
}

/// Takes all that is there.
fn drain(consumer: &mut Consumer, totals: &mut Totals) -> Result<(), Refusal> {
    let before = totals.records;
    let outcome = loop {
        match consumer.take() {
            Ok(Some(checksum)) => add(totals, checksum),
            Ok(None) => break Ok(()),
            Err(refusal) => break Err(refusal),
        }
    };
    totals.wakes += 1;
    totals.most = totals.most.max(totals.records - before);
    outcome
}

/// Takes records until the last, or until the producer breaks the rules.
fn follow(
    ring: &mut RawRing,
    page: SharedPage,
    exchange: &mut Exchange,
    totals: &mut Totals,
) -> Proof {
    let mut consumer = Consumer::new(page);
    let mut bits = exchange.wait(ring)?;
    loop {
        // The bits came before this look, so what they told of is seen by it.
        let outcome = drain(&mut consumer, totals);
        if let Err(refusal) = outcome {
            totals.refusal = refusal as u64;
        }
        if outcome.is_err() || bits & LAST != 0 {
            return exchange.signal(ring, SOME);
        }
        bits = exchange.signal_and_wait(ring, SOME)?;
    }
}

fn serve(process: &mut Process) -> Proof {
    let endpoint = process.cap("endpoint")?;
    let mut exchange = Exchange::new(process.cap("consumed")?, process.cap("published")?);
    let ring = &mut process.ring;
    let mut mailbox = Mailbox::new(256);
    let next = receive(endpoint, &mut mailbox).user_data(RECEIVED);
    let mut totals = Totals::default();
    let mut attached = None;
    let mut request = enter(ring, &[next], &mailbox)?;
    loop {
        let mut answer = returns(endpoint, request.call_id).user_data(RETURNED);
        let bytes = totals.to_bytes();
        match (request.method, attached) {
            (method::ATTACH, None) => attached = Some(attach(ring, &request)?),
            (method::RECORD, Some(page)) => check(page, &request, &mut totals),
            (method::TOTALS, _) => {
                answer = answer.params(&bytes);
                totals = Totals::default();
            }
            (method::FOLLOW, Some(page)) => {
                ring.expect("RETURN", answer, 0)?;
                follow(ring, page, &mut exchange, &mut totals)?;
                request = enter(ring, &[next], &mailbox)?;
                continue;
            }
            (method::STOP, _) => return ring.expect("RETURN", answer, 0).map(drop),
            (method::NOTHING, _) => {}
            (other, _) => return Err(Failure::new(format!("method {other}"))),
        }
        request = enter(ring, &[answer, next], &mailbox)?;
    }
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "zerocopy-consumer", serve)
}

entry_point!(main);
