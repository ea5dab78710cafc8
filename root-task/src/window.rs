//! Client pages as the root task sees them, through its own window.
//!
//! # Invariants
//! - **W1** A [`Page`] points to 4096 bytes that stay mapped, readable and
//!   writable in the root task while the frame behind them is allocated. The
//!   owner of a `Page` does not outlive the frame.
//! - **W2** No reference to a client's page is ever made: a client may write
//!   to it whenever it runs. Bytes are copied in or out, words are volatile.

use core::mem::transmute;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, compiler_fence};

use capos_config::ring::{
    CQ_ENTRIES, CapCqe, CapRingHeader, CapSqe, SQ_ENTRIES, cqe_at_mut, sqe_at,
};
use capos_loader::layout::PAGE_BYTES;
use ring_server_core::{RingPage, RingWord};

const LENGTH: usize = PAGE_BYTES as usize;

type SqeWords = [u64; size_of::<CapSqe>() / size_of::<u64>()];
type CqeWords = [u64; size_of::<CapCqe>() / size_of::<u64>()];

/// One client page (W1).
#[derive(Clone, Copy, Debug)]
pub struct Page(NonNull<u8>);

impl Page {
    /// # Safety
    /// `address` must be as W1 says.
    ///
    /// # Panics
    /// For address zero, where no window is.
    pub unsafe fn at(address: u64) -> Self {
        Self(NonNull::new(address as *mut u8).expect("the window is not at address zero"))
    }

    /// First byte.
    pub const fn as_ptr(self) -> *mut u8 {
        self.0.as_ptr()
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Panics
    /// When they do not fit the page.
    pub fn copy_in(self, offset: usize, bytes: &[u8]) {
        assert!(offset <= LENGTH && bytes.len() <= LENGTH - offset);
        // SAFETY: W1, and the assertion keeps the range inside the page; a
        // slice of ours never overlaps the window.
        unsafe {
            self.as_ptr()
                .add(offset)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        }
    }

    /// Copies bytes from `offset` out.
    ///
    /// # Panics
    /// When they do not fit the page.
    pub fn copy_out(self, offset: usize, out: &mut [u8]) {
        assert!(offset <= LENGTH && out.len() <= LENGTH - offset);
        // SAFETY: as in `copy_in`.
        unsafe {
            self.as_ptr()
                .add(offset)
                .copy_to_nonoverlapping(out.as_mut_ptr(), out.len())
        }
    }
}

/// A ring page (design: the server keeps its own indices and believes none in
/// the page).
#[derive(Debug)]
pub struct RingWindow(Page);

impl RingWindow {
    /// The ring page at `page`.
    pub const fn new(page: Page) -> Self {
        Self(page)
    }

    fn word(&self, word: RingWord) -> *mut u32 {
        const { assert!(size_of::<CapRingHeader>() < LENGTH) };
        // SAFETY: the offset is of a field of the header, which is in the page.
        unsafe { self.0.as_ptr().add(word.offset()).cast() }
    }
}

impl RingPage for RingWindow {
    #[inline]
    fn load(&self, word: RingWord) -> u32 {
        // SAFETY: W1; header words are 4-aligned in a page.
        let value = unsafe { self.word(word).read_volatile() };
        compiler_fence(Ordering::Acquire);
        value
    }

    #[inline]
    fn store(&self, word: RingWord, value: u32) {
        compiler_fence(Ordering::Release);
        // SAFETY: as in `load`.
        unsafe { self.word(word).write_volatile(value) }
    }

    #[inline]
    fn read_sqe(&self, slot: u32) -> CapSqe {
        debug_assert!(slot < SQ_ENTRIES);
        // By words: by fields it would be twice as many reads.
        // SAFETY: W1; the slot is inside the array, which is 64-aligned. An
        // entry is integers, so any bits are one.
        unsafe {
            let words = sqe_at(self.0.as_ptr(), slot).cast::<SqeWords>();
            transmute::<SqeWords, CapSqe>(words.read_volatile())
        }
    }

    #[inline]
    fn write_cqe(&self, slot: u32, cqe: &CapCqe) {
        debug_assert!(slot < CQ_ENTRIES);
        // SAFETY: W1; the slot is inside the array, which is 32-aligned. A
        // completion has no padding: `repr(C)`, fields of 8, 4, 2, 2, 8, 4 and
        // 4 bytes.
        unsafe {
            let words = cqe_at_mut(self.0.as_ptr(), slot).cast::<CqeWords>();
            words.write_volatile(transmute::<CapCqe, CqeWords>(*cqe));
        }
    }
}
