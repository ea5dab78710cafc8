//! Survives the exits of others: of a server with calls waiting and in flight,
//! and of a caller whose calls, with capabilities on their way, wait here. Each
//! call completes once, and what nobody can answer is refused.
#![no_std]
#![no_main]

use capos::KernelCapSource;
use capos::capos_capnp::ExceptionType;
use capos::prelude::*;
use raw_ring::family;
use raw_ring::proof::{self, Proof, equal, that};
use raw_ring::{Mailbox, Message, Process, Sqe, call, cancel, copied, exception, receive, returns};

const CALLS: usize = 3;

/// A server exits: its callers are told.
fn server_exits(runtime: &mut Runtime) -> Proof {
    let console = family::same(runtime, "console")?;
    let own = family::fresh("server", KernelCapSource::Endpoint);
    let server = family::spawn(runtime, "leaver", &[console, own])?;
    let service = server.endpoint(0)?.cap_id();
    let mut process = Process::new(runtime);
    let copy = Message::new(b"with", &[copied(process.cap("console")?)]);
    let mut results: [Mailbox; CALLS] = core::array::from_fn(|_| Mailbox::new(256));
    let mut calls = [0; CALLS];
    for (user_data, result) in calls.iter_mut().zip(&mut results) {
        let sqe = call(service, 1).message(&copy).result(result.bytes_mut());
        *user_data = process.ring.start(sqe)?;
    }
    for (user_data, result) in calls.iter().zip(&results) {
        let cqe = process.ring.wait(*user_data)?;
        let kind = ExceptionType::Disconnected;
        exception::expect("a call to a server that exits", &cqe, result.bytes(), kind)?;
    }
    let late = call(service, 1).result(results[0].bytes_mut());
    let cqe = process.ring.perform(late)?;
    let kind = ExceptionType::Disconnected;
    exception::expect("a later call", &cqe, results[0].bytes(), kind)?;
    equal("stray completions", process.ring.unclaimed(), 0)?;
    process.print("exits-between: the console was not lost")?;
    server.succeeds(runtime, "the server")
}

/// A caller exits: one call in flight, others in the queue.
fn caller_exits(runtime: &mut Runtime) -> Proof {
    let endpoint = family::held(runtime, "endpoint")?;
    let grants = [
        family::same(runtime, "console")?,
        family::fresh("timer", KernelCapSource::Timer),
        family::facet("parent", endpoint),
    ];
    let caller = family::spawn(runtime, "leaver", &grants)?;
    let endpoint = endpoint.cap_id();
    let mut process = Process::new(runtime);
    let mut mailbox = Mailbox::new(256);
    let cqe = process.ring.perform(receive(endpoint, &mut mailbox))?;
    let delivery = mailbox.delivery(&cqe)?;
    equal("records", delivery.records.len(), 1)?;
    let call_id = delivery.call_id;
    // The capability that arrived outlives its sender.
    let arrived = delivery.records[0].cap_id;
    caller.succeeds(runtime, "the caller")?;
    let mut process = Process::new(runtime);
    let waiting = process.ring.start(receive(endpoint, &mut mailbox))?;
    equal("calls of the dead", process.ring.unclaimed(), 0)?;
    process
        .ring
        .expect("CANCEL", cancel(endpoint, waiting), 0)?;
    process.ring.wait(waiting)?;
    let answer = returns(endpoint, call_id).params(b"too late");
    let answered = process.ring.perform(answer)?.result;
    that(answered < 0, "a dead process was answered")?;
    process.print_through(arrived, "exits-between: printed through what it left")
}

fn prove(runtime: &mut Runtime) -> Proof {
    for _ in 0..3 {
        server_exits(runtime)?;
        caller_exits(runtime)?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "exits-between", prove)
}

entry_point!(main);
