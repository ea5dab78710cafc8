//! A ring of bytes in memory that two programs share: one writes, one reads.
//!
//! A region is a page with two counters, then the bytes, a power of two of
//! them. Counters only grow, and wrap at 32 bits; a byte's place is its number
//! modulo the size.
//!
//! # Invariants
//! - **B1** Each side keeps its own counter and never reads it back. The
//!   other's is read once per operation, and believed only if the ring could
//!   hold the difference.
//! - **B2** The writer's counter is stored with release after the bytes and
//!   loaded with acquire before them; the reader's likewise for the room.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Bytes before the first of the ring.
pub const HEADER_BYTES: usize = 4096;
/// Offset of the writer's counter, on a cache line of its own.
const WRITTEN: usize = 64;

/// The other side's counter is impossible: it is faulty, or an attacker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerMisbehavior;

/// Memory that holds a ring.
#[derive(Clone, Copy)]
struct Region {
    read: &'static AtomicU32,
    written: &'static AtomicU32,
    bytes: &'static [AtomicU8],
}

impl Region {
    /// # Safety
    /// As [`Writer::new`].
    unsafe fn new(memory: NonNull<[u8]>) -> Option<Self> {
        let capacity = memory.len().checked_sub(HEADER_BYTES)?;
        let start = memory.cast::<u8>();
        if !capacity.is_power_of_two() || !start.cast::<AtomicU32>().is_aligned() {
            return None;
        }
        // SAFETY: the caller vouches for `memory`, of which the length was just
        // compared; the counters lie in its first page, the bytes behind it.
        unsafe {
            let bytes = start.add(HEADER_BYTES).cast::<AtomicU8>();
            Some(Self {
                read: start.cast::<AtomicU32>().as_ref(),
                written: start.add(WRITTEN).cast::<AtomicU32>().as_ref(),
                bytes: NonNull::slice_from_raw_parts(bytes, capacity).as_ref(),
            })
        }
    }

    fn byte(&self, number: u32) -> &AtomicU8 {
        &self.bytes[number as usize & (self.bytes.len() - 1)]
    }

    /// Bytes in the ring, by both counters (B1).
    fn used(&self, written: u32, read: u32) -> Result<u32, PeerMisbehavior> {
        let used = written.wrapping_sub(read);
        match used as usize <= self.bytes.len() {
            true => Ok(used),
            false => Err(PeerMisbehavior),
        }
    }
}

/// The side that writes.
pub struct Writer {
    region: Region,
    written: u32,
}

impl Writer {
    /// The writer of the ring in `memory`, which goes on where the last one
    /// stopped; `None` where the size is not that of a ring.
    ///
    /// # Safety
    /// `memory` is mapped, readable and writable, for ever, and this program
    /// reaches it only through this ring.
    pub unsafe fn new(memory: NonNull<[u8]>) -> Option<Self> {
        // SAFETY: as the caller vouches.
        let region = unsafe { Region::new(memory) }?;
        Some(Self {
            region,
            written: region.written.load(Ordering::Acquire),
        })
    }

    /// Bytes there is room for.
    ///
    /// # Errors
    /// [`PeerMisbehavior`]
    pub fn room(&self) -> Result<usize, PeerMisbehavior> {
        let read = self.region.read.load(Ordering::Acquire);
        let used = self.region.used(self.written, read)?;
        Ok(self.region.bytes.len() - used as usize)
    }

    /// Writes as much of `bytes` as there is room for; returns how much.
    ///
    /// # Errors
    /// [`PeerMisbehavior`]; nothing is written.
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, PeerMisbehavior> {
        let count = self.room()?.min(bytes.len());
        for (&byte, number) in bytes[..count].iter().zip(0_u32..) {
            let place = self.region.byte(self.written.wrapping_add(number));
            place.store(byte, Ordering::Relaxed);
        }
        self.written = self.written.wrapping_add(count as u32);
        // B2: pairs with the reader's acquire in `pop`.
        self.region.written.store(self.written, Ordering::Release);
        Ok(count)
    }

    /// Takes over the reader's part, while there is no reader: the bytes it
    /// has not taken, oldest first. A counter that cannot be is set right, and
    /// what it stood for is lost.
    pub fn take_back(&mut self) -> Option<u8> {
        let read = self.region.read.load(Ordering::Acquire);
        match self.region.used(self.written, read) {
            Ok(0) => None,
            Ok(_) => {
                let byte = self.region.byte(read).load(Ordering::Relaxed);
                let next = read.wrapping_add(1);
                self.region.read.store(next, Ordering::Release);
                Some(byte)
            }
            Err(PeerMisbehavior) => {
                self.region.read.store(self.written, Ordering::Release);
                None
            }
        }
    }

    /// Sets both counters right, while there is no reader: the writer's own to
    /// what it is, the reader's if it cannot be. What that stood for is lost.
    pub fn mend(&mut self) {
        self.region.written.store(self.written, Ordering::Release);
        let read = self.region.read.load(Ordering::Acquire);
        if self.region.used(self.written, read).is_err() {
            self.region.read.store(self.written, Ordering::Release);
        }
    }
}

/// The side that reads.
pub struct Reader {
    region: Region,
    read: u32,
}

impl Reader {
    /// The reader of the ring in `memory`, which goes on where the last one
    /// stopped; `None` where the size is not that of a ring.
    ///
    /// # Safety
    /// As [`Writer::new`].
    pub unsafe fn new(memory: NonNull<[u8]>) -> Option<Self> {
        // SAFETY: as the caller vouches.
        let region = unsafe { Region::new(memory) }?;
        Some(Self {
            region,
            read: region.read.load(Ordering::Acquire),
        })
    }

    /// Whether the writer has room for nothing more.
    ///
    /// # Errors
    /// [`PeerMisbehavior`]
    pub fn is_full(&self) -> Result<bool, PeerMisbehavior> {
        let written = self.region.written.load(Ordering::Acquire);
        let used = self.region.used(written, self.read)?;
        Ok(used as usize == self.region.bytes.len())
    }

    /// Sets both counters right, while there is no writer: the reader's own to
    /// what it is, the writer's if it cannot be. What that stood for is lost.
    pub fn mend(&mut self) {
        self.region.read.store(self.read, Ordering::Release);
        let written = self.region.written.load(Ordering::Acquire);
        if self.region.used(written, self.read).is_err() {
            self.region.written.store(self.read, Ordering::Release);
        }
    }

    /// The oldest byte. It is given back to the writer at once, so that whoever
    /// follows a reader that dies repeats at most one byte.
    ///
    /// # Errors
    /// [`PeerMisbehavior`]
    pub fn pop(&mut self) -> Result<Option<u8>, PeerMisbehavior> {
        // B2: pairs with the writer's release in `push`.
        let written = self.region.written.load(Ordering::Acquire);
        if self.region.used(written, self.read)? == 0 {
            return Ok(None);
        }
        let byte = self.region.byte(self.read).load(Ordering::Relaxed);
        self.read = self.read.wrapping_add(1);
        // B2: pairs with the writer's acquire in `room`.
        self.region.read.store(self.read, Ordering::Release);
        Ok(Some(byte))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::boxed::Box;
    use std::collections::VecDeque;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const CAPACITY: usize = 16;

    #[repr(align(4096))]
    struct Memory([u8; HEADER_BYTES + CAPACITY]);

    /// A ring whose counters start just before they wrap.
    fn memory(count: u32) -> NonNull<[u8]> {
        let mut memory = Box::new(Memory([0; HEADER_BYTES + CAPACITY]));
        memory.0[..4].copy_from_slice(&count.to_ne_bytes());
        memory.0[WRITTEN..WRITTEN + 4].copy_from_slice(&count.to_ne_bytes());
        let start = NonNull::from(&mut Box::leak(memory).0).cast::<u8>();
        NonNull::slice_from_raw_parts(start, HEADER_BYTES + CAPACITY)
    }

    fn pair(count: u32) -> (Writer, Reader) {
        let memory = memory(count);
        // SAFETY: the memory is leaked and has no other users.
        unsafe { (Writer::new(memory).unwrap(), Reader::new(memory).unwrap()) }
    }

    #[test]
    fn a_size_that_is_no_ring_is_refused() {
        let memory = memory(0);
        let odd = NonNull::slice_from_raw_parts(memory.cast(), HEADER_BYTES + CAPACITY - 1);
        let none = NonNull::slice_from_raw_parts(memory.cast(), HEADER_BYTES);
        // SAFETY: as in `pair`.
        unsafe {
            assert!(Writer::new(odd).is_none());
            assert!(Reader::new(none).is_none());
        }
    }

    #[test]
    fn a_counter_that_cannot_be_is_not_believed() {
        let (mut writer, mut reader) = pair(u32::MAX - 3);
        writer.push(b"abc").unwrap();
        let ahead = writer.written.wrapping_add(1);
        writer.region.read.store(ahead, Ordering::Relaxed);
        assert_eq!(writer.push(b"d"), Err(PeerMisbehavior));
        writer.mend();
        assert_eq!(writer.room(), Ok(CAPACITY));
        let far = reader.read.wrapping_add(CAPACITY as u32 + 1);
        reader.region.written.store(far, Ordering::Relaxed);
        assert_eq!(reader.pop(), Err(PeerMisbehavior));
    }

    #[test]
    fn what_a_reader_leaves_can_be_taken_back() {
        let (mut writer, mut reader) = pair(u32::MAX - 1);
        writer.push(b"abcd").unwrap();
        assert_eq!(reader.pop(), Ok(Some(b'a')));
        let rest: Vec<u8> = core::iter::from_fn(|| writer.take_back()).collect();
        assert_eq!(rest, b"bcd");
        assert_eq!(writer.room(), Ok(CAPACITY));
    }

    proptest! {
        /// Against a queue: nothing is lost, invented or reordered.
        #[test]
        fn it_is_a_bounded_queue(
            start: u32,
            steps in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..24), 0..64),
        ) {
            let (mut writer, mut reader) = pair(start);
            let mut model = VecDeque::new();
            for (step, bytes) in steps.into_iter().enumerate() {
                let count = writer.push(&bytes).unwrap();
                prop_assert_eq!(count, bytes.len().min(CAPACITY - model.len()));
                model.extend(&bytes[..count]);
                for _ in 0..step % 20 {
                    prop_assert_eq!(reader.pop().unwrap(), model.pop_front());
                }
            }
        }
    }
}
