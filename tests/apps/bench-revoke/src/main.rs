//! What revoking an object costs, by how often it is held, in ticks of the time
//! stamp counter.
//!
//! Where time is counted in instructions, a tick is one instruction. The lines
//! are `bench revoke holds=N`: CALL of `CapabilityManager.revoke` to its
//! completion, over 21 rounds, for a memory object that this program and the one
//! it manages hold *N* times together. After each round every hold is tried, and
//! none may work.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::capos_capnp::capability_manager;
use capos::prelude::*;
use capos::syscall::cap_enter;
use capos::{CapSqe, KernelCapSource};
use raw_ring::bench::{Samples, ticks};
use raw_ring::family::{self, Child};
use raw_ring::holds::{Holds, method};
use raw_ring::objects::{Frames, granted};
use raw_ring::proof::{self, Failure, Process, Proof, equal, that};
use raw_ring::{Loopback, Mailbox, Message, Sqe, call, copied, moved};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const REVOKE: u16 = 1;
const HOLDS: [usize; 3] = [1, 50, 500];
/// As many as fit the table of the managed program beside its grants; the rest
/// are this one's.
const MANAGED_MAX: usize = 252;
const ROUNDS: usize = 21;
const WARM_UP_ROUNDS: usize = 2;

/// What this program uses.
struct Parts {
    frames: Frames,
    own: Loopback,
    holder: u32,
    manager: u32,
}

fn ask(process: &mut Process, holder: u32, method: u16, message: &Message) -> Result<u64, Failure> {
    let mut answer = Mailbox::new(64);
    let entry = call(holder, method)
        .message(message)
        .result(answer.bytes_mut());
    let cqe = process.ring.perform(entry)?;
    let word = answer.written(&cqe)?.try_into().map(u64::from_le_bytes);
    word.map_err(|_| Failure::new("no word"))
}

/// CALL of `revoke` to its completion.
fn revoke(process: &mut Process, manager: u32, cap_id: u32) -> Result<u64, Failure> {
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<capability_manager::revoke_params::Builder<'_>>()
        .set_cap_id(cap_id);
    let params = capnp::serialize::write_message_to_words(&message);
    let mut answer = Mailbox::new(64);
    let entry: [CapSqe; 1] = [call(manager, REVOKE)
        .params(&params)
        .result(answer.bytes_mut())];
    let start = ticks();
    process.ring.submit(&entry);
    let entered = cap_enter(1, FOREVER);
    let completion = process.ring.take();
    let taken = ticks() - start;
    that(entered.is_ok(), "cap_enter")?;
    that(completion.is_some_and(|cqe| cqe.result >= 0), "revoke")?;
    Ok(taken)
}

/// Holds an object that often, revokes it, and finds that nothing of it works.
fn round(process: &mut Process, parts: &Parts, holds: usize) -> Result<u64, Failure> {
    let object = granted("a frame", parts.frames.one(&mut process.ring))?.0;
    let mine = holds.saturating_sub(MANAGED_MAX);
    let sent = match mine {
        0 => moved(object),
        _ => copied(object),
    };
    let count = ((holds - mine) as u64).to_le_bytes();
    let message = Message::new(&count, &[sent]);
    let theirs = ask(process, parts.holder, method::HOLD, &message)?;
    let held = match mine {
        0 => None,
        _ => Some(Holds::multiply(process, parts.own, object, mine)?),
    };
    let taken = revoke(process, parts.manager, theirs as u32)?;
    let nothing = Message::new(&[], &[]);
    let usable = ask(process, parts.holder, method::LET_GO, &nothing)?;
    equal("usable in the managed program", usable, 0)?;
    if let Some(held) = held {
        equal("usable in this one", held.let_go(&mut process.ring)?, 0)?;
    }
    Ok(taken)
}

fn measure(process: &mut Process, child: &Child) -> Proof {
    let [_, manager] = child.result_ids();
    let parts = Parts {
        frames: Frames(process.cap("frames")?),
        own: Loopback::new(process, "endpoint")?,
        holder: child.endpoint(0)?.cap_id(),
        manager,
    };
    for holds in HOLDS {
        let samples = Samples::take(WARM_UP_ROUNDS, ROUNDS, || round(process, &parts, holds))?;
        process.print(&samples.line(&format!("revoke holds={holds}")))?;
    }
    let nothing = Message::new(&[], &[]);
    ask(process, parts.holder, method::STOP, &nothing).map(drop)
}

fn prove(runtime: &mut Runtime) -> Proof {
    let grants = [
        family::same(runtime, "console")?,
        family::fresh("endpoint", KernelCapSource::Endpoint),
    ];
    let child = family::spawn(runtime, "bench-holder", &grants)?;
    measure(&mut Process::new(runtime), &child)?;
    child.succeeds(runtime, "the holder")
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "bench-revoke", prove)
}

entry_point!(main);
