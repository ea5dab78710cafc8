//! `EntropySource`: random bytes, or none at all.
//!
//! A request beyond [`ENTROPY_BYTES_MAX`] is `unavailable`, and so is any
//! request while the machine's generator fails: weak bytes are never given.

use capnp::traits::HasStructSize;
use capos_config::capos_capnp::EntropyStatus;
use capos_config::capos_capnp::entropy_source::{fill_params, fill_results};

use super::{Context, MethodResult, Reply, copied, malformed, message};
use crate::decode;
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::limits::ENTROPY_BYTES_MAX;
use crate::machine::Machine;

const FILL: u16 = 0;

pub(crate) fn call<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    match context.sqe.method_id {
        FILL => fill(context),
        _ => Err(Exception::unimplemented().into()),
    }
}

fn fill<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    context.fetch_params()?;
    let wanted = match decode::root_u64(copied(context.params, context.sqe)) {
        Some(word) => word as u32,
        None => message(context.params, context.sqe)?
            .get_root::<fill_params::Reader<'_>>()
            .map_err(malformed)?
            .get_bytes(),
    };
    let mut bytes = [0; ENTROPY_BYTES_MAX as usize];
    let filled = bytes
        .get_mut(..wanted as usize)
        .and_then(|out| context.machine.entropy(out).then_some(&*out));
    emit(context.reply, filled)
        .map(Reply::Bytes)
        .map_err(|NoRoom| Exception::overloaded("reply scratch exhausted").into())
}

fn emit(out: &mut [u8], filled: Option<&[u8]>) -> Result<usize, NoRoom> {
    let size = <fill_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let status = match filled {
        Some(_) => EntropyStatus::Ok,
        None => EntropyStatus::Unavailable,
    };
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u16(root, 0, status.into())?;
    message.set_bytes_field(root, 0, filled.unwrap_or_default())?;
    message.finish()
}
