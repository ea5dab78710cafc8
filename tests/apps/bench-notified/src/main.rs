//! Waits for `there` and signals `back`, one trap for each round, until the
//! highest bit comes.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::syscall::cap_enter;
use raw_ring::proof::no_params;
use raw_ring::{Mailbox, RawRing, Sqe, call};
use sel4_capos_schema::method::{SIGNAL, WAIT};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
/// A message with one word: the bits.
const ONE: [u64; 3] = [2 << 32, 1 << 32, 1];
/// Where the last byte of the bits lies in a result.
const HIGHEST_BYTE: usize = 23;

fn serve(runtime: &Runtime) -> Result<(), i64> {
    let capset = runtime.capset();
    let there = capset.get(b"there").map_err(|_| 2)?.cap_id();
    let back = capset.get(b"back").map_err(|_| 3)?.cap_id();
    // SAFETY: the runtime's page; its ring client is not in use.
    let mut ring = unsafe { RawRing::new(runtime.ring()) };
    let mut result = Mailbox::new(64);
    // SAFETY: every byte of an integer is one, and the length is the array's.
    let one = unsafe { core::slice::from_raw_parts(ONE.as_ptr().cast(), size_of_val(&ONE)) };
    let nothing = no_params();
    let signal = call(back, SIGNAL).params(one);
    let wait = call(there, WAIT)
        .params(&nothing)
        .result(result.bytes_mut());
    ring.submit(&[wait]);
    let mut wanted = 1;
    loop {
        cap_enter(wanted, FOREVER).map_err(|_| 10)?;
        while let Some(cqe) = ring.take() {
            if cqe.result < 0 {
                return Err(11);
            }
        }
        if result.bytes()[HIGHEST_BYTE] & 0x80 != 0 {
            return Ok(());
        }
        ring.submit(&[signal, wait]);
        wanted = 2;
    }
}

fn main(runtime: Runtime) -> i64 {
    serve(&runtime).err().unwrap_or(0)
}

entry_point!(main);
