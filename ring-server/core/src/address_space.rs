//! What a client address means: the ranges a process may read and write.
//!
//! The map is the authority for buffer validation; the machine only copies.
//! Ranges are kept sorted and merged, so a lookup is a binary search over a
//! handful of entries. The map changes when memory is mapped, never during
//! dispatch of a ring entry that only uses memory.

use alloc::vec::Vec;

/// First address that user programs cannot have on x86-64 under seL4.
pub const USER_ADDRESS_END: u64 = 0x7fff_ffff_f000;

/// Access a range allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Readable only.
    Read,
    /// Readable and writable.
    ReadWrite,
}

/// Why a range was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// Empty, wrapping, or beyond [`USER_ADDRESS_END`]: choose another range.
    OutOfRange,
    /// Overlaps a range that is there: unmap it first.
    Overlap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
    access: Access,
}

/// The readable and writable ranges of one process.
///
/// # Invariants
/// - **V1** Ranges are sorted, disjoint and not empty.
/// - **V2** Touching ranges differ in access (they are merged otherwise).
#[derive(Clone, Debug, Default)]
pub struct AddressSpace {
    ranges: Vec<Range>,
}

impl AddressSpace {
    /// A map in which nothing is accessible.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Adds `[start, start + len)`.
    ///
    /// # Errors
    /// [`MapError`] as its variants say; the map is unchanged.
    pub fn map(&mut self, start: u64, len: u64, access: Access) -> Result<(), MapError> {
        let end = start.checked_add(len).ok_or(MapError::OutOfRange)?;
        if len == 0 || end > USER_ADDRESS_END {
            return Err(MapError::OutOfRange);
        }
        let at = self.ranges.partition_point(|range| range.end <= start);
        if self.ranges.get(at).is_some_and(|next| next.start < end) {
            return Err(MapError::Overlap);
        }
        self.ranges.insert(at, Range { start, end, access });
        self.merge_around(at);
        Ok(())
    }

    /// Removes `[start, start + len)`, splitting what it cuts through.
    pub fn unmap(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len);
        let mut kept = Vec::with_capacity(self.ranges.len() + 1);
        for range in self.ranges.drain(..) {
            if range.start < start {
                let cut = range.end.min(start);
                kept.push(Range { end: cut, ..range });
            }
            if range.end > end {
                let cut = range.start.max(end);
                kept.push(Range {
                    start: cut,
                    ..range
                });
            }
        }
        self.ranges = kept;
    }

    /// Whether every byte of `[addr, addr + len)` can be read. An empty range
    /// always can.
    pub fn can_read(&self, addr: u64, len: u64) -> bool {
        self.covers(addr, len, Access::Read)
    }

    /// Whether every byte of `[addr, addr + len)` can be written. An empty
    /// range always can.
    pub fn can_write(&self, addr: u64, len: u64) -> bool {
        self.covers(addr, len, Access::ReadWrite)
    }

    fn covers(&self, addr: u64, len: u64, access: Access) -> bool {
        if len == 0 {
            return true;
        }
        let Some(end) = addr.checked_add(len) else {
            return false;
        };
        let mut at = self.ranges.partition_point(|range| range.end <= addr);
        let mut covered = addr;
        while let Some(range) = self.ranges.get(at) {
            if range.start > covered || range.access < access {
                return false;
            }
            if range.end >= end {
                return true;
            }
            covered = range.end;
            at += 1;
        }
        false
    }

    fn merge_around(&mut self, at: usize) {
        for right in [at + 1, at] {
            let Some(left) = right.checked_sub(1) else {
                continue;
            };
            let (Some(&a), Some(&b)) = (self.ranges.get(left), self.ranges.get(right)) else {
                continue;
            };
            if a.end == b.start && a.access == b.access {
                self.ranges[left].end = b.end;
                self.ranges.remove(right);
            }
        }
    }

    /// Asserts V1 and V2.
    pub fn check(&self) {
        for pair in self.ranges.windows(2) {
            assert!(pair[0].end <= pair[1].start, "V1: overlap or disorder");
            let touching = pair[0].end == pair[1].start;
            assert!(
                !touching || pair[0].access != pair[1].access,
                "V2: unmerged neighbours"
            );
        }
        assert!(
            self.ranges.iter().all(|range| range.start < range.end),
            "V1: empty range"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_split_and_refuse_overlap() {
        let mut space = AddressSpace::new();
        space.map(0x1000, 0x1000, Access::Read).unwrap();
        space.map(0x3000, 0x1000, Access::ReadWrite).unwrap();
        space.map(0x2000, 0x1000, Access::ReadWrite).unwrap();
        space.check();
        assert_eq!(
            space.map(0x2fff, 1, Access::Read),
            Err(MapError::Overlap),
            "a mapped byte is not mapped twice"
        );
        assert!(space.can_read(0x1000, 0x3000), "across two ranges");
        assert!(!space.can_write(0x1fff, 2), "one byte is read-only");
        assert!(space.can_write(0x2000, 0x2000));
        assert!(!space.can_write(0x2000, 0x2001));
        assert!(!space.can_read(u64::MAX, 2), "wrap-around");
        assert!(space.can_read(u64::MAX, 0), "nothing is always readable");
        space.unmap(0x2800, 0x800);
        space.check();
        assert!(space.can_write(0x2000, 0x800));
        assert!(!space.can_read(0x27ff, 2));
        assert!(space.can_write(0x3000, 0x1000));
    }

    #[test]
    fn agrees_with_a_bitmap() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move |bound: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % bound
        };
        let mut space = AddressSpace::new();
        let mut bytes = [None; 64];
        for _ in 0..20_000 {
            let (start, len) = (random(64), random(16) + 1);
            let end = (start + len).min(64);
            let len = end - start;
            let span = &mut bytes[start as usize..end as usize];
            match random(4) {
                0 => {
                    let access = [Access::Read, Access::ReadWrite][random(2) as usize];
                    let free = span.iter().all(Option::is_none);
                    assert_eq!(space.map(start, len, access).is_ok(), free);
                    if free {
                        span.fill(Some(access));
                    }
                }
                1 => {
                    space.unmap(start, len);
                    span.fill(None);
                }
                _ => {
                    let readable = span.iter().all(Option::is_some);
                    let writable = span.iter().all(|b| *b == Some(Access::ReadWrite));
                    assert_eq!(space.can_read(start, len), readable);
                    assert_eq!(space.can_write(start, len), writable);
                }
            }
            space.check();
        }
    }

    #[test]
    fn addresses_beyond_user_space_are_refused() {
        let mut space = AddressSpace::new();
        for (start, len) in [(0x1000, 0), (u64::MAX, 2), (USER_ADDRESS_END - 1, 2)] {
            assert_eq!(
                space.map(start, len, Access::Read),
                Err(MapError::OutOfRange)
            );
        }
    }
}
