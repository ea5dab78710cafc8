//! Programs that call without end for work the system does, beside one that
//! works itself.
//!
//! Each child enters with sixteen submissions at a time, of which each costs the
//! system more than a thousand times what the child spends on it. The parent
//! says how late its sleeps end and how long its own work takes, alone and
//! beside one and two children. What the system does for the children counts as
//! theirs, so that the work takes at most [`SLOWER_MAX`] thousandths of the time
//! it takes alone; a sleep ends at most one submission late, but for the one in
//! which the sleeper's own slice ends.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;

use capos::KernelCapSource;
use capos::prelude::*;
use raw_ring::family;
use raw_ring::memory_entries as memory;
use raw_ring::proof::{self, Failure, Process, Proof, that};
use raw_ring::threads::FOREVER;

const NAME: &str = "spinning-calls";
/// The child is told by a capability of this name.
const CHILD: &str = "child";
const CHILDREN: usize = 2;
const SLEEPS: usize = 51;
const SLEEP_NS: u64 = 2_000_000;
/// Time for a child to get ready.
const SETTLED_NS: u64 = 300_000_000;
/// How much later a sleep may end beside a caller: one submission, and room.
const LATER_MAX_NS: u64 = 3_000_000;
/// How much later still if the sleeper's slice ends as it wakes: it is behind
/// the others then, for a slice of each.
const SLICE_NS: u64 = 10_000_000;
/// Rounds of work that waits for nothing.
const ROUNDS: u64 = 200_000_000;
/// Most thousandths of the time alone that the work may take: half the
/// processor is the parent's, and some time goes to changing over.
const SLOWER_MAX: u64 = 2_500;

/// Pages whose protection is changed for ever, sixteen times at each entry.
const PAGES: u64 = 2048;
const PAGE_BYTES: u64 = 4096;

fn protect_params(addr: u64, prot: u32) -> Vec<u8> {
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
    /// The latest but one.
    most: u64,
    max: u64,
    work: u64,
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
    let before = timer.now_wait(&mut ring, FOREVER).map_err(failed)?;
    for round in 0..ROUNDS {
        core::hint::black_box(round);
    }
    let after = timer.now_wait(&mut ring, FOREVER).map_err(failed)?;
    Ok(Seen {
        median: late[SLEEPS / 2],
        most: late[SLEEPS - 2],
        max: late[SLEEPS - 1],
        work: after.monotonic_ns - before.monotonic_ns,
    })
}

/// Beside none, one, two children.
fn parent(runtime: &mut Runtime) -> Result<Vec<Seen>, Failure> {
    let mut all = Vec::from([seen(runtime, SLEEP_NS)?]);
    let mut children = Vec::new();
    for _ in 0..CHILDREN {
        let grants = [
            family::fresh(CHILD, KernelCapSource::Console),
            family::fresh("console", KernelCapSource::Console),
            family::fresh("vm", KernelCapSource::VirtualMemory),
        ];
        children.push(family::spawn(runtime, NAME, &grants)?);
        all.push(seen(runtime, SETTLED_NS)?);
    }
    for child in children {
        child.terminate(runtime)?;
    }
    Ok(all)
}

fn main(mut runtime: Runtime) -> i64 {
    if runtime.capset().get(CHILD.as_bytes()).is_ok() {
        return proof::run(&runtime, "spinning-calls child", child);
    }
    let measured = parent(&mut runtime);
    proof::run(&runtime, NAME, |process| {
        let measured = measured?;
        let alone = measured[0];
        for (callers, seen) in measured.iter().enumerate() {
            let Seen {
                median,
                most,
                max,
                work,
            } = *seen;
            let slower = work * 1000 / alone.work;
            process.print(&format!(
                "fair beside={callers} callers: late median={median} most={most} max={max} ns, \
                 work={work} ns, slower={slower}/1000"
            ))?;
        }
        for (callers, seen) in measured.iter().enumerate() {
            let later = alone.max + LATER_MAX_NS;
            that(seen.most <= later, "all sleeps but one")?;
            let latest = later + callers as u64 * SLICE_NS;
            that(seen.max <= latest, "the latest sleep")?;
            that(
                seen.work * 1000 <= alone.work * SLOWER_MAX,
                "half the processor, or nearly",
            )?;
        }
        Ok(())
    })
}

entry_point!(main);
