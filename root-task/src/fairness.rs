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
//! A process with a budget of its own has its turn when that is used up, or a
//! slice if that is shorter, and comes back after as long as the budget makes it
//! wait for such a time, in no order with those that have none. Counted is also
//! what comes after its entry until the next event, and for each entry and each
//! time it is woken what the kernel takes for that.
//!
//! Whatever makes the kernel begin a thread's turn anew counts as that turn.
//!
//! Time is counted for the process and not for the thread: a thread can speak
//! for its siblings, but for nobody else (`crate::client`, N1).
//!
//! # Invariants
//! - **A1** A process is in `spent` once if its threads have the lower
//!   priority, and otherwise not at all. Dues increase from front to back.
//! - **A2** Nothing is allocated after [`Fairness::new`].

use alloc::collections::VecDeque;

use ring_server_core::{CpuBudget, PROCESS_SLOTS, Pid};

use crate::clock::{Clock, rdtsc};

/// A time slice of the kernel: 5 ticks of 2 ms.
const SLICE_NS: u64 = 10_000_000;
/// How long one entry may go on taking submissions.
const BUDGET_NS: u64 = 1_000_000;
/// What the kernel takes to bring an entry and to let the thread go on, or to
/// bring an interrupt and wake a thread: `raw-fault-round-trip-by-registers`,
/// which is 2,490 instructions with MCS, rounded up.
const KERNEL_NS: u64 = 3_000;

/// A process that had its turn.
#[derive(Clone, Copy, Debug)]
struct Spent {
    pid: Pid,
    due_ns: u64,
    /// It has a budget: nobody waits for it to come back.
    is_limited: bool,
}

/// How long a process's turn is.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// The root task's time it may have, in ticks.
    ticks: u64,
    /// What makes it wait, if it has a budget.
    budget: Option<CpuBudget>,
}

/// What processes had of the root task's time.
pub struct Fairness {
    slice_ticks: u64,
    budget_ticks: u64,
    /// When the present entry began, in ticks.
    entered: u64,
    /// Ticks each process had since its last turn ended.
    used: [u64; PROCESS_SLOTS],
    turns: [Turn; PROCESS_SLOTS],
    /// Whose budget pays for what comes before the next event.
    payer: Option<usize>,
    kernel_ticks: u64,
    spent: VecDeque<Spent>,
    restored_ns: u64,
}

impl Turn {
    /// That of a process without a budget.
    const fn of(slice_ticks: u64) -> Self {
        Self {
            ticks: slice_ticks,
            budget: None,
        }
    }
}

impl Fairness {
    /// Nobody had anything yet.
    pub fn new(clock: &Clock) -> Self {
        let ticks = |ns: u64| ns / 1000 * clock.tsc_khz() / 1000;
        let slice_ticks = ticks(SLICE_NS);
        Self {
            slice_ticks,
            turns: [Turn::of(slice_ticks); PROCESS_SLOTS],
            budget_ticks: ticks(BUDGET_NS),
            entered: 0,
            used: [0; PROCESS_SLOTS],
            payer: None,
            kernel_ticks: ticks(KERNEL_NS),
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
        let now = rdtsc();
        *used += now.wrapping_sub(self.entered);
        let turn = &self.turns[slot];
        if turn.budget.is_some() {
            *used += self.kernel_ticks;
            self.entered = now;
            self.payer = Some(slot);
        }
        *used > turn.ticks
    }

    /// Counts what came after the entry of a process with a budget; its slot if
    /// it had its turn with that.
    #[inline]
    pub fn charge_rest(&mut self) -> Option<usize> {
        let slot = self.payer.take()?;
        self.used[slot] += rdtsc().wrapping_sub(self.entered);
        (self.used[slot] > self.turns[slot].ticks).then_some(slot)
    }

    /// Counts that a thread of a process with a budget is woken.
    #[inline]
    pub fn charge_wakeup(&mut self, pid: Pid) {
        self.used[pid.slot()] += self.kernel_ticks;
    }

    /// Counts so many microseconds for a process, with its present entry.
    pub fn charge_us(&mut self, pid: Pid, us: u64) {
        self.used[pid.slot()] += self.ticks(us);
    }

    const fn ticks(&self, us: u64) -> u64 {
        us.saturating_mul(self.slice_ticks) / (SLICE_NS / 1000)
    }

    /// A process begins with nothing used; its turn is as long as its budget.
    pub fn start(&mut self, pid: Pid, budget: Option<CpuBudget>) {
        self.used[pid.slot()] = 0;
        let ticks = budget.map_or(self.slice_ticks, |budget| self.ticks(budget.budget_us()));
        self.turns[pid.slot()] = Turn {
            ticks: ticks.min(self.slice_ticks),
            budget,
        };
    }

    /// Ends a process's turn; `false` if it had ended before.
    pub fn spend(&mut self, pid: Pid, now_ns: u64) -> bool {
        let used = core::mem::take(&mut self.used[pid.slot()]);
        let used_ns = used.saturating_mul(SLICE_NS) / self.slice_ticks;
        if self.is_spent(pid) {
            return false;
        }
        let budget = self.turns[pid.slot()].budget;
        let due_ns = match budget {
            Some(budget) => {
                let rest_us = budget.period_us() - budget.budget_us();
                now_ns + used_ns.saturating_mul(rest_us) / budget.budget_us()
            }
            None => {
                let mut others = self.spent.iter().rev().filter(|spent| !spent.is_limited);
                let last_ns = others.next().map_or(self.restored_ns, |s| s.due_ns);
                (now_ns + used_ns).max(last_ns + 2 * used_ns)
            }
        };
        let place = self.spent.partition_point(|spent| spent.due_ns <= due_ns);
        let is_limited = budget.is_some();
        let spent = Spent {
            pid,
            due_ns,
            is_limited,
        };
        self.spent.insert(place, spent);
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
        if !front.is_limited {
            self.restored_ns = now_ns;
        }
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
        self.turns[pid.slot()] = Turn::of(self.slice_ticks);
        self.spent.retain(|spent| spent.pid != pid);
    }
}
