//! The base of the FS segment belongs to the thread: it is what was set, at
//! once, through every kind of wait, and for each thread on its own.
#![no_std]
#![no_main]

extern crate alloc;

use core::arch::asm;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use capos::prelude::*;
use capos::{ExceptionType, ThreadControlClient};
use raw_ring::proof::{self, Failure, Process, Proof, equal, that};
use raw_ring::threads::{FOREVER, MAIN, Request, Team};

const NAME: &str = "runtime-fs-base";
/// End of the canonical lower half.
const USER_END: u64 = 1 << 47;
const NAP_NS: u64 = 3_000_000;
/// What a thread's block holds before anybody writes to it.
const FIRST: u64 = 0xf5f5_0000_0000_0001;
const SECOND: u64 = 0xf5f5_0000_0000_0002;
const THIRD: u64 = 0xf5f5_0000_0000_0003;

static BLOCKS: [AtomicU64; 3] = [
    AtomicU64::new(FIRST),
    AtomicU64::new(SECOND),
    AtomicU64::new(THIRD),
];
static TEAM: AtomicPtr<Team> = AtomicPtr::new(core::ptr::null_mut());
static GATE: AtomicU32 = AtomicU32::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn base(index: usize) -> u64 {
    BLOCKS[index].as_ptr() as u64
}

/// The word at the FS base.
fn word() -> u64 {
    let word;
    // SAFETY: callers have set the base to a word of this program.
    unsafe { asm!("mov {}, fs:[0]", out(reg) word, options(nostack, readonly)) };
    word
}

fn failed(what: &str) -> impl FnOnce(ClientError) -> Failure {
    move |error| Failure::new(alloc::format!("{what}: {error:?}"))
}

/// Through the published clients, by the only thread there is.
fn alone(runtime: &mut Runtime) -> Proof {
    let missing = |_| Failure::new("a capability is missing");
    let mut control: ThreadControlClient =
        runtime.capset().get_client(b"control").map_err(missing)?;
    let mut timer: TimerClient = runtime.capset().get_client(b"timer").map_err(missing)?;
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("ring client"))?;
    let original = control.get_fs_base_wait(&mut ring, FOREVER);
    let original = original.map_err(failed("getFsBase"))?;
    equal("base of a program without TLS", original, 0)?;
    for (index, expected) in [FIRST, SECOND, THIRD].into_iter().enumerate() {
        control
            .set_fs_base_wait(&mut ring, base(index), FOREVER)
            .map_err(failed("setFsBase"))?;
        equal("the word there", word(), expected)?;
        let now = control.get_fs_base_wait(&mut ring, FOREVER);
        equal("getFsBase", now.map_err(failed("getFsBase"))?, base(index))?;
        // This wait ends with the thread's registers written.
        timer
            .sleep_wait(&mut ring, NAP_NS, FOREVER)
            .map_err(failed("sleep"))?;
        equal("the word after a wait", word(), expected)?;
    }
    for refused in [USER_END, u64::MAX, 0xffff_8000_0000_0000, 1 << 63] {
        match control.set_fs_base_wait(&mut ring, refused, FOREVER) {
            Err(ClientError::Application(exception))
                if exception.exception_type() == ExceptionType::Failed => {}
            other => {
                return Err(Failure::new(alloc::format!("base {refused:#x}: {other:?}")));
            }
        }
    }
    equal("the word after refusals", word(), THIRD)?;
    // The last user address is one; nothing is read from it.
    control
        .set_fs_base_wait(&mut ring, USER_END - 1, FOREVER)
        .map_err(failed("setFsBase"))?;
    let now = control.get_fs_base_wait(&mut ring, FOREVER);
    equal("getFsBase", now.map_err(failed("getFsBase"))?, USER_END - 1)?;
    control
        .set_fs_base_wait(&mut ring, base(0), FOREVER)
        .map_err(failed("setFsBase"))
}

fn team() -> &'static Team {
    // SAFETY: set once, before any other thread exists, to a value that stays.
    unsafe { &*TEAM.load(Ordering::Acquire) }
}

/// Reads its word, waits, reads it again, and ends.
extern "C" fn second(_: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    let before = word();
    while GATE.load(Ordering::Acquire) == 0 {
        if team().park(tid, &GATE, 0, FOREVER).is_err() {
            capos::syscall::exit(2);
        }
    }
    SEEN.store(before ^ word().rotate_left(1), Ordering::Release);
    team().exit_thread(tid, 0)
}

/// Two threads, each with its own.
fn together(process: &mut Process) -> Proof {
    let team = Team::new(process)?;
    TEAM.store((&raw const *team).cast_mut(), Ordering::Release);
    let request = Request {
        fs_base: base(1),
        ..Request::new(second, 0)
    };
    let handle = team.create(&request)?;
    // It runs and parks while this thread waits for its time to be over.
    equal("a moment", team.park(MAIN, &GATE, 0, NAP_NS)?, 2)?;
    equal("the first thread's word", word(), FIRST)?;
    GATE.store(1, Ordering::Release);
    team.unpark(&GATE, 1)?;
    equal("join", team.join(handle)?, 0)?;
    let expected = SECOND ^ SECOND.rotate_left(1);
    equal("the second's", SEEN.load(Ordering::Acquire), expected)?;
    that(word() == FIRST, "the first thread's word in the end")
}

fn main(mut runtime: Runtime) -> i64 {
    let alone = alone(&mut runtime);
    proof::run(&runtime, NAME, |process| {
        alone.and_then(|()| together(process))
    })
}

entry_point!(main);
