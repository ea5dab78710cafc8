//! A process without capabilities can do nothing but enter and exit. It cannot
//! say so: its verdict is its exit code, and the console must stay silent.
#![no_std]
#![no_main]

use core::arch::asm;

use capos::prelude::*;
use capos::syscall::{cap_enter, legacy_ambient_write_is_rejected};
use capos_config::ring::{CAP_ERR_INVALID_REQUEST, CAP_ERR_INVOKE_FAILED};
use raw_ring::proof::{self, equal, that};
use raw_ring::{Mailbox, Process, Proof, Sqe, call, cancel, receive, release, returns};

const METHODS: u16 = 4;
const IDS: [u32; 8] = [0, 1, 2, 63, 255, 0x00ff_ffff, 0x0100_0000, u32::MAX];

/// The write call of the first capOS, with a text.
fn ambient_write(text: &str) -> u64 {
    let mut rax = 0_u64;
    // SAFETY: reads the text at most.
    unsafe {
        asm!(
            "syscall",
            inout("rax") rax,
            in("rdi") text.as_ptr(), in("rsi") text.len(), in("rdx") text.len(),
            out("rcx") _, out("r11") _,
            options(nostack),
        );
    }
    rax
}

fn prove(process: &mut Process) -> Proof {
    equal("capabilities granted", process.capset().len(), 0)?;
    that(legacy_ambient_write_is_rejected(), "the old write is there")?;
    equal("write", ambient_write("a stranger was here\n"), u64::MAX)?;
    equal("cap_enter", cap_enter(0, 0).ok(), Some(0))?;
    let text = proof::line_params("a stranger was here");
    let mut mailbox = Mailbox::new(256);
    for id in IDS {
        for method in 0..METHODS {
            let sqe = call(id, method).params(&text);
            process.ring.expect("CALL", sqe, CAP_ERR_INVOKE_FAILED)?;
        }
        let refused = CAP_ERR_INVOKE_FAILED;
        let recv = receive(id, &mut mailbox);
        process.ring.expect("RECV", recv, refused)?;
        process.ring.expect("RETURN", returns(id, 1), refused)?;
        process.ring.expect("CANCEL", cancel(id, 1), refused)?;
        let invalid = CAP_ERR_INVALID_REQUEST;
        process.ring.expect("RELEASE", release(id), invalid)?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "unprivileged-stranger", prove)
}

entry_point!(main);
