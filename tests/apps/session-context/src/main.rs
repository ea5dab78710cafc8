//! What an endpoint learns of its caller: a reference that is opaque, live,
//! always the same at one endpoint and another one at the next; and of the
//! session's fields those that the call requests and the capability allows.
#![no_std]
#![no_main]

use capos::CapSqe;
use capos::prelude::*;
use capos_abi::EndpointCallerSession;
use raw_ring::proof::{self, Failure, equal, that};
use raw_ring::{Loopback, Mailbox, Message, Process, Proof};

/// `ENDPOINT_CALLER_SESSION_LIVE` of the ABI.
const LIVE: u32 = 1;
/// `ENDPOINT_SESSION_DISCLOSE_*` of the ABI.
const KIND: u64 = 1;
const STRENGTH: u64 = 2;
const CLASS: u64 = 4;
const ALL: u64 = KIND | STRENGTH | CLASS;
/// Params that look like a session: nobody reads them as one.
const SPOOF: [u8; 40] = [0xff; 40];

/// Calls with a request for `disclosure`; what the endpoint was told.
fn described(
    process: &mut Process,
    own: Loopback,
    disclosure: u64,
) -> Result<EndpointCallerSession, Failure> {
    let mut result = Mailbox::new(64);
    let message = Message::new(&SPOOF, &[]);
    let call = CapSqe {
        session_disclosure: disclosure,
        ..own.call(&message, &mut result)
    };
    let queued = process.ring.start(call)?;
    let open = own.receive(process, queued)?;
    let delivery = open.mailbox.delivery(&open.cqe)?;
    equal("params", delivery.params, SPOOF.as_slice())?;
    let session = delivery.header.caller_session;
    own.answer(process, &open, &Message::new(&[], &[]))?;
    Ok(session)
}

type Reference = (u64, u64, u64);

fn reference(session: &EndpointCallerSession) -> Reference {
    (session.scoped_ref, session.scoped_ref_hi, session.epoch)
}

/// Checks the part that every call carries.
fn check_reference(process: &mut Process, own: Loopback) -> Result<Reference, Failure> {
    let first = described(process, own, 0)?;
    equal("flags", first.flags, LIVE)?;
    let (low, high, epoch) = reference(&first);
    that(low != 0 && high != 0 && epoch != 0, "a word is zero")?;
    for word in [low, high, epoch] {
        that(word != process.pid(), "the process number is visible")?;
        that(word >> 32 != 0, "a word is small: not opaque")?;
    }
    let again = described(process, own, ALL)?;
    equal("the second time", reference(&again), reference(&first))?;
    Ok(reference(&first))
}

/// Checks what is told for each request, where `allowed` may be.
fn check_disclosure(process: &mut Process, own: Loopback, allowed: u64) -> Proof {
    for request in 0..=ALL {
        let session = described(process, own, request)?;
        let told = request & allowed;
        equal("disclosed", u64::from(session.disclosed_fields), told)?;
        let fields = [
            (KIND, session.principal_kind),
            (STRENGTH, session.auth_strength),
            (CLASS, session.profile_class),
        ];
        for (field, value) in fields {
            that(told & field != 0 || value == 0, "a field leaks")?;
        }
        // Services run as `service` with profile `system`, unauthenticated.
        that(told & KIND == 0 || session.principal_kind != 0, "no kind")?;
        that(told & CLASS == 0 || session.profile_class != 0, "no class")?;
    }
    Ok(())
}

fn prove(process: &mut Process) -> Proof {
    let closed = Loopback::new(process, "closed")?;
    let other = Loopback::new(process, "other")?;
    let first = check_reference(process, closed)?;
    let second = check_reference(process, other)?;
    that(first.0 != second.0, "two scopes, one reference")?;
    that(first.1 != second.1, "two scopes, one upper half")?;
    that(first.2 != second.2, "two scopes, one epoch")?;
    check_disclosure(process, closed, 0)?;
    if let Ok(narrow) = Loopback::new(process, "narrow") {
        check_disclosure(process, narrow, CLASS)?;
    }
    if let Ok(open) = Loopback::new(process, "open") {
        check_disclosure(process, open, ALL)?;
    }
    let message = Message::new(&[], &[]);
    let mut result = Mailbox::new(64);
    let unknown = CapSqe {
        session_disclosure: ALL + 1,
        ..closed.call(&message, &mut result)
    };
    process
        .ring
        .expect("an unknown field", unknown, -1)
        .map(drop)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "session-context", prove)
}

entry_point!(main);
