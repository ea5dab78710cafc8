//! Work the system does for a program counts as the program's own.
//!
//! # Theory of operation
//! The kernel counts time against the thread that runs. While the root task
//! answers a program, the program does not run, and its slice does not wear
//! off. So the root task counts what each process's entries take. A process
//! that had one slice worth of it has had its turn: all its threads go to the
//! priority one below that of their class, where they run only when none of
//! their class can, and come back after as long as they had. Beside nobody a
//! process loses nothing.
//!
//! Processes come back one at a time, each after twice what it had since the
//! one before it, so at full priority the root task works for them at most half
//! the time, however many they are. What a process had is one slice and at most
//! one entry more: its budget and the submission that exceeded it.
//!
//! Time is counted for the process and not for the thread: a thread can speak
//! for its siblings, but for nobody else (`crate::client`, N1).
//!
//! # Invariants
//! - **A1** A process is in `spent` once if its threads have the lower
//!   priority, and otherwise not at all. Dues increase from front to back.
//! - **A2** Nothing is allocated after [`Fairness::new`].

use alloc::collections::VecDeque;

use ring_server_core::{PROCESS_SLOTS, Pid};

use crate::clock::{Clock, rdtsc};

/// A time slice of the kernel: 5 ticks of 2 ms.
const SLICE_NS: u64 = 10_000_000;
/// How long one entry may go on taking submissions.
const BUDGET_NS: u64 = 1_000_000;

/// A process that had its turn.
#[derive(Clone, Copy, Debug)]
struct Spent {
    pid: Pid,
    due_ns: u64,
}

/// What processes had of the root task's time.
pub struct Fairness {
    slice_ticks: u64,
    budget_ticks: u64,
    /// When the present entry began, in ticks.
    entered: u64,
    /// Ticks each process had since its last turn ended.
    used: [u64; PROCESS_SLOTS],
    spent: VecDeque<Spent>,
    restored_ns: u64,
}

impl Fairness {
    /// Nobody had anything yet.
    pub fn new(clock: &Clock) -> Self {
        let ticks = |ns: u64| ns / 1000 * clock.tsc_khz() / 1000;
        Self {
            slice_ticks: ticks(SLICE_NS),
            budget_ticks: ticks(BUDGET_NS),
            entered: 0,
            used: [0; PROCESS_SLOTS],
            spent: VecDeque::with_capacity(PROCESS_SLOTS),
            restored_ns: 0,
        }
    }

    /// An entry begins.
    #[inline]
    pub fn begin(&mut self) {
        self.entered = rdtsc();
    }

    /// Whether the present entry took its budget.
    #[inline]
    pub fn is_over_budget(&self) -> bool {
        rdtsc().wrapping_sub(self.entered) > self.budget_ticks
    }

    /// Counts the present entry for the process in `slot`; whether it had its
    /// turn with that.
    #[inline]
    pub fn charge(&mut self, slot: usize) -> bool {
        let Some(used) = self.used.get_mut(slot) else {
            return false;
        };
        *used += rdtsc().wrapping_sub(self.entered);
        *used > self.slice_ticks
    }

    /// Ends a process's turn; `false` if it had ended before.
    pub fn spend(&mut self, pid: Pid, now_ns: u64) -> bool {
        let used = core::mem::take(&mut self.used[pid.slot()]);
        let used_ns = used.saturating_mul(SLICE_NS) / self.slice_ticks;
        if self.is_spent(pid) {
            return false;
        }
        let last_ns = self.spent.back().map_or(self.restored_ns, |s| s.due_ns);
        let due_ns = (now_ns + used_ns).max(last_ns + 2 * used_ns);
        self.spent.push_back(Spent { pid, due_ns });
        true
    }

    /// When the next process comes back.
    #[inline]
    pub fn next_due(&self) -> Option<u64> {
        self.spent.front().map(|spent| spent.due_ns)
    }

    /// The next process that is to come back by now.
    pub fn take_due(&mut self, now_ns: u64) -> Option<Pid> {
        let front = self.spent.pop_front_if(|spent| spent.due_ns <= now_ns)?;
        self.restored_ns = now_ns;
        self.used[front.pid.slot()] = 0;
        Some(front.pid)
    }

    /// Whether a process had its turn and is not back yet.
    pub fn is_spent(&self, pid: Pid) -> bool {
        self.spent.iter().any(|spent| spent.pid == pid)
    }

    /// Forgets a process that ended.
    pub fn forget(&mut self, pid: Pid) {
        self.used[pid.slot()] = 0;
        self.spent.retain(|spent| spent.pid != pid);
    }
}
