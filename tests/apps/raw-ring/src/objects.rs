//! Memory objects and anonymous memory through the raw ring: the published
//! runtime has no client for `FrameAllocator` and `MemoryObject`.

use alloc::vec::Vec;

use capos::{capos_capnp, default_reader_options};
use capos_capnp::ExceptionType;
use capos_capnp::{frame_allocator, memory_object, virtual_memory};
use capos_config::MEMORY_OBJECT_INTERFACE_ID;
use capos_config::ring::{
    CAP_ERR_APPLICATION_EXCEPTION, CAP_OP_PARK, CAP_OP_UNPARK, CAP_SQE_THREAD_OWNED, CapCqe, CapSqe,
};

use crate::proof::{Failure, Proof, equal};
use crate::{Mailbox, RawRing, Sqe, call, entry, exception, release, threads};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Protection of ordinary memory.
pub const READ_WRITE: u32 = capos_config::VM_PROT_READ | capos_config::VM_PROT_WRITE;

/// What a call came to: a value, or why the system refused.
pub type Answer<T> = Result<Result<T, ExceptionType>, Failure>;

/// Has the value, or fails.
///
/// # Errors
/// The system refused.
pub fn granted<T>(what: &str, answer: Answer<T>) -> Result<T, Failure> {
    answer?.map_err(|kind| Failure::new(alloc::format!("{what}: {kind:?}")))
}

/// Has the refusal, or fails.
///
/// # Errors
/// The system did not refuse, or for another reason.
pub fn refused<T>(what: &str, answer: Answer<T>, kind: ExceptionType) -> Proof {
    match answer? {
        Ok(_) => Err(Failure::new(alloc::format!("{what}: not refused"))),
        Err(actual) => equal(what, actual, kind),
    }
}

struct Reply {
    cqe: CapCqe,
    mailbox: Mailbox,
}

fn request(ring: &mut RawRing, entry: CapSqe, params: &[u8]) -> Answer<Reply> {
    let mut mailbox = Mailbox::new(256);
    let cqe = ring.perform(entry.params(params).result(mailbox.bytes_mut()))?;
    if cqe.result == CAP_ERR_APPLICATION_EXCEPTION {
        return Ok(Err(exception::parse(mailbox.bytes())?.0));
    }
    if cqe.result < 0 {
        return Err(Failure::new(alloc::format!(
            "transport error {}",
            cqe.result
        )));
    }
    Ok(Ok(Reply { cqe, mailbox }))
}

/// The first word of a result.
fn word(reply: &Reply) -> Result<u64, Failure> {
    let short = |_| Failure::new("a result without its word");
    let written = reply.mailbox.written(&reply.cqe)?;
    let message = capnp::serialize::read_message_from_flat_slice_no_alloc(
        &mut &written[..],
        default_reader_options(),
    )
    .map_err(short)?;
    let root = message.get_root::<virtual_memory::map_results::Reader<'_>>();
    Ok(root.map_err(short)?.get_addr())
}

/// A result of no bytes.
fn nothing(reply: &Reply) -> Proof {
    equal(
        "a void result",
        (reply.cqe.result, reply.cqe.cap_count),
        (0, 0),
    )
}

fn and_then<T, U>(answer: Answer<T>, next: impl FnOnce(T) -> Result<U, Failure>) -> Answer<U> {
    match answer? {
        Ok(value) => next(value).map(Ok),
        Err(kind) => Ok(Err(kind)),
    }
}

/// A `FrameAllocator`.
#[derive(Clone, Copy)]
pub struct Frames(pub u32);

impl Frames {
    /// `allocFrame`.
    ///
    /// # Errors
    /// Anything but an object or an exception comes back.
    pub fn one(self, ring: &mut RawRing) -> Answer<Object> {
        let message = capnp::message::Builder::new_default();
        Self::object(request(ring, call(self.0, 0), &words(message)))
    }

    /// `allocContiguous`.
    ///
    /// # Errors
    /// As [`Frames::one`].
    pub fn contiguous(self, ring: &mut RawRing, count: u32) -> Answer<Object> {
        let mut message = capnp::message::Builder::new_default();
        message
            .init_root::<frame_allocator::alloc_contiguous_params::Builder<'_>>()
            .set_count(count);
        Self::object(request(ring, call(self.0, 1), &words(message)))
    }

    fn object(answer: Answer<Reply>) -> Answer<Object> {
        and_then(answer, |reply| {
            let index = (word(&reply)? & 0xffff) as usize;
            let records = reply.mailbox.records(&reply.cqe)?;
            let record = records.get(index);
            let record = record.ok_or_else(|| Failure::new("no capability at handleIndex"))?;
            equal("number of capabilities", records.len(), 1)?;
            equal(
                "its interface",
                record.interface_id,
                MEMORY_OBJECT_INTERFACE_ID,
            )?;
            Ok(Object(record.cap_id))
        })
    }
}

/// A `MemoryObject`.
#[derive(Clone, Copy, Debug)]
pub struct Object(pub u32);

impl Object {
    /// `info`: pages and bytes.
    ///
    /// # Errors
    /// Anything but a result or an exception comes back.
    pub fn info(self, ring: &mut RawRing) -> Answer<(u32, u64)> {
        let message = capnp::message::Builder::new_default();
        and_then(request(ring, call(self.0, 0), &words(message)), |reply| {
            let bad = |_| Failure::new("info");
            let message = capnp::serialize::read_message_from_flat_slice_no_alloc(
                &mut reply.mailbox.written(&reply.cqe)?,
                default_reader_options(),
            )
            .map_err(bad)?;
            let root = message.get_root::<memory_object::info_results::Reader<'_>>();
            let root = root.map_err(bad)?;
            Ok((root.get_page_count(), root.get_size_bytes()))
        })
    }

    /// `map`; hint 0 leaves the choice to the system.
    ///
    /// # Errors
    /// As [`Object::info`].
    pub fn map(
        self,
        ring: &mut RawRing,
        hint: u64,
        (offset, size): (u64, u64),
        prot: u32,
    ) -> Answer<u64> {
        let mut message = capnp::message::Builder::new_default();
        let mut params = message.init_root::<memory_object::map_params::Builder<'_>>();
        params.set_hint(hint);
        params.set_offset(offset);
        params.set_size(size);
        params.set_prot(prot);
        and_then(request(ring, call(self.0, 1), &words(message)), |reply| {
            word(&reply)
        })
    }

    /// `unmap`.
    ///
    /// # Errors
    /// As [`Object::info`].
    pub fn unmap(self, ring: &mut RawRing, addr: u64, size: u64) -> Answer<()> {
        let mut message = capnp::message::Builder::new_default();
        let mut params = message.init_root::<memory_object::unmap_params::Builder<'_>>();
        params.set_addr(addr);
        params.set_size(size);
        and_then(request(ring, call(self.0, 2), &words(message)), |reply| {
            nothing(&reply)
        })
    }

    /// `protect`.
    ///
    /// # Errors
    /// As [`Object::info`].
    pub fn protect(self, ring: &mut RawRing, addr: u64, size: u64, prot: u32) -> Answer<()> {
        let mut message = capnp::message::Builder::new_default();
        let mut params = message.init_root::<memory_object::protect_params::Builder<'_>>();
        params.set_addr(addr);
        params.set_size(size);
        params.set_prot(prot);
        and_then(request(ring, call(self.0, 3), &words(message)), |reply| {
            nothing(&reply)
        })
    }

    /// RELEASE.
    ///
    /// # Errors
    /// It is not held.
    pub fn release(self, ring: &mut RawRing) -> Proof {
        ring.expect("RELEASE of an object", release(self.0), 0)
            .map(drop)
    }
}

/// `VirtualMemory.map` with ordinary protection.
///
/// # Errors
/// Anything but an address or an exception comes back.
pub fn map(ring: &mut RawRing, cap: u32, hint: u64, size: u64) -> Answer<u64> {
    let mut message = capnp::message::Builder::new_default();
    let mut params = message.init_root::<virtual_memory::map_params::Builder<'_>>();
    params.set_hint(hint);
    params.set_size(size);
    params.set_prot(READ_WRITE);
    and_then(request(ring, call(cap, 0), &words(message)), |reply| {
        word(&reply)
    })
}

/// `VirtualMemory.unmap`.
///
/// # Errors
/// Anything but nothing or an exception comes back.
pub fn unmap(ring: &mut RawRing, cap: u32, addr: u64, size: u64) -> Answer<()> {
    let mut message = capnp::message::Builder::new_default();
    let mut params = message.init_root::<virtual_memory::unmap_params::Builder<'_>>();
    params.set_addr(addr);
    params.set_size(size);
    and_then(request(ring, call(cap, 1), &words(message)), |reply| {
        nothing(&reply)
    })
}

/// PARK of the first thread on the word at `addr` while it is `expected`.
pub fn park(cap: u32, addr: u64, expected: u32, timeout_ns: u64) -> CapSqe {
    CapSqe {
        cap_id: cap,
        addr,
        len: expected,
        pipeline_dep: timeout_ns,
        flags: CAP_SQE_THREAD_OWNED,
        call_id: threads::MAIN,
        ..entry(CAP_OP_PARK)
    }
}

/// UNPARK of at most `most` threads.
pub fn unpark(cap: u32, addr: u64, most: u32) -> CapSqe {
    CapSqe {
        cap_id: cap,
        addr,
        len: most,
        ..entry(CAP_OP_UNPARK)
    }
}

fn words(mut message: capnp::message::Builder<capnp::message::HeapAllocator>) -> Vec<u8> {
    if message
        .get_root::<capnp::any_pointer::Builder<'_>>()
        .is_ok_and(|root| root.is_null())
    {
        message.init_root::<frame_allocator::alloc_frame_params::Builder<'_>>();
    }
    capnp::serialize::write_message_to_words(&message)
}

/// Reads a byte of memory that others may write.
///
/// # Safety
/// `addr` is mapped readable.
pub unsafe fn load(addr: u64) -> u8 {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::with_exposed_provenance::<u8>(addr as usize).read_volatile() }
}

/// Writes a byte of memory that others may read.
///
/// # Safety
/// `addr` is mapped writable, and nothing of Rust's lies there.
pub unsafe fn store(addr: u64, value: u8) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::with_exposed_provenance_mut::<u8>(addr as usize).write_volatile(value) }
}

/// A sum over memory, in which each byte's place counts.
///
/// # Safety
/// As [`load`], for `len` bytes.
pub unsafe fn checksum(addr: u64, len: u64) -> u64 {
    (0..len).fold(0xcbf2_9ce4_8422_2325, |sum, at| {
        // SAFETY: the caller's promise.
        let byte = unsafe { load(addr + at) };
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}
