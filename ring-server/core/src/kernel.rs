//! Kernel objects: interfaces the server implements itself.
//!
//! Each object is one module of one shape: `call` picks the method, and each
//! method decodes its params, decides, and acts. The method number is examined
//! before the params, because params may be empty for any method.
//!
//! What a method gets is checked before it runs: the params range is readable,
//! the result range is writable, both are within the process's limits.

pub(crate) mod boot_package;
pub(crate) mod capability_manager;
pub(crate) mod console;
pub(crate) mod entropy;
pub(crate) mod frame_allocator;
pub(crate) mod memory_object;
pub(crate) mod notification;
pub(crate) mod pipe;
pub(crate) mod session_mint;
pub(crate) mod terminal;
pub(crate) mod thread_control;
pub(crate) mod thread_handle;
pub(crate) mod thread_spawner;
pub(crate) mod timer;
pub(crate) mod user_session;
pub(crate) mod virtual_memory;
pub(crate) mod wall_clock;

use capnp::message::Reader;
use capnp::serialize::{NoAllocSliceSegments, read_message_from_flat_slice_no_alloc};
use capos_config::ring::{CAP_ERR_INVALID_PARAMS_BUFFER, CapSqe};

use crate::deadline::Deadlines;
use crate::exception::Exception;
use crate::machine::Machine;
use crate::process::Process;

/// What a method did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Completed; this many bytes of the reply buffer are the result.
    Bytes(usize),
    /// Will complete later.
    Pending,
}

/// What a method did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The client gets a structured exception.
    Exception(Exception),
    /// The client gets a transport error.
    Transport(i32),
}

impl From<Exception> for Refusal {
    fn from(exception: Exception) -> Self {
        Self::Exception(exception)
    }
}

pub(crate) type MethodResult = Result<Reply, Refusal>;

/// What a method may use.
pub(crate) struct Context<'a, M: Machine> {
    pub(crate) machine: &'a mut M,
    pub(crate) process: &'a mut Process<M::Ring>,
    pub(crate) slot: usize,
    pub(crate) deadlines: &'a mut Deadlines,
    pub(crate) params: &'a mut [u8],
    pub(crate) reply: &'a mut [u8],
    pub(crate) sqe: &'a CapSqe,
}

impl<M: Machine> Context<'_, M> {
    /// Copies the params in, once; every method works on the copy.
    #[inline]
    fn fetch_params(&mut self) -> Result<(), Refusal> {
        let fault = Refusal::Transport(CAP_ERR_INVALID_PARAMS_BUFFER);
        let len = self.sqe.len as usize;
        let out = self.params.get_mut(..len).ok_or(fault)?;
        self.machine
            .read(self.process.pid, self.sqe.addr, out)
            .map_err(|_| fault)
    }
}

/// The copied params of a submission as bytes.
#[inline]
fn copied<'a>(params: &'a [u8], sqe: &CapSqe) -> &'a [u8] {
    params.get(..sqe.len as usize).unwrap_or_default()
}

/// The copied params of a submission as a message.
fn message<'a>(
    params: &'a [u8],
    sqe: &CapSqe,
) -> Result<Reader<NoAllocSliceSegments<'a>>, Refusal> {
    let mut bytes = params
        .get(..sqe.len as usize)
        .ok_or(Refusal::Transport(CAP_ERR_INVALID_PARAMS_BUFFER))?;
    read_message_from_flat_slice_no_alloc(&mut bytes, capos_config::default_reader_options())
        .map_err(malformed)
}

/// Params that are not a message of the method's type.
#[cold]
pub(crate) fn malformed(_: capnp::Error) -> Refusal {
    Exception::invalid_argument("malformed params").into()
}
