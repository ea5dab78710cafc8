//! The console's two methods, and every buffer that is not the caller's to
//! name: kernel addresses, ranges that wrap around or are not mapped, results
//! into read-only pages, the ring page and the CapSet page as buffers, lengths
//! above the ceilings. Each is refused with its code, and text still appears.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use capos::CapSqe;
use capos::capos_capnp::{self, ExceptionType};
use capos::prelude::*;
use capos_config::capset::CAPSET_VADDR;
use capos_config::process_layout::{USER_IMAGE_BASE, USER_STACK_TOP};
use capos_config::ring::{
    CAP_ERR_INVALID_PARAMS_BUFFER, CAP_ERR_INVALID_RESULT_BUFFER, RING_VADDR,
};
use raw_ring::proof::{self, equal, line_params, that};
use raw_ring::{Mailbox, Process, Proof, Sqe, call, exception};

const WRITE: u16 = 0;
const WRITE_LINE: u16 = 1;
const NOW: u16 = 0;
const NOW_BYTES: i32 = 32;
const PAGE_BYTES: u64 = 4096;
/// Longest params and longest result of the ABI.
const BYTES_MAX: u32 = 64 * 1024;
/// Bytes of the ring page behind both queues: nobody uses them.
const RING_SPARE: u64 = RING_VADDR + 3 * 1024;

/// Addresses no process may read or write.
const NOWHERE: [(&str, u64); 12] = [
    ("null", 0),
    ("first page", 8),
    ("below the image", USER_IMAGE_BASE - 64),
    ("unmapped", 0x7000_0000),
    ("behind the stack", USER_STACK_TOP),
    ("behind the ring", RING_VADDR + PAGE_BYTES),
    ("behind the CapSet", CAPSET_VADDR + PAGE_BYTES),
    ("end of user space", 0x0000_7fff_ffff_ffc0),
    ("not canonical", 0x0000_8000_0000_0000),
    ("lower kernel half", 0xffff_8000_0000_0000),
    ("kernel image", 0xffff_ffff_8010_0000),
    ("last bytes", u64::MAX - 63),
];

/// Ranges that begin well and end badly.
const ACROSS: [(&str, u64, u32); 5] = [
    ("end of the stack", USER_STACK_TOP - 8, 64),
    ("end of the ring page", RING_VADDR + PAGE_BYTES - 8, 64),
    ("wrap around", u64::MAX - 7, 16),
    ("wrap to the image", u64::MAX - 7, 0x20_0010),
    ("wrap to the same place", USER_IMAGE_BASE, u32::MAX),
];

fn write_params(data: &[u8]) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<capos_capnp::console::write_params::Builder<'_>>()
        .set_data(data);
    capnp::serialize::write_message_to_words(&message)
}

struct Suite {
    console: u32,
    timer: u32,
}

impl Suite {
    /// Checks that honest calls work.
    fn honest(&self, process: &mut Process) -> Proof {
        let params = proof::no_params();
        let mut result = [0; 64];
        let now = call(self.timer, NOW).params(&params).result(&mut result);
        process.ring.expect("Timer.now", now, NOW_BYTES)?;
        let nothing = write_params(b"");
        let write = call(self.console, WRITE).params(&nothing);
        process.ring.expect("Console.write", write, 0).map(drop)
    }

    fn bad_params(&self, process: &mut Process, what: &str, addr: u64, len: u32) -> Proof {
        for method in [WRITE, WRITE_LINE, 99] {
            let sqe = CapSqe {
                addr,
                len,
                ..call(self.console, method)
            };
            let what = format!("params: {what}");
            let code = CAP_ERR_INVALID_PARAMS_BUFFER;
            process.ring.expect(&what, sqe, code)?;
        }
        self.honest(process)
    }

    fn bad_result(&self, process: &mut Process, what: &str, addr: u64, len: u32) -> Proof {
        let nothing = write_params(b"must not appear");
        for (target, method) in [(self.console, WRITE), (self.timer, NOW)] {
            let sqe = CapSqe {
                result_addr: addr,
                result_len: len,
                ..call(target, method).params(&nothing)
            };
            let what = format!("result: {what}");
            let code = CAP_ERR_INVALID_RESULT_BUFFER;
            process.ring.expect(&what, sqe, code)?;
        }
        self.honest(process)
    }

    fn hostile(&self, process: &mut Process) -> Proof {
        for (what, addr) in NOWHERE {
            self.bad_params(process, what, addr, 32)?;
            self.bad_result(process, what, addr, 32)?;
            self.bad_params(process, what, addr, 1)?;
            self.bad_result(process, what, addr, 1)?;
        }
        for (what, addr, len) in ACROSS {
            self.bad_params(process, what, addr, len)?;
            self.bad_result(process, what, addr, len)?;
        }
        for (what, addr) in [
            ("program text", USER_IMAGE_BASE),
            ("the CapSet page", CAPSET_VADDR),
            ("the end of the CapSet page", CAPSET_VADDR + PAGE_BYTES - 8),
        ] {
            self.bad_result(process, what, addr, 8)?;
        }
        self.ceilings(process)
    }

    /// Lengths at and above what a call may have, over memory that is there.
    fn ceilings(&self, process: &mut Process) -> Proof {
        let mut memory = vec![0_u8; 2 * BYTES_MAX as usize];
        let addr = memory.as_mut_ptr() as u64;
        for len in [BYTES_MAX + 1, BYTES_MAX + 8, 2 * BYTES_MAX] {
            self.bad_params(process, "above the ceiling", addr, len)?;
            self.bad_result(process, "above the ceiling", addr, len)?;
        }
        let params = proof::no_params();
        let now = CapSqe {
            result_addr: addr,
            result_len: BYTES_MAX,
            ..call(self.timer, NOW).params(&params)
        };
        process.ring.expect("at the ceiling", now, NOW_BYTES)?;
        that(memory[..8] != [0; 8], "no result was written")
    }

    /// Pages that the system also uses, as buffers of their owner.
    fn shared_pages(&self, process: &mut Process) -> Proof {
        // The CapSet page is readable, so this is params, but no message.
        for addr in [CAPSET_VADDR, RING_VADDR] {
            let mut result = Mailbox::new(256);
            let sqe = CapSqe {
                addr,
                len: 64,
                ..call(self.console, WRITE).result(result.bytes_mut())
            };
            let cqe = process.ring.perform(sqe)?;
            let kind = ExceptionType::InvalidArgument;
            exception::expect("a page as message", &cqe, result.bytes(), kind)?;
        }
        let params = proof::no_params();
        let now = CapSqe {
            result_addr: RING_SPARE,
            result_len: 64,
            ..call(self.timer, NOW).params(&params)
        };
        let answered = process.ring.perform(now)?.result;
        let refused = answered == CAP_ERR_INVALID_RESULT_BUFFER;
        that(refused || answered == NOW_BYTES, "a strange answer")?;
        self.honest(process)
    }
}

/// What must appear, byte for byte.
fn honest_output(process: &mut Process, console: u32) -> Proof {
    let written = write_params(b"[write] no newline, ");
    let write = call(console, WRITE).params(&written);
    process.ring.expect("Console.write", write, 0)?;
    let line = line_params("[writeLine] with newline");
    let write_line = call(console, WRITE_LINE).params(&line);
    process.ring.expect("Console.writeLine", write_line, 0)?;
    let mut result = Mailbox::new(256);
    for method in [2, 99, u16::MAX] {
        let unknown = call(console, method).result(result.bytes_mut());
        let cqe = process.ring.perform(unknown)?;
        let kind = ExceptionType::Unimplemented;
        exception::expect("an unknown method", &cqe, result.bytes(), kind)?;
    }
    let truncated = call(console, 99);
    process.ring.expect("no room", truncated, -10)?;
    equal("stray completions", process.ring.unclaimed(), 0)
}

fn prove(process: &mut Process) -> Proof {
    let suite = Suite {
        console: process.cap("console")?,
        timer: process.cap("timer")?,
    };
    honest_output(process, suite.console)?;
    suite.hostile(process)?;
    suite.shared_pages(process)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "console-paths", prove)
}

entry_point!(main);
