//! Runs over the end of its stack: the page below is a guard.

#![no_std]
#![no_main]

use sel4_microkit::{Handler, NullHandler, protection_domain};
use test_domains::Verdict;

const STARTED: Verdict = Verdict::new(10);
/// Bytes of stack in the description.
const STACK_BYTES: usize = 0x2000;

#[protection_domain]
fn init() -> impl Handler {
    STARTED.passed(true);
    let here = 0_u8;
    let below = (&raw const here).addr() - STACK_BYTES;
    let guard = core::ptr::with_exposed_provenance_mut::<u8>(below);
    // SAFETY: the address is below the stack, where nothing is mapped: the
    // write faults.
    unsafe { guard.write_volatile(1) };
    NullHandler
}
