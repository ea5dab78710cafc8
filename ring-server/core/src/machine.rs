//! What lies below the core: the trait a machine implements.
//!
//! The core decides; the machine acts. Two implementations exist: the seL4
//! root task and the host model. Everything is statically dispatched.
//!
//! # Contract for implementors
//! - **M1** [`RingPage`] loads and stores are volatile, each word is touched
//!   once per call, and a store to an index is ordered after the record stores
//!   that precede it (release). On x86 a compiler barrier is enough.
//! - **M2** A client can change its own memory at any time. [`Machine::read`]
//!   therefore copies each byte once and never returns a reference.
//! - **M3** No method calls back into the server.
//!
//! # Contract for callers
//! - **M4** The core calls [`Machine::read`] and [`Machine::write`] only for
//!   ranges that the process's [`AddressMap`] allows to be read or written, so
//!   an implementation needs no map of its own: a page it has not backed reads
//!   as zeroes, and is backed readable and writable when it is written. An
//!   implementation may still refuse, and the core answers the client with the
//!   transport error of that buffer.

use capos_config::ring::{CapCqe, CapRingHeader, CapSqe};
use capos_loader::{AddressMap, Protection};
use core::mem::offset_of;

use crate::budget::CpuBudget;
use crate::capset::CAPSET_PAGE_BYTES;
use crate::class::Class;
use crate::diagnostics::Diagnostic;
use crate::ids::{Pid, ThreadRef};

/// What [`Machine::back`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backed {
    /// The page had no memory and has now.
    Now,
    /// The page was there already, with what it allows.
    Already,
}

/// Memory, or something else the machine needs for it, ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// The range is not mapped, or not with the access that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessFault;

/// A 32-bit word of the ring header, by byte offset in the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RingWord {
    /// Next submission the server will read; written by the server.
    SqHead = offset_of!(CapRingHeader, sq_head) as u16,
    /// Next submission the client will write; written by the client.
    SqTail = offset_of!(CapRingHeader, sq_tail) as u16,
    /// Next completion the client will read; written by the client.
    CqHead = offset_of!(CapRingHeader, cq_head) as u16,
    /// Next completion the server will write; written by the server.
    CqTail = offset_of!(CapRingHeader, cq_tail) as u16,
    /// Completions that had to be dropped; written by the server.
    CqOverflow = offset_of!(CapRingHeader, cq_overflow) as u16,
}

impl RingWord {
    /// Byte offset of the word in the ring page.
    pub const fn offset(self) -> usize {
        self as usize
    }
}

/// Access to one process's ring page through the machine's own mapping.
pub trait RingPage {
    /// Reads a header word (volatile, acquire).
    fn load(&self, word: RingWord) -> u32;

    /// Writes a header word (volatile, release).
    fn store(&self, word: RingWord, value: u32);

    /// Copies submission `slot` out of the page, each byte read once.
    ///
    /// # Preconditions
    /// `slot < SQ_ENTRIES`; the core masks before it calls.
    fn read_sqe(&self, slot: u32) -> CapSqe;

    /// Copies a completion into `slot`.
    ///
    /// # Preconditions
    /// `slot < CQ_ENTRIES`; the core masks before it calls.
    fn write_cqe(&self, slot: u32, cqe: &CapCqe);
}

/// A process under construction: memory with a program in it, and no thread
/// that runs.
///
/// The machine has at most one: [`Machine::launch`] or [`Machine::discard`]
/// follows each successful [`Machine::prepare`].
#[derive(Debug)]
pub struct Embryo<R> {
    /// Its ring page, with the ABI's header.
    pub ring: R,
    /// What its addresses mean.
    pub space: AddressMap,
}

/// One moment in both times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// Seconds since 1970-01-01 00:00 UTC, without leap seconds.
    pub utc_seconds: i64,
    /// Nanoseconds of that second, less than 10^9.
    pub utc_nanos: u32,
    /// The same moment in [`Machine::now_ns`] time.
    pub monotonic_ns: u64,
}

/// Why a program cannot be made a process; nothing is left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrepareError {
    /// The boot package has no program of that name.
    NoSuchProgram,
    /// The program's file breaks a rule of the loader.
    BadProgram,
    /// Memory or kernel objects ran out.
    NoMemory,
}

/// How a thread starts: what its first registers hold, beside the addresses of
/// ring and CapSet page (`docs/reference/abi.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadEntry {
    /// First instruction; a user address.
    pub entry: u64,
    /// End of its stack: a multiple of 16, not zero, at most one past the last
    /// user address.
    pub stack_top: u64,
    /// First argument.
    pub arg: u64,
    /// Base of its FS segment; a user address.
    pub fs_base: u64,
}

/// The machine has no memory or kernel objects for another thread; nothing is
/// left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadRefused;

/// How long a thread runs before others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Turns of so many microseconds among its equals, without a limit.
    Slice(u64),
    /// No more than this.
    Budget(CpuBudget),
}

impl Turn {
    /// Its length in microseconds.
    #[must_use]
    pub const fn length_us(self) -> u64 {
        match self {
            Self::Slice(slice_us) => slice_us,
            Self::Budget(budget) => budget.budget_us(),
        }
    }
}

/// The machine does not let this thread have other turns: its program has a
/// budget of its own, or there are no budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnRefused;

/// What a thread had since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadUse {
    /// Nanoseconds it ran.
    pub runtime_ns: u64,
    /// Times it entered and had to wait.
    pub blocks: u64,
}

/// The machine below the core.
pub trait Machine {
    /// How this machine reaches a ring page.
    type Ring: RingPage;

    /// Loads a program of the boot package into a new address space. A machine
    /// without programs has none to offer.
    ///
    /// # Errors
    /// [`PrepareError`].
    fn prepare(&mut self, program: &str) -> Result<Embryo<Self::Ring>, PrepareError> {
        let _ = program;
        Err(PrepareError::NoSuchProgram)
    }

    /// Gives the prepared process its number and CapSet page and lets its
    /// thread run.
    ///
    /// # Errors
    /// [`PrepareError::NoMemory`]; the prepared process is gone then.
    fn launch(
        &mut self,
        pid: Pid,
        class: Class,
        capset: &[u8; CAPSET_PAGE_BYTES],
    ) -> Result<(), PrepareError> {
        let _ = (pid, class, capset);
        Err(PrepareError::NoMemory)
    }

    /// Whether the machine can keep a thread to a budget of processor time.
    fn keeps_budgets(&self) -> bool {
        false
    }

    /// Changes the turns of a thread that entered, or is about to end.
    ///
    /// # Errors
    /// [`TurnRefused`]; it has those it had.
    fn set_turn(&mut self, thread: ThreadRef, index: usize, turn: Turn) -> Result<(), TurnRefused> {
        let _ = (thread, index, turn);
        Err(TurnRefused)
    }

    /// What a thread that does not run now had, on a machine that keeps
    /// budgets.
    fn thread_use(&mut self, thread: ThreadRef, index: usize) -> ThreadUse {
        let _ = (thread, index);
        ThreadUse::default()
    }

    /// A live process runs among those of another class from now on.
    fn set_class(&mut self, pid: Pid, class: Class) {
        let _ = (pid, class);
    }

    /// Takes the prepared process apart.
    fn discard(&mut self) {}

    /// Takes the memory and threads of a process that ended back, if it was
    /// launched. The server knows it no more.
    fn bury(&mut self, pid: Pid, code: i64) {
        let _ = (pid, code);
    }

    /// Makes a thread of a live process and lets it run. `index` is its place
    /// among the process's threads, below [`crate::THREADS_MAX`] and not in
    /// use.
    ///
    /// # Errors
    /// [`ThreadRefused`].
    fn create_thread(
        &mut self,
        thread: ThreadRef,
        index: usize,
        entry: &ThreadEntry,
    ) -> Result<(), ThreadRefused> {
        let _ = (thread, index, entry);
        Err(ThreadRefused)
    }

    /// Takes a thread apart that entered and will not be answered; its process
    /// lives on.
    fn end_thread(&mut self, thread: ThreadRef, index: usize) {
        let _ = (thread, index);
    }

    /// Base of the FS segment of a thread that entered.
    fn fs_base(&mut self, thread: ThreadRef, index: usize) -> u64 {
        let _ = (thread, index);
        0
    }

    /// Sets it to a user address; the thread has it when it continues.
    fn set_fs_base(&mut self, thread: ThreadRef, index: usize, fs_base: u64) {
        let _ = (thread, index, fs_base);
    }

    /// The boot manifest, as `BootPackage` shows it.
    fn boot_manifest(&self) -> &[u8] {
        &[]
    }

    /// A moment of which both times are known, if the machine found a clock
    /// when it started.
    fn clock_reading(&self) -> Option<ClockReading> {
        None
    }

    /// Fills `out` with random bytes nobody can guess; `false` if there is no
    /// source of them, or it failed.
    fn entropy(&mut self, out: &mut [u8]) -> bool {
        let _ = out;
        false
    }

    /// Monotonic time since boot in nanoseconds.
    fn now_ns(&mut self) -> u64;

    /// Whether the thread that entered has had enough of the machine's time for
    /// now. Asked between two submissions of one entry; those that are left
    /// are taken when it enters again ([`Entry::Again`](crate::Entry)).
    fn out_of_time(&mut self) -> bool {
        false
    }

    /// Emits bytes verbatim on the capOS console.
    fn console_write(&mut self, bytes: &[u8]);

    /// Writes bytes to the terminal, verbatim.
    fn terminal_write(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// Makes sure that a demand-zero page is backed and mapped with what
    /// `protection` allows, so that a thread that faulted on it can go on.
    ///
    /// # Errors
    /// [`NoMemory`].
    fn back(&mut self, pid: Pid, page: u64, protection: Protection) -> Result<Backed, NoMemory> {
        let _ = (pid, page, protection);
        Err(NoMemory)
    }

    /// Makes what backing any page of `start..end` takes besides the page, so
    /// that a fault on memory that was promised cannot fail for it.
    ///
    /// # Errors
    /// [`NoMemory`]; what was made stays until [`Machine::release_tables`].
    fn provide_tables(&mut self, pid: Pid, start: u64, end: u64) -> Result<(), NoMemory> {
        let _ = (pid, start, end);
        Err(NoMemory)
    }

    /// Gives back what [`Machine::provide_tables`] made for this range, in
    /// which no page is left.
    fn release_tables(&mut self, pid: Pid, start: u64, end: u64) {
        let _ = (pid, start, end);
    }

    /// Takes every page of `start..end` that is there away from the process;
    /// what was in its own ones is lost.
    fn unmap(&mut self, pid: Pid, start: u64, end: u64) {
        let _ = (pid, start, end);
    }

    /// Changes what every page of `start..end` that is there allows. Without
    /// any access a page keeps its content.
    fn protect(&mut self, pid: Pid, start: u64, end: u64, protection: Protection) {
        let _ = (pid, start, end, protection);
    }

    /// Makes `pages` pages of zeroes, contiguous in physical memory, under the
    /// name `object`, which is not in use.
    ///
    /// # Errors
    /// [`NoMemory`]; nothing is left behind.
    fn create_object(&mut self, object: u32, pages: u32) -> Result<(), NoMemory> {
        let _ = (object, pages);
        Err(NoMemory)
    }

    /// Frees the memory of `object`, which no process maps any more.
    fn free_object(&mut self, object: u32) {
        let _ = object;
    }

    /// Maps pages of `object` from `first_page` at `range`, all of them or none,
    /// where tables are provided and no page is.
    ///
    /// # Errors
    /// [`NoMemory`].
    fn map_object(
        &mut self,
        pid: Pid,
        range: (u64, u64),
        (object, first_page): (u32, u32),
        protection: Protection,
    ) -> Result<(), NoMemory> {
        let _ = (pid, range, object, first_page, protection);
        Err(NoMemory)
    }

    /// Copies client memory into `out` (M4).
    ///
    /// # Errors
    /// [`AccessFault`] if any byte of the range is not readable; `out` is then
    /// unspecified.
    fn read(&mut self, pid: Pid, addr: u64, out: &mut [u8]) -> Result<(), AccessFault>;

    /// Copies `bytes` into client memory; backs demand-zero pages on the way
    /// (M4).
    ///
    /// # Errors
    /// [`AccessFault`] if any byte of the range is not writable; a prefix may
    /// have been written.
    fn write(&mut self, pid: Pid, addr: u64, bytes: &[u8]) -> Result<(), AccessFault>;

    /// Lets a thread that was answered [`Entry::Block`](crate::Entry) continue
    /// with `rax` as the result of its `cap_enter`.
    fn resume(&mut self, thread: ThreadRef, rax: u64);

    /// As [`Machine::resume`], for a server thread that a caller handed its
    /// call to: it should run before unrelated work.
    fn hand_over(&mut self, thread: ThreadRef, rax: u64) {
        self.resume(thread, rax);
    }

    /// Reports an invalid submission (already rate limited).
    fn diagnose(&mut self, diagnostic: &Diagnostic) {
        let _ = diagnostic;
    }
}
