//! Passes records through one shared page without a call for any of them: the
//! page is transferred once, a ring of 8 indices in it says which records are
//! there, and two notifications say that there are some and that there is room.
//!
//! The consumer does not trust the producer, nor the producer the consumer:
//! after the honest run each breaks the rules, and the other must notice.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::prelude::*;
use raw_ring::Process;
use raw_ring::exchange::Exchange;
use raw_ring::family;
use raw_ring::proof::{self, Failure, Proof, equal, that};
use raw_ring::records::{ENTRIES, FIRST_ENTRY, HEAD, Producer, Refusal, SharedPage, TAIL};
use raw_ring::zerocopy::{LAST, Peer, SOME, Totals};

/// Records of the honest run.
const RECORDS: u64 = 96;
/// How many are published at a time, again and again.
const BURSTS: [u64; 5] = [1, 3, 2, 5, 4];

/// What the producer did.
#[derive(Default)]
struct Sent {
    records: u64,
    sum: u64,
    signals: u64,
    /// How often the ring was full.
    full: u64,
}

/// The producer's whole side.
struct Line {
    producer: Producer,
    exchange: Exchange,
    sent: Sent,
}

fn refused(refusal: Refusal) -> Failure {
    Failure::new(format!("the consumer broke the rules: {refusal:?}"))
}

impl Line {
    fn new(page: SharedPage, peer: &Peer) -> Self {
        page.reset();
        Self {
            producer: Producer::new(page),
            exchange: peer.exchange(),
            sent: Sent::default(),
        }
    }

    /// Puts the next record, if there is room.
    fn put(&mut self) -> Result<bool, Failure> {
        let put = self.producer.put(self.sent.records).map_err(refused)?;
        if let Some(checksum) = put {
            self.sent.records += 1;
            self.sent.sum = self.sent.sum.wrapping_add(checksum);
        }
        Ok(put.is_some())
    }

    fn signal(&mut self, process: &mut Process, bits: u64) -> Proof {
        self.producer.publish();
        self.sent.signals += 1;
        self.exchange.signal(&mut process.ring, bits)
    }

    /// Publishes, and waits until the consumer took something.
    fn signal_and_wait(&mut self, process: &mut Process, bits: u64) -> Proof {
        self.producer.publish();
        self.sent.signals += 1;
        let ring = &mut process.ring;
        equal("bits", self.exchange.signal_and_wait(ring, bits)?, SOME)
    }

    /// Fills the ring before anyone knows, and finds it empty afterwards.
    fn fill(&mut self, process: &mut Process) -> Proof {
        while self.put()? {}
        equal("records in the ring", self.sent.records, ENTRIES.into())?;
        self.sent.full += 1;
        self.signal_and_wait(process, SOME)?;
        let room = self.producer.room().map_err(refused)?;
        equal("room afterwards", room, ENTRIES)
    }

    /// Publishes in bursts and goes on without waiting while there is room.
    fn stream(&mut self, process: &mut Process) -> Proof {
        for burst in BURSTS.into_iter().cycle() {
            for _ in 0..burst {
                if self.sent.records == RECORDS {
                    return Ok(());
                }
                while !self.put()? {
                    self.sent.full += 1;
                    self.signal_and_wait(process, SOME)?;
                }
            }
            self.signal(process, SOME)?;
        }
        Ok(())
    }

    /// Says that there will be no more, and waits until all are taken.
    fn finish(&mut self, process: &mut Process) -> Proof {
        self.signal_and_wait(process, LAST)?;
        while self.producer.room().map_err(refused)? < ENTRIES {
            let bits = self.exchange.wait(&mut process.ring)?;
            equal("bits", bits, SOME)?;
        }
        Ok(())
    }
}

fn honest(process: &mut Process, peer: &Peer, page: SharedPage) -> Proof {
    let mut line = Line::new(page, peer);
    peer.follow(process)?;
    line.fill(process)?;
    line.stream(process)?;
    line.finish(process)?;
    let (sent, seen) = (line.sent, peer.totals(process)?);
    equal("records sent", sent.records, RECORDS)?;
    equal(
        "count, sum and refusal",
        (seen.records, seen.sum, seen.refusal),
        (RECORDS, sent.sum, 0),
    )?;
    equal("most in one wake-up", seen.most >= ENTRIES.into(), true)?;
    that(seen.wakes <= sent.signals, "more wake-ups than signals")?;
    that(sent.signals < RECORDS, "a signal for every record")?;
    that(sent.full > 1, "the ring was full only once")?;
    process.print(&format!(
        "ipc-zerocopy-notified: {} records, {} signals, {} wake-ups",
        sent.records, sent.signals, seen.wakes
    ))
}

/// Publishes one good record, spoils a word, and sees what the consumer makes
/// of it.
fn spoiled(
    process: &mut Process,
    peer: &Peer,
    page: SharedPage,
    word: u64,
    value: u32,
) -> Result<Totals, Failure> {
    let mut line = Line::new(page, peer);
    peer.follow(process)?;
    line.put()?;
    line.producer.publish();
    page.overwrite(word, value);
    let ring = &mut process.ring;
    equal("bits", line.exchange.signal_and_wait(ring, SOME)?, SOME)?;
    peer.totals(process)
}

fn hostile_producer(process: &mut Process, peer: &Peer, page: SharedPage) -> Proof {
    /// The least significant half of the first entry's checksum.
    const CHECKSUM: u64 = FIRST_ENTRY + 8;
    let cases = [
        (TAIL, ENTRIES + 1, Refusal::Tail),
        (TAIL, u32::MAX, Refusal::Tail),
        (FIRST_ENTRY, ENTRIES, Refusal::Slot),
        (FIRST_ENTRY, u32::MAX, Refusal::Slot),
        (CHECKSUM, 0, Refusal::Checksum),
    ];
    for (word, value, refusal) in cases {
        let seen = spoiled(process, peer, page, word, value)?;
        let expected = Totals {
            wakes: 1,
            refusal: refusal as u64,
            ..Totals::default()
        };
        equal("a spoiled ring", seen, expected)?;
    }
    Ok(())
}

/// The consumer's count can only follow the producer's own.
fn hostile_consumer(page: SharedPage) -> Proof {
    page.reset();
    let mut producer = Producer::new(page);
    let full = |producer: &mut Producer| matches!(producer.put(0), Ok(None));
    while matches!(producer.put(0), Ok(Some(_))) {}
    producer.publish();
    that(full(&mut producer), "a full ring takes more")?;
    // What the producer published is nothing it reads back.
    page.overwrite(TAIL, 0);
    that(full(&mut producer), "a full ring takes more")?;
    for head in [ENTRIES + 1, u32::MAX] {
        page.overwrite(HEAD, head);
        equal("a head ahead", producer.room(), Err(Refusal::Head))?;
    }
    page.overwrite(HEAD, 3);
    equal("a good head", producer.room(), Ok(3))?;
    page.overwrite(HEAD, 2);
    equal("a head that goes back", producer.room(), Err(Refusal::Head))
}

fn prove(runtime: &mut Runtime) -> Proof {
    let frames = family::held(runtime, "frames")?.cap_id();
    let peer = Peer::start(runtime)?;
    let mut process = Process::new(runtime);
    let page = peer.share(&mut process, frames)?;
    honest(&mut process, &peer, page)?;
    hostile_producer(&mut process, &peer, page)?;
    hostile_consumer(page)?;
    peer.stop(runtime)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "ipc-zerocopy-notified", prove)
}

entry_point!(main);
