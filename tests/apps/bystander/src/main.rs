//! Burns all the time it gets and never asks the system for anything.
#![no_std]
#![no_main]

use capos::prelude::*;

fn main(_: Runtime) -> i64 {
    loop {
        core::hint::spin_loop();
    }
}

entry_point!(main);
