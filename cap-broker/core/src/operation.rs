//! What the broker asks of a kernel, and the kernel rules it relies on.
//!
//! Rules (seL4 reference manual, chapters 2.4, 3 and 7; x86-64 source):
//!
//! - **K1** Retype hands out memory from an untyped's watermark upwards, each
//!   object aligned to its size. When no capability derived from the untyped
//!   is left, the next retype starts at the bottom again and first zeroes what
//!   lies below the old watermark.
//! - **K2** A boot untyped starts with its watermark at the top: its first
//!   retype zeroes all of it. An untyped made by retype starts at the bottom.
//! - **K3** One retype makes at most [`RETYPE_FAN_OUT_LIMIT`] objects, in
//!   consecutive empty slots of one CNode.
//! - **K4** Revoke on an untyped deletes every capability derived from it,
//!   copies in other CNodes included.
//! - **K5** A frame capability remembers one mapping. Deleting it removes the
//!   mapping *only if it is the last capability to its frame* (seL4 5.0.0), so
//!   a mapped frame capability is always unmapped before it is deleted.
//! - **K6** A page can be mapped once its three tables are; mapping over an
//!   existing page is refused.
//! - **K7** Destroying the top table of an address space ends all mappings in
//!   it; capabilities still have to be unmapped before they can map again.

use crate::error::Refused;

/// Most objects of one retype (`CONFIG_RETYPE_FAN_OUT_LIMIT`).
pub const RETYPE_FAN_OUT_LIMIT: u32 = 256;

/// A slot of the root CNode; as a CPtr, its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl Slot {
    /// The slot `offset` places further on.
    pub const fn at(self, offset: u32) -> Self {
        Self(self.0 + offset)
    }
}

/// An untyped capability the kernel hands to the root task at boot
/// (`seL4_UntypedDesc`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootUntyped {
    /// Where its capability lies.
    pub slot: Slot,
    /// Physical address of the first byte.
    pub paddr: u64,
    /// Size in bytes, as a power of two.
    pub size_bits: u8,
    /// Device memory: never zeroed, only frames can be made of it.
    pub is_device: bool,
}

/// Kinds of kernel objects, in the broker's own vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// Untyped memory.
    Untyped,
    /// A thread.
    Tcb,
    /// An endpoint.
    Endpoint,
    /// A notification.
    Notification,
    /// A CNode.
    CNode,
    /// A reply object (MCS kernels).
    Reply,
    /// A scheduling context (MCS kernels).
    SchedContext,
    /// The top table of an address space (PML4).
    VSpace,
    /// A table of one of the lower levels.
    Table(Level),
    /// A 4 KiB frame.
    Frame,
    /// Numbers for address spaces.
    AsidPool,
}

/// A kind of object and its size in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: ObjectKind,
    /// Bytes it takes, as a power of two. For a CNode, the radix is this less
    /// the bits of one slot.
    pub size_bits: u8,
}

/// Object sizes of one kernel, as powers of two of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectSizes {
    /// `seL4_TCBBits`.
    pub tcb: u8,
    /// `seL4_EndpointBits`.
    pub endpoint: u8,
    /// `seL4_NotificationBits`.
    pub notification: u8,
    /// `seL4_SlotBits`: one slot of a CNode.
    pub cnode_slot: u8,
    /// `seL4_ReplyBits`; unused on kernels without reply objects.
    pub reply: u8,
    /// `seL4_MinSchedContextBits`; unused on kernels without them.
    pub sched_context: u8,
}

impl ObjectSizes {
    /// seL4 5.0.0 on x86-64.
    pub const SEL4_5_X86_64: Self = Self {
        tcb: 11,
        endpoint: 4,
        notification: 5,
        cnode_slot: 5,
        reply: 5,
        sched_context: 8,
    };

    /// The object of a kind that has one size. CNodes, untyped memory and
    /// scheduling contexts larger than the least are built by hand.
    pub const fn object(&self, kind: ObjectKind) -> Object {
        let size_bits = match kind {
            ObjectKind::Tcb => self.tcb,
            ObjectKind::Endpoint => self.endpoint,
            ObjectKind::Notification => self.notification,
            ObjectKind::Reply => self.reply,
            ObjectKind::SchedContext => self.sched_context,
            ObjectKind::CNode => self.cnode_slot + 1,
            ObjectKind::VSpace
            | ObjectKind::Table(_)
            | ObjectKind::Frame
            | ObjectKind::AsidPool
            | ObjectKind::Untyped => crate::PAGE_BITS,
        };
        Object { kind, size_bits }
    }

    /// A CNode of `1 << radix` slots.
    pub const fn cnode(&self, radix: u8) -> Object {
        Object {
            kind: ObjectKind::CNode,
            size_bits: self.cnode_slot + radix,
        }
    }
}

/// Levels of x86-64 page tables below the top, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Page-directory-pointer table: one maps 512 GiB.
    Pdpt,
    /// Page directory: one maps 1 GiB.
    Directory,
    /// Page table: one maps 2 MiB.
    PageTable,
}

impl Level {
    /// All levels in the order they have to be mapped.
    pub const ALL: [Self; 3] = [Self::Pdpt, Self::Directory, Self::PageTable];

    /// Bits of address one table of this level maps.
    pub const fn span_bits(self) -> u8 {
        match self {
            Self::Pdpt => 39,
            Self::Directory => 30,
            Self::PageTable => 21,
        }
    }

    /// First address mapped by the table of this level that maps `vaddr`.
    pub const fn base(self, vaddr: u64) -> u64 {
        vaddr >> self.span_bits() << self.span_bits()
    }
}

/// What a mapping allows. Every mapping is readable, and executable as far as
/// the hardware is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Loads only.
    Read,
    /// Loads and stores.
    ReadWrite,
}

/// How a mapping is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Write-back: memory.
    Normal,
    /// Disabled: device registers.
    Disabled,
}

/// One thing for the kernel to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Make `count` objects of `untyped` in consecutive slots
    /// (`seL4_Untyped_Retype`).
    Retype {
        /// The untyped capability.
        untyped: Slot,
        /// What to make.
        object: Object,
        /// First destination slot.
        first: Slot,
        /// How many.
        count: u32,
    },
    /// Empty a slot (`seL4_CNode_Delete`).
    Delete {
        /// The slot.
        slot: Slot,
    },
    /// Delete everything derived from a capability (`seL4_CNode_Revoke`).
    Revoke {
        /// Its slot.
        slot: Slot,
    },
    /// Copy a capability with all its rights (`seL4_CNode_Copy`).
    Copy {
        /// Where it is.
        from: Slot,
        /// An empty slot.
        to: Slot,
    },
    /// Turn 4 KiB of untyped memory into numbers for address spaces
    /// (`seL4_X86_ASIDControl_MakePool`).
    MakeAsidPool {
        /// The untyped capability.
        untyped: Slot,
        /// An empty slot.
        to: Slot,
    },
    /// Give a new address space its number (`seL4_X86_ASIDPool_Assign`).
    AssignAsid {
        /// The top table.
        space: Slot,
    },
    /// Map a table (`seL4_X86_PDPT_Map` and so on).
    MapTable {
        /// The table.
        table: Slot,
        /// Its level.
        level: Level,
        /// The top table.
        space: Slot,
        /// An address it is to map.
        vaddr: u64,
    },
    /// Map a frame (`seL4_X86_Page_Map`).
    MapPage {
        /// The frame.
        frame: Slot,
        /// The top table.
        space: Slot,
        /// Where.
        vaddr: u64,
        /// What is allowed.
        rights: Rights,
        /// How it is cached.
        cache: Cache,
    },
    /// Unmap a frame (`seL4_X86_Page_Unmap`).
    UnmapPage {
        /// The frame capability that was mapped.
        frame: Slot,
    },
    /// Fill a page of the root task's window with zeroes (a store, not an
    /// invocation).
    ZeroPage {
        /// Address of the page in the root task.
        window: u64,
    },
}

/// Something that carries out operations: seL4, or a model of it.
pub trait Kernel {
    /// Carries out one operation.
    ///
    /// # Errors
    /// The kernel's error code; the operation then had no effect the broker
    /// has to know of.
    fn execute(&mut self, operation: &Operation) -> Result<(), Refused>;
}

impl<K: Kernel + ?Sized> Kernel for &mut K {
    fn execute(&mut self, operation: &Operation) -> Result<(), Refused> {
        (**self).execute(operation)
    }
}
