//! Two processes meet at a word of shared memory that each maps elsewhere: one
//! parks, the other wakes it, first with the object as authority, then with a
//! `SharedParkSpace`; the waiter's timeout, and its death, leave nothing.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::{CapabilityRef, SpawnGrant, SpawnGrantMode, SpawnGrantSource};
use capos_config::ring::{CAP_ERR_INVALID_PARAMS_BUFFER, PARK_TIMED_OUT, PARK_WOKEN};
use capos_config::{MEMORY_OBJECT_INTERFACE_ID, SHARED_PARK_SPACE_INTERFACE_ID};
use raw_ring::objects::{self, Frames, Object, PAGE, READ_WRITE, granted};
use raw_ring::proof::{self, Failure, Proof, equal, that};
use raw_ring::sharer::{Sharer, method};
use raw_ring::{Process, family};

/// Word of the object, in its second page.
const WORD: u64 = PAGE + 64;
const THEIRS: u64 = 0x6666_0000_0000;

/// The parking side only, for a child.
fn park_space(object: Object) -> SpawnGrant<'static> {
    SpawnGrant {
        name: "word",
        source: SpawnGrantSource::CapabilityAs {
            capability: CapabilityRef::new(object.0, MEMORY_OBJECT_INTERFACE_ID),
            interface_id: SHARED_PARK_SPACE_INTERFACE_ID,
        },
        mode: SpawnGrantMode::Raw,
        badge: 0,
    }
}

/// Has the sharer park, wakes it, and sees what it says.
fn meet(process: &mut Process, sharer: &Sharer, object: Object, at: u64) -> Proof {
    // SAFETY: the word's page is mapped, and nothing of Rust's is there.
    unsafe { objects::store(at + WORD + 4, 0) };
    sharer.ask(process, method::PARK, [WORD, 0, 0])?;
    let elsewhere = objects::unpark(object.0, at + WORD + 8, 9);
    process
        .ring
        .expect("UNPARK of another word", elsewhere, 0)?;
    wake(process, object, at)?;
    // The sharer writes before it serves the next call.
    sharer.ask(process, method::SUM, [0, 8, 0])?;
    // SAFETY: as above.
    let outcome = unsafe { objects::load(at + WORD + 4) };
    equal("outcome of PARK", i32::from(outcome) - 1, PARK_WOKEN)
}

/// UNPARK until someone was parked.
fn wake(process: &mut Process, object: Object, at: u64) -> Proof {
    for _ in 0..10_000 {
        let entry = objects::unpark(object.0, at + WORD, 9);
        match process.ring.perform(entry)?.result {
            0 => {}
            1 => return Ok(()),
            other => return equal("UNPARK", other, 1),
        }
    }
    Err(Failure::new("nobody parks"))
}

fn prove(runtime: &mut Runtime) -> Proof {
    let frames = Frames(family::held(runtime, "frames")?.cap_id());
    let mut process = Process::new(runtime);
    let object = granted("alloc", frames.contiguous(&mut process.ring, 2))?;
    let at = object.map(&mut process.ring, 0, (0, 2 * PAGE), READ_WRITE);
    let at = granted("map", at)?;
    let timeout = objects::park(object.0, at + WORD, 0, 1_000_000);
    process.ring.expect("timeout", timeout, PARK_TIMED_OUT)?;
    let nowhere = objects::park(object.0, THEIRS, 0, 0);
    process
        .ring
        .expect("no word of it", nowhere, CAP_ERR_INVALID_PARAMS_BUFFER)?;
    for grants in [&[][..], &[park_space(object)]] {
        let sharer = Sharer::start(runtime, grants)?;
        let theirs = sharer.attach(&mut process, object, THEIRS)?;
        that(theirs != at, "the same address")?;
        meet(&mut process, &sharer, object, at)?;
        meet(&mut process, &sharer, object, at)?;
        sharer.ask(&mut process, method::PARK, [WORD, 0, 0])?;
        sharer.terminate(runtime)?;
        let entry = objects::unpark(object.0, at + WORD, 9);
        process.ring.expect("nobody is left", entry, 0)?;
    }
    granted("unmap", object.unmap(&mut process.ring, at, 2 * PAGE))?;
    object.release(&mut process.ring)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "shared-park", prove)
}

entry_point!(main);
