//! A program with as many threads as it may have, all of them parked; one more
//! is refused, and another program does not notice.
//!
//! The parent measures how late its sleeps end, before and while the child has
//! sixteen threads parked, each with a timeout of its own, and says both.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use capos::KernelCapSource;
use capos::capos_capnp::ExceptionType;
use capos::prelude::*;
use capos_config::ring::{PARK_TIMED_OUT, PARK_WOKEN};
use raw_ring::family;
use raw_ring::proof::{self, Failure, Process, Proof, equal, that};
use raw_ring::threads::{CONTROL, FOREVER, MAIN, PARK, Request, SPAWNER, Team};
use raw_ring::{exception, release};

const NAME: &str = "parks-sixteen";
/// The child is told by a capability of this name.
const CHILD: &str = "child";
/// `PROCESS_THREAD_LIMIT` of the ABI.
const THREADS_MAX: usize = 16;
/// How long the child stays parked.
const PARKED_NS: u64 = 400_000_000;
/// When the parent begins to measure again, and how often it does.
const SETTLED_NS: u64 = 100_000_000;
const SLEEPS: usize = 51;
const SLEEP_NS: u64 = 2_000_000;
/// How much later a sleep may end, in nanoseconds.
const TOLERANCE_NS: u64 = 50_000;

static TEAM: AtomicPtr<Team> = AtomicPtr::new(core::ptr::null_mut());
static WORD: AtomicU32 = AtomicU32::new(0);
static WOKEN: AtomicU32 = AtomicU32::new(0);

fn team() -> &'static Team {
    // SAFETY: set once, before any other thread exists, to a value that stays.
    unsafe { &*TEAM.load(Ordering::Acquire) }
}

extern "C" fn parks(code: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    // Half of them have a timeout that would end after the wake.
    let timeout = if code.is_multiple_of(2) {
        FOREVER
    } else {
        10 * PARKED_NS
    };
    let status = team().park(tid, &WORD, 0, timeout);
    if status.is_ok_and(|status| status == PARK_WOKEN) {
        WOKEN.fetch_add(1, Ordering::AcqRel);
    }
    team().exit_thread(tid, code as i64)
}

fn child(process: &mut Process) -> Proof {
    let team = Team::new(process)?;
    TEAM.store((&raw const *team).cast_mut(), Ordering::Release);
    let mut handles = Vec::new();
    for code in 1..THREADS_MAX {
        handles.push(team.start(parks, code as u64)?);
    }
    let one_more = Request::new(parks, 99);
    for _ in 0..3 {
        let (cqe, result) = team.try_create(&one_more)?;
        exception::expect("a seventeenth", &cqe, &result, ExceptionType::Overloaded)?;
    }
    // The first thread is the sixteenth to park.
    let status = team.park(MAIN, &WORD, 0, PARKED_NS)?;
    equal("the first thread", status, PARK_TIMED_OUT)?;
    equal("nobody else", WOKEN.load(Ordering::Acquire), 0)?;
    let (cqe, result) = team.try_create(&one_more)?;
    exception::expect("still", &cqe, &result, ExceptionType::Overloaded)?;
    equal(
        "all of them",
        team.unpark(&WORD, u32::MAX / 2)?,
        THREADS_MAX as i32 - 1,
    )?;
    for (index, &handle) in handles.iter().enumerate() {
        equal("its code", team.join(handle)?, index as i64 + 1)?;
        equal("release", team.perform(release(handle))?.result, 0)?;
    }
    equal(
        "woken",
        WOKEN.load(Ordering::Acquire),
        THREADS_MAX as u32 - 1,
    )?;
    let again = team.create(&one_more)?;
    WORD.store(1, Ordering::Release);
    team.unpark(&WORD, 1)?;
    equal("room again", team.join(again)?, 99)
}

struct Lateness {
    median: u64,
    max: u64,
}

/// How much later than asked sleeps end.
fn lateness(runtime: &mut Runtime, first_ns: u64) -> Result<Lateness, Failure> {
    let missing = |_| Failure::new("no timer");
    let failed = |error: ClientError| Failure::new(format!("timer: {error:?}"));
    let mut timer: TimerClient = runtime.capset().get_client(b"timer").map_err(missing)?;
    let mut ring = runtime.ring_client().map_err(|_| Failure::new("ring"))?;
    timer
        .sleep_wait(&mut ring, first_ns, FOREVER)
        .map_err(failed)?;
    let mut late = [0; SLEEPS];
    for late in &mut late {
        let before = timer.now_wait(&mut ring, FOREVER).map_err(failed)?;
        timer
            .sleep_wait(&mut ring, SLEEP_NS, FOREVER)
            .map_err(failed)?;
        let after = timer.now_wait(&mut ring, FOREVER).map_err(failed)?;
        *late = (after.monotonic_ns - before.monotonic_ns).saturating_sub(SLEEP_NS);
    }
    late.sort_unstable();
    Ok(Lateness {
        median: late[SLEEPS / 2],
        max: late[SLEEPS - 1],
    })
}

fn parent(runtime: &mut Runtime) -> Result<(Lateness, Lateness), Failure> {
    let before = lateness(runtime, SLEEP_NS)?;
    let grants = [
        family::fresh(CHILD, KernelCapSource::Console),
        family::fresh("console", KernelCapSource::Console),
        family::fresh(CONTROL, KernelCapSource::ThreadControl),
        family::fresh(SPAWNER, KernelCapSource::ThreadSpawner),
        family::fresh(PARK, KernelCapSource::ParkSpace),
    ];
    let child = family::spawn(runtime, NAME, &grants)?;
    let during = lateness(runtime, SETTLED_NS)?;
    child.succeeds(runtime, "the child")?;
    Ok((before, during))
}

fn main(mut runtime: Runtime) -> i64 {
    if runtime.capset().get(CHILD.as_bytes()).is_ok() {
        return proof::run(&runtime, "parks-sixteen child", child);
    }
    let measured = parent(&mut runtime);
    proof::run(&runtime, NAME, |process| {
        let (before, during) = measured?;
        let line = |when: &str, late: &Lateness| {
            let (median, max) = (late.median, late.max);
            format!("sleeps end late {when}: median={median} max={max} ns")
        };
        process.print(&line("alone", &before))?;
        process.print(&line("beside sixteen parked threads", &during))?;
        that(during.median <= before.median + TOLERANCE_NS, "the median")?;
        that(during.max <= before.max + TOLERANCE_NS, "the latest")
    })
}

entry_point!(main);
