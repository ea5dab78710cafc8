//! Compares what `writer` wrote, then writes where it may only read.

#![no_std]
#![no_main]

use core::convert::Infallible;

use sel4_microkit::{Channel, ChannelSet, Handler, memory_region_symbol, protection_domain};
use test_domains::Verdict;

const WRITER: Channel = Channel::new(2);
const SAME: Verdict = Verdict::new(10);
const BYTES: usize = 0x3000;

struct Reader;

#[protection_domain]
fn init() -> impl Handler {
    Reader
}

impl Handler for Reader {
    type Error = Infallible;

    fn notified(&mut self, channels: ChannelSet) -> Result<(), Infallible> {
        if channels.contains(WRITER) {
            let start = memory_region_symbol!(shared_vaddr: *mut [u8], n = BYTES).cast::<u8>();
            // SAFETY: the description maps `BYTES` bytes there, readable.
            let byte = |offset| unsafe { start.add(offset).read_volatile() };
            SAME.passed((0..BYTES).all(|offset| byte(offset) == offset as u8 ^ 0x5a));
            // SAFETY: the page is there, but read-only: the write faults.
            unsafe { start.write_volatile(0) };
        }
        Ok(())
    }
}
