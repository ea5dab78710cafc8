//! What the server keeps for each process.

use capos_config::ring::CapCqe;

use crate::address_space::AddressSpace;
use crate::cap_table::CapTable;
use crate::deadline::Timer;
use crate::exception::Exception;
use crate::ids::{PROCESS_SLOTS, Pid, Tid};
use crate::limits::{Limits, SLEEPS_MAX, THREADS_MAX};
use crate::machine::RingPage;
use crate::ring::Ring;

/// The one thread blocked in `cap_enter` (a process has at most one).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) tid: Tid,
    pub(crate) min_complete: u32,
}

/// A process: its ring, its authority and what it waits for.
///
/// # Invariants
/// - **Q1** `outstanding` is the number of submissions taken from this ring
///   whose completion is still to be posted, parked threads not counted.
/// - **Q2** A timer of this process is armed exactly while its owner waits:
///   the waiter with a finite timeout, each sleep, each park with a timeout.
#[derive(Debug)]
pub(crate) struct Process<R> {
    pub(crate) pid: Pid,
    pub(crate) ring: Ring<R>,
    pub(crate) caps: CapTable,
    pub(crate) space: AddressSpace,
    pub(crate) limits: Limits,
    pub(crate) outstanding: u32,
    pub(crate) waiter: Option<Waiter>,
    /// `user_data` of each pending `Timer.sleep`.
    pub(crate) sleeps: [Option<u64>; SLEEPS_MAX],
}

impl<R: RingPage> Process<R> {
    /// Charges one operation that will complete later (Q1).
    ///
    /// # Errors
    /// An `overloaded` exception when the quota is spent.
    pub(crate) fn begin_outstanding(&mut self) -> Result<(), Exception> {
        if self.outstanding >= self.limits.outstanding_calls {
            return Err(Exception::overloaded("too many outstanding calls"));
        }
        self.outstanding += 1;
        Ok(())
    }

    /// Posts the completion of such an operation and gives its charge back.
    pub(crate) fn complete_outstanding(&mut self, cqe: &CapCqe) {
        self.outstanding -= 1;
        self.ring.complete(cqe);
    }
}

/// Which of a process's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerUse {
    /// Timeout of the blocked `cap_enter`.
    Enter,
    /// End of a `Timer.sleep`.
    Sleep(usize),
    /// Timeout of the parked thread in this slot.
    Park(usize),
}

const TIMERS_PER_PROCESS: usize = 1 + SLEEPS_MAX + THREADS_MAX;
/// Timers of all processes.
pub(crate) const TIMERS: usize = PROCESS_SLOTS * TIMERS_PER_PROCESS;

const _: () = assert!(TIMERS < Timer::MAX as usize, "a timer number must fit");

/// Numbers a timer of the process in `slot`.
pub(crate) fn timer(slot: usize, timer_use: TimerUse) -> Timer {
    let within = match timer_use {
        TimerUse::Enter => 0,
        TimerUse::Sleep(index) => 1 + index,
        TimerUse::Park(index) => 1 + SLEEPS_MAX + index,
    };
    (slot * TIMERS_PER_PROCESS + within) as Timer
}

/// Inverse of [`timer`].
pub(crate) fn timer_owner(timer: Timer) -> (usize, TimerUse) {
    let slot = usize::from(timer) / TIMERS_PER_PROCESS;
    let timer_use = match usize::from(timer) % TIMERS_PER_PROCESS {
        0 => TimerUse::Enter,
        sleep @ 1..=SLEEPS_MAX => TimerUse::Sleep(sleep - 1),
        park => TimerUse::Park(park - 1 - SLEEPS_MAX),
    };
    (slot, timer_use)
}

/// All timers of the process in `slot`.
pub(crate) fn timers_of(slot: usize) -> impl Iterator<Item = Timer> {
    let first = slot * TIMERS_PER_PROCESS;
    (first..first + TIMERS_PER_PROCESS).map(|timer| timer as Timer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_numbers_are_a_bijection() {
        let uses = core::iter::once(TimerUse::Enter)
            .chain((0..SLEEPS_MAX).map(TimerUse::Sleep))
            .chain((0..THREADS_MAX).map(TimerUse::Park));
        for (within, timer_use) in uses.enumerate() {
            for slot in [0, 1, PROCESS_SLOTS - 1] {
                let number = timer(slot, timer_use);
                assert_eq!(timer_owner(number), (slot, timer_use));
                assert_eq!(timers_of(slot).nth(within), Some(number));
            }
        }
    }
}
