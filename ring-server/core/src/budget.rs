//! Processor time as a budget: so much in every period, and no more.
//!
//! A manifest gives a program its budget with a resource profile whose name is
//! [`PROGRAM_PROFILE`] and the program's, in the fields capOS has for it. What
//! keeps a budget is the machine; one that cannot says so in
//! [`Machine::keeps_budgets`](crate::Machine::keeps_budgets).

use capos_config::ManifestResourceProfile;

use crate::limits::THREADS_MAX;

/// What the name of a resource profile starts with that limits one program.
/// Names of programs have no colon, so no other profile is called that.
pub const PROGRAM_PROFILE: &str = "program:";

/// At most this many microseconds in every period of that many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuBudget {
    budget_us: u64,
    period_us: u64,
}

/// Such a budget cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetRefused {
    /// The budget is below [`CpuBudget::LEAST_US`].
    TooShort,
    /// The budget is not less than the period: that is no limit.
    NoLimit,
    /// The period is not within [`CpuBudget::PERIOD_LEAST_US`] and
    /// [`CpuBudget::PERIOD_MOST_US`].
    Period,
}

impl CpuBudget {
    /// The least budget, in microseconds: shared by as many threads as a
    /// process can have, each has more than entering and leaving the kernel
    /// takes at worst (20 µs by seL4's own estimate).
    pub const LEAST_US: u64 = 500;
    /// The shortest period, in microseconds. The end of a budget costs the
    /// machine a few, so this bounds what a program can spend by overrunning.
    pub const PERIOD_LEAST_US: u64 = 1_000;
    /// The longest period, in microseconds: nobody waits longer for its time.
    pub const PERIOD_MOST_US: u64 = 1_000_000;

    /// `budget_us` in every `period_us` microseconds.
    ///
    /// # Errors
    /// [`BudgetRefused`].
    pub const fn new(budget_us: u64, period_us: u64) -> Result<Self, BudgetRefused> {
        if period_us < Self::PERIOD_LEAST_US || period_us > Self::PERIOD_MOST_US {
            return Err(BudgetRefused::Period);
        }
        if budget_us < Self::LEAST_US {
            return Err(BudgetRefused::TooShort);
        }
        if budget_us >= period_us {
            return Err(BudgetRefused::NoLimit);
        }
        Ok(Self {
            budget_us,
            period_us,
        })
    }

    /// Microseconds in every period.
    pub const fn budget_us(self) -> u64 {
        self.budget_us
    }

    /// Length of the period in microseconds.
    pub const fn period_us(self) -> u64 {
        self.period_us
    }

    /// What each of so many threads may have for all of them to keep the
    /// budget. `threads` is at most [`THREADS_MAX`], and not zero.
    #[must_use]
    pub const fn shared_by(self, threads: usize) -> Self {
        Self {
            budget_us: self.budget_us / threads as u64,
            ..self
        }
    }
}

const _: () = assert!(
    CpuBudget::LEAST_US / THREADS_MAX as u64 > 20,
    "a share the kernel accepts"
);

/// The program that a resource profile limits, with its budget; `None` for
/// profiles of other kinds.
#[must_use]
pub fn program_budget(
    profile: &ManifestResourceProfile,
) -> Option<(&str, Result<CpuBudget, BudgetRefused>)> {
    let program = profile.name.strip_prefix(PROGRAM_PROFILE)?;
    let budget = CpuBudget::new(profile.cpu_budget_us_per_window, profile.cpu_window_us);
    Some((program, budget))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_limits_and_can_be_kept_is_a_budget() {
        let refused = |budget, period| CpuBudget::new(budget, period).unwrap_err();
        assert_eq!(refused(10_000, 10_000), BudgetRefused::NoLimit);
        assert_eq!(refused(499, 10_000), BudgetRefused::TooShort);
        assert_eq!(refused(0, 0), BudgetRefused::Period);
        assert_eq!(refused(500, 999), BudgetRefused::Period);
        assert_eq!(refused(500, 1_000_001), BudgetRefused::Period);
        assert_eq!(refused(u64::MAX, u64::MAX), BudgetRefused::Period);
        assert!(CpuBudget::new(500, 1_000).is_ok());
        assert!(CpuBudget::new(999_999, 1_000_000).is_ok());
    }

    #[test]
    fn shares_together_keep_the_budget() {
        let budget = CpuBudget::new(1_000, 10_000).expect("a budget");
        for threads in 1..=THREADS_MAX {
            let share = budget.shared_by(threads);
            assert!(share.budget_us() * threads as u64 <= 1_000);
            assert!(share.budget_us() > 20);
            assert_eq!(share.period_us(), 10_000);
        }
    }
}
