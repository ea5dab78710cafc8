//! A model of the parts of seL4 the broker uses.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::PAGE_BYTES;
use crate::error::Refused;
use crate::operation::{
    BootUntyped, Kernel, Level, Object, ObjectKind, Operation, RETYPE_FAN_OUT_LIMIT, Rights, Slot,
};

type ObjectId = usize;

/// Address spaces one pool can number.
const ASIDS_PER_POOL: u32 = 512;
/// `seL4_DeleteFirst`.
const DELETE_FIRST: u32 = 8;

#[derive(Clone, Debug)]
struct Cap {
    object: ObjectId,
    mapped: Option<(ObjectId, u64)>,
}

#[derive(Clone, Debug)]
struct SimObject {
    object: Object,
    paddr: u64,
    is_device: bool,
    parent: Option<ObjectId>,
    watermark: u64,
    caps: BTreeSet<u32>,
    children: BTreeSet<ObjectId>,
}

#[derive(Clone, Debug, Default)]
struct SimSpace {
    tables: BTreeMap<(Level, u64), ObjectId>,
    pages: BTreeMap<u64, (ObjectId, Rights)>,
}

/// How often each operation was carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Retypes.
    pub retypes: u64,
    /// Objects they made.
    pub objects: u64,
    /// Deletions of one capability.
    pub deletes: u64,
    /// Revocations.
    pub revokes: u64,
    /// Copies.
    pub copies: u64,
    /// Tables mapped.
    pub tables: u64,
    /// Pages mapped.
    pub maps: u64,
    /// Pages unmapped.
    pub unmaps: u64,
    /// Pages zeroed through the window.
    pub zeroed_pages: u64,
    /// Bytes zeroed by retypes.
    pub zeroed_bytes: u64,
}

impl Counts {
    /// Kernel entries: everything but zeroing through the window.
    pub const fn kernel_entries(&self) -> u64 {
        self.retypes
            + self.deletes
            + self.revokes
            + self.copies
            + self.tables
            + self.maps
            + self.unmaps
    }
}

/// Which operations an injected refusal may hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Those that make or map something.
    Constructive,
    /// All of them.
    Any,
}

/// A kernel that carries operations out on paper.
#[derive(Clone, Debug, Default)]
pub struct SimKernel {
    caps: BTreeMap<u32, Cap>,
    objects: BTreeMap<ObjectId, SimObject>,
    spaces: BTreeMap<ObjectId, SimSpace>,
    next: ObjectId,
    dirty: BTreeSet<u64>,
    counts: Counts,
    free_asids: u32,
    refusal: Option<(u64, Refusal)>,
}

impl SimKernel {
    /// A kernel just booted: the untypeds, full of old data, and the root
    /// task's top table at `root_space`.
    pub fn new(boot: &[BootUntyped], root_space: Slot) -> Self {
        let mut kernel = Self::default();
        for untyped in boot {
            let object = Object {
                kind: ObjectKind::Untyped,
                size_bits: untyped.size_bits,
            };
            let id = kernel.add_object(object, untyped.paddr, untyped.is_device, None);
            kernel
                .objects
                .entry(id)
                .and_modify(|new| new.watermark = 1 << untyped.size_bits);
            kernel.add_cap(untyped.slot.0, id);
        }
        let object = Object {
            kind: ObjectKind::VSpace,
            size_bits: 12,
        };
        let root = kernel.add_object(object, u64::MAX, false, None);
        kernel.add_cap(root_space.0, root);
        kernel.spaces.insert(root, SimSpace::default());
        kernel.free_asids = ASIDS_PER_POOL - 1;
        kernel
    }

    /// Refuses the operation that comes after `skip` others of that class.
    pub fn refuse_after(&mut self, skip: u64, refusal: Refusal) {
        self.refusal = Some((skip, refusal));
    }

    /// Forgets a refusal that has not happened. True when there was one.
    pub fn clear_refusal(&mut self) -> bool {
        self.refusal.take().is_some()
    }

    /// What was done so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Slots in use.
    pub fn used_slots(&self) -> usize {
        self.caps.len()
    }

    /// Pretends someone wrote to the frame at a physical address.
    pub fn scribble(&mut self, paddr: u64) {
        self.dirty.insert(paddr / PAGE_BYTES);
    }

    /// True when someone wrote to the frame since it was zeroed.
    pub fn is_dirty(&self, paddr: u64) -> bool {
        self.dirty.contains(&(paddr / PAGE_BYTES))
    }

    /// Physical address, and rights, of the page mapped at `vaddr` in the
    /// address space whose top table is at `space`.
    pub fn translate(&self, space: Slot, vaddr: u64) -> Option<(u64, Rights)> {
        let space = self.spaces.get(&self.caps.get(&space.0)?.object)?;
        let (frame, rights) = space.pages.get(&(vaddr & !(PAGE_BYTES - 1)))?;
        Some((self.objects[frame].paddr, *rights))
    }

    /// Number of pages mapped in an address space.
    pub fn page_count(&self, space: Slot) -> usize {
        self.caps
            .get(&space.0)
            .and_then(|cap| self.spaces.get(&cap.object))
            .map_or(0, |space| space.pages.len())
    }

    fn add_object(
        &mut self,
        object: Object,
        paddr: u64,
        is_device: bool,
        parent: Option<ObjectId>,
    ) -> ObjectId {
        let id = self.next;
        self.next += 1;
        let (caps, children) = (BTreeSet::new(), BTreeSet::new());
        let new = SimObject {
            object,
            paddr,
            is_device,
            parent,
            watermark: 0,
            caps,
            children,
        };
        self.objects.insert(id, new);
        if let Some(parent) = parent {
            self.object_mut(parent).children.insert(id);
        }
        id
    }

    fn object_mut(&mut self, id: ObjectId) -> &mut SimObject {
        self.objects.get_mut(&id).expect("object exists")
    }

    fn add_cap(&mut self, slot: u32, object: ObjectId) {
        let previous = self.caps.insert(
            slot,
            Cap {
                object,
                mapped: None,
            },
        );
        assert!(previous.is_none(), "K3 broken: slot {slot} is not empty");
        self.object_mut(object).caps.insert(slot);
    }

    fn cap(&self, slot: Slot) -> &Cap {
        self.caps
            .get(&slot.0)
            .unwrap_or_else(|| panic!("slot {} is empty", slot.0))
    }

    fn retype(&mut self, untyped: Slot, object: Object, first: Slot, count: u32) {
        let id = self.cap(untyped).object;
        let source = &self.objects[&id];
        assert_eq!(
            source.object.kind,
            ObjectKind::Untyped,
            "retype of something else"
        );
        assert!(
            (1..=RETYPE_FAN_OUT_LIMIT).contains(&count),
            "K3 broken: {count} objects"
        );
        let makes_memory = matches!(object.kind, ObjectKind::Untyped | ObjectKind::Frame);
        assert!(
            !source.is_device || makes_memory,
            "kernel object in device memory"
        );
        if source.children.is_empty() {
            self.reset(id);
        }
        let source = &self.objects[&id];
        let (base, is_device) = (source.paddr, source.is_device);
        let size = 1_u64 << object.size_bits;
        let start = source.watermark.next_multiple_of(size);
        let end = start + u64::from(count) * size;
        assert!(
            end <= 1 << source.object.size_bits,
            "K1 broken: {count} objects do not fit"
        );
        self.object_mut(id).watermark = end;
        for index in 0..count {
            let paddr = base + start + u64::from(index) * size;
            let new = self.add_object(object, paddr, is_device, Some(id));
            self.add_cap(first.0 + index, new);
        }
        self.counts.retypes += 1;
        self.counts.objects += u64::from(count);
    }

    /// K1: back to the bottom, zeroing what was handed out.
    fn reset(&mut self, id: ObjectId) {
        let source = self.object_mut(id);
        let watermark = core::mem::take(&mut source.watermark);
        if source.is_device {
            return;
        }
        let first = source.paddr / PAGE_BYTES;
        let end = (source.paddr + watermark).div_ceil(PAGE_BYTES);
        let clean: Vec<u64> = self.dirty.range(first..end).copied().collect();
        clean.iter().for_each(|page| {
            self.dirty.remove(page);
        });
        self.counts.zeroed_bytes += watermark;
    }

    fn delete(&mut self, slot: u32) {
        let cap = self
            .caps
            .remove(&slot)
            .unwrap_or_else(|| panic!("slot {slot} is empty"));
        if let Some((space, vaddr)) = cap.mapped {
            let live = self.shows(space, vaddr, cap.object);
            assert!(
                !live,
                "K5 broken: slot {slot} is deleted while mapped at {vaddr:#x}"
            );
        }
        let object = self.object_mut(cap.object);
        object.caps.remove(&slot);
        if object.caps.is_empty() {
            self.finalise(cap.object);
        }
    }

    fn finalise(&mut self, id: ObjectId) {
        let object = self.objects.remove(&id).expect("object exists");
        assert!(
            object.children.is_empty(),
            "untyped deleted under its children"
        );
        if let Some(parent) = object.parent {
            self.object_mut(parent).children.remove(&id);
        }
        match object.object.kind {
            ObjectKind::VSpace => self.free_asids += u32::from(self.spaces.remove(&id).is_some()),
            ObjectKind::Table(level) => self.remove_table(level, id),
            _ => {}
        }
    }

    fn remove_table(&mut self, level: Level, id: ObjectId) {
        for space in self.spaces.values_mut() {
            let here = space.tables.iter().find(|(_, table)| **table == id);
            if let Some(key) = here.map(|(key, _)| *key) {
                space.tables.remove(&key);
                let end = key.1 + (1 << level.span_bits());
                let gone: Vec<u64> = space.pages.range(key.1..end).map(|(at, _)| *at).collect();
                gone.iter().for_each(|page| {
                    space.pages.remove(page);
                });
            }
        }
    }

    fn revoke(&mut self, slot: Slot) {
        let id = self.cap(slot).object;
        let children: Vec<ObjectId> = self.objects[&id].children.iter().copied().collect();
        for child in children {
            let caps: Vec<u32> = self.objects[&child].caps.iter().copied().collect();
            self.revoke(Slot(caps[0]));
            caps.into_iter().for_each(|cap| self.delete(cap));
        }
    }

    fn shows(&self, space: ObjectId, vaddr: u64, frame: ObjectId) -> bool {
        let page = self
            .spaces
            .get(&space)
            .and_then(|space| space.pages.get(&vaddr));
        page.is_some_and(|(shown, _)| *shown == frame)
    }

    fn remove_page(&mut self, space: ObjectId, vaddr: u64) {
        if let Some(space) = self.spaces.get_mut(&space) {
            space.pages.remove(&vaddr);
        }
    }

    fn copy(&mut self, from: Slot, to: Slot) {
        let object = self.cap(from).object;
        self.add_cap(to.0, object);
        self.counts.copies += 1;
    }

    fn assign(&mut self, space: Slot) -> Result<(), Refused> {
        let free = self
            .free_asids
            .checked_sub(1)
            .ok_or(Refused(DELETE_FIRST))?;
        let id = self.cap(space).object;
        assert_eq!(self.objects[&id].object.kind, ObjectKind::VSpace);
        let previous = self.spaces.insert(id, SimSpace::default());
        assert!(previous.is_none(), "address space has a number already");
        self.free_asids = free;
        Ok(())
    }

    fn map_table(&mut self, table: Slot, level: Level, space: Slot, vaddr: u64) {
        let (table, space) = (self.cap(table).object, self.cap(space).object);
        assert_eq!(self.objects[&table].object.kind, ObjectKind::Table(level));
        let space = self
            .spaces
            .get_mut(&space)
            .expect("address space has a number");
        let above = Level::ALL.into_iter().take_while(|above| *above != level);
        for above in above {
            assert!(
                space.tables.contains_key(&(above, above.base(vaddr))),
                "K6: {above:?}"
            );
        }
        let previous = space.tables.insert((level, level.base(vaddr)), table);
        assert!(previous.is_none(), "K6 broken: two tables at {vaddr:#x}");
        self.counts.tables += 1;
    }

    fn map_page(&mut self, frame: Slot, space: Slot, vaddr: u64, rights: Rights) {
        let cap = self.cap(frame).clone();
        assert!(
            cap.mapped.is_none(),
            "K5 broken: slot {} is mapped already",
            frame.0
        );
        assert_eq!(self.objects[&cap.object].object.kind, ObjectKind::Frame);
        assert!(vaddr.is_multiple_of(PAGE_BYTES));
        let id = self.cap(space).object;
        let target = self
            .spaces
            .get_mut(&id)
            .expect("address space has a number");
        for level in Level::ALL {
            assert!(
                target.tables.contains_key(&(level, level.base(vaddr))),
                "K6: {level:?}"
            );
        }
        let previous = target.pages.insert(vaddr, (cap.object, rights));
        assert!(previous.is_none(), "K6 broken: two pages at {vaddr:#x}");
        self.caps
            .entry(frame.0)
            .and_modify(|cap| cap.mapped = Some((id, vaddr)));
        self.counts.maps += 1;
    }

    fn unmap_page(&mut self, frame: Slot) {
        let cap = self.cap(frame).clone();
        if let Some((space, vaddr)) = cap.mapped {
            if self.shows(space, vaddr, cap.object) {
                self.remove_page(space, vaddr);
            }
            self.caps.entry(frame.0).and_modify(|cap| cap.mapped = None);
        }
        self.counts.unmaps += 1;
    }

    fn zero_page(&mut self, window: u64) {
        let shown = self
            .spaces
            .values()
            .find_map(|space| space.pages.get(&window));
        let (frame, _) = shown.unwrap_or_else(|| panic!("nothing is mapped at {window:#x}"));
        let page = self.objects[frame].paddr / PAGE_BYTES;
        self.dirty.remove(&page);
        self.counts.zeroed_pages += 1;
    }

    fn is_refused(&mut self, operation: &Operation) -> bool {
        let constructive = !matches!(
            operation,
            Operation::Delete { .. }
                | Operation::Revoke { .. }
                | Operation::UnmapPage { .. }
                | Operation::ZeroPage { .. }
        );
        match &mut self.refusal {
            Some((_, Refusal::Constructive)) if !constructive => false,
            Some((0, _)) => self.clear_refusal(),
            Some((skip, _)) => {
                *skip -= 1;
                false
            }
            None => false,
        }
    }
}

impl Kernel for SimKernel {
    fn execute(&mut self, operation: &Operation) -> Result<(), Refused> {
        if self.is_refused(operation) {
            return Err(Refused(u32::MAX));
        }
        match *operation {
            Operation::Retype {
                untyped,
                object,
                first,
                count,
            } => {
                self.retype(untyped, object, first, count);
            }
            Operation::Delete { slot } => {
                self.delete(slot.0);
                self.counts.deletes += 1;
            }
            Operation::Revoke { slot } => {
                self.revoke(slot);
                self.counts.revokes += 1;
            }
            Operation::Copy { from, to } => self.copy(from, to),
            Operation::AssignAsid { space } => return self.assign(space),
            Operation::MakeAsidPool { untyped, to } => {
                let pool = Object {
                    kind: ObjectKind::AsidPool,
                    size_bits: 12,
                };
                self.retype(untyped, pool, to, 1);
                self.free_asids += ASIDS_PER_POOL;
            }
            Operation::MapTable {
                table,
                level,
                space,
                vaddr,
            } => {
                self.map_table(table, level, space, vaddr);
            }
            Operation::MapPage {
                frame,
                space,
                vaddr,
                rights,
                ..
            } => {
                self.map_page(frame, space, vaddr, rights);
            }
            Operation::UnmapPage { frame } => self.unmap_page(frame),
            Operation::ZeroPage { window } => self.zero_page(window),
        }
        Ok(())
    }
}
