//! Durations in ticks of the time stamp counter, and their one-line report.
//!
//! Where time is counted in instructions, a tick is one instruction, and the
//! counter is the same for all processes: a program can take the difference to
//! a moment that another one noted.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::x86_64::_rdtsc;

use crate::proof::Failure;

/// The time stamp counter.
pub fn ticks() -> u64 {
    // SAFETY: reading the counter touches no memory, and nothing here denies it.
    unsafe { _rdtsc() }
}

/// Durations of one kind of action.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    sorted: Vec<u64>,
}

impl Samples {
    /// No sample, with room for `capacity`, so that adding one takes no
    /// memory.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            sorted: Vec::with_capacity(capacity),
        }
    }

    /// Takes `rounds` samples of `action` after `warm_up` that are not kept.
    ///
    /// # Errors
    /// The first failure of `action`.
    pub fn take(
        warm_up: usize,
        rounds: usize,
        mut action: impl FnMut() -> Result<u64, Failure>,
    ) -> Result<Self, Failure> {
        let mut samples = Self::with_capacity(rounds);
        for round in 0..warm_up + rounds {
            let sample = action()?;
            if round >= warm_up {
                samples.add(sample);
            }
        }
        Ok(samples)
    }

    /// Adds one.
    pub fn add(&mut self, sample: u64) {
        let at = self.sorted.partition_point(|&other| other < sample);
        self.sorted.insert(at, sample);
    }

    /// The middle one; zero without samples.
    pub fn median(&self) -> u64 {
        self.at(self.sorted.len() / 2)
    }

    /// The smallest; zero without samples.
    pub fn min(&self) -> u64 {
        self.at(0)
    }

    /// The largest; zero without samples.
    pub fn max(&self) -> u64 {
        self.sorted.last().copied().unwrap_or(0)
    }

    /// `bench NAME median=N min=N max=N samples=N*COUNT,...`.
    pub fn line(&self, name: &str) -> String {
        let (median, min, max) = (self.median(), self.min(), self.max());
        let runs = self.sorted.chunk_by(|a, b| a == b);
        let runs: Vec<String> = runs
            .map(|run| format!("{}*{}", run[0], run.len()))
            .collect();
        let samples = runs.join(",");
        format!("bench {name} median={median} min={min} max={max} samples={samples}")
    }

    fn at(&self, index: usize) -> u64 {
        self.sorted.get(index).copied().unwrap_or(0)
    }
}
