//! Calls that kernel objects answer later.

use capnp::Word;
use capos_config::ring::{CAP_ERR_INVALID_PARAMS_BUFFER, CAP_ERR_INVALID_RESULT_BUFFER, CapSqe};

use crate::dispatch::Caller;
use crate::endpoint::ResultBuffer;
use crate::exception::Exception;
use crate::ids::{Pid, ThreadRef};
use crate::kernel::Refusal;
use crate::machine::Machine;
use crate::rendezvous::result_of;
use crate::ring::completion;
use crate::server::Server;

/// A call whose completion comes later. Its process is charged one outstanding
/// operation for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) thread: ThreadRef,
    pub(crate) user_data: u64,
    pub(crate) result: ResultBuffer,
}

impl Waiting {
    /// The call that `sqe` makes.
    pub(crate) const fn new(caller: Caller, sqe: &CapSqe) -> Self {
        Self {
            thread: caller.thread,
            user_data: sqe.user_data,
            result: result_of(sqe),
        }
    }
}

impl<M: Machine> Server<M> {
    /// Copies the params of a call into scratch, once.
    pub(crate) fn fetch(
        &mut self,
        machine: &mut M,
        pid: Pid,
        (addr, len): (u64, u32),
    ) -> Result<(), Refusal> {
        let fault = Refusal::Transport(CAP_ERR_INVALID_PARAMS_BUFFER);
        let scratch = Word::words_to_bytes_mut(&mut self.params);
        let out = scratch.get_mut(..len as usize).ok_or(fault)?;
        machine.read(pid, addr, out).map_err(|_| fault)
    }

    /// Writes a result, whole or not at all; returns the completion code. The
    /// call may be older than its process's present memory map.
    pub(crate) fn write_result(&mut self, machine: &mut M, call: &Waiting, bytes: &[u8]) -> i32 {
        let (pid, result) = (call.thread.pid, call.result);
        if bytes.len() > result.len as usize {
            let exception = Exception::overloaded("result buffer too small");
            return self.raise_to(machine, pid, result, exception);
        }
        let space = self.process(pid).map(|process| &process.space);
        if !space.is_some_and(|space| space.is_writable(result.addr, bytes.len() as u64)) {
            return CAP_ERR_INVALID_RESULT_BUFFER;
        }
        machine
            .write(pid, result.addr, bytes)
            .map_or(CAP_ERR_INVALID_RESULT_BUFFER, |()| bytes.len() as i32)
    }

    /// Completes a call that waited.
    pub(crate) fn finish_waiting(&mut self, machine: &mut M, call: &Waiting, code: i32) {
        self.complete_caller(machine, call.thread, &completion(call.user_data, code));
    }

    /// Completes a call that waited with an exception.
    pub(crate) fn fail_waiting(&mut self, machine: &mut M, call: &Waiting, exception: Exception) {
        let code = self.raise_to(machine, call.thread.pid, call.result, exception);
        self.finish_waiting(machine, call, code);
    }
}
