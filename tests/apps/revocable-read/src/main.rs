//! Gives two readers the boot package, lets both read, and revokes one of
//! them: its next read and, after a second revocation, its calls to this
//! process fail; the other one's and its own go on.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::{BootPackage, BootPackageClient, Endpoint, KernelCapSource};
use raw_ring::family::{self, Child};
use raw_ring::proof::{self, Failure, Proof, equal, that};
use raw_ring::{Loopback, Mailbox, PATIENCE_NS, Process, Sqe, receive, returns};

/// What a reader asks, one call per step.
const STEPS: [u8; 2] = [b'1', b'2'];

/// Takes the next call of a reader; its call id.
fn step(runtime: &Runtime, endpoint: u32, expected: u8) -> Result<u32, Failure> {
    let mut process = Process::new(runtime);
    let mut mailbox = Mailbox::new(256);
    let cqe = process.ring.perform(receive(endpoint, &mut mailbox))?;
    let delivery = mailbox.delivery(&cqe)?;
    equal("step", delivery.params, [expected].as_slice())?;
    Ok(delivery.call_id)
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

fn start(runtime: &mut Runtime, role: &str) -> Result<Child, Failure> {
    let endpoint = family::held(runtime, "endpoint")?;
    let grants = [
        family::same(runtime, "console")?,
        family::fresh("boot", KernelCapSource::BootPackage),
        family::facet(role, endpoint),
    ];
    family::spawn(runtime, "reader", &grants)
}

/// Serves the observer to its end: nothing of its own was revoked.
fn observe(runtime: &mut Runtime, endpoint: u32) -> Proof {
    let observer = start(runtime, "observer")?;
    for expected in STEPS {
        let call_id = step(runtime, endpoint, expected)?;
        proceed(runtime, endpoint, call_id)?;
    }
    observer.succeeds(runtime, "the observer")
}

fn prove(runtime: &mut Runtime) -> Proof {
    let endpoint = Loopback::new(&Process::new(runtime), "endpoint")?.endpoint;
    let reader = start(runtime, "revoked")?;
    let first = step(runtime, endpoint, STEPS[0])?;
    reader.revoke::<BootPackage>(runtime)?;
    still_readable(runtime)?;
    proceed(runtime, endpoint, first)?;
    let second = step(runtime, endpoint, STEPS[1])?;
    // The call in flight is answered all the same; the next one is refused.
    reader.revoke::<Endpoint>(runtime)?;
    proceed(runtime, endpoint, second)?;
    reader.succeeds(runtime, "the reader")?;
    still_readable(runtime)?;
    observe(runtime, endpoint)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "revocable-read", prove)
}

entry_point!(main);
