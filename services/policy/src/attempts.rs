//! Attempts at a password: one is checked at a time, and wrong ones make the
//! next wait.
//!
//! The wait is counted from the end of the wrong attempt, doubles with each,
//! and is bounded, so that a person who mistypes is not locked out. It is the
//! same for everyone: whoever could shorten it by asking through another
//! session could guess in parallel.

use alloc::collections::VecDeque;

/// Attempts that may wait, besides the one being checked.
pub const WAITING_MAX: usize = 4;
/// The wait after the first wrong attempt.
pub const FIRST_DELAY_NS: u64 = 250_000_000;
/// The longest wait.
pub const DELAY_MAX_NS: u64 = 8_000_000_000;

/// Attempts that wait, and when the first of them may be checked.
#[derive(Clone, Debug)]
pub struct Attempts<T> {
    waiting: VecDeque<T>,
    checking: bool,
    failures: u32,
    not_before_ns: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Nothing, until something changes.
    Idle,
    /// Nothing, until this time.
    WaitUntil(u64),
    /// Check this one; [`Attempts::checked`] says how it ended.
    Check(T),
}

impl<T> Default for Attempts<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::with_capacity(WAITING_MAX),
            checking: false,
            failures: 0,
            not_before_ns: 0,
        }
    }
}

impl<T> Attempts<T> {
    /// Lets an attempt wait for its turn.
    ///
    /// # Errors
    /// The attempt itself, if too many wait.
    pub fn admit(&mut self, attempt: T) -> Result<(), T> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(attempt);
        }
        self.waiting.push_back(attempt);
        Ok(())
    }

    /// What is to be done at `now_ns`.
    pub fn step(&mut self, now_ns: u64) -> Step<T> {
        if self.checking || self.waiting.is_empty() {
            return Step::Idle;
        }
        if now_ns < self.not_before_ns {
            return Step::WaitUntil(self.not_before_ns);
        }
        let Some(attempt) = self.waiting.pop_front() else {
            return Step::Idle;
        };
        self.checking = true;
        Step::Check(attempt)
    }

    /// The attempt being checked ended: right, wrong, or without an answer,
    /// which changes nothing.
    pub fn checked(&mut self, now_ns: u64, right: Option<bool>) {
        self.checking = false;
        match right {
            Some(true) => (self.failures, self.not_before_ns) = (0, 0),
            Some(false) => {
                self.not_before_ns = now_ns.saturating_add(delay_ns(self.failures));
                self.failures = self.failures.saturating_add(1);
            }
            None => {}
        }
    }
}

/// The wait after `earlier` wrong attempts and one more.
fn delay_ns(earlier: u32) -> u64 {
    let doubled = FIRST_DELAY_NS.checked_shl(earlier.min(32));
    doubled.unwrap_or(DELAY_MAX_NS).min(DELAY_MAX_NS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_a_bound_and_end_with_success() {
        let mut attempts = Attempts::default();
        let mut now = 1_000;
        let mut expected = FIRST_DELAY_NS;
        for _ in 0..100 {
            attempts.admit(()).expect("nobody waits");
            assert_eq!(attempts.step(now), Step::Check(()));
            attempts.checked(now, Some(false));
            attempts.admit(()).expect("nobody waits");
            assert_eq!(attempts.step(now), Step::WaitUntil(now + expected));
            assert_eq!(
                attempts.step(now + expected - 1),
                Step::WaitUntil(now + expected)
            );
            now += expected;
            assert_eq!(attempts.step(now), Step::Check(()));
            attempts.checked(now, None);
            expected = (2 * expected).min(DELAY_MAX_NS);
        }
        attempts.admit(()).expect("nobody waits");
        assert_eq!(attempts.step(u64::MAX), Step::Check(()));
        attempts.checked(now, Some(true));
        attempts.admit(()).expect("nobody waits");
        assert_eq!(attempts.step(0), Step::Check(()), "the wait is over");
    }

    proptest! {
        /// At most one is checked at a time, in order, and a bounded number
        /// waits, whatever happens when.
        #[test]
        fn one_at_a_time_in_order(events in proptest::collection::vec((0u8..4, 0u64..1_000_000_000), 0..200)) {
            let mut attempts = Attempts::default();
            let (mut now, mut asked, mut taken) = (0u64, 0u32, 0u32);
            let mut last_wrong = None;
            let mut checking = false;
            for (event, passed) in events {
                now += passed;
                match event {
                    0 | 1 => {
                        let waiting = asked - taken;
                        match attempts.admit(asked) {
                            Ok(()) => asked += 1,
                            Err(refused) => {
                                prop_assert_eq!(refused, asked);
                                prop_assert_eq!(waiting as usize, WAITING_MAX);
                            }
                        }
                    }
                    2 => if checking {
                        let right = passed % 3 == 0;
                        attempts.checked(now, Some(right));
                        last_wrong = (!right).then_some(now);
                        checking = false;
                    },
                    _ => match attempts.step(now) {
                        Step::Idle => prop_assert!(checking || asked == taken),
                        Step::WaitUntil(at) => prop_assert!(at > now && at <= now + DELAY_MAX_NS),
                        Step::Check(attempt) => {
                            prop_assert!(!checking);
                            prop_assert_eq!(attempt, taken);
                            let since = last_wrong.map_or(u64::MAX, |wrong| now - wrong);
                            prop_assert!(since >= FIRST_DELAY_NS);
                            taken += 1;
                            checking = true;
                        }
                    }
                }
            }
        }
    }
}
