//! Application exceptions, as they lie at the start of a result buffer.

use alloc::string::String;

use capos::{capos_capnp, default_reader_options};
use capos_capnp::ExceptionType;
use capos_config::ring::{CAP_ERR_APPLICATION_EXCEPTION, CapCqe};

use crate::proof::{Failure, Proof, equal};

/// An exception's type and text.
///
/// # Errors
/// `buffer` does not begin with an exception.
pub fn parse(buffer: &[u8]) -> Result<(ExceptionType, String), Failure> {
    let refuse = |_| Failure::new("the result buffer holds no exception");
    let message = capnp::serialize::read_message_from_flat_slice_no_alloc(
        &mut &buffer[..],
        default_reader_options(),
    )
    .map_err(refuse)?;
    let exception = message
        .get_root::<capos_capnp::cap_exception::Reader<'_>>()
        .map_err(refuse)?;
    let kind = exception
        .get_type()
        .map_err(|_| Failure::new("an exception of unknown type"))?;
    let text = exception.get_message().map_err(refuse)?;
    Ok((kind, text.to_string().unwrap_or_default()))
}

/// Says so unless a completion reports an exception of type `kind`.
///
/// # Errors
/// It does not.
pub fn expect(what: &str, cqe: &CapCqe, buffer: &[u8], kind: ExceptionType) -> Proof {
    equal(what, cqe.result, CAP_ERR_APPLICATION_EXCEPTION)?;
    let (actual, text) = parse(buffer).map_err(|failure| failure.within(what))?;
    if actual == kind {
        return Ok(());
    }
    Err(Failure::new(alloc::format!(
        "{what}: {actual:?} ({text}), not {kind:?}"
    )))
}
