//! A completion queue without room stops submissions; nothing is lost, doubled
//! or reordered, and exactly as many go on as there is room for.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::syscall::cap_enter;
use capos_config::ring::{self, CQ_ENTRIES, SQ_ENTRIES};
use raw_ring::proof::{self, equal};
use raw_ring::{Process, Proof, RawRing, Sqe, nop};

fn batch(first: u64) -> [capos::CapSqe; SQ_ENTRIES as usize] {
    core::array::from_fn(|n| nop().user_data(first + n as u64))
}

/// Entries that were submitted and not taken.
fn waiting(ring: &RawRing) -> u32 {
    // SAFETY: the header of the mapped ring page.
    unsafe { ring::sq_tail(ring.header()).wrapping_sub(ring::sq_head(ring.header())) }
}

fn read(ring: &mut RawRing, count: u64, next: &mut u64) -> Proof {
    for _ in 0..count {
        let cqe = ring.take().map(|cqe| (cqe.user_data, cqe.result));
        equal("the oldest", cqe, Some((*next, 0)))?;
        *next += 1;
    }
    Ok(())
}

fn prove(process: &mut Process) -> Proof {
    let ring = &mut process.ring;
    equal("one batch", ring.flush(&batch(0))?, SQ_ENTRIES)?;
    equal("two batches", ring.flush(&batch(16))?, CQ_ENTRIES)?;
    equal("no room", ring.flush(&batch(32))?, CQ_ENTRIES)?;
    equal("waiting", waiting(ring), SQ_ENTRIES)?;
    let mut next = 0;
    for room in [1, 5, 7] {
        read(ring, room, &mut next)?;
        let before = waiting(ring);
        equal("full again", cap_enter(0, 0).ok(), Some(CQ_ENTRIES))?;
        equal("taken", before - waiting(ring), room as u32)?;
    }
    read(ring, u64::from(CQ_ENTRIES), &mut next)?;
    equal("the rest", cap_enter(3, 0).ok(), Some(3))?;
    read(ring, 3, &mut next)?;
    equal("all", next, 48)?;
    // SAFETY: the header of the mapped ring page.
    let overflow = unsafe { (&raw const (*ring.header()).cq_overflow).read_volatile() };
    equal("dropped", overflow, 0)?;
    equal("left", ring.drain(), 0)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "ring-full", prove)
}

entry_point!(main);
