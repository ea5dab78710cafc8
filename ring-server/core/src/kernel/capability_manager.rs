//! `CapabilityManager`: lists and revokes what one process holds.

use capnp::traits::HasStructSize;
use capos_config::capos_capnp::capability_info;
use capos_config::capos_capnp::capability_manager::{list_results, revoke_params, revoke_results};

use super::{Context, MethodResult, Reply, malformed, message};
use crate::cap_table::{CapId, CapTable};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::machine::Machine;
use crate::objects::{ObjectId, Objects};

const LIST: u16 = 0;
const REVOKE: u16 = 1;

/// Runs a method on the table of the managed process, which the dispatcher
/// lends; `None` if that is the caller itself. Says which object's holds were
/// `revoked`.
pub(crate) fn call<M: Machine>(
    context: &mut Context<'_, M>,
    objects: &mut Objects,
    managed: Option<&CapTable>,
    revoked: &mut Option<ObjectId>,
) -> MethodResult {
    let method = context.sqe.method_id;
    if method > REVOKE {
        return Err(Exception::unimplemented().into());
    }
    let table = managed.unwrap_or(&context.process.caps);
    if method == LIST {
        return emit_list(context.reply, table, objects)
            .map(Reply::Bytes)
            .map_err(|NoRoom| Exception::overloaded("list does not fit").into());
    }
    context.fetch_params()?;
    let message = message(context.params, context.sqe)?;
    let id = message
        .get_root::<revoke_params::Reader<'_>>()
        .map_err(malformed)?
        .get_cap_id();
    let table = managed.unwrap_or(&context.process.caps);
    *revoked = Some(revoke(table, objects, CapId::from_raw(id))?);
    emit_empty(context.reply)
        .map(Reply::Bytes)
        .map_err(|NoRoom| Exception::overloaded("reply scratch exhausted").into())
}

/// Advances each epoch cell through which the table holds the object that
/// `id` names, once.
fn revoke(table: &CapTable, objects: &mut Objects, id: CapId) -> Result<ObjectId, Exception> {
    let target = *table
        .lookup(id, objects)
        .map_err(|_| Exception::invalid_argument("no such capability"))?;
    // Most holds of an object share its cell, and are not current after this.
    objects.bump_epoch(target.epoch);
    for (_, hold) in table.iter() {
        let other = hold.object == target.object && hold.epoch != target.epoch;
        if other && objects.epoch(hold.epoch) == Some(hold.observed_epoch) {
            objects.bump_epoch(hold.epoch);
        }
    }
    Ok(target.object)
}

fn emit_list(out: &mut [u8], table: &CapTable, objects: &Objects) -> Result<usize, NoRoom> {
    let size = <list_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let row_size = <capability_info::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    let rows = message.set_list(root, 0, table.used() as usize, row_size)?;
    for (index, (id, hold)) in table.iter().enumerate() {
        let row = rows.element(index);
        let label = objects.get(hold.object).map_or("", |object| object.label());
        message.set_u32(row, 0, id.raw())?;
        message.set_u64(row, 1, hold.interface_id)?;
        message.set_text(row, 0, label)?;
    }
    message.finish()
}

fn emit_empty(out: &mut [u8]) -> Result<usize, NoRoom> {
    let size = <revoke_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (message, _) = Emitter::new(out, size)?;
    message.finish()
}
