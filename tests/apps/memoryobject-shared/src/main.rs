//! Shares one memory object with a child over an endpoint call: each sees what
//! the other writes, at different addresses; both unmap.
#![no_std]
#![no_main]

use capos::capos_capnp::ExceptionType;
use capos::prelude::*;
use raw_ring::objects::{self, Frames, PAGE, READ_WRITE, granted, refused};
use raw_ring::proof::{self, Proof, equal, that};
use raw_ring::sharer::{Sharer, method};
use raw_ring::{Process, family};

/// Where the child maps it.
const THEIRS: u64 = 0x5555_0000_0000;
const BYTES: u64 = 3 * PAGE;

fn prove(runtime: &mut Runtime) -> Proof {
    let frames = Frames(family::held(runtime, "frames")?.cap_id());
    let sharer = Sharer::start(runtime, &[])?;
    let mut process = Process::new(runtime);
    let object = granted("alloc", frames.contiguous(&mut process.ring, 3))?;
    let ours = object.map(&mut process.ring, 0, (0, BYTES), READ_WRITE);
    let ours = granted("map", ours)?;
    // SAFETY: three pages are mapped there, and nothing of Rust's is.
    let sum = unsafe { objects::checksum(ours, BYTES) };
    let theirs = sharer.attach(&mut process, object, THEIRS)?;
    equal("their address", theirs, THEIRS)?;
    that(ours != theirs, "the same address")?;
    let fresh = sharer.ask(&mut process, method::SUM, [0, BYTES, 0])?;
    equal("zeroes on both sides", fresh, sum)?;
    // SAFETY: as above.
    unsafe { objects::store(ours + PAGE + 17, 0x5a) };
    sharer.ask(&mut process, method::FILL, [2 * PAGE, 100, 0xa5])?;
    // SAFETY: as above.
    let (own, other) = unsafe {
        (
            objects::load(ours + PAGE + 17),
            objects::load(ours + 2 * PAGE),
        )
    };
    equal("what both wrote", (own, other), (0x5a, 0xa5))?;
    // SAFETY: as above.
    let sum = unsafe { objects::checksum(ours, BYTES) };
    let seen = sharer.ask(&mut process, method::SUM, [0, BYTES, 0])?;
    equal("the same bytes", seen, sum)?;
    sharer.ask(&mut process, method::DETACH, [0; 3])?;
    let ring = &mut process.ring;
    granted(
        "protect",
        object.protect(ring, ours, PAGE, capos_config::VM_PROT_READ),
    )?;
    let both = capos_config::VM_PROT_WRITE | capos_config::VM_PROT_EXEC;
    let kind = ExceptionType::InvalidArgument;
    refused("W+X", object.protect(ring, ours, PAGE, both), kind)?;
    granted("unmap", object.unmap(ring, ours, BYTES))?;
    refused("unmap again", object.unmap(ring, ours, BYTES), kind)?;
    object.release(ring)?;
    sharer.stop(runtime)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "memoryobject-shared", prove)
}

entry_point!(main);
