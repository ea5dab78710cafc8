//! What untyped memory can become, and how much of it that takes.

use crate::{Word, cap_type, cptr::FrameType};

/// A kind of object together with its size, where that is a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObjectBlueprint {
    /// Smaller untyped memory of `2^size_bits` bytes.
    Untyped {
        /// Size as a power of two.
        size_bits: usize,
    },
    /// An endpoint.
    Endpoint,
    /// A notification.
    Notification,
    /// A CNode of `2^size_bits` slots.
    CNode {
        /// Number of slots as a power of two.
        size_bits: usize,
    },
    /// A thread.
    Tcb,
    /// A reply object.
    #[cfg(sel4_has = "seL4_ReplyObject")]
    Reply,
    /// A scheduling context of `2^size_bits` bytes.
    #[cfg(sel4_has = "seL4_SchedContextObject")]
    SchedContext {
        /// Size as a power of two.
        size_bits: usize,
    },
    /// The root of an address space.
    Pml4,
    /// Page tables spanning 512 GiB.
    Pdpt,
    /// Page tables spanning 1 GiB.
    PageDirectory,
    /// Page tables spanning 2 MiB.
    PageTable,
    /// A frame of 4 KiB.
    Granule,
    /// A frame of 2 MiB.
    LargePage,
    /// A frame of 1 GiB.
    #[cfg(sel4_has = "seL4_X64_HugePageObject")]
    HugePage,
}

impl ObjectBlueprint {
    /// The root of an address space, under its portable name.
    pub const VSPACE: Self = Self::Pml4;

    /// The kernel's number for this kind (`seL4_ObjectType` and its x86
    /// continuations).
    #[must_use]
    pub const fn ty(self) -> Word {
        match self {
            Self::Untyped { .. } => sel4_raw::seL4_UntypedObject,
            Self::Endpoint => sel4_raw::seL4_EndpointObject,
            Self::Notification => sel4_raw::seL4_NotificationObject,
            Self::CNode { .. } => sel4_raw::seL4_CapTableObject,
            Self::Tcb => sel4_raw::seL4_TCBObject,
            #[cfg(sel4_has = "seL4_ReplyObject")]
            Self::Reply => sel4_raw::seL4_ReplyObject,
            #[cfg(sel4_has = "seL4_SchedContextObject")]
            Self::SchedContext { .. } => sel4_raw::seL4_SchedContextObject,
            Self::Pml4 => sel4_raw::seL4_X64_PML4Object,
            Self::Pdpt => sel4_raw::seL4_X86_PDPTObject,
            Self::PageDirectory => sel4_raw::seL4_X86_PageDirectoryObject,
            Self::PageTable => sel4_raw::seL4_X86_PageTableObject,
            Self::Granule => sel4_raw::seL4_X86_4K,
            Self::LargePage => sel4_raw::seL4_X86_LargePageObject,
            #[cfg(sel4_has = "seL4_X64_HugePageObject")]
            Self::HugePage => sel4_raw::seL4_X64_HugePageObject,
        }
    }

    /// The `size_bits` argument of a retype; zero for kinds of fixed size.
    #[must_use]
    pub const fn api_size_bits(self) -> Word {
        match self {
            Self::Untyped { size_bits } | Self::CNode { size_bits } => size_bits as Word,
            #[cfg(sel4_has = "seL4_SchedContextObject")]
            Self::SchedContext { size_bits } => size_bits as Word,
            _ => 0,
        }
    }

    /// Bytes of untyped memory the object takes, as a power of two. Objects
    /// are aligned to their size.
    #[must_use]
    pub const fn physical_size_bits(self) -> usize {
        match self {
            Self::Untyped { size_bits } => size_bits,
            Self::CNode { size_bits } => size_bits + sel4_raw::seL4_SlotBits as usize,
            Self::Endpoint => sel4_raw::seL4_EndpointBits as usize,
            Self::Notification => sel4_raw::seL4_NotificationBits as usize,
            Self::Tcb => sel4_raw::seL4_TCBBits as usize,
            #[cfg(sel4_has = "seL4_ReplyObject")]
            Self::Reply => sel4_raw::seL4_ReplyBits as usize,
            #[cfg(sel4_has = "seL4_SchedContextObject")]
            Self::SchedContext { size_bits } => size_bits,
            Self::Pml4 => sel4_raw::seL4_PML4Bits as usize,
            Self::Pdpt => sel4_raw::seL4_PDPTBits as usize,
            Self::PageDirectory => sel4_raw::seL4_PageDirBits as usize,
            Self::PageTable => sel4_raw::seL4_PageTableBits as usize,
            Self::Granule => cap_type::Granule::FRAME_BITS,
            Self::LargePage => cap_type::LargePage::FRAME_BITS,
            #[cfg(sel4_has = "seL4_X64_HugePageObject")]
            Self::HugePage => cap_type::HugePage::FRAME_BITS,
        }
    }
}
