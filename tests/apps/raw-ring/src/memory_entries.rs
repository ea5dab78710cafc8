//! Memory capabilities over the raw ring: one function per method, with the
//! entry it submits kept apart, so that it can be timed or sent otherwise.

use alloc::vec::Vec;

use capnp::message::{Builder, HeapAllocator};
use capos::capos_capnp::{frame_allocator, memory_object, virtual_memory};
use capos::{CapCqe, CapSqe, CapabilityType, MemoryObject};

use crate::proof::{Failure, Proof, that};
use crate::{Mailbox, RawRing, Sqe, call};

/// Room for the answer of every method here.
pub const ANSWER_BYTES: usize = 256;

/// Methods of `VirtualMemory`.
pub mod vm {
    /// `map`.
    pub const MAP: u16 = 0;
    /// `unmap`.
    pub const UNMAP: u16 = 1;
}

/// Methods of `FrameAllocator`.
pub mod frames {
    /// `allocFrame`.
    pub const ALLOC_FRAME: u16 = 0;
    /// `allocContiguous`.
    pub const ALLOC_CONTIGUOUS: u16 = 1;
}

/// Methods of `MemoryObject`.
pub mod object {
    /// `map`.
    pub const MAP: u16 = 1;
    /// `unmap`.
    pub const UNMAP: u16 = 2;
}

fn words(message: &Builder<HeapAllocator>) -> Vec<u8> {
    capnp::serialize::write_message_to_words(message)
}

/// Params of `VirtualMemory.map`.
pub fn map_params(hint: u64, size: u64, prot: u32) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params = message.init_root::<virtual_memory::map_params::Builder<'_>>();
    params.set_hint(hint);
    params.set_size(size);
    params.set_prot(prot);
    words(&message)
}

/// Params of `unmap`, of `VirtualMemory` and of `MemoryObject`.
pub fn unmap_params(addr: u64, size: u64) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params = message.init_root::<virtual_memory::unmap_params::Builder<'_>>();
    params.set_addr(addr);
    params.set_size(size);
    words(&message)
}

/// Params of `FrameAllocator.allocContiguous`.
pub fn contiguous_params(count: u32) -> Vec<u8> {
    let mut message = Builder::new_default();
    message
        .init_root::<frame_allocator::alloc_contiguous_params::Builder<'_>>()
        .set_count(count);
    words(&message)
}

/// Params of `MemoryObject.map` of a whole object.
pub fn object_map_params(size: u64, prot: u32) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params = message.init_root::<memory_object::map_params::Builder<'_>>();
    params.set_size(size);
    params.set_prot(prot);
    words(&message)
}

/// The address a `map` answered with.
///
/// # Errors
/// It was refused.
pub fn mapped_at(answer: &Mailbox, cqe: &CapCqe) -> Result<u64, Failure> {
    let mut bytes = answer.written(cqe)?;
    let bad = |_| Failure::new("the answer of map");
    let options = capos::default_reader_options();
    let message = capnp::serialize::read_message_from_flat_slice_no_alloc(&mut bytes, options);
    message
        .map_err(bad)?
        .get_root::<virtual_memory::map_results::Reader<'_>>()
        .map(|results| results.get_addr())
        .map_err(bad)
}

/// The object a `FrameAllocator` answered with.
///
/// # Errors
/// It was refused.
pub fn allocated(answer: &Mailbox, cqe: &CapCqe) -> Result<u32, Failure> {
    let records = answer.records(cqe)?;
    let object = records
        .first()
        .ok_or_else(|| Failure::new("no memory object"))?;
    that(
        object.interface_id == MemoryObject::INTERFACE_ID,
        "something else than a memory object",
    )?;
    Ok(object.cap_id)
}

/// Performs a method whose params are encoded already; the completion, with
/// the answer in `answer`.
///
/// # Errors
/// The completion does not come.
pub fn perform(
    ring: &mut RawRing,
    cap: u32,
    method: u16,
    params: &[u8],
    answer: &mut Mailbox,
) -> Result<CapCqe, Failure> {
    ring.perform(entry(cap, method, params, answer))
}

/// The entry [`perform`] submits.
pub fn entry(cap: u32, method: u16, params: &[u8], answer: &mut Mailbox) -> CapSqe {
    call(cap, method).params(params).result(answer.bytes_mut())
}

/// As [`perform`], for a method that answers nothing.
///
/// # Errors
/// It is refused.
pub fn expect_void(ring: &mut RawRing, cap: u32, method: u16, params: &[u8]) -> Proof {
    let entry = call(cap, method).params(params);
    ring.expect("a memory method", entry, 0).map(drop)
}
