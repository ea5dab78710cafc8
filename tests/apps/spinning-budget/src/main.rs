//! A program that may have a tenth of the processor and wants all of it, beside
//! one of the same priority that works.
//!
//! The first program says how long the same work takes: alone, beside a child
//! that spins without a limit, and beside one at a time that is limited to 1 ms
//! in 10 ms and spins with one thread, with sixteen, by calls for which the
//! system works, or by entries that ask for nothing. The limited ones must leave it at least [`LEFT_MIN`]
//! thousandths of the processor; the one without a limit shows that this takes
//! one. Where it is told that a protection domain with that limit spins beside
//! it, it says what that leaves.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::arch::x86_64::_rdtsc;
use core::hint;

use capos::KernelCapSource;
use capos::prelude::*;
use capos::syscall::cap_enter;
use raw_ring::family;
use raw_ring::memory_entries as memory;
use raw_ring::proof::{self, Failure, Process, Proof, that};
use raw_ring::threads::{CONTROL, FOREVER, PARK, SPAWNER, Team};

const NAME: &str = "spinning-budget";
/// The same program under the name that is limited.
const LIMITED: &str = "limited";
/// Children are told what to do by a capability of one of these names.
const SPIN: &str = "spin";
const TEAM: &str = "team";
const CALL: &str = "call";
const ENTER: &str = "enter";
const WAKE: &str = "wake";
const TRAP: &str = "trap";
/// Held where a protection domain spins, more urgent than every program.
const DOMAIN: &str = "domain";

/// Threads of a team beside its first.
const TEAM_MORE: u64 = 15;
const WAKE_NS: u64 = 20_000;
/// Time for a child to get ready.
const SETTLED_NS: u64 = 30_000_000;
/// Rounds of work that waits for nothing.
const ROUNDS: u64 = 25_000_000;
/// What limited children must leave, in thousandths of the processor.
const LEFT_MIN: u64 = 880;
/// What a child without a limit leaves: half.
const FREE: core::ops::Range<u64> = 400..600;

/// What a domain with 1 ms in 10 ms leaves.
const BESIDE_DOMAIN: core::ops::Range<u64> = LEFT_MIN..920;
/// How long it is looked at.
const LOOKED_NS: u64 = 1_000_000_000;
/// Most time one round of looking takes without being interrupted, in ticks; a
/// longer one means that others ran.
const GAP_TICKS: u64 = 100_000;

/// Pages whose protection is changed for ever, sixteen times at each entry.
const PAGES: u64 = 512;
const PAGE_BYTES: u64 = 4096;

fn spin() -> ! {
    let mut rounds = 0_u64;
    loop {
        // No `pause`: an emulator makes it an expensive wait.
        rounds = hint::black_box(rounds + 1);
    }
}

extern "C" fn spins(_: u64, _: u32, _: u64, _: u64, _: u64) -> ! {
    spin()
}

fn team(process: &mut Process) -> Proof {
    let team = Team::new(process)?;
    for _ in 0..TEAM_MORE {
        team.start(spins, 0)?;
    }
    spin()
}

fn protect_params(addr: u64, prot: u32) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    let mut params =
        message.init_root::<capos::capos_capnp::virtual_memory::protect_params::Builder<'_>>();
    params.set_addr(addr);
    params.set_size(PAGES * PAGE_BYTES);
    params.set_prot(prot);
    capnp::serialize::write_message_to_words(&message)
}

fn calls(process: &mut Process) -> Proof {
    let cap = process.cap("vm")?;
    let mut answer = raw_ring::Mailbox::new(memory::ANSWER_BYTES);
    let params = memory::map_params(0, PAGES * PAGE_BYTES, 3);
    let ring = &mut process.ring;
    let cqe = memory::perform(ring, cap, memory::vm::MAP, &params, &mut answer)?;
    let base = memory::mapped_at(&answer, &cqe)?;
    for page in 0..PAGES {
        // SAFETY: the page was mapped just now and nobody else knows it.
        unsafe { ((base + page * PAGE_BYTES) as *mut u8).write_volatile(1) };
    }
    let (read, write) = (protect_params(base, 1), protect_params(base, 3));
    loop {
        let entries: [_; 16] = core::array::from_fn(|index| {
            let params = if index % 2 == 0 { &read } else { &write };
            raw_ring::Sqe::params(raw_ring::call(cap, 2), params)
        });
        ring.flush(&entries)?;
        ring.drain();
    }
}

/// Waits for completions that do not come, so short that it is over at once.
fn enters() -> ! {
    loop {
        let _ = cap_enter(1, 1);
    }
}

/// As [`enters`], so long that an interrupt ends it.
fn wakes() -> ! {
    loop {
        let _ = cap_enter(1, WAKE_NS);
    }
}

/// Traps that the system refuses.
fn traps() -> ! {
    loop {
        // SAFETY: there is no such call; the answer is in RAX.
        unsafe {
            core::arch::asm!("syscall", inout("rax") 99_u64 => _, out("rcx") _, out("r11") _);
        }
    }
}

/// How long the work takes, in nanoseconds.
fn work(runtime: &mut Runtime) -> Result<u64, Failure> {
    let missing = |_| Failure::new("no timer");
    let failed = |error: ClientError| Failure::new(format!("timer: {error:?}"));
    let mut timer: TimerClient = runtime.capset().get_client(b"timer").map_err(missing)?;
    let mut ring = runtime.ring_client().map_err(|_| Failure::new("ring"))?;
    timer
        .sleep_wait(&mut ring, SETTLED_NS, FOREVER)
        .map_err(failed)?;
    let before = timer.now_wait(&mut ring, FOREVER).map_err(failed)?;
    for round in 0..ROUNDS {
        hint::black_box(round);
    }
    let after = timer.now_wait(&mut ring, FOREVER).map_err(failed)?;
    Ok(after.monotonic_ns - before.monotonic_ns)
}

/// How long it takes beside a child, which is ended then.
fn beside(runtime: &mut Runtime, program: &str, role: &'static str) -> Result<u64, Failure> {
    let grants = [
        family::fresh(role, KernelCapSource::Console),
        family::fresh("console", KernelCapSource::Console),
        family::fresh("vm", KernelCapSource::VirtualMemory),
        family::fresh(CONTROL, KernelCapSource::ThreadControl),
        family::fresh(SPAWNER, KernelCapSource::ThreadSpawner),
        family::fresh(PARK, KernelCapSource::ParkSpace),
    ];
    let child = family::spawn(runtime, program, &grants)?;
    let taken = work(runtime)?;
    child.terminate(runtime)?;
    Ok(taken)
}

fn print(runtime: &mut Runtime, line: &str) -> Proof {
    let missing = |_| Failure::new("no console");
    let mut console: ConsoleClient = runtime.capset().get_client(b"console").map_err(missing)?;
    let mut ring = runtime.ring_client().map_err(|_| Failure::new("ring"))?;
    let written = console.write_line_wait(&mut ring, line, FOREVER);
    written.map_err(|error| Failure::new(format!("console: {error:?}")))
}

fn ticks() -> u64 {
    // SAFETY: reading the counter touches no memory, and nothing here denies it.
    unsafe { _rdtsc() }
}

/// What the domain leaves, in thousandths of the processor.
fn beside_domain(runtime: &mut Runtime) -> Proof {
    let left = {
        let missing = |_| Failure::new("no timer");
        let failed = |error: ClientError| Failure::new(format!("timer: {error:?}"));
        let mut timer: TimerClient = runtime.capset().get_client(b"timer").map_err(missing)?;
        let mut ring = runtime.ring_client().map_err(|_| Failure::new("ring"))?;
        let mut now = || timer.now_wait(&mut ring, FOREVER).map_err(failed);
        let end = now()?.monotonic_ns + LOOKED_NS;
        let (start, mut had, mut last) = (ticks(), 0, ticks());
        while now()?.monotonic_ns < end {
            let gap = ticks() - last;
            had += if gap < GAP_TICKS { gap } else { 0 };
            last += gap;
        }
        had * 1000 / (ticks() - start)
    };
    let what = "a spinning domain with 1 ms in 10 ms";
    print(runtime, &format!("budget beside {what}: left={left}/1000"))?;
    that(BESIDE_DOMAIN.contains(&left), "what is left")
}

/// Says what children leave, one after the other, and refuses what is too
/// little.
fn parent(runtime: &mut Runtime) -> Proof {
    let alone = work(runtime)?;
    print(runtime, &format!("budget alone: work={alone} ns"))?;
    let limited = LEFT_MIN..1001;
    for (child, program, role, fine) in [
        ("a spinning child without a limit", NAME, SPIN, FREE),
        (
            "a spinning child with 1 ms in 10 ms",
            LIMITED,
            SPIN,
            limited.clone(),
        ),
        ("a calling child with it", LIMITED, CALL, limited.clone()),
        (
            "a child that enters for nothing",
            LIMITED,
            ENTER,
            limited.clone(),
        ),
        (
            "a child that is woken for ever",
            LIMITED,
            WAKE,
            limited.clone(),
        ),
        (
            "a child that traps for ever",
            LIMITED,
            TRAP,
            limited.clone(),
        ),
        (
            "sixteen spinning threads with it together",
            LIMITED,
            TEAM,
            limited,
        ),
    ] {
        let left = alone * 1000 / beside(runtime, program, role)?;
        print(runtime, &format!("budget beside {child}: left={left}/1000"))?;
        that(fine.contains(&left), "what is left")?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    let is = |role: &str| runtime.capset().get(role.as_bytes()).is_ok();
    if is(SPIN) {
        spin();
    }
    if is(ENTER) {
        enters();
    }
    if is(WAKE) {
        wakes();
    }
    if is(TRAP) {
        traps();
    }
    if is(TEAM) {
        return proof::run(&runtime, "spinning-budget team", team);
    }
    if is(CALL) {
        return proof::run(&runtime, "spinning-budget calls", calls);
    }
    if is(DOMAIN) {
        return proof::run_parent(runtime, NAME, beside_domain);
    }
    proof::run_parent(runtime, NAME, parent)
}

entry_point!(main);
