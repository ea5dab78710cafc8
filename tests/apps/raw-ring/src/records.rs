//! Records in one page that two processes map: a ring of indices with one
//! producer and one consumer, and the records it points to.
//!
//! ```text
//!   0  tail: entries ever published, written by the producer only
//!  64  head: entries ever taken, written by the consumer only
//! 128  8 entries of 16 bytes: slot (u32), unused, checksum (u64)
//! 256  8 slots of 256 bytes
//! ```
//!
//! The other side may write anything anywhere at any time. So that this can
//! only spoil records:
//!
//! # Invariants
//! - PRIVATE: each side counts in its own memory and only publishes its count;
//!   it never reads back what it published.
//! - ONCE: a word of the other side is read once, into a local, and judged
//!   there. A record's words are read once each, by the checksum, which is all
//!   that a consumer here makes of them.
//! - BOUNDED: a count that is further ahead than the ring can be, and a slot
//!   beyond the last, are refused; places in the ring are masked.
//!
//! Counts wrap; with 2^32 a multiple of the ring their difference stays right.

use core::sync::atomic::{AtomicU32, Ordering};

/// Entries of the ring, and slots.
pub const ENTRIES: u32 = 8;
/// Bytes of a record.
pub const RECORD_BYTES: u64 = 256;
/// Place of the producer's count.
pub const TAIL: u64 = 0;
/// Place of the consumer's count.
pub const HEAD: u64 = 64;
/// Place of the first entry.
pub const FIRST_ENTRY: u64 = 128;

const ENTRY_BYTES: u64 = 16;
const CHECKSUM_OFFSET: u64 = 8;
const SLOTS: u64 = 256;
const WORD_BYTES: u64 = 8;

const _: () = assert!(ENTRIES.is_power_of_two());
const _: () = assert!(FIRST_ENTRY + ENTRIES as u64 * ENTRY_BYTES <= SLOTS);
const _: () = assert!(SLOTS + ENTRIES as u64 * RECORD_BYTES <= crate::objects::PAGE);

/// What the other side did wrong. Nothing it published since can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The producer says it published more than the ring holds.
    Tail = 1,
    /// The consumer says it took what was not published, or gave some back.
    Head = 2,
    /// An entry points beyond the last slot.
    Slot = 3,
    /// A record is not what its entry says.
    Checksum = 4,
}

/// The shared page.
#[derive(Clone, Copy, Debug)]
pub struct SharedPage {
    at: u64,
}

impl SharedPage {
    /// The page at `at`.
    ///
    /// # Safety
    /// The page is mapped for reading and writing while a copy of the value is
    /// used, and nothing of Rust's lies in it.
    pub unsafe fn new(at: u64) -> Self {
        Self { at }
    }

    /// Sets both counts to zero, for a new producer and a new consumer.
    pub fn reset(self) {
        self.overwrite(TAIL, 0);
        self.overwrite(HEAD, 0);
    }

    /// Writes a word of counts or entries, as an attacker would.
    ///
    /// # Panics
    /// If there is no such word.
    pub fn overwrite(self, offset: u64, value: u32) {
        assert!(offset < SLOTS && offset.is_multiple_of(4));
        self.word(offset).store(value, Ordering::Release);
    }

    /// Writes record number `number` into a slot; its checksum.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn write(self, slot: u32, number: u64) -> u64 {
        let record = self.record(slot);
        (0..RECORD_BYTES / WORD_BYTES).fold(SEED, |sum, index| {
            let word = word_of(number, index);
            let place = record.wrapping_add(index as usize);
            // SAFETY: the index is below the words of a slot, and the slot is
            // in the page; see `new`.
            unsafe { place.write_volatile(word) };
            mix(sum, word)
        })
    }

    /// The checksum of what is in a slot.
    ///
    /// # Errors
    /// [`Refusal::Slot`]
    pub fn checksum(self, slot: u32) -> Result<u64, Refusal> {
        if slot >= ENTRIES {
            return Err(Refusal::Slot);
        }
        let record = self.record(slot);
        Ok((0..RECORD_BYTES / WORD_BYTES).fold(SEED, |sum, index| {
            let place = record.wrapping_add(index as usize);
            // SAFETY: as in `write`.
            mix(sum, unsafe { place.read_volatile() })
        }))
    }

    /// Checks a record; its checksum.
    ///
    /// # Errors
    /// [`Refusal::Slot`], [`Refusal::Checksum`]
    pub fn check(self, slot: u32, checksum: u64) -> Result<u64, Refusal> {
        let actual = self.checksum(slot)?;
        if actual == checksum {
            Ok(actual)
        } else {
            Err(Refusal::Checksum)
        }
    }

    fn record(self, slot: u32) -> *mut u64 {
        assert!(slot < ENTRIES);
        self.place(SLOTS + u64::from(slot) * RECORD_BYTES)
    }

    fn place<T>(self, offset: u64) -> *mut T {
        core::ptr::with_exposed_provenance_mut((self.at + offset) as usize)
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: callers pass a multiple of four below `SLOTS`; the page is
        // mapped, see `new`, and such words are accessed by this function only.
        unsafe { AtomicU32::from_ptr(self.place(offset)) }
    }

    /// Place of the entry that `count` entries precede.
    fn entry(count: u32) -> u64 {
        FIRST_ENTRY + u64::from(count & (ENTRIES - 1)) * ENTRY_BYTES
    }

    fn store_entry(self, count: u32, slot: u32, checksum: u64) {
        let at = Self::entry(count);
        let low = at + CHECKSUM_OFFSET;
        self.word(at).store(slot, Ordering::Relaxed);
        self.word(low).store(checksum as u32, Ordering::Relaxed);
        let high = (checksum >> 32) as u32;
        self.word(low + 4).store(high, Ordering::Relaxed);
    }

    fn load_entry(self, count: u32) -> (u32, u64) {
        let at = Self::entry(count);
        let half = |offset| u64::from(self.word(offset).load(Ordering::Relaxed));
        let low = at + CHECKSUM_OFFSET;
        let slot = self.word(at).load(Ordering::Relaxed);
        (slot, half(low) | half(low + 4) << 32)
    }
}

/// The side that writes records.
#[derive(Debug)]
pub struct Producer {
    page: SharedPage,
    /// Entries written.
    tail: u32,
    /// Entries known to be taken; at most `ENTRIES` behind `tail`.
    head: u32,
}

impl Producer {
    /// The producer of a page whose counts are zero.
    pub fn new(page: SharedPage) -> Self {
        let (tail, head) = (0, 0);
        Self { page, tail, head }
    }

    /// Entries that can be written, after a look at what was taken.
    ///
    /// # Errors
    /// [`Refusal::Head`]
    pub fn room(&mut self) -> Result<u32, Refusal> {
        let head = self.page.word(HEAD).load(Ordering::Acquire);
        if head.wrapping_sub(self.head) > self.tail.wrapping_sub(self.head) {
            return Err(Refusal::Head);
        }
        self.head = head;
        Ok(ENTRIES - self.tail.wrapping_sub(head))
    }

    /// Writes record `number` and its entry; its checksum, or nothing while the
    /// ring is full. The consumer sees it after [`Self::publish`].
    ///
    /// # Errors
    /// [`Refusal::Head`]
    pub fn put(&mut self, number: u64) -> Result<Option<u64>, Refusal> {
        if self.tail.wrapping_sub(self.head) == ENTRIES && self.room()? == 0 {
            return Ok(None);
        }
        // Any order that uses each slot once in a round will do; an odd factor
        // makes one in which slot and place differ.
        let slot = self.tail.wrapping_mul(5) & (ENTRIES - 1);
        let checksum = self.page.write(slot, number);
        self.page.store_entry(self.tail, slot, checksum);
        self.tail = self.tail.wrapping_add(1);
        Ok(Some(checksum))
    }

    /// Shows the consumer all that was put.
    pub fn publish(&self) {
        self.page.word(TAIL).store(self.tail, Ordering::Release);
    }
}

/// The side that takes records.
#[derive(Debug)]
pub struct Consumer {
    page: SharedPage,
    /// Entries taken.
    head: u32,
    /// Entries known to be published; at most `ENTRIES` ahead of `head`.
    tail: u32,
}

impl Consumer {
    /// The consumer of a page whose counts are zero.
    pub fn new(page: SharedPage) -> Self {
        let (tail, head) = (0, 0);
        Self { page, head, tail }
    }

    /// Takes and checks the oldest record, if there is one; its checksum.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn take(&mut self) -> Result<Option<u64>, Refusal> {
        if self.head == self.tail && self.ready()? == 0 {
            return Ok(None);
        }
        let (slot, checksum) = self.page.load_entry(self.head);
        let seen = self.page.check(slot, checksum)?;
        self.head = self.head.wrapping_add(1);
        self.page.word(HEAD).store(self.head, Ordering::Release);
        Ok(Some(seen))
    }

    /// Entries that can be taken, after a look at what was published.
    fn ready(&mut self) -> Result<u32, Refusal> {
        let tail = self.page.word(TAIL).load(Ordering::Acquire);
        let ready = tail.wrapping_sub(self.head);
        if ready > ENTRIES {
            return Err(Refusal::Tail);
        }
        self.tail = tail;
        Ok(ready)
    }
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// Adds a word to a checksum in which each word's place counts.
fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x100_0000_01b3)
}

/// What is in a record: different in each of its words, and in each record.
fn word_of(number: u64, index: u64) -> u64 {
    (number << 32 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
