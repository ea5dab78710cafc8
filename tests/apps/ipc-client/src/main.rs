//! Calls a server it was given: results, an exception, the end. If it has a
//! timer, the calls must not wait for the time slices of programs that do
//! something else: then a call is handed to the server, and the answer back.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::capos_capnp::ExceptionType;
use capos::prelude::*;
use raw_ring::proof::{self, Failure, equal, that};
use raw_ring::{Mailbox, Process, Proof, Sqe, call, exception, receive};

const SQUARE: u16 = 1;
const STOP: u16 = 2;
const NOW: u16 = 0;
const CALLS: u32 = 200;
/// Far less than a time slice for each call, far more than the calls take.
const LIMIT_NS: u64 = 500_000_000;

fn square(process: &mut Process, server: u32, number: u32) -> Proof {
    let mut result = Mailbox::new(64);
    let request = number.to_le_bytes();
    let sqe = call(server, SQUARE)
        .params(&request)
        .result(result.bytes_mut());
    let cqe = process.ring.perform(sqe)?;
    let expected = (u64::from(number) * u64::from(number)).to_le_bytes();
    equal("square", result.written(&cqe)?, expected.as_slice())
}

fn refused(process: &mut Process, server: u32) -> Proof {
    let mut result = Mailbox::new(256);
    let sqe = call(server, SQUARE)
        .params(b"not a number")
        .result(result.bytes_mut());
    let cqe = process.ring.perform(sqe)?;
    let kind = ExceptionType::InvalidArgument;
    exception::expect("an odd request", &cqe, result.bytes(), kind)
}

fn now_ns(process: &mut Process, timer: u32) -> Result<u64, Failure> {
    let params = proof::no_params();
    let mut result = [0; 64];
    let sqe = call(timer, NOW).params(&params).result(&mut result);
    process.ring.expect("Timer.now", sqe, 32)?;
    let mut word = [0; 8];
    word.copy_from_slice(&result[16..24]);
    Ok(u64::from_le_bytes(word))
}

fn prove(process: &mut Process) -> Proof {
    let server = process.cap("server")?;
    let timer = process.cap("timer").ok();
    let start = timer.map(|timer| now_ns(process, timer)).transpose()?;
    for number in 0..CALLS {
        square(process, server, number.wrapping_mul(0x0101_0101))?;
    }
    if let (Some(timer), Some(start)) = (timer, start) {
        let elapsed = now_ns(process, timer)? - start;
        let line = format!("ipc-client: {CALLS} calls in {} us", elapsed / 1000);
        process.print(&line)?;
        that(elapsed < LIMIT_NS, "the calls waited for other programs")?;
    }
    refused(process, server)?;
    // The calling side is all it has.
    let mut mailbox = Mailbox::new(128);
    process
        .ring
        .expect("RECV", receive(server, &mut mailbox), -4)?;
    let forged = raw_ring::returns(server, 1);
    process.ring.expect("RETURN", forged, -4)?;
    process.ring.expect("STOP", call(server, STOP), 0).map(drop)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "ipc-client", prove)
}

entry_point!(main);
