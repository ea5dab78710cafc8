//! Answers a call with each word plus one, and the label plus one.

#![no_std]
#![no_main]

use core::convert::Infallible;

use sel4_microkit::{Channel, Handler, MessageInfo, get_mr, protection_domain, set_mr};

const CALLER: Channel = Channel::new(61);

struct Callee;

#[protection_domain]
fn init() -> impl Handler {
    Callee
}

impl Handler for Callee {
    type Error = Infallible;

    fn protected(
        &mut self,
        channel: Channel,
        info: MessageInfo,
    ) -> Result<MessageInfo, Infallible> {
        if channel != CALLER {
            return Ok(MessageInfo::new(0, 0));
        }
        for word in 0..info.count() {
            set_mr(word, get_mr(word) + 1);
        }
        Ok(MessageInfo::new(info.label() + 1, info.count()))
    }
}
