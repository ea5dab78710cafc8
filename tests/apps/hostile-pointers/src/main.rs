//! Gives the system addresses it must not follow. Every call is refused with
//! the code of its kind, and the process keeps working.
//!
//! Returns 0, or the number of the step that failed; which address it was is
//! printed.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use capos::prelude::*;
use capos::syscall::cap_enter;
use capos::{CapSqe, capos_capnp};
use capos_config::process_layout::{USER_IMAGE_BASE, USER_STACK_TOP};
use capos_config::ring::{
    CAP_ERR_INVALID_PARAMS_BUFFER, CAP_ERR_INVALID_RESULT_BUFFER, CAP_OP_CALL,
};
use raw_ring::{RawRing, entry};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const CONSOLE_WRITE: u16 = 0;
const TIMER_NOW: u16 = 0;
/// Room for any answer of the calls made here.
const RESULT_BYTES: u32 = 64;

/// Addresses no process may name.
const UNREADABLE: [(&str, u64); 7] = [
    ("null", 0),
    ("below the image", USER_IMAGE_BASE - 8),
    ("unmapped", 0x7000_0000),
    ("behind the stack", USER_STACK_TOP),
    ("end of user space", 0x0000_7fff_ffff_fff8),
    ("not canonical", 0x0000_8000_0000_0000),
    ("kernel", 0xffff_8000_0000_0000),
];

fn perform(ring: &mut RawRing, sqe: CapSqe) -> Result<i32, i64> {
    ring.submit(&[sqe]);
    cap_enter(1, FOREVER).map_err(|_| 10)?;
    let cqe = ring.take().ok_or(11)?;
    if cqe.user_data != sqe.user_data || ring.take().is_some() {
        return Err(12);
    }
    Ok(cqe.result)
}

struct Suite<'a> {
    ring: &'a mut RawRing,
    /// A call that works: each crime changes one thing about it.
    write: CapSqe,
    now: CapSqe,
    complaint: Option<String>,
}

impl Suite<'_> {
    fn expect(&mut self, name: &str, sqe: CapSqe, expected: i32) -> Result<(), i64> {
        let result = perform(self.ring, sqe)?;
        if result != expected {
            self.complaint = Some(format!("{name}: answered {result}, not {expected}"));
            return Err(20);
        }
        let result = perform(self.ring, self.write)?;
        if result != 0 {
            self.complaint = Some(format!("after {name}: a good call answered {result}"));
            return Err(21);
        }
        Ok(())
    }

    fn params(&mut self, name: &str, addr: u64, len: u32) -> Result<(), i64> {
        let sqe = CapSqe {
            addr,
            len,
            ..self.write
        };
        self.expect(name, sqe, CAP_ERR_INVALID_PARAMS_BUFFER)
    }

    fn result(&mut self, name: &str, addr: u64, len: u32) -> Result<(), i64> {
        for sqe in [self.write, self.now] {
            let sqe = CapSqe {
                result_addr: addr,
                result_len: len,
                ..sqe
            };
            self.expect(name, sqe, CAP_ERR_INVALID_RESULT_BUFFER)?;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), i64> {
        let length = self.write.len;
        for (name, address) in UNREADABLE {
            self.params(name, address, length)?;
            self.result(name, address, RESULT_BYTES)?;
        }
        self.params("across the end of the stack", USER_STACK_TOP - 8, length)?;
        self.result(
            "across the end of the stack",
            USER_STACK_TOP - 8,
            RESULT_BYTES,
        )?;
        self.params("wrapping around", u64::MAX - 7, length)?;
        self.result("wrapping around", u64::MAX - 7, RESULT_BYTES)?;
        self.params("longer than memory", self.write.addr, u32::MAX)?;
        self.result("longer than memory", self.write.result_addr, u32::MAX)?;
        self.result("program text", USER_IMAGE_BASE, RESULT_BYTES)
    }
}

fn write_params() -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<capos_capnp::console::write_params::Builder<'_>>()
        .set_data(&[]);
    capnp::serialize::write_message_to_words(&message)
}

fn now_params() -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message.init_root::<capos_capnp::timer::now_params::Builder<'_>>();
    capnp::serialize::write_message_to_words(&message)
}

fn commit_crimes(runtime: &Runtime) -> (Result<(), i64>, Option<String>) {
    let capset = runtime.capset();
    let Ok(console) = capset.get_client::<ConsoleClient>(b"console") else {
        return (Err(1), None);
    };
    let Ok(timer) = capset.get_client::<TimerClient>(b"timer") else {
        return (Err(2), None);
    };
    // SAFETY: the runtime's page; its ring client is not in use meanwhile.
    let mut ring = unsafe { RawRing::new(runtime.ring()) };
    let mut result = [0u8; RESULT_BYTES as usize];
    let (write_params, now_params) = (write_params(), now_params());
    let mut call = |cap_id, method_id, params: &[u8]| CapSqe {
        cap_id,
        method_id,
        user_data: 0x5eed,
        addr: params.as_ptr() as u64,
        len: params.len() as u32,
        result_addr: result.as_mut_ptr() as u64,
        result_len: RESULT_BYTES,
        ..entry(CAP_OP_CALL)
    };
    let mut suite = Suite {
        write: call(console.capability().cap_id(), CONSOLE_WRITE, &write_params),
        now: call(timer.capability().cap_id(), TIMER_NOW, &now_params),
        ring: &mut ring,
        complaint: None,
    };
    (suite.run(), suite.complaint)
}

fn main(mut runtime: Runtime) -> i64 {
    let (outcome, complaint) = commit_crimes(&runtime);
    let Ok(mut console) = runtime.capset().get_client::<ConsoleClient>(b"console") else {
        return 1;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return 3;
    };
    let line = complaint.unwrap_or_else(|| "pointers ok".into());
    let _ = console.write_line_wait(&mut ring, &line, FOREVER);
    outcome.err().unwrap_or(0)
}

entry_point!(main);
