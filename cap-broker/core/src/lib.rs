//! Who holds which memory, capability slot, page and device: pure accounting.
//!
//! The broker decides and a [`Kernel`] acts. Every decision reaches the kernel
//! as an [`Operation`], one at a time, and the books change only after the
//! kernel agreed; so a refused operation leaves books that match the kernel,
//! and whatever the same request had done before is undone or kept as a cached
//! free block. Nothing here knows seL4 beyond the rules written down in
//! [`operation`]; the adapter turns operations into invocations, and
//! [`sim::SimKernel`] enforces the same rules on the host.
//!
//! The parts, each usable alone:
//!
//! | module | keeps the books of |
//! |---|---|
//! | [`bitmap`] | dense numbers, singly or in runs |
//! | [`slots`] | free slots of the root CNode |
//! | [`untyped`] | untyped memory: buddy splitting, merging, devices by address |
//! | [`store`] | kernel objects: memory and a slot together |
//! | [`frames`] | 4 KiB frames and their window in the root task |
//! | [`vspace`] | page tables and pages of address spaces |
//! | [`devices`] | I/O port ranges and interrupt lines |
//! | [`broker`] | all of the above together |
//! | [`sim`] | a kernel for tests, and the boot-time simulation |
//!
//! Memory is taken from the heap when a structure is made and when something
//! it tracks is created (a chunk of frames, a page table), never in proportion
//! to time.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bitmap;
pub mod broker;
pub mod devices;
pub mod error;
pub mod frames;
pub mod operation;
pub mod sim;
pub mod slots;
pub mod store;
pub mod untyped;
pub mod vspace;

pub use broker::{Broker, BrokerConfig, DeviceMapping, Usage};
pub use error::{BrokerError, DeviceError, Refused};
pub use frames::FrameId;
pub use operation::{
    BootUntyped, Cache, Kernel, Level, Object, ObjectKind, ObjectSizes, Operation, Rights, Slot,
};
pub use store::OwnedObject;
pub use untyped::Block;
pub use vspace::{Hold, MappedPage, SpaceId};

/// Bits of a 4 KiB page.
pub const PAGE_BITS: u8 = 12;
/// Bytes of a page.
pub const PAGE_BYTES: u64 = 1 << PAGE_BITS;
