//! Delays at the ends of their range: none at all, one nanosecond, and more
//! centuries than any counter can hold, alone and while shorter ones pass.
//!
//! Returns 0, or the number of the step that failed.
#![no_std]
#![no_main]

use capos::RingClient;
use capos::prelude::*;

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const MILLISECOND_NS: u64 = 1_000_000;
/// Far beyond any delay of a working timer.
const TOO_LONG_NS: u64 = 10_000 * MILLISECOND_NS;
/// Delays that end after this program: a century, what overflows when ticks
/// are scaled, and the largest that is not "for ever".
const ENDLESS_NS: [u64; 4] = [
    100 * 365 * 86_400 * 1_000 * MILLISECOND_NS,
    u64::MAX / 4,
    u64::MAX / 2 + 1,
    u64::MAX - 1,
];

fn now(timer: &mut TimerClient, ring: &mut RingClient) -> Result<u64, i64> {
    let now = timer.now_wait(ring, FOREVER).map_err(|_| 10)?;
    Ok(now.monotonic_ns)
}

fn takes(
    timer: &mut TimerClient,
    ring: &mut RingClient,
    asked: u64,
    action: impl FnOnce(&mut TimerClient, &mut RingClient) -> Result<(), i64>,
) -> Result<(), i64> {
    let start = now(timer, ring)?;
    action(timer, ring)?;
    match (asked..TOO_LONG_NS).contains(&(now(timer, ring)? - start)) {
        true => Ok(()),
        false => Err(11),
    }
}

/// Waits of no length and of the shortest return; a wait that is almost for
/// ever ends with the first completion.
fn waits(timer: &mut TimerClient, ring: &mut RingClient) -> Result<(), i64> {
    for asked in [0, 1, 100] {
        takes(timer, ring, asked, |_, ring| {
            let count = ring.cap_enter(1, asked);
            if count == Ok(0) { Ok(()) } else { Err(20) }
        })?;
    }
    for endless in ENDLESS_NS {
        takes(timer, ring, MILLISECOND_NS, |timer, ring| {
            timer
                .sleep_wait(ring, MILLISECOND_NS, endless)
                .map_err(|_| 21)
        })?;
    }
    Ok(())
}

/// A sleep that never ends delays nobody else.
fn sleeps(timer: &mut TimerClient, ring: &mut RingClient) -> Result<(), i64> {
    for endless in ENDLESS_NS {
        timer.sleep(ring, endless).map_err(|_| 30)?;
        if ring.cap_enter(1, MILLISECOND_NS) != Ok(0) {
            return Err(31);
        }
        takes(timer, ring, 2 * MILLISECOND_NS, |timer, ring| {
            timer
                .sleep_wait(ring, 2 * MILLISECOND_NS, FOREVER)
                .map_err(|_| 32)
        })?;
    }
    Ok(())
}

fn run(mut runtime: Runtime) -> Result<(), i64> {
    let capset = runtime.capset();
    let mut console: ConsoleClient = capset.get_client(b"console").map_err(|_| 1)?;
    let mut timer: TimerClient = capset.get_client(b"timer").map_err(|_| 2)?;
    let mut ring = runtime.ring_client().map_err(|_| 3)?;
    waits(&mut timer, &mut ring)?;
    sleeps(&mut timer, &mut ring)?;
    console
        .write_line_wait(&mut ring, "timer ok", FOREVER)
        .map_err(|_| 4)
}

fn main(runtime: Runtime) -> i64 {
    run(runtime).err().unwrap_or(0)
}

entry_point!(main);
