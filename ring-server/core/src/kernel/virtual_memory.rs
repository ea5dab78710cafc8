//! `VirtualMemory`: the holder's own anonymous memory.

use capnp::traits::HasStructSize;
use capos_config::capos_capnp::virtual_memory::{
    commit_params, decommit_params, map_params, map_results, protect_params, reserve_params,
    unmap_params,
};
use capos_config::ring::CapSqe;
use capos_loader::{Backing, Owner, Protection, Region, RegionKind};

use super::{Refusal, malformed, message};
use crate::dispatch::{Caller, Outcome};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::machine::Machine;
use crate::memory::{invalid, map_refused, place, protection, range_of};
use crate::server::Server;

mod method {
    pub const MAP: u16 = 0;
    pub const UNMAP: u16 = 1;
    pub const PROTECT: u16 = 2;
    pub const RESERVE: u16 = 3;
    pub const COMMIT: u16 = 4;
    pub const DECOMMIT: u16 = 5;
}

/// Bytes of a result that is an address.
const ADDRESS_RESULT_BYTES: usize = 24;

/// A checked request.
enum Request {
    Map(u64, u64, Protection),
    Unmap(u64, u64),
    Protect(u64, u64, Protection),
    Reserve(u64, u64),
    Commit(u64, u64, Protection),
    Decommit(u64, u64),
}

impl<M: Machine> Server<M> {
    /// CALL to a `VirtualMemory`.
    pub(crate) fn call_virtual_memory(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Outcome {
        let outcome = self
            .virtual_memory_request(machine, caller, sqe)
            .and_then(|request| self.change_memory(machine, caller, sqe, request));
        match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    fn virtual_memory_request(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<Request, Refusal> {
        if sqe.method_id > method::DECOMMIT {
            return Err(Exception::unimplemented().into());
        }
        let params = self.fetch_params(machine, caller, sqe)?;
        decode(params, sqe)
    }

    fn change_memory(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        request: Request,
    ) -> Result<Outcome, Refusal> {
        let pid = caller.thread.pid;
        match request {
            Request::Map(hint, size, protection) => {
                let start = self.map_anonymous(
                    machine,
                    caller,
                    sqe,
                    (hint, size),
                    (Backing::DemandZero, protection),
                )?;
                return self.answer_address(machine, caller, sqe, start);
            }
            Request::Reserve(hint, size) => {
                let start = self.map_anonymous(
                    machine,
                    caller,
                    sqe,
                    (hint, size),
                    (Backing::Reserved, Protection::NONE),
                )?;
                return self.answer_address(machine, caller, sqe, start);
            }
            Request::Unmap(addr, size) => {
                let (start, end) = range_of(addr, size)?;
                self.shrink(machine, pid, (start, end), |space| {
                    space.check_owner(start, end, Owner::Anonymous)?;
                    space.remove(start, end, |_| ())
                })?;
            }
            Request::Decommit(addr, size) => {
                let (start, end) = range_of(addr, size)?;
                self.shrink(machine, pid, (start, end), |space| {
                    space.decommit(start, end)
                })?;
            }
            Request::Commit(addr, size, protection) => {
                let (start, end) = range_of(addr, size)?;
                self.grow(
                    machine,
                    pid,
                    (start, end),
                    |space| space.commit(start, end, protection),
                    |space| {
                        let undone = space.decommit(start, end);
                        debug_assert!(undone.is_ok(), "room was set aside");
                    },
                )?;
            }
            Request::Protect(addr, size, protection) => {
                self.protect_memory(machine, caller, (addr, size), protection, Owner::Anonymous)?;
            }
        }
        Ok(Outcome::code(sqe, 0))
    }

    fn map_anonymous(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        (hint, size): (u64, u64),
        (backing, protection): (Backing, Protection),
    ) -> Result<u64, Refusal> {
        check_address_room(sqe)?;
        let pid = caller.thread.pid;
        let process = self.process(pid).ok_or(invalid("no process"))?;
        let (start, end) = place(&process.space, hint, size)?;
        let region = Region {
            start,
            end,
            protection,
            backing,
            kind: RegionKind::Anonymous,
        };
        self.grow(
            machine,
            pid,
            (start, end),
            |space| space.insert(region),
            |space| {
                let undone = space.remove(start, end, |_| ());
                debug_assert!(undone.is_ok(), "room was set aside");
            },
        )?;
        Ok(start)
    }

    /// Changes what pages allow that `owner` may change.
    pub(crate) fn protect_memory(
        &mut self,
        machine: &mut M,
        caller: Caller,
        (addr, size): (u64, u64),
        protection: Protection,
        owner: Owner,
    ) -> Result<(), Refusal> {
        let (start, end) = range_of(addr, size)?;
        let pid = caller.thread.pid;
        let process = self.process_mut(pid).ok_or(invalid("no process"))?;
        let space = &mut process.space;
        space
            .check_owner(start, end, owner)
            .and_then(|()| space.check_committed(start, end))
            .and_then(|()| space.protect(start, end, protection))
            .map_err(map_refused)?;
        machine.protect(pid, start, end, protection);
        Ok(())
    }

    /// Completes a call that answers an address; the room was checked.
    pub(crate) fn answer_address(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        address: u64,
    ) -> Result<Outcome, Refusal> {
        let mut result = [0; ADDRESS_RESULT_BYTES];
        let len = emit_address(&mut result, address)
            .map_err(|NoRoom| Exception::overloaded("result buffer too small"))?;
        Ok(self.answer_checked(machine, caller, sqe, &result[..len]))
    }
}

/// Checks, before anything changes, that an address can be answered.
pub(crate) fn check_address_room(sqe: &CapSqe) -> Result<(), Refusal> {
    if (sqe.result_len as usize) < ADDRESS_RESULT_BYTES {
        return Err(Exception::overloaded("result buffer too small").into());
    }
    Ok(())
}

fn emit_address(out: &mut [u8], address: u64) -> Result<usize, NoRoom> {
    let size = <map_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u64(root, 0, address)?;
    message.finish()
}

fn decode(params: &[u8], sqe: &CapSqe) -> Result<Request, Refusal> {
    let message = message(params, sqe)?;
    Ok(match sqe.method_id {
        method::MAP => {
            let root = message.get_root::<map_params::Reader<'_>>();
            let root = root.map_err(malformed)?;
            let protection = protection(root.get_prot())?;
            Request::Map(root.get_hint(), root.get_size(), protection)
        }
        method::UNMAP => {
            let root = message.get_root::<unmap_params::Reader<'_>>();
            let root = root.map_err(malformed)?;
            Request::Unmap(root.get_addr(), root.get_size())
        }
        method::PROTECT => {
            let root = message.get_root::<protect_params::Reader<'_>>();
            let root = root.map_err(malformed)?;
            let protection = protection(root.get_prot())?;
            Request::Protect(root.get_addr(), root.get_size(), protection)
        }
        method::RESERVE => {
            let root = message.get_root::<reserve_params::Reader<'_>>();
            let root = root.map_err(malformed)?;
            Request::Reserve(root.get_hint(), root.get_size())
        }
        method::COMMIT => {
            let root = message.get_root::<commit_params::Reader<'_>>();
            let root = root.map_err(malformed)?;
            let protection = protection(root.get_prot())?;
            Request::Commit(root.get_addr(), root.get_size(), protection)
        }
        _ => {
            let root = message.get_root::<decommit_params::Reader<'_>>();
            let root = root.map_err(malformed)?;
            Request::Decommit(root.get_addr(), root.get_size())
        }
    })
}
