//! Operations as seL4 invocations.

extern crate alloc;

use alloc::vec::Vec;

use cap_broker_core::{
    Cache, Kernel, Level, Object, ObjectKind, Operation, OwnedObject, Refused, Rights, Slot,
};
use sel4::{
    AbsoluteCPtr, Cap, CapRights, CapType, Error, ObjectBlueprint, VmAttributes, cap, init_thread,
};

use crate::memory;

/// The kernel, and the ASID pools it may draw on.
pub struct Sel4 {
    pools: Vec<cap::AsidPool>,
    out_of_asids: bool,
}

impl Sel4 {
    /// With the pool the kernel starts with.
    pub fn new() -> Self {
        let initial = init_thread::slot::ASID_POOL.cap();
        Self {
            pools: alloc::vec![initial],
            out_of_asids: false,
        }
    }

    /// True when the last assignment found every pool full.
    pub const fn is_out_of_asids(&self) -> bool {
        self.out_of_asids
    }

    /// One more pool, for good.
    pub fn add_asid_pool(&mut self, pool: OwnedObject) {
        self.pools.push(crate::cap_of(&pool));
    }

    fn assign(&mut self, space: Slot) -> sel4::Result<()> {
        let mut outcome = Err(Error::DeleteFirst);
        // The newest pool has the most room.
        for pool in self.pools.iter().rev() {
            outcome = pool.asid_pool_assign(cap(space));
            if outcome != Err(Error::DeleteFirst) {
                break;
            }
        }
        self.out_of_asids = outcome == Err(Error::DeleteFirst);
        outcome
    }
}

impl Kernel for Sel4 {
    #[inline]
    fn execute(&mut self, operation: &Operation) -> Result<(), Refused> {
        let outcome = match *operation {
            Operation::Retype {
                untyped,
                object,
                first,
                count,
            } => retype(untyped, object, first, count),
            Operation::Delete { slot } => path(slot).delete(),
            Operation::Revoke { slot } => path(slot).revoke(),
            Operation::Copy { from, to } => path(to).copy(&path(from), CapRights::all()),
            Operation::MakeAsidPool { untyped, to } => init_thread::slot::ASID_CONTROL
                .cap()
                .asid_control_make_pool(cap(untyped), &path(to)),
            Operation::AssignAsid { space } => self.assign(space),
            Operation::MapTable {
                table,
                level,
                space,
                vaddr,
            } => map_table(table, level, cap(space), vaddr as usize),
            Operation::MapPage {
                frame,
                space,
                vaddr,
                rights,
                cache,
            } => cap::Granule::from_bits(frame.0.into()).frame_map(
                cap(space),
                vaddr as usize,
                cap_rights(rights),
                attributes(cache),
            ),
            Operation::UnmapPage { frame } => cap::Granule::from_bits(frame.0.into()).frame_unmap(),
            Operation::ZeroPage { window } => {
                // SAFETY: the core zeroes a frame right after it made sure
                // that the window shows it (W2), before it hands the frame out.
                unsafe { memory::zero_page(window) };
                Ok(())
            }
        };
        outcome.map_err(refused)
    }
}

/// The error as the core carries it.
pub fn refused(error: Error) -> Refused {
    let known = (1..32).find(|raw| Error::from_raw(*raw) == error);
    Refused(known.unwrap_or(u64::from(u32::MAX)) as u32)
}

/// Empties a slot.
pub fn delete(slot: Slot) -> Result<(), Refused> {
    path(slot).delete().map_err(refused)
}

/// A slot of the root CNode.
pub fn path(slot: Slot) -> AbsoluteCPtr {
    init_thread::slot::CNODE
        .cap()
        .absolute_cptr(sel4::CPtr::from_bits(slot.0.into()))
}

fn cap<T: CapType>(slot: Slot) -> Cap<T> {
    crate::slot_cap(slot)
}

fn retype(untyped: Slot, object: Object, first: Slot, count: u32) -> sel4::Result<()> {
    let blueprint = blueprint(object).ok_or(Error::InvalidArgument)?;
    let root = init_thread::slot::CNODE.cap().absolute_cptr_for_self();
    cap::Untyped::from_bits(untyped.0.into()).untyped_retype(
        &blueprint,
        &root,
        first.0 as usize,
        count as usize,
    )
}

/// `None` for kinds this kernel does not make by retype.
fn blueprint(object: Object) -> Option<ObjectBlueprint> {
    let size_bits = usize::from(object.size_bits);
    let slot_bits = ObjectBlueprint::CNode { size_bits: 0 }.physical_size_bits();
    Some(match object.kind {
        ObjectKind::Untyped => ObjectBlueprint::Untyped { size_bits },
        ObjectKind::Tcb => ObjectBlueprint::Tcb,
        ObjectKind::Endpoint => ObjectBlueprint::Endpoint,
        ObjectKind::Notification => ObjectBlueprint::Notification,
        ObjectKind::CNode => ObjectBlueprint::CNode {
            size_bits: size_bits.checked_sub(slot_bits)?,
        },
        ObjectKind::VSpace => ObjectBlueprint::VSPACE,
        ObjectKind::Table(Level::Pdpt) => ObjectBlueprint::Pdpt,
        ObjectKind::Table(Level::Directory) => ObjectBlueprint::PageDirectory,
        ObjectKind::Table(Level::PageTable) => ObjectBlueprint::PageTable,
        ObjectKind::Frame => ObjectBlueprint::Granule,
        // Kernels with MCS have these two, others neither.
        ObjectKind::Reply => ObjectBlueprint::reply()?,
        ObjectKind::SchedContext => ObjectBlueprint::thread_time()?,
        // Made by an invocation of its own.
        ObjectKind::AsidPool => return None,
    })
}

fn map_table(table: Slot, level: Level, space: cap::VSpace, vaddr: usize) -> sel4::Result<()> {
    let bits = table.0.into();
    let attributes = VmAttributes::DEFAULT;
    match level {
        Level::Pdpt => cap::Pdpt::from_bits(bits).map(space, vaddr, attributes),
        Level::Directory => cap::PageDirectory::from_bits(bits).map(space, vaddr, attributes),
        Level::PageTable => cap::PageTable::from_bits(bits).map(space, vaddr, attributes),
    }
}

const fn cap_rights(rights: Rights) -> CapRights {
    match rights {
        Rights::Read => CapRights::read_only(),
        Rights::ReadWrite => CapRights::read_write(),
    }
}

const fn attributes(cache: Cache) -> VmAttributes {
    match cache {
        Cache::Normal => VmAttributes::DEFAULT,
        Cache::Disabled => VmAttributes::CACHE_DISABLED,
    }
}
