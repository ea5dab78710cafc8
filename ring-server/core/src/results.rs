//! Results that carry capabilities: room checked first, holds inserted, the
//! result and its records written, everything taken back if that fails.

use capnp::Word;
use capnp::traits::HasStructSize;
use capos_config::ring::{
    CAP_CQE_TRANSFER_RESULT_CAPS, CAP_ERR_INVALID_RESULT_BUFFER, CAP_TRANSFER_RESULT_SIZE, CapCqe,
    CapSqe, MAX_TRANSFER_DESCRIPTORS,
};

use sel4_capos_schema::session_capnp::session_mint::open_results;

use crate::cap_table::{CapId, Hold, HoldOrigin};
use crate::dispatch::Caller;
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::ids::Pid;
use crate::kernel::Refusal;
use crate::machine::Machine;
use crate::ring::completion;
use crate::server::{CreateError, Server};
use crate::spawn::create_refused;

/// A message of one word of data: table, pointer, data.
pub(crate) const INDEX_RESULT_BYTES: usize = 3 * size_of::<Word>();

/// Capabilities of one result, as the caller is told.
pub(crate) struct ResultCaps {
    bytes: [u8; MAX_TRANSFER_DESCRIPTORS * CAP_TRANSFER_RESULT_SIZE],
    count: usize,
}

impl ResultCaps {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; MAX_TRANSFER_DESCRIPTORS * CAP_TRANSFER_RESULT_SIZE],
            count: 0,
        }
    }

    fn push(&mut self, id: CapId, interface_id: u64) {
        let at = self.count * CAP_TRANSFER_RESULT_SIZE;
        if let Some(record) = self.bytes.get_mut(at..at + CAP_TRANSFER_RESULT_SIZE) {
            record[..4].copy_from_slice(&id.raw().to_le_bytes());
            record[8..].copy_from_slice(&interface_id.to_le_bytes());
            self.count += 1;
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.count * CAP_TRANSFER_RESULT_SIZE]
    }
}

impl<M: Machine> Server<M> {
    /// Checks before anything is made that a result of `bytes` bytes and
    /// `caps` capabilities can be given.
    pub(crate) fn check_result_room(
        &self,
        caller: Caller,
        sqe: &CapSqe,
        bytes: usize,
        caps: usize,
    ) -> Result<(), Refusal> {
        if caps > MAX_TRANSFER_DESCRIPTORS {
            return Err(Exception::overloaded("too many result capabilities").into());
        }
        let preflight = self
            .process(caller.thread.pid)
            .map(|process| process.caps.preflight(caps as u32));
        if !matches!(preflight, Some(Ok(()))) {
            return Err(Exception::overloaded("capability slots exhausted").into());
        }
        if (sqe.result_len as usize) < bytes + caps * CAP_TRANSFER_RESULT_SIZE {
            return Err(Exception::overloaded("result buffer too small").into());
        }
        Ok(())
    }

    /// Inserts a result capability; its references are released if it does not
    /// fit.
    pub(crate) fn insert_result(
        &mut self,
        to: Pid,
        hold: Hold,
        origin: HoldOrigin,
        given: &mut ResultCaps,
    ) -> Result<(), CreateError> {
        let hold = Hold { origin, ..hold };
        let inserted = match self.process_mut(to) {
            Some(process) => process.caps.insert(hold).map_err(CreateError::from),
            None => Err(CreateError::NoSuchHold),
        };
        match inserted {
            Ok(id) => {
                given.push(id, hold.interface_id);
                Ok(())
            }
            Err(error) => {
                self.release_hold(hold);
                Err(error)
            }
        }
    }

    /// Gives the caller one capability, of which the result says that it is the
    /// first. There must be room.
    pub(crate) fn give_one(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        hold: Hold,
    ) -> Result<CapCqe, Refusal> {
        let mut given = ResultCaps::new();
        self.insert_result(caller.thread.pid, hold, hold.origin, &mut given)
            .map_err(|error| create_refused(&error))?;
        let mut result = [0; INDEX_RESULT_BYTES];
        let len = emit_first(&mut result).unwrap_or(result.len());
        self.write_results(machine, caller, sqe, &result[..len], &given)
    }

    /// Writes a result and the records of its capabilities; takes them back if
    /// that fails.
    pub(crate) fn write_results(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        message: &[u8],
        given: &ResultCaps,
    ) -> Result<CapCqe, Refusal> {
        let (pid, addr) = (caller.thread.pid, sqe.result_addr);
        let written = machine.write(pid, addr, message).and_then(|()| {
            let records = addr + message.len() as u64;
            machine.write(pid, records, given.bytes())
        });
        if written.is_err() {
            self.take_results_back(pid, given);
            return Err(Refusal::Transport(CAP_ERR_INVALID_RESULT_BUFFER));
        }
        Ok(CapCqe {
            flags: CAP_CQE_TRANSFER_RESULT_CAPS,
            cap_count: given.count as u16,
            ..completion(sqe.user_data, message.len() as i32)
        })
    }

    /// Removes result capabilities that were inserted in vain.
    pub(crate) fn take_results_back(&mut self, from: Pid, given: &ResultCaps) {
        for record in given.bytes().chunks_exact(CAP_TRANSFER_RESULT_SIZE) {
            let raw = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
            let removed = self
                .process_mut(from)
                .and_then(|process| process.caps.remove(CapId::from_raw(raw)).ok());
            if let Some(hold) = removed {
                self.release_hold(hold);
            }
        }
    }
}

/// A result that is the index of its only capability.
fn emit_first(out: &mut [u8]) -> Result<usize, NoRoom> {
    let size = <open_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (message, _) = Emitter::new(out, size)?;
    message.finish()
}
