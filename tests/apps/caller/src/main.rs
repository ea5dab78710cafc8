//! Calls its parent once, asking to disclose everything.
#![no_std]
#![no_main]

use capos::CapSqe;
use capos::prelude::*;
use raw_ring::proof;
use raw_ring::{Mailbox, Process, Proof, Sqe, call};

/// All fields of `ENDPOINT_SESSION_DISCLOSURE_ALLOWED_MASK`.
const ALL: u64 = 7;

fn prove(process: &mut Process) -> Proof {
    let mut result = Mailbox::new(64);
    let sqe = CapSqe {
        session_disclosure: ALL,
        ..call(process.cap("parent")?, 1).result(result.bytes_mut())
    };
    process.ring.expect("the call", sqe, 2).map(drop)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "caller", prove)
}

entry_point!(main);
