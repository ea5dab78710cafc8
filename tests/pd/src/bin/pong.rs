//! Notifies back whoever notifies it; its channel's number is set from the
//! description.

#![no_std]
#![no_main]

use core::convert::Infallible;

use sel4_microkit::{Channel, ChannelSet, Handler, protection_domain, var};

struct Pong {
    peer: Channel,
}

#[protection_domain]
fn init() -> impl Handler {
    let id = var!(pong_channel: u64 = u64::MAX);
    Pong {
        peer: Channel::new(id as usize),
    }
}

impl Handler for Pong {
    type Error = Infallible;

    fn notified(&mut self, channels: ChannelSet) -> Result<(), Infallible> {
        if channels.contains(self.peer) {
            self.peer.notify();
        }
        Ok(())
    }
}
