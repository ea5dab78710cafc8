//! `Console`: bytes to the system console. Results are 0 bytes long.

use capos_config::capos_capnp::console::{write_line_params, write_params};

use super::{Context, MethodResult, Reply, copied, malformed, message};
use crate::decode;
use crate::exception::Exception;
use crate::machine::Machine;

const WRITE: u16 = 0;
const WRITE_LINE: u16 = 1;

pub(crate) fn call<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    match context.sqe.method_id {
        WRITE => write(context),
        WRITE_LINE => write_line(context),
        _ => Err(Exception::unimplemented().into()),
    }
}

/// Emits `data` verbatim.
fn write<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    context.fetch_params()?;
    if let Some(data) = decode::root_data(copied(context.params, context.sqe)) {
        context.machine.console_write(data);
        return Ok(Reply::Bytes(0));
    }
    let message = message(context.params, context.sqe)?;
    let params = message
        .get_root::<write_params::Reader<'_>>()
        .map_err(malformed)?;
    let data = params.get_data().map_err(malformed)?;
    context.machine.console_write(data);
    Ok(Reply::Bytes(0))
}

/// Emits `text` and a newline.
fn write_line<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    context.fetch_params()?;
    if let Some(text) = decode::root_text(copied(context.params, context.sqe)) {
        emit_line(context.machine, text);
        return Ok(Reply::Bytes(0));
    }
    let message = message(context.params, context.sqe)?;
    let params = message
        .get_root::<write_line_params::Reader<'_>>()
        .map_err(malformed)?;
    let text = params.get_text().map_err(malformed)?;
    emit_line(context.machine, text.as_bytes());
    Ok(Reply::Bytes(0))
}

fn emit_line<M: Machine>(machine: &mut M, text: &[u8]) {
    machine.console_write(text);
    machine.console_write(b"\n");
}
