//! Simulated process memory: pages with permissions, backed on first touch,
//! some of them shared.
//!
//! Like the real machine it has no map: which ranges may be touched is the
//! server's knowledge (M4). What it insists on is what a kernel insists on:
//! pages go where tables are, one at a time, and a table goes when it has none.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ring_server_core::{
    AccessFault, AddressMap, Backed, Backing, NoMemory, Protection, Region, RegionKind,
};

const PAGE: u64 = 4096;
/// Bytes that one table maps.
const TABLE: u64 = 1 << 21;

type Frame = Rc<RefCell<Box<[u8; PAGE as usize]>>>;

fn zeroed_frame() -> Frame {
    Rc::new(RefCell::new(Box::new([0; PAGE as usize])))
}

#[derive(Debug)]
struct ModelPage {
    protection: Protection,
    /// Nothing before the first touch.
    frame: Option<Frame>,
    /// Part of a memory object.
    is_shared: bool,
}

const REGIONS_MAX: usize = 512;

/// Memory that is zero on first touch and that its process may unmap, as a
/// region of a map.
pub const fn anonymous(start: u64, len: u64, protection: Protection) -> Region {
    Region {
        start,
        end: start + len,
        protection,
        backing: Backing::DemandZero,
        kind: RegionKind::Anonymous,
    }
}

/// The frames of memory objects.
#[derive(Debug, Default)]
pub struct ObjectFrames {
    objects: BTreeMap<u32, Vec<Frame>>,
    /// Pages that can still be handed out, if that is limited.
    pub room: Option<u32>,
    /// Objects made and freed.
    pub counts: (u64, u64),
}

impl ObjectFrames {
    pub(crate) fn create(&mut self, object: u32, pages: u32) -> Result<(), NoMemory> {
        if let Some(room) = &mut self.room {
            *room = room.checked_sub(pages).ok_or(NoMemory)?;
        }
        let frames = (0..pages).map(|_| zeroed_frame()).collect();
        let previous = self.objects.insert(object, frames);
        assert!(previous.is_none(), "object {object} is made twice");
        self.counts.0 += 1;
        Ok(())
    }

    pub(crate) fn free(&mut self, object: u32) {
        let frames = self.objects.remove(&object).expect("the object is there");
        for frame in &frames {
            assert_eq!(
                Rc::strong_count(frame),
                1,
                "object {object} is still mapped"
            );
        }
        if let Some(room) = &mut self.room {
            *room += frames.len() as u32;
        }
        self.counts.1 += 1;
    }

    /// Objects that have memory.
    pub fn live(&self) -> usize {
        self.objects.len()
    }
}

/// The memory of one process.
#[derive(Debug, Default)]
pub struct Memory {
    pages: BTreeMap<u64, ModelPage>,
    tables: BTreeSet<u64>,
}

impl Memory {
    /// Maps whole pages, zero on first touch.
    pub fn map(&mut self, start: u64, len: u64, protection: Protection) {
        self.tables.extend(tables_of(start, start + len));
        for base in (start..start + len).step_by(PAGE as usize) {
            let page = ModelPage {
                protection,
                frame: None,
                is_shared: false,
            };
            self.pages.insert(base, page);
        }
    }

    /// Takes pages away, as an unmap behind the server's back would: every
    /// access is refused from now on.
    pub fn unmap(&mut self, start: u64, len: u64) {
        for base in (start..start + len).step_by(PAGE as usize) {
            let hole = ModelPage {
                protection: Protection::NONE,
                frame: None,
                is_shared: false,
            };
            self.pages.insert(base, hole);
        }
    }

    /// What the server is told of the memory a process starts with.
    pub fn address_space(&self) -> AddressMap {
        let mut space = AddressMap::new(REGIONS_MAX);
        for (&base, page) in &self.pages {
            let mapped = space.insert(anonymous(base, PAGE, page.protection));
            mapped.expect("pages are disjoint and in user space");
        }
        space
    }

    /// Backs a page as after a fault.
    pub fn back(&mut self, base: u64, protection: Protection) -> Result<Backed, NoMemory> {
        self.assert_table(base);
        let page = self.pages.entry(base).or_insert(ModelPage {
            protection,
            frame: None,
            is_shared: false,
        });
        assert_eq!(page.protection, protection, "as the server protected it");
        if page.frame.is_some() {
            return Ok(Backed::Already);
        }
        page.frame = Some(zeroed_frame());
        Ok(Backed::Now)
    }

    pub(crate) fn provide_tables(&mut self, start: u64, end: u64) {
        self.tables.extend(tables_of(start, end));
    }

    pub(crate) fn release_tables(&mut self, start: u64, end: u64) {
        for table in tables_of(start, end) {
            let pages = self.pages.range(table..table + TABLE).count();
            assert_eq!(pages, 0, "the table at {table:#x} has pages");
            self.tables.remove(&table);
        }
    }

    pub(crate) fn unmap_pages(&mut self, start: u64, end: u64) {
        self.pages.retain(|base, _| !(start..end).contains(base));
    }

    pub(crate) fn protect(&mut self, start: u64, end: u64, protection: Protection) {
        for (_, page) in self.pages.range_mut(start..end) {
            page.protection = protection;
        }
    }

    pub(crate) fn map_object(
        &mut self,
        (start, end): (u64, u64),
        frames: &ObjectFrames,
        (object, first_page): (u32, u32),
        protection: Protection,
    ) {
        let frames = &frames.objects[&object][first_page as usize..];
        for (base, frame) in (start..end).step_by(PAGE as usize).zip(frames) {
            self.assert_table(base);
            let page = ModelPage {
                protection,
                frame: Some(frame.clone()),
                is_shared: true,
            };
            let previous = self.pages.insert(base, page);
            assert!(previous.is_none(), "a page is at {base:#x} already");
        }
    }

    fn assert_table(&self, base: u64) {
        let table = base / TABLE * TABLE;
        assert!(self.tables.contains(&table), "no table for {base:#x}");
    }

    /// Number of tables, and of pages that have memory of their own.
    pub fn size(&self) -> (usize, usize) {
        let own = self.pages.values();
        let own = own.filter(|page| page.frame.is_some() && !page.is_shared);
        (self.tables.len(), own.count())
    }

    /// What the processor would do: the byte at `addr`, if a page is there and
    /// allows it; a store if `value` is given.
    pub fn access(&mut self, addr: u64, value: Option<u8>) -> Option<u8> {
        let (base, within) = split(addr);
        let page = self.pages.get(&base)?;
        let frame = page.frame.as_ref()?;
        let allowed = match value {
            Some(_) => page.protection.write,
            None => page.protection.effective_read(),
        };
        if !allowed {
            return None;
        }
        let mut bytes = frame.borrow_mut();
        if let Some(value) = value {
            bytes[within] = value;
        }
        Some(bytes[within])
    }

    /// Copies out, failing on the first byte that cannot be there.
    pub fn read(&self, addr: u64, out: &mut [u8]) -> Result<(), AccessFault> {
        let mut at = addr;
        let mut rest = out;
        while !rest.is_empty() {
            let (base, within) = split(at);
            let chunk = rest.len().min(PAGE as usize - within);
            let (now, later) = rest.split_at_mut(chunk);
            match self.pages.get(&base) {
                Some(page) if page.protection.is_none() => return Err(AccessFault),
                Some(ModelPage {
                    frame: Some(frame), ..
                }) => now.copy_from_slice(&frame.borrow()[within..within + chunk]),
                Some(_) => now.fill(0),
                None if self.tables.contains(&(base / TABLE * TABLE)) => now.fill(0),
                None => return Err(AccessFault),
            }
            at = at.wrapping_add(chunk as u64);
            rest = later;
        }
        Ok(())
    }

    /// Copies in, failing on the first byte that cannot be writable.
    pub fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), AccessFault> {
        let mut at = addr;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (base, within) = split(at);
            let chunk = rest.len().min(PAGE as usize - within);
            let (now, later) = rest.split_at(chunk);
            if !self.tables.contains(&(base / TABLE * TABLE)) {
                return Err(AccessFault);
            }
            let page = self.pages.entry(base).or_insert(ModelPage {
                protection: Protection::READ_WRITE,
                frame: None,
                is_shared: false,
            });
            if !page.protection.write {
                return Err(AccessFault);
            }
            let frame = page.frame.get_or_insert_with(zeroed_frame);
            frame.borrow_mut()[within..within + chunk].copy_from_slice(now);
            at = at.wrapping_add(chunk as u64);
            rest = later;
        }
        Ok(())
    }
}

/// Page base and offset of an address.
fn split(addr: u64) -> (u64, usize) {
    (addr & !(PAGE - 1), (addr % PAGE) as usize)
}

fn tables_of(start: u64, end: u64) -> impl Iterator<Item = u64> {
    (start / TABLE * TABLE..end).step_by(TABLE as usize)
}
