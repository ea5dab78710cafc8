//! How much of everything is taken: what must be the same before and after.
//!
//! Reading the books takes a glance at each store and at each process slot, so
//! it can be done between any two events. Two equal readings do not prove that
//! nothing was lost, but two that differ, taken when the same programs wait in
//! the same place, prove that something was.

use crate::machine::Machine;
use crate::memory::MemoryUse;
use crate::server::Server;

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Live processes.
    pub processes: usize,
    /// Their threads.
    pub threads: usize,
    /// Capabilities in their tables.
    pub caps: u64,
    /// Slots of their tables kept for transfers under way.
    pub reserved: u64,
    /// Submissions that wait for completion.
    pub outstanding: u64,
    /// Bytes of params of theirs that wait at endpoints.
    pub call_bytes: u64,
    /// Threads that are parked.
    pub parked: usize,
    /// Objects that capabilities name.
    pub objects: usize,
    /// Revocation cells.
    pub epochs: usize,
    /// References to both.
    pub references: u64,
    /// Endpoints.
    pub endpoints: usize,
    /// Calls to them, waiting and in flight.
    pub calls: usize,
    /// Memory that is promised to processes and objects.
    pub memory: MemoryUse,
    /// Records of memory objects.
    pub memory_objects: usize,
    /// Receives that wait.
    pub receives: usize,
    /// Records of threads that handles name.
    pub thread_handles: usize,
    /// Capabilities in waiting calls.
    pub pins: u64,
    /// Blocks of params storage.
    pub blocks: usize,
    /// Records of processes that handles name.
    pub handles: usize,
    /// Pipes.
    pub pipes: usize,
    /// Blocks of their buffers.
    pub pipe_blocks: usize,
    /// Notifications.
    pub notifications: usize,
    /// Calls that wait at them.
    pub notification_waits: usize,
    /// What live processes are charged for what they made and others may
    /// hold.
    pub made: u64,
    /// Sessions that anything names.
    pub sessions: usize,
    /// Launchers.
    pub launchers: usize,
    /// Blocks of the names of programs they start.
    pub launcher_blocks: usize,
    /// Deadlines that are set.
    pub deadlines: usize,
}

impl<M: Machine> Server<M> {
    /// What is taken now.
    pub fn books(&self) -> Books {
        let (objects, epochs) = self.objects.total_references();
        let mut books = Books {
            objects: self.objects.counts().0,
            epochs: self.objects.counts().1,
            references: objects + epochs,
            endpoints: self.endpoints.table.used(),
            calls: self.endpoints.calls.used(),
            memory_objects: self.memory.objects.used(),
            receives: self.endpoints.recvs.used(),
            thread_handles: self.thread_records.used(),
            pins: self.endpoints.pins.totals().0,
            blocks: self.endpoints.blocks.used(),
            handles: self.handles.used(),
            pipes: self.pipes.table.used(),
            pipe_blocks: self.pipes.blocks.used(),
            notifications: self.notifications.table.used(),
            notification_waits: self.notifications.waits.used(),
            sessions: self.sessions.table.used(),
            launchers: self.sessions.launchers.used(),
            launcher_blocks: self.sessions.names.used(),
            deadlines: self.deadlines.len(),
            ..Books::default()
        };
        for process in self.processes.iter().flatten() {
            books.processes += 1;
            books.threads += process.threads.iter().flatten().count();
            books.caps += u64::from(process.caps.used());
            books.reserved += u64::from(process.caps.reserved());
            books.outstanding += u64::from(process.outstanding);
            books.made += u64::from(process.made.total());
            books.call_bytes += u64::from(process.call_bytes);
            books.parked += process.parks.iter().flatten().count();
        }
        books
    }
}
