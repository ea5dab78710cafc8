//! Takes memory objects until the quota refuses, and proves that every page
//! comes back: by release, by unmap, and by the end of a child that does
//! neither.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use capos::capos_capnp::ExceptionType;
use capos::prelude::*;
use raw_ring::objects::{self, Frames, Object, PAGE, READ_WRITE, granted, refused};
use raw_ring::proof::{self, Failure, Proof, equal};
use raw_ring::sharer::Sharer;
use raw_ring::{Process, family};

/// Pages that one process may hold and map.
const QUOTA: u32 = 4096;
/// Longest run.
const RUN: u32 = 256;

/// Takes runs until that is refused.
fn take_all(process: &mut Process, frames: Frames) -> Result<Vec<Object>, Failure> {
    let mut objects = Vec::new();
    loop {
        match frames.contiguous(&mut process.ring, RUN)? {
            Ok(object) => objects.push(object),
            Err(kind) => {
                equal("the refusal", kind, ExceptionType::Overloaded)?;
                return Ok(objects);
            }
        }
    }
}

fn prove(runtime: &mut Runtime) -> Proof {
    let frames = Frames(family::held(runtime, "frames")?.cap_id());
    let mut process = Process::new(runtime);
    let ring = &mut process.ring;
    refused(
        "no pages",
        frames.contiguous(ring, 0),
        ExceptionType::InvalidArgument,
    )?;
    refused(
        "a long run",
        frames.contiguous(ring, RUN + 1),
        ExceptionType::Overloaded,
    )?;
    let one = granted("a frame", frames.one(ring))?;
    equal("its size", granted("info", one.info(ring))?, (1, PAGE))?;
    one.release(ring)?;
    for _ in 0..3 {
        let objects = take_all(&mut process, frames)?;
        equal("runs within the quota", objects.len() as u32, QUOTA / RUN)?;
        for object in objects {
            object.release(&mut process.ring)?;
        }
    }
    // A mapping is charged as well, and keeps the memory without its hold.
    let object = granted("a run", frames.contiguous(&mut process.ring, RUN))?;
    let bytes = u64::from(RUN) * PAGE;
    let at = object.map(&mut process.ring, 0, (0, bytes), READ_WRITE);
    let at = granted("map", at)?;
    // SAFETY: the run is mapped there, and nothing of Rust's is.
    unsafe { objects::store(at + bytes - 1, 7) };
    let rest = take_all(&mut process, frames)?;
    equal(
        "runs beside one held and mapped",
        rest.len() as u32,
        QUOTA / RUN - 2,
    )?;
    for object in rest {
        object.release(&mut process.ring)?;
    }
    granted("unmap", object.unmap(&mut process.ring, at, bytes))?;
    for round in 0..4 {
        let sharer = Sharer::start(runtime, &[])?;
        sharer.attach(&mut process, object, 0)?;
        if round % 2 == 0 {
            sharer.stop(runtime)?;
        } else {
            sharer.terminate(runtime)?;
        }
    }
    object.release(&mut process.ring)?;
    let objects = take_all(&mut process, frames)?;
    // The last ones go with this program.
    equal("runs at the end", objects.len() as u32, QUOTA / RUN)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "frame-allocator-cleanup", prove)
}

entry_point!(main);
