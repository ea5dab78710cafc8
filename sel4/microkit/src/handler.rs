//! What a domain does with what arrives, and the loop that brings it.

use core::fmt;

use sel4::{Badge, cap};

use crate::channel::{Channel, ChannelSet, Child};
use crate::message::MessageInfo;
use crate::symbols::Symbols;

/// Where everything arrives (Microkit 2.3).
const INPUT: cap::Endpoint = cap::Endpoint::from_bits(1);
/// The reply object, on kernels that have them (Microkit 2.3).
const REPLY: cap::Reply = cap::Reply::from_bits(4);
/// Bits of this kernel's badges.
const BADGE_BITS: u32 = sel4::BADGE_MAX.trailing_ones();
/// Badge of a protected call, with the channel below.
const CALL: Badge = 1 << (BADGE_BITS - 1);
/// Badge of a child's fault, with the child below.
const FAULT: Badge = 1 << (BADGE_BITS - 2);
const CHANNEL_MASK: Badge = 0x3f;
const CHILD_MASK: Badge = 0xff;

/// What a protection domain does. An error ends the domain.
pub trait Handler {
    /// Why it cannot go on.
    type Error: fmt::Display;

    /// Called when notified, with all that was signalled since the last time.
    ///
    /// # Errors
    /// Any ends the domain.
    ///
    /// # Panics
    /// Unless it is implemented: nothing can notify a domain by mistake.
    fn notified(&mut self, channels: ChannelSet) -> Result<(), Self::Error> {
        panic!("a notification nobody handles: {channels:?}")
    }

    /// Called when another domain calls; returns the answer.
    ///
    /// # Errors
    /// Any ends the domain.
    ///
    /// # Panics
    /// Unless it is implemented.
    fn protected(
        &mut self,
        channel: Channel,
        info: MessageInfo,
    ) -> Result<MessageInfo, Self::Error> {
        panic!("a call nobody handles: {channel:?} {info:?}")
    }

    /// Called when a child faults; with an answer the child continues.
    ///
    /// # Errors
    /// Any ends the domain.
    ///
    /// # Panics
    /// Unless it is implemented.
    fn fault(
        &mut self,
        child: Child,
        info: MessageInfo,
    ) -> Result<Option<MessageInfo>, Self::Error> {
        panic!("a fault nobody handles: {child:?} {info:?}")
    }
}

/// Handles nothing: for domains that are done once they are initialised.
pub struct NullHandler;

impl Handler for NullHandler {
    type Error = core::convert::Infallible;
}

/// Brings `handler` what arrives, for ever.
pub fn run(mut handler: impl Handler) -> ! {
    sel4::set_reply_object(REPLY);
    acknowledge_all();
    // Where a badge has a bit for each number there is nothing to unpack.
    let incoming = match BADGE_BITS {
        u64::BITS => 0,
        _ => Symbols::incoming(),
    };
    let mut answer = None;
    loop {
        let (info, badge) = match answer.take() {
            Some(MessageInfo(info)) => INPUT.reply_recv(info),
            None => INPUT.recv(),
        };
        let outcome = dispatch(&mut handler, MessageInfo(info), badge, incoming);
        answer = outcome.unwrap_or_else(|error| panic!("the domain gives up: {error}"));
    }
}

/// One message: the answer to it, if it has one.
fn dispatch<H: Handler>(
    handler: &mut H,
    info: MessageInfo,
    badge: Badge,
    incoming: u64,
) -> Result<Option<MessageInfo>, H::Error> {
    if badge & CALL != 0 {
        let channel = Channel::new((badge & CHANNEL_MASK) as usize);
        handler.protected(channel, info).map(Some)
    } else if badge & FAULT != 0 {
        handler.fault(Child::new((badge & CHILD_MASK) as usize), info)
    } else {
        let channels = ChannelSet::of_badge(badge, incoming);
        handler.notified(channels).map(|()| None)
    }
}

/// An interrupt that was raised before its handler existed is let through.
fn acknowledge_all() {
    for channel in ChannelSet::of_mask(Symbols::irqs()).iter() {
        if let Err(error) = channel.irq_ack() {
            panic!("{error}");
        }
    }
}
