//! Claims that the serial driver's ring holds more than it can, and has the
//! driver look.

#![no_std]
#![no_main]

use sel4_microkit::{Channel, Handler, NullHandler, memory_region_symbol, protection_domain};

const DRIVER: Channel = Channel::new(0);
/// Offset of the writer's counter.
const WRITTEN: usize = 64;

#[protection_domain]
fn init() -> impl Handler {
    let ring = memory_region_symbol!(output_vaddr: *mut [u8], n = 0x9000).cast::<u8>();
    // SAFETY: the description maps the region there, writable; the counter is
    // aligned in its first page.
    unsafe { ring.add(WRITTEN).cast::<u32>().write_volatile(0x7fff_ffff) };
    DRIVER.notify();
    NullHandler
}
