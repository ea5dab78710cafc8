//! Never waits.

#![no_std]
#![no_main]

use core::hint;

use sel4_microkit::{Handler, NullHandler, protection_domain};

#[protection_domain]
fn init() -> impl Handler {
    let mut rounds = 0_u64;
    while rounds < u64::MAX {
        // No `pause`: an emulator makes it an expensive wait.
        rounds = hint::black_box(rounds + 1);
    }
    NullHandler
}
