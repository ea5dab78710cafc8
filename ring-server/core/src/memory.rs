//! Memory: what addresses mean, what was promised, and memory objects.
//!
//! # Theory of operation
//! The address map of a process decides what a fault and a buffer mean; the
//! machine only makes, maps and frees pages. Memory is *promised* when it is
//! asked for (a process and its stack, committed pages, objects and their
//! mappings, and the page tables all of that needs) and *backed* when it is
//! touched. Promises are counted against what the machine can give, so a fault
//! on promised memory does not fail: whoever asks too late is refused.
//!
//! A memory object has memory while a capability on it is held or a process
//! maps it. Its record, which names it, stays until its `SharedParkSpace` is
//! gone as well.
//!
//! # Bounds
//! Changing memory takes one pass over the regions of one process (at most
//! [`DYNAMIC_REGION_CAPACITY`](capos_loader::map::DYNAMIC_REGION_CAPACITY) and
//! the program's own) and the machine's work on pages that are there: at most
//! the process's commit quota for anonymous memory, [`OBJECT_PAGES_MAX`] for an
//! object. Pages that were never touched cost nothing.
//!
//! # Invariants
//! - **M5** Promised pages are the footprints of all processes and the pages of
//!   all objects with memory; neither they nor the tables exceed the capacity.
//! - **M6** An object has memory exactly while it is held or mapped, and a
//!   record exactly while it has memory or a park space.
//! - **M7** What a process is charged for mappings is what it maps.

use capos_config::SHARED_PARK_SPACE_INTERFACE_ID;
use capos_config::ring::PARK_INTERRUPTED;
use capos_config::ring::{CAP_ERR_INVALID_RESULT_BUFFER, CapSqe};
use capos_loader::layout::{PAGE_BYTES, PAGE_MASK, page_floor};
use capos_loader::{
    Access, AddressMap, Backing, Denied, Footprint, MapError, Protection, RegionKind,
};

use crate::cap_table::{Hold, TransferMode};
use crate::dispatch::{Caller, Outcome};
use crate::exception::Exception;
use crate::ids::Pid;
use crate::kernel::Refusal;
use crate::limits::{LEAF_TABLES_MAX, Limits, MEMORY_OBJECTS_MAX, RESERVED_PAGES_MAX};
use crate::machine::{Backed, Machine, NoMemory};
use crate::objects::{Object, ObjectId};
use crate::pool::Pool;
use crate::server::{CreateError, Server};

/// Regions that undoing a change can take.
const UNDO_REGIONS: usize = 4;

/// Why a page fault was not repaired. The process is at fault unless memory
/// ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFault {
    /// The process may not do that.
    Denied(Denied),
    /// No memory for the page.
    NoMemory,
}

impl From<NoMemory> for PageFault {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

/// What the machine below can promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryCapacity {
    /// Pages, page tables included.
    pub pages: u64,
    /// Lowest-level page tables of all processes.
    pub tables: u64,
}

impl MemoryCapacity {
    /// For machines that do not run out.
    pub const UNLIMITED: Self = Self {
        pages: u64::MAX,
        tables: u64::MAX,
    };
}

/// How much memory is promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Pages, page tables included.
    pub pages: u64,
    /// Lowest-level page tables.
    pub tables: u64,
    /// Memory objects.
    pub objects: u64,
}

/// A memory object, by its place in the pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryObject {
    pub(crate) pages: u32,
    /// Pages of it that processes map; one mapped twice counts twice.
    mapped: u64,
    /// Whether a capability names it.
    held: bool,
    /// Whether its memory is there (M6).
    has_memory: bool,
    /// What its shared park spaces name.
    park_space: Option<ObjectId>,
}

/// All memory that was promised.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    capacity: MemoryCapacity,
    promised: MemoryUse,
    pub(crate) objects: Pool<MemoryObject>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            capacity: MemoryCapacity::UNLIMITED,
            promised: MemoryUse::default(),
            objects: Pool::with_capacity(MEMORY_OBJECTS_MAX),
        }
    }

    /// Whether a process may grow from one footprint to another.
    pub(crate) fn has_room(&self, before: &Footprint, after: &Footprint) -> bool {
        let fits = |promised: u64, before: u64, after: u64, capacity: u64| {
            after <= before || promised.saturating_add(after - before) <= capacity
        };
        let (pages, tables) = (self.promised.pages, self.promised.tables);
        fits(
            pages,
            before.promised(),
            after.promised(),
            self.capacity.pages,
        ) && fits(
            tables,
            before.leaf_tables,
            after.leaf_tables,
            self.capacity.tables,
        )
    }

    /// Records that a process changed from one footprint to another.
    pub(crate) fn promise(&mut self, before: &Footprint, after: &Footprint) {
        let promised = &mut self.promised;
        promised.pages = promised.pages + after.promised() - before.promised();
        promised.tables = promised.tables + after.leaf_tables - before.leaf_tables;
    }
}

impl<M: Machine> Server<M> {
    /// Says how much memory there is to promise; without limit until then.
    pub fn set_memory_capacity(&mut self, capacity: MemoryCapacity) {
        self.memory.capacity = capacity;
    }

    /// How much memory is promised now.
    pub fn memory_use(&self) -> MemoryUse {
        MemoryUse {
            objects: self.memory.objects.iter().count() as u64,
            ..self.memory.promised
        }
    }

    /// How much memory of each kind a live process has.
    pub fn footprint(&self, pid: Pid) -> Option<Footprint> {
        self.process(pid).map(|process| process.space.footprint())
    }

    /// Handles a page fault: backs the page if the process may access it so.
    ///
    /// [`Backed::Already`] says that the page was there with what its region
    /// allows: another thread touched it first, or the fault was forged. The
    /// thread retries; a caller that sees the same fault again and again has
    /// found a kernel that disagrees with the map.
    ///
    /// # Errors
    /// [`PageFault`]; the thread cannot go on.
    pub fn page_fault(
        &mut self,
        machine: &mut M,
        pid: Pid,
        address: u64,
        access: Access,
    ) -> Result<Backed, PageFault> {
        let process = self.process(pid);
        let process = process.ok_or(PageFault::Denied(Denied::Unmapped))?;
        let page = process.space.page_for(address, access);
        let page = page.map_err(PageFault::Denied)?;
        match page.backing {
            Backing::DemandZero => Ok(machine.back(pid, page_floor(address), page.protection)?),
            Backing::Eager | Backing::Reserved => Ok(Backed::Already),
        }
    }

    /// Changes a process's map so that it may need more memory, within its
    /// quotas and the system's capacity; `undo` takes a change back.
    pub(crate) fn grow(
        &mut self,
        machine: &mut M,
        pid: Pid,
        (start, end): (u64, u64),
        change: impl FnOnce(&mut AddressMap) -> Result<(), MapError>,
        undo: impl FnOnce(&mut AddressMap),
    ) -> Result<(), Refusal> {
        let process = self.process_mut(pid).ok_or(no_process())?;
        let space = &mut process.space;
        space.reserve_regions(UNDO_REGIONS).map_err(map_refused)?;
        let before = space.footprint();
        change(space).map_err(map_refused)?;
        let after = space.footprint();
        let limits = process.limits;
        let admitted = self
            .admit(&limits, &before, &after)
            .and_then(|()| provide(machine, pid, (start, end), &before, &after));
        if let Err(exception) = admitted {
            if let Some(process) = self.process_mut(pid) {
                undo(&mut process.space);
                release_tables(machine, pid, &process.space, start, end);
            }
            return Err(exception.into());
        }
        self.memory.promise(&before, &after);
        Ok(())
    }

    fn admit(
        &self,
        limits: &Limits,
        before: &Footprint,
        after: &Footprint,
    ) -> Result<(), Exception> {
        let exceeds = |before: u64, after: u64, limit: u64| after > before && after > limit;
        if exceeds(before.reserved, after.reserved, RESERVED_PAGES_MAX) {
            return Err(Exception::overloaded("address space quota exhausted"));
        }
        let commit = limits.commit_pages.into();
        if exceeds(before.committed, after.committed, commit) {
            return Err(Exception::overloaded("commit quota exhausted"));
        }
        if exceeds(before.leaf_tables, after.leaf_tables, LEAF_TABLES_MAX) {
            return Err(Exception::overloaded("memory is spread too widely"));
        }
        if !self.memory.has_room(before, after) {
            return Err(out_of_memory());
        }
        Ok(())
    }

    /// Changes a process's map so that the pages of a range go.
    pub(crate) fn shrink(
        &mut self,
        machine: &mut M,
        pid: Pid,
        (start, end): (u64, u64),
        change: impl FnOnce(&mut AddressMap) -> Result<(), MapError>,
    ) -> Result<(), Refusal> {
        let process = self.process_mut(pid).ok_or(no_process())?;
        let before = process.space.footprint();
        change(&mut process.space).map_err(map_refused)?;
        let after = process.space.footprint();
        machine.unmap(pid, start, end);
        release_tables(machine, pid, &process.space, start, end);
        self.memory.promise(&before, &after);
        self.interrupt_parks_in(machine, pid, start, end);
        Ok(())
    }

    /// Threads parked on words that are gone are interrupted, before the
    /// addresses can mean something else.
    fn interrupt_parks_in(&mut self, machine: &mut M, pid: Pid, start: u64, end: u64) {
        let Some(process) = self.process(pid) else {
            return;
        };
        for index in 0..process.parks.len() {
            let parked = self.process(pid).and_then(|process| process.parks[index]);
            if parked.is_some_and(|park| (start..end).contains(&park.addr)) {
                self.end_park(machine, pid.slot(), index, PARK_INTERRUPTED);
            }
        }
    }

    /// Makes an object of `pages` pages that a capability is about to name.
    pub(crate) fn create_memory_object(
        &mut self,
        machine: &mut M,
        pages: u32,
    ) -> Result<u32, Exception> {
        let promised = self.memory.promised.pages;
        let capacity = self.memory.capacity.pages;
        if promised.saturating_add(pages.into()) > capacity {
            return Err(out_of_memory());
        }
        let record = MemoryObject {
            pages,
            mapped: 0,
            held: true,
            has_memory: true,
            park_space: None,
        };
        let index = self.memory.objects.insert(record);
        let index = index.map_err(|_| Exception::overloaded("too many memory objects"))?;
        if machine.create_object(index, pages).is_err() {
            self.memory.objects.remove(index);
            return Err(out_of_memory());
        }
        self.memory.promised.pages += u64::from(pages);
        Ok(index)
    }

    /// No capability names the object any more.
    pub(crate) fn close_memory_object(&mut self, machine: &mut M, index: u32) {
        if let Some(object) = self.memory.objects.get_mut(index) {
            object.held = false;
        }
        self.settle_memory_object(machine, index);
    }

    /// No capability names the object's park space any more.
    pub(crate) fn close_shared_park_space(&mut self, index: u32) {
        if let Some(object) = self.memory.objects.get_mut(index) {
            object.park_space = None;
            if !object.has_memory {
                self.memory.objects.remove(index);
            }
        }
    }

    /// Counts pages of an object that a process maps from now on, or no more.
    pub(crate) fn note_mapped(&mut self, index: u32, mapped: u64, unmapped: u64) {
        if let Some(object) = self.memory.objects.get_mut(index) {
            object.mapped = object.mapped + mapped - unmapped;
        }
    }

    /// Frees the memory of an object that nobody holds or maps (M6).
    fn settle_memory_object(&mut self, machine: &mut M, index: u32) {
        let Some(object) = self.memory.objects.get_mut(index) else {
            return;
        };
        if object.held || object.mapped > 0 || !object.has_memory {
            return;
        }
        object.has_memory = false;
        let (pages, named) = (object.pages, object.park_space.is_some());
        machine.free_object(index);
        self.memory.promised.pages -= u64::from(pages);
        if !named {
            self.memory.objects.remove(index);
        }
    }

    /// Accounts for the memory of a process that is gone from the machine.
    pub(crate) fn forget_memory(&mut self, machine: &mut M, space: &AddressMap) {
        self.memory
            .promise(&space.footprint(), &Footprint::default());
        for region in space.regions() {
            if let RegionKind::Object { id, .. } = region.kind {
                self.note_mapped(id, 0, region.pages());
                self.settle_memory_object(machine, id);
            }
        }
    }

    /// Narrows a hold on a memory object to its park space. Consumes the
    /// object reference of `hold` if it succeeds.
    pub(crate) fn park_space_of(&mut self, hold: Hold) -> Result<Hold, CreateError> {
        let Some(Object::MemoryObject(index)) = self.objects.get(hold.object) else {
            return Err(CreateError::NotMemory);
        };
        let record = self.memory.objects.get_mut(index);
        let record = record.ok_or(CreateError::NotMemory)?;
        let object = match record.park_space {
            Some(object) => {
                self.objects.retain_object(object);
                object
            }
            None => {
                let object = self.objects.insert(Object::SharedParkSpace(index));
                record.park_space = object;
                object.ok_or(CreateError::ObjectsExhausted)?
            }
        };
        let dead = self.objects.release_object(hold.object);
        debug_assert_eq!(dead, None, "the source of a grant is still held");
        Ok(Hold {
            object,
            interface_id: SHARED_PARK_SPACE_INTERFACE_ID,
            transfer_mode: TransferMode::Copy,
            pages: 0,
            ..hold
        })
    }

    /// Completes a submission with a result that was checked to fit.
    pub(crate) fn answer_checked(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        result: &[u8],
    ) -> Outcome {
        let written = machine.write(caller.thread.pid, sqe.result_addr, result);
        let code = written.map_or(CAP_ERR_INVALID_RESULT_BUFFER, |()| result.len() as i32);
        Outcome::code(sqe, code)
    }

    /// Asserts M5 to M7.
    pub(crate) fn check_memory(&self) {
        let memory = &self.memory;
        memory.objects.check();
        let mut sum = MemoryUse::default();
        for process in self.processes.iter().flatten() {
            let footprint = process.space.footprint();
            sum.pages += footprint.promised();
            sum.tables += footprint.leaf_tables;
            let charged = u64::from(process.caps.mapped_pages());
            assert_eq!(charged, footprint.borrowed, "M7: {:?}", process.pid);
        }
        for (index, object) in memory.objects.iter() {
            let mapped: u64 = self.mappings_of(index);
            assert_eq!(mapped, object.mapped, "M7: mappings of object {index}");
            let used = object.held || mapped > 0;
            assert_eq!(object.has_memory, used, "M6: object {index}");
            assert!(used || object.park_space.is_some(), "M6: record {index}");
            sum.pages += u64::from(object.pages) * u64::from(object.has_memory);
        }
        assert_eq!(sum, memory.promised, "M5: promised");
        assert!(sum.pages <= memory.capacity.pages, "M5: pages");
        assert!(sum.tables <= memory.capacity.tables, "M5: tables");
    }

    fn mappings_of(&self, index: u32) -> u64 {
        let processes = self.processes.iter().flatten();
        let regions = processes.flat_map(|process| process.space.regions());
        regions
            .filter(|region| matches!(region.kind, RegionKind::Object { id, .. } if id == index))
            .map(|region| region.pages())
            .sum()
    }
}

fn provide<M: Machine>(
    machine: &mut M,
    pid: Pid,
    (start, end): (u64, u64),
    before: &Footprint,
    after: &Footprint,
) -> Result<(), Exception> {
    if after.promised() == before.promised() {
        return Ok(());
    }
    machine
        .provide_tables(pid, start, end)
        .map_err(|NoMemory| out_of_memory())
}

/// Gives back the tables of a range that no page can need any more.
fn release_tables<M: Machine>(machine: &mut M, pid: Pid, space: &AddressMap, start: u64, end: u64) {
    if let Some((start, end)) = space.vacant_tables(start, end) {
        machine.release_tables(pid, start, end);
    }
}

/// A range a client names: page-aligned, not empty, not wrapping.
pub(crate) fn range_of(start: u64, size: u64) -> Result<(u64, u64), Refusal> {
    if (start | size) & PAGE_MASK != 0 {
        return Err(invalid("range is not page-aligned"));
    }
    let end = start.checked_add(size).filter(|_| size > 0);
    end.map(|end| (start, end))
        .ok_or(invalid("range is empty or wraps"))
}

/// Where a mapping of `size` bytes goes: at the hint, or where we like.
pub(crate) fn place(space: &AddressMap, hint: u64, size: u64) -> Result<(u64, u64), Refusal> {
    let (_, bytes) = range_of(0, size)?;
    if hint != 0 {
        return range_of(hint, size);
    }
    let start = space.find_free(bytes / PAGE_BYTES).map_err(map_refused)?;
    Ok((start, start + bytes))
}

/// What the `prot` word of a client asks for.
pub(crate) fn protection(prot: u32) -> Result<Protection, Refusal> {
    let protection = Protection::from_vm_prot(prot).ok_or(invalid("unknown protection bits"))?;
    if protection.is_writable_and_executable() {
        return Err(invalid("writable and executable at once"));
    }
    Ok(protection)
}

/// What a client is told when the map refuses a change.
#[cold]
pub(crate) fn map_refused(error: MapError) -> Refusal {
    match error {
        MapError::BadRange => invalid("range is not in user space"),
        MapError::Overlaps { .. } => invalid("range overlaps what is there"),
        MapError::WritableAndExecutable => invalid("writable and executable at once"),
        MapError::NotMapped { .. } => invalid("range is not mapped"),
        MapError::Fixed { .. } => invalid("range belongs to the system"),
        MapError::Foreign { .. } => invalid("range was mapped through another capability"),
        MapError::Committed { .. } => invalid("range is committed already"),
        MapError::Uncommitted { .. } => invalid("range is not committed"),
        MapError::NoSpace => Exception::overloaded("no free range of that size").into(),
        MapError::TooManyRegions => Exception::overloaded("too many regions").into(),
    }
}

pub(crate) fn invalid(message: &'static str) -> Refusal {
    Exception::invalid_argument(message).into()
}

pub(crate) const fn out_of_memory() -> Exception {
    Exception::overloaded("out of memory")
}

fn no_process() -> Refusal {
    Exception::disconnected("no such process").into()
}
