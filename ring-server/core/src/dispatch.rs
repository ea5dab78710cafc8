//! Dispatch of one submission that passed the wire rules.
//!
//! Order of checks for CALL, which decides what a client sees when several
//! things are wrong: capability (−4), descriptors on a target that takes none
//! (−6), params range (−2), result range (−3), revocation, method, params.

use capnp::Word;
use capos_config::ring::{
    CAP_ERR_APPLICATION_EXCEPTION, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED,
    CAP_ERR_INVALID_PARAMS_BUFFER, CAP_ERR_INVALID_REQUEST, CAP_ERR_INVALID_RESULT_BUFFER,
    CAP_ERR_INVOKE_FAILED, CAP_ERR_TRANSFER_NOT_SUPPORTED, CAP_OP_CALL, CAP_OP_CANCEL, CAP_OP_PARK,
    CAP_OP_RECV, CAP_OP_RELEASE, CAP_OP_RETURN, CAP_OP_UNPARK, CapCqe, CapSqe,
};

use crate::cap_table::{CapId, CapTable, Hold};
use crate::endpoint::ResultBuffer;
use crate::exception::{EXCEPTION_BYTES_MAX, Exception};
use crate::ids::{Pid, ThreadRef};
use crate::kernel::pipe::End;
use crate::kernel::{self, Context, MethodResult, Refusal, Reply};
use crate::machine::Machine;
use crate::objects::Object;
use crate::process::Process;
use crate::rendezvous::result_of;
use crate::ring::completion;
use crate::server::{ProcessSlot, Server};

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
    /// The thread is gone, without a completion; with the last thread its
    /// process, which ended with this code.
    Ended(Option<i64>),
}

impl Outcome {
    pub(crate) fn code(sqe: &CapSqe, code: i32) -> Self {
        Self::Complete(completion(sqe.user_data, code))
    }
}

impl<M: Machine> Server<M> {
    /// Dispatches a submission other than NOP.
    #[inline(never)]
    pub(crate) fn dispatch(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Outcome {
        match sqe.opcode {
            CAP_OP_CALL => self.call(machine, caller, sqe),
            CAP_OP_RELEASE => self.release(machine, caller, sqe),
            CAP_OP_RECV => self.recv(machine, caller, sqe),
            CAP_OP_RETURN => self.ret(machine, caller, sqe),
            CAP_OP_CANCEL => self.cancel(machine, caller, sqe),
            CAP_OP_PARK => self.park(machine, caller, sqe),
            CAP_OP_UNPARK => self.unpark(machine, caller, sqe),
            _ => Outcome::code(sqe, CAP_ERR_INVALID_REQUEST),
        }
    }

    /// RELEASE: drops the caller's own slot.
    fn release(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Outcome {
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Outcome::Pending;
        };
        match process.caps.remove(CapId::from_raw(sqe.cap_id)) {
            Ok(hold) => {
                let object = self.objects.get(hold.object);
                self.release_hold(hold);
                if let Some(Object::EndpointOwner(index)) = object {
                    self.leave_endpoint(machine, caller.thread.pid, hold.object, index);
                }
                self.settle_terminal(machine, caller.thread.pid, hold.object);
                Outcome::code(sqe, 0)
            }
            Err(_) => Outcome::code(sqe, CAP_ERR_INVALID_REQUEST),
        }
    }

    /// CALL: finds the target, checks the buffers, runs the method.
    fn call(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Outcome {
        let (hold, object, revoked) = match self.call_target(caller, sqe) {
            Ok(target) => target,
            Err(code) => return Outcome::code(sqe, code),
        };
        if revoked {
            let exception = Exception::disconnected("capability revoked");
            let code = self.raise_to(machine, caller.thread.pid, result_of(sqe), exception);
            return Outcome::code(sqe, code);
        }
        match object {
            Object::Console
            | Object::Timer
            | Object::BootPackage
            | Object::WallClock
            | Object::EntropySource => self.call_kernel(machine, caller, sqe, object),
            Object::EndpointOwner(index) | Object::EndpointClient(index) => {
                self.call_endpoint(machine, caller, sqe, &hold, index)
            }
            _ => self.call_kept(machine, caller, sqe, &hold, object),
        }
    }

    /// CALL to an object that is a record of this server. Kept apart from the
    /// frequent ones, which would pay for its registers.
    #[inline(never)]
    fn call_kept(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        hold: &Hold,
        object: Object,
    ) -> Outcome {
        if object.needs_live_session()
            && let Err(exception) = self.check_live_session(machine, caller)
        {
            return self.refuse(machine, caller, sqe, exception.into());
        }
        match object {
            Object::CapabilityManager(pid) => self.call_manager(machine, caller, sqe, pid),
            Object::ProcessSpawner => self.call_spawner(machine, caller, sqe),
            Object::TerminalSession => self.call_terminal(machine, caller, sqe),
            Object::ProcessHandle(index) => self.call_handle(machine, caller, sqe, index),
            Object::VirtualMemory => self.call_virtual_memory(machine, caller, sqe),
            Object::FrameAllocator => self.call_frame_allocator(machine, caller, sqe),
            Object::MemoryObject(index) => self.call_memory_object(machine, caller, sqe, index),
            Object::ThreadControl => self.call_thread_control(machine, caller, sqe),
            Object::ThreadSpawner => self.call_thread_spawner(machine, caller, sqe),
            Object::ThreadHandle(index) => self.call_thread_handle(machine, caller, sqe, index),
            Object::Notification(index) => {
                self.call_notification(machine, caller, sqe, hold, index)
            }
            Object::SessionMint => self.call_mint(machine, caller, sqe),
            Object::UserSession(index) => self.call_user_session(machine, caller, sqe, index),
            Object::RestrictedLauncher(index) => self.call_launcher(machine, caller, sqe, index),
            Object::PipeRead(index) => self.call_pipe(machine, caller, sqe, index, End::Read),
            Object::PipeWrite(index) => self.call_pipe(machine, caller, sqe, index, End::Write),
            _ => self.call_kernel(machine, caller, sqe, object),
        }
    }

    /// The target of a CALL whose buffers are good, and whether its hold is
    /// revoked.
    #[inline]
    fn call_target(&self, caller: Caller, sqe: &CapSqe) -> Result<(Hold, Object, bool), i32> {
        let process = self.processes[caller.slot]
            .as_deref()
            .ok_or(CAP_ERR_INVOKE_FAILED)?;
        let hold = process
            .caps
            .peek(CapId::from_raw(sqe.cap_id))
            .map_err(|_| CAP_ERR_INVOKE_FAILED)?;
        let object = self.objects.get(hold.object).ok_or(CAP_ERR_INVOKE_FAILED)?;
        if sqe.xfer_cap_count != 0 && !object.is_endpoint() {
            return Err(CAP_ERR_TRANSFER_NOT_SUPPORTED);
        }
        check_buffers(process, sqe)?;
        let revoked = !self.objects.is_current(hold.epoch, hold.observed_epoch);
        Ok((*hold, object, revoked))
    }

    /// CALL to an object without state of its own, or without methods.
    #[inline]
    fn call_kernel(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        object: Object,
    ) -> Outcome {
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Outcome::code(sqe, CAP_ERR_INVOKE_FAILED);
        };
        let mut context = Context {
            machine,
            process,
            slot: caller.slot,
            deadlines: &mut self.deadlines,
            params: Word::words_to_bytes_mut(&mut self.params),
            reply: Word::words_to_bytes_mut(&mut self.reply),
            sqe,
        };
        let result = match object {
            Object::Console => kernel::console::call(&mut context),
            Object::Timer => kernel::timer::call(&mut context),
            Object::BootPackage => kernel::boot_package::call(&mut context),
            Object::WallClock => kernel::wall_clock::call(&mut context),
            Object::EntropySource => kernel::entropy::call(&mut context),
            _ => Err(Exception::unimplemented().into()),
        };
        finish(context, result)
    }

    /// CALL to the manager of the process `pid`.
    fn call_manager(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe, pid: Pid) -> Outcome {
        let managed = (pid != caller.thread.pid).then_some(pid);
        let Some((process, other)) = two_processes(&mut *self.processes, caller.slot, managed)
        else {
            return Outcome::code(sqe, CAP_ERR_INVOKE_FAILED);
        };
        let mut context = Context {
            machine,
            process,
            slot: caller.slot,
            deadlines: &mut self.deadlines,
            params: Word::words_to_bytes_mut(&mut self.params),
            reply: Word::words_to_bytes_mut(&mut self.reply),
            sqe,
        };
        let mut revoked = None;
        let result = if managed.is_some() && other.is_none() {
            Err(Exception::disconnected("process ended").into())
        } else {
            let objects = &mut self.objects;
            kernel::capability_manager::call(&mut context, objects, other, &mut revoked)
        };
        let outcome = finish(context, result);
        if let Some(id) = revoked {
            self.settle_revocation(machine, id);
        }
        outcome
    }
}

/// The calling process, and the table of another live one.
fn two_processes<R>(
    processes: &mut [ProcessSlot<R>],
    slot: usize,
    other: Option<Pid>,
) -> Option<(&mut Process<R>, Option<&CapTable>)> {
    let Some(pid) = other.filter(|pid| pid.slot() != slot) else {
        return Some((processes.get_mut(slot)?.as_deref_mut()?, None));
    };
    let [caller, managed] = processes.get_disjoint_mut([slot, pid.slot()]).ok()?;
    let managed = managed.as_deref().filter(|process| process.pid == pid);
    Some((caller.as_deref_mut()?, managed.map(|process| &process.caps)))
}

/// Checks the client's ranges and lengths; answers the transport error.
fn check_buffers<R>(process: &Process<R>, sqe: &CapSqe) -> Result<(), i32> {
    let scratch = process.limits.ring_scratch_bytes;
    if sqe.len > scratch || !process.space.is_readable(sqe.addr, sqe.len.into()) {
        return Err(CAP_ERR_INVALID_PARAMS_BUFFER);
    }
    let (addr, len) = (sqe.result_addr, sqe.result_len);
    if len > scratch || !process.space.is_writable(addr, len.into()) {
        return Err(CAP_ERR_INVALID_RESULT_BUFFER);
    }
    Ok(())
}

/// Turns what a method came to into a completion, writing its result.
#[inline]
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
            Outcome::code(sqe, raise(machine, process, result_of(sqe), exception))
        }
        Ok(Reply::Bytes(len)) => {
            let written = machine.write(process.pid, sqe.result_addr, &reply[..len]);
            let code = written.map_or(CAP_ERR_INVALID_RESULT_BUFFER, |()| len as i32);
            Outcome::code(sqe, code)
        }
        Err(Refusal::Transport(code)) => Outcome::code(sqe, code),
        Err(Refusal::Exception(exception)) => {
            Outcome::code(sqe, raise(machine, process, result_of(sqe), exception))
        }
    }
}

/// Writes an exception to the start of a result buffer, whole or not at all;
/// returns the completion code.
#[cold]
pub(crate) fn raise<M: Machine>(
    machine: &mut M,
    process: &Process<M::Ring>,
    result: ResultBuffer,
    exception: Exception,
) -> i32 {
    let mut bytes = [0; EXCEPTION_BYTES_MAX];
    let room = result.len.min(process.limits.reply_scratch_bytes) as usize;
    let len = match exception.emit(&mut bytes) {
        Ok(len) if len <= room => len,
        _ => return CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED,
    };
    let writable = process.space.is_writable(result.addr, len as u64);
    if writable
        && machine
            .write(process.pid, result.addr, &bytes[..len])
            .is_ok()
    {
        CAP_ERR_APPLICATION_EXCEPTION
    } else {
        CAP_ERR_INVALID_RESULT_BUFFER
    }
}
