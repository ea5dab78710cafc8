//! `ThreadHandle`: how one thread of the calling process ended.

use capnp::Word;
use capnp::traits::HasStructSize;
use capos_config::capos_capnp::thread_handle::{exit_code_results, join_results};
use capos_config::ring::CapSqe;

use super::Refusal;
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;

/// What is asked about a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Its exit code, now or when there is one; can be had once.
    Join,
    /// Its exit code, if there is one.
    ExitCode,
}

/// A message of one word of data: table, pointer, data.
pub(crate) const JOIN_RESULT_BYTES: usize = 3 * size_of::<Word>();

/// Decodes a call; neither method takes params.
pub(crate) fn decode(sqe: &CapSqe) -> Result<Request, Refusal> {
    match sqe.method_id {
        0 => Ok(Request::Join),
        1 => Ok(Request::ExitCode),
        _ => Err(Exception::unimplemented().into()),
    }
}

/// The result of `join`.
pub(crate) fn emit_joined(out: &mut [u8], code: i64) -> Result<usize, NoRoom> {
    let size = <join_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u64(root, 0, code as u64)?;
    message.finish()
}

/// The result of `exitCode`.
pub(crate) fn emit_exit_code(out: &mut [u8], code: Option<i64>) -> Result<usize, NoRoom> {
    let size = <exit_code_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u16(root, 0, u16::from(code.is_some()))?;
    message.set_u64(root, 1, code.unwrap_or(0) as u64)?;
    message.finish()
}
