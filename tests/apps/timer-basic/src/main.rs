//! The clock does not run backwards, sleeping takes at least as long as asked,
//! and a bounded wait ends.
//!
//! Returns 0, or the number of the step that failed.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::{RingClient, RingClientError};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const MILLISECOND_NS: u64 = 1_000_000;
/// Far beyond any delay of a working timer.
const TOO_LONG_NS: u64 = 10_000 * MILLISECOND_NS;

fn now(timer: &mut TimerClient, ring: &mut RingClient) -> Result<u64, i64> {
    let now = timer.now_wait(ring, FOREVER).map_err(|_| 10)?;
    Ok(now.monotonic_ns)
}

/// Whether `elapsed` is a plausible outcome of waiting for `asked`.
fn plausible(elapsed: u64, asked: u64) -> bool {
    (asked..TOO_LONG_NS).contains(&elapsed)
}

fn clock_is_monotonic(timer: &mut TimerClient, ring: &mut RingClient) -> Result<(), i64> {
    let mut last = now(timer, ring)?;
    for _ in 0..50 {
        let next = now(timer, ring)?;
        if next < last {
            return Err(11);
        }
        last = next;
    }
    Ok(())
}

fn sleep_lasts(timer: &mut TimerClient, ring: &mut RingClient) -> Result<(), i64> {
    for asked in [0, 1, MILLISECOND_NS, 20 * MILLISECOND_NS] {
        let start = now(timer, ring)?;
        timer.sleep_wait(ring, asked, FOREVER).map_err(|_| 20)?;
        if !plausible(now(timer, ring)? - start, asked) {
            return Err(21);
        }
    }
    Ok(())
}

fn idle_wait_ends(timer: &mut TimerClient, ring: &mut RingClient) -> Result<(), i64> {
    let asked = 5 * MILLISECOND_NS;
    let start = now(timer, ring)?;
    if ring.cap_enter(1, asked) != Ok(0) {
        return Err(30);
    }
    if !plausible(now(timer, ring)? - start, asked) {
        return Err(31);
    }
    Ok(())
}

/// A wait shorter than the sleep it waits for gives up; the sleep goes on.
fn short_wait_gives_up(timer: &mut TimerClient, ring: &mut RingClient) -> Result<(), i64> {
    let asked = 50 * MILLISECOND_NS;
    let start = now(timer, ring)?;
    let call = timer.sleep(ring, asked).map_err(|_| 40)?;
    match ring.wait(call, 5 * MILLISECOND_NS) {
        Err(RingClientError::Timeout) => {}
        _ => return Err(41),
    }
    let completion = ring.wait(call, FOREVER).map_err(|_| 42)?;
    timer.finish_sleep(completion).map_err(|_| 43)?;
    if !plausible(now(timer, ring)? - start, asked) {
        return Err(44);
    }
    Ok(())
}

fn run(mut runtime: Runtime) -> Result<(), i64> {
    let capset = runtime.capset();
    let mut console: ConsoleClient = capset.get_client(b"console").map_err(|_| 1)?;
    let mut timer: TimerClient = capset.get_client(b"timer").map_err(|_| 2)?;
    let mut ring = runtime.ring_client().map_err(|_| 3)?;
    clock_is_monotonic(&mut timer, &mut ring)?;
    sleep_lasts(&mut timer, &mut ring)?;
    idle_wait_ends(&mut timer, &mut ring)?;
    short_wait_gives_up(&mut timer, &mut ring)?;
    console
        .write_line_wait(&mut *ring, "timer ok", FOREVER)
        .map_err(|_| 4)
}

fn main(runtime: Runtime) -> i64 {
    run(runtime).err().unwrap_or(0)
}

entry_point!(main);
