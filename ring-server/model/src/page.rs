//! A ring page in host memory, reached by pointer as on the real machine.

use std::cell::UnsafeCell;
use std::ptr;
use std::rc::Rc;

use capos_config::ring::{CapCqe, CapRingHeader, CapSqe, cqe_at_mut, init_ring_header, sqe_at};
use ring_server_core::{RingPage, RingWord};

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

/// Shared handle on one page; the server and the simulated client hold one
/// each.
///
/// # Invariants
/// - **G1** The page lives as long as any handle, is 4096-aligned, and is only
///   touched by volatile accesses or by raw copies from the one thread that
///   `Rc` confines it to.
#[derive(Clone)]
pub struct ModelRing(Rc<Page>);

impl std::fmt::Debug for ModelRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ModelRing({:p})", self.as_ptr())
    }
}

impl Default for ModelRing {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelRing {
    /// A zeroed page with the ABI's header.
    pub fn new() -> Self {
        let ring = Self(Rc::new(Page(UnsafeCell::new([0; 4096]))));
        // SAFETY: G1: the page was just allocated, zeroed and is not shared.
        unsafe { init_ring_header(ring.as_ptr().cast::<CapRingHeader>()) };
        ring
    }

    /// Start of the page, for client code that takes a pointer.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.0.get().cast()
    }

    fn word(&self, offset: usize) -> *mut u32 {
        assert!(offset.is_multiple_of(4) && offset < 4096);
        // SAFETY: the offset was just checked to lie in the page (G1).
        unsafe { self.as_ptr().add(offset).cast() }
    }

    /// Reads any aligned word of the page.
    pub fn load_at(&self, offset: usize) -> u32 {
        // SAFETY: `word` gives an aligned address inside the live page (G1).
        unsafe { ptr::read_volatile(self.word(offset)) }
    }

    /// Writes any aligned word of the page: clients may.
    pub fn store_at(&self, offset: usize, value: u32) {
        // SAFETY: as for `load_at`.
        unsafe { ptr::write_volatile(self.word(offset), value) }
    }

    /// Writes submission `slot` as a client does.
    pub fn write_sqe(&self, slot: u32, sqe: &CapSqe) {
        assert!(slot < capos_config::ring::SQ_ENTRIES);
        // SAFETY: the slot was checked, so the entry lies in the page (G1).
        unsafe { ptr::write_volatile(sqe_at(self.as_ptr(), slot).cast_mut(), *sqe) }
    }

    /// Reads completion `slot` as a client does.
    pub fn read_cqe(&self, slot: u32) -> CapCqe {
        assert!(slot < capos_config::ring::CQ_ENTRIES);
        // SAFETY: the slot was checked, so the entry lies in the page (G1).
        unsafe { ptr::read_volatile(cqe_at_mut(self.as_ptr(), slot)) }
    }
}

impl RingPage for ModelRing {
    #[inline]
    fn load(&self, word: RingWord) -> u32 {
        // SAFETY: every `RingWord` is an aligned offset inside the page (G1).
        unsafe { ptr::read_volatile(self.as_ptr().add(word.offset()).cast()) }
    }

    #[inline]
    fn store(&self, word: RingWord, value: u32) {
        // SAFETY: as for `load`.
        unsafe { ptr::write_volatile(self.as_ptr().add(word.offset()).cast(), value) }
    }

    #[inline]
    fn read_sqe(&self, slot: u32) -> CapSqe {
        debug_assert!(slot < capos_config::ring::SQ_ENTRIES);
        // SAFETY: the core masks the slot, so the entry lies in the page (G1).
        unsafe { ptr::read_volatile(sqe_at(self.as_ptr(), slot)) }
    }

    #[inline]
    fn write_cqe(&self, slot: u32, cqe: &CapCqe) {
        debug_assert!(slot < capos_config::ring::CQ_ENTRIES);
        // SAFETY: the core masks the slot, so the entry lies in the page (G1).
        unsafe { ptr::write_volatile(cqe_at_mut(self.as_ptr(), slot), *cqe) }
    }
}
