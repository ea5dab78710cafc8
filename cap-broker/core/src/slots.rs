//! Free slots of the root CNode.
//!
//! The range comes from `seL4_BootInfo.empty`. Singles are O(1) in practice;
//! runs serve retypes of many objects.

use crate::bitmap::RunBitmap;
use crate::error::BrokerError;
use crate::operation::Slot;

/// Slots `first..end` of the root CNode, each free or taken.
#[derive(Clone, Debug)]
pub struct SlotAllocator {
    first: u32,
    free: RunBitmap,
}

impl SlotAllocator {
    /// Takes charge of the empty slots `first..end`.
    pub fn new(first: Slot, end: Slot) -> Self {
        Self {
            first: first.0,
            free: RunBitmap::new(end.0.saturating_sub(first.0)),
        }
    }

    /// Takes one slot.
    ///
    /// # Errors
    /// [`BrokerError::OutOfSlots`].
    pub fn allocate(&mut self) -> Result<Slot, BrokerError> {
        self.allocate_run(1)
    }

    /// Takes `count` consecutive slots and returns the first.
    ///
    /// # Errors
    /// [`BrokerError::OutOfSlots`].
    pub fn allocate_run(&mut self, count: u32) -> Result<Slot, BrokerError> {
        let number = self
            .free
            .allocate_run(count)
            .ok_or(BrokerError::OutOfSlots { count })?;
        Ok(Slot(self.first + number))
    }

    /// Gives one slot back. The caller has emptied it.
    ///
    /// # Panics
    /// As [`free_run`](Self::free_run).
    pub fn free(&mut self, slot: Slot) {
        self.free_run(slot, 1);
    }

    /// Gives `count` slots back. The caller has emptied them.
    ///
    /// # Panics
    /// When one of them is free already or not ours: going on would hand the
    /// same slot out twice.
    pub fn free_run(&mut self, first: Slot, count: u32) {
        let ours = first.0.checked_sub(self.first);
        let freed = ours.is_some_and(|number| self.free.free_run(number, count));
        assert!(freed, "slots {}..+{count} freed twice or not ours", first.0);
    }

    /// True when the slot is ours and free.
    pub fn is_free(&self, slot: Slot) -> bool {
        let number = slot.0.checked_sub(self.first);
        number.is_some_and(|number| number < self.capacity() && self.free.is_free(number))
    }

    /// All slots, free or taken.
    pub fn range(&self) -> core::ops::Range<u32> {
        self.first..self.first + self.capacity()
    }

    /// How many slots there are.
    pub const fn capacity(&self) -> u32 {
        self.free.capacity()
    }

    /// How many are taken.
    pub const fn used(&self) -> u32 {
        self.free.used_count()
    }

    /// How many are free.
    pub const fn available(&self) -> u32 {
        self.free.free_count()
    }

    /// Checks the invariants of [`RunBitmap`].
    ///
    /// # Panics
    /// When one is broken.
    pub fn check(&self) {
        self.free.check();
    }
}
