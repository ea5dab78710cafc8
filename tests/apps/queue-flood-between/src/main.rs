//! Serves two callers that call as often as they are let before the first
//! answer. Every call that was accepted arrives once, each caller's in order,
//! and neither gets less than the other.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::syscall::cap_enter;
use raw_ring::family;
use raw_ring::proof::{self, Failure, Process, Proof, equal, that};
use raw_ring::{Mailbox, Sqe, receive, returns};

const CALLERS: [u64; 2] = [1, 2];
/// Time for the callers to fill what there is.
const HEAD_START_NS: u64 = 300_000_000;
/// The endpoint is empty if nothing comes for so long.
const SILENCE_NS: u64 = 300_000_000;

/// Serves until nothing comes any more; calls by caller.
fn serve(process: &mut Process, endpoint: u32) -> Result<[u32; 2], Failure> {
    let mut served = [0; 2];
    loop {
        let mut mailbox = Mailbox::new(256);
        let waiting = process.ring.start(receive(endpoint, &mut mailbox))?;
        if process.ring.unclaimed() == 0 {
            let _ = cap_enter(1, SILENCE_NS);
        }
        let Some(cqe) = process.ring.find(waiting) else {
            let withdraw = raw_ring::cancel(endpoint, waiting);
            process.ring.expect("CANCEL", withdraw, 0)?;
            process.ring.wait(waiting)?;
            return Ok(served);
        };
        let delivery = mailbox.delivery(&cqe)?;
        let caller = CALLERS.iter().position(|&badge| badge == delivery.badge);
        let count = caller.and_then(|caller| served.get_mut(caller));
        let count = count.ok_or_else(|| Failure::new("a strange badge"))?;
        equal("the order", delivery.params, count.to_le_bytes().as_slice())?;
        *count += 1;
        let answer = returns(endpoint, delivery.call_id).params(b"ok");
        process.ring.expect("RETURN", answer, 0)?;
    }
}

fn prove(runtime: &mut Runtime) -> Proof {
    let endpoint = family::held(runtime, "endpoint")?;
    let console = family::same(runtime, "console")?;
    let mut start = |badge| {
        let service = family::labelled("endpoint", endpoint, badge);
        family::spawn(runtime, "dialler", &[console, service])
    };
    let callers = [start(CALLERS[0])?, start(CALLERS[1])?];
    let mut process = Process::new(runtime);
    let _ = cap_enter(1, HEAD_START_NS);
    let served = serve(&mut process, endpoint.cap_id())?;
    that(served[0] > 0 && served[1] > 0, "a caller got nothing")?;
    for (caller, served) in callers.iter().zip(served) {
        equal("calls", caller.wait(runtime)?, i64::from(served))?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "queue-flood-between", prove)
}

entry_point!(main);
