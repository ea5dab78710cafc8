//! A fixed-capacity pool of records addressed by index.
//!
//! All storage is taken at construction, so that insertion during dispatch
//! allocates nothing; it fails when the pool is full.

use alloc::vec::Vec;

/// Records in slots, with a last-in first-out free list.
///
/// # Invariants
/// - **A1** `free` holds exactly the indices of the `None` slots, each once.
#[derive(Clone, Debug)]
pub(crate) struct Pool<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Pool<T> {
    /// A pool of `capacity` empty slots, lowest index handed out first.
    pub(crate) fn with_capacity(capacity: u32) -> Self {
        let mut slots = Vec::with_capacity(capacity as usize);
        slots.resize_with(capacity as usize, || None);
        let free = (0..capacity).rev().collect();
        Self { slots, free }
    }

    /// Number of records that fit before the pool is full.
    pub(crate) fn available(&self) -> usize {
        self.free.len()
    }

    /// Number of records.
    pub(crate) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Number of slots: every index is below it.
    pub(crate) fn capacity(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Stores `value`, or gives it back when the pool is full.
    pub(crate) fn insert(&mut self, value: T) -> Result<u32, T> {
        let Some(index) = self.free.pop() else {
            return Err(value);
        };
        self.slots[index as usize] = Some(value);
        Ok(index)
    }

    /// Takes a record out and frees its slot.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.slots.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(value)
    }

    /// The record in a slot.
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.as_ref()
    }

    /// The record in a slot, for change.
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    /// All records with their indices, for checks and teardown. It stops
    /// behind the last one, and as the lowest free slot is mostly the next to
    /// be taken, that is early.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter_map(|(index, slot)| Some((index as u32, slot.as_ref()?)))
            .take(self.used())
    }

    /// All records, for change; stops as [`Pool::iter`] does.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let used = self.used();
        self.slots.iter_mut().flatten().take(used)
    }

    /// Asserts A1.
    pub(crate) fn check(&self) {
        let empty = self.slots.iter().filter(|slot| slot.is_none()).count();
        assert_eq!(empty, self.free.len(), "A1: free list length");
        assert!(
            self.free.iter().all(|&i| self.slots[i as usize].is_none()),
            "A1: a free index names a live record"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_pool_gives_the_value_back() {
        let mut pool = Pool::with_capacity(2);
        assert_eq!(pool.insert('a'), Ok(0));
        assert_eq!(pool.insert('b'), Ok(1));
        assert_eq!(pool.insert('c'), Err('c'));
        assert_eq!(pool.remove(0), Some('a'));
        assert_eq!(pool.remove(0), None, "a slot is emptied once");
        assert_eq!(pool.insert('d'), Ok(0));
        pool.check();
    }
}
