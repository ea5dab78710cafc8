//! What it costs to pass a record of 256 bytes through shared memory, in ticks
//! of the time stamp counter: with a call for each, and with a notification for
//! as many as are published together.
//!
//! Where time is counted in instructions, a tick is one instruction. Each line
//! is over [`ROUNDS`] rounds and counts writing, passing and checking:
//!
//! - `bench zerocopy-call`: a call of the consumer without payload or record;
//! - `bench zerocopy-work`: a record written, put into the ring, taken and
//!   checked, all here;
//! - `bench record-by-call`: a record written, and a call with place and
//!   checksum, until it is answered;
//! - `bench record-by-notification records=N`: N records written, one signal, until
//!   the consumer has signalled that it took them; divided by N.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::prelude::*;
use capos::syscall::cap_enter;
use raw_ring::bench::{Samples, ticks};
use raw_ring::exchange::Exchange;
use raw_ring::family;
use raw_ring::proof::{self, Failure, Proof, equal, that};
use raw_ring::records::{Consumer, ENTRIES, Producer, SharedPage};
use raw_ring::zerocopy::{LAST, Peer, SOME, method};
use raw_ring::{PATIENCE_NS, Process, RawRing, Sqe, call};

const ROUNDS: usize = 101;
const WARM_UP_ROUNDS: usize = 5;
/// How many records are published together.
const BATCHES: [u32; 4] = [1, 2, 4, ENTRIES];

fn samples(action: impl FnMut() -> Result<u64, Failure>) -> Result<Samples, Failure> {
    Samples::take(WARM_UP_ROUNDS, ROUNDS, action)
}

fn answered(ring: &mut RawRing) -> Proof {
    let entered = cap_enter(1, PATIENCE_NS);
    let completion = ring.take();
    that(entered.is_ok(), "cap_enter")?;
    that(completion.is_some_and(|cqe| cqe.result == 0), "the answer")
}

fn empty_call(ring: &mut RawRing, facet: u32) -> Result<u64, Failure> {
    let start = ticks();
    ring.submit(&[call(facet, method::NOTHING)]);
    answered(ring)?;
    Ok(ticks() - start)
}

fn record_by_call(ring: &mut RawRing, facet: u32, page: SharedPage) -> Result<u64, Failure> {
    const SLOT: u64 = 3;
    let start = ticks();
    let mut params = [0; 16];
    params[..8].copy_from_slice(&SLOT.to_le_bytes());
    let checksum = page.write(SLOT as u32, start);
    params[8..].copy_from_slice(&checksum.to_le_bytes());
    ring.submit(&[call(facet, method::RECORD).params(&params)]);
    answered(ring)?;
    Ok(ticks() - start)
}

/// Puts a batch of records and shows them.
fn put(producer: &mut Producer, batch: u32, number: u64) -> Proof {
    for _ in 0..batch {
        let put = producer.put(number);
        that(matches!(put, Ok(Some(_))), "no room for a record")?;
    }
    producer.publish();
    Ok(())
}

fn work(producer: &mut Producer, consumer: &mut Consumer) -> Result<u64, Failure> {
    let start = ticks();
    put(producer, 1, start)?;
    let taken = consumer.take();
    let ticks = ticks() - start;
    that(matches!(taken, Ok(Some(_))), "a record not taken")?;
    Ok(ticks)
}

fn records_by_notification(
    ring: &mut RawRing,
    producer: &mut Producer,
    exchange: &mut Exchange,
    batch: u32,
) -> Result<u64, Failure> {
    let start = ticks();
    put(producer, batch, start)?;
    exchange.signal_and_wait(ring, SOME)?;
    let ticks = ticks() - start;
    equal("room afterwards", producer.room(), Ok(ENTRIES))?;
    Ok(ticks / u64::from(batch))
}

fn all_seen(process: &mut Process, peer: &Peer, records: u64, wakes: u64) -> Proof {
    let seen = peer.totals(process)?;
    let counts = (seen.records, seen.wakes, seen.refusal);
    equal("seen", counts, (records, wakes, 0))
}

fn by_call(process: &mut Process, peer: &Peer, page: SharedPage) -> Proof {
    let facet = peer.facet();
    let calls = samples(|| empty_call(&mut process.ring, facet))?;
    process.print(&calls.line("zerocopy-call"))?;
    let records = samples(|| record_by_call(&mut process.ring, facet, page))?;
    process.print(&records.line("record-by-call"))?;
    all_seen(process, peer, (ROUNDS + WARM_UP_ROUNDS) as u64, 0)
}

fn by_notification(process: &mut Process, peer: &Peer, page: SharedPage) -> Proof {
    for batch in BATCHES {
        page.reset();
        let (mut producer, mut exchange) = (Producer::new(page), peer.exchange());
        peer.follow(process)?;
        let ring = &mut process.ring;
        let records =
            samples(|| records_by_notification(ring, &mut producer, &mut exchange, batch))?;
        exchange.signal_and_wait(ring, LAST)?;
        process.print(&records.line(&format!("record-by-notification records={batch}")))?;
        let rounds = (ROUNDS + WARM_UP_ROUNDS) as u64;
        all_seen(process, peer, rounds * u64::from(batch), rounds + 1)?;
    }
    Ok(())
}

fn prove(runtime: &mut Runtime) -> Proof {
    let frames = family::held(runtime, "frames")?.cap_id();
    let peer = Peer::start(runtime)?;
    let mut process = Process::new(runtime);
    let page = peer.share(&mut process, frames)?;
    page.reset();
    let (mut producer, mut consumer) = (Producer::new(page), Consumer::new(page));
    let alone = samples(|| work(&mut producer, &mut consumer))?;
    process.print(&alone.line("zerocopy-work"))?;
    by_call(&mut process, &peer, page)?;
    by_notification(&mut process, &peer, page)?;
    peer.stop(runtime)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "bench-zerocopy", prove)
}

entry_point!(main);
