//! How much may be derived from a session's root, decided before minting.

/// Longest chain of capabilities derived from derived ones.
pub const DEPTH_MAX: u8 = 4;

/// What a session may still derive.
///
/// # Invariants
/// - **D1** As many derivations are live as were granted since the last
///   revocation and not given back, and never more than the limit.
#[derive(Debug)]
pub struct Budget {
    live: u32,
    limit: u32,
    /// Counts revocations: a derivation of an earlier round is dead.
    round: u64,
}

/// A capability that was derived, and how far from the root.
#[derive(Debug, PartialEq, Eq)]
pub struct Derivation {
    depth: u8,
    round: u64,
}

/// Nothing was derived: the session gives something back first, or derives from
/// what is nearer to its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// As many are live as may be.
    Count,
    /// The chain is as long as it may be.
    Depth,
    /// What it should derive from was revoked.
    Revoked,
}

impl Budget {
    /// For so many live derivations.
    #[must_use]
    pub const fn new(limit: u32) -> Self {
        Self {
            live: 0,
            limit,
            round: 0,
        }
    }

    /// One more, from the root (`None`) or from an earlier derivation.
    ///
    /// # Errors
    /// [`Exhausted`]; nothing changes.
    pub fn derive(&mut self, from: Option<&Derivation>) -> Result<Derivation, Exhausted> {
        if from.is_some_and(|from| from.round != self.round) {
            return Err(Exhausted::Revoked);
        }
        let depth = from.map_or(1, |from| from.depth + 1);
        if depth > DEPTH_MAX {
            return Err(Exhausted::Depth);
        }
        if self.live >= self.limit {
            return Err(Exhausted::Count);
        }
        self.live += 1;
        let round = self.round;
        Ok(Derivation { depth, round })
    }

    /// One was deleted; nothing changes where it was revoked before.
    pub fn give_back(&mut self, derivation: Derivation) {
        if derivation.round == self.round {
            self.live -= 1;
        }
    }

    /// The root was revoked, and with it everything derived.
    pub const fn revoke(&mut self) {
        self.live = 0;
        self.round += 1;
    }

    /// How many are live.
    #[must_use]
    pub const fn live(&self) -> u32 {
        self.live
    }
}
