//! Address spaces: frames, page tables, address-space identifiers.

use crate::ipc_buffer::buffer;
use crate::{
    AbsoluteCPtr, Cap, CapRights, Error, FrameType, PagingType, Result, Word, cap, cap_type,
};

/// `seL4_X86_VMAttributes`: how memory is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmAttributes(Word);

impl VmAttributes {
    /// `seL4_X86_Default_VMAttributes`: cached, write-back.
    pub const DEFAULT: Self = Self(sel4_raw::seL4_X86_Default_VMAttributes);
    /// `seL4_X86_WriteThrough`.
    pub const WRITE_THROUGH: Self = Self(sel4_raw::seL4_X86_WriteThrough);
    /// `seL4_X86_CacheDisabled`: for device registers.
    pub const CACHE_DISABLED: Self = Self(sel4_raw::seL4_X86_CacheDisabled);
    /// `seL4_X86_Uncacheable`.
    pub const UNCACHEABLE: Self = Self(sel4_raw::seL4_X86_Uncacheable);
    /// `seL4_X86_WriteCombining`: for frame buffers.
    pub const WRITE_COMBINING: Self = Self(sel4_raw::seL4_X86_WriteCombining);

    /// As the kernel takes it.
    #[must_use]
    pub const fn bits(self) -> Word {
        self.0
    }
}

impl Default for VmAttributes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl<T: FrameType> Cap<T> {
    /// `seL4_X86_Page_Map`: maps the frame at `address`. x86_64 kernels know
    /// no execute permission: readable memory is executable.
    ///
    /// On kernels up to 5 each mapping needs a capability of its own: copy the
    /// frame's first.
    ///
    /// # Errors
    /// - [`Error::FailedLookup`]: a level of page tables is missing there, or
    ///   the VSpace has no ASID.
    /// - [`Error::DeleteFirst`]: something is mapped there.
    /// - [`Error::InvalidCapability`]: this capability is mapped elsewhere.
    /// - [`Error::AlignmentError`], [`Error::InvalidArgument`]: the address is
    ///   not aligned to the frame's size, or belongs to the kernel.
    #[inline]
    pub fn frame_map(
        self,
        vspace: cap::VSpace,
        address: usize,
        rights: CapRights,
        attributes: VmAttributes,
    ) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_X86_Page_Map(
                buffer(),
                self.bits(),
                vspace.bits(),
                address as Word,
                rights.bits(),
                attributes.bits(),
            )
        }
        .map_err(Error::from_raw)
    }

    /// `seL4_X86_Page_Remap`, or mapping again on kernels without it: changes
    /// the rights of an existing mapping of this capability at `address`.
    ///
    /// # Errors
    /// [`Error::InvalidCapability`] where the capability is not mapped in
    /// `vspace`, and those of [`frame_map`](Self::frame_map).
    pub fn frame_remap(
        self,
        vspace: cap::VSpace,
        address: usize,
        rights: CapRights,
        attributes: VmAttributes,
    ) -> Result<()> {
        #[cfg(not(sel4_has = "X86PageRemap"))]
        return self.frame_map(vspace, address, rights, attributes);
        #[cfg(sel4_has = "X86PageRemap")]
        let _ = address;
        // SAFETY: B1.
        #[cfg(sel4_has = "X86PageRemap")]
        unsafe {
            sel4_raw::seL4_X86_Page_Remap(
                buffer(),
                self.bits(),
                vspace.bits(),
                rights.bits(),
                attributes.bits(),
            )
        }
        .map_err(Error::from_raw)
    }

    /// `seL4_X86_Page_Unmap`: ends this capability's mapping, if it has one.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] where this is no frame.
    #[inline]
    pub fn frame_unmap(self) -> Result<()> {
        // SAFETY: B1.
        unsafe { sel4_raw::seL4_X86_Page_Unmap(buffer(), self.bits()) }.map_err(Error::from_raw)
    }

    /// `seL4_X86_Page_GetAddress`: the frame's physical address in bytes.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] where this is no frame.
    pub fn frame_get_address(self) -> Result<Word> {
        // SAFETY: B1.
        unsafe { sel4_raw::seL4_X86_Page_GetAddress(buffer(), self.bits()) }
            .map_err(Error::from_raw)
    }
}

/// Gives a level of page tables its two invocations.
macro_rules! paging_level {
    ($kind:ident, $map:ident, $unmap:ident) => {
        impl cap::$kind {
            #[doc = concat!("`", stringify!($map), "`: adds this level at `address`.")]
            ///
            /// # Errors
            /// - [`Error::DeleteFirst`]: the level exists there.
            /// - [`Error::FailedLookup`]: the level above is missing, or the
            ///   VSpace has no ASID.
            /// - [`Error::InvalidCapability`]: this object is mapped already.
            pub fn map(
                self,
                vspace: cap::VSpace,
                address: usize,
                attributes: VmAttributes,
            ) -> Result<()> {
                let span = 1 << <cap_type::$kind as PagingType>::SPAN_BITS;
                let start = address as Word & !(span - 1);
                // SAFETY: B1.
                unsafe {
                    sel4_raw::$map(
                        buffer(),
                        self.bits(),
                        vspace.bits(),
                        start,
                        attributes.bits(),
                    )
                }
                .map_err(Error::from_raw)
            }

            #[doc = concat!("`", stringify!($unmap), "`: removes this level and all below.")]
            ///
            /// # Errors
            /// [`Error::RevokeFirst`] where the capability has copies.
            pub fn unmap(self) -> Result<()> {
                // SAFETY: B1.
                unsafe { sel4_raw::$unmap(buffer(), self.bits()) }.map_err(Error::from_raw)
            }
        }
    };
}

paging_level!(Pdpt, seL4_X86_PDPT_Map, seL4_X86_PDPT_Unmap);
paging_level!(
    PageDirectory,
    seL4_X86_PageDirectory_Map,
    seL4_X86_PageDirectory_Unmap
);
paging_level!(PageTable, seL4_X86_PageTable_Map, seL4_X86_PageTable_Unmap);

impl cap::AsidControl {
    /// `seL4_X86_ASIDControl_MakePool`: makes a pool of address-space
    /// identifiers out of an untyped of exactly `2^seL4_ASIDPoolBits` bytes.
    ///
    /// # Errors
    /// [`Error::InvalidCapability`] for an untyped of another size,
    /// [`Error::RevokeFirst`] where it has children, [`Error::DeleteFirst`]
    /// where no more pools exist or the slot is taken.
    pub fn asid_control_make_pool(self, untyped: cap::Untyped, dst: &AbsoluteCPtr) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_X86_ASIDControl_MakePool(
                buffer(),
                self.bits(),
                untyped.bits(),
                dst.root().bits(),
                dst.path().bits(),
                dst.path().depth_word(),
            )
        }
        .map_err(Error::from_raw)
    }
}

impl cap::AsidPool {
    /// Size of a pool as a power of two (`seL4_ASIDPoolBits`).
    pub const SIZE_BITS: usize = sel4_raw::seL4_ASIDPoolBits as usize;

    /// `seL4_X86_ASIDPool_Assign`: makes a new PML4 usable as a VSpace.
    ///
    /// # Errors
    /// [`Error::DeleteFirst`] where the pool is full,
    /// [`Error::InvalidCapability`] where the PML4 has an identifier already.
    pub fn asid_pool_assign(self, vspace: cap::VSpace) -> Result<()> {
        // SAFETY: B1.
        unsafe { sel4_raw::seL4_X86_ASIDPool_Assign(buffer(), self.bits(), vspace.bits()) }
            .map_err(Error::from_raw)
    }
}
