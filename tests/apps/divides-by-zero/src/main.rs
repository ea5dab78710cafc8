//! Raises the processor's divide error, exception vector 0.
#![no_std]
#![no_main]

use core::arch::asm;

use capos::prelude::*;

fn main(_runtime: Runtime) -> i64 {
    // SAFETY: only the named registers change. The instruction raises an
    // exception and does not complete.
    unsafe {
        asm!("xor ecx, ecx", "div ecx", out("ecx") _, inout("eax") 1 => _, inout("edx") 0 => _,
             options(nostack, nomem));
    }
    0
}

entry_point!(main);
