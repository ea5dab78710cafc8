//! `ThreadControl`: the calling thread's FS base and its end, and how urgent
//! its process is.
//!
//! Which thread that is, the entry says, not the capability: all threads of a
//! process share its table.

use capnp::traits::HasStructSize;
use capos_config::capos_capnp::thread_control::{
    exit_thread_params, get_fs_base_results, set_fs_base_params,
};
use capos_config::ring::CapSqe;
use sel4_capos_schema::method::LEAVE_SERVICE_CLASS;

use super::{Refusal, copied, malformed, message};
use crate::decode;
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::threads::is_user_address;

/// What is asked of the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// What is the FS base?
    GetFsBase,
    /// Set it; a user address.
    SetFsBase(u64),
    /// End with this code.
    Exit(i64),
    /// Run among the applications from now on, the whole process.
    LeaveServiceClass,
}

/// Number of the method that ends the caller.
const EXIT_THREAD: u16 = 2;

/// Decodes a call whose params are in `params`.
pub(crate) fn decode(params: &[u8], sqe: &CapSqe) -> Result<Request, Refusal> {
    match sqe.method_id {
        0 => Ok(Request::GetFsBase),
        1 => fs_base(params, sqe).map(Request::SetFsBase),
        EXIT_THREAD => exit_code(params, sqe).map(Request::Exit),
        LEAVE_SERVICE_CLASS => Ok(Request::LeaveServiceClass),
        _ => Err(Exception::unimplemented().into()),
    }
}

fn fs_base(params: &[u8], sqe: &CapSqe) -> Result<u64, Refusal> {
    let fs_base = match decode::root_u64(copied(params, sqe)) {
        Some(fs_base) => fs_base,
        None => message(params, sqe)?
            .get_root::<set_fs_base_params::Reader<'_>>()
            .map_err(malformed)?
            .get_fs_base(),
    };
    if is_user_address(fs_base) {
        Ok(fs_base)
    } else {
        Err(Exception::failed("FS base is no user address").into())
    }
}

fn exit_code(params: &[u8], sqe: &CapSqe) -> Result<i64, Refusal> {
    match decode::root_u64(copied(params, sqe)) {
        Some(code) => Ok(code as i64),
        None => Ok(message(params, sqe)?
            .get_root::<exit_thread_params::Reader<'_>>()
            .map_err(malformed)?
            .get_code()),
    }
}

/// The result of `getFsBase`.
pub(crate) fn emit_fs_base(out: &mut [u8], fs_base: u64) -> Result<usize, NoRoom> {
    let size = <get_fs_base_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u64(root, 0, fs_base)?;
    message.finish()
}
