//! `FrameAllocator`: memory as `MemoryObject` result capabilities.
//!
//! Every object is contiguous in physical memory. Its pages are charged to each
//! hold on it (the maker's is the first) and to each mapping.

use capnp::traits::HasStructSize;
use capos_config::capos_capnp::frame_allocator::{
    alloc_contiguous_params, alloc_contiguous_results,
};
use capos_config::ring::{CapCqe, CapSqe};

use super::{Refusal, malformed, message};
use crate::cap_table::{Hold, HoldOrigin};
use crate::dispatch::{Caller, Outcome};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::limits::OBJECT_PAGES_MAX;
use crate::machine::Machine;
use crate::memory::invalid;
use crate::objects::Object;
use crate::results::ResultCaps;
use crate::server::Server;
use crate::spawn::create_refused;

const ALLOC_FRAME: u16 = 0;
const ALLOC_CONTIGUOUS: u16 = 1;

/// Bytes of the result: the index of the only result capability.
const RESULT_BYTES: usize = 24;

impl<M: Machine> Server<M> {
    /// CALL to a `FrameAllocator`.
    pub(crate) fn call_frame_allocator(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Outcome {
        let allocated = match sqe.method_id {
            ALLOC_FRAME => self.allocate(machine, caller, sqe, 1),
            ALLOC_CONTIGUOUS => self
                .contiguous_count(machine, caller, sqe)
                .and_then(|count| self.allocate(machine, caller, sqe, count)),
            _ => Err(Exception::unimplemented().into()),
        };
        match allocated {
            Ok(cqe) => Outcome::Complete(cqe),
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    fn contiguous_count(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<u32, Refusal> {
        let params = self.fetch_params(machine, caller, sqe)?;
        let message = message(params, sqe)?;
        let root = message.get_root::<alloc_contiguous_params::Reader<'_>>();
        Ok(root.map_err(malformed)?.get_count())
    }

    fn allocate(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        pages: u32,
    ) -> Result<CapCqe, Refusal> {
        if pages == 0 {
            return Err(invalid("no pages asked for"));
        }
        self.check_allocation(caller, sqe, pages)?;
        // What was released before in this entry counts as released.
        self.reap(machine);
        let index = self.create_memory_object(machine, pages)?;
        let hold = match self.mint_object(Object::MemoryObject(index)) {
            Ok(hold) => Hold { pages, ..hold },
            Err(error) => {
                self.close_memory_object(machine, index);
                return Err(create_refused(&error).into());
            }
        };
        let mut given = ResultCaps::new();
        self.insert_result(caller.thread.pid, hold, HoldOrigin::ResultCap, &mut given)
            .map_err(|error| create_refused(&error))?;
        self.write_allocated(machine, caller, sqe, &given)
    }

    /// Checks before anything is made that the result can be given.
    fn check_allocation(&self, caller: Caller, sqe: &CapSqe, pages: u32) -> Result<(), Refusal> {
        let process = self.process(caller.thread.pid);
        let process = process.ok_or(invalid("no process"))?;
        if process.caps.preflight_pages(pages).is_err() {
            return Err(Exception::overloaded("frame grant quota exhausted").into());
        }
        if pages > OBJECT_PAGES_MAX {
            return Err(Exception::overloaded("no contiguous run of that length").into());
        }
        self.check_result_room(caller, sqe, RESULT_BYTES, 1)
    }

    fn write_allocated(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        given: &ResultCaps,
    ) -> Result<CapCqe, Refusal> {
        let mut result = [0; RESULT_BYTES];
        let len = emit_index(&mut result).unwrap_or(RESULT_BYTES);
        self.write_results(machine, caller, sqe, &result[..len], given)
    }
}

fn emit_index(out: &mut [u8]) -> Result<usize, NoRoom> {
    let size = <alloc_contiguous_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u16(root, 0, 0)?;
    message.finish()
}
