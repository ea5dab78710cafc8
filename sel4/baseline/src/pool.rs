//! Slots and memory for the suite.

use alloc::vec::Vec;

use sel4::init_thread::slot;
use sel4::{
    AbsoluteCPtr, CPtr, Cap, CapRights, CapType, Error, ObjectBlueprint, Result, VmAttributes, cap,
};

/// What the suite makes objects from: handed out once, never taken back.
pub struct Pool {
    slots: Vec<usize>,
    untyped: cap::Untyped,
}

impl Pool {
    /// Takes empty slots of the initial CNode, and memory that nothing was made
    /// from yet.
    #[must_use]
    pub const fn new(slots: Vec<usize>, untyped: cap::Untyped) -> Self {
        Self { slots, untyped }
    }

    /// The slots it has left.
    #[must_use]
    pub fn into_slots(self) -> Vec<usize> {
        self.slots
    }

    /// An empty slot.
    ///
    /// # Errors
    /// [`Error::NotEnoughMemory`] when there is none.
    pub fn slot(&mut self) -> Result<AbsoluteCPtr> {
        let index = self.slots.pop().ok_or(Error::NotEnoughMemory)?;
        Ok(absolute(CPtr::from_bits(index as u64)))
    }

    /// A new object.
    ///
    /// # Errors
    /// [`Error::NotEnoughMemory`], or the kernel's.
    pub fn object<T: CapType>(&mut self, blueprint: ObjectBlueprint) -> Result<Cap<T>> {
        let index = self.slot()?.path().bits();
        let root = slot::CNODE.cap().absolute_cptr_for_self();
        self.untyped
            .untyped_retype(&blueprint, &root, index as usize, 1)?;
        Ok(Cap::from_bits(index))
    }

    /// So many new objects, in the first slots of a CNode.
    ///
    /// # Errors
    /// [`Error::NotEnoughMemory`], or the kernel's.
    pub fn fill(
        &mut self,
        cnode: cap::CNode,
        blueprint: ObjectBlueprint,
        count: usize,
    ) -> Result<()> {
        let into = slot::CNODE.cap().absolute_cptr(cnode.cptr());
        self.untyped.untyped_retype(&blueprint, &into, 0, count)
    }

    /// Another capability to what `cap` names.
    ///
    /// # Errors
    /// As [`object`](Self::object).
    pub fn copy_of<T: CapType>(&mut self, cap: Cap<T>) -> Result<Cap<T>> {
        let to = self.slot()?;
        to.copy(&absolute(cap.cptr()), CapRights::all())?;
        Ok(Cap::from_bits(to.path().bits()))
    }

    /// Maps a frame, making the tables above it as they are missing.
    ///
    /// # Errors
    /// As [`object`](Self::object).
    pub fn map(
        &mut self,
        vspace: cap::VSpace,
        frame: cap::Granule,
        address: usize,
        rights: CapRights,
    ) -> Result<()> {
        let map = || frame.frame_map(vspace, address, rights, VmAttributes::DEFAULT);
        match map() {
            Err(Error::FailedLookup) => {}
            outcome => return outcome,
        }
        let pdpt: cap::Pdpt = self.object(ObjectBlueprint::Pdpt)?;
        present(pdpt.map(vspace, address, VmAttributes::DEFAULT))?;
        let directory: cap::PageDirectory = self.object(ObjectBlueprint::PageDirectory)?;
        present(directory.map(vspace, address, VmAttributes::DEFAULT))?;
        let table: cap::PageTable = self.object(ObjectBlueprint::PageTable)?;
        present(table.map(vspace, address, VmAttributes::DEFAULT))?;
        map()
    }
}

/// A level that exists already is as good.
fn present(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::DeleteFirst) => Ok(()),
        other => other,
    }
}

/// A slot of the initial CNode as an object of CNode operations.
#[must_use]
pub fn absolute(cptr: CPtr) -> AbsoluteCPtr {
    slot::CNODE.cap().absolute_cptr(cptr)
}
