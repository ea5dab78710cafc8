//! The capability ring without a client in between: entries go in exactly as
//! written, valid or not.
//!
//! [`RawRing`] is the queue pair, [`Sqe`] says what an entry holds, [`Message`]
//! and [`Mailbox`] are the two buffers of an endpoint call, and [`proof`] runs a
//! program that proves one thing and says so.
#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};
use core::{mem, ptr};

use capos::syscall::cap_enter;
use capos_config::ring::{self, CapCqe, CapRingHeader, CapSqe};

pub mod bench;
pub mod chance;
mod entry;
pub mod exception;
pub mod exchange;
pub mod family;
pub mod holds;
pub mod latency;
pub mod loopback;
pub mod memory;
pub mod memory_entries;
mod message;
pub mod objects;
pub mod proof;
pub mod records;
pub mod sharer;
pub mod spawner;
pub mod threads;
pub mod timer;
pub mod zerocopy;

pub use entry::{Sqe, call, cancel, entry, nop, receive, release, returns};
pub use loopback::Loopback;
pub use message::{Delivery, Mailbox, Message, Record, copied, moved};
pub use proof::{Failure, Process, Proof};

/// An entry and a completion as words: both are integers without padding.
type SqeWords = [u64; size_of::<CapSqe>() / size_of::<u64>()];
type CqeWords = [u64; size_of::<CapCqe>() / size_of::<u64>()];

/// Longest wait for something that should happen, in nanoseconds.
pub const PATIENCE_NS: u64 = 20_000_000_000;

/// The ring of this process.
pub struct RawRing {
    base: *mut u8,
    /// Completions that were taken while another one was waited for.
    kept: Vec<CapCqe>,
    next_user_data: u64,
}

impl RawRing {
    /// Takes the ring page at `base`.
    ///
    /// # Safety
    /// `base` is the ring page of this process, and nothing else uses the ring
    /// while the value lives.
    pub unsafe fn new(base: *mut u8) -> Self {
        Self {
            base,
            kept: Vec::new(),
            next_user_data: 0x1000,
        }
    }

    /// The header at the start of the page, for reading and corrupting.
    pub fn header(&self) -> *mut CapRingHeader {
        self.base.cast()
    }

    /// The first byte of the page.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// A `user_data` that was not used before.
    pub fn fresh_user_data(&mut self) -> u64 {
        self.next_user_data += 1;
        self.next_user_data
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
                // By words, which is half as many writes as by fields.
                let words = mem::transmute::<CapSqe, SqeWords>(*entry);
                ptr::write_volatile(slot.cast_mut().cast(), words);
                tail = tail.wrapping_add(1);
            }
            fence(Ordering::Release);
            ring::publish_sq_tail(header, tail);
        }
    }

    /// Submits and lets the system take what it can, without waiting.
    ///
    /// # Errors
    /// The system refused to take anything.
    pub fn flush(&mut self, entries: &[CapSqe]) -> Result<u32, Failure> {
        self.submit(entries);
        cap_enter(0, 0).map_err(|error| Failure::new(alloc::format!("cap_enter: {error:?}")))
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
            let slot = ring::cqe_at(self.base, head & (ring::CQ_ENTRIES - 1));
            let words: CqeWords = ptr::read_volatile(slot.cast());
            ring::set_cq_head(header, head.wrapping_add(1));
            Some(mem::transmute::<CqeWords, CapCqe>(words))
        }
    }

    /// Drops all completions that are there; returns how many.
    pub fn drain(&mut self) -> usize {
        self.kept.clear();
        core::iter::from_fn(|| self.take()).count()
    }

    /// The completion of `user_data`, if it came; the others are kept.
    pub fn find(&mut self, user_data: u64) -> Option<CapCqe> {
        while let Some(cqe) = self.take() {
            self.kept.push(cqe);
        }
        let at = self
            .kept
            .iter()
            .position(|cqe| cqe.user_data == user_data)?;
        Some(self.kept.remove(at))
    }

    /// How many completions came that nobody asked for yet.
    pub fn unclaimed(&mut self) -> usize {
        while let Some(cqe) = self.take() {
            self.kept.push(cqe);
        }
        self.kept.len()
    }

    /// Waits for the completion of `user_data`; the others are kept.
    ///
    /// # Errors
    /// It does not come.
    pub fn wait(&mut self, user_data: u64) -> Result<CapCqe, Failure> {
        loop {
            if let Some(cqe) = self.find(user_data) {
                return Ok(cqe);
            }
            match cap_enter(1, PATIENCE_NS) {
                Ok(0) => return Err(Failure::new("a completion does not come")),
                Ok(_) => {}
                Err(error) => return Err(Failure::new(alloc::format!("cap_enter: {error:?}"))),
            }
        }
    }

    /// Submits one entry under a fresh `user_data` and waits for its
    /// completion.
    ///
    /// # Errors
    /// It does not come.
    pub fn perform(&mut self, sqe: CapSqe) -> Result<CapCqe, Failure> {
        let user_data = self.fresh_user_data();
        self.submit(&[CapSqe { user_data, ..sqe }]);
        self.wait(user_data)
    }

    /// Submits one entry under a fresh `user_data`, which is returned, and
    /// lets the system take it.
    ///
    /// # Errors
    /// The system refused to take anything.
    pub fn start(&mut self, sqe: CapSqe) -> Result<u64, Failure> {
        let user_data = self.fresh_user_data();
        self.flush(&[CapSqe { user_data, ..sqe }])?;
        Ok(user_data)
    }

    /// Performs an entry that is to end with `result`.
    ///
    /// # Errors
    /// It ends otherwise, or not at all.
    pub fn expect(&mut self, what: &str, sqe: CapSqe, result: i32) -> Result<CapCqe, Failure> {
        let cqe = self.perform(sqe)?;
        proof::equal(what, cqe.result, result)?;
        Ok(cqe)
    }
}
