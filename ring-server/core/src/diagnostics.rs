//! Reports of invalid submissions, rate limited per process and error.
//!
//! A report is made for the first [`BURST`] submissions per second that share
//! a key; the rest of that second is counted and reported as one sum. Keys are
//! remembered for a second; a process that makes more keys than fit has the
//! surplus counted too, so its output is bounded whatever it submits.

use crate::ids::Pid;

/// Reports of one key per second.
pub const BURST: u8 = 4;
/// Keys of one process per second.
pub const KEYS_MAX: usize = 16;
/// Length of the window in nanoseconds.
pub const WINDOW_NS: u64 = 1_000_000_000;

/// One line's worth of what a client did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diagnostic {
    /// A submission was refused.
    Invalid {
        /// The submitter.
        pid: Pid,
        /// The `CAP_ERR_*` code it got.
        error: i32,
        /// The submission's opcode.
        opcode: u8,
        /// The capability it named, or 0 if the entry's form was at fault.
        cap_id: u32,
    },
    /// Reports of one process that were held back in the past second.
    Suppressed {
        /// The submitter.
        pid: Pid,
        /// How many.
        count: u32,
        /// The last code among them.
        last_error: i32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    error: i32,
    opcode: u8,
    cap_id: u32,
}

/// The limiter of one process.
#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    keys: [(Option<Key>, u8); KEYS_MAX],
    window_end_ns: u64,
    suppressed: u32,
    last_error: i32,
}

impl Limiter {
    pub(crate) const fn new() -> Self {
        Self {
            keys: [(None, 0); KEYS_MAX],
            window_end_ns: 0,
            suppressed: 0,
            last_error: 0,
        }
    }

    /// Whether to report this submission now; counts it otherwise.
    pub(crate) fn admit(&mut self, error: i32, opcode: u8, cap_id: u32) -> bool {
        let key = Key {
            error,
            opcode,
            cap_id,
        };
        let known = self.keys.iter().position(|(k, _)| *k == Some(key));
        let slot = known.or_else(|| self.keys.iter().position(|(k, _)| k.is_none()));
        match slot.map(|slot| &mut self.keys[slot]) {
            Some(entry) if entry.1 < BURST => {
                *entry = (Some(key), entry.1 + 1);
                true
            }
            _ => {
                self.suppressed = self.suppressed.saturating_add(1);
                self.last_error = error;
                false
            }
        }
    }

    /// Whether a window is open.
    pub(crate) fn is_open(&self) -> bool {
        self.window_end_ns != 0
    }

    /// Opens a window that ends at the value returned.
    pub(crate) fn open(&mut self, now_ns: u64) -> u64 {
        self.window_end_ns = now_ns.saturating_add(WINDOW_NS);
        self.window_end_ns
    }

    /// Ends the window; returns the count and last code of what was held back.
    pub(crate) fn close(&mut self) -> Option<(u32, i32)> {
        let held_back = (self.suppressed > 0).then_some((self.suppressed, self.last_error));
        *self = Self::new();
        held_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_summed_and_a_new_key_is_still_reported() {
        let mut limiter = Limiter::new();
        limiter.open(0);
        let admitted = (0..1000).filter(|_| limiter.admit(-1, 9, 0)).count();
        assert_eq!(admitted, usize::from(BURST));
        assert!(limiter.admit(-4, 0, 7), "first observation of a new key");
        assert_eq!(limiter.close(), Some((996, -1)));
        assert!(limiter.admit(-1, 9, 0), "the next window starts afresh");
    }

    #[test]
    fn inventing_keys_does_not_get_around_the_limit() {
        let mut limiter = Limiter::new();
        limiter.open(0);
        let admitted = (0..100_000)
            .filter(|&cap| limiter.admit(-4, 0, cap))
            .count();
        assert!(admitted <= KEYS_MAX * usize::from(BURST));
    }
}
