//! Writes to its CapSet page, which must end it; exits with [`UNPUNISHED`]
//! otherwise.
#![no_std]
#![no_main]

use core::hint::black_box;

use capos::prelude::*;

const UNPUNISHED: i64 = 99;

fn main(runtime: Runtime) -> i64 {
    let Some(base) = runtime.capset().base() else {
        return 1;
    };
    // SAFETY: the page is mapped; if it is writable after all, only the names
    // of capabilities change, and nobody reads them any more.
    unsafe { black_box(base.cast_mut()).write_volatile(0) };
    UNPUNISHED
}

entry_point!(main);
