//! Recurses until its stack is used up, and one page further.
#![no_std]
#![no_main]

use core::hint::black_box;

use capos::prelude::*;

#[inline(never)]
fn descend(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if black_box(true) {
        descend(depth + 1) + frame[63]
    } else {
        depth
    }
}

fn main(_runtime: Runtime) -> i64 {
    descend(0) as i64
}

entry_point!(main);
