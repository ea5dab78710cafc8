//! Overwrites the index of the completions it has read. Completions that were
//! posted are its loss, later ones arrive, and a queue that looks full stops
//! submissions until it does not.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use core::ptr;

use capos::prelude::*;
use capos::syscall::cap_enter;
use capos_config::ring::{self, CQ_ENTRIES};
use raw_ring::proof::{self, equal};
use raw_ring::{Process, Proof, RawRing, Sqe, nop};

fn cq_head(ring: &RawRing) -> u32 {
    // SAFETY: the header of the mapped ring page.
    unsafe { ring::cq_head(ring.header()) }
}

fn cq_tail(ring: &RawRing) -> u32 {
    // SAFETY: as above.
    unsafe { ring::cq_tail(ring.header()) }
}

fn set_cq_head(ring: &RawRing, value: u32) {
    // SAFETY: as above; the word is the client's.
    unsafe { ring::set_cq_head(ring.header(), value) }
}

/// The completion in front of the tail.
fn newest(ring: &RawRing) -> (u64, i32) {
    let index = cq_tail(ring).wrapping_sub(1) & (CQ_ENTRIES - 1);
    // SAFETY: the mask keeps the record inside the ring page.
    let cqe = unsafe { ptr::read_volatile(ring::cqe_at(ring.base(), index)) };
    (cqe.user_data, cqe.result)
}

/// A head that is ahead of the tail, or more than the queue behind it.
fn impossible_head(process: &mut Process, distance: u32) -> Proof {
    let ring = &mut process.ring;
    let tail = cq_tail(ring);
    set_cq_head(ring, tail.wrapping_add(distance));
    let user_data = ring.fresh_user_data();
    ring.flush(&[nop().user_data(user_data)])?;
    equal("posted", cq_tail(ring), tail.wrapping_add(1))?;
    equal("the newest", newest(ring), (user_data, 0))?;
    set_cq_head(ring, cq_tail(ring));
    ring.expect("NOP afterwards", nop(), 0)?;
    Ok(())
}

/// A head that claims that nothing of a queue's worth was read.
fn full_queue(process: &mut Process) -> Proof {
    let ring = &mut process.ring;
    let tail = cq_tail(ring);
    set_cq_head(ring, tail.wrapping_sub(CQ_ENTRIES));
    let user_data = ring.fresh_user_data();
    ring.submit(&[nop().user_data(user_data)]);
    equal("available", cap_enter(0, 0).ok(), Some(CQ_ENTRIES))?;
    equal("posted", cq_tail(ring), tail)?;
    set_cq_head(ring, tail);
    equal("available", cap_enter(1, 0).ok(), Some(1))?;
    equal("the newest", newest(ring), (user_data, 0))?;
    set_cq_head(ring, cq_tail(ring));
    Ok(())
}

fn prove(process: &mut Process) -> Proof {
    let behind = (CQ_ENTRIES + 1).wrapping_neg();
    for distance in [1, 2, 0x8000_0000, 0x7fff_ffff, behind, 0x1234_5678] {
        let what = format!("a head {distance:#x} ahead of the tail");
        impossible_head(process, distance).map_err(|failure| failure.within(&what))?;
    }
    for _ in 0..3 {
        full_queue(process)?;
    }
    equal("unread", cq_head(&process.ring), cq_tail(&process.ring))
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "corrupted-cq-head", prove)
}

entry_point!(main);
