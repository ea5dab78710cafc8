//! Bytes of frames, through the window.
//!
//! A client may write to its pages while we read or write them. Rust's memory
//! model has no word for that, so no reference to such bytes is ever made and
//! no load or store of them is left to the compiler: the copies are string
//! instructions, opaque to it.

use core::arch::asm;

use crate::{Broker, BrokerError, FrameId, PAGE_BYTES, SpaceId};

const WORD_BYTES: usize = size_of::<u64>();

/// Fills the page at `address` with zeroes.
///
/// # Safety
/// `address` is page-aligned, and the page is mapped writable and is not
/// memory that Rust knows of.
pub unsafe fn zero_page(address: u64) {
    // SAFETY: the caller's promise; the direction flag is clear as the ABI has
    // it.
    unsafe {
        asm!(
            "rep stosq",
            inout("rcx") PAGE_BYTES as usize / WORD_BYTES => _,
            inout("rdi") address => _,
            in("rax") 0_u64,
            options(nostack, preserves_flags)
        );
    }
}

/// Copies `length` bytes, words first.
///
/// # Safety
/// The source is readable, the destination is writable, and they do not
/// overlap. If one of them is memory that Rust knows of, the caller has it to
/// itself.
unsafe fn copy(source: *const u8, destination: *mut u8, length: usize) {
    // SAFETY: the caller's promise; the direction flag is clear as the ABI has
    // it.
    unsafe {
        asm!(
            "rep movsq",
            "mov rcx, {tail}",
            "rep movsb",
            tail = in(reg) length % WORD_BYTES,
            inout("rcx") length / WORD_BYTES => _,
            inout("rsi") source => _,
            inout("rdi") destination => _,
            options(nostack, preserves_flags)
        );
    }
}

/// Splits `length` bytes at `vaddr` at page boundaries: address, and range in
/// the buffer.
fn pieces(vaddr: u64, length: usize) -> impl Iterator<Item = (u64, core::ops::Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = vaddr.wrapping_add(done as u64);
        let room = (PAGE_BYTES - at % PAGE_BYTES) as usize;
        let piece = done..length.min(done + room);
        done = piece.end;
        (!piece.is_empty()).then_some((at, piece))
    })
}

impl Broker {
    /// Copies bytes out of an allocated frame.
    ///
    /// # Errors
    /// [`BrokerError::BadFrame`] when it is not allocated or the range leaves
    /// it.
    pub fn read_frame(
        &self,
        frame: FrameId,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), BrokerError> {
        let source = self.frame_range(frame, offset, bytes.len())?;
        // SAFETY: W2 and `frame_range` make the source readable; `bytes` is
        // ours alone and no part of the window (W1).
        unsafe { copy(source, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies bytes into an allocated frame.
    ///
    /// # Errors
    /// As [`read_frame`](Self::read_frame).
    pub fn write_frame(
        &self,
        frame: FrameId,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), BrokerError> {
        let destination = self.frame_range(frame, offset, bytes.len())?;
        // SAFETY: W2 and `frame_range` make the destination writable; `bytes`
        // is no part of the window (W1).
        unsafe { copy(bytes.as_ptr(), destination, bytes.len()) };
        Ok(())
    }

    /// Copies bytes from a client's address space. What the client may do with
    /// them is not asked: that is the address map's business.
    ///
    /// # Errors
    /// [`BrokerError::NotMapped`] with the first address that has no page; the
    /// bytes before it were copied. Back it and try again.
    pub fn read_client(
        &self,
        space: SpaceId,
        vaddr: u64,
        bytes: &mut [u8],
    ) -> Result<(), BrokerError> {
        for (at, piece) in pieces(vaddr, bytes.len()) {
            let source = self.client_ptr(space, at)?;
            let part = &mut bytes[piece];
            // SAFETY: W2: the source is readable to the end of its page, and
            // `pieces` ends there; `part` is ours alone (W1).
            unsafe { copy(source, part.as_mut_ptr(), part.len()) };
        }
        Ok(())
    }

    /// Copies bytes into a client's address space; the counterpart of
    /// [`read_client`](Self::read_client).
    ///
    /// # Errors
    /// As [`read_client`](Self::read_client).
    pub fn write_client(
        &self,
        space: SpaceId,
        vaddr: u64,
        bytes: &[u8],
    ) -> Result<(), BrokerError> {
        for (at, piece) in pieces(vaddr, bytes.len()) {
            let destination = self.client_ptr(space, at)?;
            let part = &bytes[piece];
            // SAFETY: W2: the destination is writable to the end of its page,
            // and `pieces` ends there; `part` is not in the window (W1).
            unsafe { copy(part.as_ptr(), destination, part.len()) };
        }
        Ok(())
    }

    fn client_ptr(&self, space: SpaceId, vaddr: u64) -> Result<*mut u8, BrokerError> {
        let byte = self
            .client_byte(space, vaddr)
            .ok_or(BrokerError::NotMapped { vaddr })?;
        Ok(core::ptr::with_exposed_provenance_mut(byte as usize))
    }

    fn frame_range(
        &self,
        frame: FrameId,
        offset: usize,
        length: usize,
    ) -> Result<*mut u8, BrokerError> {
        let base = self.window_address(frame).ok_or(BrokerError::BadFrame)?;
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= PAGE_BYTES as usize);
        end.ok_or(BrokerError::BadFrame)?;
        Ok(core::ptr::with_exposed_provenance_mut(
            base as usize + offset,
        ))
    }
}
