//! The capability ring without a client in between: entries go in exactly as
//! written, valid or not.
#![no_std]

use core::ptr;
use core::sync::atomic::{Ordering, fence};

use capos_config::ring::{self, CapCqe, CapRingHeader, CapSqe};

/// An entry with every field but the operation zero.
pub const fn entry(opcode: u8) -> CapSqe {
    CapSqe {
        opcode,
        flags: 0,
        method_id: 0,
        cap_id: 0,
        user_data: 0,
        addr: 0,
        len: 0,
        result_len: 0,
        result_addr: 0,
        pipeline_dep: 0,
        pipeline_field: 0,
        xfer_cap_count: 0,
        call_id: 0,
        session_disclosure: 0,
    }
}

/// The ring of this process.
pub struct RawRing {
    base: *mut u8,
}

impl RawRing {
    /// Takes the ring page at `base`.
    ///
    /// # Safety
    /// `base` is the ring page of this process, and nothing else uses the ring
    /// while the value lives.
    pub unsafe fn new(base: *mut u8) -> Self {
        Self { base }
    }

    fn header(&self) -> *mut CapRingHeader {
        self.base.cast()
    }

    /// Writes `entries` behind each other and publishes them together. At most
    /// as many as the submission queue has room for.
    pub fn submit(&mut self, entries: &[CapSqe]) {
        let header = self.header();
        // SAFETY: by the contract of `new` the page is mapped and ours; the
        // mask keeps every slot inside it.
        unsafe {
            let mut tail = ring::sq_tail(header);
            for entry in entries {
                let slot = ring::sqe_at(self.base, tail & (ring::SQ_ENTRIES - 1));
                ptr::write_volatile(slot.cast_mut(), *entry);
                tail = tail.wrapping_add(1);
            }
            fence(Ordering::Release);
            ring::publish_sq_tail(header, tail);
        }
    }

    /// Takes the oldest completion, if there is one.
    pub fn take(&mut self) -> Option<CapCqe> {
        let header = self.header();
        // SAFETY: as in `submit`.
        unsafe {
            let head = ring::cq_head(header);
            if head == ring::cq_tail(header) {
                return None;
            }
            fence(Ordering::Acquire);
            let cqe = ptr::read_volatile(ring::cqe_at(self.base, head & (ring::CQ_ENTRIES - 1)));
            ring::set_cq_head(header, head.wrapping_add(1));
            Some(cqe)
        }
    }

    /// Drops all completions that are there; returns how many.
    pub fn drain(&mut self) -> usize {
        core::iter::from_fn(|| self.take()).count()
    }
}
