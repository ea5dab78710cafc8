//! Uses what memory it was promised: zeroed statics, most of the heap, and most
//! of the stack. Returns 0 if every byte read back is the one written.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::hint::black_box;
use core::sync::atomic::{AtomicU8, Ordering};

use capos::prelude::*;

const PAGE_BYTES: usize = 4096;
/// Of the 3 MiB heap.
const HEAP_BYTES: usize = 2 << 20;
/// Of the 64 KiB stack.
const STACK_BYTES: usize = 40 << 10;
const STATIC_BYTES: usize = 64 << 10;

static ZEROED: [AtomicU8; STATIC_BYTES] = [const { AtomicU8::new(0) }; STATIC_BYTES];

/// A value that differs between neighbouring pages.
fn mark(index: usize) -> u8 {
    (index / PAGE_BYTES * 7 + index) as u8
}

fn statics_are_zero_and_hold() -> bool {
    let zero = ZEROED.iter().all(|byte| byte.load(Ordering::Relaxed) == 0);
    for (index, byte) in ZEROED.iter().enumerate() {
        byte.store(mark(index), Ordering::Relaxed);
    }
    let held = ZEROED.iter().enumerate();
    zero && held
        .into_iter()
        .all(|(index, byte)| byte.load(Ordering::Relaxed) == mark(index))
}

fn heap_holds() -> bool {
    let bytes: Vec<u8> = (0..HEAP_BYTES).map(mark).collect();
    black_box(&bytes)
        .iter()
        .enumerate()
        .all(|(index, &byte)| byte == mark(index))
}

#[inline(never)]
fn stack_holds() -> bool {
    let mut bytes = [0; STACK_BYTES];
    for (index, byte) in black_box(&mut bytes).iter_mut().enumerate() {
        *byte = mark(index);
    }
    black_box(&bytes)
        .iter()
        .enumerate()
        .all(|(index, &byte)| byte == mark(index))
}

fn main(_runtime: Runtime) -> i64 {
    if !statics_are_zero_and_hold() {
        return 1;
    }
    if !heap_holds() {
        return 2;
    }
    if !stack_holds() {
        return 3;
    }
    0
}

entry_point!(main);
