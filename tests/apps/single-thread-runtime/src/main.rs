//! What a language runtime with one thread needs: memory on request, without an
//! allocator in between, time, and a way to wait.
//!
//! Every call to the memory capability goes through buffers of the program's
//! own, set aside before it starts. Waiting on a word nobody can change is
//! waiting for its timeout: by PARK, and by a sleep where there is no
//! capability to park with.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use core::sync::atomic::{AtomicU32, Ordering};

use capos::VirtualMemoryCallScratch;
use capos::prelude::*;
use capos_config::ring::{CAP_ERR_INVOKE_FAILED, PARK_TIMED_OUT, PARK_VALUE_MISMATCH};
use capos_config::{VM_PROT_NONE, VM_PROT_READ, VM_PROT_WRITE};
use raw_ring::proof::{self, Failure, Process, Proof, equal, that};
use raw_ring::threads::{MAIN, PARK, park};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const PAGE: u64 = 4096;
const ARENA_PAGES: u64 = 16;
const NAP_NS: u64 = 4_000_000;
/// Bytes of a scratch buffer: more than any of these messages has.
const SCRATCH: usize = 512;

/// Waits, on behalf of the runtime, until `word` changes or time is over.
enum Waiting {
    /// With a ParkSpace.
    Park(u32),
    /// With nothing but a timer.
    Sleep,
}

fn failed(what: &str) -> impl FnOnce(ClientError) -> Failure + '_ {
    move |error| Failure::new(format!("{what}: {error:?}"))
}

fn fill(address: u64, bytes: u64, byte: u8) {
    // SAFETY: callers pass ranges this program has mapped for itself.
    unsafe { core::ptr::write_bytes(address as *mut u8, byte, bytes as usize) };
}

fn holds(address: u64, bytes: u64, byte: u8) -> bool {
    // SAFETY: as in `fill`.
    let memory = unsafe { core::slice::from_raw_parts(address as *const u8, bytes as usize) };
    memory.iter().all(|&held| held == byte)
}

/// An arena: mapped, used, protected page by page, given back, mapped again.
fn memory(runtime: &mut Runtime) -> Proof {
    let found = runtime.capset().get_client(b"memory");
    let mut memory: VirtualMemoryClient = found.map_err(|_| Failure::new("no memory"))?;
    let mut ring = runtime.ring_client().map_err(|_| Failure::new("ring"))?;
    let (mut message, mut params, mut result) = ([0; SCRATCH], [0; SCRATCH], [0; SCRATCH]);
    let mut scratch = VirtualMemoryCallScratch::new(&mut message, &mut params, &mut result);
    let size = ARENA_PAGES * PAGE;
    let both = VM_PROT_READ | VM_PROT_WRITE;
    for round in 1..=3 {
        let arena = memory
            .map_with_scratch_wait(&mut ring, &mut scratch, 0, size, both)
            .map_err(failed("map"))?;
        that(arena.is_multiple_of(PAGE) && arena != 0, "an address")?;
        that(holds(arena, size, 0), "new memory is zero")?;
        fill(arena, size, round);
        let kept = arena + 3 * PAGE;
        for prot in [VM_PROT_READ, VM_PROT_NONE, both] {
            memory
                .protect_with_scratch_wait(&mut ring, &mut scratch, kept, PAGE, prot)
                .map_err(failed("protect"))?;
            if prot != VM_PROT_NONE {
                that(holds(kept, PAGE, round), "protection keeps content")?;
            }
        }
        fill(kept, PAGE, !round);
        that(holds(kept, PAGE, !round), "the page can be written again")?;
        that(holds(arena, 3 * PAGE, round), "the pages before it")?;
        memory
            .unmap_with_scratch_wait(&mut ring, &mut scratch, arena, size)
            .map_err(failed("unmap"))?;
        let gone = memory.unmap_with_scratch_wait(&mut ring, &mut scratch, arena, size);
        that(gone.is_err(), "memory is given back once")?;
    }
    let refused = memory.map_with_scratch_wait(&mut ring, &mut scratch, 0, 0, both);
    that(refused.is_err(), "no memory of no size")
}

/// Two readings and a sleep between them.
fn time(runtime: &mut Runtime) -> Proof {
    let found = runtime.capset().get_client(b"timer");
    let mut timer: TimerClient = found.map_err(|_| Failure::new("no timer"))?;
    let mut ring = runtime.ring_client().map_err(|_| Failure::new("ring"))?;
    let before = timer.now_wait(&mut ring, FOREVER).map_err(failed("now"))?;
    timer
        .sleep_wait(&mut ring, NAP_NS, FOREVER)
        .map_err(failed("sleep"))?;
    let after = timer.now_wait(&mut ring, FOREVER).map_err(failed("now"))?;
    let slept = after.monotonic_ns - before.monotonic_ns;
    that(slept >= NAP_NS, "a sleep is not short")
}

/// Waits once each way; the word is nobody's to change.
fn wait(process: &mut Process, waiting: &Waiting, word: &AtomicU32) -> Proof {
    match waiting {
        Waiting::Park(space) => {
            let value = word.load(Ordering::Acquire);
            let asked = park(*space, MAIN, word, value, NAP_NS);
            process.ring.expect("a park ends", asked, PARK_TIMED_OUT)?;
            let changed = park(*space, MAIN, word, value + 1, NAP_NS);
            let what = "a park on another value";
            process.ring.expect(what, changed, PARK_VALUE_MISMATCH)?;
        }
        Waiting::Sleep => {
            let mut message = capnp::message::Builder::new_default();
            message
                .init_root::<capos::capos_capnp::timer::sleep_params::Builder<'_>>()
                .set_duration_ns(NAP_NS);
            let params = capnp::serialize::write_message_to_words(&message);
            let timer = process.cap("timer")?;
            let sleep = raw_ring::Sqe::params(raw_ring::call(timer, 1), &params);
            process.ring.expect("a sleep ends", sleep, 0)?;
        }
    }
    equal("the word", word.load(Ordering::Acquire), 5)
}

fn waits(process: &mut Process) -> Proof {
    let word = AtomicU32::new(5);
    let space = process.cap(PARK)?;
    wait(process, &Waiting::Park(space), &word)?;
    // A runtime that was granted no ParkSpace finds out, and sleeps instead.
    let timer = process.cap("timer")?;
    let asked = park(timer, MAIN, &word, 5, NAP_NS);
    let what = "parking with a timer";
    process.ring.expect(what, asked, CAP_ERR_INVOKE_FAILED)?;
    wait(process, &Waiting::Sleep, &word)
}

fn main(mut runtime: Runtime) -> i64 {
    let outcome = memory(&mut runtime).and_then(|()| time(&mut runtime));
    proof::run(&runtime, "single-thread-runtime", |process| {
        outcome.and_then(|()| waits(process))
    })
}

entry_point!(main);
