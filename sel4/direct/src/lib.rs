//! Control messages between two protection domains by synchronous `seL4_Call`.
//!
//! A message is up to 20 words, a method, and at most one capability. The
//! client's badge is what the server knows it by: the kernel attaches it, and
//! [`Budget`]s and the badge check refuse what it was not given for. What is
//! derived for a session hangs below one capability, so that revoking that one
//! ends all of it.
//!
//! The logic ([`budget`], [`queue`]) is pure and runs on a host; the feature
//! `transport` adds the system calls ([`transport`]).
#![no_std]
#![cfg_attr(not(feature = "transport"), forbid(unsafe_code))]

pub mod budget;
pub mod queue;
#[cfg(feature = "transport")]
pub mod transport;

pub use budget::{Budget, Derivation, Exhausted};
pub use queue::{Descriptor, Malformed, Progress, process_tx_queue};
