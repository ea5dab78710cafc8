//! Names every capability it does not have: each generation of each slot that
//! could be in use, and numbers beyond. None is anything, to any operation.
#![no_std]
#![no_main]

use capos::CapSqe;
use capos::prelude::*;
use capos_config::ring::{
    CAP_ERR_INVALID_REQUEST, CAP_ERR_INVALID_TRANSFER_DESCRIPTOR, CAP_ERR_INVOKE_FAILED, SQ_ENTRIES,
};
use raw_ring::proof::{self, Failure, equal, line_params};
use raw_ring::{
    Loopback, Mailbox, Message, Process, Proof, Sqe, call, cancel, copied, moved, receive, release,
    returns,
};

const GENERATIONS: u32 = 256;
/// A process has 256 slots; some more must not be there either.
const SLOTS: u32 = 260;
const BEYOND: [u32; 5] = [0x0000_1000, 0x007f_ffff, 0x00ff_ffff, 0xff00_0fff, u32::MAX];
const WRITE_LINE: u16 = 1;

fn forged(genuine: [u32; 3]) -> impl Iterator<Item = u32> {
    (0..GENERATIONS)
        .flat_map(|generation| (0..SLOTS).map(move |slot| generation << 24 | slot))
        .chain(BEYOND)
        .filter(move |id| !genuine.contains(id))
}

/// Submits entries in batches; all are to be refused with `code`.
fn refuse_all(
    process: &mut Process,
    what: &str,
    code: i32,
    entries: impl Iterator<Item = CapSqe>,
) -> Result<u32, Failure> {
    let mut entries = entries.peekable();
    let mut count = 0;
    while entries.peek().is_some() {
        let mut batch = [raw_ring::nop(); SQ_ENTRIES as usize];
        let mut len = 0;
        for (place, entry) in batch.iter_mut().zip(entries.by_ref()) {
            *place = entry.user_data(u64::from(entry.cap_id));
            len += 1;
        }
        process.ring.flush(&batch[..len])?;
        for entry in &batch[..len] {
            let cqe = process.ring.take().map(|cqe| (cqe.user_data, cqe.result));
            equal(what, cqe, Some((entry.user_data, code)))?;
        }
        count += len as u32;
    }
    Ok(count)
}

fn descriptors(process: &mut Process, own: Loopback) -> Proof {
    for id in BEYOND.into_iter().chain([0x0100_0000, 0x8000_0001, 200]) {
        for descriptor in [copied(id), moved(id)] {
            let message = Message::new(&[], &[descriptor]);
            let mut result = Mailbox::new(64);
            let sqe = own.call(&message, &mut result);
            let invalid = CAP_ERR_INVALID_TRANSFER_DESCRIPTOR;
            process.ring.expect("a forged descriptor", sqe, invalid)?;
        }
    }
    Ok(())
}

fn prove(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let genuine = [own.endpoint, process.cap("console")?, process.cap("timer")?];
    let text = line_params("forged");
    let failed = CAP_ERR_INVOKE_FAILED;
    let calls = forged(genuine).map(|id| call(id, WRITE_LINE).params(&text));
    let count = refuse_all(process, "CALL", failed, calls)?;
    let releases = forged(genuine).map(release);
    refuse_all(process, "RELEASE", CAP_ERR_INVALID_REQUEST, releases)?;
    let few = || forged(genuine).step_by(61);
    let mut mailbox = Mailbox::new(128);
    let template = receive(0, &mut mailbox);
    let receives = few().map(|cap_id| CapSqe { cap_id, ..template });
    refuse_all(process, "RECV", failed, receives)?;
    refuse_all(process, "RETURN", failed, few().map(|id| returns(id, 1)))?;
    refuse_all(process, "CANCEL", failed, few().map(|id| cancel(id, 1)))?;
    // Capabilities of another kind are no endpoints.
    for id in [genuine[1], genuine[2]] {
        let sqe = CapSqe {
            cap_id: id,
            ..template
        };
        process.ring.expect("RECV", sqe, failed)?;
        process.ring.expect("RETURN", returns(id, 1), failed)?;
        process.ring.expect("CANCEL", cancel(id, 1), failed)?;
    }
    descriptors(process, own)?;
    equal("numbers tried", count, GENERATIONS * SLOTS - 3 + 5)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "forged-caps", prove)
}

entry_point!(main);
