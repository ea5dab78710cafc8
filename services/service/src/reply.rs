//! Answers: results with their capabilities, and refusals.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::any::Any;

use capnp::message::{Builder, HeapAllocator};
use capos::{ApplicationException, CapabilityType, CopyTransfer, ExceptionType, OwnedCapability};

/// Why a call is not carried out: an exception for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its class.
    pub kind: ExceptionType,
    /// What is wrong, for people. It reaches the caller, so it says nothing
    /// about others.
    pub message: String,
}

/// A refusal in words that are known beforehand.
#[must_use]
pub fn refuse(kind: ExceptionType, message: &str) -> Refusal {
    let message = message.to_string();
    Refusal { kind, message }
}

/// What a message says that is none, or not of the kind expected.
impl From<capnp::Error> for Refusal {
    fn from(_: capnp::Error) -> Self {
        refuse(ExceptionType::InvalidArgument, "malformed params")
    }
}

impl From<capnp::NotInSchema> for Refusal {
    fn from(_: capnp::NotInSchema) -> Self {
        refuse(ExceptionType::InvalidArgument, "unknown enumerant")
    }
}

impl From<core::str::Utf8Error> for Refusal {
    fn from(_: core::str::Utf8Error) -> Self {
        refuse(ExceptionType::InvalidArgument, "text is not UTF-8")
    }
}

impl From<Refusal> for ApplicationException {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.kind, refusal.message)
    }
}

/// A result, and the capabilities that go with it.
#[derive(Default)]
pub struct Reply {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) transfers: Vec<CopyTransfer>,
    pub(crate) kept: Vec<Box<dyn Any>>,
}

impl core::fmt::Debug for Reply {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reply")
            .field("bytes", &self.bytes.len())
            .field("capabilities", &self.transfers.len())
            .finish_non_exhaustive()
    }
}

impl Reply {
    /// The result of a method without results: no bytes at all.
    #[must_use]
    pub fn void() -> Self {
        Self::default()
    }

    /// A result.
    #[must_use]
    pub fn message(message: &Builder<HeapAllocator>) -> Self {
        Self {
            bytes: capnp::serialize::write_message_to_words(message).into_boxed_slice(),
            ..Self::default()
        }
    }

    /// Gives a copy of what the service holds and goes on holding; returns its
    /// index among the result's capabilities.
    pub fn copy(&mut self, cap_id: u32) -> u16 {
        self.transfers.push(CopyTransfer::from_cap_id(cap_id));
        self.transfers.len() as u16 - 1
    }

    /// Gives what the service made for the caller: it is released here when
    /// the answer is out. Returns its index among the result's capabilities.
    pub fn give<T: CapabilityType + 'static>(&mut self, made: OwnedCapability<T>) -> u16 {
        let index = self.copy(made.cap_id());
        self.kept.push(Box::new(made));
        index
    }

    /// Sets the result, which is written when indices are known.
    pub fn set_message(&mut self, message: &Builder<HeapAllocator>) {
        self.bytes = capnp::serialize::write_message_to_words(message).into_boxed_slice();
    }
}

/// A message builder with room for small results in one segment.
#[must_use]
pub fn empty_message() -> Builder<HeapAllocator> {
    Builder::new(HeapAllocator::new().first_segment_words(64))
}
