//! What threads cost, in ticks of the time stamp counter: to create one and
//! join it, to end, and to wake one that is parked.
//!
//! Where time is counted in instructions, a tick is one instruction. Each line
//! is `bench NAME median=N min=N max=N`, over 101 rounds:
//!
//! - `thread-create`: `ThreadSpawner.create` until its completion is taken;
//!   the new thread runs once its creator waits.
//! - `thread-join`: `join` of a thread that is about to run for the first time,
//!   until its code is here: the thread's run and its end are inside.
//! - `unpark-one`: UNPARK of a parked thread until its completion is taken; the
//!   thread, back from the wait, runs first and parks again.
//! - `park-wake`: from before UNPARK in one thread to after PARK in the other.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use capos::prelude::*;
use capos::syscall::cap_enter;
use capos_config::ring::CapSqe;
use raw_ring::bench::{Samples, ticks};
use raw_ring::proof::{self, Failure, Process, Proof, equal, no_params, that};
use raw_ring::threads::{FOREVER, MAIN, Request, Team, method, owned, park, unpark};
use raw_ring::{RawRing, Sqe, call, release};

const ROUNDS: usize = 101;
const WARM_UP_ROUNDS: usize = 5;

static TEAM: AtomicPtr<Team> = AtomicPtr::new(core::ptr::null_mut());
static WORD: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicU32 = AtomicU32::new(0);
static WOKEN_AT: AtomicU64 = AtomicU64::new(0);
static EXIT: AtomicPtr<Vec<u8>> = AtomicPtr::new(core::ptr::null_mut());

fn team() -> &'static Team {
    // SAFETY: set once, before any other thread exists, to a value that stays.
    unsafe { &*TEAM.load(Ordering::Acquire) }
}

/// Ends at once, with params made beforehand.
extern "C" fn ends(_: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    // SAFETY: set once, before any other thread exists, to a value that stays.
    let params = unsafe { &*EXIT.load(Ordering::Acquire) };
    let exit = owned(
        call(team().control, method::EXIT_THREAD).params(params),
        tid,
    );
    team().submit(exit);
    let _ = cap_enter(0, 0);
    capos::syscall::exit(2)
}

/// Parks again and again, and notes when it is back.
extern "C" fn parks(_: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    while STOP.load(Ordering::Acquire) == 0 {
        let entry = park(team().park, tid, &WORD, 0, FOREVER);
        team().submit(CapSqe {
            user_data: 7,
            ..entry
        });
        let _ = cap_enter(0, 0);
        WOKEN_AT.store(ticks(), Ordering::Release);
    }
    team().exit_thread(tid, 0)
}

/// One entry and its completion, with nobody else on the ring.
fn timed(ring: &mut RawRing, entry: CapSqe, min: u32) -> Result<u64, Failure> {
    let entries = [entry];
    let start = ticks();
    ring.submit(&entries);
    let entered = cap_enter(min, FOREVER);
    let completion = ring.take();
    let taken = ticks() - start;
    that(entered.is_ok(), "cap_enter")?;
    that(completion.is_some_and(|cqe| cqe.result >= 0), "the entry")?;
    Ok(taken)
}

/// Create and join, one after the other.
fn lifetimes(team: &Team) -> Result<[String; 2], Failure> {
    let [mut create, mut join] = [ROUNDS; 2].map(Samples::with_capacity);
    let params = Request::new(ends, 0).params();
    let nothing = no_params();
    let mut result = [0; 64];
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        let asked = call(team.spawner, method::CREATE)
            .params(&params)
            .result(&mut result);
        let created = timed(&mut team.ring(), asked, 0)?;
        let id = result.get(24..28).and_then(|id| id.try_into().ok());
        let handle = id
            .map(u32::from_le_bytes)
            .ok_or(Failure::new("no handle"))?;
        let asked = call(handle, method::JOIN)
            .params(&nothing)
            .result(&mut result);
        let start = ticks();
        let pending = team.submit(asked);
        let entered = cap_enter(1, FOREVER);
        let joined = ticks() - start;
        that(entered.is_ok(), "cap_enter")?;
        equal("join", team.wait(pending)?.result, 24)?;
        equal("release", team.perform(release(handle))?.result, 0)?;
        if round >= WARM_UP_ROUNDS {
            create.add(created);
            join.add(joined);
        }
    }
    Ok([create.line("thread-create"), join.line("thread-join")])
}

fn wakes(team: &Team) -> Result<[String; 2], Failure> {
    let [mut both, mut wake] = [ROUNDS; 2].map(Samples::with_capacity);
    let handle = team.start(parks, 0)?;
    // It parks in the meantime.
    team.park(MAIN, &STOP, 0, 1_000_000)?;
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        let entry = unpark(team.park, &WORD, 1);
        let start = ticks();
        team.submit(entry);
        let entered = cap_enter(1, FOREVER);
        let done = ticks();
        that(entered.is_ok(), "cap_enter")?;
        let mut ring = team.ring();
        // The wake's completion and the waiter's.
        ring.drain();
        drop(ring);
        // It parks again.
        team.park(MAIN, &STOP, 0, 1_000_000)?;
        if round >= WARM_UP_ROUNDS {
            both.add(done - start);
            wake.add(WOKEN_AT.load(Ordering::Acquire) - start);
        }
    }
    STOP.store(1, Ordering::Release);
    team.unpark(&WORD, 1)?;
    equal("join", team.join(handle)?, 0)?;
    Ok([both.line("unpark-one"), wake.line("park-wake")])
}

fn prove(process: &mut Process) -> Proof {
    let team = Team::new(process)?;
    TEAM.store((&raw const *team).cast_mut(), Ordering::Release);
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<capos::capos_capnp::thread_control::exit_thread_params::Builder<'_>>()
        .set_code(1);
    let params = capnp::serialize::write_message_to_words(&message);
    EXIT.store(
        alloc::boxed::Box::leak(alloc::boxed::Box::new(params)),
        Ordering::Release,
    );
    let lines = [lifetimes(team)?, wakes(team)?];
    for line in lines.iter().flatten() {
        team.print(line)?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "bench-threads", prove)
}

entry_point!(main);
