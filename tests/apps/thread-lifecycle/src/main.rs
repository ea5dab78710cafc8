//! Threads from create to the end of the last one, and parking.
//!
//! The first thread proves what it can see and ends itself; the last one says
//! so, ends, and takes the program along with its code, 7.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use capos::prelude::*;
use capos::{Runtime, capos_capnp::ExceptionType};
use capos_config::ring::{PARK_TIMED_OUT, PARK_VALUE_MISMATCH, PARK_WOKEN};
use raw_ring::proof::{Failure, Process, Proof, equal, no_params, that};
use raw_ring::threads::{FOREVER, MAIN, Team, method};
use raw_ring::{exception, release};

const NAME: &str = "thread-lifecycle";
const LAST_CODE: i64 = 7;
const WAITERS: usize = 4;

static TEAM: AtomicPtr<Team> = AtomicPtr::new(core::ptr::null_mut());
/// What threads say happened, in their order.
static LOG: [AtomicU32; 16] = [const { AtomicU32::new(0) }; 16];
static LOGGED: AtomicU32 = AtomicU32::new(0);
/// What threads park on: it stays zero unless said otherwise.
static WORD: AtomicU32 = AtomicU32::new(0);
/// A second word, which nobody wakes by accident.
static GATE: AtomicU32 = AtomicU32::new(0);
static SEEN: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

fn team() -> &'static Team {
    // SAFETY: set once, before any other thread exists, to a value that stays.
    unsafe { &*TEAM.load(Ordering::Acquire) }
}

fn note(what: u32) {
    let at = LOGGED.fetch_add(1, Ordering::AcqRel) as usize;
    if let Some(place) = LOG.get(at) {
        place.store(what, Ordering::Release);
    }
}

/// Ends the program at once if a thread's own part fails.
fn sure<T>(outcome: Result<T, Failure>) -> T {
    outcome.unwrap_or_else(|failure| {
        let _ = team().print(&alloc::format!("{NAME}: FAILED in a thread: {failure:?}"));
        capos::syscall::exit(1)
    })
}

extern crate alloc;

/// Notes its first registers and ends with its argument as code.
extern "C" fn returns_argument(arg: u64, tid: u32, pid: u64, ring: u64, capset: u64) -> ! {
    for (place, value) in SEEN.iter().zip([arg, tid.into(), pid, ring, capset]) {
        place.store(value, Ordering::Release);
    }
    team().exit_thread(tid, arg as i64)
}

/// Tries to join itself through the handle it is told.
extern "C" fn joins_itself(handle: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    let (cqe, result) = sure(team().call(handle as u32, method::JOIN, &no_params()));
    let refused = exception::expect("self-join", &cqe, &result, ExceptionType::Failed);
    sure(refused);
    team().exit_thread(tid, 1)
}

/// Parks until the gate opens.
extern "C" fn waits_at_gate(code: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    while GATE.load(Ordering::Acquire) == 0 {
        sure(team().park(tid, &GATE, 0, FOREVER));
    }
    note(code as u32);
    team().exit_thread(tid, code as i64)
}

/// Says it is about to park, parks, and says it was woken.
extern "C" fn parks(code: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    let status = sure(team().park(tid, &WORD, 0, FOREVER));
    note(code as u32 | (status as u32) << 16);
    team().exit_thread(tid, code as i64)
}

/// Outlives the first thread, and is the last.
extern "C" fn is_last(main_ended: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    team().until(|| GATE.load(Ordering::Acquire) == main_ended as u32);
    sure(team().print("thread-lifecycle: proved"));
    team().exit_thread(tid, LAST_CODE)
}

fn open_gate(value: u32) -> Proof {
    GATE.store(value, Ordering::Release);
    team().unpark(&GATE, u32::MAX / 2).map(drop)
}

fn first_registers(pid: u64) -> Proof {
    let handle = team().start(returns_argument, 0x1234_5678)?;
    equal("join", team().join(handle)?, 0x1234_5678)?;
    let seen = |index: usize| SEEN[index].load(Ordering::Acquire);
    equal("argument", seen(0), 0x1234_5678)?;
    that(seen(1) > u64::from(MAIN), "a number of its own")?;
    equal("process", seen(2), pid)?;
    equal("ring", seen(3), 0x120_0000)?;
    equal("CapSet", seen(4), 0x130_0000)?;
    let code = team().exit_code(handle)?;
    equal("exitCode stays", code, Some(0x1234_5678))?;
    let (cqe, result) = team().call(handle, method::JOIN, &no_params())?;
    exception::expect("second join", &cqe, &result, ExceptionType::Failed)?;
    equal("release", team().perform(release(handle))?.result, 0)
}

/// A join that waits; a second one meanwhile; exitCode before and after.
fn waiting_join() -> Proof {
    let handle = team().start(waits_at_gate, 21)?;
    equal("exitCode of a live thread", team().exit_code(handle)?, None)?;
    let mut result = [0; 64];
    let join = raw_ring::Sqe::result(raw_ring::call(handle, method::JOIN), &mut result);
    let pending = team().submit(join);
    let (cqe, refused) = team().call(handle, method::JOIN, &no_params())?;
    exception::expect("join beside a join", &cqe, &refused, ExceptionType::Failed)?;
    that(team().find(pending).is_none(), "the join waits")?;
    open_gate(1)?;
    equal("bytes", team().wait(pending)?.result, 24)?;
    equal("code", raw_ring::threads::joined(&result)?, 21)?;
    equal("exitCode", team().exit_code(handle)?, Some(21))?;
    equal("release", team().perform(release(handle))?.result, 0)?;
    GATE.store(0, Ordering::Release);
    Ok(())
}

fn self_join() -> Proof {
    // The number a handle will get is the one a released one had, one
    // generation on; so the thread is told after it was created.
    let probe = team().start(returns_argument, 0)?;
    team().join(probe)?;
    team().perform(release(probe))?;
    let expected = probe.wrapping_add(1 << 24);
    let handle = team().start(joins_itself, expected.into())?;
    equal("the handle's number", handle, expected)?;
    equal("a thread that joined itself", team().join(handle)?, 1)?;
    equal("release", team().perform(release(handle))?.result, 0)
}

/// A released handle: the thread goes on; a released handle of a thread that
/// is waited for: the join completes.
fn detach() -> Proof {
    LOGGED.store(0, Ordering::Release);
    let detached = team().start(waits_at_gate, 31)?;
    equal("release", team().perform(release(detached))?.result, 0)?;
    let joined = team().start(waits_at_gate, 32)?;
    let mut result = [0; 64];
    let join = raw_ring::Sqe::result(raw_ring::call(joined, method::JOIN), &mut result);
    let pending = team().submit(join);
    equal("release", team().perform(release(joined))?.result, 0)?;
    let (gone, _) = team().call(joined, method::EXIT_CODE, &no_params())?;
    equal("a released handle", gone.result, -4)?;
    open_gate(1)?;
    equal("bytes", team().wait(pending)?.result, 24)?;
    equal("code", raw_ring::threads::joined(&result)?, 32)?;
    team().until(|| LOGGED.load(Ordering::Acquire) == 2);
    let sum: u32 = LOG[..2].iter().map(|l| l.load(Ordering::Acquire)).sum();
    equal("both went on", sum, 31 + 32)?;
    GATE.store(0, Ordering::Release);
    Ok(())
}

fn parking() -> Proof {
    let team = team();
    WORD.store(5, Ordering::Release);
    let status = team.park(MAIN, &WORD, 4, FOREVER)?;
    equal("another value", status, PARK_VALUE_MISMATCH)?;
    equal("no time", team.park(MAIN, &WORD, 5, 0)?, PARK_TIMED_OUT)?;
    let status = team.park(MAIN, &WORD, 5, 1_000_000)?;
    equal("one millisecond", status, PARK_TIMED_OUT)?;
    equal("nobody waits", team.unpark(&WORD, 9)?, 0)?;
    WORD.store(0, Ordering::Release);
    LOGGED.store(0, Ordering::Release);
    let mut handles = [0; WAITERS];
    for (index, handle) in handles.iter_mut().enumerate() {
        *handle = team.start(parks, index as u64 + 1)?;
        // It runs, and parks, while this thread waits a moment.
        team.park(MAIN, &GATE, 0, 1_000_000)?;
    }
    equal("wake one", team.unpark(&WORD, 1)?, 1)?;
    equal("the first ended", team.join(handles[0])?, 1)?;
    equal("it alone", LOGGED.load(Ordering::Acquire), 1)?;
    equal("wake two", team.unpark(&WORD, 2)?, 2)?;
    equal("the second", team.join(handles[1])?, 2)?;
    equal("the third", team.join(handles[2])?, 3)?;
    equal("not the fourth", team.exit_code(handles[3])?, None)?;
    equal("wake the rest", team.unpark(&WORD, u32::MAX / 2)?, 1)?;
    equal("the fourth", team.join(handles[3])?, 4)?;
    for logged in &LOG[..WAITERS] {
        let status = logged.load(Ordering::Acquire) >> 16;
        equal("how each was woken", status, PARK_WOKEN as u32)?;
    }
    for handle in handles {
        equal("release", team.perform(release(handle))?.result, 0)?;
    }
    Ok(())
}

fn prove(process: &mut Process) -> Proof {
    let team = Team::new(process)?;
    TEAM.store((&raw const *team).cast_mut(), Ordering::Release);
    first_registers(process.pid())?;
    waiting_join()?;
    self_join()?;
    detach()?;
    parking()?;
    let last = team.start(is_last, 2)?;
    equal("release", team.perform(release(last))?.result, 0)?;
    GATE.store(2, Ordering::Release);
    team.exit_thread(MAIN, 0)
}

fn main(runtime: Runtime) -> i64 {
    raw_ring::proof::run(&runtime, NAME, prove)
}

entry_point!(main);
