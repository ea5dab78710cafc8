//! Started into a session by `session-launched`. What it holds says what it does:
//!
//! - `parent`: calls it, with the number of that capability as params;
//! - `parent` and `late`, a timer: does so when its session is over, and must be
//!   refused;
//! - `mint` and names that end in the number of a call and of a capability: asks
//!   for a capability of a caller it does not serve, and must be refused.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::prelude::*;
use capos::{CapSqe, Endpoint, ExceptionType, capos_capnp};
use capos_config::ring::CAP_ERR_APPLICATION_EXCEPTION;
use raw_ring::proof::{self, Failure, Proof, equal};
use raw_ring::{Mailbox, PATIENCE_NS, Process, Sqe, call, exception};
use sel4_capos_client::SessionMintClient;

/// All fields of `ENDPOINT_SESSION_DISCLOSURE_ALLOWED_MASK`.
const ALL: u64 = 7;
/// Longer than the session of a late caller lasts.
const LATE_NS: u64 = 1_500_000_000;

/// What came of a call to the parent.
fn ask(process: &mut Process) -> Result<(i32, Mailbox), Failure> {
    let parent = process.cap("parent")?;
    let params = parent.to_le_bytes();
    let mut result = Mailbox::new(256);
    let sqe = CapSqe {
        session_disclosure: ALL,
        ..call(parent, 1).params(&params).result(result.bytes_mut())
    };
    let cqe = process.ring.perform(sqe)?;
    Ok((cqe.result, result))
}

fn sleep(runtime: &mut Runtime, mut late: TimerClient) -> Proof {
    let failed = |error| Failure::new(format!("sleep: {error:?}"));
    let mut ring = runtime.ring_client().map_err(|_| Failure::new("no ring"))?;
    late.sleep_wait(&mut ring, LATE_NS, PATIENCE_NS)
        .map_err(failed)
}

fn call_late(runtime: &mut Runtime, late: TimerClient) -> Proof {
    sleep(runtime, late)?;
    let (outcome, result) = ask(&mut Process::new(runtime))?;
    equal("late", outcome, CAP_ERR_APPLICATION_EXCEPTION)?;
    let (kind, _) = exception::parse(result.bytes())?;
    equal("late", kind, capos_capnp::ExceptionType::Disconnected)
}

fn ask_for_what_is_not_ours(runtime: &mut Runtime, mut mint: SessionMintClient) -> Proof {
    let process = Process::new(runtime);
    let told = |name| process.told(name).ok_or_else(|| Failure::new("not told"));
    let (call_id, cap_id) = (told("call")? as u32, told("cap")? as u32);
    let mut ring = runtime.ring_client().map_err(|_| Failure::new("no ring"))?;
    let had = mint.caller_capability_wait::<Endpoint>(&mut ring, call_id, cap_id, PATIENCE_NS);
    match had {
        Err(ClientError::Application(exception)) => equal(
            "another's caller",
            exception.exception_type(),
            ExceptionType::InvalidArgument,
        ),
        other => Err(Failure::new(format!("another's caller: {other:?}"))),
    }
}

fn prove(runtime: &mut Runtime) -> Proof {
    let capset = runtime.capset();
    if let Ok(mint) = capset.get_client(b"mint") {
        return ask_for_what_is_not_ours(runtime, mint);
    }
    if let Ok(late) = capset.get_client(b"late") {
        return call_late(runtime, late);
    }
    let (outcome, _) = ask(&mut Process::new(runtime))?;
    equal("the call", outcome, 2)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "visitor", prove)
}

entry_point!(main);
