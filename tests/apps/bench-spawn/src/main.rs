//! What starting and ending another program costs, in ticks of the time stamp
//! counter.
//!
//! Where time is counted in instructions, a tick is one instruction. The child
//! is a program that does nothing, with the 3 MiB heap every program of the SDK
//! has; it notes the counter itself (`bench-child`). The lines are, over
//! [`ROUNDS`] children started one after the other:
//!
//! - `bench spawn-call`: from CALL of `spawn` to its completion here;
//! - `bench spawn-to-first-instruction`: from the same CALL to the child's
//!   first instruction, our call of `wait` in between included;
//! - `bench start-to-main`: the runtime of the child up to its `main`;
//! - `bench exit-to-parent`: from the end of its `main` to the completion of
//!   `wait` here.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use capos::prelude::*;
use capos::syscall::cap_enter;
use capos::{CapCqe, CapSqe, CapabilityType, ProcessHandle, capos_capnp};
use raw_ring::bench::{Samples, ticks};
use raw_ring::proof::{self, Failure, equal, that};
use raw_ring::{Mailbox, Process, Proof, RawRing, Sqe, call, release};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const CHILD: &str = "bench-child";
const SPAWN: u16 = 0;
const WAIT: u16 = 0;
const ROUNDS: usize = 31;
const WARM_UP_ROUNDS: usize = 5;
const FIRST_BITS: u32 = 40;
const RESULT_BYTES: usize = 1024;

fn spawn_params() -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    let mut params = message.init_root::<capos_capnp::process_spawner::spawn_params::Builder<'_>>();
    params.set_name(CHILD);
    params.set_binary_name(CHILD);
    params.init_grants(0);
    capnp::serialize::write_message_to_words(&message)
}

/// The exit code in `wait`'s answer.
fn exit_code(mut bytes: &[u8]) -> Result<i64, Failure> {
    let bad = |_| Failure::new("the answer of wait");
    let options = capos::default_reader_options();
    let message = capnp::serialize::read_message_from_flat_slice_no_alloc(&mut bytes, options)
        .map_err(bad)?;
    message
        .get_root::<capos_capnp::process_handle::wait_results::Reader<'_>>()
        .map(|results| results.get_exit_code())
        .map_err(bad)
}

/// Enters the system with one entry and waits for its completion, without a
/// step more than that takes.
fn enter(ring: &mut RawRing, entry: CapSqe) -> Result<CapCqe, Failure> {
    ring.submit(&[entry]);
    let entered = cap_enter(1, FOREVER);
    let completion = ring.take();
    that(entered.is_ok(), "cap_enter")?;
    completion.ok_or_else(|| Failure::new("no completion"))
}

/// What one child took.
struct Round {
    call: u64,
    to_first: u64,
    to_main: u64,
    from_exit: u64,
}

struct Bench {
    spawner: u32,
    params: Vec<u8>,
    spawned: Mailbox,
    ended: Mailbox,
}

impl Bench {
    fn round(&mut self, ring: &mut RawRing) -> Result<Round, Failure> {
        let spawn = call(self.spawner, SPAWN)
            .params(&self.params)
            .result(self.spawned.bytes_mut());
        let start = ticks();
        let spawned = enter(ring, spawn)?;
        let returned = ticks();
        let records = self.spawned.records(&spawned)?;
        let handle = records
            .iter()
            .find(|record| record.interface_id == ProcessHandle::INTERFACE_ID)
            .ok_or_else(|| Failure::new("no handle"))?;
        let wait = call(handle.cap_id, WAIT).result(self.ended.bytes_mut());
        let ended = enter(ring, wait)?;
        let end = ticks();
        let code = exit_code(self.ended.written(&ended)?)? as u64;
        for record in &records {
            let cqe = enter(ring, release(record.cap_id))?;
            equal("RELEASE", cqe.result, 0)?;
        }
        let first = code & ((1 << FIRST_BITS) - 1);
        let to_main = code >> FIRST_BITS;
        that(first > start && to_main > 0, "the child's times")?;
        Ok(Round {
            call: returned - start,
            to_first: first - start,
            to_main,
            from_exit: end - (first + to_main),
        })
    }
}

fn prove(process: &mut Process) -> Proof {
    let mut bench = Bench {
        spawner: process.cap("spawner")?,
        params: spawn_params(),
        spawned: Mailbox::new(RESULT_BYTES),
        ended: Mailbox::new(RESULT_BYTES),
    };
    let mut samples: [Samples; 4] = core::array::from_fn(|_| Samples::with_capacity(ROUNDS));
    for index in 0..WARM_UP_ROUNDS + ROUNDS {
        let round = bench.round(&mut process.ring)?;
        let values = [round.call, round.to_first, round.to_main, round.from_exit];
        if index == 0 {
            process.print(&alloc::format!(
                "bench first-spawn-to-first-instruction at={}",
                round.to_first
            ))?;
        }
        if index >= WARM_UP_ROUNDS {
            for (samples, value) in samples.iter_mut().zip(values) {
                samples.add(value);
            }
        }
    }
    let names = [
        "spawn-call",
        "spawn-to-first-instruction",
        "start-to-main",
        "exit-to-parent",
    ];
    for (samples, name) in samples.iter().zip(names) {
        process.print(&samples.line(name))?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "bench-spawn", prove)
}

entry_point!(main);
