//! The two buffers of an endpoint call: what is sent, and what arrives.

use alloc::vec;
use alloc::vec::Vec;
use core::ptr;

use capos_config::ring::{
    CAP_CQE_TRANSFER_RESULT_CAPS, CAP_TRANSFER_DESCRIPTOR_ALIGNMENT, CAP_TRANSFER_MODE_COPY,
    CAP_TRANSFER_MODE_MOVE, CAP_TRANSFER_RESULT_SIZE, CapCqe, CapTransferDescriptor,
    CapTransferResult, EndpointMessageHeader,
};

use crate::proof::Failure;

/// A descriptor that asks for a copy.
pub const fn copied(cap_id: u32) -> CapTransferDescriptor {
    CapTransferDescriptor {
        cap_id,
        transfer_mode: CAP_TRANSFER_MODE_COPY,
        _reserved0: 0,
    }
}

/// A descriptor that asks for a move.
pub const fn moved(cap_id: u32) -> CapTransferDescriptor {
    CapTransferDescriptor {
        cap_id,
        transfer_mode: CAP_TRANSFER_MODE_MOVE,
        _reserved0: 0,
    }
}

/// Params with transfer descriptors behind them, as CALL and RETURN take them.
pub struct Message {
    /// Words, so that a descriptor region behind 4-aligned params is aligned.
    words: Vec<u32>,
    params_len: usize,
    transfers: usize,
}

impl Message {
    /// `params` with `transfers` behind them.
    ///
    /// # Panics
    /// If there are transfers and the length of `params` is no multiple of
    /// four: the ABI has no place for them then.
    pub fn new(params: &[u8], transfers: &[CapTransferDescriptor]) -> Self {
        assert!(
            transfers.is_empty()
                || params
                    .len()
                    .is_multiple_of(CAP_TRANSFER_DESCRIPTOR_ALIGNMENT)
        );
        let mut words: Vec<u32> = params.chunks(4).map(word).collect();
        for descriptor in transfers {
            words.extend(descriptor_words(descriptor));
        }
        Self {
            words,
            params_len: params.len(),
            transfers: transfers.len(),
        }
    }

    /// The params alone; the descriptors lie behind them.
    pub fn params(&self) -> &[u8] {
        // SAFETY: the vector holds at least the params, and every byte of an
        // integer is one.
        unsafe { core::slice::from_raw_parts(self.words.as_ptr().cast(), self.params_len) }
    }

    /// Number of descriptors.
    pub fn transfer_count(&self) -> u16 {
        self.transfers as u16
    }

    /// Overwrites descriptor `index` where it lies.
    pub fn replace_transfer(&mut self, index: usize, descriptor: CapTransferDescriptor) {
        let at = self.params_len / 4 + 2 * index;
        for (offset, word) in descriptor_words(&descriptor).into_iter().enumerate() {
            // SAFETY: `at + offset` is inside by the indexing that takes the
            // address; volatile because another party reads it.
            unsafe { ptr::write_volatile(&raw mut self.words[at + offset], word) };
        }
    }

    /// Overwrites the params where they lie.
    pub fn fill_params(&mut self, byte: u8) {
        for word in &mut self.words[..self.params_len / 4] {
            // SAFETY: a valid place; volatile because another party reads it.
            unsafe { ptr::write_volatile(word, u32::from_le_bytes([byte; 4])) };
        }
    }
}

fn word(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}

fn descriptor_words(descriptor: &CapTransferDescriptor) -> [u32; 2] {
    let mode = u32::from(descriptor.transfer_mode);
    [
        descriptor.cap_id,
        mode | u32::from(descriptor._reserved0) << 16,
    ]
}

/// A capability that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number in this process.
    pub cap_id: u32,
    /// What it speaks.
    pub interface_id: u64,
}

/// Room for a message or a result.
pub struct Mailbox {
    bytes: Vec<u8>,
}

/// A call as its receiver sees it.
pub struct Delivery<'a> {
    /// The header.
    pub header: EndpointMessageHeader,
    /// The params.
    pub params: &'a [u8],
    /// What came with them.
    pub records: Vec<Record>,
    /// Names the call in RETURN.
    pub call_id: u32,
    /// Badge of the capability that was called.
    pub badge: u64,
}

impl Mailbox {
    /// Room for `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            bytes: vec![0xa5; bytes],
        }
    }

    /// What was written, and what was there before.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The room itself.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Reads a completed RECV.
    ///
    /// # Errors
    /// It was not completed with a message.
    pub fn delivery(&self, cqe: &CapCqe) -> Result<Delivery<'_>, Failure> {
        const HEADER_BYTES: usize = size_of::<EndpointMessageHeader>();
        let written = self.written(cqe)?;
        if written.len() < HEADER_BYTES || cqe.call_id == 0 {
            return Err(Failure::new("a received message lacks header or call id"));
        }
        // SAFETY: there are as many bytes as the header has, and any bytes are
        // a header: it holds integers only.
        let header: EndpointMessageHeader = unsafe { ptr::read_unaligned(written.as_ptr().cast()) };
        let params = &written[HEADER_BYTES..];
        if params.len() != header.params_len as usize {
            return Err(Failure::new(
                "header and completion differ about the length",
            ));
        }
        Ok(Delivery {
            header,
            params,
            records: self.records(cqe)?,
            call_id: cqe.call_id,
            badge: cqe.badge,
        })
    }

    /// The bytes a completion reports.
    ///
    /// # Errors
    /// It reports an error, or more than there is room for.
    pub fn written(&self, cqe: &CapCqe) -> Result<&[u8], Failure> {
        usize::try_from(cqe.result)
            .ok()
            .and_then(|len| self.bytes.get(..len))
            .ok_or_else(|| {
                Failure::new(alloc::format!(
                    "a result of {} for {} bytes of room",
                    cqe.result,
                    self.bytes.len()
                ))
            })
    }

    /// The capabilities a completion reports.
    ///
    /// # Errors
    /// The records are incomplete, or their count and the flag disagree.
    pub fn records(&self, cqe: &CapCqe) -> Result<Vec<Record>, Failure> {
        let flagged = cqe.flags & CAP_CQE_TRANSFER_RESULT_CAPS != 0;
        if flagged != (cqe.cap_count != 0) {
            return Err(Failure::new("flag and count of capabilities disagree"));
        }
        let start = self.written(cqe)?.len();
        let end = start + usize::from(cqe.cap_count) * CAP_TRANSFER_RESULT_SIZE;
        let records = self.bytes.get(start..end);
        let records = records.ok_or_else(|| Failure::new("records do not fit"))?;
        Ok(records
            .chunks_exact(CAP_TRANSFER_RESULT_SIZE)
            .map(record)
            .collect())
    }
}

fn record(bytes: &[u8]) -> Record {
    // SAFETY: the chunk is as long as a record, which holds integers only.
    let record: CapTransferResult = unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) };
    Record {
        cap_id: record.cap_id,
        interface_id: record.interface_id,
    }
}
