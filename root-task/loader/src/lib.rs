//! From the bytes of a capOS program to a plan of its address space.
//!
//! Nothing here touches memory or the kernel. [`LoadPlan::parse`] turns an
//! untrusted ELF file into a value that cannot be nonsense: page ranges that
//! do not overlap, file ranges that lie inside the file, an entry point that
//! may be executed. [`AddressMap`] is the process's address space as the
//! personality understands it: it answers what a page fault means and whether
//! a buffer a client names may be read or written.
//! [`read_bootstrap_manifest`] reads the manifest the programs come with.
//!
//! Guarantees, and where they are established:
//!
//! - **L1** No two segments share a page, and no segment shares a page with
//!   the stack, TLS, ring or CapSet region ([`LoadPlan::parse`]).
//! - **L2** Every file range a plan names lies inside the parsed file
//!   ([`LoadPlan::parse`]); it holds for that file only.
//! - **L3** No region is writable and executable ([`LoadPlan::parse`],
//!   [`AddressMap::insert`], [`AddressMap::protect`]). seL4 on x86-64 has no
//!   execute-disable, so the hardware does not enforce it.
//! - **L4** Regions of an [`AddressMap`] are sorted, disjoint and page-aligned
//!   ([`AddressMap::check`]).
//! - **L5** No input makes this crate panic (held by the property tests).
//! - **L6** No two processes have the same first thread pointer ([`tls`]).
//!
//! The layout constants come from `capos-config`; see [`layout`].

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod error;
pub mod image;
pub mod layout;
pub mod manifest;
pub mod map;
pub mod tls;

pub use error::{LoadError, MapError, SegmentKind};
pub use image::{FileRange, LoadPlan, Segment};
pub use layout::{EntryState, Protection};
pub use manifest::read_bootstrap_manifest;
pub use map::{
    Access, AddressMap, Backing, Denied, FaultVerdict, Footprint, Owner, Page, Region, RegionKind,
};
pub use tls::{TlsPlan, TlsSlot};
