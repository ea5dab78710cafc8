//! Recurses without end. Must fault below the stack, at the guard page.
#![no_std]
#![no_main]

use sel4::BootInfoPtr;
use sel4_root_task::root_task;

#[root_task(stack_size = 16 * 1024)]
fn main(bootinfo: &BootInfoPtr) -> ! {
    root_task_crash::prepare(bootinfo);
    core::hint::black_box(deeper(1));
    root_task_crash::survived()
}

/// Uses a little stack and calls itself; the addition keeps it from being a
/// loop.
fn deeper(depth: u64) -> u64 {
    let mut frame = [depth; 32];
    core::hint::black_box(&mut frame);
    if depth == u64::MAX {
        return frame[0];
    }
    deeper(depth + 1).wrapping_add(frame[31])
}
