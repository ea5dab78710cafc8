//! The other side of shared memory: maps what it is sent and does with it what
//! it is told, until it is told to stop. Methods are listed in [`method`].
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use capos::prelude::*;
use raw_ring::objects::{self, Object, PAGE, READ_WRITE, granted};
use raw_ring::proof::{self, Failure, Proof, equal};
use raw_ring::{Mailbox, Process, Sqe, receive, returns};

const FOREVER: u64 = u64::MAX;

/// What a caller may ask for; numbers are little-endian words.
mod method {
    /// Map the object that comes along at the hint in word 0; answers where.
    pub const ATTACH: u16 = 0;
    /// Write the byte in word 2 to word 1 bytes from offset word 0.
    pub const FILL: u16 = 1;
    /// Answer the checksum of word 1 bytes from offset word 0.
    pub const SUM: u16 = 2;
    /// Answer, then park on the word at offset word 0 while it is zero; what
    /// came of it is written to the byte behind the word, plus one.
    pub const PARK: u16 = 3;
    /// Unmap the object and release it.
    pub const DETACH: u16 = 4;
    /// Exit, mapped or not.
    pub const STOP: u16 = 5;
}

/// What was sent.
#[derive(Clone, Copy)]
struct Shared {
    object: Object,
    at: u64,
    bytes: u64,
}

struct Request {
    call_id: u32,
    method: u16,
    words: Vec<u64>,
    object: Option<u32>,
}

fn next(process: &mut Process, endpoint: u32) -> Result<Request, Failure> {
    let mut mailbox = Mailbox::new(512);
    let entry = receive(endpoint, &mut mailbox);
    let cqe = process.ring.perform(entry)?;
    let delivery = mailbox.delivery(&cqe)?;
    let words = delivery.params.chunks_exact(8);
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    Ok(Request {
        call_id: delivery.call_id,
        method: delivery.header.method_id,
        words: words.map(word).collect(),
        object: delivery.records.first().map(|record| record.cap_id),
    })
}

fn attach(process: &mut Process, request: &Request) -> Result<Shared, Failure> {
    let object = request
        .object
        .ok_or_else(|| Failure::new("no object came"))?;
    let object = Object(object);
    let ring = &mut process.ring;
    let (pages, bytes) = granted("info", object.info(ring))?;
    equal("bytes", bytes, u64::from(pages) * PAGE)?;
    let at = granted(
        "map",
        object.map(ring, request.words[0], (0, bytes), READ_WRITE),
    )?;
    Ok(Shared { object, at, bytes })
}

fn park(process: &mut Process, shared: Shared, offset: u64) -> Proof {
    // A narrower authority, if there is one.
    let cap = process.cap("word").unwrap_or(shared.object.0);
    let word = shared.at + offset;
    let cqe = process.ring.perform(objects::park(cap, word, 0, FOREVER))?;
    // SAFETY: the byte behind the word is in the mapping, which the caller of
    // PARK sees to.
    unsafe { objects::store(word + 4, cqe.result as u8 + 1) };
    Ok(())
}

fn serve(process: &mut Process) -> Proof {
    let endpoint = process.cap("endpoint")?;
    let mut attached = None;
    loop {
        let request = next(process, endpoint)?;
        let mut answer = 0;
        match (request.method, attached) {
            (method::ATTACH, None) => {
                let shared = attach(process, &request)?;
                answer = shared.at;
                attached = Some(shared);
            }
            (method::FILL, Some(shared)) => {
                let [offset, len, byte] = words(&request, shared)?;
                for at in offset..offset + len {
                    // SAFETY: `words` checked that the range is mapped.
                    unsafe { objects::store(shared.at + at, byte as u8) };
                }
            }
            (method::SUM, Some(shared)) => {
                let [offset, len, _] = words(&request, shared)?;
                // SAFETY: as above.
                answer = unsafe { objects::checksum(shared.at + offset, len) };
            }
            (method::DETACH, Some(shared)) => {
                let ring = &mut process.ring;
                granted("unmap", shared.object.unmap(ring, shared.at, shared.bytes))?;
                shared.object.release(ring)?;
                attached = None;
            }
            (method::PARK, Some(_)) | (method::STOP, _) => {}
            (other, _) => return Err(Failure::new(alloc::format!("method {other}"))),
        }
        let answer = answer.to_le_bytes();
        let entry = returns(endpoint, request.call_id).params(&answer);
        process.ring.expect("RETURN", entry, 0)?;
        match (request.method, attached) {
            (method::STOP, _) => return Ok(()),
            (method::PARK, Some(shared)) => park(process, shared, request.words[0])?,
            _ => {}
        }
    }
}

fn words(request: &Request, shared: Shared) -> Result<[u64; 3], Failure> {
    match request.words[..] {
        [offset, len, byte] if offset + len <= shared.bytes => Ok([offset, len, byte]),
        _ => Err(Failure::new("a range outside the object")),
    }
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "sharer", serve)
}

entry_point!(main);
