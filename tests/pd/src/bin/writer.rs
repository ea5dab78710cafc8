//! Fills a shared region and lets `reader` look; its stack and the region lie
//! where the description says.

#![no_std]
#![no_main]

use sel4_microkit::{Channel, Handler, NullHandler, memory_region_symbol, protection_domain, var};
use test_domains::Verdict;

const READER: Channel = Channel::new(2);
const SIZED: Verdict = Verdict::new(10);
const BYTES: usize = 0x3000;

#[protection_domain]
fn init() -> impl Handler {
    let region = memory_region_symbol!(shared_vaddr: *mut [u8], n = BYTES);
    let start = region.cast::<u8>();
    for offset in 0..BYTES {
        // SAFETY: the description maps `BYTES` bytes there, writable.
        unsafe { start.add(offset).write_volatile(offset as u8 ^ 0x5a) };
    }
    SIZED.passed(var!(shared_size: u64 = 0) == BYTES as u64);
    READER.notify();
    NullHandler
}
