//! Panics. Must be reported with file and line.
#![no_std]
#![no_main]

use sel4::BootInfoPtr;
use sel4_root_task::root_task;

#[root_task(stack_size = 16 * 1024)]
fn main(bootinfo: &BootInfoPtr) -> ! {
    root_task_crash::prepare(bootinfo);
    assert!(bootinfo.num_nodes() == 0, "more cores than none");
    root_task_crash::survived()
}
