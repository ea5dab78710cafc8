//! Threads of one program that touch the same new pages at the same time,
//! share its ring, and start and end each other, on as many processors as there
//! are.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::hint;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use capos::prelude::*;
use raw_ring::proof::{self, Failure, Process, Proof, equal, that};
use raw_ring::threads::Team;
use raw_ring::{nop, release};

const NAME: &str = "thread-races";
const PAGE: usize = 4096;
/// Pages nobody has touched, each raced for once.
const PAGES: usize = 384;
const RACERS: u64 = 4;
const ENTRIES: u64 = 300;
const CHILDREN: u64 = 20;

/// Zeroed memory; its pages are not there yet.
static mut ARENA: [u8; PAGE * (PAGES + 1)] = [0; PAGE * (PAGES + 1)];
static TEAM: AtomicPtr<Team> = AtomicPtr::new(ptr::null_mut());
/// How many threads have come to each page.
static ARRIVED: [AtomicU32; PAGES] = [const { AtomicU32::new(0) }; PAGES];
static ENTERED: AtomicU64 = AtomicU64::new(0);

fn team() -> &'static Team {
    // SAFETY: set once, before any other thread exists, to a value that stays.
    unsafe { &*TEAM.load(Ordering::Acquire) }
}

fn sure<T>(outcome: Result<T, Failure>) -> T {
    outcome.unwrap_or_else(|failure| {
        let _ = team().print(&format!("{NAME}: FAILED in a thread: {failure:?}"));
        capos::syscall::exit(1)
    })
}

/// The first word of a page.
fn word(index: usize) -> &'static AtomicU64 {
    let arena = (&raw mut ARENA).cast::<u8>() as usize;
    let page = arena.next_multiple_of(PAGE) + index * PAGE;
    // SAFETY: the arena has one page more than there are, for the alignment;
    // all access to it is through these words.
    unsafe { &*(page as *const AtomicU64) }
}

/// Meets the others at every page, then touches it.
extern "C" fn races(_: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    for (index, arrived) in ARRIVED.iter().enumerate() {
        arrived.fetch_add(1, Ordering::AcqRel);
        while arrived.load(Ordering::Acquire) < RACERS as u32 {
            hint::spin_loop();
        }
        word(index).fetch_add(1 << (8 * (tid % 8)), Ordering::AcqRel);
    }
    team().exit_thread(tid, 1)
}

/// Enters often.
extern "C" fn enters(_: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    for _ in 0..ENTRIES {
        let cqe = sure(team().perform(nop()));
        sure(equal("NOP", cqe.result, 0));
        ENTERED.fetch_add(1, Ordering::AcqRel);
    }
    team().exit_thread(tid, 2)
}

extern "C" fn ends(code: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    team().exit_thread(tid, code as i64)
}

/// Starts threads and joins them.
extern "C" fn parents(_: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    for code in 0..CHILDREN {
        let handle = sure(team().start(ends, code));
        sure(equal(
            "a child's code",
            sure(team().join_as(tid, handle)),
            code as i64,
        ));
        sure(equal(
            "release",
            sure(team().perform(release(handle))).result,
            0,
        ));
    }
    team().exit_thread(tid, 3)
}

fn all(entry: raw_ring::threads::Entry, count: u64, code: i64) -> Proof {
    let mut handles = Vec::new();
    for _ in 0..count {
        handles.push(team().start(entry, 0)?);
    }
    for handle in handles {
        equal("code", team().join(handle)?, code)?;
        equal("release", team().perform(release(handle))?.result, 0)?;
    }
    Ok(())
}

fn prove(process: &mut Process) -> Proof {
    let team = Team::new(process)?;
    TEAM.store((&raw const *team).cast_mut(), Ordering::Release);
    all(races, RACERS, 1)?;
    for index in 0..PAGES {
        let word = word(index).load(Ordering::Acquire);
        let marks = word.to_le_bytes().iter().filter(|&&byte| byte == 1).count();
        equal("marks on a page", marks as u64, RACERS)?;
    }
    all(enters, RACERS, 2)?;
    let entered = ENTERED.load(Ordering::Acquire);
    equal("entries", entered, RACERS * ENTRIES)?;
    all(parents, 3, 3)?;
    that(
        team.ring().unclaimed() == 0,
        "a completion nobody asked for",
    )
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, NAME, prove)
}

entry_point!(main);
