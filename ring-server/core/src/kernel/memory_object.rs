//! `MemoryObject`: memory that processes can share.
//!
//! A mapping belongs to the process that made it and outlives its capability;
//! it goes by `unmap` through any capability on the same object, or with the
//! process.

use capnp::traits::HasStructSize;
use capos_config::capos_capnp::memory_object::{
    info_results, map_params, protect_params, unmap_params,
};
use capos_config::ring::CapSqe;
use capos_loader::layout::PAGE_BYTES;
use capos_loader::{Backing, Owner, Protection, Region, RegionKind};

use super::virtual_memory::check_address_room;
use super::{Refusal, malformed, message};
use crate::dispatch::{Caller, Outcome};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::machine::{Machine, NoMemory};
use crate::memory::{invalid, out_of_memory, place, protection, range_of};
use crate::server::Server;

mod method {
    pub const INFO: u16 = 0;
    pub const MAP: u16 = 1;
    pub const UNMAP: u16 = 2;
    pub const PROTECT: u16 = 3;
}

const INFO_RESULT_BYTES: usize = 32;

/// What a client asks to map.
#[derive(Clone, Copy)]
struct MapRequest {
    hint: u64,
    offset: u64,
    size: u64,
    protection: Protection,
}

impl<M: Machine> Server<M> {
    /// CALL to a `MemoryObject`.
    pub(crate) fn call_memory_object(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
    ) -> Outcome {
        let outcome = match sqe.method_id {
            method::INFO => self.object_info(machine, caller, sqe, index),
            method::MAP => self.map_object(machine, caller, sqe, index),
            method::UNMAP => self.unmap_object(machine, caller, sqe, index),
            method::PROTECT => self.protect_object(machine, caller, sqe, index),
            _ => Err(Exception::unimplemented().into()),
        };
        match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    fn object_pages(&self, index: u32) -> Result<u32, Refusal> {
        let object = self.memory.objects.get(index);
        let gone = Exception::disconnected("no such memory object");
        object.map(|object| object.pages).ok_or(Refusal::from(gone))
    }

    fn object_info(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
    ) -> Result<Outcome, Refusal> {
        let pages = self.object_pages(index)?;
        let mut result = [0; INFO_RESULT_BYTES];
        let len = emit_info(&mut result, pages)
            .ok()
            .filter(|&len| len <= sqe.result_len as usize)
            .ok_or(Exception::overloaded("result buffer too small"))?;
        Ok(self.answer_checked(machine, caller, sqe, &result[..len]))
    }

    fn map_object(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
    ) -> Result<Outcome, Refusal> {
        let params = self.fetch_params(machine, caller, sqe)?;
        let request = decode_map(params, sqe)?;
        check_address_room(sqe)?;
        let object_bytes = u64::from(self.object_pages(index)?) * PAGE_BYTES;
        let (offset, object_end) = range_of(request.offset, request.size)?;
        if object_end > object_bytes {
            return Err(invalid("range is beyond the object"));
        }
        let pid = caller.thread.pid;
        let process = self.process_mut(pid).ok_or(invalid("no process"))?;
        let (start, end) = place(&process.space, request.hint, request.size)?;
        let pages = (request.size / PAGE_BYTES) as u32;
        let charged = process.caps.charge_mapping(pages);
        charged.map_err(|_| Exception::overloaded("frame grant quota exhausted"))?;
        let first_page = (offset / PAGE_BYTES) as u32;
        let region = Region {
            start,
            end,
            protection: request.protection,
            backing: Backing::Eager,
            kind: RegionKind::Object {
                id: index,
                first_page,
            },
        };
        let mapped = self.show_object(machine, caller, region, (index, first_page));
        if let Err(refusal) = mapped {
            if let Some(process) = self.process_mut(pid) {
                process.caps.release_mapping(pages);
            }
            return Err(refusal);
        }
        self.note_mapped(index, pages.into(), 0);
        self.answer_address(machine, caller, sqe, start)
    }

    /// Adds a region that shows pages of an object, and maps them.
    fn show_object(
        &mut self,
        machine: &mut M,
        caller: Caller,
        region: Region,
        first: (u32, u32),
    ) -> Result<(), Refusal> {
        let pid = caller.thread.pid;
        let range = (region.start, region.end);
        self.grow(
            machine,
            pid,
            range,
            |space| space.insert(region),
            |space| {
                let undone = space.remove(range.0, range.1, |_| ());
                debug_assert!(undone.is_ok(), "room was set aside");
            },
        )?;
        match machine.map_object(pid, range, first, region.protection) {
            Ok(()) => Ok(()),
            Err(NoMemory) => {
                self.shrink(machine, pid, range, |space| {
                    space.remove(range.0, range.1, |_| ())
                })?;
                Err(out_of_memory().into())
            }
        }
    }

    fn unmap_object(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
    ) -> Result<Outcome, Refusal> {
        let params = self.fetch_params(machine, caller, sqe)?;
        let (addr, size) = {
            let message = message(params, sqe)?;
            let root = message.get_root::<unmap_params::Reader<'_>>();
            let root = root.map_err(malformed)?;
            (root.get_addr(), root.get_size())
        };
        let (start, end) = range_of(addr, size)?;
        let pid = caller.thread.pid;
        self.shrink(machine, pid, (start, end), |space| {
            space.check_owner(start, end, Owner::Object(index))?;
            space.remove(start, end, |_| ())
        })?;
        let pages = size / PAGE_BYTES;
        self.note_mapped(index, 0, pages);
        if let Some(process) = self.process_mut(pid) {
            process.caps.release_mapping(pages as u32);
        }
        Ok(Outcome::code(sqe, 0))
    }

    fn protect_object(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
    ) -> Result<Outcome, Refusal> {
        let params = self.fetch_params(machine, caller, sqe)?;
        let (range, protection) = {
            let message = message(params, sqe)?;
            let root = message.get_root::<protect_params::Reader<'_>>();
            let root = root.map_err(malformed)?;
            let range = (root.get_addr(), root.get_size());
            (range, protection(root.get_prot())?)
        };
        self.protect_memory(machine, caller, range, protection, Owner::Object(index))?;
        Ok(Outcome::code(sqe, 0))
    }
}

fn decode_map(params: &[u8], sqe: &CapSqe) -> Result<MapRequest, Refusal> {
    let message = message(params, sqe)?;
    let root = message.get_root::<map_params::Reader<'_>>();
    let root = root.map_err(malformed)?;
    Ok(MapRequest {
        hint: root.get_hint(),
        offset: root.get_offset(),
        size: root.get_size(),
        protection: protection(root.get_prot())?,
    })
}

fn emit_info(out: &mut [u8], pages: u32) -> Result<usize, NoRoom> {
    let size = <info_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u32(root, 0, pages)?;
    message.set_u64(root, 1, u64::from(pages) * PAGE_BYTES)?;
    message.finish()
}
