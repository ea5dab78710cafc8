//! Slots as objects of operations: copying, moving, deleting capabilities.

use crate::ipc_buffer::buffer;
use crate::{BADGE_MAX, Badge, CPtrWithDepth, CapRights, Error, Result, WORD_SIZE, Word, cap};

/// A slot named by a CNode and a path from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbsoluteCPtr {
    root: cap::CNode,
    path: CPtrWithDepth,
}

impl AbsoluteCPtr {
    pub(crate) const fn new(root: cap::CNode, path: CPtrWithDepth) -> Self {
        Self { root, path }
    }

    /// The CNode the path starts from.
    #[must_use]
    pub const fn root(&self) -> cap::CNode {
        self.root
    }

    /// The path.
    #[must_use]
    pub const fn path(&self) -> CPtrWithDepth {
        self.path
    }

    /// `seL4_CNode_Revoke`: deletes everything derived from the capability.
    ///
    /// # Errors
    /// [`Error::FailedLookup`] where the path leads nowhere. Deletion can be
    /// preempted by the kernel, but is always finished before returning.
    pub fn revoke(&self) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_CNode_Revoke(
                buffer(),
                self.root.bits(),
                self.path.bits(),
                self.path.depth_word(),
            )
        }
        .map_err(Error::from_raw)
    }

    /// `seL4_CNode_Delete`: empties the slot; the object goes with its last
    /// capability.
    ///
    /// # Errors
    /// [`Error::FailedLookup`] where the path leads nowhere. Deleting from an
    /// empty slot succeeds.
    #[inline]
    pub fn delete(&self) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_CNode_Delete(
                buffer(),
                self.root.bits(),
                self.path.bits(),
                self.path.depth_word(),
            )
        }
        .map_err(Error::from_raw)
    }

    /// `seL4_CNode_CancelBadgedSends`: withdraws the messages waiting to be
    /// sent with this endpoint capability's badge.
    ///
    /// # Errors
    /// [`Error::IllegalOperation`] where the capability lacks rights or is no
    /// badged endpoint; [`Error::FailedLookup`] where the path leads nowhere.
    pub fn cancel_badged_sends(&self) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_CNode_CancelBadgedSends(
                buffer(),
                self.root.bits(),
                self.path.bits(),
                self.path.depth_word(),
            )
        }
        .map_err(Error::from_raw)
    }

    /// `seL4_CNode_Copy`: puts a copy of `src` with at most `rights` here.
    ///
    /// # Errors
    /// [`Error::DeleteFirst`] where this slot is taken, [`Error::FailedLookup`]
    /// where either path leads nowhere or `src` is empty,
    /// [`Error::RevokeFirst`] where an untyped has children,
    /// [`Error::IllegalOperation`] where `src` cannot be copied.
    #[inline]
    pub fn copy(&self, src: &Self, rights: CapRights) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_CNode_Copy(
                buffer(),
                self.root.bits(),
                self.path.bits(),
                self.path.depth_word(),
                src.root.bits(),
                src.path.bits(),
                src.path.depth_word(),
                rights.bits(),
            )
        }
        .map_err(Error::from_raw)
    }

    /// `seL4_CNode_Mint`: as [`copy`](Self::copy), with a badge on an endpoint
    /// or notification.
    ///
    /// # Errors
    /// As for [`copy`](Self::copy), and [`Error::InvalidArgument`] where
    /// `badge` exceeds [`BADGE_MAX`]. Minting from a capability
    /// that is badged already fails with [`Error::IllegalOperation`].
    #[inline]
    #[allow(
        clippy::absurd_extreme_comparisons,
        reason = "on some kernels every word is a badge"
    )]
    pub fn mint(&self, src: &Self, rights: CapRights, badge: Badge) -> Result<()> {
        if badge > BADGE_MAX {
            return Err(Error::InvalidArgument);
        }
        self.mint_word(src, rights, badge)
    }

    /// `seL4_CNode_Mint` of a CNode capability: as [`copy`](Self::copy), with
    /// a guard.
    ///
    /// # Errors
    /// As for [`copy`](Self::copy).
    pub fn mint_guarded(&self, src: &Self, rights: CapRights, data: CNodeCapData) -> Result<()> {
        self.mint_word(src, rights, data.into_word())
    }

    /// Mints with a word whose meaning depends on the kind of capability.
    #[inline]
    pub(crate) fn mint_word(&self, src: &Self, rights: CapRights, data: Word) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_CNode_Mint(
                buffer(),
                self.root.bits(),
                self.path.bits(),
                self.path.depth_word(),
                src.root.bits(),
                src.path.bits(),
                src.path.depth_word(),
                rights.bits(),
                data,
            )
        }
        .map_err(Error::from_raw)
    }

    /// `seL4_CNode_Move`: moves the capability from `src` here.
    ///
    /// # Errors
    /// [`Error::DeleteFirst`] where this slot is taken, [`Error::FailedLookup`]
    /// where either path leads nowhere or `src` is empty.
    #[inline]
    pub fn move_(&self, src: &Self) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_CNode_Move(
                buffer(),
                self.root.bits(),
                self.path.bits(),
                self.path.depth_word(),
                src.root.bits(),
                src.path.bits(),
                src.path.depth_word(),
            )
        }
        .map_err(Error::from_raw)
    }

    /// `seL4_CNode_Mutate`: moves a CNode capability from `src` here and gives
    /// it a guard.
    ///
    /// # Errors
    /// As for [`move_`](Self::move_), and [`Error::IllegalOperation`] where the
    /// capability takes no such data.
    pub fn mutate(&self, src: &Self, data: CNodeCapData) -> Result<()> {
        self.mutate_word(src, data.into_word())
    }

    /// Mutates with a word whose meaning depends on the kind of capability.
    pub(crate) fn mutate_word(&self, src: &Self, data: Word) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_CNode_Mutate(
                buffer(),
                self.root.bits(),
                self.path.bits(),
                self.path.depth_word(),
                src.root.bits(),
                src.path.bits(),
                src.path.depth_word(),
                data,
            )
        }
        .map_err(Error::from_raw)
    }

    /// `seL4_CNode_SaveCaller`: puts the pending reply capability here, so
    /// that the caller can be answered later. Kernels with MCS do not have it.
    ///
    /// # Errors
    /// [`Error::DeleteFirst`] where this slot is taken, [`Error::FailedLookup`]
    /// where the path leads nowhere.
    #[cfg(sel4_has = "CNodeSaveCaller")]
    pub fn save_caller(&self) -> Result<()> {
        // SAFETY: B1.
        unsafe {
            sel4_raw::seL4_CNode_SaveCaller(
                buffer(),
                self.root.bits(),
                self.path.bits(),
                self.path.depth_word(),
            )
        }
        .map_err(Error::from_raw)
    }
}

/// Guard of a CNode capability (`seL4_CNode_CapData`, formerly
/// `seL4_CapData_Guard`): address bits that are compared instead of looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CNodeCapData(Word);

impl CNodeCapData {
    /// Keeps the guard the capability has.
    pub const KEEP: Self = Self(0);

    /// A guard of `guard_size` bits with value `guard`. Values too wide for
    /// the kernel's fields are cut.
    #[cfg(sel4_has = "seL4_CNode_CapData.guard")]
    #[must_use]
    pub const fn new(guard: Word, guard_size: usize) -> Self {
        Self(
            (guard & sel4_raw::seL4_CNode_CapData_guard_MASK)
                << sel4_raw::seL4_CNode_CapData_guard_SHIFT
                | (guard_size as Word & sel4_raw::seL4_CNode_CapData_guardSize_MASK)
                    << sel4_raw::seL4_CNode_CapData_guardSize_SHIFT,
        )
    }

    /// A guard of `guard_size` bits with value `guard`. Values too wide for
    /// the kernel's fields are cut.
    #[cfg(not(sel4_has = "seL4_CNode_CapData.guard"))]
    #[must_use]
    pub const fn new(guard: Word, guard_size: usize) -> Self {
        Self(
            sel4_raw::seL4_CapData_Guard_EMPTY
                | (guard & sel4_raw::seL4_CapData_Guard_GuardBits_MASK)
                    << sel4_raw::seL4_CapData_Guard_GuardBits_SHIFT
                | (guard_size as Word & sel4_raw::seL4_CapData_Guard_GuardSize_MASK)
                    << sel4_raw::seL4_CapData_Guard_GuardSize_SHIFT,
        )
    }

    /// The zero guard that fills what a CNode of `2^size_bits` slots leaves of
    /// a full-depth CPtr, so that its slots are numbered from zero.
    ///
    /// # Panics
    /// Where `size_bits` is zero or exceeds a word.
    #[must_use]
    pub const fn skip_high_bits(size_bits: usize) -> Self {
        assert!(size_bits > 0 && size_bits <= WORD_SIZE);
        Self::new(0, WORD_SIZE - size_bits)
    }

    /// As the kernel takes it.
    #[must_use]
    pub const fn into_word(self) -> Word {
        self.0
    }
}
