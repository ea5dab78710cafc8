//! Address spaces: which page tables exist, which page shows which frame.
//!
//! x86-64 has four levels: the top table (PML4), then [`Level::Pdpt`],
//! [`Level::Directory`] and [`Level::PageTable`]. Tables are made when a page
//! first needs them and live as long as the address space. For each page table
//! there is a record of its 512 pages, so finding the frame behind an address
//! is one binary search in a handful of records.
//!
//! A page is held in one of two ways ([`Hold`]): *owned* pages use the frame's
//! own capability and go with the address space; *shared* ones use a copy made
//! for the mapping, and the frame lives on.
//!
//! # Invariants
//! - **V1** A page is recorded with rights exactly when the kernel maps it so;
//!   one recorded without ([`MappedPage::rights`]) keeps its frame unmapped.
//! - **V2** Tables are recorded exactly as the kernel has them; a page's three
//!   tables are.
//! - **V3** Records of page tables are sorted by address.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::error::BrokerError;
use crate::frames::{FrameId, FramePool};
use crate::operation::{Cache, Kernel, Level, Object, ObjectKind, Operation, Rights, Slot};
use crate::store::{OwnedObject, Store};
use crate::{PAGE_BITS, PAGE_BYTES};

/// First address past what users may map. seL4's own limit is one canonical
/// half; the last page is left out.
pub const USER_LIMIT: u64 = 0x0000_7fff_ffff_f000;

const PAGES_PER_TABLE: usize = 512;
const TABLE: u8 = PAGE_BITS;

/// The lower tables of one address space.
#[derive(Debug, Default)]
pub struct TableSet {
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    level: Level,
    base: u64,
    /// `None` for tables that were there before us.
    object: Option<OwnedObject>,
}

impl TableSet {
    /// No table.
    pub const fn new() -> Self {
        Self { tables: Vec::new() }
    }

    /// Records a table that exists already, as in the root task's own address
    /// space at boot. It will not be destroyed.
    pub fn note_existing(&mut self, level: Level, vaddr: u64) {
        if !self.has(level, vaddr) {
            self.tables.push(Table {
                level,
                base: level.base(vaddr),
                object: None,
            });
        }
    }

    /// Number of tables made.
    pub fn len(&self) -> usize {
        self.tables
            .iter()
            .filter(|table| table.object.is_some())
            .count()
    }

    /// True when no table was made.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// First addresses of the tables of `level` that were made.
    pub(crate) fn bases(&self, level: Level) -> impl Iterator<Item = u64> {
        let made = self.tables.iter().filter(|table| table.object.is_some());
        made.filter(move |table| table.level == level)
            .map(|table| table.base)
    }

    /// True when the table of `level` for `vaddr` exists.
    pub fn has(&self, level: Level, vaddr: u64) -> bool {
        let base = level.base(vaddr);
        // Newest first: the last table made is the likeliest.
        self.tables
            .iter()
            .rev()
            .any(|table| table.level == level && table.base == base)
    }

    /// Makes and maps whichever of the three tables for `vaddr` are missing.
    ///
    /// # Errors
    /// Those of making an object. Tables made before the failure stay.
    pub fn ensure(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        space: Slot,
        vaddr: u64,
    ) -> Result<(), BrokerError> {
        if self.has(Level::PageTable, vaddr) {
            return Ok(());
        }
        for level in Level::ALL {
            if !self.has(level, vaddr) {
                self.make(kernel, store, space, level, vaddr)?;
            }
        }
        Ok(())
    }

    /// Destroys every table made, lowest level first.
    ///
    /// # Errors
    /// The first refusal; the others are destroyed all the same, and what was
    /// refused is in quarantine.
    pub fn destroy(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
    ) -> Result<(), BrokerError> {
        let mut outcome = Ok(());
        for level in Level::ALL.into_iter().rev() {
            for table in self.tables.iter_mut().filter(|table| table.level == level) {
                if let Some(object) = table.object.take() {
                    outcome = outcome.and(store.destroy(kernel, object));
                    table.base = u64::MAX; // Matches no address: gone below.
                }
            }
        }
        self.tables.retain(|table| table.base != u64::MAX);
        outcome
    }

    /// Destroys the table of `level` at `base`, if it was made here.
    pub(crate) fn release(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        level: Level,
        base: u64,
    ) -> Result<(), BrokerError> {
        let is_it = |table: &Table| table.level == level && table.base == base;
        let Some(at) = self.tables.iter().position(is_it) else {
            return Ok(());
        };
        match self.tables[at].object.take() {
            Some(object) => {
                self.tables.swap_remove(at);
                store.destroy(kernel, object)
            }
            None => Ok(()),
        }
    }

    /// Destroys the tables of `level` that reach into `start..end` and have no
    /// table of the level below.
    pub(crate) fn release_empty(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        level: Level,
        start: u64,
        end: u64,
    ) -> Result<(), BrokerError> {
        let below = match level {
            Level::Pdpt => Level::Directory,
            Level::Directory | Level::PageTable => Level::PageTable,
        };
        let mut outcome = Ok(());
        let mut base = level.base(start);
        while base < end {
            let child = |table: &Table| table.level == below && level.base(table.base) == base;
            if !self.tables.iter().any(child) {
                outcome = outcome.and(self.release(kernel, store, level, base));
            }
            base += 1 << level.span_bits();
        }
        outcome
    }

    fn make(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        space: Slot,
        level: Level,
        vaddr: u64,
    ) -> Result<(), BrokerError> {
        const FULL: BrokerError = BrokerError::OutOfRecords("page tables");
        self.tables.try_reserve(1).map_err(|_| FULL)?;
        let object = Object {
            kind: ObjectKind::Table(level),
            size_bits: TABLE,
        };
        let object = store.create(kernel, object)?;
        let base = level.base(vaddr);
        let map = Operation::MapTable {
            table: object.slot(),
            level,
            space,
            vaddr: base,
        };
        if let Err(refused) = kernel.execute(&map) {
            store.destroy(kernel, object)?;
            return Err(refused.into());
        }
        self.tables.push(Table {
            level,
            base,
            object: Some(object),
        });
        Ok(())
    }
}

/// Name of an address space. A destroyed one's name never comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId {
    index: u32,
    generation: u32,
}

/// How an address space holds a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The frame goes when the page does.
    Owned,
    /// The frame belongs to someone else, who frees it after the last page
    /// that shows it is gone.
    Shared,
}

/// One page of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedPage {
    /// The frame behind it.
    pub frame: FrameId,
    /// How it is held.
    pub hold: Hold,
    /// What the mapping allows; `None` for a page that keeps its frame but is
    /// not mapped.
    pub rights: Option<Rights>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    frame: u32,
    /// Slot of the copy; zero (the null slot) for the owner's capability.
    copy: u32,
    rights: Option<Rights>,
}

const ABSENT: Entry = Entry {
    frame: u32::MAX,
    copy: 0,
    rights: None,
};

impl Entry {
    fn page(self) -> Option<MappedPage> {
        (self.frame != ABSENT.frame).then(|| MappedPage {
            frame: FrameId::from_number(self.frame),
            hold: if self.copy == 0 {
                Hold::Owned
            } else {
                Hold::Shared
            },
            rights: self.rights,
        })
    }
}

#[derive(Debug)]
struct PageRecords {
    base: u64,
    entries: Box<[Entry; PAGES_PER_TABLE]>,
}

#[derive(Debug)]
struct Space {
    root: OwnedObject,
    tables: TableSet,
    records: Vec<PageRecords>,
    pages: u32,
}

impl Space {
    fn entry(&self, vaddr: u64) -> Option<&Entry> {
        let base = Level::PageTable.base(vaddr);
        let at = self
            .records
            .binary_search_by_key(&base, |record| record.base)
            .ok()?;
        Some(&self.records[at].entries[page_index(vaddr)])
    }

    fn entry_mut(&mut self, vaddr: u64) -> Option<&mut Entry> {
        let base = Level::PageTable.base(vaddr);
        let at = self
            .records
            .binary_search_by_key(&base, |record| record.base)
            .ok()?;
        Some(&mut self.records[at].entries[page_index(vaddr)])
    }

    /// Makes sure there is a record for the page table of `vaddr`.
    fn reserve(&mut self, vaddr: u64) -> Result<(), BrokerError> {
        const FULL: BrokerError = BrokerError::OutOfRecords("pages");
        let base = Level::PageTable.base(vaddr);
        if let Err(at) = self
            .records
            .binary_search_by_key(&base, |record| record.base)
        {
            self.records.try_reserve(1).map_err(|_| FULL)?;
            let entries = Box::new([ABSENT; PAGES_PER_TABLE]);
            self.records.insert(at, PageRecords { base, entries });
        }
        Ok(())
    }
}

const fn page_index(vaddr: u64) -> usize {
    (vaddr >> PAGE_BITS) as usize % PAGES_PER_TABLE
}

/// The books of all address spaces but the root task's.
#[derive(Debug, Default)]
pub struct AddressSpaces {
    spaces: Vec<(u32, Option<Space>)>,
}

impl AddressSpaces {
    /// None yet.
    pub const fn new() -> Self {
        Self { spaces: Vec::new() }
    }

    /// Number of address spaces.
    pub fn count(&self) -> usize {
        self.spaces
            .iter()
            .filter(|(_, space)| space.is_some())
            .count()
    }

    /// Makes an empty address space.
    ///
    /// # Errors
    /// Those of making an object; [`BrokerError::Kernel`] when the kernel has
    /// no number left for it.
    pub fn create(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
    ) -> Result<SpaceId, BrokerError> {
        let index = self.vacancy()?;
        let object = Object {
            kind: ObjectKind::VSpace,
            size_bits: TABLE,
        };
        let root = store.create(kernel, object)?;
        if let Err(refused) = kernel.execute(&Operation::AssignAsid { space: root.slot() }) {
            store.destroy(kernel, root)?;
            return Err(refused.into());
        }
        let space = Space {
            root,
            tables: TableSet::new(),
            records: Vec::new(),
            pages: 0,
        };
        let (generation, place) = &mut self.spaces[index];
        *place = Some(space);
        Ok(SpaceId {
            index: index as u32,
            generation: *generation,
        })
    }

    /// Slot of the top table: what a thread is configured with.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`].
    pub fn root(&self, id: SpaceId) -> Result<Slot, BrokerError> {
        Ok(self.space(id)?.root.slot())
    }

    /// Number of pages mapped, and of tables below the top.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`].
    pub fn size(&self, id: SpaceId) -> Result<(u32, usize), BrokerError> {
        let space = self.space(id)?;
        Ok((space.pages, space.tables.len()))
    }

    /// The page that contains `vaddr`, if one is mapped.
    pub fn page(&self, id: SpaceId, vaddr: u64) -> Option<MappedPage> {
        self.space(id).ok()?.entry(vaddr)?.page()
    }

    /// Maps a frame at a page. An owned page takes the frame over.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`], [`BrokerError::BadAddress`],
    /// [`BrokerError::AlreadyMapped`], [`BrokerError::BadFrame`], and those of
    /// making tables and copies.
    #[expect(clippy::too_many_arguments, reason = "a mapping is what these say")]
    pub fn map(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        frames: &mut FramePool,
        id: SpaceId,
        vaddr: u64,
        frame: FrameId,
        rights: Rights,
        hold: Hold,
    ) -> Result<(), BrokerError> {
        check_address(vaddr)?;
        let space = self.space_mut(id)?;
        if space.entry(vaddr).and_then(|entry| entry.page()).is_some() {
            return Err(BrokerError::AlreadyMapped { vaddr });
        }
        let (owner, mapped) = frames.owner(frame)?;
        if hold == Hold::Owned && mapped {
            return Err(BrokerError::BadFrame);
        }
        space.reserve(vaddr)?;
        let root = space.root.slot();
        space.tables.ensure(kernel, store, root, vaddr)?;
        let cap = mapping_cap(kernel, store, owner, hold)?;
        let map = Operation::MapPage {
            frame: cap,
            space: root,
            vaddr,
            rights,
            cache: Cache::Normal,
        };
        if let Err(refused) = kernel.execute(&map) {
            drop_mapping_cap(kernel, store, cap, hold)?;
            return Err(refused.into());
        }
        if hold == Hold::Owned {
            frames.note_mapped(frame, true)?;
        }
        space.pages += 1;
        if let Some(entry) = space.entry_mut(vaddr) {
            let copy = if hold == Hold::Owned { 0 } else { cap.0 };
            *entry = Entry {
                frame: frame.number(),
                copy,
                rights: Some(rights),
            };
        }
        Ok(())
    }

    /// Unmaps a page. An owned frame is freed.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`], [`BrokerError::NotMapped`],
    /// [`BrokerError::Kernel`] (the page then stays).
    pub fn unmap(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        frames: &mut FramePool,
        id: SpaceId,
        vaddr: u64,
    ) -> Result<MappedPage, BrokerError> {
        let space = self.space_mut(id)?;
        let absent = BrokerError::NotMapped { vaddr };
        let entry = space.entry_mut(vaddr).ok_or(absent)?;
        let page = entry.page().ok_or(absent)?;
        drop_page(kernel, store, frames, entry)?;
        space.pages -= 1;
        Ok(page)
    }

    /// Changes what a page allows; with `None` it keeps its frame and is
    /// unmapped.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`], [`BrokerError::NotMapped`],
    /// [`BrokerError::Kernel`].
    pub fn protect(
        &mut self,
        kernel: &mut impl Kernel,
        frames: &mut FramePool,
        id: SpaceId,
        vaddr: u64,
        rights: Option<Rights>,
    ) -> Result<(), BrokerError> {
        let space = self.space_mut(id)?;
        let root = space.root.slot();
        let vaddr = vaddr & !(PAGE_BYTES - 1);
        let absent = BrokerError::NotMapped { vaddr };
        let entry = space.entry_mut(vaddr).ok_or(absent)?;
        entry.page().ok_or(absent)?;
        let cap = entry_cap(frames, entry)?;
        remap(kernel, cap, root, vaddr, entry.rights, rights)?;
        entry.rights = rights;
        Ok(())
    }

    /// Makes tables and records for `start..end`, so that mapping a page there
    /// takes nothing but the page.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`] and those of making tables; tables made before
    /// the failure stay until [`release_tables`](Self::release_tables).
    pub fn prepare(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        id: SpaceId,
        start: u64,
        end: u64,
    ) -> Result<(), BrokerError> {
        let space = self.space_mut(id)?;
        let root = space.root.slot();
        let mut vaddr = Level::PageTable.base(start);
        while vaddr < end {
            space.reserve(vaddr)?;
            space.tables.ensure(kernel, store, root, vaddr)?;
            vaddr += 1 << Level::PageTable.span_bits();
        }
        Ok(())
    }

    /// Unmaps every page in `start..end`; owned frames are freed. Returns how
    /// many there were. Pages that are not there cost nothing but a look.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`]; [`BrokerError::Kernel`] is the first refusal,
    /// and the other pages are gone all the same.
    pub fn unmap_all(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        frames: &mut FramePool,
        id: SpaceId,
        start: u64,
        end: u64,
    ) -> Result<u32, BrokerError> {
        let space = self.space_mut(id)?;
        let (mut outcome, mut count) = (Ok(()), 0);
        for (_, entry) in pages_in(&mut space.records, start, end) {
            match drop_page(kernel, store, frames, entry) {
                Ok(()) => count += 1,
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        space.pages -= count;
        outcome.map(|()| count)
    }

    /// Changes what every page in `start..end` allows, as
    /// [`protect`](Self::protect) does.
    ///
    /// # Errors
    /// As [`unmap_all`](Self::unmap_all).
    pub fn protect_all(
        &mut self,
        kernel: &mut impl Kernel,
        frames: &mut FramePool,
        id: SpaceId,
        (start, end): (u64, u64),
        rights: Option<Rights>,
    ) -> Result<(), BrokerError> {
        let space = self.space_mut(id)?;
        let root = space.root.slot();
        let mut outcome = Ok(());
        for (vaddr, entry) in pages_in(&mut space.records, start, end) {
            let remapped = entry_cap(frames, entry)
                .and_then(|cap| remap(kernel, cap, root, vaddr, entry.rights, rights));
            match remapped {
                Ok(()) => entry.rights = rights,
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// Destroys the page tables in `start..end` that have no page, and the
    /// tables above them that have no table left.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`]; [`BrokerError::Kernel`] is the first refusal.
    pub fn release_tables(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        id: SpaceId,
        start: u64,
        end: u64,
    ) -> Result<(), BrokerError> {
        let space = self.space_mut(id)?;
        let Space {
            tables, records, ..
        } = space;
        let empty = |record: &PageRecords| {
            let vacant = |entry: &Entry| entry.page().is_none();
            (start..end).contains(&record.base) && record.entries.iter().all(vacant)
        };
        let mut outcome = Ok(());
        records.retain(|record| {
            let gone = empty(record);
            if gone {
                let released = tables.release(kernel, store, Level::PageTable, record.base);
                outcome = outcome.and(released);
            }
            !gone
        });
        for level in [Level::Directory, Level::Pdpt] {
            outcome = outcome.and(tables.release_empty(kernel, store, level, start, end));
        }
        outcome
    }

    /// Destroys an address space: pages, tables, top table. Owned frames are
    /// freed. No thread may run in it any more.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`]. [`BrokerError::Kernel`] reports the first
    /// refusal; everything else is gone all the same, and what the kernel
    /// would not let go stays taken.
    pub fn destroy(
        &mut self,
        kernel: &mut impl Kernel,
        store: &mut Store,
        frames: &mut FramePool,
        id: SpaceId,
    ) -> Result<(), BrokerError> {
        self.space(id)?;
        let (generation, place) = &mut self.spaces[id.index as usize];
        let Some(mut space) = place.take() else {
            return Err(BrokerError::BadSpace);
        };
        *generation = generation.wrapping_add(1);
        // K7: with the top table gone, unmapping a page is only bookkeeping.
        let mut outcome = store.destroy(kernel, space.root);
        for record in &mut space.records {
            let mapped = record
                .entries
                .iter_mut()
                .filter(|entry| entry.page().is_some());
            for entry in mapped {
                outcome = outcome.and(drop_page(kernel, store, frames, entry));
            }
        }
        outcome.and(space.tables.destroy(kernel, store))
    }

    /// Lower tables of an address space: level and first address.
    ///
    /// # Errors
    /// [`BrokerError::BadSpace`].
    pub fn tables(&self, id: SpaceId) -> Result<impl Iterator<Item = (Level, u64)>, BrokerError> {
        let tables = &self.space(id)?.tables.tables;
        Ok(tables.iter().map(|table| (table.level, table.base)))
    }

    /// Slot of the capability that maps a page: of the copy made for it, or
    /// `None` where it is the owner's.
    pub(crate) fn copy_slot(&self, id: SpaceId, vaddr: u64) -> Option<Slot> {
        let copy = self.space(id).ok()?.entry(vaddr)?.copy;
        (copy != 0).then_some(Slot(copy))
    }

    /// Calls `visit` with address and page of every mapped page.
    pub fn for_each_page(&self, id: SpaceId, mut visit: impl FnMut(u64, MappedPage)) {
        let records = self
            .space(id)
            .map(|space| space.records.as_slice())
            .unwrap_or_default();
        for record in records {
            for (index, entry) in record.entries.iter().enumerate() {
                if let Some(page) = entry.page() {
                    visit(record.base + index as u64 * PAGE_BYTES, page);
                }
            }
        }
    }

    /// Checks V2 and V3 and the page counts.
    ///
    /// # Panics
    /// When one is broken, which is a defect of this module.
    pub fn check(&self) {
        for space in self.spaces.iter().filter_map(|(_, space)| space.as_ref()) {
            let mut pages = 0;
            for record in &space.records {
                let mapped = record
                    .entries
                    .iter()
                    .filter(|entry| entry.page().is_some())
                    .count();
                let tables = Level::ALL
                    .iter()
                    .all(|level| space.tables.has(*level, record.base));
                assert!(mapped == 0 || tables, "V2 broken at {:#x}", record.base);
                pages += mapped as u32;
            }
            assert_eq!(pages, space.pages, "page count");
            assert!(
                space.records.is_sorted_by(|a, b| a.base < b.base),
                "V3 broken"
            );
        }
    }

    fn space(&self, id: SpaceId) -> Result<&Space, BrokerError> {
        match self.spaces.get(id.index as usize) {
            Some((generation, Some(space))) if *generation == id.generation => Ok(space),
            _ => Err(BrokerError::BadSpace),
        }
    }

    fn space_mut(&mut self, id: SpaceId) -> Result<&mut Space, BrokerError> {
        match self.spaces.get_mut(id.index as usize) {
            Some((generation, Some(space))) if *generation == id.generation => Ok(space),
            _ => Err(BrokerError::BadSpace),
        }
    }

    fn vacancy(&mut self) -> Result<usize, BrokerError> {
        const FULL: BrokerError = BrokerError::OutOfRecords("address spaces");
        if let Some(at) = self.spaces.iter().position(|(_, space)| space.is_none()) {
            return Ok(at);
        }
        self.spaces.try_reserve(1).map_err(|_| FULL)?;
        self.spaces.push((0, None));
        Ok(self.spaces.len() - 1)
    }
}

fn check_address(vaddr: u64) -> Result<(), BrokerError> {
    let fits = vaddr.is_multiple_of(PAGE_BYTES) && vaddr <= USER_LIMIT - PAGE_BYTES;
    if fits {
        Ok(())
    } else {
        Err(BrokerError::BadAddress { vaddr })
    }
}

/// The capability a new mapping uses.
fn mapping_cap(
    kernel: &mut impl Kernel,
    store: &mut Store,
    owner: Slot,
    hold: Hold,
) -> Result<Slot, BrokerError> {
    if hold == Hold::Owned {
        return Ok(owner);
    }
    let to = store.slots.allocate()?;
    let copied = kernel.execute(&Operation::Copy { from: owner, to });
    copied.inspect_err(|_| store.slots.free(to))?;
    Ok(to)
}

/// Undoes [`mapping_cap`]; the capability is not mapped.
fn drop_mapping_cap(
    kernel: &mut impl Kernel,
    store: &mut Store,
    cap: Slot,
    hold: Hold,
) -> Result<(), BrokerError> {
    if hold == Hold::Shared {
        kernel.execute(&Operation::Delete { slot: cap })?;
        store.slots.free(cap);
    }
    Ok(())
}

fn entry_cap(frames: &mut FramePool, entry: &Entry) -> Result<Slot, BrokerError> {
    match entry.copy {
        0 => Ok(frames.owner(FrameId::from_number(entry.frame))?.0),
        copy => Ok(Slot(copy)),
    }
}

/// Unmaps a mapped entry and clears it.
fn drop_page(
    kernel: &mut impl Kernel,
    store: &mut Store,
    frames: &mut FramePool,
    entry: &mut Entry,
) -> Result<(), BrokerError> {
    let frame = FrameId::from_number(entry.frame);
    let cap = entry_cap(frames, entry)?;
    if entry.rights.is_some() {
        kernel.execute(&Operation::UnmapPage { frame: cap })?;
        entry.rights = None;
    }
    if entry.copy == 0 {
        frames.note_mapped(frame, false)?;
        frames.free(frame)?;
    } else {
        drop_mapping_cap(kernel, store, cap, Hold::Shared)?;
    }
    *entry = ABSENT;
    Ok(())
}

/// The pages in `start..end`, with their addresses.
fn pages_in(
    records: &mut [PageRecords],
    start: u64,
    end: u64,
) -> impl Iterator<Item = (u64, &mut Entry)> {
    let span = 1 << Level::PageTable.span_bits();
    let first = records.partition_point(|record| record.base + span <= start);
    let last = records.partition_point(|record| record.base < end);
    records[first..last.max(first)]
        .iter_mut()
        .flat_map(move |record| {
            let from = start.max(record.base);
            let to = end.min(record.base + span);
            let range = page_offset(from, record.base)..page_offset(to, record.base);
            let base = record.base;
            let entries = record.entries[range.clone()].iter_mut().zip(range);
            entries
                .map(move |(entry, index)| (base + index as u64 * PAGE_BYTES, entry))
                .filter(|(_, entry)| entry.page().is_some())
        })
}

const fn page_offset(vaddr: u64, base: u64) -> usize {
    ((vaddr - base) >> PAGE_BITS) as usize
}

/// Maps a page with other rights than it has, or takes its mapping away; it
/// keeps the old ones when the kernel refuses the new.
fn remap(
    kernel: &mut impl Kernel,
    frame: Slot,
    space: Slot,
    vaddr: u64,
    old: Option<Rights>,
    new: Option<Rights>,
) -> Result<(), BrokerError> {
    let map = |rights| Operation::MapPage {
        frame,
        space,
        vaddr,
        rights,
        cache: Cache::Normal,
    };
    if old == new {
        return Ok(());
    }
    if old.is_some() {
        kernel.execute(&Operation::UnmapPage { frame })?;
    }
    let Some(rights) = new else { return Ok(()) };
    if let Err(refused) = kernel.execute(&map(rights)) {
        if let Some(old) = old {
            kernel.execute(&map(old))?;
        }
        return Err(refused.into());
    }
    Ok(())
}
