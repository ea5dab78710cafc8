//! Threads and programs that end with everything pending: sleeps, joins,
//! receives, parks, waits in the ring. A thread leaves what it asked for to its
//! program; a program leaves nothing to anybody.
//!
//! What a child does, the name of a capability selects.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::hint;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use capos::KernelCapSource;
use capos::prelude::*;
use capos::{capos_capnp, syscall::cap_enter};
use raw_ring::family;
use raw_ring::proof::{self, Failure, Process, Proof, equal, that};
use raw_ring::threads::{CONTROL, FOREVER, MAIN, PARK, SPAWNER, Team, method, owned, park};
use raw_ring::{Mailbox, Sqe, call, nop, receive, release};

const NAME: &str = "thread-exits";
const SLEEP: u16 = 1;
const NAP_NS: u64 = 5_000_000;
const AGE_NS: u64 = 3_600_000_000_000;
const FAULT: i64 = 139;

static TEAM: AtomicPtr<Team> = AtomicPtr::new(core::ptr::null_mut());
static TIMER: AtomicU32 = AtomicU32::new(0);
static ENDPOINT: AtomicU32 = AtomicU32::new(0);
static OTHER: AtomicU32 = AtomicU32::new(0);
static WORD: AtomicU32 = AtomicU32::new(0);
/// What the first thread parks on to let others run; nobody wakes it.
static MOMENT: AtomicU32 = AtomicU32::new(0);
/// Number of an entry whose submitter is gone.
static LEFT: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

fn team() -> &'static Team {
    // SAFETY: set once, before any other thread exists, to a value that stays.
    unsafe { &*TEAM.load(Ordering::Acquire) }
}

fn sleep_params(duration_ns: u64) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<capos_capnp::timer::sleep_params::Builder<'_>>()
        .set_duration_ns(duration_ns);
    capnp::serialize::write_message_to_words(&message)
}

/// Asks for a sleep, a join and a receive, and ends without waiting; behind its
/// end it leaves an entry that only it could have had taken.
extern "C" fn leaves(_: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    let params = sleep_params(NAP_NS).leak();
    let result = alloc::vec![0; 256].leak();
    let mailbox = alloc::boxed::Box::leak(alloc::boxed::Box::new(Mailbox::new(256)));
    let timer = TIMER.load(Ordering::Acquire);
    let other = OTHER.load(Ordering::Acquire);
    let endpoint = ENDPOINT.load(Ordering::Acquire);
    let asked = [
        team().submit(call(timer, SLEEP).params(params)),
        team().submit(call(other, method::JOIN).result(result)),
        team().submit(receive(endpoint, mailbox)),
    ];
    for (place, user_data) in LEFT.iter().zip(asked) {
        place.store(user_data as u32, Ordering::Release);
    }
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<capos_capnp::thread_control::exit_thread_params::Builder<'_>>()
        .set_code(77);
    let params = capnp::serialize::write_message_to_words(&message).leak();
    team().submit(owned(
        call(team().control, method::EXIT_THREAD).params(params),
        tid,
    ));
    team().submit(park(team().park, tid, &WORD, 0, FOREVER));
    let _ = cap_enter(32, FOREVER);
    capos::syscall::exit(5)
}

extern "C" fn parks(timeout_ns: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    let _ = team().park(tid, &WORD, 0, timeout_ns);
    team().exit_thread(tid, 33)
}

extern "C" fn enters(_: u64, _: u32, _: u64, _: u64, _: u64) -> ! {
    let _ = cap_enter(32, FOREVER);
    capos::syscall::exit(6)
}

extern "C" fn spins(_: u64, _: u32, _: u64, _: u64, _: u64) -> ! {
    let mut rounds = 0_u64;
    loop {
        // No `pause`: an emulator makes it an expensive wait.
        rounds = hint::black_box(rounds + 1);
    }
}

extern "C" fn exits(code: u64, _: u32, _: u64, _: u64, _: u64) -> ! {
    capos::syscall::exit(code as i64)
}

extern "C" fn reads_null(_: u64, _: u32, _: u64, _: u64, _: u64) -> ! {
    // SAFETY: none; the read is the crime.
    unsafe { core::ptr::null::<u64>().read_volatile() };
    capos::syscall::exit(7)
}

fn set_up(process: &mut Process) -> Result<&'static Team, Failure> {
    let team = Team::new(process)?;
    TIMER.store(process.cap("timer")?, Ordering::Release);
    ENDPOINT.store(process.cap("endpoint")?, Ordering::Release);
    TEAM.store((&raw const *team).cast_mut(), Ordering::Release);
    Ok(team)
}

/// What a thread that ended asked for completes; what it left in the queue is
/// refused, and the queue goes on.
fn one_thread(process: &mut Process) -> Proof {
    let team = set_up(process)?;
    let other = team.start(parks, FOREVER)?;
    OTHER.store(other, Ordering::Release);
    // It runs, and parks.
    team.park(MAIN, &MOMENT, 0, NAP_NS)?;
    let leaver = team.start(leaves, 0)?;
    equal("its code", team.join(leaver)?, 77)?;
    let left = |index: usize| u64::from(LEFT[index].load(Ordering::Acquire));
    equal("its sleep", team.wait(left(0))?.result, 0)?;
    equal("the entry behind its end", team.perform(nop())?.result, 0)?;
    that(team.find(left(1)).is_none(), "its join waits")?;
    that(team.find(left(2)).is_none(), "its receive waits")?;
    equal("wake", team.unpark(&WORD, 1)?, 1)?;
    equal("its join", team.wait(left(1))?.result, 24)?;
    let endpoint = ENDPOINT.load(Ordering::Acquire);
    let cancelled = team.perform(raw_ring::cancel(endpoint, left(2)))?;
    equal("cancelling its receive", cancelled.result, 0)?;
    that(team.wait(left(2))?.result < 0, "its receive")?;
    for handle in [other, leaver] {
        equal("release", team.perform(release(handle))?.result, 0)?;
    }
    Ok(())
}

/// A program with a thread in every state, that ends by `last`.
fn program(process: &mut Process, last: Option<raw_ring::threads::Entry>) -> Proof {
    let team = set_up(process)?;
    let first = team.start(parks, FOREVER)?;
    OTHER.store(first, Ordering::Release);
    team.start(parks, AGE_NS)?;
    team.start(parks, AGE_NS + 1)?;
    team.start(leaves, 0)?;
    let params = sleep_params(AGE_NS);
    let timer = TIMER.load(Ordering::Acquire);
    for _ in 0..4 {
        team.submit(call(timer, SLEEP).params(&params));
    }
    team.park(MAIN, &WORD, 0, NAP_NS)?;
    team.start(spins, 0)?;
    match last {
        None => capos::syscall::exit(40),
        Some(last) => {
            team.start(enters, 0)?;
            team.start(last, 41)?;
        }
    }
    loop {
        team.park(MAIN, &WORD, 0, FOREVER)?;
    }
}

type Role = (&'static str, Option<raw_ring::threads::Entry>, i64);

const ROLES: [Role; 3] = [
    ("first-exits", None, 40),
    ("other-exits", Some(exits), 41),
    ("other-faults", Some(reads_null), FAULT),
];

fn parent(runtime: &mut Runtime) -> Proof {
    for (role, _, code) in ROLES {
        let grants = [
            family::fresh(role, KernelCapSource::Console),
            family::fresh("console", KernelCapSource::Console),
            family::fresh("timer", KernelCapSource::Timer),
            family::fresh("endpoint", KernelCapSource::Endpoint),
            family::fresh(CONTROL, KernelCapSource::ThreadControl),
            family::fresh(SPAWNER, KernelCapSource::ThreadSpawner),
            family::fresh(PARK, KernelCapSource::ParkSpace),
        ];
        let child = family::spawn(runtime, NAME, &grants)?;
        equal(role, child.wait(runtime)?, code)?;
        drop(child);
        let flushed = runtime.flush_releases();
        flushed.map_err(|error| Failure::new(format!("releases: {error:?}")))?;
    }
    Ok(())
}

fn main(mut runtime: Runtime) -> i64 {
    for (role, last, _) in ROLES {
        if runtime.capset().get(role.as_bytes()).is_ok() {
            return proof::run(&runtime, role, |process| program(process, last));
        }
    }
    let outcome = parent(&mut runtime);
    proof::run(&runtime, NAME, |process| {
        outcome.and_then(|()| one_thread(process))
    })
}

entry_point!(main);
