//! Untyped memory.

use crate::ipc_buffer::buffer;
use crate::{AbsoluteCPtr, Error, ObjectBlueprint, Result, Word, cap};

impl cap::Untyped {
    /// Smallest untyped, as a power of two (`seL4_MinUntypedBits`).
    pub const MIN_BITS: usize = sel4_raw::seL4_MinUntypedBits as usize;

    /// Largest untyped, as a power of two (`seL4_MaxUntypedBits`).
    pub const MAX_BITS: usize = sel4_raw::seL4_MaxUntypedBits as usize;

    /// Most objects one retype can create on this kernel.
    pub const RETYPE_MAX_OBJECTS: usize = sel4_raw::config::RETYPE_FAN_OUT_LIMIT as usize;

    /// `seL4_Untyped_Retype`: creates `num_objects` objects and puts their
    /// capabilities into the slots of CNode `dst` from `dst_offset` on.
    ///
    /// Objects are cut from the untyped one after another, each aligned to its
    /// size. Where the untyped has no children left, the kernel starts at its
    /// beginning again and first clears what was used.
    ///
    /// # Errors
    /// - [`Error::NotEnoughMemory`]: what is left does not hold the objects.
    /// - [`Error::DeleteFirst`]: one of the slots is taken.
    /// - [`Error::RangeError`]: slots beyond the CNode, more objects than
    ///   [`RETYPE_MAX_OBJECTS`](Self::RETYPE_MAX_OBJECTS), or a size out of
    ///   range.
    /// - [`Error::InvalidArgument`]: no such kind of object, or not from
    ///   device memory.
    /// - [`Error::FailedLookup`]: `dst` leads to no CNode.
    pub fn untyped_retype(
        self,
        blueprint: &ObjectBlueprint,
        dst: &AbsoluteCPtr,
        dst_offset: usize,
        num_objects: usize,
    ) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_Untyped_Retype(
                buffer(),
                self.bits(),
                blueprint.ty(),
                blueprint.api_size_bits(),
                dst.root().bits(),
                dst.path().bits(),
                dst.path().depth_word(),
                dst_offset as Word,
                num_objects as Word,
            )
        }
        .map_err(Error::from_raw)
    }
}
