//! Holds what its parent sends, as often as it is told. Methods are listed in
//! [`raw_ring::holds::method`].
#![no_std]
#![no_main]

use capos::prelude::*;
use raw_ring::holds::{Holds, method};
use raw_ring::proof::{self, Failure, Process, Proof};
use raw_ring::{Loopback, Mailbox, Sqe, receive, returns};

fn hold(
    process: &mut Process,
    own: Loopback,
    params: &[u8],
    object: u32,
) -> Result<Holds, Failure> {
    let count = params.try_into().map(u64::from_le_bytes);
    let count = count.map_err(|_| Failure::new("no number"))?;
    Holds::multiply(process, own, object, count as usize)
}

fn serve(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let mut held: Option<Holds> = None;
    loop {
        let mut mailbox = Mailbox::new(256);
        let cqe = process.ring.perform(receive(own.endpoint, &mut mailbox))?;
        let call = mailbox.delivery(&cqe)?;
        let answer = match (call.header.method_id, call.records.first()) {
            (method::HOLD, Some(record)) => {
                held = Some(hold(process, own, call.params, record.cap_id)?);
                u64::from(record.cap_id)
            }
            (method::LET_GO, None) => {
                let held = held.take().ok_or_else(|| Failure::new("nothing is held"))?;
                held.let_go(&mut process.ring)? as u64
            }
            (method::STOP, None) => 0,
            _ => return Err(Failure::new("no such method")),
        };
        let bytes = answer.to_le_bytes();
        let entry = returns(own.endpoint, call.call_id).params(&bytes);
        process.ring.expect("RETURN", entry, 0)?;
        if call.header.method_id == method::STOP {
            return Ok(());
        }
    }
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "bench-holder", serve)
}

entry_point!(main);
