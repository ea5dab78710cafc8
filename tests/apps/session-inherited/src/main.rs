//! A child runs in its parent's session: an endpoint sees the same reference
//! for both, through whatever capability they call, and another endpoint sees
//! another one for both.
#![no_std]
#![no_main]

use capos::prelude::*;
use raw_ring::family;
use raw_ring::proof::{self, Failure, Proof, equal, that};
use raw_ring::{Loopback, Mailbox, Message, Process, Sqe, receive, returns};

type Reference = (u64, u64, u64, u32);

/// Takes one call at `endpoint` and answers it; who called, and the badge.
fn seen(process: &mut Process, endpoint: u32) -> Result<(Reference, u64), Failure> {
    let mut mailbox = Mailbox::new(256);
    let cqe = process.ring.perform(receive(endpoint, &mut mailbox))?;
    let delivery = mailbox.delivery(&cqe)?;
    let session = delivery.header.caller_session;
    equal("disclosed", session.disclosed_fields, 0)?;
    let (low, high) = (session.scoped_ref, session.scoped_ref_hi);
    let reference = (low, high, session.epoch, session.flags);
    let answer = returns(endpoint, delivery.call_id).params(b"ok");
    process.ring.expect("RETURN", answer, 0)?;
    Ok((reference, delivery.badge))
}

/// What `endpoint` sees when its owner calls it.
fn own_reference(process: &mut Process, own: Loopback) -> Result<Reference, Failure> {
    let message = Message::new(&[], &[]);
    let mut result = Mailbox::new(64);
    let call = process.ring.start(own.call(&message, &mut result))?;
    let (reference, badge) = seen(process, own.endpoint)?;
    equal("badge of the owner", badge, 0)?;
    equal("answer", process.ring.wait(call)?.result, 2)?;
    Ok(reference)
}

fn prove(runtime: &mut Runtime) -> Proof {
    let endpoints = ["first", "second"];
    let mut expected = [(0, 0, 0, 0); 2];
    for (name, reference) in endpoints.iter().zip(&mut expected) {
        let mut process = Process::new(runtime);
        let own = Loopback::new(&process, name)?;
        *reference = own_reference(&mut process, own)?;
    }
    that(expected[0] != expected[1], "two scopes, one reference")?;
    for badge in [1, 77] {
        for (name, reference) in endpoints.iter().zip(expected) {
            let endpoint = family::held(runtime, name)?;
            let grants = [
                family::same(runtime, "console")?,
                family::labelled("parent", endpoint, badge),
            ];
            let child = family::spawn(runtime, "caller", &grants)?;
            let actual = seen(&mut Process::new(runtime), endpoint.cap_id())?;
            equal("reference and badge", actual, (reference, badge))?;
            child.succeeds(runtime, "the caller")?;
        }
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "session-inherited", prove)
}

entry_point!(main);
