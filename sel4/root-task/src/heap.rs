//! The heap: an allocator over one static.

use core::cell::UnsafeCell;

use spinning_top::RawSpinlock;
use talc::TalcLock;
use talc::source::Claim;

/// The allocator. Its lock is for form: one thread allocates.
pub type Heap = TalcLock<RawSpinlock, Claim>;

unsafe extern "Rust" {
    /// Of the heap that the program declared.
    fn __sel4_root_task_extend_heap(base: *mut u8, size: usize) -> bool;
}

/// Gives the heap more memory than it was declared with. Memory in the image is
/// unpacked by the loader and cleared byte by byte at boot; memory a program
/// retypes later is cheaper.
///
/// Returns whether the range is large enough to be of use.
///
/// # Safety
/// The `size` bytes at `base` are mapped writable, belong to nobody else, and
/// stay so for ever.
pub unsafe fn extend_heap(base: *mut u8, size: usize) -> bool {
    // SAFETY: as the caller vouches.
    unsafe { __sel4_root_task_extend_heap(base, size) }
}

const PAGE: usize = sel4::GRANULE_SIZE;

/// Memory for a heap, in pages.
#[repr(C, align(4096))]
pub struct Memory<const PAGES: usize>(UnsafeCell<[[u8; PAGE]; PAGES]>);

// SAFETY: only the allocator made by `heap` touches the bytes, under its lock.
unsafe impl<const PAGES: usize> Sync for Memory<PAGES> {}

impl<const PAGES: usize> Memory<PAGES> {
    /// Memory of zeros.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "only ever a static")]
    pub const fn new() -> Self {
        Self(UnsafeCell::new([[0; PAGE]; PAGES]))
    }

    /// Pages for `bytes`.
    #[must_use]
    pub const fn pages(bytes: usize) -> usize {
        bytes.div_ceil(PAGE)
    }

    /// An allocator over the memory.
    ///
    /// # Safety
    /// It is called once.
    #[must_use]
    pub const unsafe fn heap(&'static self) -> Heap {
        let base = self.0.get().cast::<u8>();
        // SAFETY: the bytes are a static's, and as the caller vouches nothing
        // else uses them.
        Heap::new(unsafe { Claim::new(base, PAGES * PAGE) })
    }
}
