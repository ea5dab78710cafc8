//! A child that asks to disclose everything discloses what the capability it
//! was given allows: nothing, one field or all.
#![no_std]
#![no_main]

use capos::prelude::*;
use raw_ring::family;
use raw_ring::proof::{self, Proof, equal, that};
use raw_ring::{Mailbox, Process, Sqe, receive, returns};

/// Endpoints and the `ENDPOINT_SESSION_DISCLOSE_*` bits of their grants.
const ENDPOINTS: [(&str, u32); 3] = [("closed", 0), ("narrow", 4), ("open", 7)];

fn prove(runtime: &mut Runtime) -> Proof {
    for (name, allowed) in ENDPOINTS {
        let endpoint = family::held(runtime, name)?;
        let grants = [
            family::same(runtime, "console")?,
            family::labelled("parent", endpoint, 1),
        ];
        let child = family::spawn(runtime, "caller", &grants)?;
        let mut process = Process::new(runtime);
        let mut mailbox = Mailbox::new(256);
        let sqe = receive(endpoint.cap_id(), &mut mailbox);
        let cqe = process.ring.perform(sqe)?;
        let delivery = mailbox.delivery(&cqe)?;
        let session = delivery.header.caller_session;
        equal(name, session.disclosed_fields, allowed)?;
        let told = session.profile_class != 0;
        that(told == (allowed & 4 != 0), "the profile class")?;
        let answer = returns(endpoint.cap_id(), delivery.call_id).params(b"ok");
        process.ring.expect("RETURN", answer, 0)?;
        child.succeeds(runtime, "the caller")?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "disclosure-between", prove)
}

entry_point!(main);
