//! Threads asked for with every field wrong in turn, and threads that come to
//! a bad end: the first are refused and leave nothing, the second take their
//! program along and nobody else.
//!
//! What a child does, the name of a capability selects.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use capos::KernelCapSource;
use capos::capos_capnp::ExceptionType;
use capos::prelude::*;
use raw_ring::family;
use raw_ring::proof::{self, Failure, Process, Proof, equal};
use raw_ring::threads::{CONTROL, FOREVER, MAIN, PARK, Request, SPAWNER, Team, method};
use raw_ring::{Sqe, call, exception, release};

const NAME: &str = "hostile-threads";
/// End of the canonical lower half.
const USER_END: u64 = 1 << 47;
const KERNEL: u64 = 0xffff_8000_0000_0000;
/// Exit code of a program that was ended for a fault.
const FAULT: i64 = 139;
const NOWHERE: u64 = 0x5000_0000;

static TEAM: AtomicPtr<Team> = AtomicPtr::new(core::ptr::null_mut());
static WORD: AtomicU32 = AtomicU32::new(0);

fn team() -> &'static Team {
    // SAFETY: set once, before any other thread exists, to a value that stays.
    unsafe { &*TEAM.load(Ordering::Acquire) }
}

extern "C" fn ends(code: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    team().exit_thread(tid, code as i64)
}

extern "C" fn parks(_: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    let _ = team().park(tid, &WORD, 0, FOREVER);
    capos::syscall::exit(3)
}

extern "C" fn reads_null(_: u64, _: u32, _: u64, _: u64, _: u64) -> ! {
    // SAFETY: none; the read is the crime.
    unsafe { core::ptr::null::<u64>().read_volatile() };
    capos::syscall::exit(4)
}

/// Entries that are user addresses and no code, and the like: the thread finds
/// out, not the system.
type Change = fn(&mut Request);

const REFUSED: [(&str, Change); 12] = [
    ("no entry", |r| r.entry = 0),
    ("an entry beyond user space", |r| r.entry = USER_END),
    ("a kernel entry", |r| r.entry = KERNEL),
    ("the last entry", |r| r.entry = u64::MAX),
    ("no stack", |r| r.stack_top = 0),
    ("half a stack slot", |r| r.stack_top -= 8),
    ("an odd stack", |r| r.stack_top |= 1),
    ("a stack beyond user space", |r| r.stack_top = USER_END + 16),
    ("a kernel stack", |r| r.stack_top = KERNEL + 4096),
    ("an FS base beyond user space", |r| r.fs_base = USER_END),
    ("a kernel FS base", |r| r.fs_base = KERNEL),
    ("flags", |r| r.flags = 1 << 40),
];

const FATAL: [(&str, Change); 5] = [
    ("fatal-null", |r| r.entry = reads_null as *const () as u64),
    ("fatal-entry", |r| r.entry = NOWHERE),
    ("fatal-stack", |r| r.stack_top = NOWHERE),
    ("fatal-last-entry", |r| r.entry = USER_END - 1),
    ("fatal-last-stack", |r| r.stack_top = USER_END),
];

fn refusals(process: &mut Process) -> Proof {
    let team = Team::new(process)?;
    TEAM.store((&raw const *team).cast_mut(), Ordering::Release);
    let good = Request::new(ends, 5);
    for (what, change) in REFUSED {
        let mut request = good;
        change(&mut request);
        let (cqe, result) = team.try_create(&request)?;
        exception::expect(what, &cqe, &result, ExceptionType::Failed)?;
        equal(what, cqe.cap_count, 0)?;
    }
    let mut result = [0; 256];
    let garbage = [0xff; 96];
    let call = call(team.spawner, method::CREATE)
        .params(&garbage)
        .result(&mut result);
    let cqe = team.perform(call)?;
    exception::expect("garbage", &cqe, &result, ExceptionType::InvalidArgument)?;
    // After all that: one honest thread, and its number is the second.
    let handle = team.create(&good)?;
    equal("an honest thread", team.join(handle)?, 5)?;
    equal("release", team.perform(release(handle))?.result, 0)
}

/// A program that comes to a bad end, with threads in every state.
fn fatal(process: &mut Process, change: Change) -> Proof {
    let team = Team::new(process)?;
    TEAM.store((&raw const *team).cast_mut(), Ordering::Release);
    for _ in 0..3 {
        team.start(parks, 0)?;
    }
    // They run and park in the meantime.
    team.park(MAIN, &WORD, 0, 5_000_000)?;
    let mut request = Request::new(ends, 5);
    change(&mut request);
    team.create(&request)?;
    team.park(MAIN, &WORD, 0, FOREVER)?;
    Err(Failure::new("unpunished"))
}

fn parent(runtime: &mut Runtime) -> Proof {
    for (role, _) in FATAL {
        let grants = [
            family::fresh(role, KernelCapSource::Console),
            family::fresh("console", KernelCapSource::Console),
            family::fresh(CONTROL, KernelCapSource::ThreadControl),
            family::fresh(SPAWNER, KernelCapSource::ThreadSpawner),
            family::fresh(PARK, KernelCapSource::ParkSpace),
        ];
        let child = family::spawn(runtime, NAME, &grants)?;
        equal(role, child.wait(runtime)?, FAULT)?;
        drop(child);
        let flushed = runtime.flush_releases();
        flushed.map_err(|error| Failure::new(format!("releases: {error:?}")))?;
    }
    Ok(())
}

fn main(mut runtime: Runtime) -> i64 {
    for (role, change) in FATAL {
        if runtime.capset().get(role.as_bytes()).is_ok() {
            return proof::run(&runtime, role, |process| fatal(process, change));
        }
    }
    let outcome = parent(&mut runtime);
    proof::run(&runtime, NAME, |process| {
        outcome.and_then(|()| refusals(process))
    })
}

entry_point!(main);
