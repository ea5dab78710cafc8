//! Rights of a capability, built up from none.

use crate::Word;

/// `seL4_CapRights_t`. What a right allows depends on the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapRights(Word);

const READ: Word = 1 << sel4_raw::seL4_CapRights_capAllowRead_SHIFT;
const WRITE: Word = 1 << sel4_raw::seL4_CapRights_capAllowWrite_SHIFT;
const GRANT: Word = 1 << sel4_raw::seL4_CapRights_capAllowGrant_SHIFT;
#[cfg(sel4_has = "seL4_CapRights.capAllowGrantReply")]
const GRANT_REPLY: Word = 1 << sel4_raw::seL4_CapRights_capAllowGrantReply_SHIFT;
/// Older kernels have one right for both.
#[cfg(not(sel4_has = "seL4_CapRights.capAllowGrantReply"))]
const GRANT_REPLY: Word = GRANT;

impl CapRights {
    /// No rights (`seL4_NoRights`).
    #[must_use]
    pub const fn none() -> Self {
        Self(0)
    }

    /// Every right (`seL4_AllRights`).
    #[must_use]
    pub const fn all() -> Self {
        Self(READ | WRITE | GRANT | GRANT_REPLY)
    }

    /// `seL4_CanRead`: read a frame, receive, wait.
    #[must_use]
    pub const fn read_only() -> Self {
        Self(READ)
    }

    /// `seL4_CanWrite`: send, signal. x86 has no write-only frames.
    #[must_use]
    pub const fn write_only() -> Self {
        Self(WRITE)
    }

    /// `seL4_ReadWrite`: without grant.
    #[must_use]
    pub const fn read_write() -> Self {
        Self(READ | WRITE)
    }

    /// As the kernel takes it.
    #[must_use]
    pub const fn bits(self) -> Word {
        self.0
    }
}

/// Builds [`CapRights`] right by right.
#[derive(Clone, Copy, Debug, Default)]
pub struct CapRightsBuilder(Word);

impl CapRightsBuilder {
    /// Starts from no rights.
    #[must_use]
    pub const fn none() -> Self {
        Self(0)
    }

    /// Starts from every right.
    #[must_use]
    pub const fn all() -> Self {
        Self(CapRights::all().bits())
    }

    /// Adds or removes the right to read, receive or wait.
    #[must_use]
    pub const fn read(self, can: bool) -> Self {
        self.with(READ, can)
    }

    /// Adds or removes the right to write, send or signal.
    #[must_use]
    pub const fn write(self, can: bool) -> Self {
        self.with(WRITE, can)
    }

    /// Adds or removes the right to send capabilities, and on kernels up to 5
    /// to be answered.
    #[must_use]
    pub const fn grant(self, can: bool) -> Self {
        self.with(GRANT, can)
    }

    /// Adds or removes the right to be answered; the same as
    /// [`grant`](Self::grant) on kernels that do not tell them apart.
    #[must_use]
    pub const fn grant_reply(self, can: bool) -> Self {
        self.with(GRANT_REPLY, can)
    }

    /// The rights built.
    #[must_use]
    pub const fn build(self) -> CapRights {
        CapRights(self.0)
    }

    const fn with(self, right: Word, can: bool) -> Self {
        if can {
            Self(self.0 | right)
        } else {
            Self(self.0 & !right)
        }
    }
}
