//! `SchedulingPolicyCap`: what is asked for, decoded and checked, and what is
//! answered.

use capnp::traits::HasStructSize;
use capos_abi::scheduler::{MAX_WEIGHT, MIN_WEIGHT};
use capos_config::capos_capnp::LatencyClass;
use capos_config::capos_capnp::scheduling_policy_cap::{
    set_latency_class_params, set_latency_class_results, set_weight_params, set_weight_results,
    snapshot_results,
};
use capos_config::ring::CapSqe;

use super::{Refusal, malformed, message};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;

/// What is asked of the calling thread.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// Take turns of another length.
    SetWeight(u16),
    /// Note how urgent it calls itself.
    SetLatencyClass(LatencyClass),
    /// Tell what it had.
    Snapshot,
}

/// Decodes a call whose params are in `params`.
pub(crate) fn decode(params: &[u8], sqe: &CapSqe) -> Result<Request, Refusal> {
    match sqe.method_id {
        0 => weight(params, sqe),
        1 => latency_class(params, sqe),
        2 => Ok(Request::Snapshot),
        _ => Err(Exception::unimplemented().into()),
    }
}

fn weight(params: &[u8], sqe: &CapSqe) -> Result<Request, Refusal> {
    let message = message(params, sqe)?;
    let root: set_weight_params::Reader<'_> = message.get_root().map_err(malformed)?;
    match root.get_weight() {
        weight @ MIN_WEIGHT..=MAX_WEIGHT => Ok(Request::SetWeight(weight)),
        _ => Err(Exception::invalid_argument("a weight is 1 to 1024").into()),
    }
}

fn latency_class(params: &[u8], sqe: &CapSqe) -> Result<Request, Refusal> {
    let message = message(params, sqe)?;
    let root: set_latency_class_params::Reader<'_> = message.get_root().map_err(malformed)?;
    let class = root.get_class();
    let class = class.map_err(|_| Exception::invalid_argument("latency class"))?;
    Ok(Request::SetLatencyClass(class))
}

/// What a thread is and had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    pub(crate) weight: u16,
    pub(crate) class: LatencyClass,
    pub(crate) runtime_ns: u64,
    pub(crate) virtual_runtime_ns: u64,
    pub(crate) voluntary_blocks: u64,
    pub(crate) preemptions: u64,
}

/// The result of `snapshot`. How long a thread was ready and did not run, the
/// kernel does not tell: that field stays 0.
pub(crate) fn emit_snapshot(out: &mut [u8], snapshot: &Snapshot) -> Result<usize, NoRoom> {
    let size = <snapshot_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u16(root, 0, snapshot.weight)?;
    message.set_u16(root, 1, snapshot.class.into())?;
    message.set_u64(root, 1, snapshot.runtime_ns)?;
    message.set_u64(root, 2, snapshot.virtual_runtime_ns)?;
    message.set_u64(root, 3, snapshot.voluntary_blocks)?;
    message.set_u64(root, 4, snapshot.preemptions)?;
    message.finish()
}

/// The result of the methods that set something: a message, though there is
/// nothing in it.
pub(crate) fn emit_set(out: &mut [u8], request: Request) -> Result<usize, NoRoom> {
    let size = match request {
        Request::SetWeight(_) => <set_weight_results::Builder<'_> as HasStructSize>::STRUCT_SIZE,
        _ => <set_latency_class_results::Builder<'_> as HasStructSize>::STRUCT_SIZE,
    };
    let (message, _) = Emitter::new(out, size)?;
    message.finish()
}
