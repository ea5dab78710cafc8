//! Faults: it reads an address nothing is mapped at.

#![no_std]
#![no_main]

use sel4_microkit::{Handler, NullHandler, protection_domain};

#[protection_domain]
fn init() -> impl Handler {
    let nowhere = core::ptr::with_exposed_provenance::<u64>(0x6666_0000);
    // SAFETY: nothing is mapped there, so the read faults and yields nothing.
    unsafe { nowhere.read_volatile() };
    NullHandler
}
