//! Reads address zero. Must fault there.
#![no_std]
#![no_main]

use sel4::BootInfoPtr;
use sel4_root_task::root_task;

#[root_task(stack_size = 16 * 1024)]
fn main(bootinfo: &BootInfoPtr) -> ! {
    root_task_crash::prepare(bootinfo);
    let nothing = core::ptr::with_exposed_provenance::<u8>(core::hint::black_box(0));
    // SAFETY: there is none: this must fault.
    core::hint::black_box(unsafe { nothing.read_volatile() });
    root_task_crash::survived()
}
