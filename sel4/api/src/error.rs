//! What the kernel answers when it refuses an invocation.

use core::fmt;

/// The result of an invocation.
pub type Result<T> = core::result::Result<T, Error>;

/// `seL4_Error`: why an invocation was refused. Nothing has changed then,
/// except where a method's documentation says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// An argument that is not a capability has a value the method does not
    /// take: correct the argument.
    InvalidArgument,
    /// The invoked capability or one passed along is of the wrong kind, or is
    /// in a state that excludes the operation: pass the right one.
    InvalidCapability,
    /// The object cannot do this at all, or the capability lacks the right:
    /// ask its owner for one that has it.
    IllegalOperation,
    /// An argument is outside its range; message words 0 and 1 hold the bounds.
    RangeError,
    /// An address is not aligned as the object requires: align it.
    AlignmentError,
    /// A slot, or a level of page tables, could not be resolved: create what
    /// is missing first (message words say which lookup and how far it got).
    FailedLookup,
    /// The message was shorter or had fewer capabilities than the method
    /// needs. From this crate it means that the IPC buffer is not set.
    TruncatedMessage,
    /// The destination is in use: delete or unmap what is there first.
    DeleteFirst,
    /// The object has descendants or copies: revoke first.
    RevokeFirst,
    /// The untyped has too little memory left; message word 0 holds how many
    /// bytes it has.
    NotEnoughMemory,
    /// A number this crate does not know, from a newer kernel.
    Unknown(u64),
}

impl Error {
    /// Translates an `seL4_Error` other than `seL4_NoError`.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        match raw {
            sel4_raw::seL4_InvalidArgument => Self::InvalidArgument,
            sel4_raw::seL4_InvalidCapability => Self::InvalidCapability,
            sel4_raw::seL4_IllegalOperation => Self::IllegalOperation,
            sel4_raw::seL4_RangeError => Self::RangeError,
            sel4_raw::seL4_AlignmentError => Self::AlignmentError,
            sel4_raw::seL4_FailedLookup => Self::FailedLookup,
            sel4_raw::seL4_TruncatedMessage => Self::TruncatedMessage,
            sel4_raw::seL4_DeleteFirst => Self::DeleteFirst,
            sel4_raw::seL4_RevokeFirst => Self::RevokeFirst,
            sel4_raw::seL4_NotEnoughMemory => Self::NotEnoughMemory,
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::InvalidArgument => "an argument has a value the method does not take",
            Self::InvalidCapability => "a capability is of the wrong kind or state",
            Self::IllegalOperation => "the object cannot do this or the right is missing",
            Self::RangeError => "an argument is out of range",
            Self::AlignmentError => "an address is not aligned",
            Self::FailedLookup => "a slot or page-table level is missing",
            Self::TruncatedMessage => "the message was too short",
            Self::DeleteFirst => "the destination is in use",
            Self::RevokeFirst => "the object still has descendants",
            Self::NotEnoughMemory => "the untyped has too little memory",
            Self::Unknown(raw) => return write!(f, "unknown seL4 error {raw}"),
        };
        f.write_str(text)
    }
}

impl core::error::Error for Error {}
