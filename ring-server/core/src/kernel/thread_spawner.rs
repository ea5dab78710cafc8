//! `ThreadSpawner`: another thread in the calling process.

use capnp::Word;
use capnp::traits::HasStructSize;
use capos_config::capos_capnp::thread_spawner::{create_params, create_results};
use capos_config::ring::CapSqe;

use super::{Refusal, malformed, message};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::machine::ThreadEntry;
use crate::threads::{USER_CANONICAL_END, is_user_address};

/// What the x86-64 calling convention asks of a stack before a call.
const STACK_ALIGNMENT: u64 = 16;
/// A message of one word of data: table, pointer, data.
pub(crate) const CREATE_RESULT_BYTES: usize = 3 * size_of::<Word>();

/// Decodes a call whose params are in `params`, and checks every field. Whether
/// there is memory behind the addresses, the thread finds out itself.
pub(crate) fn decode(params: &[u8], sqe: &CapSqe) -> Result<ThreadEntry, Refusal> {
    if sqe.method_id != 0 {
        return Err(Exception::unimplemented().into());
    }
    let message = message(params, sqe)?;
    let request = message
        .get_root::<create_params::Reader<'_>>()
        .map_err(malformed)?;
    let entry = ThreadEntry {
        entry: request.get_entry(),
        stack_top: request.get_stack_top(),
        arg: request.get_arg(),
        fs_base: request.get_fs_base(),
    };
    check(&entry, request.get_flags())?;
    Ok(entry)
}

/// Entry, stack, FS base and flags, in this order.
fn check(entry: &ThreadEntry, flags: u64) -> Result<(), Exception> {
    if entry.entry == 0 || !is_user_address(entry.entry) {
        return Err(Exception::failed("entry is no user address"));
    }
    let top = entry.stack_top;
    if top == 0 || top > USER_CANONICAL_END || !top.is_multiple_of(STACK_ALIGNMENT) {
        return Err(Exception::failed("stack top is no aligned user address"));
    }
    if !is_user_address(entry.fs_base) {
        return Err(Exception::failed("FS base is no user address"));
    }
    if flags != 0 {
        return Err(Exception::failed("unknown flags"));
    }
    Ok(())
}

/// The result: the handle is the only result capability.
pub(crate) fn emit_created(out: &mut [u8]) -> Result<usize, NoRoom> {
    let size = <create_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u16(root, 0, 0)?;
    message.finish()
}
