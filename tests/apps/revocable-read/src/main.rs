//! Gives two readers the boot package, lets both read, and revokes one of
//! them: its next read and, after a second revocation, its calls to this
//! process fail; those of the other one, which lives through both, and this
//! program's own go on.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::{BootPackage, BootPackageClient, Endpoint, KernelCapSource};
use raw_ring::family::{self, Child};
use raw_ring::proof::{self, Failure, Proof, equal, that};
use raw_ring::{Loopback, Mailbox, PATIENCE_NS, Process, Sqe, receive, returns};

/// Who calls.
const REVOKED: u64 = 1;
const OBSERVER: u64 = 2;

/// Takes the next call; its call id and the badge of who called.
fn next(runtime: &Runtime, endpoint: u32, expected: u8) -> Result<(u32, u64), Failure> {
    let mut process = Process::new(runtime);
    let mut mailbox = Mailbox::new(256);
    let cqe = process.ring.perform(receive(endpoint, &mut mailbox))?;
    let delivery = mailbox.delivery(&cqe)?;
    equal("step", delivery.params, [expected].as_slice())?;
    Ok((delivery.call_id, delivery.badge))
}

/// Takes the calls of both readers, in whichever order they come; the call ids
/// of the one that is revoked and of the observer.
fn both(runtime: &Runtime, endpoint: u32, expected: u8) -> Result<[u32; 2], Failure> {
    let mut calls = [
        next(runtime, endpoint, expected)?,
        next(runtime, endpoint, expected)?,
    ];
    calls.sort_unstable_by_key(|&(_, badge)| badge);
    equal(
        "callers",
        calls.map(|(_, badge)| badge),
        [REVOKED, OBSERVER],
    )?;
    Ok(calls.map(|(call_id, _)| call_id))
}

fn proceed(runtime: &Runtime, endpoint: u32, call_id: u32) -> Proof {
    let answer = returns(endpoint, call_id).params(b"go");
    let mut process = Process::new(runtime);
    process.ring.expect("RETURN", answer, 0).map(drop)
}

fn still_readable(runtime: &mut Runtime) -> Proof {
    let package = runtime.capset().get_client::<BootPackageClient>(b"boot");
    let mut package = package.map_err(|_| Failure::new("no capability `boot`"))?;
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))?;
    let size = package.manifest_size_wait(&mut ring, PATIENCE_NS);
    let size = size.map_err(|_| Failure::new("its own boot package is gone"))?;
    that(size > 0, "an empty manifest")
}

fn start(runtime: &mut Runtime, role: &str, badge: u64) -> Result<Child, Failure> {
    let endpoint = family::held(runtime, "endpoint")?;
    let grants = [
        family::same(runtime, "console")?,
        family::fresh("boot", KernelCapSource::BootPackage),
        family::labelled(role, endpoint, badge),
    ];
    family::spawn(runtime, "reader", &grants)
}

fn prove(runtime: &mut Runtime) -> Proof {
    let endpoint = Loopback::new(&Process::new(runtime), "endpoint")?.endpoint;
    let reader = start(runtime, "revoked", REVOKED)?;
    let observer = start(runtime, "observer", OBSERVER)?;
    let [revoked, observing] = both(runtime, endpoint, b'1')?;
    reader.revoke::<BootPackage>(runtime)?;
    still_readable(runtime)?;
    proceed(runtime, endpoint, revoked)?;
    proceed(runtime, endpoint, observing)?;
    let [revoked, observing] = both(runtime, endpoint, b'2')?;
    // The call in flight is answered all the same; the next one is refused.
    reader.revoke::<Endpoint>(runtime)?;
    proceed(runtime, endpoint, revoked)?;
    reader.succeeds(runtime, "the reader")?;
    proceed(runtime, endpoint, observing)?;
    let (observing, badge) = next(runtime, endpoint, b'3')?;
    equal("who still calls", badge, OBSERVER)?;
    proceed(runtime, endpoint, observing)?;
    observer.succeeds(runtime, "the observer")?;
    still_readable(runtime)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "revocable-read", prove)
}

entry_point!(main);
