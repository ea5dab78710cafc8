//! Durations, and what is said of them.

use core::fmt;

use sel4::Result;

/// Rounds of each measurement, and those before that are not counted.
const ROUNDS: usize = 101;
const WARM_UP_ROUNDS: usize = 5;
/// Two readings of the counter with nothing in between.
const READING: u64 = 3;

/// The time-stamp counter.
#[inline(always)]
#[must_use]
pub fn ticks() -> u64 {
    // SAFETY: reading the counter touches no memory; the kernel leaves it on.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Sorted durations of one kind of action.
#[derive(Clone, Debug)]
pub struct Samples {
    sorted: [u64; ROUNDS],
}

impl Samples {
    /// Runs `action` again and again; it returns what the part that counts took.
    ///
    /// # Errors
    /// The first of `action`.
    pub fn take(mut action: impl FnMut() -> Result<u64>) -> Result<Self> {
        let mut sorted = [0; ROUNDS];
        for _ in 0..WARM_UP_ROUNDS {
            action()?;
        }
        for sample in &mut sorted {
            *sample = action()?;
        }
        sorted.sort_unstable();
        Ok(Self { sorted })
    }

    /// As [`take`](Self::take), timing all of `action`.
    ///
    /// # Errors
    /// The first of `action`.
    pub fn time(mut action: impl FnMut() -> Result<()>) -> Result<Self> {
        Self::take(|| timed(&mut action))
    }
}

/// What `action` takes.
///
/// # Errors
/// Those of `action`.
#[inline(always)]
pub fn timed(action: impl FnOnce() -> Result<()>) -> Result<u64> {
    let start = ticks();
    let outcome = action();
    let taken = ticks() - start;
    outcome?;
    Ok(taken.saturating_sub(READING))
}

/// `median=N min=N max=N samples=N*COUNT,...`.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sorted = &self.sorted;
        let (min, median, max) = (sorted[0], sorted[ROUNDS / 2], sorted[ROUNDS - 1]);
        write!(f, "median={median} min={min} max={max} samples=")?;
        for (index, run) in sorted.chunk_by(|a, b| a == b).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}*{}", run[0], run.len())?;
        }
        Ok(())
    }
}
