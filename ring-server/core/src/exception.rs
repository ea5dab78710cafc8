//! Application exceptions: what a method raises, and its `CapException` form.

use capnp::traits::HasStructSize;
use capos_config::capos_capnp::{ExceptionType, cap_exception};

use crate::encode::{Emitter, NoRoom};

/// Longest encoded exception this crate produces, in bytes.
pub(crate) const EXCEPTION_BYTES_MAX: usize = 192;

/// A structured failure of a method on an identified target (CQE result −9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The class a client branches on.
    pub kind: ExceptionType,
    /// What happened, for people; at most 127 bytes are used.
    pub message: &'static str,
}

impl Exception {
    /// The method could not do it: retrying unchanged will not help.
    pub const fn failed(message: &'static str) -> Self {
        Self::new(ExceptionType::Failed, message)
    }

    /// A quota or buffer is exhausted: release something and retry.
    pub const fn overloaded(message: &'static str) -> Self {
        Self::new(ExceptionType::Overloaded, message)
    }

    /// The object is gone: drop the capability.
    pub const fn disconnected(message: &'static str) -> Self {
        Self::new(ExceptionType::Disconnected, message)
    }

    /// The interface has no such method: do not call it again.
    pub const fn unimplemented() -> Self {
        Self::new(ExceptionType::Unimplemented, "no such method")
    }

    /// A parameter is not acceptable: change it.
    pub const fn invalid_argument(message: &'static str) -> Self {
        Self::new(ExceptionType::InvalidArgument, message)
    }

    const fn new(kind: ExceptionType, message: &'static str) -> Self {
        Self { kind, message }
    }

    /// Encodes as a `CapException` message; returns its length in bytes.
    ///
    /// # Errors
    /// [`NoRoom`] if `out` is too short.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let size = <cap_exception::Builder as HasStructSize>::STRUCT_SIZE;
        let (mut message, root) = Emitter::new(out, size)?;
        message.set_u16(root, 0, self.kind.into())?;
        message.set_text(root, 0, bounded(self.message))?;
        message.finish()
    }
}

/// Cuts at a character boundary so that an encoding always fits
/// [`EXCEPTION_BYTES_MAX`].
fn bounded(text: &str) -> &str {
    const TEXT_BYTES_MAX: usize = 127;
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_read_back_by_the_capnp_crate() {
        let long = "x".repeat(400).leak();
        for message in ["", "1234567", "12345678", "no such method", long] {
            for kind in [ExceptionType::Failed, ExceptionType::InvalidArgument] {
                let exception = Exception { kind, message };
                let mut words = capnp::Word::allocate_zeroed_vec(EXCEPTION_BYTES_MAX / 8);
                let out = capnp::Word::words_to_bytes_mut(&mut words);
                let len = exception.emit(out).expect("fits by construction");
                let mut slice = &out[..len];
                let reader = capnp::serialize::read_message_from_flat_slice_no_alloc(
                    &mut slice,
                    capos_config::default_reader_options(),
                )
                .expect("a valid message");
                let root = reader.get_root::<cap_exception::Reader>().unwrap();
                assert_eq!(root.get_type(), Ok(kind));
                assert_eq!(root.get_message().unwrap(), bounded(message));
            }
        }
    }

    #[test]
    fn short_buffers_are_refused_not_overrun() {
        let exception = Exception::unimplemented();
        let mut out = [0; EXCEPTION_BYTES_MAX];
        let len = exception.emit(&mut out).unwrap();
        for short in 0..len {
            assert_eq!(exception.emit(&mut out[..short]), Err(NoRoom));
        }
    }
}
