//! A program that calls without end for work the system does, beside one that
//! works itself.
//!
//! The parent says how late its sleeps end and how much of the processor it
//! gets for itself, alone and beside the child. Sleeps must end as before: a
//! thread that waited runs before those that spin. The processor is shared by
//! threads: one among sixteen gets a sixteenth.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use core::arch::x86_64::_rdtsc;

use capos::KernelCapSource;
use capos::prelude::*;
use raw_ring::family;
use raw_ring::proof::{self, Failure, Process, Proof, that};
use raw_ring::memory;
use raw_ring::threads::FOREVER;

const NAME: &str = "spinning-calls";
/// The child is told by a capability of this name.
const CHILD: &str = "child";
const SLEEPS: usize = 51;
const SLEEP_NS: u64 = 2_000_000;
const SETTLED_NS: u64 = 300_000_000;
/// How much later the median sleep may end, in nanoseconds.
const TOLERANCE_NS: u64 = 50_000;
/// How much later the latest may end: less than one time slice.
const TOLERANCE_MAX_NS: u64 = 2_000_000;
/// How long work is counted.
const WORK_NS: u64 = 1_600_000_000;
/// Most time one round of the work loop takes without being interrupted, in
/// ticks; a longer one means that others ran.
const GAP_TICKS: u64 = 100_000;

/// Pages whose protection is changed for ever, sixteen times at each entry.
const PAGES: u64 = 2048;
const PAGE_BYTES: u64 = 4096;

fn protect_params(addr: u64, prot: u32) -> alloc::vec::Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    let mut params =
        message.init_root::<capos::capos_capnp::virtual_memory::protect_params::Builder<'_>>();
    params.set_addr(addr);
    params.set_size(PAGES * PAGE_BYTES);
    params.set_prot(prot);
    capnp::serialize::write_message_to_words(&message)
}

fn child(process: &mut Process) -> Proof {
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

#[derive(Clone, Copy)]
struct Seen {
    median: u64,
    max: u64,
    /// Thousandths of the processor.
    share: u64,
}

fn ticks() -> u64 {
    // SAFETY: reading the counter touches no memory, and nothing here denies it.
    unsafe { _rdtsc() }
}

/// Thousandths of the processor a thread gets that never waits.
fn share(timer: &mut TimerClient, ring: &mut impl Transport) -> Result<u64, Failure> {
    let failed = |error: ClientError| Failure::new(format!("timer: {error:?}"));
    let mut now = || timer.now_wait(ring, FOREVER).map_err(failed);
    let end = now()?.monotonic_ns + WORK_NS;
    let (start, mut worked, mut last) = (ticks(), 0, ticks());
    while now()?.monotonic_ns < end {
        let now = ticks();
        let gap = now - last;
        worked += if gap < GAP_TICKS { gap } else { 0 };
        last = now;
    }
    Ok(worked * 1000 / (ticks() - start))
}

fn seen(runtime: &mut Runtime, first_ns: u64) -> Result<Seen, Failure> {
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
    Ok(Seen {
        median: late[SLEEPS / 2],
        max: late[SLEEPS - 1],
        share: share(&mut timer, &mut *ring)?,
    })
}

fn parent(runtime: &mut Runtime) -> Result<[Seen; 2], Failure> {
    let alone = seen(runtime, SLEEP_NS)?;
    let grants = [
        family::fresh(CHILD, KernelCapSource::Console),
        family::fresh("console", KernelCapSource::Console),
        family::fresh("vm", KernelCapSource::VirtualMemory),
    ];
    let child = family::spawn(runtime, NAME, &grants)?;
    let beside = seen(runtime, SETTLED_NS)?;
    child.terminate(runtime)?;
    Ok([alone, beside])
}

fn main(mut runtime: Runtime) -> i64 {
    if runtime.capset().get(CHILD.as_bytes()).is_ok() {
        return proof::run(&runtime, "spinning-calls child", child);
    }
    let measured = parent(&mut runtime);
    proof::run(&runtime, NAME, |process| {
        let [alone, beside] = measured?;
        for (when, seen) in [
            ("alone", alone),
            ("beside a caller", beside),
        ] {
            let Seen { median, max, share } = seen;
            let line =
                format!("fair {when}: late median={median} max={max} ns, share={share}/1000");
            process.print(&line)?;
        }
        that(
            beside.median <= alone.median + TOLERANCE_NS,
            "the median sleep",
        )?;
        that(
            beside.max <= alone.max + TOLERANCE_MAX_NS,
            "the latest sleep",
        )?;
        that(alone.share > 950, "the processor alone")?;
        that(beside.share > 400, "half the processor, or nearly")
    })
}

entry_point!(main);
