//! `Timer`: monotonic time and sleeping.

use capnp::traits::HasStructSize;
use capos_config::capos_capnp::timer::{now_results, sleep_params};

use super::{Context, MethodResult, Reply, copied, malformed, message};
use crate::decode;
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::machine::Machine;
use crate::process::{self, TimerUse};

const NOW: u16 = 0;
const SLEEP: u16 = 1;

/// Length of a scheduler tick in nanoseconds, as `Timer.now` counts them; equal
/// to `capos_lib::clockevent::TICK_NS` (asserted in tests).
pub const TICK_NS: u64 = 10_000_000;

pub(crate) fn call<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    match context.sqe.method_id {
        NOW => now(context),
        SLEEP => sleep(context),
        _ => Err(Exception::unimplemented().into()),
    }
}

fn now<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    let monotonic_ns = context.machine.now_ns();
    emit_now(context.reply, monotonic_ns)
        .map(Reply::Bytes)
        .map_err(|NoRoom| Exception::overloaded("reply scratch exhausted").into())
}

fn emit_now(out: &mut [u8], monotonic_ns: u64) -> Result<usize, NoRoom> {
    let size = <now_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u64(root, 0, monotonic_ns)?;
    message.set_u64(root, 1, monotonic_ns / TICK_NS)?;
    message.finish()
}

/// Completes after at least `durationNs`; at once if that is zero.
fn sleep<M: Machine>(context: &mut Context<'_, M>) -> MethodResult {
    context.fetch_params()?;
    let duration_ns = match decode::root_u64(copied(context.params, context.sqe)) {
        Some(duration_ns) => duration_ns,
        None => message(context.params, context.sqe)?
            .get_root::<sleep_params::Reader<'_>>()
            .map_err(malformed)?
            .get_duration_ns(),
    };
    if duration_ns == 0 {
        return Ok(Reply::Bytes(0));
    }
    let process = &mut *context.process;
    let quota = process.limits.sleeps as usize;
    let free = process.sleeps.iter().position(Option::is_none);
    let index = free
        .filter(|&index| index < quota)
        .ok_or(Exception::overloaded("too many concurrent sleeps"))?;
    process.begin_outstanding()?;
    process.sleeps[index] = Some(context.sqe.user_data);
    let due = context.machine.now_ns().saturating_add(duration_ns);
    let timer = process::timer(context.slot, TimerUse::Sleep(index));
    context.deadlines.arm(timer, due);
    Ok(Reply::Pending)
}
