//! Identifiers: processes, threads, and what they prove.

/// A process identifier as capOS programs see it (`RSI` at entry).
///
/// # Invariants
/// - **P1** A value is issued once per boot: a stale `Pid` never names a later
///   process.
/// - **P2** The table slot of a process is its `Pid` modulo [`PROCESS_SLOTS`],
///   so that finding a process is one masked index and one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(u32);

/// Number of processes that can exist at one time.
pub const PROCESS_SLOTS: usize = 64;

const _: () = assert!(PROCESS_SLOTS.is_power_of_two());

impl Pid {
    /// The first process of a system: `init`.
    pub const FIRST: Self = Self(1);

    /// Wraps a number that was issued by [`crate::Server::create_process`].
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The number as it appears in registers and log lines.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The only table slot this process can occupy (P2).
    pub const fn slot(self) -> usize {
        self.0 as usize & (PROCESS_SLOTS - 1)
    }

    /// The next identifier, or `None` when every number was issued (P1).
    pub(crate) const fn successor(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(next) => Some(Self(next)),
            None => None,
        }
    }
}

/// A thread identifier, unique within its process; never zero, because the
/// ring ABI reads a zero `call_id` as "no owner".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tid(u32);

impl Tid {
    /// The thread a process starts with.
    pub const MAIN: Self = Self(1);

    /// Wraps a number; the server checks it against the process's threads.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The number as it appears in registers and in `CapSqe::call_id`.
    pub const fn raw(self) -> u32 {
        self.0
    }
}

/// One thread of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadRef {
    /// The process.
    pub pid: Pid,
    /// The thread in it.
    pub tid: Tid,
}
