//! Messages of protected calls.

use sel4::{Word, with_ipc_buffer, with_ipc_buffer_mut};

/// A label and how many words go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageInfo(pub(crate) sel4::MessageInfo);

impl MessageInfo {
    /// A message with `count` words, which [`set_mr`] sets.
    ///
    /// # Panics
    /// For more words than a message has.
    #[must_use]
    pub const fn new(label: u64, count: usize) -> Self {
        assert!(count <= sel4::MAX_MESSAGE_LENGTH, "a message has 120 words");
        Self(sel4::MessageInfo::new(label, 0, count))
    }

    /// Its label.
    #[must_use]
    pub const fn label(self) -> u64 {
        self.0.label()
    }

    /// Its number of words.
    #[must_use]
    pub const fn count(self) -> usize {
        self.0.length()
    }
}

/// Word `index` of the message that arrived.
///
/// # Panics
/// For a word no message has.
#[must_use]
pub fn get_mr(index: usize) -> Word {
    with_ipc_buffer(|buffer| buffer.mr(index))
}

/// Sets word `index` of the message that is sent next.
///
/// # Panics
/// For a word no message has.
pub fn set_mr(index: usize, word: Word) {
    with_ipc_buffer_mut(|buffer| buffer.set_mr(index, word));
}
