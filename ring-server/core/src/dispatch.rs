//! Dispatch of one submission that passed the wire rules.
//!
//! Order of checks for CALL, which decides what a client sees when several
//! things are wrong: capability (−4), descriptors on a target that takes none
//! (−6), params range (−2), result range (−3), revocation, method, params.

use capnp::Word;
use capos_config::ring::{
    CAP_ERR_APPLICATION_EXCEPTION, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED,
    CAP_ERR_INVALID_PARAMS_BUFFER, CAP_ERR_INVALID_REQUEST, CAP_ERR_INVALID_RESULT_BUFFER,
    CAP_ERR_INVOKE_FAILED, CAP_ERR_TRANSFER_NOT_SUPPORTED, CAP_OP_CALL, CAP_OP_CANCEL, CAP_OP_RECV,
    CAP_OP_RELEASE, CAP_OP_RETURN, CapCqe, CapSqe,
};

use crate::cap_table::{CapError, CapId};
use crate::exception::{EXCEPTION_BYTES_MAX, Exception};
use crate::ids::ThreadRef;
use crate::kernel::{self, Context, MethodResult, Refusal, Reply};
use crate::machine::Machine;
use crate::objects::Object;
use crate::process::Process;
use crate::ring::completion;
use crate::server::Server;

/// Who submitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) slot: usize,
    pub(crate) thread: ThreadRef,
}

/// What dispatching a submission came to.
pub(crate) enum Outcome {
    /// Post this completion.
    Complete(CapCqe),
    /// The completion comes later.
    Pending,
    /// The completion comes later and the thread stays stopped until then.
    Parked,
}

impl Outcome {
    fn code(sqe: &CapSqe, code: i32) -> Self {
        Self::Complete(completion(sqe.user_data, code))
    }
}

impl<M: Machine> Server<M> {
    /// Dispatches a submission other than NOP.
    #[inline(never)]
    pub(crate) fn dispatch(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Outcome {
        match sqe.opcode {
            CAP_OP_CALL => self.call(machine, caller, sqe),
            CAP_OP_RELEASE => self.release(caller, sqe),
            CAP_OP_RECV | CAP_OP_RETURN | CAP_OP_CANCEL => {
                Outcome::code(sqe, CAP_ERR_INVOKE_FAILED)
            }
            _ => Outcome::code(sqe, CAP_ERR_INVALID_REQUEST),
        }
    }

    /// RELEASE: drops the caller's own slot.
    fn release(&mut self, caller: Caller, sqe: &CapSqe) -> Outcome {
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Outcome::Pending;
        };
        match process.caps.remove(CapId::from_raw(sqe.cap_id)) {
            Ok(hold) => {
                self.objects.release(hold.object, hold.epoch);
                Outcome::code(sqe, 0)
            }
            Err(_) => Outcome::code(sqe, CAP_ERR_INVALID_REQUEST),
        }
    }

    /// CALL: finds the target, checks the buffers, runs the method.
    fn call(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Outcome {
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Outcome::Pending;
        };
        let id = CapId::from_raw(sqe.cap_id);
        let (hold, revoked) = match process.caps.lookup(id, &self.objects) {
            Ok(hold) => (hold, false),
            Err(CapError::Revoked) => match process.caps.peek(id) {
                Ok(hold) => (hold, true),
                Err(_) => return Outcome::code(sqe, CAP_ERR_INVOKE_FAILED),
            },
            Err(_) => return Outcome::code(sqe, CAP_ERR_INVOKE_FAILED),
        };
        let Some(object) = self.objects.get(hold.object) else {
            return Outcome::code(sqe, CAP_ERR_INVOKE_FAILED);
        };
        if sqe.xfer_cap_count != 0 && !object.is_endpoint() {
            return Outcome::code(sqe, CAP_ERR_TRANSFER_NOT_SUPPORTED);
        }
        if let Err(code) = check_buffers(process, sqe) {
            return Outcome::code(sqe, code);
        }
        let mut context = Context {
            machine,
            process,
            slot: caller.slot,
            deadlines: &mut self.deadlines,
            params: Word::words_to_bytes_mut(&mut self.params),
            reply: Word::words_to_bytes_mut(&mut self.reply),
            sqe,
        };
        let result = if revoked {
            Err(Exception::disconnected("capability revoked").into())
        } else {
            invoke(object, &mut context)
        };
        finish(context, result)
    }
}

/// Runs the method of a kernel object.
fn invoke<M: Machine>(object: Object, context: &mut Context<'_, M>) -> MethodResult {
    match object {
        Object::Console => kernel::console::call(context),
        Object::Timer => kernel::timer::call(context),
        Object::ParkSpace | Object::CapabilityManager(_) => Err(Exception::unimplemented().into()),
        Object::EndpointOwner(_) | Object::EndpointClient(_) => {
            Err(Exception::unimplemented().into())
        }
    }
}

/// Checks the client's ranges and lengths; answers the transport error.
fn check_buffers<R>(process: &Process<R>, sqe: &CapSqe) -> Result<(), i32> {
    let scratch = process.limits.ring_scratch_bytes;
    if sqe.len > scratch || !process.space.can_read(sqe.addr, sqe.len.into()) {
        return Err(CAP_ERR_INVALID_PARAMS_BUFFER);
    }
    let (addr, len) = (sqe.result_addr, sqe.result_len);
    if len > scratch || !process.space.can_write(addr, len.into()) {
        return Err(CAP_ERR_INVALID_RESULT_BUFFER);
    }
    Ok(())
}

/// Turns what a method came to into a completion, writing its result.
fn finish<M: Machine>(context: Context<'_, M>, result: MethodResult) -> Outcome {
    let Context {
        machine,
        process,
        reply,
        sqe,
        ..
    } = context;
    match result {
        Ok(Reply::Pending) => Outcome::Pending,
        Ok(Reply::Bytes(0)) => Outcome::code(sqe, 0),
        Ok(Reply::Bytes(len)) if len > sqe.result_len as usize => {
            let exception = Exception::overloaded("result buffer too small");
            Outcome::code(sqe, raise(machine, process, sqe, exception))
        }
        Ok(Reply::Bytes(len)) => {
            let written = machine.write(process.pid, sqe.result_addr, &reply[..len]);
            let code = written.map_or(CAP_ERR_INVALID_RESULT_BUFFER, |()| len as i32);
            Outcome::code(sqe, code)
        }
        Err(Refusal::Transport(code)) => Outcome::code(sqe, code),
        Err(Refusal::Exception(exception)) => {
            Outcome::code(sqe, raise(machine, process, sqe, exception))
        }
    }
}

/// Writes an exception to the start of the result buffer, whole or not at all;
/// returns the completion code.
#[cold]
pub(crate) fn raise<M: Machine>(
    machine: &mut M,
    process: &Process<M::Ring>,
    sqe: &CapSqe,
    exception: Exception,
) -> i32 {
    let mut bytes = [0; EXCEPTION_BYTES_MAX];
    let room = sqe.result_len.min(process.limits.reply_scratch_bytes) as usize;
    match exception.emit(&mut bytes) {
        Ok(len) if len <= room => machine
            .write(process.pid, sqe.result_addr, &bytes[..len])
            .map_or(CAP_ERR_INVALID_RESULT_BUFFER, |()| {
                CAP_ERR_APPLICATION_EXCEPTION
            }),
        _ => CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED,
    }
}
