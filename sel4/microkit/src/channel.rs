//! Channels, interrupts and children, by number.

use core::fmt;

use sel4::{UserContext, Word, cap};

use crate::message::MessageInfo;

/// First slots of each kind (Microkit 2.3).
mod slot {
    pub const OUTPUT_NOTIFICATION: u64 = 10;
    pub const ENDPOINT: u64 = 74;
    pub const IRQ: u64 = 138;
    pub const CHILD_TCB: u64 = 202;
}

/// A channel or an interrupt: they share one series of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel {
    index: usize,
}

/// The kernel refused to let an interrupt through: the number is of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqAckError(sel4::Error);

impl fmt::Display for IrqAckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "irq ack: {:?}", self.0)
    }
}

impl Channel {
    /// Numbers there can be.
    const MAX: usize = 62;

    /// The channel called `index` in the description.
    ///
    /// # Panics
    /// For a number no channel can have.
    #[must_use]
    pub const fn new(index: usize) -> Self {
        assert!(index < Self::MAX, "channels are numbered 0 to 61");
        Self { index }
    }

    /// Its number.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index
    }

    /// Notifies the other end.
    pub fn notify(self) {
        let slot = slot::OUTPUT_NOTIFICATION + self.index as u64;
        cap::Notification::from_bits(slot).signal();
    }

    /// Lets the next interrupt of this number through.
    ///
    /// # Errors
    /// [`IrqAckError`]
    pub fn irq_ack(self) -> Result<(), IrqAckError> {
        let handler = cap::IrqHandler::from_bits(slot::IRQ + self.index as u64);
        handler.irq_handler_ack().map_err(IrqAckError)
    }

    /// Calls the other end and waits for the answer, whose words are then
    /// where [`get_mr`](crate::get_mr) finds them.
    pub fn pp_call(self, info: MessageInfo) -> MessageInfo {
        let endpoint = cap::Endpoint::from_bits(slot::ENDPOINT + self.index as u64);
        MessageInfo(endpoint.call(info.0))
    }
}

/// Which channels and interrupts a notification was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelSet(u64);

impl ChannelSet {
    /// The set that a badge stands for; see the crate's `microkit_incoming`.
    pub(crate) const fn of_badge(badge: Word, incoming: u64) -> Self {
        if incoming == 0 {
            return Self(badge);
        }
        let (mut set, mut rest, mut badge) = (0, incoming, badge);
        while rest != 0 {
            if badge & 1 != 0 {
                set |= rest & rest.wrapping_neg();
            }
            rest &= rest - 1;
            badge >>= 1;
        }
        Self(set)
    }

    /// The set of a mask.
    pub(crate) const fn of_mask(mask: u64) -> Self {
        Self(mask)
    }

    /// Whether `channel` is among them.
    #[must_use]
    pub const fn contains(self, channel: Channel) -> bool {
        self.0 & 1 << channel.index != 0
    }

    /// All of them, lowest number first.
    pub fn iter(self) -> impl Iterator<Item = Channel> {
        (0..Channel::MAX)
            .map(Channel::new)
            .filter(move |&channel| self.contains(channel))
    }
}

/// A child domain, whose faults this one receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Child {
    index: usize,
}

impl Child {
    /// The child called `index` in the description.
    #[must_use]
    pub const fn new(index: usize) -> Self {
        Self { index }
    }

    /// Its number.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index
    }

    /// Lets it continue at `entry` with the memory and registers it has.
    ///
    /// # Errors
    /// The kernel's.
    pub fn restart(self, entry: u64) -> sel4::Result<()> {
        /// RIP is the first register.
        const COUNT: usize = 1;
        let mut context = UserContext::default();
        context.rip = entry;
        self.tcb().tcb_write_registers(true, COUNT, &context)
    }

    /// Stops it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stop(self) -> sel4::Result<()> {
        self.tcb().tcb_suspend()
    }

    fn tcb(self) -> cap::Tcb {
        cap::Tcb::from_bits(slot::CHILD_TCB + self.index as u64)
    }
}
