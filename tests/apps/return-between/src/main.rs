//! Serves a call while another process that shares the endpoint tries to answer
//! it. The call is this process's alone: it is answered once, from here.
#![no_std]
#![no_main]

use capos::KernelCapSource;
use capos::prelude::*;
use raw_ring::family;
use raw_ring::proof::{self, Failure, Proof, equal};
use raw_ring::{Mailbox, Process, Sqe, call, receive, returns};

/// Tells the impostor which call to answer; how many attempts succeeded.
fn attempts(process: &mut Process, impostor: u32, call_id: u32) -> Result<(), Failure> {
    let mut result = Mailbox::new(64);
    let id = call_id.to_le_bytes();
    let sqe = call(impostor, 1).params(&id).result(result.bytes_mut());
    let cqe = process.ring.perform(sqe)?;
    equal("forged answers", result.written(&cqe)?, [0].as_slice())
}

fn prove(runtime: &mut Runtime) -> Proof {
    let endpoint = family::held(runtime, "endpoint")?;
    let console = family::same(runtime, "console")?;
    let grants = [
        console,
        family::fresh("own", KernelCapSource::Endpoint),
        family::same(runtime, "endpoint")?,
    ];
    let impostor = family::spawn(runtime, "impostor", &grants)?;
    let service = impostor.endpoint(0)?.cap_id();
    let grants = [console, family::facet("parent", endpoint)];
    let caller = family::spawn(runtime, "caller", &grants)?;
    let mut process = Process::new(runtime);
    let mut mailbox = Mailbox::new(256);
    let sqe = receive(endpoint.cap_id(), &mut mailbox);
    let cqe = process.ring.perform(sqe)?;
    let call_id = mailbox.delivery(&cqe)?.call_id;
    attempts(&mut process, service, call_id)?;
    let answer = returns(endpoint.cap_id(), call_id).params(b"ok");
    process.ring.expect("RETURN", answer, 0)?;
    caller.succeeds(runtime, "the caller")?;
    let mut process = Process::new(runtime);
    attempts(&mut process, service, call_id)?;
    let stop = call(service, 2);
    process.ring.expect("stop", stop, 0)?;
    impostor.succeeds(runtime, "the impostor")
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "return-between", prove)
}

entry_point!(main);
