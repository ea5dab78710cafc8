//! `BootPackage`: the boot manifest, in pieces.

use capnp::traits::HasStructSize;
use capos_config::capos_capnp::boot_package::{
    manifest_size_results, read_manifest_params, read_manifest_results,
};

use super::{Context, MethodResult, Reply, malformed, message};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::machine::Machine;

const MANIFEST_SIZE: u16 = 0;
const READ_MANIFEST: u16 = 1;

/// Longest piece of one call, in bytes; what the published client asks for.
const PIECE_BYTES_MAX: usize = 4096;

pub(crate) fn call<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    match context.sqe.method_id {
        MANIFEST_SIZE => manifest_size(context),
        READ_MANIFEST => read_manifest(context),
        _ => Err(Exception::unimplemented().into()),
    }
}

fn no_room(_: NoRoom) -> super::Refusal {
    Exception::overloaded("reply scratch exhausted").into()
}

fn manifest_size<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    let size = <manifest_size_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let bytes = context.machine.boot_manifest().len() as u64;
    let (mut message, root) = Emitter::new(context.reply, size).map_err(no_room)?;
    message.set_u64(root, 0, bytes).map_err(no_room)?;
    message.finish().map(Reply::Bytes).map_err(no_room)
}

/// Up to `maxBytes` from `offset`; empty at and beyond the end.
fn read_manifest<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    context.fetch_params()?;
    let message = message(context.params, context.sqe)?;
    let params = message
        .get_root::<read_manifest_params::Reader<'_>>()
        .map_err(malformed)?;
    let (offset, wanted) = (params.get_offset(), params.get_max_bytes() as usize);
    let manifest = context.machine.boot_manifest();
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(manifest.len());
    let piece = &manifest[start..];
    let piece = &piece[..piece.len().min(wanted).min(PIECE_BYTES_MAX)];
    let size = <read_manifest_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(context.reply, size).map_err(no_room)?;
    message.set_bytes_field(root, 0, piece).map_err(no_room)?;
    message.finish().map(Reply::Bytes).map_err(no_room)
}
