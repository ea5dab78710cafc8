//! A process's address space as the personality understands it: what a fault
//! means, and whether a buffer may be touched.
//!
//! The map holds regions, not pages: whether a page is backed already is the
//! broker's knowledge. A process has a dozen regions, so a sorted vector with
//! binary search is the fastest structure there is. Look-ups never allocate;
//! a map never grows past the capacity it was made with.
//!
//! # Invariants
//! - **L3** No region is writable and executable.
//! - **L4** Regions are sorted by address, disjoint, non-empty, page-aligned
//!   and below [`USER_LIMIT`].

use alloc::vec::Vec;
use core::cell::Cell;

use crate::error::MapError;
use crate::image::LoadPlan;
use crate::layout::{
    CAPSET_ADDRESS, DYNAMIC_BASE, PAGE_BYTES, PAGE_MASK, Protection, RING_ADDRESS, STACK_BASE,
    STACK_TOP, TLS_BASE, TLS_LIMIT, USER_LIMIT, page_floor,
};
use crate::tls::{TlsPlan, TlsSlot};

/// How a page of a region comes into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Backed before the process runs, or by whoever inserted the region.
    Eager,
    /// Backed with zeroes on first touch.
    DemandZero,
    /// Address space without memory: every access is denied.
    Reserved,
}

/// What a region is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// A load segment.
    Image,
    /// The initial stack.
    Stack,
    /// The initial thread's TLS block.
    Tls,
    /// The capability ring page.
    Ring,
    /// The CapSet page.
    CapSet,
    /// Anonymous memory the process mapped.
    Anonymous,
    /// A memory object the process mapped.
    Object {
        /// The inserter's own name for the object.
        id: u32,
        /// Page of the object that the region's first page shows.
        first_page: u32,
    },
}

impl RegionKind {
    /// True for regions a process cannot unmap or reprotect.
    pub const fn is_fixed(self) -> bool {
        !matches!(self, Self::Anonymous | Self::Object { .. })
    }
}

/// Through which capability a region is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The process's own anonymous memory.
    Anonymous,
    /// The memory object of this name.
    Object(u32),
}

impl Owner {
    fn check(self, region: &Region) -> Result<(), MapError> {
        let start = region.start;
        match (self, region.kind) {
            (_, kind) if kind.is_fixed() => Err(MapError::Fixed { start }),
            (Self::Anonymous, RegionKind::Anonymous) => Ok(()),
            (Self::Object(own), RegionKind::Object { id, .. }) if own == id => Ok(()),
            _ => Err(MapError::Foreign { start }),
        }
    }
}

/// How much a process's regions are, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Anonymous memory, reserved or committed.
    pub reserved: u64,
    /// Anonymous memory that is committed.
    pub committed: u64,
    /// Pages of memory objects.
    pub borrowed: u64,
    /// The program's own: image, stack, TLS, ring, CapSet.
    pub fixed: u64,
    /// Lowest-level page tables that pages with memory need.
    pub leaf_tables: u64,
    /// Page tables above those.
    pub upper_tables: u64,
}

impl Footprint {
    /// Pages of memory that have to be there for every access to succeed.
    pub const fn promised(&self) -> u64 {
        self.committed + self.borrowed + self.fixed + self.leaf_tables + self.upper_tables
    }
}

/// Bits of the addresses one table of each level maps, lowest level first.
const TABLE_SPAN_BITS: [u32; 3] = [21, 30, 39];
const LEAF_SPAN: u64 = 1 << TABLE_SPAN_BITS[0];
const _: () = assert!(
    TLS_BASE / LEAF_SPAN == (TLS_LIMIT - 1) / LEAF_SPAN,
    "all places of a TLS block need the same tables"
);

/// A range of pages with one meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// First address past the region.
    pub end: u64,
    /// What the process may do there.
    pub protection: Protection,
    /// How its pages come into being.
    pub backing: Backing,
    /// What it is for.
    pub kind: RegionKind,
}

impl Region {
    /// Number of pages.
    pub const fn pages(&self) -> u64 {
        (self.end - self.start) / PAGE_BYTES
    }

    /// The part of the region from `address`, which lies inside it.
    fn tail_from(&self, address: u64) -> Self {
        let kind = match self.kind {
            RegionKind::Object { id, first_page } => {
                let skipped = (address - self.start) / PAGE_BYTES;
                RegionKind::Object {
                    id,
                    first_page: first_page.wrapping_add(skipped as u32),
                }
            }
            other => other,
        };
        Self {
            start: address,
            kind,
            ..*self
        }
    }

    /// True when `next` continues this region, so that the two can be one.
    fn joins(&self, next: &Self) -> bool {
        self.kind == RegionKind::Anonymous
            && next.kind == RegionKind::Anonymous
            && self.end == next.start
            && self.protection == next.protection
            && self.backing == next.backing
    }

    #[inline]
    fn is_readable(&self) -> bool {
        self.backing != Backing::Reserved && self.protection.effective_read()
    }

    #[inline]
    fn is_writable(&self) -> bool {
        self.backing != Backing::Reserved && self.protection.write
    }

    const fn contains(&self, address: u64) -> bool {
        address >= self.start && address < self.end
    }

    fn allows(&self, access: Access) -> Result<(), Denied> {
        if self.backing == Backing::Reserved {
            return Err(Denied::Reserved);
        }
        let (allowed, denied) = match access {
            Access::Read => (self.protection.effective_read(), Denied::NotReadable),
            Access::Write => (self.protection.write, Denied::NotWritable),
            Access::Execute => (self.protection.execute, Denied::NotExecutable),
        };
        if allowed { Ok(()) } else { Err(denied) }
    }
}

/// What an instruction tried to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

impl Access {
    /// From the bits a page fault reports.
    pub const fn from_fault(write: bool, fetch: bool) -> Self {
        match (write, fetch) {
            (_, true) => Self::Execute,
            (true, false) => Self::Write,
            (false, false) => Self::Read,
        }
    }
}

/// Why an access is not allowed. The process is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No region has that address.
    Unmapped,
    /// The address space is reserved without memory.
    Reserved,
    /// The region is not readable.
    NotReadable,
    /// The region is not writable.
    NotWritable,
    /// The region is not executable.
    NotExecutable,
}

/// The page an allowed access touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its first address.
    pub address: u64,
    /// How to map it.
    pub protection: Protection,
    /// How it comes into being; never [`Backing::Reserved`].
    pub backing: Backing,
    /// What its region is for.
    pub kind: RegionKind,
}

/// What a page fault means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultVerdict {
    /// The access is allowed: make sure the page is backed and mapped, then
    /// restart. If it is mapped with these permissions already, the map and
    /// the kernel disagree, and restarting would fault forever.
    Back(Page),
    /// The access is not allowed: the process is killed.
    Deny(Denied),
}

/// Most pieces an [`AddressMap`] is made for by [`AddressMap::for_program`],
/// besides the program's own.
pub const DYNAMIC_REGION_CAPACITY: usize = 512;

/// The regions of one process.
#[derive(Clone, Debug)]
pub struct AddressMap {
    regions: Vec<Region>,
    capacity: usize,
    /// The first thread's TLS block, whose region is in `regions`.
    tls: Option<TlsPlan>,
    /// Index of the region that a buffer to be read was in last, if it is still
    /// there: a program's buffers tend to lie in one.
    recent_read: Cell<usize>,
    /// As `recent_read`, of a buffer that was to be written: params and results
    /// seldom lie in one region.
    recent_written: Cell<usize>,
}

impl AddressMap {
    /// An empty map that will hold at most `capacity` regions. Room for the
    /// first 32 is set aside at once, the rest when needed.
    pub fn new(capacity: usize) -> Self {
        Self {
            regions: Vec::with_capacity(capacity.min(32)),
            capacity,
            tls: None,
            recent_read: Cell::new(0),
            recent_written: Cell::new(0),
        }
    }

    /// The map a program starts with: segments, stack, TLS block, ring, and
    /// CapSet if it has one. The TLS block is in the first slot, until
    /// [`place_tls`](Self::place_tls) moves it.
    pub fn for_program(plan: &LoadPlan, has_capset: bool) -> Self {
        let mut map = Self::new(DYNAMIC_REGION_CAPACITY);
        for segment in plan.segments() {
            let image = |start, end, backing| Region {
                start,
                end,
                protection: segment.protection,
                backing,
                kind: RegionKind::Image,
            };
            map.push_fixed(image(segment.start, segment.file_end, Backing::Eager));
            map.push_fixed(image(segment.file_end, segment.end, Backing::DemandZero));
        }
        map.push_fixed(Region {
            start: STACK_BASE,
            end: STACK_TOP,
            protection: Protection::READ_WRITE,
            backing: Backing::DemandZero,
            kind: RegionKind::Stack,
        });
        if let Some(tls) = plan.tls() {
            map.push_tls(*tls);
        }
        map.push_fixed(single_page(
            RING_ADDRESS,
            Protection::READ_WRITE,
            RegionKind::Ring,
        ));
        if has_capset {
            map.push_fixed(single_page(
                CAPSET_ADDRESS,
                Protection::READ,
                RegionKind::CapSet,
            ));
        }
        map.check();
        map
    }

    /// Adds the first thread's TLS block.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_tls(&mut self, tls: TlsPlan) -> Result<(), MapError> {
        self.insert(tls_region(&tls))?;
        self.tls = Some(tls);
        Ok(())
    }

    /// Moves the first thread's TLS block to its slot (L6), before the program
    /// has run. How much there is does not change: all slots lie in what one
    /// page table maps.
    pub fn place_tls(&mut self, slot: TlsSlot) {
        if let Some(tls) = self.tls {
            self.regions.retain(|region| region.kind != RegionKind::Tls);
            self.push_tls(tls.placed(slot));
        }
    }

    /// FS base of the first thread when it starts, if it has a TLS block.
    pub fn tls_fs_base(&self) -> Option<u64> {
        self.tls.map(|tls| tls.fs_base)
    }

    /// All regions, by rising address.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The region that contains `address`.
    pub fn region_at(&self, address: u64) -> Option<&Region> {
        let after = self
            .regions
            .partition_point(|region| region.start <= address);
        self.regions[..after]
            .last()
            .filter(|region| region.contains(address))
    }

    /// The object and the offset in it, in bytes, that `address` shows.
    pub fn object_at(&self, address: u64) -> Option<(u32, u64)> {
        let region = self.region_at(address)?;
        match region.kind {
            RegionKind::Object { id, first_page } => {
                let offset = u64::from(first_page) * PAGE_BYTES + (address - region.start);
                Some((id, offset))
            }
            _ => None,
        }
    }

    /// Decides what a fault at `address` means.
    ///
    /// `write` and `fetch` as the fault reports them. On kernels that do not
    /// report fetches, pass `address == instruction pointer`.
    pub fn classify_fault(&self, address: u64, write: bool, fetch: bool) -> FaultVerdict {
        match self.page_for(address, Access::from_fault(write, fetch)) {
            Ok(page) => FaultVerdict::Back(page),
            Err(denied) => FaultVerdict::Deny(denied),
        }
    }

    /// The page behind `address`, if `access` to it is allowed.
    ///
    /// # Errors
    /// The reason the process may not do that.
    pub fn page_for(&self, address: u64, access: Access) -> Result<Page, Denied> {
        let region = self.region_at(address).ok_or(Denied::Unmapped)?;
        region.allows(access)?;
        Ok(Page {
            address: page_floor(address),
            protection: region.protection,
            backing: region.backing,
            kind: region.kind,
        })
    }

    /// Checks that the process itself may make `access` to every byte of
    /// `length` bytes at `address`. An empty range is allowed anywhere.
    ///
    /// # Errors
    /// The first address the process may not touch, and why.
    pub fn check_range(
        &self,
        address: u64,
        length: u64,
        access: Access,
    ) -> Result<(), (u64, Denied)> {
        if length == 0 {
            return Ok(());
        }
        let end = address
            .checked_add(length)
            .ok_or((address, Denied::Unmapped))?;
        let mut at = address;
        while at < end {
            let region = self.region_at(at).ok_or((at, Denied::Unmapped))?;
            region.allows(access).map_err(|denied| (at, denied))?;
            at = region.end;
        }
        Ok(())
    }

    /// True when the process may read `length` bytes at `address`.
    #[inline]
    pub fn is_readable(&self, address: u64, length: u64) -> bool {
        length == 0 || self.covers(address, length, &self.recent_read, Region::is_readable)
    }

    /// True when the process may write `length` bytes at `address`.
    #[inline]
    pub fn is_writable(&self, address: u64, length: u64) -> bool {
        length == 0 || self.covers(address, length, &self.recent_written, Region::is_writable)
    }

    /// [`check_range`](Self::check_range) without reasons: every buffer of
    /// every submission is asked about.
    #[inline]
    fn covers(
        &self,
        address: u64,
        length: u64,
        recent: &Cell<usize>,
        allows: impl Fn(&Region) -> bool,
    ) -> bool {
        let Some(end) = address.checked_add(length) else {
            return false;
        };
        let known = self.regions.get(recent.get());
        if known.is_some_and(|region| region.start <= address && end <= region.end) {
            return known.is_some_and(allows);
        }
        self.covers_by_search(address, end, recent, allows)
    }

    #[cold]
    fn covers_by_search(
        &self,
        address: u64,
        end: u64,
        recent: &Cell<usize>,
        allows: impl Fn(&Region) -> bool,
    ) -> bool {
        let first = self.regions.partition_point(|region| region.end <= address);
        recent.set(first);
        let mut covered = address;
        for region in &self.regions[first..] {
            if region.start > covered || !allows(region) {
                return false;
            }
            if region.end >= end {
                return true;
            }
            covered = region.end;
        }
        false
    }

    /// Adds a region. Anonymous neighbours that agree become one region.
    ///
    /// # Errors
    /// [`MapError::BadRange`], [`MapError::WritableAndExecutable`],
    /// [`MapError::Overlaps`], [`MapError::TooManyRegions`].
    pub fn insert(&mut self, region: Region) -> Result<(), MapError> {
        check_bounds(region.start, region.end)?;
        if region.protection.is_writable_and_executable() {
            return Err(MapError::WritableAndExecutable);
        }
        let at = self
            .regions
            .partition_point(|other| other.start < region.start);
        if let Some(other) = self.first_overlap(at, &region) {
            return Err(MapError::Overlaps { start: other });
        }
        self.room_for(1)?;
        self.regions.insert(at, region);
        self.join_around(at, at + 1);
        self.debug_check();
        Ok(())
    }

    /// Finds a free range of `pages` pages for a mapping that leaves the
    /// choice to us: first fit from [`DYNAMIC_BASE`].
    ///
    /// # Errors
    /// [`MapError::BadRange`] for zero pages, [`MapError::NoSpace`].
    pub fn find_free(&self, pages: u64) -> Result<u64, MapError> {
        let bytes = pages.checked_mul(PAGE_BYTES).filter(|bytes| *bytes > 0);
        let bytes = bytes.ok_or(MapError::BadRange)?;
        let mut start = DYNAMIC_BASE;
        for region in self
            .regions
            .iter()
            .filter(|region| region.end > DYNAMIC_BASE)
        {
            if region.start.saturating_sub(start) >= bytes {
                return Ok(start);
            }
            start = start.max(region.end);
        }
        if USER_LIMIT - start >= bytes {
            Ok(start)
        } else {
            Err(MapError::NoSpace)
        }
    }

    /// Removes `start..end`, which must be covered by regions that are not
    /// fixed; regions that reach beyond it are cut. `removed` is called with
    /// each piece that goes.
    ///
    /// # Errors
    /// [`MapError::BadRange`], [`MapError::NotMapped`], [`MapError::Fixed`],
    /// [`MapError::TooManyRegions`].
    pub fn remove(
        &mut self,
        start: u64,
        end: u64,
        mut removed: impl FnMut(Region),
    ) -> Result<(), MapError> {
        let (first, last) = self.isolate(start, end)?;
        self.regions.drain(first..last).for_each(&mut removed);
        self.debug_check();
        Ok(())
    }

    /// Sets the permissions of `start..end`, which must be covered by regions
    /// that are not fixed.
    ///
    /// # Errors
    /// As [`remove`](Self::remove), and [`MapError::WritableAndExecutable`].
    pub fn protect(
        &mut self,
        start: u64,
        end: u64,
        protection: Protection,
    ) -> Result<(), MapError> {
        if protection.is_writable_and_executable() {
            return Err(MapError::WritableAndExecutable);
        }
        let (first, last) = self.isolate(start, end)?;
        for region in &mut self.regions[first..last] {
            region.protection = protection;
        }
        self.join_around(first, last);
        self.debug_check();
        Ok(())
    }

    /// Gives reserved anonymous pages memory.
    ///
    /// # Errors
    /// As [`protect`](Self::protect), and [`MapError::Committed`].
    pub fn commit(&mut self, start: u64, end: u64, protection: Protection) -> Result<(), MapError> {
        if protection.is_writable_and_executable() {
            return Err(MapError::WritableAndExecutable);
        }
        self.check_owner(start, end, Owner::Anonymous)?;
        self.check_each(start, end, |region| match region.backing {
            Backing::Reserved => Ok(()),
            _ => Err(MapError::Committed {
                start: region.start,
            }),
        })?;
        self.set(start, end, Backing::DemandZero, protection)
    }

    /// Takes the memory of anonymous pages away and keeps the range.
    ///
    /// # Errors
    /// As [`remove`](Self::remove), and [`MapError::Foreign`].
    pub fn decommit(&mut self, start: u64, end: u64) -> Result<(), MapError> {
        self.check_owner(start, end, Owner::Anonymous)?;
        self.set(start, end, Backing::Reserved, Protection::NONE)
    }

    fn set(
        &mut self,
        start: u64,
        end: u64,
        backing: Backing,
        protection: Protection,
    ) -> Result<(), MapError> {
        let (first, last) = self.isolate(start, end)?;
        for region in &mut self.regions[first..last] {
            region.backing = backing;
            region.protection = protection;
        }
        self.join_around(first, last);
        self.debug_check();
        Ok(())
    }

    /// Checks that `start..end` is covered by regions that `owner` may change.
    ///
    /// # Errors
    /// [`MapError::BadRange`], [`MapError::NotMapped`], [`MapError::Fixed`],
    /// [`MapError::Foreign`].
    pub fn check_owner(&self, start: u64, end: u64, owner: Owner) -> Result<(), MapError> {
        self.check_each(start, end, |region| owner.check(region))
    }

    /// Checks that every page of `start..end`, which is covered, can have
    /// memory.
    ///
    /// # Errors
    /// [`MapError::Uncommitted`], and as [`check_owner`](Self::check_owner).
    pub fn check_committed(&self, start: u64, end: u64) -> Result<(), MapError> {
        self.check_each(start, end, |region| match region.backing {
            Backing::Reserved => Err(MapError::Uncommitted {
                start: region.start,
            }),
            _ => Ok(()),
        })
    }

    fn check_each(
        &self,
        start: u64,
        end: u64,
        check: impl Fn(&Region) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        check_bounds(start, end)?;
        let mut at = start;
        while at < end {
            let region = self.region_at(at);
            let region = region.ok_or(MapError::NotMapped { address: at })?;
            check(region)?;
            at = region.end;
        }
        Ok(())
    }

    /// How much there is. One pass over the regions.
    pub fn footprint(&self) -> Footprint {
        let mut sum = Footprint::default();
        let mut next = [0; TABLE_SPAN_BITS.len()];
        for region in &self.regions {
            let pages = region.pages();
            match region.kind {
                RegionKind::Anonymous => sum.reserved += pages,
                RegionKind::Object { .. } => sum.borrowed += pages,
                _ => sum.fixed += pages,
            }
            if region.backing == Backing::Reserved {
                continue;
            }
            if region.kind == RegionKind::Anonymous {
                sum.committed += pages;
            }
            let counts = [&mut sum.leaf_tables, &mut sum.upper_tables];
            let mut tables = [0; TABLE_SPAN_BITS.len()];
            for (level, bits) in TABLE_SPAN_BITS.into_iter().enumerate() {
                let first = (region.start >> bits).max(next[level]);
                let end = ((region.end - 1) >> bits) + 1;
                tables[level] = end.saturating_sub(first);
                next[level] = next[level].max(end);
            }
            let [leaf, upper] = counts;
            *leaf += tables[0];
            *upper += tables[1] + tables[2];
        }
        sum
    }

    /// The part of `start..end`, widened to whole page tables, in which no page
    /// can have memory: its tables are not needed.
    pub fn vacant_tables(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let mut from = start & !(LEAF_SPAN - 1);
        let mut to = end.checked_next_multiple_of(LEAF_SPAN)?;
        if self.has_memory(from, start) {
            from += LEAF_SPAN;
        }
        if self.has_memory(end, to) {
            to -= LEAF_SPAN;
        }
        (from < to).then_some((from, to))
    }

    fn has_memory(&self, start: u64, end: u64) -> bool {
        let first = self.regions.partition_point(|region| region.end <= start);
        let mut near = self.regions[first..].iter();
        start < end
            && near
                .by_ref()
                .take_while(|region| region.start < end)
                .any(|region| region.backing != Backing::Reserved)
    }

    /// Pages in regions that can have memory.
    pub fn backable_pages(&self) -> u64 {
        let backable = |region: &&Region| region.backing != Backing::Reserved;
        self.regions
            .iter()
            .filter(backable)
            .map(Region::pages)
            .sum()
    }

    /// Checks L3 and L4.
    ///
    /// # Panics
    /// When one of them is broken, which is a defect of this crate.
    pub fn check(&self) {
        for region in &self.regions {
            assert!(
                check_bounds(region.start, region.end).is_ok(),
                "L4 broken: {region:x?}"
            );
            assert!(
                !region.protection.is_writable_and_executable(),
                "L3 broken: {region:x?}"
            );
        }
        for pair in self.regions.windows(2) {
            assert!(pair[0].end <= pair[1].start, "L4 broken: {pair:x?}");
        }
        assert!(
            self.regions.len() <= self.capacity,
            "more regions than capacity"
        );
    }

    fn debug_check(&self) {
        if cfg!(debug_assertions) {
            self.check();
        }
    }

    /// Inserts one of the program's own regions; empty ones are skipped. They
    /// cannot collide: the plan keeps the image inside its window (L1), and
    /// the rest are constants whose order `layout` asserts.
    fn push_fixed(&mut self, region: Region) {
        if region.start < region.end {
            let at = self
                .regions
                .partition_point(|other| other.start < region.start);
            self.regions.insert(at, region);
        }
    }

    fn push_tls(&mut self, tls: TlsPlan) {
        self.push_fixed(tls_region(&tls));
        self.tls = Some(tls);
    }

    fn first_overlap(&self, at: usize, region: &Region) -> Option<u64> {
        let before = self.regions[..at]
            .last()
            .filter(|other| other.end > region.start);
        let after = self
            .regions
            .get(at)
            .filter(|other| other.start < region.end);
        before.or(after).map(|other| other.start)
    }

    /// Sets room for `more` regions aside.
    ///
    /// # Errors
    /// [`MapError::TooManyRegions`].
    pub fn reserve_regions(&mut self, more: usize) -> Result<(), MapError> {
        self.room_for(more)
    }

    fn room_for(&mut self, more: usize) -> Result<(), MapError> {
        if self.regions.len() + more > self.capacity {
            return Err(MapError::TooManyRegions);
        }
        self.regions
            .try_reserve(more)
            .map_err(|_| MapError::TooManyRegions)
    }

    /// Cuts regions so that `start..end` is exactly `regions[first..last]`.
    fn isolate(&mut self, start: u64, end: u64) -> Result<(usize, usize), MapError> {
        self.check_covered(start, end)?;
        let cuts = [start, end].into_iter().filter(|at| self.is_inside(*at));
        self.room_for(cuts.count())?;
        self.cut(start);
        self.cut(end);
        let first = self.regions.partition_point(|region| region.start < start);
        let last = self.regions.partition_point(|region| region.start < end);
        Ok((first, last))
    }

    fn check_covered(&self, start: u64, end: u64) -> Result<(), MapError> {
        check_bounds(start, end)?;
        let mut at = start;
        while at < end {
            let region = self
                .region_at(at)
                .ok_or(MapError::NotMapped { address: at })?;
            if region.kind.is_fixed() {
                return Err(MapError::Fixed {
                    start: region.start,
                });
            }
            at = region.end;
        }
        Ok(())
    }

    /// Joins neighbours that became one within and around `first..last`, so
    /// that a process that maps page by page does not run out of regions.
    fn join_around(&mut self, first: usize, last: usize) {
        let last = last.min(self.regions.len().saturating_sub(1));
        for at in (first.saturating_sub(1)..last).rev() {
            if self.regions[at].joins(&self.regions[at + 1]) {
                self.regions[at].end = self.regions[at + 1].end;
                self.regions.remove(at + 1);
            }
        }
    }

    /// True when `address` is neither the start nor the end of a region.
    fn is_inside(&self, address: u64) -> bool {
        let region = self.region_at(address);
        region.is_some_and(|region| region.start < address)
    }

    /// Splits the region that has `address` inside, if any.
    fn cut(&mut self, address: u64) {
        let at = self
            .regions
            .partition_point(|region| region.start < address);
        let Some(region) = self.regions[..at]
            .last_mut()
            .filter(|region| region.end > address)
        else {
            return;
        };
        let tail = region.tail_from(address);
        region.end = address;
        self.regions.insert(at, tail);
    }
}

const fn tls_region(tls: &TlsPlan) -> Region {
    Region {
        start: tls.region_base,
        end: tls.region_end(),
        protection: Protection::READ_WRITE,
        backing: Backing::Eager,
        kind: RegionKind::Tls,
    }
}

const fn single_page(start: u64, protection: Protection, kind: RegionKind) -> Region {
    Region {
        start,
        end: start + PAGE_BYTES,
        protection,
        backing: Backing::Eager,
        kind,
    }
}

fn check_bounds(start: u64, end: u64) -> Result<(), MapError> {
    let aligned = (start | end) & PAGE_MASK == 0;
    if aligned && start < end && end <= USER_LIMIT {
        Ok(())
    } else {
        Err(MapError::BadRange)
    }
}
