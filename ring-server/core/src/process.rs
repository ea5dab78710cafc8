//! What the server keeps for each process.

use capos_config::ring::CapCqe;
use capos_loader::AddressMap;

use crate::cap_table::CapTable;
use crate::class::Class;
use crate::deadline::Timer;
use crate::diagnostics::Limiter;
use crate::exception::Exception;
use crate::ids::{PROCESS_SLOTS, Pid, Tid};
use crate::limits::{Limits, SLEEPS_MAX, THREADS_MAX};
use crate::machine::RingPage;
use crate::park::Park;
use crate::ring::Ring;
use crate::session::SessionId;

/// The one thread blocked in `cap_enter` (a process has at most one).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) tid: Tid,
    pub(crate) min_complete: u32,
}

/// What the handle on a thread keeps of its slot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observed {
    /// The record behind the handle, while the slot counts for it.
    pub(crate) record: Option<u32>,
    /// The thread ended and nobody joined it: its slot is not free yet.
    pub(crate) retained: bool,
}

/// What a process made and others may hold, as far as that is limited.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Made {
    /// KiB of pipe buffers.
    pub(crate) pipe_kib: u32,
    pub(crate) notifications: u32,
    /// Endpoints for others to serve.
    pub(crate) endpoints: u32,
    pub(crate) sessions: u32,
    pub(crate) launchers: u32,
}

impl Made {
    /// All of it, for the books.
    pub(crate) const fn total(self) -> u32 {
        let sessions = self.sessions + self.launchers;
        self.pipe_kib + self.notifications + self.endpoints + sessions
    }
}

/// A process: its ring, its authority and what it waits for.
///
/// # Invariants
/// - **Q1** `outstanding` and `receives` together are the number of submissions
///   taken from this ring whose completion is still to be posted, parked threads
///   not counted.
/// - **Q2** A timer of this process is armed exactly while its owner waits:
///   the waiter with a finite timeout, each sleep, each park with a timeout.
#[derive(Clone, Debug)]
pub(crate) struct Process<R> {
    pub(crate) pid: Pid,
    pub(crate) ring: Ring<R>,
    pub(crate) caps: CapTable,
    /// What its addresses mean: the one authority on buffers and faults.
    pub(crate) space: AddressMap,
    pub(crate) limits: Limits,
    pub(crate) outstanding: u32,
    /// Receives that wait at endpoints; not counted in `outstanding`.
    pub(crate) receives: u32,
    pub(crate) waiter: Option<Waiter>,
    /// `user_data` of each pending `Timer.sleep`.
    pub(crate) sleeps: [Option<u64>; SLEEPS_MAX],
    /// Live threads; a thread keeps its slot for life.
    pub(crate) threads: [Option<Tid>; THREADS_MAX],
    /// What handles keep of each thread slot.
    pub(crate) observed: [Observed; THREADS_MAX],
    next_tid: u32,
    /// What each thread slot is parked on.
    pub(crate) parks: [Option<Park>; THREADS_MAX],
    pub(crate) session: SessionId,
    pub(crate) class: Class,
    /// Params bytes of this process's calls that wait at endpoints.
    pub(crate) call_bytes: u32,
    pub(crate) limiter: Limiter,
    /// Record of the handle on this process, if there is one.
    pub(crate) handle: Option<u32>,
    /// Who answers for it (L1).
    pub(crate) sponsor: Option<Pid>,
    pub(crate) made: Made,
    /// Calls that wait at notifications.
    pub(crate) notification_waits: u32,
}

impl<R: RingPage> Process<R> {
    /// A process with its main thread.
    pub(crate) fn new(
        pid: Pid,
        page: R,
        caps: CapTable,
        space: AddressMap,
        limits: Limits,
        session: SessionId,
    ) -> Self {
        let mut threads = [None; THREADS_MAX];
        threads[0] = Some(Tid::MAIN);
        Self {
            pid,
            ring: Ring::new(page),
            caps,
            space,
            limits,
            outstanding: 0,
            receives: 0,
            waiter: None,
            sleeps: [None; SLEEPS_MAX],
            threads,
            observed: [Observed::default(); THREADS_MAX],
            next_tid: Tid::MAIN.raw() + 1,
            parks: [None; THREADS_MAX],
            session,
            class: Class::Init,
            call_bytes: 0,
            limiter: Limiter::new(),
            handle: None,
            sponsor: None,
            made: Made::default(),
            notification_waits: 0,
        }
    }

    /// The slot of a live thread.
    pub(crate) fn thread_index(&self, tid: Tid) -> Option<usize> {
        self.threads.iter().position(|&live| live == Some(tid))
    }

    /// The live thread in a slot.
    #[inline]
    pub(crate) fn tid_at(&self, index: usize) -> Option<Tid> {
        *self.threads.get(index)?
    }

    /// Threads that live.
    pub(crate) fn live_threads(&self) -> usize {
        self.threads.iter().flatten().count()
    }

    /// Adds a thread under a number that was never used; a slot whose ended
    /// thread can still be joined counts against the quota.
    pub(crate) fn add_thread(&mut self) -> Option<(usize, Tid)> {
        let retained = self.observed.iter().filter(|slot| slot.retained).count();
        let is_free =
            |&index: &usize| self.threads[index].is_none() && !self.observed[index].retained;
        let slot = (0..THREADS_MAX).find(is_free)?;
        let next_tid = self.next_tid.checked_add(1)?;
        if self.live_threads() + retained >= self.limits.threads as usize {
            return None;
        }
        let tid = Tid::from_raw(self.next_tid);
        self.next_tid = next_tid;
        self.threads[slot] = Some(tid);
        Some((slot, tid))
    }

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

    /// Posts the completion of a RECV and gives its charge back.
    pub(crate) fn complete_receive(&mut self, cqe: &CapCqe) {
        self.receives -= 1;
        self.ring.complete(cqe);
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
    /// End of the diagnostics window.
    Diagnostics,
}

const TIMERS_PER_PROCESS: usize = 2 + SLEEPS_MAX + THREADS_MAX;
/// Timers of all processes.
pub(crate) const TIMERS: usize = PROCESS_SLOTS * TIMERS_PER_PROCESS;

const _: () = assert!(TIMERS < Timer::MAX as usize, "a timer number must fit");

/// Numbers the timer of the session in this place.
pub(crate) fn session_timer(index: u32) -> Timer {
    (TIMERS + index as usize) as Timer
}

/// The place of the session whose timer it is, if it is a session's.
pub(crate) fn session_of_timer(timer: Timer) -> Option<u32> {
    let index = usize::from(timer).checked_sub(TIMERS)?;
    Some(index as u32)
}

/// Numbers a timer of the process in `slot`.
pub(crate) fn timer(slot: usize, timer_use: TimerUse) -> Timer {
    let within = match timer_use {
        TimerUse::Enter => 0,
        TimerUse::Diagnostics => 1,
        TimerUse::Sleep(index) => 2 + index,
        TimerUse::Park(index) => 2 + SLEEPS_MAX + index,
    };
    (slot * TIMERS_PER_PROCESS + within) as Timer
}

/// Inverse of [`timer`].
pub(crate) fn timer_owner(timer: Timer) -> (usize, TimerUse) {
    let slot = usize::from(timer) / TIMERS_PER_PROCESS;
    let timer_use = match usize::from(timer) % TIMERS_PER_PROCESS {
        0 => TimerUse::Enter,
        1 => TimerUse::Diagnostics,
        within if within < 2 + SLEEPS_MAX => TimerUse::Sleep(within - 2),
        within => TimerUse::Park(within - 2 - SLEEPS_MAX),
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
        let uses = [TimerUse::Enter, TimerUse::Diagnostics]
            .into_iter()
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
