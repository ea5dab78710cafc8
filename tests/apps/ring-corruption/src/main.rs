//! Overwrites what it can of the ring header. Submissions behind an index that
//! cannot be right are dropped without a completion, everything else goes on,
//! and a process that repairs its header can use the published client again.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use core::ptr;

use capos::CapRingHeader;
use capos::prelude::*;
use capos::syscall::cap_enter;
use capos_config::ring::{self, RING_VADDR, SQ_ENTRIES};
use raw_ring::proof::{self, Failure, equal, that};
use raw_ring::{Process, Proof, Sqe, nop};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;

/// The place of a header field.
macro_rules! field {
    ($header:expr, $field:ident) => {
        // SAFETY: the header lies in the mapped ring page; only the address is
        // taken.
        unsafe { &raw mut (*$header).$field }
    };
}

/// A word of the header that the client may only read.
type Word = (&'static str, fn(*mut CapRingHeader) -> *mut u32);

const CONSTANTS: [Word; 8] = [
    ("sq_mask", |h| field!(h, sq_mask)),
    ("sq_entries", |h| field!(h, sq_entries)),
    ("sq_flags", |h| field!(h, sq_flags)),
    ("cq_mask", |h| field!(h, cq_mask)),
    ("cq_entries", |h| field!(h, cq_entries)),
    ("cq_flags", |h| field!(h, cq_flags)),
    ("sqe_offset", |h| field!(h, sqe_offset)),
    ("cqe_offset", |h| field!(h, cqe_offset)),
];

fn read(word: *mut u32) -> u32 {
    // SAFETY: a word of the ring page.
    unsafe { ptr::read_volatile(word) }
}

fn write(word: *mut u32, value: u32) {
    // SAFETY: as above; the page is ours to write, wisely or not.
    unsafe { ptr::write_volatile(word, value) }
}

/// A tail no honest client can reach: nothing is dispatched, and the process
/// goes on from there.
fn impossible_tail(process: &mut Process, distance: u32) -> Proof {
    let header = process.ring.header();
    let (head, tail) = (field!(header, sq_head), field!(header, sq_tail));
    // What the system must not dispatch.
    process.ring.submit(&[nop().user_data(0xdead)]);
    let wrong = read(head).wrapping_add(distance);
    write(tail, wrong);
    equal("completions", cap_enter(0, 0).ok(), Some(0))?;
    that(process.ring.take().is_none(), "an entry was dispatched")?;
    equal("the head after recovery", read(head), wrong)?;
    process.ring.expect("NOP after recovery", nop(), 0)?;
    Ok(())
}

/// What the system publishes, overwritten: it does not read it back.
fn overwritten_index(process: &mut Process, name: &str, word: *mut u32) -> Proof {
    for value in [0, 1, 77, 0x8000_0000, u32::MAX] {
        let user_data = process.ring.fresh_user_data();
        process.ring.submit(&[nop().user_data(user_data)]);
        write(word, value);
        equal(name, cap_enter(1, 0).ok(), Some(1))?;
        let cqe = process.ring.take().map(|cqe| (cqe.user_data, cqe.result));
        equal(name, cqe, Some((user_data, 0)))?;
    }
    Ok(())
}

/// What is constant, overwritten: the system uses the constants of the ABI.
fn overwritten_constant(process: &mut Process, (name, place): Word) -> Proof {
    let word = place(process.ring.header());
    let right = read(word);
    for value in [0, 1, 0x7fff_ffff, u32::MAX, RING_VADDR as u32] {
        write(word, value);
        let entries: [_; SQ_ENTRIES as usize] = core::array::from_fn(|n| nop().user_data(n as u64));
        equal(name, process.ring.flush(&entries)?, SQ_ENTRIES)?;
        for user_data in 0..u64::from(SQ_ENTRIES) {
            let cqe = process.ring.take().map(|cqe| (cqe.user_data, cqe.result));
            equal(name, cqe, Some((user_data, 0)))?;
        }
    }
    write(word, right);
    Ok(())
}

/// The whole header, filled with one byte.
fn overwritten_header(process: &mut Process) -> Proof {
    let header = process.ring.header();
    // SAFETY: the header lies in the ring page; a copy of it is kept.
    let honest = unsafe { ptr::read_volatile(header) };
    for byte in [0x00, 0x5a, 0xff] {
        // SAFETY: as above.
        unsafe { ptr::write_bytes(header, byte, 1) };
        cap_enter(0, 0).map_err(|error| Failure::new(format!("cap_enter: {error:?}")))?;
    }
    let heads = read(field!(header, sq_head));
    let completions = read(field!(header, cq_head));
    // SAFETY: as above.
    unsafe { ptr::write_volatile(header, honest) };
    write(field!(header, sq_head), heads);
    write(field!(header, sq_tail), heads);
    write(field!(header, cq_tail), completions);
    write(field!(header, cq_head), completions);
    process.ring.expect("NOP after repair", nop(), 0).map(drop)
}

fn prove(process: &mut Process) -> Proof {
    equal("ring page", process.ring.base() as u64, RING_VADDR)?;
    for distance in [SQ_ENTRIES + 1, 32, 0x8000_0000, u32::MAX] {
        let what = format!("a tail {distance} ahead");
        impossible_tail(process, distance).map_err(|failure| failure.within(&what))?;
    }
    let header = process.ring.header();
    overwritten_index(process, "sq_head", field!(header, sq_head))?;
    overwritten_index(process, "cq_tail", field!(header, cq_tail))?;
    overwritten_index(process, "cq_overflow", field!(header, cq_overflow))?;
    write(field!(header, cq_overflow), 0);
    for word in CONSTANTS {
        overwritten_constant(process, word)?;
    }
    overwritten_header(process)
}

/// The published client checks the header before it works with it.
fn still_usable(mut runtime: Runtime) -> Result<(), i64> {
    let capset = runtime.capset();
    let mut console: ConsoleClient = capset.get_client(b"console").map_err(|_| 2)?;
    let mut ring = runtime.ring_client().map_err(|_| 3)?;
    console
        .write_line_wait(&mut ring, "ring-corruption: client ok", FOREVER)
        .map_err(|_| 4)
}

fn main(runtime: Runtime) -> i64 {
    match proof::run(&runtime, "ring-corruption", prove) {
        0 => still_usable(runtime).err().unwrap_or(0),
        code => code,
    }
}

const _: () = assert!(ring::CQ_ENTRIES > SQ_ENTRIES);

entry_point!(main);
