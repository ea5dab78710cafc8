//! Who started whom: the quota of processes.
//!
//! A process answers for every process that it, or one it answers for, started
//! and that still runs. When it ends, whoever answers for it takes them over,
//! so that nobody escapes the account it was started on. Without this, one
//! program that may start others could take every process slot of the system.
//!
//! Nothing is counted ahead of time: there are few processes and starting one
//! is rare, so the number is read off the table when it is asked for.
//!
//! # Invariants
//! - **L1** A sponsor is live, and following sponsors ends.
//! - **L2** The end of a process does not raise the number of processes that
//!   those it answered for can come to.

use crate::exception::Exception;
use crate::ids::{PROCESS_SLOTS, Pid};
use crate::limits::Limits;
use crate::machine::Machine;
use crate::process::Process;
use crate::server::Server;

/// Processes a spawned process may answer for: what a resource profile has
/// unless it says otherwise.
pub const SPAWNED_PROCESSES_MAX: u32 = 8;

impl Limits {
    /// Quotas of a process that one with these quotas starts.
    pub(crate) fn for_child(self) -> Self {
        Self {
            processes: self.processes.min(SPAWNED_PROCESSES_MAX),
            ..self
        }
    }
}

impl<M: Machine> Server<M> {
    /// Checks that `parent` and all who answer for it may have one process
    /// more.
    ///
    /// # Errors
    /// An `overloaded` exception.
    pub(crate) fn check_family(&self, parent: Pid) -> Result<(), Exception> {
        let room = self
            .line_of(parent)
            .all(|process| self.family_of(process.pid) < process.limits.processes);
        room.then_some(())
            .ok_or(Exception::overloaded("too many processes of one program"))
    }

    /// Live processes `pid` answers for.
    pub(crate) fn family_of(&self, pid: Pid) -> u32 {
        let live = self.processes.iter().flatten();
        let below = live.filter(|process| {
            process.pid != pid && self.line_of(process.pid).any(|above| above.pid == pid)
        });
        below.count() as u32
    }

    /// Records that `parent` answers for `child`.
    pub(crate) fn sponsor(&mut self, child: Pid, parent: Pid) {
        if let Some(process) = self.process_mut(child) {
            process.sponsor = Some(parent);
        }
    }

    /// Hands those `gone` answered for to whoever answered for it. What it might
    /// still have started under its `quota`, its own place included, they may
    /// start now, in equal parts and no more (L2).
    pub(crate) fn bequeath(&mut self, gone: Pid, heir: Option<Pid>, quota: u32) {
        let is_orphan = |process: &Process<M::Ring>| process.sponsor == Some(gone);
        let orphans = self.processes.iter().flatten();
        let orphans = orphans.filter(|process| is_orphan(process));
        let families = orphans.map(|orphan| 1 + self.family_of(orphan.pid));
        let (count, living) = families.fold((0, 0), |(n, sum), family| (n + 1, sum + family));
        let rest = (quota + 1).saturating_sub(living);
        let mut heirs = 0;
        for slot in 0..PROCESS_SLOTS {
            let orphan = self.processes[slot].as_deref();
            let Some(pid) = orphan.filter(|p| is_orphan(p)).map(|orphan| orphan.pid) else {
                continue;
            };
            let part = rest / count + u32::from(heirs < rest % count);
            let family = self.family_of(pid);
            heirs += 1;
            if let Some(process) = self.process_mut(pid) {
                process.sponsor = heir;
                process.limits.processes = process.limits.processes.min(family + part);
            }
        }
    }

    /// Charges whoever answers for a process that is gone for what it made and
    /// others still hold; if there is nobody, the store alone limits it.
    pub(crate) fn inherit(&mut self, gone: Pid, heir: Option<Pid>) {
        if let Some(heir) = heir {
            self.inherit_pipes(gone, heir);
            self.inherit_notifications(gone, heir);
            self.inherit_endpoints(gone, heir);
            self.inherit_sessions(gone, heir);
        }
    }

    /// `pid` and everyone who answers for it, nearest first.
    fn line_of(&self, pid: Pid) -> impl Iterator<Item = &Process<M::Ring>> {
        let above = |process: &&Process<M::Ring>| self.process(process.sponsor?);
        core::iter::successors(self.process(pid), above).take(PROCESS_SLOTS)
    }

    /// Asserts L1.
    pub(crate) fn check_families(&self) {
        for process in self.processes.iter().flatten() {
            let mut line = self.line_of(process.pid);
            assert!(
                line.all(|above| above.sponsor.is_none_or(|pid| self.is_live(pid))),
                "L1: the sponsor of {:?} is gone",
                process.pid
            );
            let ends = self.line_of(process.pid).count() < PROCESS_SLOTS;
            assert!(ends, "L1: {:?} sponsors itself", process.pid);
        }
    }
}
