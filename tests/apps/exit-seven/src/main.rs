//! Returns 7, and asks for nothing.
#![no_std]
#![no_main]

use capos::prelude::*;

fn main(_runtime: Runtime) -> i64 {
    7
}

entry_point!(main);
