//! Executes a `syscall` instruction nobody could have seen in its file: it is
//! put together at run time, in memory that is data.
//!
//! Where the instruction reaches the kernel directly this ends the program.
//! Where it arrives as a system call like any other, the program exits with 42.
#![no_std]
#![no_main]

use core::arch::asm;
use core::hint::black_box;

use capos::prelude::*;

const SYSCALL_EXIT: u64 = 1;
const EXIT_CODE: u64 = 42;
/// Not the number of any kernel call.
const NO_KERNEL_CALL: u64 = 0x1234;

fn main(_runtime: Runtime) -> i64 {
    // `syscall; ret`, each byte complemented so that the file does not hold it.
    let complement: [u8; 3] = black_box([0xf0, 0xfa, 0x3c]);
    let mut code = complement.map(|byte| !byte);
    let entry = black_box(&mut code).as_mut_ptr();
    // SAFETY: `entry` points to an instruction sequence that ends in a return,
    // in memory that lives until then; clobbers are those of a system call. If
    // memory of data cannot be executed, the program ends here.
    unsafe {
        asm!("call {entry}", entry = in(reg) entry, inout("rax") SYSCALL_EXIT => _,
             in("rdi") EXIT_CODE, in("rdx") NO_KERNEL_CALL, out("rcx") _, out("r11") _);
    }
    1
}

entry_point!(main);
