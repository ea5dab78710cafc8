//! Control messages between two protection domains by synchronous `seL4_Call`.
//!
//! A message is a method, up to 20 words, and at most one capability; the
//! methods of a bridge and their words are those of `bridge.capnp`
//! ([`messages`]). The client's badge is what the server knows it by: the kernel
//! attaches it, and the server refuses what that badge was not given for. What
//! is derived for a session hangs below one capability, so that revoking that
//! one ends all of it, and a [`Budget`] bounds how much there can be.
//!
//! The logic ([`budget`], [`messages`], [`queue`]) is pure and runs on a host;
//! the feature `transport` adds the system calls ([`transport`]).
#![no_std]
#![forbid(unsafe_code)]

pub mod budget;
pub mod messages;
pub mod queue;
#[cfg(feature = "transport")]
pub mod transport;

pub use budget::{Budget, Derivation, Exhausted};
pub use queue::{Descriptor, Malformed, Progress, process_tx_queue};
