//! What a call to another program costs, in ticks of the time stamp counter,
//! from CALL in one process through RECV and RETURN in another and back.
//!
//! Where time is counted in instructions, a tick is one instruction. The line
//! is `bench endpoint-call median=N min=N max=N`, over 101 calls without
//! payload to a server that waits.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::syscall::cap_enter;
use capos::{KernelCapSource, Runtime};
use raw_ring::bench::{Samples, ticks};
use raw_ring::family;
use raw_ring::proof::{self, Failure, Proof, that};
use raw_ring::{RawRing, call};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const ECHO: u16 = 0;
const STOP: u16 = 1;
const ROUNDS: usize = 101;
const WARM_UP_ROUNDS: usize = 5;

fn round(ring: &mut RawRing, server: u32, method: u16) -> Result<u64, Failure> {
    let entry = [call(server, method)];
    let start = ticks();
    ring.submit(&entry);
    let entered = cap_enter(1, FOREVER);
    let completion = ring.take();
    let taken = ticks() - start;
    that(entered.is_ok(), "cap_enter")?;
    that(completion.is_some_and(|cqe| cqe.result == 0), "the answer")?;
    Ok(taken)
}

fn prove(runtime: &mut Runtime) -> Proof {
    let console = runtime.capset().get_client::<ConsoleClient>(b"console");
    let mut console = console.map_err(|_| Failure::new("no console"))?;
    let endpoint = family::fresh("endpoint", KernelCapSource::Endpoint);
    let server = family::spawn(runtime, "bench-echo", &[endpoint])?;
    let facet = server.endpoint(0)?.cap_id();
    let samples = {
        // SAFETY: the runtime's page; its ring client is not in use meanwhile.
        let mut ring = unsafe { RawRing::new(runtime.ring()) };
        let samples = Samples::take(WARM_UP_ROUNDS, ROUNDS, || round(&mut ring, facet, ECHO))?;
        round(&mut ring, facet, STOP)?;
        samples
    };
    server.succeeds(runtime, "the server")?;
    let line = samples.line("endpoint-call");
    let mut ring = runtime.ring_client().map_err(|_| Failure::new("ring"))?;
    console
        .write_line_wait(&mut ring, &line, FOREVER)
        .map_err(|_| Failure::new("console"))
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "bench-endpoint", prove)
}

entry_point!(main);
