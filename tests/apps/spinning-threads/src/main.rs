//! A program with fifteen threads that never wait, beside one that does.
//!
//! The first program says how late its sleeps end and how much of the processor
//! it gets for itself: alone, beside a service that spins, and beside an
//! application that does. Sleeps must end as before: a thread that waited runs
//! before those that spin. Among equals, the processor is shared by threads:
//! one among sixteen gets a sixteenth. An application takes from a service what
//! the service leaves.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use core::arch::x86_64::_rdtsc;
use core::hint;
use core::sync::atomic::{AtomicPtr, Ordering};

use capos::KernelCapSource;
use capos::prelude::*;
use raw_ring::family;
use raw_ring::proof::{self, Failure, Process, Proof, that};
use raw_ring::threads::{CONTROL, FOREVER, PARK, SPAWNER, Team};

const NAME: &str = "spinning-threads";
/// The child is told by a capability of this name.
const CHILD: &str = "child";
/// As is the one that starts it as an application.
const LAUNCHER: &str = "launcher";
const SPINNERS: u64 = 15;
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

static TEAM: AtomicPtr<Team> = AtomicPtr::new(core::ptr::null_mut());

extern "C" fn spins(_: u64, _: u32, _: u64, _: u64, _: u64) -> ! {
    let mut rounds = 0_u64;
    loop {
        // No `pause`: an emulator makes it an expensive wait.
        rounds = hint::black_box(rounds + 1);
    }
}

fn child(process: &mut Process) -> Proof {
    let team = Team::new(process)?;
    TEAM.store((&raw const *team).cast_mut(), Ordering::Release);
    for _ in 0..SPINNERS {
        team.start(spins, 0)?;
    }
    // The first thread waits for the end that the parent brings.
    loop {
        let word = core::sync::atomic::AtomicU32::new(0);
        team.park(raw_ring::threads::MAIN, &word, 0, FOREVER)?;
    }
}

/// Starts the spinning program once more, as an application, and waits for it.
fn launcher(runtime: &mut Runtime) -> Proof {
    family::spawn(runtime, NAME, &grants(CHILD))?
        .wait(runtime)
        .map(drop)
}

fn grants(role: &'static str) -> [capos::SpawnGrant<'static>; 6] {
    [
        family::fresh(role, KernelCapSource::Console),
        family::fresh("console", KernelCapSource::Console),
        family::fresh("spawner", KernelCapSource::ProcessSpawner),
        family::fresh(CONTROL, KernelCapSource::ThreadControl),
        family::fresh(SPAWNER, KernelCapSource::ThreadSpawner),
        family::fresh(PARK, KernelCapSource::ParkSpace),
    ]
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

fn parent(runtime: &mut Runtime) -> Result<[Seen; 3], Failure> {
    let alone = seen(runtime, SLEEP_NS)?;
    let child = family::spawn(runtime, NAME, &grants(CHILD))?;
    let service = seen(runtime, SETTLED_NS)?;
    child.terminate(runtime)?;
    let _launcher = family::spawn(runtime, NAME, &grants(LAUNCHER))?;
    let application = seen(runtime, SETTLED_NS)?;
    Ok([alone, service, application])
}

fn main(mut runtime: Runtime) -> i64 {
    if runtime.capset().get(CHILD.as_bytes()).is_ok() {
        return proof::run(&runtime, "spinning-threads child", child);
    }
    if runtime.capset().get(LAUNCHER.as_bytes()).is_ok() {
        return proof::run_parent(runtime, "spinning-threads launcher", launcher);
    }
    let measured = parent(&mut runtime);
    proof::run(&runtime, NAME, |process| {
        let [alone, service, application] = measured?;
        let lines = [
            ("alone", alone),
            ("beside a service with fifteen spinning threads", service),
            ("beside an application with as many", application),
        ];
        for (when, Seen { median, max, share }) in lines {
            let late = format!("late median={median} max={max} ns");
            process.print(&format!("fair {when}: {late}, share={share}/1000"))?;
        }
        for beside in [service, application] {
            that(
                beside.median <= alone.median + TOLERANCE_NS,
                "the median sleep",
            )?;
            that(
                beside.max <= alone.max + TOLERANCE_MAX_NS,
                "the latest sleep",
            )?;
        }
        that(alone.share > 950, "the processor alone")?;
        that(service.share > 45, "a sixteenth, less what switching takes")?;
        that(service.share < 80, "a sixteenth and not much more")?;
        that(
            application.share > 950,
            "an application leaves it to a service",
        )
    })
}

entry_point!(main);
