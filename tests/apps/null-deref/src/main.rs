//! Reads from address 0, which no process has.
#![no_std]
#![no_main]

use core::arch::asm;

use capos::prelude::*;

#[inline(never)]
fn read_from(address: u64) -> i64 {
    let value: i64;
    // SAFETY: the read touches no memory Rust knows of. It is the crime this
    // program exists for, and does not return.
    unsafe {
        asm!("mov {value}, [{address}]", address = in(reg) address, value = out(reg) value,
             options(nostack, readonly));
    }
    value
}

fn main(_runtime: Runtime) -> i64 {
    read_from(0)
}

entry_point!(main);
