//! The loop of a program that serves endpoints.
//!
//! A service makes a [`Server`] of the endpoints it owns and asks it for one
//! [`Event`] after the other: a call to answer, or the completion of something
//! the service itself submitted. A call may be answered at once or kept and
//! answered later; meanwhile others are taken. A service that answers all calls
//! at once implements [`Service`] and leaves the loop to [`serve`].
//!
//! # What the loop takes care of
//! - Several receives wait at each endpoint, so that callers do not wait for
//!   each other's turn.
//! - A call is never lost: one that is dropped is answered with an exception,
//!   and a result that cannot be returned is replaced by one.
//! - Capabilities that came with a call are released when it is answered,
//!   unless the service took them; those it gives away are kept until they are
//!   given.
//! - A message longer than a service expects is received all the same, so that
//!   it cannot stand in the way of others.
//!
//! # Room in the queues
//! Receives, answers on their way and what the service waits for share the 32
//! places of the completion queue. [`Server::new`] says how many receives wait;
//! a service that keeps calls bounds them itself.

#![no_std]

extern crate alloc;

pub mod boot;
mod call;
mod reply;
mod server;

pub use call::{Call, Message};
pub use reply::{Refusal, Reply, empty_message, refuse};
pub use server::{Completion, Event, Server, ServerError, Service, serve, unknown_method};

/// Waits that end when what is waited for happens.
pub const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
