//! The service loop wakes up whenever a completion comes: also in the middle of
//! its look at what it waits for.
//!
//! A sleep that it watches ends at every moment of that look. Nothing else
//! happens, so that an end that is overlooked is waited for until the machine is
//! stopped.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::Endpoint;
use capos::prelude::*;
use raw_ring::proof::{self, Failure, Proof, equal};
use service::{Event, Server};

/// Receives that wait beside the sleep; each is one more look.
const RECEIVES: usize = 4;
const PARAMS_BYTES: usize = 64;
/// Durations that are tried, and how far they are apart.
const SLEEPS: u64 = 1500;
const STEP_NS: u64 = 20;

fn prove(runtime: &mut Runtime) -> Proof {
    let failed = |what: &str| Failure::new(what);
    let capset = runtime.capset();
    let endpoint = capset.get(b"endpoint").ok();
    let endpoint = endpoint.and_then(|capability| capability.typed::<Endpoint>());
    let endpoint = endpoint.ok_or_else(|| failed("no endpoint"))?;
    let mut timer: TimerClient = capset
        .get_client(b"timer")
        .map_err(|_| failed("no timer"))?;
    let mut ring = runtime.ring_client().map_err(|_| failed("no ring"))?;
    let server = Server::new(&mut ring, &[endpoint], RECEIVES, PARAMS_BYTES);
    let mut server = server.map_err(|_| failed("the endpoint cannot be served"))?;
    for index in 0..SLEEPS {
        let sleep = timer.sleep(&mut *ring, index * STEP_NS);
        let sleep = sleep.map_err(|_| failed("sleep"))?;
        // It begins now, and the look at it at once.
        ring.cap_enter(0, 0).map_err(|_| failed("cap_enter"))?;
        match server.next(&mut ring, &[sleep]) {
            Ok(Event::Completed(call, done)) => {
                equal("what ended", call, sleep)?;
                timer
                    .finish_sleep(done.0)
                    .map_err(|_| failed("the sleep"))?;
            }
            other => return Err(Failure::new(format!("{other:?}"))),
        }
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "service-wakeup", prove)
}

entry_point!(main);
