//! Overwrites its own code. Must fault, because code is read-only.
#![no_std]
#![no_main]

use sel4::BootInfoPtr;
use sel4_root_task::root_task;

#[root_task(stack_size = 16 * 1024)]
fn main(bootinfo: &BootInfoPtr) -> ! {
    root_task_crash::prepare(bootinfo);
    let code = core::ptr::with_exposed_provenance_mut::<u8>(main as fn(&BootInfoPtr) -> ! as usize);
    // SAFETY: there is none: this must fault.
    unsafe { code.write_volatile(0x90) };
    root_task_crash::survived()
}
