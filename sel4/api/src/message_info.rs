//! The word that describes a message.

use core::fmt;

use crate::Word;

/// Message words that travel in registers; the rest are in the IPC buffer.
pub const FAST_MESSAGE_REGISTERS: usize = 4;

/// `seL4_MessageInfo_t`: label, number of words, number of capabilities.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MessageInfo(Word);

impl MessageInfo {
    /// `seL4_MessageInfo_new` for sending. Values too wide for their field are
    /// cut to it.
    #[inline]
    #[must_use]
    pub const fn new(label: Word, extra_caps: usize, length: usize) -> Self {
        Self(sel4_raw::message_info(
            label,
            extra_caps as Word,
            length as Word,
        ))
    }

    /// Takes a word the kernel delivered.
    #[inline]
    #[must_use]
    pub const fn from_word(word: Word) -> Self {
        Self(word)
    }

    /// As the kernel takes it.
    #[inline]
    #[must_use]
    pub const fn into_word(self) -> Word {
        self.0
    }

    /// `seL4_MessageInfo_get_label`: what the sender says the message is. The
    /// kernel's own faults use labels too, so it proves nothing by itself.
    #[inline]
    #[must_use]
    pub const fn label(self) -> Word {
        sel4_raw::message_label(self.0)
    }

    /// `seL4_MessageInfo_get_length`: words in the message.
    #[inline]
    #[must_use]
    pub const fn length(self) -> usize {
        sel4_raw::message_length(self.0) as usize
    }

    /// `seL4_MessageInfo_get_extraCaps`: capabilities sent or received.
    #[inline]
    #[must_use]
    pub const fn extra_caps(self) -> usize {
        (self.0 >> sel4_raw::seL4_MessageInfo_extraCaps_SHIFT
            & sel4_raw::seL4_MessageInfo_extraCaps_MASK) as usize
    }

    /// `seL4_MessageInfo_get_capsUnwrapped`: bit *n* is set where received
    /// capability *n* was delivered as its badge instead.
    #[inline]
    #[must_use]
    pub const fn caps_unwrapped(self) -> Word {
        self.0 >> sel4_raw::seL4_MessageInfo_capsUnwrapped_SHIFT
            & sel4_raw::seL4_MessageInfo_capsUnwrapped_MASK
    }
}

impl fmt::Debug for MessageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageInfo")
            .field("label", &self.label())
            .field("length", &self.length())
            .field("extra_caps", &self.extra_caps())
            .field("caps_unwrapped", &self.caps_unwrapped())
            .finish()
    }
}

/// Builds a [`MessageInfo`] field by field.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageInfoBuilder {
    label: Word,
    extra_caps: usize,
    length: usize,
}

impl MessageInfoBuilder {
    /// Sets the label.
    #[must_use]
    pub const fn label(mut self, label: Word) -> Self {
        self.label = label;
        self
    }

    /// Sets how many capabilities are sent.
    #[must_use]
    pub const fn extra_caps(mut self, extra_caps: usize) -> Self {
        self.extra_caps = extra_caps;
        self
    }

    /// Sets how many words are sent.
    #[must_use]
    pub const fn length(mut self, length: usize) -> Self {
        self.length = length;
        self
    }

    /// The info built.
    #[must_use]
    pub const fn build(self) -> MessageInfo {
        MessageInfo::new(self.label, self.extra_caps, self.length)
    }
}
