//! Typed seL4 capabilities and invocations for x86_64.
//!
//! A [`Cap`] is a slot number with a claim about what the slot holds; its
//! methods are the invocations of that kind of object. Names follow rust-sel4,
//! and each item says which libsel4 function it is.
//!
//! The crate compiles against whatever kernel `sel4-raw` was generated for.
//! Where kernels differ, the same function does what that kernel needs:
//!
//! | matter | 5.0.0 | 16 | 16 with MCS |
//! |---|---|---|---|
//! | who may set priorities | the caller's own | authority argument | authority argument |
//! | fault handler | slot in the thread's CSpace | the same | capability of the caller |
//! | time | slices | slices | a scheduling context ([`Budget`]) |
//! | reply to a call | implicit | implicit | the object named by [`set_reply_object`] |
//! | I/O ports | one capability, narrowed | issued by `IOPortControl` | the same |
//!
//! # Invariants
//! - **B1** The buffer behind every message is the one named by
//!   [`set_ipc_buffer`]; until then it is a static that the kernel does not
//!   know, so that a call made too early fails but touches no foreign memory.
//! - **B2** No reference to the buffer's words ever leaves this crate:
//!   [`IpcBuffer`] reads and writes them one by one, so an invocation made
//!   inside [`with_ipc_buffer_mut`] may overwrite words but never breaks
//!   aliasing.
//! - **B3** One thread per program uses this crate, since a buffer belongs to
//!   a thread. Other threads may use what stays in registers: the `_with_mrs`
//!   forms and I/O ports.
//!
//! # What the types do not promise
//! A capability can be copied and cast, and an invocation can take memory or
//! threads away from the program that makes it. As in rust-sel4, invocations
//! are safe functions: what a program's capabilities can do to it is settled
//! by whoever hands them out. The owning layer above is `cap-broker`.
#![no_std]

mod bootinfo;
mod cnode;
mod cptr;
mod error;
pub mod fault;
pub mod init_thread;
mod interrupt;
mod io_port;
mod ipc;
mod ipc_buffer;
mod kind;
mod message_info;
mod object;
mod rights;
mod tcb;
mod time;
mod untyped;
mod vspace;

pub use bootinfo::{BootInfo, BootInfoExtra, BootInfoPtr, UntypedDesc};
pub use cnode::{AbsoluteCPtr, CNodeCapData};
pub use cptr::{CPtr, CPtrBits, CPtrWithDepth, Cap, CapType, FrameType, PagingType, cap, cap_type};
pub use error::{Error, Result};
pub use fault::{Fault, FaultKind, MalformedFault};
pub use io_port::IoPortAuthority;
pub use ipc::{Badge, reply, reply_with_mrs, set_reply_object, yield_now};
pub use ipc_buffer::{IpcBuffer, set_ipc_buffer, with_ipc_buffer, with_ipc_buffer_mut};
pub use kind::{SlotKind, Workbench};
pub use message_info::{FAST_MESSAGE_REGISTERS, MessageInfo, MessageInfoBuilder};
pub use object::ObjectBlueprint;
pub use rights::{CapRights, CapRightsBuilder};
pub use sel4_raw::config;
pub use tcb::{FAULT_HANDLER_IN_TCB, UserContext};
pub use time::{Budget, HAS_SCHED_CONTEXTS};
pub use vspace::VmAttributes;

/// The kernel's machine word.
pub type Word = u64;

/// Bits in a [`Word`], and the depth at which a program's CPtrs are resolved.
pub const WORD_SIZE: usize = sel4_raw::seL4_WordBits as usize;

/// Size of the smallest frame as a power of two.
pub const GRANULE_BITS: usize = sel4_raw::seL4_PageBits as usize;

/// Size of the smallest frame in bytes.
pub const GRANULE_SIZE: usize = 1 << GRANULE_BITS;

/// The largest badge a capability can carry on this kernel.
pub const BADGE_MAX: Badge = Badge::MAX >> (64 - sel4_raw::seL4_BadgeBits);

/// The longest message, in words (`seL4_MsgMaxLength`).
pub const MAX_MESSAGE_LENGTH: usize = sel4_raw::seL4_MsgMaxLength as usize;
