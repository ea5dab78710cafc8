//! Passes four records through one shared mapping: the object is transferred
//! once, then each call carries a place and a checksum, never the payload.
#![no_std]
#![no_main]

use capos::prelude::*;
use raw_ring::objects::{self, Frames, PAGE, READ_WRITE, granted};
use raw_ring::proof::{self, Proof, equal};
use raw_ring::sharer::{Sharer, method};
use raw_ring::{Process, family};

const RECORDS: u64 = 4;
const RECORD_BYTES: u64 = 2 * PAGE;

fn prove(runtime: &mut Runtime) -> Proof {
    let frames = Frames(family::held(runtime, "frames")?.cap_id());
    let consumer = Sharer::start(runtime, &[])?;
    let mut process = Process::new(runtime);
    let bytes = RECORDS * RECORD_BYTES;
    let pages = (bytes / PAGE) as u32;
    let object = granted("alloc", frames.contiguous(&mut process.ring, pages))?;
    let at = object.map(&mut process.ring, 0, (0, bytes), READ_WRITE);
    let at = granted("map", at)?;
    consumer.attach(&mut process, object, 0)?;
    // The mapping stays without the capability.
    object.release(&mut process.ring)?;
    for record in 0..RECORDS {
        let offset = record * RECORD_BYTES;
        for byte in 0..RECORD_BYTES {
            let value = (byte * 31 + record * 7 + byte / 251) as u8;
            // SAFETY: the record is in the mapping, where nothing of Rust's is.
            unsafe { objects::store(at + offset + byte, value) };
        }
        // SAFETY: as above.
        let sum = unsafe { objects::checksum(at + offset, RECORD_BYTES) };
        let seen = consumer.ask(&mut process, method::SUM, [offset, RECORD_BYTES, record])?;
        equal("checksum of a record", seen, sum)?;
    }
    consumer.stop(runtime)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "ipc-zerocopy", prove)
}

entry_point!(main);
