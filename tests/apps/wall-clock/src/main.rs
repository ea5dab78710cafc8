//! The wall clock starts where the machine's clock was set, says how it knows,
//! and goes on as the monotonic clock does.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::WallClockTime;
use capos::prelude::*;
use capos::{ClientError, ClockProvenance, RuntimeRingClient, TimerClient, WallClockClient};
use raw_ring::PATIENCE_NS;
use raw_ring::proof::{self, Failure, Proof, that};

/// 2031-05-06 19:08:09 UTC, to which the scenario sets the machine's clock.
const BASE_S: i64 = 1_935_860_889;
/// What a slow machine may take to get here.
const START_S: i64 = 60;
const NAP_NS: u64 = 1_200_000_000;
const NS_PER_S: i128 = 1_000_000_000;

fn failed(what: &str, error: &ClientError) -> Failure {
    Failure::new(format!("{what}: {error:?}"))
}

fn read(
    clock: &mut WallClockClient,
    ring: &mut RuntimeRingClient<'_>,
) -> Result<WallClockTime, Failure> {
    let time = clock
        .wall_time_wait(&mut **ring, PATIENCE_NS)
        .map_err(|error| failed("wallTime", &error))?;
    that(
        time.utc_nanos < 1_000_000_000,
        "a second has more nanoseconds",
    )?;
    let provenance = time.provenance == ClockProvenance::MeasuredBootMonotonic;
    that(provenance, "the provenance")?;
    Ok(time)
}

fn utc_ns(time: &WallClockTime) -> i128 {
    i128::from(time.utc_seconds) * NS_PER_S + i128::from(time.utc_nanos)
}

fn prove(runtime: &mut Runtime) -> Proof {
    let capset = runtime.capset();
    let mut clock = capset
        .get_client::<WallClockClient>(b"clock")
        .map_err(|_| Failure::new("no wall clock"))?;
    let mut timer = capset
        .get_client::<TimerClient>(b"timer")
        .map_err(|_| Failure::new("no timer"))?;
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))?;
    let before = timer
        .now_wait(&mut *ring, PATIENCE_NS)
        .map_err(|error| failed("now", &error))?;
    let first = read(&mut clock, &mut ring)?;
    let late = first.utc_seconds - BASE_S;
    that(
        (0..START_S).contains(&late),
        &format!("{late} s after the set time"),
    )?;
    that(
        first.monotonic_ns >= before.monotonic_ns,
        "another base than the timer's",
    )?;
    timer
        .sleep_wait(&mut *ring, NAP_NS, PATIENCE_NS)
        .map_err(|error| failed("sleep", &error))?;
    let second = read(&mut clock, &mut ring)?;
    let passed = utc_ns(&second) - utc_ns(&first);
    let monotonic = second.monotonic_ns - first.monotonic_ns;
    that(monotonic >= NAP_NS, "the nap was short")?;
    that(passed == i128::from(monotonic), "the two times drift apart")
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "wall-clock", prove)
}

entry_point!(main);
