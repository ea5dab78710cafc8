//! What memory costs, in ticks of the time stamp counter.
//!
//! Where time is counted in instructions, a tick is one instruction. Each line
//! is over [`ROUNDS`] rounds, and counts a call from writing the entry to
//! holding the completion:
//!
//! - `bench vm-map pages=N`, `bench vm-unmap pages=N`: `VirtualMemory`, with
//!   every page touched in between;
//! - `bench first-touch`: one write to a page that is promised and not there;
//! - `bench frame-alloc pages=N`, `bench frame-free pages=N`: a `MemoryObject`
//!   made, and released by its only holder;
//! - `bench object-map pages=N`, `bench object-unmap pages=N`: it in the memory
//!   of a process;
//! - `bench object-share`: from a call that carries a copy of an object of one
//!   page to having it mapped where the call is received. Both ends are this
//!   program, so three entries of the system: CALL, RECV, and the map.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::prelude::*;
use capos::syscall::cap_enter;
use capos::{CapCqe, CapSqe};
use capos_config::{VM_PROT_READ, VM_PROT_WRITE};
use raw_ring::bench::{Samples, ticks};
use raw_ring::memory_entries::{self as memory, frames, object, vm};
use raw_ring::proof::{self, Failure, equal, that};
use raw_ring::{
    Loopback, Mailbox, Message, Process, Proof, RawRing, Sqe, copied, receive, release, returns,
};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const ROUNDS: usize = 21;
const WARM_UP_ROUNDS: usize = 3;
const PAGE_BYTES: u64 = 4096;
const SIZES: [u64; 3] = [1, 16, 256];
const READ_WRITE: u32 = VM_PROT_READ | VM_PROT_WRITE;

/// Enters with one entry; its completion and what it took.
fn timed(ring: &mut RawRing, entry: CapSqe) -> Result<(CapCqe, u64), Failure> {
    let start = ticks();
    ring.submit(&[entry]);
    let entered = cap_enter(1, FOREVER);
    let completion = ring.take();
    let taken = ticks() - start;
    that(entered.is_ok(), "cap_enter")?;
    let completion = completion.ok_or_else(|| Failure::new("no completion"))?;
    Ok((completion, taken))
}

/// Two or three kinds of samples taken in one round.
struct Row {
    name: &'static str,
    samples: Samples,
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            samples: Samples::with_capacity(ROUNDS),
        }
    }

    fn print(&self, process: &mut Process, pages: u64) -> Proof {
        let name = format!("{} pages={pages}", self.name);
        process.print(&self.samples.line(&name))
    }
}

/// Writes one byte of each page; what each took goes into `touches`.
fn touch(addr: u64, pages: u64, touches: &mut Samples) {
    for page in 0..pages {
        let byte = (addr + page * PAGE_BYTES) as *mut u8;
        let start = ticks();
        // SAFETY: the range was just mapped for reading and writing, and
        // nothing else uses it.
        unsafe { byte.write_volatile(1) };
        touches.add(ticks() - start);
    }
}

fn virtual_memory(process: &mut Process) -> Proof {
    let vm = process.cap("vm")?;
    let mut answer = Mailbox::new(memory::ANSWER_BYTES);
    let mut touches = Samples::default();
    for pages in SIZES {
        let (mut maps, mut unmaps) = (Row::new("vm-map"), Row::new("vm-unmap"));
        let size = pages * PAGE_BYTES;
        let params = memory::map_params(0, size, READ_WRITE);
        for round in 0..WARM_UP_ROUNDS + ROUNDS {
            let entry = memory::entry(vm, vm::MAP, &params, &mut answer);
            let (mapped, mapping) = timed(&mut process.ring, entry)?;
            let addr = memory::mapped_at(&answer, &mapped)?;
            let mut touched = Samples::with_capacity(pages as usize);
            touch(addr, pages, &mut touched);
            let back = memory::unmap_params(addr, size);
            let entry = memory::entry(vm, vm::UNMAP, &back, &mut answer);
            let (unmapped, unmapping) = timed(&mut process.ring, entry)?;
            equal("unmap", unmapped.result, 0)?;
            if round >= WARM_UP_ROUNDS {
                maps.samples.add(mapping);
                unmaps.samples.add(unmapping);
                touches.add(touched.median());
            }
        }
        maps.print(process, pages)?;
        unmaps.print(process, pages)?;
    }
    process.print(&touches.line("first-touch"))
}

fn memory_objects(process: &mut Process) -> Proof {
    let allocator = process.cap("frames")?;
    let mut answer = Mailbox::new(memory::ANSWER_BYTES);
    for pages in SIZES {
        let names = ["frame-alloc", "object-map", "object-unmap", "frame-free"];
        let mut rows = names.map(Row::new);
        let size = pages * PAGE_BYTES;
        let count = memory::contiguous_params(pages as u32);
        let params = memory::object_map_params(size, READ_WRITE);
        for round in 0..WARM_UP_ROUNDS + ROUNDS {
            let entry = memory::entry(allocator, frames::ALLOC_CONTIGUOUS, &count, &mut answer);
            let (made, making) = timed(&mut process.ring, entry)?;
            let cap = memory::allocated(&answer, &made)?;
            let entry = memory::entry(cap, object::MAP, &params, &mut answer);
            let (mapped, mapping) = timed(&mut process.ring, entry)?;
            let addr = memory::mapped_at(&answer, &mapped)?;
            let back = memory::unmap_params(addr, size);
            let entry = memory::entry(cap, object::UNMAP, &back, &mut answer);
            let (unmapped, unmapping) = timed(&mut process.ring, entry)?;
            equal("unmap", unmapped.result, 0)?;
            let (freed, freeing) = timed(&mut process.ring, release(cap))?;
            equal("RELEASE", freed.result, 0)?;
            if round >= WARM_UP_ROUNDS {
                let taken = [making, mapping, unmapping, freeing];
                for (row, taken) in rows.iter_mut().zip(taken) {
                    row.samples.add(taken);
                }
            }
        }
        for row in &rows {
            row.print(process, pages)?;
        }
    }
    Ok(())
}

/// One object passed to this process itself and mapped from what arrived.
fn share(process: &mut Process, own: Loopback, shared: u32) -> Result<u64, Failure> {
    let message = Message::new(&[], &[copied(shared)]);
    let (mut result, mut mailbox) = (Mailbox::new(64), Mailbox::new(256));
    let mut answer = Mailbox::new(memory::ANSWER_BYTES);
    let params = memory::object_map_params(PAGE_BYTES, READ_WRITE);
    let ring = &mut process.ring;
    let calling = own.call(&message, &mut result).user_data(1);
    let receiving = receive(own.endpoint, &mut mailbox).user_data(2);
    let start = ticks();
    ring.submit(&[calling, receiving]);
    that(cap_enter(1, FOREVER).is_ok(), "cap_enter")?;
    let received = ring.take().ok_or_else(|| Failure::new("no delivery"))?;
    let delivery = mailbox.delivery(&received)?;
    let record = delivery.records.first();
    let arrived = record
        .ok_or_else(|| Failure::new("nothing arrived"))?
        .cap_id;
    let entry = memory::entry(arrived, object::MAP, &params, &mut answer);
    let (mapped, _) = timed(ring, entry)?;
    let taken = ticks() - start;
    let addr = memory::mapped_at(&answer, &mapped)?;
    ring.expect("RETURN", returns(own.endpoint, delivery.call_id), 0)?;
    equal("the call", ring.wait(1)?.result, 0)?;
    let back = memory::unmap_params(addr, PAGE_BYTES);
    memory::expect_void(ring, arrived, object::UNMAP, &back)?;
    ring.expect("RELEASE", release(arrived), 0)?;
    Ok(taken)
}

fn sharing(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let allocator = process.cap("frames")?;
    let mut answer = Mailbox::new(memory::ANSWER_BYTES);
    let none = proof::no_params();
    let ring = &mut process.ring;
    let made = memory::perform(ring, allocator, frames::ALLOC_FRAME, &none, &mut answer)?;
    let shared = memory::allocated(&answer, &made)?;
    let samples = Samples::take(WARM_UP_ROUNDS, ROUNDS, || share(process, own, shared))?;
    process.print(&samples.line("object-share"))?;
    process.ring.expect("RELEASE", release(shared), 0).map(drop)
}

fn prove(process: &mut Process) -> Proof {
    virtual_memory(process)?;
    memory_objects(process)?;
    sharing(process)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "bench-memory", prove)
}

entry_point!(main);
