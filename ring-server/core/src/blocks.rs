//! Storage for the params of queued calls and for what is in pipes: chains of
//! fixed-size blocks.
//!
//! A call that waits at an endpoint owns a chain, and so does a pipe; dispatch
//! takes and frees blocks but never heap storage.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes of one block.
pub(crate) const BLOCK_BYTES: usize = 1024;
const NONE: u32 = u32::MAX;

/// A queued message or a pipe's buffer: its blocks in order, and its length in
/// bytes.
///
/// It must be given back with [`Blocks::free`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    head: u32,
    len: u32,
}

impl Chain {
    /// The empty message, which owns no block.
    pub(crate) const EMPTY: Self = Self { head: NONE, len: 0 };

    /// Length in bytes.
    pub(crate) const fn len(self) -> u32 {
        self.len
    }

    /// Blocks that a message of `len` bytes takes.
    pub(crate) const fn blocks_for(len: u32) -> usize {
        (len as usize).div_ceil(BLOCK_BYTES)
    }
}

/// All blocks.
///
/// # Invariants
/// - **B1** Every block is in exactly one chain or in the free list.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    #[expect(
        clippy::vec_box,
        reason = "no allocation as large as all blocks together"
    )]
    bytes: Vec<Box<[u8; BLOCK_BYTES]>>,
    next: Vec<u32>,
    free: u32,
    free_count: usize,
}

impl Blocks {
    /// `count` free blocks.
    pub(crate) fn new(count: u32) -> Self {
        let next = (1..=count).map(|next| if next == count { NONE } else { next });
        Self {
            bytes: vec![Box::new([0; BLOCK_BYTES]); count as usize],
            next: next.collect(),
            free: if count == 0 { NONE } else { 0 },
            free_count: count as usize,
        }
    }

    /// Number of blocks in chains.
    pub(crate) fn used(&self) -> usize {
        self.bytes.len() - self.free_count
    }

    /// Takes blocks for `len` bytes and fills each with `fill(offset, bytes)`.
    ///
    /// # Errors
    /// `Ok(None)` if there are not enough blocks; the error of `fill` if that
    /// fails. Nothing is taken then.
    pub(crate) fn store<E>(
        &mut self,
        len: u32,
        mut fill: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<Chain>, E> {
        if Chain::blocks_for(len) > self.free_count {
            return Ok(None);
        }
        let chain = self.take(len);
        let mut offset = 0;
        let mut at = chain.head;
        while offset < len as usize {
            let count = (len as usize - offset).min(BLOCK_BYTES);
            if let Err(error) = fill(offset, &mut self.bytes[at as usize][..count]) {
                self.free(chain);
                return Err(error);
            }
            offset += count;
            at = self.next[at as usize];
        }
        Ok(Some(chain))
    }

    /// Visits the message piece by piece.
    pub(crate) fn load<E>(
        &self,
        chain: Chain,
        mut visit: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let len = chain.len as usize;
        let mut offset = 0;
        let mut at = chain.head;
        while offset < len {
            let count = (len - offset).min(BLOCK_BYTES);
            visit(offset, &self.bytes[at as usize][..count])?;
            offset += count;
            at = self.next[at as usize];
        }
        Ok(())
    }

    /// Takes blocks for `len` bytes, whose contents are unspecified; `None` if
    /// there are not enough.
    pub(crate) fn allocate(&mut self, len: u32) -> Option<Chain> {
        (Chain::blocks_for(len) <= self.free_count).then(|| self.take(len))
    }

    /// Copies `out.len()` bytes out of a chain, from `offset`.
    ///
    /// # Preconditions
    /// The range lies within the chain.
    pub(crate) fn read_at(&self, chain: Chain, offset: u32, out: &mut [u8]) {
        let mut at = self.block_at(chain, offset);
        let (mut start, mut rest) = (offset as usize % BLOCK_BYTES, out);
        while !rest.is_empty() {
            let count = rest.len().min(BLOCK_BYTES - start);
            let (piece, later) = rest.split_at_mut(count);
            piece.copy_from_slice(&self.bytes[at as usize][start..start + count]);
            (start, rest) = (0, later);
            at = self.next[at as usize];
        }
    }

    /// Copies `bytes` into a chain, from `offset`.
    ///
    /// # Preconditions
    /// The range lies within the chain.
    pub(crate) fn write_at(&mut self, chain: Chain, offset: u32, bytes: &[u8]) {
        let mut at = self.block_at(chain, offset);
        let (mut start, mut rest) = (offset as usize % BLOCK_BYTES, bytes);
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(BLOCK_BYTES - start));
            self.bytes[at as usize][start..start + piece.len()].copy_from_slice(piece);
            (start, rest) = (0, later);
            at = self.next[at as usize];
        }
    }

    /// The block of a chain that holds the byte at `offset`.
    fn block_at(&self, chain: Chain, offset: u32) -> u32 {
        let mut at = chain.head;
        for _ in 0..offset as usize / BLOCK_BYTES {
            at = self.next[at as usize];
        }
        at
    }

    /// Gives a chain's blocks back.
    pub(crate) fn free(&mut self, chain: Chain) {
        let mut at = chain.head;
        for _ in 0..Chain::blocks_for(chain.len) {
            let next = self.next[at as usize];
            self.next[at as usize] = self.free;
            self.free = at;
            self.free_count += 1;
            at = next;
        }
    }

    /// Unlinks enough blocks from the free list; there are enough.
    fn take(&mut self, len: u32) -> Chain {
        let count = Chain::blocks_for(len);
        if count == 0 {
            return Chain::EMPTY;
        }
        let head = self.free;
        let mut last = head;
        for _ in 1..count {
            last = self.next[last as usize];
        }
        self.free = self.next[last as usize];
        self.next[last as usize] = NONE;
        self.free_count -= count;
        Chain { head, len }
    }

    /// Asserts B1, given the chains in use.
    pub(crate) fn check(&self, chains: impl Iterator<Item = Chain>) {
        let used: usize = chains.map(|chain| Chain::blocks_for(chain.len)).sum();
        assert_eq!(used + self.free_count, self.next.len(), "B1: blocks lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::convert::Infallible;

    fn put(blocks: &mut Blocks, message: &[u8]) -> Option<Chain> {
        let stored = blocks.store::<Infallible>(message.len() as u32, |offset, out| {
            out.copy_from_slice(&message[offset..offset + out.len()]);
            Ok(())
        });
        stored.unwrap_or_else(|never| match never {})
    }

    fn get(blocks: &Blocks, chain: Chain) -> Vec<u8> {
        let mut message = Vec::new();
        let loaded = blocks.load::<Infallible>(chain, |_, bytes| {
            message.extend_from_slice(bytes);
            Ok(())
        });
        loaded.unwrap_or_else(|never| match never {});
        message
    }

    #[test]
    fn messages_come_back_and_blocks_are_reused() {
        let mut blocks = Blocks::new(5);
        let long: Vec<u8> = (0..3000_u32).map(|n| n as u8).collect();
        let a = put(&mut blocks, &long).expect("three blocks are free");
        let b = put(&mut blocks, b"short").expect("two blocks are free");
        assert_eq!(put(&mut blocks, &long), None, "one block is not three");
        let empty = put(&mut blocks, b"").expect("needs none");
        assert_eq!(get(&blocks, a), long);
        assert_eq!(get(&blocks, b), b"short");
        blocks.check([a, b, empty].into_iter());
        blocks.free(a);
        let c = put(&mut blocks, &long[..2048]).expect("freed");
        assert_eq!(get(&blocks, c), &long[..2048]);
        blocks.check([b, c].into_iter());
    }

    #[test]
    fn any_range_of_a_chain_is_read_as_it_was_written() {
        let mut blocks = Blocks::new(4);
        assert_eq!(blocks.allocate(4097), None);
        let chain = blocks.allocate(3500).expect("four blocks are free");
        let mut model = [0; 3500];
        blocks.write_at(chain, 0, &model);
        for (offset, len) in [(0, 1), (1023, 2), (1024, 1024), (500, 3000), (3499, 1)] {
            let piece: Vec<u8> = (0..len).map(|n| (n * 7 + offset) as u8).collect();
            model[offset..offset + len].copy_from_slice(&piece);
            blocks.write_at(chain, offset as u32, &piece);
            for start in [0, 1, 1023, 1024, 2047, 3000] {
                let mut out = [0; 400];
                blocks.read_at(chain, start as u32, &mut out);
                assert_eq!(out, model[start..start + 400]);
            }
        }
        blocks.check([chain].into_iter());
        blocks.free(chain);
        blocks.check(core::iter::empty());
    }

    #[test]
    fn a_failed_fill_takes_nothing() {
        let mut blocks = Blocks::new(4);
        let failed = blocks.store(
            4096,
            |offset, _| if offset < 2048 { Ok(()) } else { Err(7) },
        );
        assert_eq!(failed, Err(7));
        blocks.check(core::iter::empty());
        assert!(put(&mut blocks, &[1; 4096]).is_some());
    }
}
