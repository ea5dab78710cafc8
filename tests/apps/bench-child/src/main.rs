//! Notes the time at its very first instruction and at the end of its main
//! function, and returns both as its exit code: the first in the low 40 bits,
//! how long after it the end came above.
#![no_std]
#![no_main]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use capos::prelude::*;
use raw_ring::bench::ticks;

const FIRST_BITS: u32 = 40;

/// The counter at the first instruction.
static FIRST: AtomicU64 = AtomicU64::new(0);

// Clobbers nothing the entry contract has a say on: RDX is kept in R8.
global_asm!(
    ".globl noted_start",
    "noted_start:",
    "mov r8, rdx",
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "mov [rip + {first}], rax",
    "mov rdx, r8",
    "jmp _start",
    first = sym FIRST,
);

fn main(_runtime: Runtime) -> i64 {
    let first = FIRST.load(Ordering::Relaxed);
    let lasted = ticks() - first;
    (first & ((1 << FIRST_BITS) - 1) | lasted << FIRST_BITS) as i64
}

entry_point!(main);
