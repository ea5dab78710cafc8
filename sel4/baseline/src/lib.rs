//! What seL4's own primitives cost on this kernel, in ticks of the time-stamp
//! counter (instructions under `-icount shift=0`).
//!
//! A root task runs the whole suite with [`measure`] before it starts anything
//! else, so that what it measures later can be quoted beside it, from the same
//! boot of the same image. Servers are pieces of this program: [`Worker`] runs
//! them in the root task's address space or in one of their own.
//!
//! The suite gives nothing back. Whoever owns the [`Pool`]'s untyped revokes it
//! afterwards, and empties the slots.
#![no_std]

extern crate alloc;

mod direct;
mod ipc;
mod objects;
mod pool;
mod samples;
mod traps;
mod worker;

pub use pool::Pool;
pub use samples::Samples;
pub use worker::{Space, Worker};

use sel4::{BootInfo, Result};

/// Bytes of untyped memory the suite takes, as a power of two.
pub const UNTYPED_BITS: usize = 23;
/// Slots of the initial CNode it takes.
pub const SLOTS: usize = 2048;

/// Where results go: a name and what was sampled.
pub type Sink<'a> = dyn FnMut(&str, &Samples) + 'a;

/// Measures everything here. On kernels with MCS the caller has named its reply
/// object ([`sel4::set_reply_object`]), and servers run on their callers' time.
///
/// # Errors
/// The kernel's first refusal; lines before it are good.
pub fn measure(pool: &mut Pool, bootinfo: &BootInfo, sink: &mut Sink<'_>) -> Result<()> {
    sink("raw-clock", &Samples::take(|| Ok(0))?);
    traps::measure(pool, bootinfo, sink)?;
    ipc::measure(pool, bootinfo, sink)?;
    direct::measure(pool, bootinfo, sink)?;
    objects::measure(pool, bootinfo, sink)
}
