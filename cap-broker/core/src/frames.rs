//! 4 KiB frames, and the window through which the root task reaches them.
//!
//! Frames are made in chunks: one untyped block becomes up to 256 frames by
//! one retype, in consecutive slots. A chunk also owns as many slots for
//! second capabilities and as many consecutive pages of the window, so where
//! a frame's capabilities and its window page are is arithmetic, not a table.
//!
//! A freed frame keeps both capabilities and its window mapping. Handing it
//! out again costs no kernel operation, only zeroing its 4 KiB through the
//! window; demand paging in steady state is one map operation per page. The
//! price is that the memory of a chunk can serve other purposes only when all
//! its frames are free; [`FramePool::release_idle`] then gives memory, slots
//! and window back. The broker does that before it reports that memory, slots
//! or window are exhausted.
//!
//! A frame has one *owner's* capability, for the mapping of whoever allocated
//! it, and a *window* capability. Further mappings use further copies
//! ([`crate::vspace`]).
//!
//! # Bounds
//! - A request for a frame fails only if no frame of any chunk is free and no
//!   chunk of even one frame can be made.
//! - Frames are taken from the oldest chunk that has one free, so idle chunks
//!   gather at the young end. At worst a chunk is held by one frame.
//!
//! # Invariants
//! - **F1** A free frame is not mapped by its owner's capability.
//! - **F2** A frame that is handed out holds zeroes.
//! - **F3** A chunk is on the list of chunks with free frames exactly when it
//!   has one.

use alloc::vec::Vec;

use crate::bitmap::RunBitmap;
use crate::error::BrokerError;
use crate::operation::{
    Cache, Kernel, Level, Object, ObjectKind, Operation, RETYPE_FAN_OUT_LIMIT, Rights, Slot,
};
use crate::store::Store;
use crate::untyped::Block;
use crate::vspace::TableSet;
use crate::{PAGE_BITS, PAGE_BYTES};

const INDEX_BITS: u32 = 8;
/// Pages that one page table shows.
const PAGES_PER_TABLE: u32 = 1 << (Level::PageTable.span_bits() - PAGE_BITS);
const CHUNK_FRAMES_MAX: u32 = 1 << INDEX_BITS;
const CHUNK_WORDS: usize = (CHUNK_FRAMES_MAX / u64::BITS) as usize;
/// Largest chunk, in bytes, as a power of two.
pub const CHUNK_BITS_MAX: u8 = PAGE_BITS + INDEX_BITS as u8;

const _: () = assert!(CHUNK_FRAMES_MAX <= RETYPE_FAN_OUT_LIMIT);

/// Name of an allocated frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(u32);

impl FrameId {
    /// The frame `offset` places on in the same run
    /// ([`FramePool::allocate_run`]).
    pub const fn at(self, offset: u32) -> Self {
        Self(self.0 + offset)
    }

    /// The number inside, for compact tables.
    pub const fn number(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_number(number: u32) -> Self {
        Self(number)
    }

    const fn chunk(self) -> usize {
        (self.0 >> INDEX_BITS) as usize
    }

    const fn index(self) -> u32 {
        self.0 & (CHUNK_FRAMES_MAX - 1)
    }
}

/// A range of the root task's address space in which frames are mapped.
#[derive(Debug)]
pub struct Window {
    space: Slot,
    base: u64,
    pages: RunBitmap,
    tables: TableSet,
}

impl Window {
    /// `pages` pages from `base` in the address space whose top table is
    /// `space`. Nothing else may use the range, and no page table may exist
    /// there yet below the levels in `existing`.
    pub fn new(space: Slot, base: u64, pages: u32, tables: TableSet) -> Self {
        Self {
            space,
            base,
            pages: RunBitmap::new(pages),
            tables,
        }
    }

    /// Slot of the top table.
    pub const fn space(&self) -> Slot {
        self.space
    }

    /// Takes `count` consecutive pages and returns the first one's number.
    ///
    /// # Errors
    /// [`BrokerError::OutOfWindow`].
    pub fn take(&mut self, count: u32) -> Result<u32, BrokerError> {
        self.pages
            .allocate_run(count)
            .ok_or(BrokerError::OutOfWindow { pages: count })
    }

    /// Gives pages back; nothing is mapped there any more.
    ///
    /// # Panics
    /// When one of them is free already.
    pub fn give_back(&mut self, first: u32, count: u32) {
        assert!(
            self.pages.free_run(first, count),
            "window pages freed twice"
        );
    }

    /// Address of a page of the window.
    pub const fn address(&self, page: u32) -> u64 {
        self.base + page as u64 * PAGE_BYTES
    }

    /// Makes the tables that `count` pages from `first` need, so that mapping
    /// there takes nothing more.
    ///
    /// # Errors
    /// Those of the page tables. Tables made before the failure stay.
    pub fn prepare(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        first: u32,
        count: u32,
    ) -> Result<(), BrokerError> {
        let last = self.address(first + count - 1);
        let mut vaddr = self.address(first);
        while vaddr <= last {
            self.tables.ensure(kernel, store, self.space, vaddr)?;
            vaddr = Level::PageTable.base(vaddr) + (1 << Level::PageTable.span_bits());
        }
        Ok(())
    }

    /// Maps a frame capability at a page of the window.
    ///
    /// # Errors
    /// Those of the page tables, [`BrokerError::Kernel`].
    pub fn map(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        frame: Slot,
        page: u32,
        cache: Cache,
    ) -> Result<(), BrokerError> {
        let vaddr = self.address(page);
        self.tables.ensure(kernel, store, self.space, vaddr)?;
        let (space, rights) = (self.space, Rights::ReadWrite);
        kernel.execute(&Operation::MapPage {
            frame,
            space,
            vaddr,
            rights,
            cache,
        })?;
        Ok(())
    }

    /// Pages in use.
    pub const fn used(&self) -> u32 {
        self.pages.used_count()
    }

    /// Number of page tables the window holds. They stay until
    /// [`release_tables`](Self::release_tables).
    pub fn table_count(&self) -> usize {
        self.tables.len()
    }

    /// Destroys the window's tables that show no page in use.
    ///
    /// # Errors
    /// The first refusal; the others are gone all the same.
    pub fn release_tables(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
    ) -> Result<(), BrokerError> {
        if self.pages.used_count() == 0 {
            return self.tables.destroy(kernel, store);
        }
        let vacant = |table: u64| {
            let first = (table.saturating_sub(self.base) / PAGE_BYTES) as u32;
            let end = (first + PAGES_PER_TABLE).min(self.pages.capacity());
            (first..end).all(|page| self.pages.is_free(page))
        };
        let tables = self.tables.bases(Level::PageTable);
        let vacant: Vec<u64> = tables.filter(|&table| vacant(table)).collect();
        let mut outcome = Ok(());
        for table in vacant {
            let released = self.tables.release(kernel, store, Level::PageTable, table);
            outcome = outcome.and(released);
        }
        let end = self.address(self.pages.capacity());
        for level in [Level::Directory, Level::Pdpt] {
            let released = self
                .tables
                .release_empty(kernel, store, level, self.base, end);
            outcome = outcome.and(released);
        }
        outcome
    }
}

type Bits = [u64; CHUNK_WORDS];

#[derive(Debug)]
struct Chunk {
    block: Block,
    paddr: u64,
    frames: u32,
    first_slot: Slot,
    first_copy: Slot,
    first_page: u32,
    free_count: u32,
    free: Bits,
    /// Has its window capability and mapping.
    windowed: Bits,
    /// May hold something other than zeroes.
    dirty: Bits,
    /// The owner's capability is mapped.
    mapped: Bits,
}

const fn get(bits: &Bits, index: u32) -> bool {
    bits[(index / 64) as usize] & 1 << (index % 64) != 0
}

const fn put(bits: &mut Bits, index: u32, value: bool) {
    let mask = 1 << (index % 64);
    if value {
        bits[(index / 64) as usize] |= mask;
    } else {
        bits[(index / 64) as usize] &= !mask;
    }
}

impl Chunk {
    fn first_free(&self) -> Option<u32> {
        let word = self.free.iter().position(|word| *word != 0)?;
        Some(word as u32 * 64 + self.free[word].trailing_zeros())
    }

    fn take(&mut self, index: u32) {
        put(&mut self.free, index, false);
        self.free_count -= 1;
    }

    fn give_back(&mut self, index: u32) {
        put(&mut self.free, index, true);
        self.free_count += 1;
    }

    const fn is_idle(&self) -> bool {
        self.free_count == self.frames
    }
}

/// Counts of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameUsage {
    /// Handed out.
    pub allocated: u32,
    /// Made and free: the next allocations are cheap.
    pub cached: u32,
    /// Chunks they are in.
    pub chunks: u32,
}

/// The books of frames.
#[derive(Debug)]
pub struct FramePool {
    /// The window. Also used for device registers.
    pub window: Window,
    chunks: Vec<Option<Chunk>>,
    with_free: Vec<u64>,
    chunk_bits: u8,
    usage: FrameUsage,
}

impl FramePool {
    /// A pool without frames. Chunks are of 2^`chunk_bits` bytes while memory,
    /// slots and window allow, of less otherwise; the value is clamped to
    /// [`PAGE_BITS`]`..=`[`CHUNK_BITS_MAX`].
    pub fn new(window: Window, chunk_bits: u8) -> Self {
        Self {
            window,
            chunks: Vec::new(),
            with_free: Vec::new(),
            chunk_bits: chunk_bits.clamp(PAGE_BITS, CHUNK_BITS_MAX),
            usage: FrameUsage::default(),
        }
    }

    /// Counts of frames.
    pub const fn usage(&self) -> FrameUsage {
        self.usage
    }

    /// Hands out a frame of zeroes, mapped in the window.
    ///
    /// # Errors
    /// [`BrokerError::OutOfMemory`], [`BrokerError::OutOfSlots`],
    /// [`BrokerError::OutOfWindow`], [`BrokerError::OutOfRecords`],
    /// [`BrokerError::Kernel`].
    pub fn allocate(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
    ) -> Result<FrameId, BrokerError> {
        let chunk = match self.first_with_free() {
            Some(chunk) => chunk,
            None => self.make_largest_chunk(kernel, store)?,
        };
        let Some(index) = self.chunks[chunk].as_ref().and_then(Chunk::first_free) else {
            return Err(BrokerError::BadFrame); // F3 rules this out.
        };
        let frame = FrameId((chunk as u32) << INDEX_BITS | index);
        self.prepare(kernel, store, frame)?;
        self.take(frame);
        Ok(frame)
    }

    /// Hands out 2^`count_bits` frames, contiguous in physical memory, in the
    /// window and in their names ([`FrameId::at`]), at most 256. They are
    /// freed one by one like any other.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub fn allocate_run(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        count_bits: u8,
    ) -> Result<FrameId, BrokerError> {
        let size_bits = PAGE_BITS.saturating_add(count_bits);
        if size_bits > CHUNK_BITS_MAX {
            return Err(BrokerError::OutOfMemory { size_bits });
        }
        let chunk = self.make_chunk(kernel, store, size_bits)?;
        let first = FrameId((chunk as u32) << INDEX_BITS);
        for index in 0..1 << count_bits {
            self.prepare(kernel, store, first.at(index))?;
        }
        (0..1 << count_bits).for_each(|index| self.take(first.at(index)));
        Ok(first)
    }

    /// Takes a frame back.
    ///
    /// # Errors
    /// [`BrokerError::BadFrame`] when it is not allocated or its owner's
    /// capability is mapped; nothing changes then.
    pub fn free(&mut self, frame: FrameId) -> Result<(), BrokerError> {
        let chunk = self.allocated(frame)?;
        if get(&chunk.mapped, frame.index()) {
            return Err(BrokerError::BadFrame);
        }
        put(&mut chunk.dirty, frame.index(), true);
        chunk.give_back(frame.index());
        self.note_free(frame.chunk(), true);
        self.usage.allocated -= 1;
        self.usage.cached += 1;
        Ok(())
    }

    /// Window address of an allocated frame; `None` for others.
    pub fn window_address(&self, frame: FrameId) -> Option<u64> {
        let chunk = self.chunks.get(frame.chunk())?.as_ref()?;
        let live = frame.index() < chunk.frames && !get(&chunk.free, frame.index());
        live.then(|| self.window.address(chunk.first_page + frame.index()))
    }

    /// Physical address of an allocated frame; `None` for others.
    pub fn paddr(&self, frame: FrameId) -> Option<u64> {
        let chunk = self.chunks.get(frame.chunk())?.as_ref()?;
        let live = frame.index() < chunk.frames && !get(&chunk.free, frame.index());
        live.then(|| chunk.paddr + u64::from(frame.index()) * PAGE_BYTES)
    }

    /// Slot of the owner's capability of an allocated frame; `None` for others.
    pub fn slot(&self, frame: FrameId) -> Option<Slot> {
        let chunk = self.chunks.get(frame.chunk())?.as_ref()?;
        let live = frame.index() < chunk.frames && !get(&chunk.free, frame.index());
        live.then(|| chunk.first_slot.at(frame.index()))
    }

    /// The owner's capability of an allocated frame, and whether it is mapped.
    ///
    /// # Errors
    /// [`BrokerError::BadFrame`] when it is not allocated.
    pub fn owner(&mut self, frame: FrameId) -> Result<(Slot, bool), BrokerError> {
        let chunk = self.allocated(frame)?;
        Ok((
            chunk.first_slot.at(frame.index()),
            get(&chunk.mapped, frame.index()),
        ))
    }

    /// Records that the owner's capability was mapped or unmapped.
    ///
    /// # Errors
    /// [`BrokerError::BadFrame`] when the frame is not allocated.
    pub fn note_mapped(&mut self, frame: FrameId, mapped: bool) -> Result<(), BrokerError> {
        let chunk = self.allocated(frame)?;
        put(&mut chunk.mapped, frame.index(), mapped);
        Ok(())
    }

    /// Unmakes every chunk without an allocated frame. Returns how many.
    ///
    /// # Errors
    /// [`BrokerError::Kernel`]; the chunk in question stays usable, or is in
    /// quarantine.
    pub fn release_idle(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
    ) -> Result<u32, BrokerError> {
        let mut released = 0;
        for at in 0..self.chunks.len() {
            if self.chunks[at].as_ref().is_some_and(Chunk::is_idle) {
                self.release(kernel, store, at)?;
                released += 1;
            }
        }
        Ok(released)
    }

    /// Checks F1 and F3 and the counts.
    ///
    /// # Panics
    /// When one is broken, which is a defect of this module.
    pub fn check(&self) {
        let mut usage = FrameUsage::default();
        for (at, chunk) in self.chunks.iter().enumerate() {
            let listed = self.with_free[at / 64] & 1 << (at % 64) != 0;
            let has_free = chunk.as_ref().is_some_and(|chunk| chunk.free_count > 0);
            assert_eq!(listed, has_free, "F3 broken: chunk {at}");
            if let Some(chunk) = chunk {
                let free: u32 = chunk.free.iter().map(|word| word.count_ones()).sum();
                assert_eq!(free, chunk.free_count, "free count of chunk {at}");
                let both = chunk
                    .free
                    .iter()
                    .zip(&chunk.mapped)
                    .any(|(free, map)| free & map != 0);
                assert!(!both, "F1 broken: chunk {at}");
                usage.allocated += chunk.frames - chunk.free_count;
                usage.cached += chunk.free_count;
                usage.chunks += 1;
            }
        }
        assert_eq!(usage, self.usage, "frame counts");
    }

    fn allocated(&mut self, frame: FrameId) -> Result<&mut Chunk, BrokerError> {
        let chunk = self.chunks.get_mut(frame.chunk()).and_then(Option::as_mut);
        let live =
            |chunk: &&mut Chunk| frame.index() < chunk.frames && !get(&chunk.free, frame.index());
        chunk.filter(live).ok_or(BrokerError::BadFrame)
    }

    fn take(&mut self, frame: FrameId) {
        let Some(chunk) = self.chunks[frame.chunk()].as_mut() else {
            return;
        };
        chunk.take(frame.index());
        let has_free = chunk.free_count > 0;
        self.note_free(frame.chunk(), has_free);
        self.usage.allocated += 1;
        self.usage.cached -= 1;
    }

    /// Makes sure a free frame is in the window and holds zeroes (F2).
    fn prepare(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        frame: FrameId,
    ) -> Result<(), BrokerError> {
        let Some(chunk) = self.chunks[frame.chunk()].as_mut() else {
            return Err(BrokerError::BadFrame);
        };
        let index = frame.index();
        let page = chunk.first_page + index;
        if !get(&chunk.windowed, index) {
            let (from, to) = (chunk.first_slot.at(index), chunk.first_copy.at(index));
            kernel.execute(&Operation::Copy { from, to })?;
            if let Err(error) = self.window.map(kernel, store, to, page, Cache::Normal) {
                kernel.execute(&Operation::Delete { slot: to })?;
                return Err(error);
            }
            put(&mut chunk.windowed, index, true);
        }
        if get(&chunk.dirty, index) {
            kernel.execute(&Operation::ZeroPage {
                window: self.window.address(page),
            })?;
            put(&mut chunk.dirty, index, false);
        }
        Ok(())
    }

    /// The largest chunk that can be made, up to the configured size.
    fn make_largest_chunk(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
    ) -> Result<usize, BrokerError> {
        let mut failure = BrokerError::OutOfMemory {
            size_bits: PAGE_BITS,
        };
        for size_bits in (PAGE_BITS..=self.chunk_bits).rev() {
            match self.make_chunk(kernel, store, size_bits) {
                Err(
                    error @ (BrokerError::OutOfMemory { .. }
                    | BrokerError::OutOfSlots { .. }
                    | BrokerError::OutOfWindow { .. }),
                ) => failure = error,
                other => return other,
            }
        }
        Err(failure)
    }

    fn make_chunk(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        size_bits: u8,
    ) -> Result<usize, BrokerError> {
        let at = self.vacancy()?;
        let count = 1 << (size_bits - PAGE_BITS);
        let first_page = self.window.take(count)?;
        let tables = self.window.prepare(kernel, store, first_page, count);
        let made = tables.and_then(|()| make_frames(kernel, store, size_bits, count));
        let made = made.inspect_err(|_| self.window.give_back(first_page, count))?;
        let mut free = Bits::default();
        (0..count).for_each(|index| put(&mut free, index, true));
        self.chunks[at] = Some(Chunk {
            paddr: store.untyped.paddr(&made.block),
            block: made.block,
            frames: count,
            first_slot: made.first_slot,
            first_copy: made.first_slot.at(count),
            first_page,
            free_count: count,
            free,
            windowed: Bits::default(),
            dirty: Bits::default(),
            mapped: Bits::default(),
        });
        self.note_free(at, true);
        self.usage.cached += count;
        self.usage.chunks += 1;
        Ok(at)
    }

    fn release(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        at: usize,
    ) -> Result<(), BrokerError> {
        let Some(chunk) = self.chunks[at].as_mut() else {
            return Ok(());
        };
        unmap_window(kernel, chunk)?;
        let Some(chunk) = self.chunks[at].take() else {
            return Ok(());
        };
        self.note_free(at, false);
        self.usage.cached -= chunk.frames;
        self.usage.chunks -= 1;
        if let Err(error) = store.untyped.revoke(kernel, &chunk.block) {
            store.quarantined_bytes += u64::from(chunk.frames) * PAGE_BYTES;
            return Err(error);
        }
        store.slots.free_run(chunk.first_slot, 2 * chunk.frames);
        self.window.give_back(chunk.first_page, chunk.frames);
        store.untyped.free(kernel, &mut store.slots, chunk.block);
        Ok(())
    }

    fn first_with_free(&self) -> Option<usize> {
        let word = self.with_free.iter().position(|word| *word != 0)?;
        Some(word * 64 + self.with_free[word].trailing_zeros() as usize)
    }

    fn note_free(&mut self, at: usize, has_free: bool) {
        let mask = 1 << (at % 64);
        if has_free {
            self.with_free[at / 64] |= mask;
        } else {
            self.with_free[at / 64] &= !mask;
        }
    }

    /// An unused place in the table of chunks.
    fn vacancy(&mut self) -> Result<usize, BrokerError> {
        const FULL: BrokerError = BrokerError::OutOfRecords("frame chunks");
        if let Some(at) = self.chunks.iter().position(Option::is_none) {
            return Ok(at);
        }
        let at = self.chunks.len();
        // The top name is kept for "no frame".
        if at + 1 >= 1 << (u32::BITS - INDEX_BITS) {
            return Err(FULL);
        }
        self.chunks.try_reserve(1).map_err(|_| FULL)?;
        self.chunks.push(None);
        self.with_free.resize(self.chunks.len().div_ceil(64), 0);
        Ok(at)
    }
}

struct MadeFrames {
    block: Block,
    first_slot: Slot,
}

/// A block retyped to `count` frames, and twice as many slots.
fn make_frames(
    kernel: &mut impl Kernel,
    store: &mut Store,
    size_bits: u8,
    count: u32,
) -> Result<MadeFrames, BrokerError> {
    let block = store
        .untyped
        .allocate(kernel, &mut store.slots, size_bits)?;
    let frame = Object {
        kind: ObjectKind::Frame,
        size_bits: PAGE_BITS,
    };
    let made = store.slots.allocate_run(2 * count).and_then(|first| {
        let retyped = store.untyped.retype(kernel, &block, frame, first, count);
        retyped
            .inspect_err(|_| store.slots.free_run(first, 2 * count))
            .map(|()| first)
    });
    match made {
        Ok(first_slot) => Ok(MadeFrames { block, first_slot }),
        Err(error) => {
            store.untyped.free(kernel, &mut store.slots, block);
            Err(error)
        }
    }
}

/// Unmaps the window capabilities of a chunk (K5: before they are revoked).
/// When one cannot be unmapped, those that were lose their capability as well,
/// so that the chunk stays usable.
fn unmap_window(kernel: &mut impl Kernel, chunk: &mut Chunk) -> Result<(), BrokerError> {
    for index in (0..chunk.frames).filter(|index| get(&chunk.windowed, *index)) {
        let unmap = Operation::UnmapPage {
            frame: chunk.first_copy.at(index),
        };
        if let Err(refused) = kernel.execute(&unmap) {
            delete_copies(kernel, chunk, index)?;
            return Err(refused.into());
        }
    }
    Ok(())
}

fn delete_copies(kernel: &mut impl Kernel, chunk: &mut Chunk, end: u32) -> Result<(), BrokerError> {
    for index in 0..end {
        if get(&chunk.windowed, index) {
            kernel.execute(&Operation::Delete {
                slot: chunk.first_copy.at(index),
            })?;
            put(&mut chunk.windowed, index, false);
        }
    }
    Ok(())
}
