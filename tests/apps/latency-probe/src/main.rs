//! Measures, whenever it is asked through its endpoint, how long the system
//! takes to answer it and to wake it: the second program of the proofs of
//! isolation (`raw_ring::latency`).
#![no_std]
#![no_main]

use capos::prelude::*;
use raw_ring::bench::{Samples, ticks};
use raw_ring::latency::{Latency, method};
use raw_ring::proof::{self, Failure};
use raw_ring::timer::Timer;
use raw_ring::{Mailbox, Process, Proof, Sqe, receive, returns};

const ROUNDS: usize = 25;
/// Long enough for others to run in between.
const NAP_NS: u64 = 1_000_000;

/// Sleeps and asks the time, again and again.
fn measure(process: &mut Process, timer: &mut Timer) -> Result<Latency, Failure> {
    let (mut calls, mut wakes) = (
        Samples::with_capacity(ROUNDS),
        Samples::with_capacity(ROUNDS),
    );
    for _ in 0..ROUNDS {
        let due = timer.now_ns(&mut process.ring)? + NAP_NS;
        timer.sleep(&mut process.ring, NAP_NS)?;
        let start = ticks();
        let awake = timer.now_ns(&mut process.ring)?;
        calls.add(ticks() - start);
        wakes.add(awake.saturating_sub(due));
    }
    Ok(Latency::of(&calls, &wakes))
}

fn prove(process: &mut Process) -> Proof {
    let endpoint = process.cap("endpoint")?;
    let mut timer = Timer::new(process.cap("timer")?);
    let mut mailbox = Mailbox::new(256);
    loop {
        let request = receive(endpoint, &mut mailbox);
        let user_data = process.ring.fresh_user_data();
        process.ring.submit(&[request.user_data(user_data)]);
        let cqe = wait_for_ever(process, user_data)?;
        let (call_id, asked) = {
            let delivery = mailbox.delivery(&cqe)?;
            (delivery.call_id, delivery.header.method_id)
        };
        if asked == method::STOP {
            return answer(process, endpoint, call_id, &[]);
        }
        let latency = measure(process, &mut timer)?;
        answer(process, endpoint, call_id, &latency.to_bytes())?;
    }
}

/// A request may be long in coming.
fn wait_for_ever(process: &mut Process, user_data: u64) -> Result<capos::CapCqe, Failure> {
    loop {
        if let Some(cqe) = process.ring.find(user_data) {
            return Ok(cqe);
        }
        capos::syscall::cap_enter(1, capos::syscall::CAP_ENTER_WAIT_FOREVER)
            .map_err(|_| Failure::new("cap_enter"))?;
    }
}

fn answer(process: &mut Process, endpoint: u32, call_id: u32, payload: &[u8]) -> Proof {
    let entry = returns(endpoint, call_id).params(payload);
    process.ring.expect("RETURN", entry, 0).map(drop)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "latency-probe", prove)
}

entry_point!(main);
