//! Notifies `pong` and is notified back, ten times.

#![no_std]
#![no_main]

use core::convert::Infallible;

use sel4_microkit::{Channel, ChannelSet, Handler, protection_domain};
use test_domains::Verdict;

const PEER: Channel = Channel::new(7);
const DONE: Verdict = Verdict::new(60);
const ROUNDS: u32 = 10;

struct Ping {
    rounds: u32,
}

#[protection_domain]
fn init() -> impl Handler {
    PEER.notify();
    Ping { rounds: 0 }
}

impl Handler for Ping {
    type Error = Infallible;

    fn notified(&mut self, channels: ChannelSet) -> Result<(), Infallible> {
        if channels.contains(PEER) {
            self.rounds += 1;
            if self.rounds < ROUNDS {
                PEER.notify();
            }
            DONE.passed(self.rounds == ROUNDS);
        }
        Ok(())
    }
}
