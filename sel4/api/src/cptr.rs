//! Capability pointers: how a program names what it holds.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;

use crate::{WORD_SIZE, Word};

/// A CPtr as the kernel takes it.
pub type CPtrBits = Word;

/// `seL4_CPtr`: a slot in the program's own CSpace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CPtr {
    bits: CPtrBits,
}

impl CPtr {
    /// Names the slot with that address.
    #[must_use]
    pub const fn from_bits(bits: CPtrBits) -> Self {
        Self { bits }
    }

    /// The slot's address.
    #[must_use]
    pub const fn bits(self) -> CPtrBits {
        self.bits
    }

    /// Claims that the slot holds a `T`.
    #[must_use]
    pub const fn cast<T: CapType>(self) -> Cap<T> {
        Cap::from_cptr(self)
    }
}

/// A slot together with how many bits of its address are to be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CPtrWithDepth {
    bits: CPtrBits,
    depth: usize,
}

impl CPtrWithDepth {
    /// Resolves the low `depth` bits of `bits`.
    #[must_use]
    pub const fn from_bits_with_depth(bits: CPtrBits, depth: usize) -> Self {
        Self { bits, depth }
    }

    /// The empty path: the CNode one starts from.
    #[must_use]
    pub const fn empty() -> Self {
        Self::from_bits_with_depth(0, 0)
    }

    /// The address.
    #[must_use]
    pub const fn bits(self) -> CPtrBits {
        self.bits
    }

    /// How many bits of it are resolved.
    #[must_use]
    pub const fn depth(self) -> usize {
        self.depth
    }

    /// The depth as a message word.
    pub(crate) const fn depth_word(self) -> Word {
        self.depth as Word
    }
}

impl From<CPtr> for CPtrWithDepth {
    fn from(cptr: CPtr) -> Self {
        Self::from_bits_with_depth(cptr.bits(), WORD_SIZE)
    }
}

/// A slot that is claimed to hold a `T`.
///
/// The claim is not checked: a wrong one makes invocations fail, or block
/// where the slot holds an endpoint.
pub struct Cap<T> {
    cptr: CPtr,
    kind: PhantomData<T>,
}

impl<T: CapType> Cap<T> {
    /// Claims that the slot holds a `T`.
    #[must_use]
    pub const fn from_cptr(cptr: CPtr) -> Self {
        Self {
            cptr,
            kind: PhantomData,
        }
    }

    /// Claims that the slot with that address holds a `T`.
    #[must_use]
    pub const fn from_bits(bits: CPtrBits) -> Self {
        Self::from_cptr(CPtr::from_bits(bits))
    }

    /// The slot.
    #[must_use]
    pub const fn cptr(self) -> CPtr {
        self.cptr
    }

    /// The slot's address.
    #[must_use]
    pub const fn bits(self) -> CPtrBits {
        self.cptr.bits()
    }

    /// Claims instead that the slot holds a `U`.
    #[must_use]
    pub const fn cast<U: CapType>(self) -> Cap<U> {
        Cap::from_cptr(self.cptr)
    }
}

// Derives would ask the same of `T`, which is only a name.
impl<T> Clone for Cap<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Cap<T> {}

impl<T> PartialEq for Cap<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cptr == other.cptr
    }
}

impl<T> Eq for Cap<T> {}

impl<T> Hash for Cap<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.cptr.hash(state);
    }
}

impl<T: CapType> fmt::Debug for Cap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", T::NAME, self.bits())
    }
}

/// A kind of capability.
pub trait CapType: 'static {
    /// What the kernel calls it.
    const NAME: &'static str;
}

/// A kind of frame.
pub trait FrameType: CapType {
    /// Size of the frame as a power of two.
    const FRAME_BITS: usize;
}

/// A level of page tables that can be mapped below a VSpace.
pub trait PagingType: CapType {
    /// Bytes of address space one such object spans, as a power of two.
    const SPAN_BITS: usize;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Kinds of capabilities.
        pub mod cap_type {
            use super::CapType;
            $(
                $(#[$doc])*
                #[derive(Clone, Copy, Debug)]
                pub enum $name {}
                impl CapType for $name {
                    const NAME: &'static str = $text;
                }
            )*
        }

        /// Capabilities by kind.
        pub mod cap {
            use super::{Cap, cap_type};
            $(
                $(#[$doc])*
                pub type $name = Cap<cap_type::$name>;
            )*
            /// The root of an address space: the PML4.
            pub type VSpace = Pml4;
        }
    };
}

kinds! {
    /// A slot that holds nothing.
    Null = "Null";
    /// A capability of unknown kind.
    Unspecified = "Unspecified";
    /// `seL4_Untyped`: memory that can become objects.
    Untyped = "Untyped";
    /// An endpoint: rendezvous of senders and receivers.
    Endpoint = "Endpoint";
    /// A notification: a word of flags one can wait for.
    Notification = "Notification";
    /// `seL4_TCB`: a thread.
    Tcb = "TCB";
    /// `seL4_CNode`: a table of slots.
    CNode = "CNode";
    /// A reply object of kernels with MCS.
    Reply = "Reply";
    /// A scheduling context of kernels with MCS.
    SchedContext = "SchedContext";
    /// `seL4_SchedControl`: authority over a core's time, on kernels with MCS.
    SchedControl = "SchedControl";
    /// `seL4_IRQControl`: authority to issue interrupt handlers.
    IrqControl = "IRQControl";
    /// `seL4_IRQHandler`: one interrupt.
    IrqHandler = "IRQHandler";
    /// `seL4_DomainSet`: authority to move threads between domains.
    DomainSet = "DomainSet";
    /// `seL4_X86_IOPort`: a range of I/O ports.
    IoPort = "IOPort";
    /// `seL4_X86_IOPortControl`: authority to issue ranges of I/O ports, on
    /// kernels that have it.
    IoPortControl = "IOPortControl";
    /// `seL4_X86_IOSpace`: a device's view of memory behind an IOMMU.
    IoSpace = "IOSpace";
    /// `seL4_X86_ASIDControl`: authority to make ASID pools.
    AsidControl = "ASIDControl";
    /// `seL4_X86_ASIDPool`: identifiers for address spaces.
    AsidPool = "ASIDPool";
    /// `seL4_X64_PML4`: the top level of page tables.
    Pml4 = "PML4";
    /// `seL4_X86_PDPT`: page tables spanning 512 GiB.
    Pdpt = "PDPT";
    /// `seL4_X86_PageDirectory`: page tables spanning 1 GiB.
    PageDirectory = "PageDirectory";
    /// `seL4_X86_PageTable`: page tables spanning 2 MiB.
    PageTable = "PageTable";
    /// `seL4_X86_Page` of 4 KiB.
    Granule = "Granule";
    /// `seL4_X86_Page` of 2 MiB.
    LargePage = "LargePage";
    /// `seL4_X86_Page` of 1 GiB, on kernels configured for it.
    HugePage = "HugePage";
}

impl FrameType for cap_type::Granule {
    const FRAME_BITS: usize = sel4_raw::seL4_PageBits as usize;
}

impl FrameType for cap_type::LargePage {
    const FRAME_BITS: usize = sel4_raw::seL4_LargePageBits as usize;
}

impl FrameType for cap_type::HugePage {
    const FRAME_BITS: usize = sel4_raw::seL4_HugePageBits as usize;
}

/// Address bits one level of page tables translates: its size is 2^12 bytes of
/// 2^3-byte entries.
const LEVEL_BITS: usize = sel4_raw::seL4_PageTableBits as usize - 3;

impl PagingType for cap_type::PageTable {
    const SPAN_BITS: usize = cap_type::Granule::FRAME_BITS + LEVEL_BITS;
}

impl PagingType for cap_type::PageDirectory {
    const SPAN_BITS: usize = cap_type::PageTable::SPAN_BITS + LEVEL_BITS;
}

impl PagingType for cap_type::Pdpt {
    const SPAN_BITS: usize = cap_type::PageDirectory::SPAN_BITS + LEVEL_BITS;
}

const _: () = assert!(cap_type::PageTable::SPAN_BITS == cap_type::LargePage::FRAME_BITS);
const _: () = assert!(cap_type::PageDirectory::SPAN_BITS == cap_type::HugePage::FRAME_BITS);

impl cap::CNode {
    /// Names a slot by its path from this CNode.
    #[must_use]
    pub fn absolute_cptr(self, path: impl Into<CPtrWithDepth>) -> crate::AbsoluteCPtr {
        crate::AbsoluteCPtr::new(self, path.into())
    }

    /// Names the CNode itself, as destination of a retype.
    #[must_use]
    pub fn absolute_cptr_for_self(self) -> crate::AbsoluteCPtr {
        crate::AbsoluteCPtr::new(self, CPtrWithDepth::empty())
    }

    /// Names a slot by the low `depth` bits of `bits`. For slot *n* of a CNode
    /// of `2^size_bits` slots without guard, that is `n` and `size_bits`.
    #[must_use]
    pub fn absolute_cptr_from_bits_with_depth(
        self,
        bits: CPtrBits,
        depth: usize,
    ) -> crate::AbsoluteCPtr {
        crate::AbsoluteCPtr::new(self, CPtrWithDepth::from_bits_with_depth(bits, depth))
    }
}
