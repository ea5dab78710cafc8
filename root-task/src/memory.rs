//! Memory that is promised, and memory that processes share.
//!
//! # Invariants
//! - **U1** The frames of an object are a run the broker allocated; nobody else
//!   frees one of them, and they are freed when no address space shows them.

extern crate alloc;

use alloc::vec::Vec;

use cap_broker::{Broker, BrokerError, FrameId, Hold, PAGE_BYTES, SpaceId, Usage};
use capos_loader::{AddressMap, Backing, Protection};
use ring_server_core::{MEMORY_OBJECTS_MAX, MemoryCapacity, PROCESS_SLOTS};

use crate::client::rights;

/// Page tables that processes need whatever they do: image, stack, TLS, ring.
const TABLES_PER_PROCESS: u64 = 8;
/// Page tables beyond those, for all processes together; the heap has room for
/// the records of so many.
pub const EXTRA_TABLES: u64 = 1024;
/// Bytes of heap for the record of one page table.
pub const TABLE_RECORD_BYTES: usize = 6 * 1024 + 64;

/// Makes the page tables of a program, so that a fault needs a page and no more.
///
/// # Errors
/// The broker's.
pub fn provide(broker: &mut Broker, space: SpaceId, map: &AddressMap) -> Result<(), BrokerError> {
    let regions = map.regions().iter();
    let mut with_memory = regions.filter(|region| region.backing != Backing::Reserved);
    with_memory.try_for_each(|region| broker.prepare_tables(space, region.start, region.end))
}

/// What can be promised of what is free at boot.
///
/// A page takes a frame and two capability slots, a page table less. Set aside
/// is what processes need besides pages (address space, CSpace, threads), what
/// the tables behind the root task's window take, and a share for blocks and
/// slots that are free and do not fit.
pub fn capacity(usage: &Usage) -> MemoryCapacity {
    /// Address space, CSpace, TCBs and what they are cut from, in pages.
    const PROCESS_PAGES: u64 = 24;
    /// One part in so many is not promised.
    const FRAGMENTS: u64 = 32;
    /// Pages that one table maps.
    const TABLE_PAGES: u64 = 512;
    let by_memory = usage.available_bytes() / PAGE_BYTES;
    let by_slots = u64::from(usage.total_slots - usage.used_slots) / 2;
    let pages = by_memory.min(by_slots);
    let aside = PROCESS_SLOTS as u64 * PROCESS_PAGES + pages / TABLE_PAGES + pages / FRAGMENTS;
    MemoryCapacity {
        pages: pages.saturating_sub(aside),
        tables: PROCESS_SLOTS as u64 * TABLES_PER_PROCESS + EXTRA_TABLES,
    }
}

#[derive(Clone, Copy)]
struct Run {
    first: FrameId,
    pages: u32,
}

/// The frames of each memory object.
pub struct ObjectFrames {
    runs: Vec<Option<Run>>,
}

impl ObjectFrames {
    /// No objects.
    pub const fn new() -> Self {
        Self { runs: Vec::new() }
    }

    /// Takes the frames of an object: contiguous, zeroed.
    ///
    /// # Errors
    /// The broker's; nothing is taken then.
    pub fn create(
        &mut self,
        broker: &mut Broker,
        object: u32,
        pages: u32,
    ) -> Result<(), BrokerError> {
        if self.runs.is_empty() {
            self.runs.resize(MEMORY_OBJECTS_MAX as usize, None);
        }
        let run = Run {
            first: allocate(broker, pages)?,
            pages,
        };
        self.runs[object as usize] = Some(run);
        Ok(())
    }

    /// Frees the frames of an object (U1).
    ///
    /// # Errors
    /// The broker's.
    pub fn free(&mut self, broker: &mut Broker, object: u32) -> Result<(), BrokerError> {
        let run = self.runs.get_mut(object as usize).and_then(Option::take);
        let run = run.ok_or(BrokerError::BadFrame)?;
        (0..run.pages).try_for_each(|index| broker.free_frame(run.first.at(index)))
    }

    /// Maps pages of an object, all or none.
    ///
    /// # Errors
    /// The broker's.
    pub fn map(
        &self,
        broker: &mut Broker,
        space: SpaceId,
        (start, end): (u64, u64),
        (object, first_page): (u32, u32),
        protection: Protection,
    ) -> Result<(), BrokerError> {
        let run = self.runs.get(object as usize).copied().flatten();
        let run = run.ok_or(BrokerError::BadFrame)?;
        let mapped = (start..end)
            .step_by(PAGE_BYTES as usize)
            .zip(first_page..run.pages)
            .try_for_each(|(address, page)| {
                let frame = run.first.at(page);
                broker.map_frame(space, address, frame, rights(protection), Hold::Shared)
            });
        if mapped.is_err() {
            broker.unmap_pages(space, start, end)?;
        } else if protection.is_none() {
            broker.protect_pages(space, start, end, None)?;
        }
        mapped
    }
}

/// A run of `pages` frames: of the next power of two, the rest given back. One
/// frame comes from the pool, at less cost.
fn allocate(broker: &mut Broker, pages: u32) -> Result<FrameId, BrokerError> {
    if pages == 1 {
        return broker.allocate_frame();
    }
    let rounded = pages.next_power_of_two();
    let first = broker.allocate_frame_run(rounded.trailing_zeros() as u8)?;
    (pages..rounded).try_for_each(|index| broker.free_frame(first.at(index)))?;
    Ok(first)
}
