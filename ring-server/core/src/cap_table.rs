//! The per-process capability table.
//!
//! A `CapId` is a claim, `generation:8 | index:24`; [`CapTable::lookup`] turns
//! it into a [`Hold`] or says why it cannot. The table counts no references:
//! a hold that goes in carries one, a hold that comes out gives it back (see
//! [`Objects`]). Behaviour follows `capos-lib`'s `cap_table`, which the tests
//! use as the oracle.
//!
//! # Invariants
//! - **T1** A slot's generation counts its removals and never wraps.
//! - **T2** A slot removed at the last generation retires: never free again.
//! - **T3** `free` holds exactly the empty slots that are not retired, last
//!   removed on top.
//! - **T4** `used` is the number of holds, at most `limit`.
//! - **T5** Only a slot with a hold can be reserved for a move.
//! - **T6** The holder is charged the pages of its holds and of its mappings of
//!   memory objects, within its limit.

use alloc::vec::Vec;

use crate::grants::transfer_mode;
use crate::limits::CAP_SLOTS_MAX;
use crate::objects::{EpochId, ObjectId, Objects};

const INDEX_BITS: u32 = 24;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
const GENERATION_MAX: u8 = u8::MAX;

const _: () = assert!(CAP_SLOTS_MAX <= 1 << INDEX_BITS, "an index must fit");

/// A process-local capability number: a claim until looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CapId(u32);

impl CapId {
    /// Wraps a number a client sent.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The number as it appears in ring entries and the CapSet page.
    pub const fn raw(self) -> u32 {
        self.0
    }

    const fn new(index: u32, generation: u8) -> Self {
        Self((generation as u32) << INDEX_BITS | index)
    }

    const fn index(self) -> usize {
        (self.0 & INDEX_MASK) as usize
    }

    const fn generation(self) -> u8 {
        (self.0 >> INDEX_BITS) as u8
    }
}

/// How a capability may leave its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferMode {
    /// It may not.
    NonTransferable,
    /// The receiver gets a second hold; may also be moved.
    Copy,
    /// The receiver gets the only hold.
    Move,
}

/// Which session boundaries a capability may cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferScope {
    /// None.
    SameSession,
    /// Any.
    CrossSessionShareable,
    /// Only through a trusted service that regrants into a fixed session.
    ServiceRegrantOnly,
}

/// Where a hold came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldOrigin {
    /// Minted by the server for this process.
    Kernel,
    /// Granted when the process was spawned.
    SpawnGrant,
    /// Arrived as a CALL descriptor.
    IpcTransfer,
    /// Arrived as a result capability.
    ResultCap,
    /// The parent's facet of an endpoint its child was spawned with.
    SpawnedEndpoint,
    /// Made by whoever holds the `SessionMint`, for another session.
    Minted,
}

/// One process's authority over one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The object.
    pub object: ObjectId,
    /// The cell that revokes this hold.
    pub epoch: EpochId,
    /// The cell's value when this hold was derived; any other value revokes.
    pub observed_epoch: u64,
    /// The interface this hold speaks: interface is permission.
    pub interface_id: u64,
    /// Delivered to the endpoint owner with each call.
    pub badge: u64,
    /// Caller-session fields that may be disclosed through this hold.
    pub disclosure_scope: u64,
    /// How it may leave.
    pub transfer_mode: TransferMode,
    /// How far it may go.
    pub transfer_scope: TransferScope,
    /// Where it came from.
    pub origin: HoldOrigin,
    /// Pages of memory that this hold keeps reachable, charged to its holder.
    pub pages: u32,
}

impl Hold {
    /// The hold as it arrives from here: what was minted for another session is
    /// an ordinary one there.
    fn arriving(self, origin: HoldOrigin, objects: &Objects) -> Self {
        let arriving = Self { origin, ..self };
        match objects.get(self.object) {
            Some(object) if self.origin == HoldOrigin::Minted => Self {
                transfer_mode: transfer_mode(object),
                transfer_scope: TransferScope::SameSession,
                ..arriving
            },
            _ => arriving,
        }
    }

    /// Whether it may enter another session from here.
    pub(crate) fn may_leave_session(&self) -> bool {
        self.allows_session_transfer(false, self.origin == HoldOrigin::Minted)
    }

    /// Whether the scope allows delivery into another or the same session.
    pub const fn allows_session_transfer(&self, same_session: bool, service_regrant: bool) -> bool {
        same_session
            || match self.transfer_scope {
                TransferScope::SameSession => false,
                TransferScope::CrossSessionShareable => true,
                TransferScope::ServiceRegrantOnly => service_regrant,
            }
    }
}

/// Why a table operation did not happen; the table is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapError {
    /// No such slot, or it is empty: the claim was never valid.
    NotFound,
    /// The slot was reused since: the holder released this claim.
    StaleGeneration,
    /// The epoch moved on: the authority was revoked.
    Revoked,
    /// The hold's transfer mode forbids it.
    TransferNotAllowed,
    /// The slot is reserved by a move that is under way.
    TransferPending,
    /// Only message and result transfers go through this operation.
    InvalidTransferOrigin,
    /// The slot quota is spent, or too many slots have retired.
    SlotsExhausted,
    /// The holder's quota of memory-object pages is spent.
    PagesExhausted,
}

/// What a prepared transfer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferKind {
    /// A second hold; the source stays. Needs mode Copy.
    Copy,
    /// The hold itself; the source is reserved until commit or rollback.
    /// Needs mode Copy or Move.
    Move,
}

/// A transfer that was checked and pinned but not inserted anywhere.
///
/// It carries one reference to the object and epoch; exactly one of commit
/// and rollback must consume it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a prepared transfer holds references and may reserve its source"]
pub struct Prepared {
    /// The hold as it will arrive.
    pub hold: Hold,
    /// The reserved source slot of a move.
    pub source: Option<CapId>,
    /// Whether it may enter another session than the sender's.
    pub crosses: bool,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hold: Option<Hold>,
    generation: u8,
    move_reserved: bool,
    retired: bool,
}

/// Memory of one capability slot in bytes: the slot, and its place in the free
/// list. A table has storage for all its slots from the start.
pub const CAP_SLOT_BYTES: usize = size_of::<Slot>() + size_of::<u32>();

const _: () = assert!(CAP_SLOT_BYTES <= 64, "a slot fits a cache line");

/// The capabilities of one process.
#[derive(Clone, Debug)]
pub struct CapTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    used: u32,
    limit: u32,
    /// Pages of the holds.
    held_pages: u32,
    /// Pages of memory objects that the holder maps.
    mapped_pages: u32,
    page_limit: u32,
}

impl CapTable {
    /// An empty table for at most `limit` holds, storage included.
    pub fn new(limit: u32) -> Self {
        Self {
            slots: Vec::with_capacity(CAP_SLOTS_MAX),
            free: Vec::with_capacity(CAP_SLOTS_MAX),
            used: 0,
            limit: limit.min(CAP_SLOTS_MAX as u32),
            held_pages: 0,
            mapped_pages: 0,
            page_limit: u32::MAX,
        }
    }

    /// Limits the pages of memory objects, held and mapped together.
    pub const fn with_page_limit(mut self, pages: u32) -> Self {
        self.page_limit = pages;
        self
    }

    /// Pages of memory objects, held and mapped.
    pub const fn charged_pages(&self) -> u32 {
        self.held_pages + self.mapped_pages
    }

    /// Whether `pages` more pages of memory objects are within the quota.
    ///
    /// # Errors
    /// [`CapError::PagesExhausted`].
    pub fn preflight_pages(&self, pages: u32) -> Result<(), CapError> {
        match self.charged_pages().checked_add(pages) {
            Some(total) if total <= self.page_limit => Ok(()),
            _ => Err(CapError::PagesExhausted),
        }
    }

    /// Charges pages that the holder maps.
    ///
    /// # Errors
    /// [`CapError::PagesExhausted`].
    pub fn charge_mapping(&mut self, pages: u32) -> Result<(), CapError> {
        self.preflight_pages(pages)?;
        self.mapped_pages += pages;
        Ok(())
    }

    /// Gives the charge for pages that were mapped back.
    pub fn release_mapping(&mut self, pages: u32) {
        debug_assert!(pages <= self.mapped_pages, "T6: mapped pages");
        self.mapped_pages = self.mapped_pages.saturating_sub(pages);
    }

    /// Pages of memory objects that the holder maps.
    pub(crate) const fn mapped_pages(&self) -> u32 {
        self.mapped_pages
    }

    /// Number of holds.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Number of slots whose generations are spent.
    pub fn retired(&self) -> u32 {
        self.slots.len() as u32 - self.used - self.free.len() as u32
    }

    /// Whether `count` holds can be inserted.
    ///
    /// # Errors
    /// [`CapError::SlotsExhausted`].
    pub fn preflight(&self, count: u32) -> Result<(), CapError> {
        let fresh = (count as usize).saturating_sub(self.free.len());
        let quota = self
            .used
            .checked_add(count)
            .is_some_and(|n| n <= self.limit);
        if quota && self.slots.len() + fresh <= CAP_SLOTS_MAX {
            Ok(())
        } else {
            Err(CapError::SlotsExhausted)
        }
    }

    /// Stores a hold; its reference passes to the table.
    ///
    /// # Errors
    /// [`CapError::SlotsExhausted`] or [`CapError::PagesExhausted`]; the
    /// reference stays with the caller.
    pub fn insert(&mut self, hold: Hold) -> Result<CapId, CapError> {
        self.preflight(1)?;
        self.preflight_pages(hold.pages)?;
        self.held_pages += hold.pages;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot {
                    hold: None,
                    generation: 0,
                    move_reserved: false,
                    retired: false,
                });
                self.slots.len() as u32 - 1
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.hold = Some(hold);
        slot.move_reserved = false;
        self.used += 1;
        Ok(CapId::new(index, slot.generation))
    }

    /// Empties a slot, revoked or not; its reference passes to the caller.
    ///
    /// # Errors
    /// [`CapError::NotFound`], [`CapError::StaleGeneration`], or
    /// [`CapError::TransferPending`].
    pub fn remove(&mut self, id: CapId) -> Result<Hold, CapError> {
        let slot = self.slot_mut(id)?;
        if slot.move_reserved {
            return Err(CapError::TransferPending);
        }
        let hold = slot.hold.take().ok_or(CapError::NotFound)?;
        slot.retired = slot.generation == GENERATION_MAX;
        if !slot.retired {
            slot.generation += 1;
            self.free.push(id.index() as u32);
        }
        self.used -= 1;
        self.held_pages -= hold.pages;
        Ok(hold)
    }

    /// The live hold a claim names.
    ///
    /// # Errors
    /// [`CapError::NotFound`], [`CapError::StaleGeneration`] or
    /// [`CapError::Revoked`].
    #[inline]
    pub fn lookup(&self, id: CapId, objects: &Objects) -> Result<&Hold, CapError> {
        let hold = self.peek(id)?;
        if objects.is_current(hold.epoch, hold.observed_epoch) {
            Ok(hold)
        } else {
            Err(CapError::Revoked)
        }
    }

    /// The hold a claim names, revoked or not.
    ///
    /// # Errors
    /// [`CapError::NotFound`] or [`CapError::StaleGeneration`].
    #[inline]
    pub fn peek(&self, id: CapId) -> Result<&Hold, CapError> {
        let slot = self.slots.get(id.index()).ok_or(CapError::NotFound)?;
        if slot.generation != id.generation() {
            return Err(CapError::StaleGeneration);
        }
        slot.hold.as_ref().ok_or(CapError::NotFound)
    }

    /// Checks and pins a transfer out of this table; takes one reference.
    ///
    /// # Errors
    /// Any [`CapError`] of lookup, [`CapError::TransferPending`],
    /// [`CapError::TransferNotAllowed`], or
    /// [`CapError::InvalidTransferOrigin`] for an origin that is not a
    /// message or result.
    pub fn prepare(
        &mut self,
        id: CapId,
        kind: TransferKind,
        origin: HoldOrigin,
        objects: &mut Objects,
    ) -> Result<Prepared, CapError> {
        if !matches!(origin, HoldOrigin::IpcTransfer | HoldOrigin::ResultCap) {
            return Err(CapError::InvalidTransferOrigin);
        }
        self.prepare_checked(id, kind, origin, objects, |mode| match kind {
            TransferKind::Copy => mode == TransferMode::Copy,
            TransferKind::Move => mode != TransferMode::NonTransferable,
        })
    }

    /// As [`CapTable::prepare`], for the grants of a spawn; a raw grant takes
    /// a copy whatever the transfer mode says.
    ///
    /// # Errors
    /// As [`CapTable::prepare`], without the origin check.
    pub fn prepare_spawn_grant(
        &mut self,
        id: CapId,
        kind: TransferKind,
        raw: bool,
        objects: &mut Objects,
    ) -> Result<Prepared, CapError> {
        self.prepare_checked(
            id,
            kind,
            HoldOrigin::SpawnGrant,
            objects,
            |mode| match kind {
                TransferKind::Copy => raw || mode == TransferMode::Copy,
                TransferKind::Move => mode != TransferMode::NonTransferable,
            },
        )
    }

    fn prepare_checked(
        &mut self,
        id: CapId,
        kind: TransferKind,
        origin: HoldOrigin,
        objects: &mut Objects,
        allowed: impl FnOnce(TransferMode) -> bool,
    ) -> Result<Prepared, CapError> {
        let hold = *self.lookup(id, objects)?;
        let slot = self.slot_mut(id)?;
        if slot.move_reserved {
            return Err(CapError::TransferPending);
        }
        if !allowed(hold.transfer_mode) {
            return Err(CapError::TransferNotAllowed);
        }
        slot.move_reserved = kind == TransferKind::Move;
        objects.retain(hold.object, hold.epoch);
        Ok(Prepared {
            hold: hold.arriving(origin, objects),
            source: (kind == TransferKind::Move).then_some(id),
            crosses: hold.may_leave_session(),
        })
    }

    /// Gives a move's source back to its holder.
    ///
    /// # Errors
    /// [`CapError::NotFound`] or [`CapError::StaleGeneration`].
    pub fn rollback_move(&mut self, id: CapId) -> Result<(), CapError> {
        let slot = self.slot_mut(id)?;
        if slot.hold.is_none() {
            return Err(CapError::NotFound);
        }
        slot.move_reserved = false;
        Ok(())
    }

    /// Removes a move's source; its reference passes to the caller.
    ///
    /// # Errors
    /// [`CapError::NotFound`], [`CapError::StaleGeneration`], or
    /// [`CapError::TransferNotAllowed`] if it was not reserved.
    pub fn commit_move(&mut self, id: CapId) -> Result<Hold, CapError> {
        let slot = self.slot_mut(id)?;
        if !slot.move_reserved {
            return Err(CapError::TransferNotAllowed);
        }
        slot.move_reserved = false;
        self.remove(id)
    }

    /// All holds in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (CapId, &Hold)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let hold = slot.hold.as_ref()?;
            Some((CapId::new(index as u32, slot.generation), hold))
        })
    }

    /// Empties the whole table, reservations included, giving each hold's
    /// reference to `release`.
    pub fn clear(&mut self, mut release: impl FnMut(Hold)) {
        for slot in self.slots.drain(..) {
            if let Some(hold) = slot.hold {
                release(hold);
            }
        }
        self.free.clear();
        self.used = 0;
        self.held_pages = 0;
    }

    /// Number of slots reserved by moves under way.
    pub(crate) fn reserved(&self) -> u32 {
        self.slots.iter().filter(|slot| slot.move_reserved).count() as u32
    }

    fn slot_mut(&mut self, id: CapId) -> Result<&mut Slot, CapError> {
        let slot = self.slots.get_mut(id.index()).ok_or(CapError::NotFound)?;
        if slot.generation != id.generation() {
            return Err(CapError::StaleGeneration);
        }
        Ok(slot)
    }

    /// Asserts T2 to T6.
    pub fn check(&self) {
        let live = self.slots.iter().filter(|s| s.hold.is_some()).count();
        assert_eq!(live, self.used as usize, "T4: used");
        assert!(self.used <= self.limit, "T4: limit");
        let holds = self.slots.iter().filter_map(|slot| slot.hold.as_ref());
        let pages: u32 = holds.map(|hold| hold.pages).sum();
        assert_eq!(pages, self.held_pages, "T6: pages of holds");
        assert!(self.charged_pages() <= self.page_limit, "T6: page limit");
        let reusable = |s: &Slot| s.hold.is_none() && !s.retired;
        assert_eq!(
            self.slots.iter().filter(|s| reusable(s)).count(),
            self.free.len(),
            "T3: free list length"
        );
        for &index in &self.free {
            assert!(reusable(&self.slots[index as usize]), "T3: slot {index}");
        }
        for (index, slot) in self.slots.iter().enumerate() {
            let sound = slot.hold.is_some() || !slot.move_reserved;
            assert!(sound, "T5: empty slot {index} is reserved");
            let spent = slot.hold.is_none() && slot.generation == GENERATION_MAX;
            assert!(spent || !slot.retired, "T2: slot {index} retired early");
        }
    }
}
