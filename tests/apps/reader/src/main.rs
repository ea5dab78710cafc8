//! Reads the boot package, reports to its parent, reads again, reports again,
//! and reports once more. In the role `revoked` the second read and the third
//! report must fail as disconnected; in the role `observer` nothing may.
#![no_std]
#![no_main]

extern crate alloc;

use capos::capos_capnp::{self, ExceptionType};
use capos::prelude::*;
use raw_ring::proof::{self, Failure, equal};
use raw_ring::{Mailbox, Process, Proof, Sqe, call, exception, release};

const READ_MANIFEST: u16 = 1;
const CHUNK_BYTES: u32 = 64;

/// Reads the start of the manifest, or finds out that it may not.
fn read(process: &mut Process, boot: u32, allowed: bool) -> Proof {
    let mut message = capnp::message::Builder::new_default();
    let mut params =
        message.init_root::<capos_capnp::boot_package::read_manifest_params::Builder<'_>>();
    params.set_offset(0);
    params.set_max_bytes(CHUNK_BYTES);
    let params = capnp::serialize::write_message_to_words(&message);
    let mut result = Mailbox::new(1024);
    let sqe = call(boot, READ_MANIFEST)
        .params(&params)
        .result(result.bytes_mut());
    let cqe = process.ring.perform(sqe)?;
    if !allowed {
        let kind = ExceptionType::Disconnected;
        return exception::expect("a revoked read", &cqe, result.bytes(), kind);
    }
    let mut bytes = result.written(&cqe)?;
    let options = capos::default_reader_options();
    let message = capnp::serialize::read_message_from_flat_slice_no_alloc(&mut bytes, options)
        .map_err(|_| Failure::new("the manifest's answer is no message"))?;
    let data = message
        .get_root::<capos_capnp::boot_package::read_manifest_results::Reader<'_>>()
        .and_then(|results| results.get_data())
        .map_err(|_| Failure::new("the manifest's answer has no data"))?;
    equal("bytes read", data.len(), CHUNK_BYTES as usize)
}

/// Reports to the parent and waits for its answer, or finds out that it may
/// not.
fn report(process: &mut Process, parent: u32, step: u8, allowed: bool) -> Proof {
    let mut result = Mailbox::new(256);
    let params = [step];
    let sqe = call(parent, 0).params(&params).result(result.bytes_mut());
    let cqe = process.ring.perform(sqe)?;
    if !allowed {
        let kind = ExceptionType::Disconnected;
        return exception::expect("a revoked call", &cqe, result.bytes(), kind);
    }
    equal("the answer", result.written(&cqe)?, b"go".as_slice())
}

fn prove(process: &mut Process) -> Proof {
    let boot = process.cap("boot")?;
    let (parent, stays) = match process.cap("revoked") {
        Ok(parent) => (parent, false),
        Err(_) => (process.cap("observer")?, true),
    };
    read(process, boot, true)?;
    report(process, parent, b'1', true)?;
    read(process, boot, stays)?;
    report(process, parent, b'2', true)?;
    report(process, parent, b'3', stays)?;
    if stays {
        return read(process, boot, true);
    }
    // What is revoked can still be given back, once.
    process.ring.expect("RELEASE", release(boot), 0)?;
    process.ring.expect("RELEASE again", release(boot), -1)?;
    let gone = call(boot, READ_MANIFEST);
    process.ring.expect("CALL afterwards", gone, -4).map(drop)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "reader", prove)
}

entry_point!(main);
