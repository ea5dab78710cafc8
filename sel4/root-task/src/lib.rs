//! Runtime of an seL4 root task: what happens before `main` and when nothing
//! helps any more.
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! use sel4::BootInfoPtr;
//! use sel4_root_task::{Never, root_task};
//!
//! #[root_task(stack_size = 128 * 1024, heap_size = 1024 * 1024)]
//! fn main(bootinfo: &BootInfoPtr) -> Result<Never, sel4::Error> {
//!     ...
//! }
//! ```
//!
//! The package's build script calls `sel4_root_task_build::link()`.
//!
//! # From power to `main`
//! The kernel starts the initial thread at `_start` with the bootinfo's
//! address in RDI and **no stack**. The entry takes the stack that the
//! attribute declared, registers the IPC buffer, makes code and constants
//! read-only, and unmaps the page below the stack, so that an overflow faults
//! instead of overwriting data.
//!
//! The initial thread has no fault handler, so a fault stops it silently,
//! unless [`watch_faults`] was given the memory for one.
//!
//! # Invariants
//! - **R1** The image's pages lie between `__image_start` and
//!   `__boot_archive`, and slot *n* of the bootinfo's image frames holds the
//!   frame of page *n* (`root-task.ld`).
//! - **R2** The stack and the heap are each one static that nothing else
//!   names.
#![no_std]

mod archive;
mod entry;
mod heap;
mod panic;
mod unwind;
mod watch;

// Linked for the symbols it defines.
use freestanding_mem as _;

pub use archive::boot_archive;
pub use entry::image_range;
pub use heap::extend_heap;
pub use panic::{EmergencyConsole, set_emergency_console, set_panic_hook};
pub use sel4_root_task_macros::root_task;
pub use watch::{CrashReport, WATCH_SLOTS, WATCH_UNTYPED_BITS, watch_faults};

/// What a function that never returns returns.
pub type Never = core::convert::Infallible;

/// Stack of a root task that asks for none, in bytes.
pub const DEFAULT_STACK_SIZE: usize = 64 * 1024;

/// Heap of a root task that asks for none, in bytes.
pub const DEFAULT_HEAP_SIZE: usize = 64 * 1024;

#[doc(hidden)]
pub mod _private {
    //! For the macros.
    pub use crate::entry::{Stack, StackBounds, finish};
    pub use crate::heap::{Heap, Memory};
    pub use sel4::BootInfoPtr;
}

/// What `#[root_task]` expands to: the stack and the way to `main`.
#[doc(hidden)]
#[macro_export]
macro_rules! declare_root_task {
    ($ends:ident, $main:path, $stack_size:expr) => {
        const _: () = {
            static STACK: $crate::_private::Stack<
                { $crate::_private::Stack::<0>::pages($stack_size) },
            > = $crate::_private::Stack::new();

            #[unsafe(no_mangle)]
            static __sel4_root_task_stack: $crate::_private::StackBounds = STACK.bounds();

            #[unsafe(no_mangle)]
            fn __sel4_root_task_main(bootinfo: &$crate::_private::BootInfoPtr) -> ! {
        $crate::declare_root_task!(@$ends, $main(bootinfo))
            }
        };
    };
    (@never, $call:expr) => {
        $call
    };
    (@result, $call:expr) => {
        $crate::_private::finish($call)
    };
}

/// Gives the program an allocator with a heap of that many bytes.
#[doc(hidden)]
#[macro_export]
macro_rules! declare_heap {
    ($size:expr) => {
        const _: () = {
            static MEMORY: $crate::_private::Memory<
                { $crate::_private::Memory::<0>::pages($size) },
            > = $crate::_private::Memory::new();

            #[global_allocator]
            // SAFETY: `MEMORY` has no other user.
            static HEAP: $crate::_private::Heap = unsafe { MEMORY.heap() };

            #[unsafe(no_mangle)]
            unsafe fn __sel4_root_task_extend_heap(base: *mut u8, size: usize) -> bool {
                // SAFETY: the caller of `extend_heap` vouches for the memory.
                unsafe { HEAP.lock().claim(base, size) }.is_some()
            }
        };
    };
}
