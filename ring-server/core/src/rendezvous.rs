//! Calls between processes: CALL to an endpoint, RECV, RETURN, CANCEL, and
//! what becomes of calls when a side goes away.
//!
//! # Theory of operation
//! Every call enters the endpoint's queue with its params copied and its
//! transfers pinned; every receive enters the receive queue; then the two are
//! matched. A match delivers in one step: capabilities inserted, message
//! written, call in flight, receive completed, receiver resumed at once.
//!
//! A failed delivery is charged to whom it is due: a receive whose buffer does
//! not do is completed with an error and the call stays first in the queue; a
//! call whose capabilities cannot arrive is completed with an error and the
//! receive stays. The same holds for RETURN: what the server got wrong is its
//! own error and the call stays in flight; what the caller's buffer or quota
//! cannot take ends the call with an error for the caller.

use capnp::Word;
use capos_abi::EndpointCallerSession;
use capos_config::ring::{
    CAP_CQE_TRANSFER_RESULT_CAPS, CAP_ERR_APPLICATION_EXCEPTION,
    CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED, CAP_ERR_INVALID_PARAMS_BUFFER,
    CAP_ERR_INVALID_RESULT_BUFFER, CAP_ERR_INVOKE_FAILED, CAP_ERR_TRANSFER_ABORTED,
    CAP_ERR_TRANSFER_NOT_SUPPORTED, CAP_SQE_RETURN_APPLICATION_EXCEPTION, CapCqe, CapSqe,
    EndpointMessageHeader,
};
use core::mem::offset_of;

use crate::blocks::Chain;
use crate::cap_table::{CapId, Hold, HoldOrigin};
use crate::dispatch::{Caller, Outcome, raise};
use crate::endpoint::{Call, CallState, Recv, ResultBuffer};
use crate::exception::Exception;
use crate::ids::{Pid, ThreadRef};
use crate::kernel::pipe::End;
use crate::limits::CALL_SCRATCH_BYTES_MAX;
use crate::machine::{AccessFault, Machine};
use crate::objects::{Object, ObjectId};
use crate::process::Process;
use crate::ring::completion;
use crate::server::Server;
use crate::session;
use crate::transfer::{Descriptors, PinList, RECORD_BYTES_MAX};

const HEADER_BYTES: usize = size_of::<EndpointMessageHeader>();

/// Why a matched call was not delivered.
enum DeliveryError {
    /// The caller's capabilities cannot arrive: this is its completion.
    Call(i32),
    /// The receiver's buffer does not do.
    Recv,
}

/// Why a RETURN did not reach its caller.
enum ReturnError {
    /// The server gets this code; the call stays in flight.
    Server(i32),
    /// The caller gets this code and the call is over.
    Caller(i32),
    /// The caller gets this exception and the call is over.
    Raise(Exception),
}

impl<M: Machine> Server<M> {
    /// CALL whose target is an endpoint; the buffers were checked.
    pub(crate) fn call_endpoint(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        hold: &Hold,
        index: u32,
    ) -> Outcome {
        match self.admit_call(machine, caller, sqe, hold, index) {
            Ok(()) => {
                self.match_endpoint(machine, index);
                Outcome::Pending
            }
            Err(Refused::Transport(code)) => Outcome::code(sqe, code),
            Err(Refused::Raise(exception)) => {
                let pid = caller.thread.pid;
                Outcome::code(sqe, self.raise_to(machine, pid, result_of(sqe), exception))
            }
        }
    }

    /// Everything up to the call standing in the queue; nothing is kept if it
    /// fails.
    fn admit_call(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        hold: &Hold,
        index: u32,
    ) -> Result<(), Refused> {
        let scope_id = self.open_endpoint(index)?;
        let (session, described) = self.describe_caller(machine, caller, sqe, hold, scope_id)?;
        self.begin_call(caller, sqe)?;
        let admitted = self.pin_descriptors(machine, caller, sqe).and_then(|pins| {
            let call = Call {
                endpoint: index,
                state: CallState::Queued(Chain::EMPTY),
                caller: caller.thread,
                session,
                described,
                user_data: sqe.user_data,
                interface_id: hold.interface_id,
                method_id: sqe.method_id,
                badge: hold.badge,
                result: result_of(sqe),
                pins,
            };
            self.enqueue(machine, sqe, call).inspect_err(|_| {
                self.rollback_pins(pins, caller.thread.pid);
            })
        });
        if admitted.is_err()
            && let Some(process) = self.processes[caller.slot].as_deref_mut()
        {
            process.outstanding -= 1;
            process.call_bytes -= sqe.len;
        }
        admitted
    }

    /// Checks that the endpoint takes another call; returns its scope.
    fn open_endpoint(&self, index: u32) -> Result<u64, Refused> {
        let gone = Exception::disconnected("endpoint closed");
        let endpoint = self.endpoints.table.get(index).ok_or(gone)?;
        if endpoint.closed {
            return Err(gone.into());
        }
        if !endpoint.can_queue() {
            return Err(Exception::overloaded("endpoint queue full").into());
        }
        Ok(endpoint.scope_id)
    }

    fn describe_caller(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        hold: &Hold,
        scope_id: u64,
    ) -> Result<(session::SessionId, EndpointCallerSession), Refused> {
        let over = Exception::disconnected("session is not live");
        let process = self.process(caller.thread.pid).ok_or(over)?;
        let id = process.session;
        let session = self.sessions.table.get(id.0).ok_or(over)?;
        if !session.is_live(|| machine.now_ns()) {
            return Err(over.into());
        }
        let secret = self.secret.as_ref().ok_or(over)?;
        let reference = self.references.get(secret, scope_id, id, &session.info);
        let (request, scope) = (sqe.session_disclosure, hold.disclosure_scope);
        Ok((
            id,
            session::describe(&session.info, reference, request, scope),
        ))
    }

    /// Charges a call to its caller.
    fn begin_call(&mut self, caller: Caller, sqe: &CapSqe) -> Result<(), Refused> {
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Err(Refused::Transport(CAP_ERR_INVOKE_FAILED));
        };
        if process.call_bytes + sqe.len > CALL_SCRATCH_BYTES_MAX {
            return Err(Exception::overloaded("too many queued params").into());
        }
        process.begin_outstanding()?;
        process.call_bytes += sqe.len;
        Ok(())
    }

    fn pin_descriptors(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<PinList, Refused> {
        self.pin(machine, caller, sqe, HoldOrigin::IpcTransfer)
            .map_err(Refused::Transport)
    }

    fn pin(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        origin: HoldOrigin,
    ) -> Result<PinList, i32> {
        if sqe.xfer_cap_count == 0 {
            return Ok(PinList::EMPTY);
        }
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Err(CAP_ERR_INVOKE_FAILED);
        };
        let descriptors = Descriptors::load(machine, process, sqe)?;
        self.endpoints
            .pins
            .prepare(&descriptors, &mut process.caps, origin, &mut self.objects)
    }

    /// Copies the params and appends the call to its endpoint's queue.
    fn enqueue(&mut self, machine: &mut M, sqe: &CapSqe, call: Call) -> Result<(), Refused> {
        let pid = call.caller.pid;
        let stored = self.endpoints.blocks.store(sqe.len, |offset, block| {
            machine.read(pid, sqe.addr + offset as u64, block)
        });
        let chain = match stored {
            Ok(Some(chain)) => chain,
            Ok(None) => return Err(Exception::overloaded("message storage exhausted").into()),
            Err(AccessFault) => return Err(Refused::Transport(CAP_ERR_INVALID_PARAMS_BUFFER)),
        };
        let state = CallState::Queued(chain);
        let (index, endpoint) = (
            self.endpoints.insert_call(Call { state, ..call }),
            self.endpoints.table.get_mut(call.endpoint),
        );
        let (Some(index), Some(endpoint)) = (index, endpoint) else {
            self.endpoints.blocks.free(chain);
            return Err(Exception::overloaded("too many calls in the system").into());
        };
        endpoint.calls.push_back(index);
        Ok(())
    }

    /// RECV: waits for a call on an endpoint this process owns.
    pub(crate) fn recv(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Outcome {
        let Some(index) = self.owned_endpoint(caller, sqe.cap_id) else {
            return Outcome::code(sqe, CAP_ERR_INVOKE_FAILED);
        };
        if let Err(exception) = self.check_live_session(machine, caller) {
            let code = self.raise_to(machine, caller.thread.pid, result_of(sqe), exception);
            return Outcome::code(sqe, code);
        }
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Outcome::Pending;
        };
        let (addr, len) = (sqe.result_addr, sqe.result_len);
        let fits = len as usize >= HEADER_BYTES && len <= process.limits.ring_scratch_bytes;
        if !fits || !process.space.is_writable(addr, len.into()) {
            return Outcome::code(sqe, CAP_ERR_INVALID_RESULT_BUFFER);
        }
        if let Err(exception) = self.enqueue_recv(caller, sqe, index) {
            let code = self.raise_to(machine, caller.thread.pid, result_of(sqe), exception);
            return Outcome::code(sqe, code);
        }
        self.match_endpoint(machine, index);
        Outcome::Pending
    }

    fn enqueue_recv(&mut self, caller: Caller, sqe: &CapSqe, index: u32) -> Result<(), Exception> {
        let full = Exception::overloaded("too many receives");
        let (Some(process), Some(endpoint)) = (
            self.processes[caller.slot].as_deref_mut(),
            self.endpoints.table.get_mut(index),
        ) else {
            return Err(full);
        };
        if endpoint.recvs.len() > endpoint.queue_limit || self.endpoints.recvs.available() == 0 {
            return Err(full);
        }
        if process.receives >= process.limits.receives {
            return Err(full);
        }
        process.receives += 1;
        let recv = Recv {
            receiver: caller.thread,
            user_data: sqe.user_data,
            result: result_of(sqe),
        };
        if let Ok(recv) = self.endpoints.recvs.insert(recv) {
            endpoint.recvs.push_back(recv);
        }
        Ok(())
    }

    /// The open endpoint a live owner hold names.
    fn owned_endpoint(&self, caller: Caller, cap_id: u32) -> Option<u32> {
        let process = self.processes[caller.slot].as_deref()?;
        let hold = process.caps.lookup(CapId::from_raw(cap_id), &self.objects);
        match self.objects.get(hold.ok()?.object)? {
            Object::EndpointOwner(index) => Some(index),
            _ => None,
        }
    }

    /// Delivers queued calls to waiting receives while both are there.
    pub(crate) fn match_endpoint(&mut self, machine: &mut M, index: u32) {
        while let Some(endpoint) = self.endpoints.table.get_mut(index) {
            if !endpoint.can_deliver() {
                return;
            }
            let (Some(&call), Some(&recv)) = (endpoint.calls.front(), endpoint.recvs.front())
            else {
                return;
            };
            match self.deliver(machine, index, call, recv) {
                Ok(()) => {}
                Err(DeliveryError::Call(code)) => {
                    self.pop_queued(index);
                    self.finish_call(machine, call, Ok(code));
                }
                Err(DeliveryError::Recv) => {
                    self.finish_recv(machine, index, recv, CAP_ERR_INVALID_RESULT_BUFFER);
                }
            }
        }
    }

    fn pop_queued(&mut self, index: u32) {
        if let Some(endpoint) = self.endpoints.table.get_mut(index) {
            endpoint.calls.pop_front();
        }
    }

    /// Delivers the first call to the first receive, or changes nothing.
    fn deliver(
        &mut self,
        machine: &mut M,
        index: u32,
        call_index: u32,
        recv_index: u32,
    ) -> Result<(), DeliveryError> {
        let (Some(&call), Some(&recv)) = (
            self.endpoints.calls.get(call_index),
            self.endpoints.recvs.get(recv_index),
        ) else {
            return Err(DeliveryError::Recv);
        };
        let CallState::Queued(chain) = call.state else {
            return Err(DeliveryError::Call(CAP_ERR_INVOKE_FAILED));
        };
        self.insert_at_receiver(&call, &recv, chain)?;
        if self.write_message(machine, &call, &recv, chain).is_err() {
            self.withdraw(call.pins, recv.receiver.pid);
            return Err(DeliveryError::Recv);
        }
        self.commit_pins(call.pins, call.caller.pid);
        self.start_flight(index, call_index, recv.receiver.pid, chain);
        let cqe = CapCqe {
            flags: transfer_flag(call.pins),
            cap_count: call.pins.count(),
            badge: call.badge,
            call_id: self.endpoints.call_id(call_index),
            ..completion(recv.user_data, HEADER_BYTES as i32 + chain.len() as i32)
        };
        self.endpoints.recvs.remove(recv_index);
        if let Some(receiver) = self.process_mut(recv.receiver.pid) {
            receiver.complete_receive(&cqe);
        }
        self.hand_over_if_satisfied(machine, recv.receiver.pid.slot());
        Ok(())
    }

    /// Checks sizes and scope, then inserts the call's capabilities.
    fn insert_at_receiver(
        &mut self,
        call: &Call,
        recv: &Recv,
        chain: Chain,
    ) -> Result<(), DeliveryError> {
        let records = usize::from(call.pins.count()) * size_of::<u128>();
        let total = HEADER_BYTES + chain.len() as usize + records;
        let Some(receiver) = self.processes[recv.receiver.pid.slot()].as_deref_mut() else {
            return Err(DeliveryError::Recv);
        };
        let same_session = receiver.session == call.session;
        if !self.endpoints.pins.may_cross(call.pins, same_session) {
            return Err(DeliveryError::Call(CAP_ERR_TRANSFER_NOT_SUPPORTED));
        }
        if total > receiver.limits.ring_scratch_bytes as usize {
            // No receive of this process can take it; it must not stand in the
            // way of the calls behind it.
            return Err(DeliveryError::Call(CAP_ERR_INVALID_PARAMS_BUFFER));
        }
        let fits = total <= recv.result.len as usize;
        if !fits || !receiver.space.is_writable(recv.result.addr, total as u64) {
            return Err(DeliveryError::Recv);
        }
        self.endpoints
            .pins
            .insert(call.pins, &mut receiver.caps)
            .map_err(|_| DeliveryError::Call(CAP_ERR_TRANSFER_ABORTED))
    }

    fn write_message(
        &self,
        machine: &mut M,
        call: &Call,
        recv: &Recv,
        chain: Chain,
    ) -> Result<(), AccessFault> {
        let (pid, addr) = (recv.receiver.pid, recv.result.addr);
        machine.write(pid, addr, &message_header(call, chain.len()))?;
        let params = addr + HEADER_BYTES as u64;
        self.endpoints.blocks.load(chain, |offset, block| {
            machine.write(pid, params + offset as u64, block)
        })?;
        self.write_records(machine, pid, params + u64::from(chain.len()), call.pins)
    }

    fn write_records(
        &self,
        machine: &mut M,
        pid: Pid,
        addr: u64,
        pins: PinList,
    ) -> Result<(), AccessFault> {
        if pins.count() == 0 {
            return Ok(());
        }
        let mut records = [0; RECORD_BYTES_MAX];
        let len = self.endpoints.pins.emit_records(pins, &mut records);
        machine.write(pid, addr, &records[..len])
    }

    fn start_flight(&mut self, index: u32, call_index: u32, receiver: Pid, chain: Chain) {
        self.endpoints.blocks.free(chain);
        if let Some(endpoint) = self.endpoints.table.get_mut(index) {
            endpoint.calls.pop_front();
            endpoint.recvs.pop_front();
            endpoint.in_flight += 1;
        }
        let Some(call) = self.endpoints.calls.get_mut(call_index) else {
            return;
        };
        call.state = CallState::InFlight(receiver);
        call.pins = PinList::EMPTY;
        let caller = call.caller.pid;
        if let Some(process) = self.process_mut(caller) {
            process.call_bytes -= chain.len();
        }
    }

    /// RETURN: answers a call in flight.
    pub(crate) fn ret(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Outcome {
        let Some(index) = self.returnable_call(caller, sqe) else {
            return Outcome::code(sqe, CAP_ERR_INVOKE_FAILED);
        };
        let Some(&call) = self.endpoints.calls.get(index) else {
            return Outcome::code(sqe, CAP_ERR_INVOKE_FAILED);
        };
        if let Err(code) = self.fetch_payload(machine, caller, sqe) {
            return Outcome::code(sqe, code);
        }
        let returned = if sqe.flags & CAP_SQE_RETURN_APPLICATION_EXCEPTION != 0 {
            self.return_exception(machine, &call, sqe)
        } else {
            self.return_result(machine, caller, index, &call, sqe)
        };
        let transferring = sqe.xfer_cap_count != 0;
        let (own, answer) = match returned {
            Ok(cqe) => (0, Ok(cqe)),
            Err(ReturnError::Server(code)) => return Outcome::code(sqe, code),
            Err(ReturnError::Caller(code)) => (aborted_if(transferring), Err(Ok(code))),
            Err(ReturnError::Raise(exception)) => (aborted_if(transferring), Err(Err(exception))),
        };
        match answer {
            Ok(cqe) => {
                self.end_call(index);
                self.complete_caller(machine, call.caller, &cqe);
            }
            Err(failure) => self.finish_call(machine, index, failure),
        }
        self.match_endpoint(machine, call.endpoint);
        Outcome::code(sqe, own)
    }

    /// The in-flight record that this process may return through this hold.
    fn returnable_call(&self, caller: Caller, sqe: &CapSqe) -> Option<u32> {
        let endpoint = self.owned_endpoint(caller, sqe.cap_id)?;
        let index = self.endpoints.call_index(sqe.call_id)?;
        let call = self.endpoints.calls.get(index)?;
        let mine = call.state == CallState::InFlight(caller.thread.pid);
        (call.endpoint == endpoint && mine).then_some(index)
    }

    /// Copies a RETURN's payload into scratch.
    fn fetch_payload(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Result<(), i32> {
        let Some(process) = self.processes[caller.slot].as_deref() else {
            return Err(CAP_ERR_INVOKE_FAILED);
        };
        let readable = process.space.is_readable(sqe.addr, sqe.len.into());
        if sqe.len > process.limits.ring_scratch_bytes || !readable {
            return Err(CAP_ERR_INVALID_PARAMS_BUFFER);
        }
        let scratch = Word::words_to_bytes_mut(&mut self.params);
        machine
            .read(process.pid, sqe.addr, &mut scratch[..sqe.len as usize])
            .map_err(|_| CAP_ERR_INVALID_PARAMS_BUFFER)
    }

    fn return_exception(
        &mut self,
        machine: &mut M,
        call: &Call,
        sqe: &CapSqe,
    ) -> Result<CapCqe, ReturnError> {
        if sqe.len > call.result.len {
            return Err(ReturnError::Caller(CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED));
        }
        self.write_payload(machine, call, sqe)?;
        Ok(CapCqe {
            badge: call.badge,
            call_id: sqe.call_id,
            ..completion(call.user_data, CAP_ERR_APPLICATION_EXCEPTION)
        })
    }

    fn return_result(
        &mut self,
        machine: &mut M,
        server: Caller,
        index: u32,
        call: &Call,
        sqe: &CapSqe,
    ) -> Result<CapCqe, ReturnError> {
        let pins = self
            .pin(machine, server, sqe, HoldOrigin::ResultCap)
            .map_err(ReturnError::Server)?;
        match self.deliver_result(machine, server, call, sqe, pins) {
            Ok(()) => {
                self.commit_pins(pins, server.thread.pid);
                Ok(CapCqe {
                    flags: transfer_flag(pins),
                    cap_count: pins.count(),
                    badge: call.badge,
                    call_id: self.endpoints.call_id(index),
                    ..completion(call.user_data, sqe.len as i32)
                })
            }
            Err(error) => {
                self.rollback_pins(pins, server.thread.pid);
                Err(error)
            }
        }
    }

    /// Inserts and writes a result at the caller, or changes nothing there.
    fn deliver_result(
        &mut self,
        machine: &mut M,
        server: Caller,
        call: &Call,
        sqe: &CapSqe,
        pins: PinList,
    ) -> Result<(), ReturnError> {
        let server_session = self.process(server.thread.pid).map(|p| p.session);
        if !self
            .endpoints
            .pins
            .may_cross(pins, server_session == Some(call.session))
        {
            return Err(ReturnError::Server(CAP_ERR_TRANSFER_NOT_SUPPORTED));
        }
        let records = u64::from(pins.count()) * size_of::<u128>() as u64;
        let total = u64::from(sqe.len) + records;
        if total > u64::from(call.result.len) {
            let exception = Exception::overloaded("result buffer too small");
            return Err(ReturnError::Raise(exception));
        }
        let Some(process) = self.processes[call.caller.pid.slot()].as_deref_mut() else {
            return Err(ReturnError::Caller(CAP_ERR_INVALID_RESULT_BUFFER));
        };
        if !process.space.is_writable(call.result.addr, total) {
            return Err(ReturnError::Caller(CAP_ERR_INVALID_RESULT_BUFFER));
        }
        self.endpoints
            .pins
            .insert(pins, &mut process.caps)
            .map_err(|_| ReturnError::Caller(CAP_ERR_TRANSFER_ABORTED))?;
        let records_at = call.result.addr + u64::from(sqe.len);
        let written = self.write_payload(machine, call, sqe).and_then(|()| {
            self.write_records(machine, call.caller.pid, records_at, pins)
                .map_err(|_| ReturnError::Caller(CAP_ERR_INVALID_RESULT_BUFFER))
        });
        if written.is_err() {
            self.withdraw(pins, call.caller.pid);
        }
        written
    }

    /// Writes the payload in scratch to the caller's result buffer.
    fn write_payload(&self, machine: &mut M, call: &Call, sqe: &CapSqe) -> Result<(), ReturnError> {
        let fault = ReturnError::Caller(CAP_ERR_INVALID_RESULT_BUFFER);
        let pid = call.caller.pid;
        let Some(process) = self.process(pid) else {
            return Err(fault);
        };
        let payload = &Word::words_to_bytes(&self.params)[..sqe.len as usize];
        if !process.space.is_writable(call.result.addr, sqe.len.into()) {
            return Err(fault);
        }
        machine
            .write(pid, call.result.addr, payload)
            .map_err(|_| fault)
    }

    /// CANCEL: withdraws a waiting receive of this process.
    pub(crate) fn cancel(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Outcome {
        let target = self
            .owned_endpoint(caller, sqe.cap_id)
            .and_then(|index| Some((index, self.find_recv(index, caller, sqe.pipeline_dep)?)));
        let Some((index, recv)) = target else {
            return Outcome::code(sqe, CAP_ERR_INVOKE_FAILED);
        };
        self.finish_recv(machine, index, recv, CAP_ERR_INVOKE_FAILED);
        Outcome::code(sqe, 0)
    }

    fn find_recv(&self, index: u32, caller: Caller, user_data: u64) -> Option<u32> {
        let endpoint = self.endpoints.table.get(index)?;
        let mine =
            |recv: &Recv| recv.receiver.pid == caller.thread.pid && recv.user_data == user_data;
        let mut recvs = endpoint.recvs.iter().copied();
        recvs.find(|&recv| self.endpoints.recvs.get(recv).is_some_and(mine))
    }

    /// Takes a waiting receive out and completes it with `code`.
    fn finish_recv(&mut self, machine: &mut M, index: u32, recv: u32, code: i32) {
        if let Some(endpoint) = self.endpoints.table.get_mut(index) {
            endpoint.recvs.retain(|&waiting| waiting != recv);
        }
        let Some(recv) = self.endpoints.recvs.remove(recv) else {
            return;
        };
        if let Some(process) = self.process_mut(recv.receiver.pid) {
            process.complete_receive(&completion(recv.user_data, code));
            self.wake_if_satisfied(machine, recv.receiver.pid.slot());
        }
    }

    /// Ends a call that is out of its queue, or in flight, without a result.
    pub(crate) fn finish_call(
        &mut self,
        machine: &mut M,
        index: u32,
        failure: Result<i32, Exception>,
    ) {
        let Some(call) = self.end_call(index) else {
            return;
        };
        let pid = call.caller.pid;
        let code = match failure {
            Ok(code) => code,
            Err(exception) => self.raise_to(machine, pid, call.result, exception),
        };
        self.complete_caller(machine, call.caller, &completion(call.user_data, code));
    }

    /// Forgets a call record and everything it holds.
    fn end_call(&mut self, index: u32) -> Option<Call> {
        let call = self.endpoints.calls.remove(index)?;
        match call.state {
            CallState::Queued(chain) => {
                self.endpoints.blocks.free(chain);
                self.rollback_pins(call.pins, call.caller.pid);
                if let Some(process) = self.process_mut(call.caller.pid) {
                    process.call_bytes -= chain.len();
                }
            }
            CallState::InFlight(_) => {
                if let Some(endpoint) = self.endpoints.table.get_mut(call.endpoint) {
                    endpoint.in_flight -= 1;
                }
            }
        }
        Some(call)
    }

    /// Posts the completion of something that waited, and resumes its waiter.
    pub(crate) fn complete_caller(&mut self, machine: &mut M, thread: ThreadRef, cqe: &CapCqe) {
        if let Some(process) = self.process_mut(thread.pid) {
            process.complete_outstanding(cqe);
            self.wake_if_satisfied(machine, thread.pid.slot());
        }
    }

    /// Writes an exception for a process; returns the completion code.
    pub(crate) fn raise_to(
        &mut self,
        machine: &mut M,
        pid: Pid,
        result: ResultBuffer,
        exception: Exception,
    ) -> i32 {
        match self.process(pid) {
            Some(process) => raise(machine, process, result, exception),
            None => CAP_ERR_INVOKE_FAILED,
        }
    }

    fn commit_pins(&mut self, pins: PinList, sender: Pid) {
        if pins.count() == 0 {
            return;
        }
        let sender = self.processes[sender.slot()]
            .as_deref_mut()
            .filter(|process| process.pid == sender);
        let (objects, dead) = (&mut self.objects, &mut self.dead);
        self.endpoints
            .pins
            .commit(pins, sender.map(|process| &mut process.caps), |hold| {
                dead.extend(objects.release(hold.object, hold.epoch));
            });
    }

    fn rollback_pins(&mut self, pins: PinList, sender: Pid) {
        if pins.count() == 0 {
            return;
        }
        let sender = self.processes[sender.slot()]
            .as_deref_mut()
            .filter(|process| process.pid == sender);
        let (objects, dead) = (&mut self.objects, &mut self.dead);
        self.endpoints.pins.rollback(
            pins,
            sender.map(|process| &mut process.caps),
            objects,
            |object| dead.push(object),
        );
    }

    fn withdraw(&mut self, pins: PinList, receiver: Pid) {
        if let Some(process) = self.processes[receiver.slot()].as_deref_mut() {
            self.endpoints.pins.withdraw(pins, &mut process.caps);
        }
    }

    /// Acts on objects that lost their last reference.
    pub(crate) fn reap(&mut self, machine: &mut M) {
        while let Some(object) = self.dead.pop() {
            match object {
                Object::EndpointOwner(index) => self.close_endpoint(machine, index),
                Object::EndpointClient(index) => self.forget_facets(index),
                Object::ProcessHandle(index) => self.close_handle(machine, index),
                Object::MemoryObject(index) => self.close_memory_object(machine, index),
                Object::SharedParkSpace(index) => self.close_shared_park_space(index),
                Object::ThreadHandle(index) => self.close_thread_handle(index),
                Object::Notification(index) => self.drop_notification(machine, index),
                Object::UserSession(index) => self.forget_user_session(index),
                Object::RestrictedLauncher(index) => self.drop_launcher(index),
                Object::PipeRead(index) => self.drop_pipe_end(machine, index, End::Read),
                Object::PipeWrite(index) => self.drop_pipe_end(machine, index, End::Write),
                _ => {}
            }
        }
    }

    /// No owner is left: everything that waits here is over.
    fn close_endpoint(&mut self, machine: &mut M, index: u32) {
        self.shut_endpoint(machine, index);
        if let Some(endpoint) = self.endpoints.table.get_mut(index) {
            endpoint.owned = false;
        }
        self.drop_unreachable(index);
    }

    /// No owner can use it any more: everything that waits here is over.
    pub(crate) fn shut_endpoint(&mut self, machine: &mut M, index: u32) {
        let Some(endpoint) = self.endpoints.table.get_mut(index) else {
            return;
        };
        endpoint.closed = true;
        let closed = Exception::disconnected("endpoint closed");
        while let Some(call) = self.first_queued(index) {
            self.pop_queued(index);
            self.finish_call(machine, call, Err(closed));
        }
        while let Some(recv) = self.first_recv(index) {
            self.finish_recv(machine, index, recv, CAP_ERR_INVOKE_FAILED);
        }
        while let Some(call) = self.find_call(|call| call.endpoint == index) {
            self.finish_call(machine, call, Err(closed));
        }
    }

    /// Ends the receives of processes that `lost` the receiving side, and
    /// disconnects the calls they were serving. Others go on receiving.
    pub(crate) fn drop_owners(
        &mut self,
        machine: &mut M,
        index: u32,
        lost: impl Fn(&Self, Pid) -> bool,
    ) {
        let gone = Exception::disconnected("server gone");
        while let Some(recv) = self.recv_at(index, |pid| lost(self, pid)) {
            self.finish_recv(machine, index, recv, CAP_ERR_INVOKE_FAILED);
        }
        let served = |server: &Self| {
            server.find_call(|call| match call.state {
                CallState::InFlight(pid) => call.endpoint == index && lost(server, pid),
                CallState::Queued(_) => false,
            })
        };
        while let Some(call) = served(self) {
            self.finish_call(machine, call, Err(gone));
        }
        self.match_endpoint(machine, index);
    }

    /// A receive at an endpoint that a process of those wanted waits with.
    fn recv_at(&self, index: u32, wanted: impl Fn(Pid) -> bool) -> Option<u32> {
        let endpoint = self.endpoints.table.get(index)?;
        let mut recvs = endpoint.recvs.iter().copied();
        recvs.find(|&recv| {
            let recv = self.endpoints.recvs.get(recv);
            recv.is_some_and(|recv| wanted(recv.receiver.pid))
        })
    }

    /// A process dropped a hold on the receiving side; if it has no other, it
    /// receives and answers no more.
    pub(crate) fn leave_endpoint(
        &mut self,
        machine: &mut M,
        pid: Pid,
        object: ObjectId,
        index: u32,
    ) {
        let holds =
            |process: &Process<M::Ring>| process.caps.iter().any(|(_, hold)| hold.object == object);
        if !self.process(pid).is_some_and(holds) {
            self.drop_owners(machine, index, |_, owner| owner == pid);
        }
    }

    /// Charges whoever answers for a process that is gone with the endpoints it
    /// made for others.
    pub(crate) fn inherit_endpoints(&mut self, from: Pid, heir: Pid) {
        let mut inherited = 0;
        for endpoint in self.endpoints.table.values_mut() {
            if endpoint.payer == Some(from) {
                endpoint.payer = Some(heir);
                inherited += 1;
            }
        }
        if let Some(heir) = self.process_mut(heir) {
            heir.made.endpoints += inherited;
        }
    }

    fn first_queued(&self, index: u32) -> Option<u32> {
        self.endpoints.table.get(index)?.calls.front().copied()
    }

    fn first_recv(&self, index: u32) -> Option<u32> {
        self.endpoints.table.get(index)?.recvs.front().copied()
    }

    pub(crate) fn find_call(&self, wanted: impl Fn(&Call) -> bool) -> Option<u32> {
        let mut calls = self.endpoints.calls.iter();
        calls.find(|(_, call)| wanted(call)).map(|(index, _)| index)
    }

    fn forget_facets(&mut self, index: u32) {
        if let Some(endpoint) = self.endpoints.table.get_mut(index) {
            endpoint.client = None;
        }
        self.drop_unreachable(index);
    }

    /// Frees an endpoint that nothing names any more.
    fn drop_unreachable(&mut self, index: u32) {
        let endpoint = self.endpoints.table.get(index);
        if endpoint.is_some_and(|endpoint| !endpoint.owned && endpoint.client.is_none()) {
            self.remove_endpoint(index);
        }
    }

    /// Forgets an endpoint; whoever made it for others is charged no more.
    pub(crate) fn remove_endpoint(&mut self, index: u32) {
        let endpoint = self.endpoints.table.remove(index);
        let payer = endpoint.and_then(|endpoint| endpoint.payer);
        if let Some(payer) = payer.and_then(|pid| self.process_mut(pid)) {
            payer.made.endpoints -= 1;
        }
    }

    /// Ends all calls and receives of a process that is gone from the table:
    /// its own vanish, those it was serving are answered.
    pub(crate) fn cancel_process(&mut self, machine: &mut M, pid: Pid) {
        while let Some(index) = self.find_call(|call| call.caller.pid == pid) {
            self.unqueue(index);
            if let Some(call) = self.end_call(index) {
                self.match_endpoint(machine, call.endpoint);
            }
        }
        self.drop_recvs(pid);
        let served = |call: &Call| call.state == CallState::InFlight(pid);
        while let Some(index) = self.find_call(served) {
            let endpoint = self.endpoints.calls.get(index).map(|call| call.endpoint);
            let gone = Exception::disconnected("server exited");
            self.finish_call(machine, index, Err(gone));
            if let Some(endpoint) = endpoint {
                self.match_endpoint(machine, endpoint);
            }
        }
    }

    pub(crate) fn unqueue(&mut self, index: u32) {
        let Some(call) = self.endpoints.calls.get(index) else {
            return;
        };
        if let Some(endpoint) = self.endpoints.table.get_mut(call.endpoint) {
            endpoint.calls.retain(|&queued| queued != index);
        }
    }

    fn drop_recvs(&mut self, pid: Pid) {
        while let Some(recv) = self.find_recv_of(pid) {
            self.endpoints.recvs.remove(recv);
            for endpoint in self.endpoints.table.values_mut() {
                endpoint.recvs.retain(|&waiting| waiting != recv);
            }
        }
    }

    fn find_recv_of(&self, pid: Pid) -> Option<u32> {
        let mut recvs = self.endpoints.recvs.iter();
        let found = recvs.find(|(_, recv)| recv.receiver.pid == pid);
        found.map(|(index, _)| index)
    }

    /// Acts on objects that died before anyone could use them.
    pub(crate) fn discard_dead(&mut self) {
        while let Some(object) = self.dead.pop() {
            match object {
                Object::EndpointOwner(index) => {
                    if let Some(endpoint) = self.endpoints.table.get_mut(index) {
                        (endpoint.closed, endpoint.owned) = (true, false);
                    }
                    self.drop_unreachable(index);
                }
                Object::EndpointClient(index) => self.forget_facets(index),
                Object::ProcessHandle(index) => self.discard_handle(index),
                Object::SharedParkSpace(index) => self.close_shared_park_space(index),
                Object::ThreadHandle(index) => self.close_thread_handle(index),
                Object::Notification(index) => self.discard_notification(index),
                Object::UserSession(index) => self.forget_user_session(index),
                Object::RestrictedLauncher(index) => self.drop_launcher(index),
                Object::PipeRead(index) => self.discard_pipe_end(index, End::Read),
                Object::PipeWrite(index) => self.discard_pipe_end(index, End::Write),
                _ => {}
            }
        }
    }
}

/// Why a call did not enter a queue.
enum Refused {
    Transport(i32),
    Raise(Exception),
}

impl From<Exception> for Refused {
    fn from(exception: Exception) -> Self {
        Self::Raise(exception)
    }
}

/// Result buffer of a submission.
pub(crate) const fn result_of(sqe: &CapSqe) -> ResultBuffer {
    ResultBuffer {
        addr: sqe.result_addr,
        len: sqe.result_len,
    }
}

fn transfer_flag(pins: PinList) -> u16 {
    if pins.count() > 0 {
        CAP_CQE_TRANSFER_RESULT_CAPS
    } else {
        0
    }
}

/// What the server learns when the caller's side ended the call: its
/// capabilities did not go.
const fn aborted_if(transferring: bool) -> i32 {
    if transferring {
        CAP_ERR_TRANSFER_ABORTED
    } else {
        0
    }
}

/// The ABI's message header, as bytes.
fn message_header(call: &Call, params_len: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(
        offset_of!(EndpointMessageHeader, interface_id),
        &call.interface_id.to_le_bytes(),
    );
    put(
        offset_of!(EndpointMessageHeader, method_id),
        &call.method_id.to_le_bytes(),
    );
    put(
        offset_of!(EndpointMessageHeader, params_len),
        &params_len.to_le_bytes(),
    );
    let at = offset_of!(EndpointMessageHeader, caller_session);
    let session = &call.described;
    let mut put_session = |field: usize, value: &[u8]| put(at + field, value);
    put_session(
        offset_of!(EndpointCallerSession, scoped_ref),
        &session.scoped_ref.to_le_bytes(),
    );
    put_session(
        offset_of!(EndpointCallerSession, scoped_ref_hi),
        &session.scoped_ref_hi.to_le_bytes(),
    );
    put_session(
        offset_of!(EndpointCallerSession, epoch),
        &session.epoch.to_le_bytes(),
    );
    put_session(
        offset_of!(EndpointCallerSession, flags),
        &session.flags.to_le_bytes(),
    );
    put_session(
        offset_of!(EndpointCallerSession, disclosed_fields),
        &session.disclosed_fields.to_le_bytes(),
    );
    put_session(
        offset_of!(EndpointCallerSession, principal_kind),
        &session.principal_kind.to_le_bytes(),
    );
    put_session(
        offset_of!(EndpointCallerSession, auth_strength),
        &session.auth_strength.to_le_bytes(),
    );
    put_session(
        offset_of!(EndpointCallerSession, profile_class),
        &session.profile_class.to_le_bytes(),
    );
    bytes
}
