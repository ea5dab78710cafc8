//! Every trap number but those of `exit` and `cap_enter` is refused, and a trap
//! changes nothing but RAX, RCX and R11, whatever the other registers hold.
//!
//! Returns 0, or the number of the step that failed.
#![no_std]
#![no_main]

use core::arch::asm;

use capos::prelude::*;

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const CAP_ENTER: u64 = 2;
const REFUSED: u64 = u64::MAX;
/// The completion queue holds 32 entries; asking for more is refused.
const MORE_THAN_FITS: u64 = 33;

/// What went into a trap and has to come out of it.
#[derive(Clone, Copy, PartialEq)]
struct Registers {
    rdi: u64,
    rsi: u64,
    rdx: u64,
    r8: u64,
    r9: u64,
    r10: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    xmm: [f64; 3],
}

impl Registers {
    /// Distinct values, with the operands of the trap and RDX chosen: on some
    /// kernels RDX selects a kernel call.
    fn with(rdi: u64, rsi: u64, rdx: u64) -> Self {
        Self {
            rdi,
            rsi,
            rdx,
            r8: 0x0808_0808_0808_0808,
            r9: 0x0909_0909_0909_0909,
            r10: 0x1010_1010_1010_1010,
            r12: 0x1212_1212_1212_1212,
            r13: 0x1313_1313_1313_1313,
            r14: 0x1414_1414_1414_1414,
            r15: 0x1515_1515_1515_1515,
            xmm: [1.5, -2.25, 1e300],
        }
    }
}

/// Traps with `number`; returns RAX and the registers afterwards.
fn trap(number: u64, mut r: Registers) -> (u64, Registers) {
    let mut rax = number;
    // SAFETY: none of the numbers used here touches memory or ends the
    // program; every register that may change is an output.
    unsafe {
        asm!(
            "syscall",
            inout("rax") rax,
            inout("rdi") r.rdi, inout("rsi") r.rsi, inout("rdx") r.rdx,
            inout("r8") r.r8, inout("r9") r.r9, inout("r10") r.r10,
            inout("r12") r.r12, inout("r13") r.r13, inout("r14") r.r14, inout("r15") r.r15,
            inout("xmm0") r.xmm[0], inout("xmm7") r.xmm[1], inout("xmm15") r.xmm[2],
            out("rcx") _, out("r11") _,
            options(nostack),
        );
    }
    (rax, r)
}

/// Traps and checks that nothing else changed.
fn expect(number: u64, registers: Registers, result: u64) -> bool {
    trap(number, registers) == (result, registers)
}

fn run(mut runtime: Runtime) -> Result<(), i64> {
    let mut console: ConsoleClient = runtime.capset().get_client(b"console").map_err(|_| 1)?;
    // Some kernels take their call number from RDX: its calls are -1 to -8.
    let hazards = (1..=20).map(|n: i64| -n as u64).chain([0, 1, 0x1234]);
    for rdx in hazards {
        for number in [0, 3, 99, u64::MAX] {
            if !expect(number, Registers::with(0, 0, rdx), REFUSED) {
                return Err(10);
            }
        }
        if !expect(CAP_ENTER, Registers::with(0, 0, rdx), 0) {
            return Err(11);
        }
        if !expect(CAP_ENTER, Registers::with(MORE_THAN_FITS, 0, rdx), REFUSED) {
            return Err(12);
        }
    }
    let mut ring = runtime.ring_client().map_err(|_| 2)?;
    console
        .write_line_wait(&mut ring, "traps ok", FOREVER)
        .map_err(|_| 3)
}

fn main(runtime: Runtime) -> i64 {
    run(runtime).err().unwrap_or(0)
}

entry_point!(main);
