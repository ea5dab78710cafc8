//! The capOS personality as pure logic: ring, CapTable, ledger, endpoints and
//! kernel objects.
//!
//! Events come in through [`Server`]'s methods, effects go out through
//! [`Machine`]. The crate knows no seL4 and no time of day, and holds no
//! reference to client memory.
//!
//! # Guarantees
//! - Dispatch of one submission takes no heap storage and a bounded number of
//!   steps; storage is taken when the server and its processes are created.
//! - A submission is copied out of the ring page once, before it is examined.
//! - One submission taken is one completion posted.
//! - Nothing a client writes into its ring page or its memory can make the
//!   server panic; [`Server::check`] asserts the invariants in tests.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod blocks;
mod books;
pub mod cap_table;
pub mod capset;
mod class;
mod deadline;
pub mod decode;
mod diagnostics;
mod dispatch;
pub mod editor;
pub mod encode;
mod endpoint;
mod exception;
mod family;
mod grants;
mod ids;
mod kernel;
mod launcher;
mod limits;
mod machine;
mod memory;
mod objects;
mod park;
mod pool;
mod process;
#[cfg(any(kani, test))]
mod proofs;
mod rendezvous;
mod results;
mod revocation;
mod ring;
mod server;
mod session;
mod sessions;
mod spawn;
mod threads;
mod transfer;
mod waiting;

pub use books::Books;
pub use cap_table::{
    CAP_SLOT_BYTES, CapId, CapTable, Hold, HoldOrigin, TransferMode, TransferScope,
};
pub use capos_loader::{
    Access, AddressMap, Backing, Denied, Footprint, MapError, Owner, Protection, Region, RegionKind,
};
pub use capset::{CAPSET_PAGE_BYTES, CapSetError, CapSetPage};
pub use class::Class;
pub use diagnostics::Diagnostic;
pub use endpoint::endpoint_bytes;
pub use exception::Exception;
pub use family::SPAWNED_PROCESSES_MAX;
pub use grants::{Grant, GrantSource, Passing, transfer_mode};
pub use ids::{PROCESS_SLOTS, Pid, ThreadRef, Tid};
pub use kernel::terminal::{PROMPT_BYTES_MAX, TYPED_AHEAD_MAX};
pub use kernel::timer::TICK_NS;
pub use limits::*;
pub use machine::{
    AccessFault, Backed, ClockReading, Embryo, Machine, NoMemory, PrepareError, RingPage, RingWord,
    ThreadEntry, ThreadRefused,
};
pub use memory::{MemoryCapacity, MemoryUse, PageFault};
pub use objects::{EpochId, Object, ObjectId, Objects, UnsupportedSource};
pub use server::{
    CreateError, ENTER_REJECTED, ENTER_THREAD_OWNED_HEAD, Entry, ProcessSpec, ROOT_OBJECTS, Server,
    WAIT_FOREVER,
};
pub use session::{
    BootSecret, DISPLAY_NAME_BYTES_MAX, PRINCIPAL_ID_BYTES_MAX, PROFILE_BYTES_MAX,
    SESSION_ID_BYTES_MAX, SessionId, SessionInfo, SessionReference, derive_reference,
};
pub use spawn::{EXIT_FAULT, EXIT_TERMINATED};
