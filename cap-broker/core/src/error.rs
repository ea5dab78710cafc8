//! Why the broker said no.

use core::fmt;

/// The kernel refused an operation; the number is its error code
/// (`seL4_Error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub u32);

/// Why a request for memory, slots or mappings failed. Nothing was handed out
/// and nothing is lost: what the request had taken is free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerError {
    /// No free block of that size, even after merging everything free:
    /// release memory, or give the machine more.
    OutOfMemory {
        /// Size asked for, as a power of two.
        size_bits: u8,
    },
    /// No free capability slot, or no run of that many: release objects, or
    /// build the kernel with a larger root CNode.
    OutOfSlots {
        /// Contiguous slots asked for.
        count: u32,
    },
    /// The window in the root task has no free run of that many pages:
    /// release frames, or configure a larger window.
    OutOfWindow {
        /// Contiguous pages asked for.
        pages: u32,
    },
    /// A table of the broker is full; the name says which. Configure more.
    OutOfRecords(&'static str),
    /// The physical range is in no device untyped, or RAM was asked for by
    /// address.
    NoSuchDevice {
        /// First byte asked for.
        paddr: u64,
    },
    /// Part of the physical range is handed out already.
    DeviceBusy {
        /// First byte asked for.
        paddr: u64,
    },
    /// The address is not page-aligned or not a user address: the caller's
    /// arguments are wrong.
    BadAddress {
        /// The address.
        vaddr: u64,
    },
    /// A page is mapped at that address already: unmap it first.
    AlreadyMapped {
        /// The address.
        vaddr: u64,
    },
    /// No page is mapped at that address.
    NotMapped {
        /// The address.
        vaddr: u64,
    },
    /// The frame is not allocated, or its owner's mapping is in use already,
    /// or it is still mapped: the caller's books are wrong.
    BadFrame,
    /// The address space does not exist (any more).
    BadSpace,
    /// The kernel refused an operation the broker had checked. On a healthy
    /// system this does not happen; report it.
    Kernel(Refused),
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OutOfMemory { size_bits } => {
                write!(f, "no free block of {} bytes", 1_u64 << size_bits)
            }
            Self::OutOfSlots { count } => write!(f, "no {count} contiguous capability slots"),
            Self::OutOfWindow { pages } => write!(f, "no {pages} contiguous window pages"),
            Self::OutOfRecords(table) => write!(f, "the broker's table of {table} is full"),
            Self::NoSuchDevice { paddr } => write!(f, "no device memory at {paddr:#x}"),
            Self::DeviceBusy { paddr } => write!(f, "device memory at {paddr:#x} is taken"),
            Self::BadAddress { vaddr } => write!(f, "{vaddr:#x} is no page address of a user"),
            Self::AlreadyMapped { vaddr } => write!(f, "{vaddr:#x} is mapped already"),
            Self::NotMapped { vaddr } => write!(f, "nothing is mapped at {vaddr:#x}"),
            Self::BadFrame => f.write_str("the frame is not in the state this needs"),
            Self::BadSpace => f.write_str("no such address space"),
            Self::Kernel(Refused(code)) => write!(f, "the kernel refused (seL4 error {code})"),
        }
    }
}

impl core::error::Error for BrokerError {}

impl From<Refused> for BrokerError {
    fn from(refused: Refused) -> Self {
        Self::Kernel(refused)
    }
}

/// Why a request for ports or an interrupt line failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// The range is empty, or the line or vector does not exist: the caller's
    /// arguments are wrong.
    BadRequest,
    /// Someone holds (part of) it: release it there first.
    Busy,
    /// It was not held, so it cannot be released.
    NotHeld,
    /// As many are held as the table was made for: configure more.
    TableFull,
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadRequest => "no such ports, line or vector",
            Self::Busy => "taken already",
            Self::NotHeld => "not held",
            Self::TableFull => "the table is full",
        })
    }
}

impl core::error::Error for DeviceError {}
