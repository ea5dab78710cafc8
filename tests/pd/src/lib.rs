//! What the test domains share: how they say that something was as it should.
//!
//! A domain has no console. It notifies the root task, which tells of it in its
//! log: [`Verdict::passed`] is a channel, and no channel is silence.

#![no_std]

use sel4_microkit::Channel;

/// A channel to the root task that stands for one statement.
pub struct Verdict(Channel);

impl Verdict {
    /// The one a description calls `id`.
    pub const fn new(id: usize) -> Self {
        Self(Channel::new(id))
    }

    /// States it, if it holds.
    pub fn passed(&self, holds: bool) {
        if holds {
            self.0.notify();
        }
    }
}
