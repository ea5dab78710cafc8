//! Panics. The runtime prints where through the console, and exits with 101.
#![no_std]
#![no_main]

use capos::prelude::*;

fn main(_runtime: Runtime) -> i64 {
    panic!("on purpose");
}

entry_point!(main);
