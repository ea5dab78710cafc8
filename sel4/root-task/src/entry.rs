//! Entry and stack.

use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::fmt::Debug;
use core::mem::offset_of;
use core::ops::Range;
use core::ptr::NonNull;

use sel4::init_thread::slot;
use sel4::{BootInfo, BootInfoPtr, Cap, CapRights, GRANULE_SIZE, VmAttributes, cap};

use crate::Never;

/// A stack of `PAGES` pages above a guard page. Its bytes are written behind
/// the language's back, by whatever runs on it.
#[repr(C, align(4096))]
pub struct Stack<const PAGES: usize> {
    guard: UnsafeCell<[u8; GRANULE_SIZE]>,
    body: UnsafeCell<[[u8; GRANULE_SIZE]; PAGES]>,
}

// SAFETY: nothing reaches the bytes through the static; see R2.
unsafe impl<const PAGES: usize> Sync for Stack<PAGES> {}

const _: () = assert!(align_of::<Stack<1>>() == GRANULE_SIZE);

impl<const PAGES: usize> Stack<PAGES> {
    /// An empty stack.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "only ever a static")]
    pub const fn new() -> Self {
        Self {
            guard: UnsafeCell::new([0; GRANULE_SIZE]),
            body: UnsafeCell::new([[0; GRANULE_SIZE]; PAGES]),
        }
    }

    /// Pages for a stack of `bytes`.
    #[must_use]
    pub const fn pages(bytes: usize) -> usize {
        bytes.div_ceil(GRANULE_SIZE)
    }

    /// Where it begins and ends.
    #[must_use]
    pub const fn bounds(&'static self) -> StackBounds {
        StackBounds {
            guard: self.guard.get().cast(),
            // The end of the array, a multiple of the page size.
            top: self
                .body
                .get()
                .cast::<u8>()
                .wrapping_add(PAGES * GRANULE_SIZE),
        }
    }
}

/// What the entry needs to know of the stack.
#[repr(C)]
pub struct StackBounds {
    pub(crate) guard: *mut u8,
    pub(crate) top: *mut u8,
}

// SAFETY: the addresses are only ever turned into numbers.
unsafe impl Sync for StackBounds {}

unsafe extern "Rust" {
    /// Defined by `#[root_task]`.
    safe static __sel4_root_task_stack: StackBounds;
    /// Defined by `#[root_task]`.
    safe fn __sel4_root_task_main(bootinfo: &BootInfoPtr) -> !;
}

unsafe extern "C" {
    /// First byte of the image.
    static __image_start: u8;
    /// First byte that the program may write.
    static __image_writable: u8;
}

/// Where the kernel starts the initial thread.
///
/// # Safety
/// Only the kernel calls it: without a stack, the bootinfo's address in RDI.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text._start")]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "mov rsp, [rip + {stack} + {top}]",
        // The outermost frame.
        "xor ebp, ebp",
        "call {entry}",
        "ud2",
        stack = sym __sel4_root_task_stack,
        top = const offset_of!(StackBounds, top),
        entry = sym entry,
    )
}

/// The first Rust code, on the declared stack.
///
/// # Safety
/// `bootinfo` is what the kernel passed.
unsafe extern "C" fn entry(bootinfo: NonNull<BootInfo>) -> ! {
    // SAFETY: the kernel keeps the frame mapped and unchanged.
    let bootinfo = unsafe { BootInfoPtr::new(bootinfo) };
    let buffer = NonNull::new(bootinfo.ipc_buffer()).expect("the kernel maps an IPC buffer");
    // SAFETY: it is the initial thread's buffer, and this is the initial thread.
    unsafe { sel4::set_ipc_buffer(buffer) };
    protect_image(&bootinfo);
    unmap_guard(&bootinfo, __sel4_root_task_stack.guard);
    __sel4_root_task_main(&bootinfo)
}

/// The addresses of the image, with the boot archive packed behind it.
/// Everything above is free for the program to map things at.
#[must_use]
pub fn image_range(bootinfo: &BootInfo) -> Range<usize> {
    let start = (&raw const __image_start).addr();
    start..start + bootinfo.user_image_frames().len() * GRANULE_SIZE
}

/// Makes code and constants read-only: the kernel maps the image writable.
fn protect_image(bootinfo: &BootInfo) {
    let writable = (&raw const __image_writable).addr();
    for address in (image_range(bootinfo).start..writable).step_by(GRANULE_SIZE) {
        image_frame(bootinfo, address)
            .frame_remap(
                slot::VSPACE.cap(),
                address,
                CapRights::read_only(),
                VmAttributes::DEFAULT,
            )
            .expect("the image's frames can be mapped again");
    }
}

/// Takes a stack's guard page out of the address space.
pub(crate) fn unmap_guard(bootinfo: &BootInfo, guard: *const u8) {
    image_frame(bootinfo, guard.addr())
        .frame_unmap()
        .expect("the image's frames can be unmapped");
}

/// The frame of the page of the image at `address` (R1).
fn image_frame(bootinfo: &BootInfo, address: usize) -> cap::Granule {
    let page = (address - image_range(bootinfo).start) / GRANULE_SIZE;
    let slot = bootinfo.user_image_frames().start + page;
    assert!(
        bootinfo.user_image_frames().contains(&slot),
        "the image has a frame for {address:#x}"
    );
    Cap::from_bits(slot as u64)
}

/// Ends a `main` that failed.
pub fn finish<E: Debug>(result: Result<Never, E>) -> ! {
    match result {
        Ok(never) => match never {},
        Err(error) => panic!("the root task failed: {error:?}"),
    }
}
