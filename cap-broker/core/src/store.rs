//! Kernel objects: a block of memory and a slot, made and destroyed together.

use crate::error::BrokerError;
use crate::operation::{Kernel, Object, ObjectKind, Slot};
use crate::slots::SlotAllocator;
use crate::untyped::{Block, UntypedAllocator};

/// A kernel object and the memory it lives in, owned by whoever holds this.
///
/// Neither `Copy` nor `Clone`; [`Store::destroy`] takes it back.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an object that is dropped is never destroyed"]
pub struct OwnedObject {
    pub(crate) block: Block,
    slot: Slot,
    object: Object,
}

impl OwnedObject {
    /// Slot of the object's first capability.
    pub const fn slot(&self) -> Slot {
        self.slot
    }

    /// What it is.
    pub const fn object(&self) -> Object {
        self.object
    }
}

/// Untyped memory and slots together.
#[derive(Clone, Debug)]
pub struct Store {
    /// Memory.
    pub untyped: UntypedAllocator,
    /// Slots.
    pub slots: SlotAllocator,
    /// Bytes of objects whose destruction the kernel refused. Their memory and
    /// slots stay taken, so that nothing is handed out twice.
    pub quarantined_bytes: u64,
}

impl Store {
    /// Makes one object.
    ///
    /// # Errors
    /// Those of [`UntypedAllocator::allocate`] and [`SlotAllocator::allocate`].
    pub fn create(
        &mut self,
        kernel: &mut impl Kernel,
        object: Object,
    ) -> Result<OwnedObject, BrokerError> {
        let block = self
            .untyped
            .allocate(kernel, &mut self.slots, object.size_bits)?;
        self.create_in(kernel, object, block)
    }

    /// Makes one object of a block of its size; the block is given back on
    /// failure.
    ///
    /// # Errors
    /// [`BrokerError::OutOfSlots`], [`BrokerError::Kernel`].
    pub fn create_in(
        &mut self,
        kernel: &mut impl Kernel,
        object: Object,
        block: Block,
    ) -> Result<OwnedObject, BrokerError> {
        let made = self.slots.allocate().and_then(|slot| {
            let retyped = self.make(kernel, object, &block, slot);
            retyped
                .inspect_err(|_| self.slots.free(slot))
                .map(|()| slot)
        });
        match made {
            Ok(slot) => Ok(OwnedObject {
                block,
                slot,
                object,
            }),
            Err(error) => {
                self.untyped.free(kernel, &mut self.slots, block);
                Err(error)
            }
        }
    }

    fn make(
        &mut self,
        kernel: &mut impl Kernel,
        object: Object,
        block: &Block,
        slot: Slot,
    ) -> Result<(), BrokerError> {
        if object.kind == ObjectKind::AsidPool {
            self.untyped.make_asid_pool(kernel, block, slot)
        } else {
            self.untyped.retype(kernel, block, object, slot, 1)
        }
    }

    /// Destroys an object: every capability to it goes, wherever it is (K4),
    /// and memory and slot are free again.
    ///
    /// # Preconditions
    /// A frame is not mapped (K5). Slots that held copies are empty
    /// afterwards, but freeing them is their owner's business.
    ///
    /// # Errors
    /// [`BrokerError::Kernel`]; the object then stays in quarantine.
    pub fn destroy(
        &mut self,
        kernel: &mut impl Kernel,
        owned: OwnedObject,
    ) -> Result<(), BrokerError> {
        if let Err(error) = self.untyped.revoke(kernel, &owned.block) {
            self.quarantined_bytes += 1 << owned.object.size_bits;
            return Err(error);
        }
        self.slots.free(owned.slot);
        self.untyped.free(kernel, &mut self.slots, owned.block);
        Ok(())
    }
}
