//! Transfers: descriptors, and the pins that hold a transfer between prepare
//! and commit.
//!
//! # Theory of operation
//! *Prepare* copies the descriptors out of client memory once, validates all of
//! them, then checks and pins each source: a reference is taken, the source of
//! a move is reserved. *Commit* inserts every hold at the receiver, writes what
//! the receiver is told, and only then removes the sources of moves. A failure
//! at any point undoes all of it: neither table has changed.
//!
//! # Invariants
//! - **X1** A pin carries one reference to its object and epoch, until its hold
//!   is inserted somewhere (the reference goes with it) or it is rolled back.
//! - **X2** A reserved source belongs to exactly one pin.

use capos_config::ring::{
    CAP_ERR_INVALID_PARAMS_BUFFER, CAP_ERR_INVALID_TRANSFER_DESCRIPTOR, CAP_ERR_TRANSFER_ABORTED,
    CAP_ERR_TRANSFER_NOT_SUPPORTED, CAP_TRANSFER_DESCRIPTOR_SIZE, CAP_TRANSFER_MODE_MOVE,
    CAP_TRANSFER_RESULT_SIZE, CapSqe, CapTransferDescriptor, CapTransferResult,
    MAX_TRANSFER_DESCRIPTORS, is_valid_transfer_descriptor, transfer_descriptor_region_end,
    transfer_descriptor_region_start,
};
use core::mem::offset_of;

use crate::cap_table::{CapError, CapId, CapTable, Hold, HoldOrigin, Prepared, TransferKind};
use crate::machine::Machine;
use crate::objects::Objects;
use crate::pool::Pool;
use crate::process::Process;

const NONE: u32 = u32::MAX;
const DESCRIPTOR_BYTES_MAX: usize = MAX_TRANSFER_DESCRIPTORS * CAP_TRANSFER_DESCRIPTOR_SIZE;
/// Bytes of the result-capability records of one completion, at most.
pub(crate) const RECORD_BYTES_MAX: usize = MAX_TRANSFER_DESCRIPTORS * CAP_TRANSFER_RESULT_SIZE;

/// Descriptors of one submission, copied and validated.
pub(crate) struct Descriptors {
    bytes: [u8; DESCRIPTOR_BYTES_MAX],
    count: usize,
}

impl Descriptors {
    /// Copies and validates the descriptors behind a submission's payload.
    ///
    /// # Errors
    /// −7 for a descriptor or region that breaks the rules, −2 for a region
    /// that cannot be read.
    pub(crate) fn load<M: Machine>(
        machine: &mut M,
        process: &Process<M::Ring>,
        sqe: &CapSqe,
    ) -> Result<Self, i32> {
        let count = usize::from(sqe.xfer_cap_count);
        let malformed = CAP_ERR_INVALID_TRANSFER_DESCRIPTOR;
        if count > MAX_TRANSFER_DESCRIPTORS {
            return Err(malformed);
        }
        let start = transfer_descriptor_region_start(sqe.addr, sqe.len).ok_or(malformed)?;
        transfer_descriptor_region_end(sqe.addr, sqe.len, sqe.xfer_cap_count).ok_or(malformed)?;
        let mut bytes = [0; DESCRIPTOR_BYTES_MAX];
        let region = &mut bytes[..count * CAP_TRANSFER_DESCRIPTOR_SIZE];
        if !process.space.is_readable(start, region.len() as u64) {
            return Err(CAP_ERR_INVALID_PARAMS_BUFFER);
        }
        machine
            .read(process.pid, start, region)
            .map_err(|_| CAP_ERR_INVALID_PARAMS_BUFFER)?;
        let descriptors = Self { bytes, count };
        if descriptors.iter().all(is_valid_transfer_descriptor) {
            Ok(descriptors)
        } else {
            Err(malformed)
        }
    }

    fn iter(&self) -> impl Iterator<Item = CapTransferDescriptor> {
        self.bytes
            .chunks_exact(CAP_TRANSFER_DESCRIPTOR_SIZE)
            .take(self.count)
            .map(parse_descriptor)
    }
}

fn parse_descriptor(bytes: &[u8]) -> CapTransferDescriptor {
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let low = half(offset_of!(CapTransferDescriptor, cap_id));
    let high = half(offset_of!(CapTransferDescriptor, cap_id) + 2);
    CapTransferDescriptor {
        cap_id: u32::from(low) | u32::from(high) << 16,
        transfer_mode: half(offset_of!(CapTransferDescriptor, transfer_mode)),
        _reserved0: half(offset_of!(CapTransferDescriptor, _reserved0)),
    }
}

/// What a client is told about a source that cannot be transferred.
fn source_error(error: CapError) -> i32 {
    match error {
        CapError::TransferNotAllowed => CAP_ERR_TRANSFER_NOT_SUPPORTED,
        CapError::NotFound | CapError::StaleGeneration | CapError::Revoked => {
            CAP_ERR_INVALID_TRANSFER_DESCRIPTOR
        }
        CapError::TransferPending
        | CapError::InvalidTransferOrigin
        | CapError::SlotsExhausted
        | CapError::PagesExhausted => CAP_ERR_TRANSFER_ABORTED,
    }
}

#[derive(Clone, Copy, Debug)]
struct Pin {
    prepared: Prepared,
    inserted: Option<CapId>,
    next: u32,
}

/// The pins of one transfer, in descriptor order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "pins hold references until they are committed or rolled back"]
pub(crate) struct PinList {
    head: u32,
    count: u16,
}

impl PinList {
    /// A transfer of nothing.
    pub(crate) const EMPTY: Self = Self {
        head: NONE,
        count: 0,
    };

    /// Number of capabilities.
    pub(crate) const fn count(self) -> u16 {
        self.count
    }
}

/// Storage of all pins.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    pool: Pool<Pin>,
}

impl Pins {
    pub(crate) fn with_capacity(capacity: u32) -> Self {
        Self {
            pool: Pool::with_capacity(capacity),
        }
    }

    /// Checks and pins every source, or none.
    ///
    /// # Errors
    /// The transport error for the first source that cannot be transferred.
    pub(crate) fn prepare(
        &mut self,
        descriptors: &Descriptors,
        caps: &mut CapTable,
        origin: HoldOrigin,
        objects: &mut Objects,
    ) -> Result<PinList, i32> {
        let mut list = PinList::EMPTY;
        let mut tail = NONE;
        for descriptor in descriptors.iter() {
            match self.pin(descriptor, caps, origin, objects) {
                Ok(index) => tail = self.append(&mut list, tail, index),
                Err(code) => {
                    self.rollback(list, Some(caps), objects, |_| {});
                    return Err(code);
                }
            }
        }
        Ok(list)
    }

    fn pin(
        &mut self,
        descriptor: CapTransferDescriptor,
        caps: &mut CapTable,
        origin: HoldOrigin,
        objects: &mut Objects,
    ) -> Result<u32, i32> {
        if self.pool.available() == 0 {
            return Err(CAP_ERR_TRANSFER_ABORTED);
        }
        let kind = if descriptor.transfer_mode == CAP_TRANSFER_MODE_MOVE {
            TransferKind::Move
        } else {
            TransferKind::Copy
        };
        let id = CapId::from_raw(descriptor.cap_id);
        let prepared = caps
            .prepare(id, kind, origin, objects)
            .map_err(source_error)?;
        let pin = Pin {
            prepared,
            inserted: None,
            next: NONE,
        };
        self.pool.insert(pin).map_err(|_| CAP_ERR_TRANSFER_ABORTED)
    }

    fn append(&mut self, list: &mut PinList, tail: u32, index: u32) -> u32 {
        match self.pool.get_mut(tail) {
            Some(last) => last.next = index,
            None => list.head = index,
        }
        list.count += 1;
        index
    }

    /// Whether every hold of the list may cross between these sessions.
    pub(crate) fn may_cross(&self, list: PinList, same_session: bool) -> bool {
        same_session || self.iter(list).all(|pin| pin.prepared.crosses)
    }

    /// Inserts every hold at the receiver, or none.
    ///
    /// # Errors
    /// [`CapError::SlotsExhausted`] or [`CapError::PagesExhausted`].
    pub(crate) fn insert(
        &mut self,
        list: PinList,
        receiver: &mut CapTable,
    ) -> Result<(), CapError> {
        receiver.preflight(list.count.into())?;
        let pages = self.iter(list).map(|pin| pin.prepared.hold.pages);
        receiver.preflight_pages(pages.sum())?;
        let mut at = list.head;
        while let Some(pin) = self.pool.get_mut(at) {
            pin.inserted = receiver.insert(pin.prepared.hold).ok();
            at = pin.next;
        }
        Ok(())
    }

    /// Takes the inserted holds out again; the pins are as after prepare.
    pub(crate) fn withdraw(&mut self, list: PinList, receiver: &mut CapTable) {
        let mut at = list.head;
        while let Some(pin) = self.pool.get_mut(at) {
            if let Some(id) = pin.inserted.take() {
                let taken = receiver.remove(id);
                debug_assert!(taken.is_ok(), "X1: an inserted hold is removable");
            }
            at = pin.next;
        }
    }

    /// Writes the result-capability records of inserted holds.
    pub(crate) fn emit_records(&self, list: PinList, out: &mut [u8; RECORD_BYTES_MAX]) -> usize {
        let records = out.chunks_exact_mut(CAP_TRANSFER_RESULT_SIZE);
        for (pin, record) in self.iter(list).zip(records) {
            let id = pin.inserted.map_or(u32::MAX, CapId::raw);
            let interface = pin.prepared.hold.interface_id;
            let id_at = offset_of!(CapTransferResult, cap_id);
            let interface_at = offset_of!(CapTransferResult, interface_id);
            record.fill(0);
            record[id_at..id_at + 4].copy_from_slice(&id.to_le_bytes());
            record[interface_at..interface_at + 8].copy_from_slice(&interface.to_le_bytes());
        }
        usize::from(list.count) * CAP_TRANSFER_RESULT_SIZE
    }

    /// Completes a transfer whose holds are inserted: removes the sources of
    /// moves (`sender` is `None` if that process ended) and forgets the pins.
    /// Each removed hold's reference goes to `release`.
    pub(crate) fn commit(
        &mut self,
        list: PinList,
        mut sender: Option<&mut CapTable>,
        mut release: impl FnMut(Hold),
    ) {
        let mut at = list.head;
        while let Some(pin) = self.pool.remove(at) {
            if let (Some(source), Some(sender)) = (pin.prepared.source, sender.as_deref_mut()) {
                match sender.commit_move(source) {
                    Ok(hold) => release(hold),
                    Err(_) => debug_assert!(false, "X2: a reserved source is there"),
                }
            }
            at = pin.next;
        }
    }

    /// Undoes a prepared transfer: sources are given back, references dropped.
    /// Objects that lose their last reference go to `dead`.
    pub(crate) fn rollback(
        &mut self,
        list: PinList,
        mut sender: Option<&mut CapTable>,
        objects: &mut Objects,
        mut dead: impl FnMut(crate::objects::Object),
    ) {
        let mut at = list.head;
        while let Some(pin) = self.pool.remove(at) {
            if let (Some(source), Some(sender)) = (pin.prepared.source, sender.as_deref_mut()) {
                let given_back = sender.rollback_move(source);
                debug_assert!(given_back.is_ok(), "X2: a reserved source is there");
            }
            let hold = pin.prepared.hold;
            if let Some(object) = objects.release(hold.object, hold.epoch) {
                dead(object);
            }
            at = pin.next;
        }
    }

    fn iter(&self, list: PinList) -> impl Iterator<Item = &Pin> {
        let mut at = list.head;
        core::iter::from_fn(move || {
            let pin = self.pool.get(at)?;
            at = pin.next;
            Some(pin)
        })
    }

    /// Every hold that is on its way.
    pub(crate) fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.pool.iter().map(|(_, pin)| &pin.prepared.hold)
    }

    /// Pins in use: each is one reference, and a reserved source if it moves.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let moves = self
            .pool
            .iter()
            .filter(|(_, p)| p.prepared.source.is_some());
        (self.pool.iter().count() as u64, moves.count() as u64)
    }

    /// Asserts that the lists given are all there is.
    pub(crate) fn check(&self, lists: impl Iterator<Item = PinList>) {
        self.pool.check();
        let listed: usize = lists.map(|list| self.iter(list).count()).sum();
        assert_eq!(listed, self.pool.iter().count(), "X1: a pin was lost");
    }
}
