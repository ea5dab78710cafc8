//! The server: processes, their creation and end, entry and time.
//!
//! # Theory of operation
//! The machine below delivers events, one at a time: a thread entered, time
//! passed, a process is to start or end. Each event runs to completion here and
//! leaves its effects behind through [`Machine`]: completions in ring pages,
//! threads resumed. Nothing waits inside the server.
//!
//! # Invariants
//! - **S1** A blocked thread is resumed exactly once for each time it blocked,
//!   unless its process ends first.
//! - **S2** Every reference counted in [`Objects`] is a hold in some table, a
//!   prepared transfer in some queue, or one of `roots`.
//! - **S3** No object is dead and not acted on when a submission is taken: what
//!   still names it by its place must be gone before the place is filled again.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::hash::Hasher;

use capnp::Word;
use capos_config::ring::{
    CAP_ERR_INVALID_REQUEST, CAP_ERR_INVOKE_FAILED, CAP_ERR_TRANSFER_ABORTED, CAP_OP_CALL,
    CAP_OP_PARK, CAP_SQE_THREAD_OWNED, CQ_ENTRIES, CapCqe, CapSqe, PARK_TIMED_OUT,
    sqe_wire_validation_error,
};
use capos_loader::tls::TLS_SLOTS;
use capos_loader::{AddressMap, Footprint, TlsSlot};

use crate::cap_table::{CapId, CapTable, Hold};
use crate::capset::{CAPSET_PAGE_BYTES, CapSetError, CapSetPage};
use crate::class::Class;
use crate::deadline::Deadlines;
use crate::diagnostics::Diagnostic;
use crate::dispatch::{Caller, Outcome};
use crate::endpoint::{CallState, Endpoints};
use crate::grants::{Grant, Grantee};
use crate::ids::{PROCESS_SLOTS, Pid, ThreadRef, Tid};
use crate::kernel::notification::Notifications;
use crate::kernel::pipe::Pipes;
use crate::kernel::terminal::Terminal;
use crate::limits::{Capacity, Limits, PARAMS_BYTES_MAX, RESULT_BYTES_MAX};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::objects::{Object, ObjectId, Objects, UnsupportedSource};
use crate::process::{self, Process, TIMERS, TimerUse, Waiter};
use crate::ring::{completion, is_nop};
use crate::session::{BootSecret, ReferenceCache, SessionId};
use crate::sessions::Sessions;
use crate::spawn::{self, EXIT_FAULT, Handles};
use crate::threads::{self, ThreadRecords};

/// `cap_enter` result: the arguments were refused.
pub const ENTER_REJECTED: u64 = u64::MAX;
/// `cap_enter` result: the submission at the head belongs to another thread.
pub const ENTER_THREAD_OWNED_HEAD: u64 = u64::MAX - 2;
/// `cap_enter` timeout that never ends.
pub const WAIT_FOREVER: u64 = u64::MAX;

/// Objects that exist once, before any process does.
pub const ROOT_OBJECTS: u32 = ROOTS.len() as u32;

const _: () = assert!(PROCESS_SLOTS as u64 <= TLS_SLOTS, "a place for each");

/// Stateless kernel objects, which exist once.
const ROOTS: [Object; 13] = [
    Object::Console,
    Object::TerminalSession,
    Object::Timer,
    Object::ParkSpace,
    Object::ProcessSpawner,
    Object::BootPackage,
    Object::VirtualMemory,
    Object::FrameAllocator,
    Object::ThreadControl,
    Object::ThreadSpawner,
    Object::WallClock,
    Object::EntropySource,
    Object::SessionMint,
];

/// What becomes of a thread that entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It continues now with this value in RAX.
    Resume(u64),
    /// The machine ran out of time for it. It enters again with the same
    /// arguments, before it executes anything else: the rest of its submissions
    /// is still queued.
    Again,
    /// It stays stopped until [`Machine::resume`] names it.
    Block,
    /// It ended; with a code, it was the last of its process, which ended with
    /// that code.
    Ended(Option<i64>),
}

/// What [`Server::create_process`] needs to know.
#[derive(Debug)]
pub struct ProcessSpec<'a, R> {
    ring: R,
    space: AddressMap,
    limits: Limits,
    grants: &'a [Grant<'a>],
    session: Option<SessionId>,
    class: Class,
    regrant: bool,
}

impl<'a, R> ProcessSpec<'a, R> {
    /// A process whose ring page is `ring` (already initialised with the ABI's
    /// header) and whose memory is `space`; ceilings as limits, no grants.
    pub const fn new(ring: R, space: AddressMap) -> Self {
        Self {
            ring,
            space,
            limits: Limits::CEILING,
            grants: &[],
            session: None,
            class: Class::Init,
            regrant: false,
        }
    }

    /// Sets the quotas.
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the initial capabilities, in CapSet order.
    pub const fn grants(mut self, grants: &'a [Grant<'a>]) -> Self {
        self.grants = grants;
        self
    }

    /// Sets how urgent it is; the first program otherwise.
    pub const fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Lets grants of any scope enter its session.
    pub(crate) const fn regranting(mut self, regrant: bool) -> Self {
        self.regrant = regrant;
        self
    }

    /// Sets the session; the system session otherwise.
    pub const fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }
}

/// Why a process was not created; nothing is left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// All process slots are in use: wait for one to end.
    TooManyProcesses,
    /// Every process number of this boot was issued: restart the machine.
    PidsExhausted,
    /// A grant names a source this server does not provide.
    Unsupported(UnsupportedSource),
    /// The grants exceed the capability quota: raise it or grant less.
    CapSlotsExhausted,
    /// The object or epoch store is full: end a process that holds many.
    ObjectsExhausted,
    /// The grants do not fit the CapSet page.
    CapSet(CapSetError),
    /// The session was closed: open one first.
    NoSuchSession,
    /// A grant names a capability, or a process, that is not there any more.
    NoSuchHold,
    /// A grant's source does not allow this way of passing it on.
    NotTransferable,
    /// A grant's source may not enter this session.
    CrossesSession,
    /// A delegated facet was to get another interface or badge; only the
    /// endpoint's owner can give it.
    Relabel,
    /// A facet was asked of something that is not an endpoint.
    NotAnEndpoint,
    /// A shared park space was asked of something that is not a memory object.
    NotMemory,
    /// The grants exceed the quota of memory-object pages: raise it or grant
    /// less.
    PagesExhausted,
    /// The system has promised all its memory: end a process.
    NoMemory,
    /// Endpoints need a boot secret; make the server with
    /// [`Server::with_boot_secret`].
    NoBootSecret,
}

impl From<CapSetError> for CreateError {
    fn from(error: CapSetError) -> Self {
        Self::CapSet(error)
    }
}

impl From<UnsupportedSource> for CreateError {
    fn from(source: UnsupportedSource) -> Self {
        Self::Unsupported(source)
    }
}

pub(crate) type ProcessSlot<R> = Option<Box<Process<R>>>;

/// The capOS personality.
#[derive(Clone, Debug)]
pub struct Server<M: Machine> {
    pub(crate) processes: Box<[ProcessSlot<M::Ring>; PROCESS_SLOTS]>,
    pub(crate) objects: Objects,
    pub(crate) deadlines: Deadlines,
    /// Private copy of the params being decoded.
    pub(crate) params: Vec<Word>,
    /// Result under construction.
    pub(crate) reply: Vec<Word>,
    /// Stateless kernel objects, each kept alive by one reference.
    pub(crate) roots: Vec<(Object, ObjectId)>,
    pub(crate) endpoints: Endpoints,
    pub(crate) sessions: Sessions,
    pub(crate) references: ReferenceCache,
    pub(crate) secret: Option<BootSecret>,
    /// Objects that lost their last reference and are still to be acted on.
    pub(crate) dead: Vec<Object>,
    pub(crate) next_park: u64,
    pub(crate) memory: Memory,
    pub(crate) handles: Handles,
    pub(crate) thread_records: ThreadRecords,
    pub(crate) pipes: Pipes,
    pub(crate) notifications: Notifications,
    pub(crate) terminal: Box<Terminal>,
    next_pid: Pid,
}

/// How draining a submission queue ended.
enum Drained {
    /// Nothing more can be taken now.
    Done,
    /// The head belongs to another thread.
    OwnedByOther,
    /// The machine's time for this entry is over and there is more to take.
    OutOfTime,
    /// The entering thread is parked.
    Parked,
    /// The entering thread ended, perhaps with its process.
    Ended(Option<i64>),
}

impl<M: Machine> Default for Server<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> Server<M> {
    /// A server without processes, that makes no endpoints.
    pub fn new() -> Self {
        Self::with_capacity(&Capacity::DEFAULT, None)
    }

    /// A server that makes endpoints, whose callers are described under keyed
    /// references.
    pub fn with_boot_secret(secret: BootSecret) -> Self {
        Self::with_capacity(&Capacity::DEFAULT, Some(secret))
    }

    /// A server of chosen size. All storage that dispatch uses is taken here
    /// and in [`Server::create_process`].
    pub fn with_capacity(capacity: &Capacity, secret: Option<BootSecret>) -> Self {
        let mut objects = Objects::with_capacity(capacity.objects, capacity.epochs);
        let roots = ROOTS
            .into_iter()
            .filter_map(|object| Some((object, objects.insert(object)?)))
            .collect();
        Self {
            processes: Box::new([const { None }; PROCESS_SLOTS]),
            objects,
            deadlines: Deadlines::new(TIMERS + capacity.sessions.max(1) as usize),
            params: Word::allocate_zeroed_vec(PARAMS_BYTES_MAX as usize / size_of::<Word>()),
            reply: Word::allocate_zeroed_vec(RESULT_BYTES_MAX as usize / size_of::<Word>()),
            roots,
            endpoints: Endpoints::new(capacity),
            sessions: Sessions::new(capacity),
            references: ReferenceCache::new(),
            secret,
            dead: Vec::with_capacity(capacity.objects as usize),
            next_park: 0,
            memory: Memory::new(),
            handles: spawn::handles(capacity),
            thread_records: threads::thread_records(capacity),
            pipes: Pipes::new(capacity),
            notifications: Notifications::new(capacity),
            terminal: Box::new(Terminal::new()),
            next_pid: Pid::FIRST,
        }
    }

    /// Creates a process and fills its CapSet page.
    ///
    /// # Errors
    /// [`CreateError`]; nothing is left behind, the page is unspecified.
    pub fn create_process(
        &mut self,
        spec: ProcessSpec<'_, M::Ring>,
        capset: &mut [u8; CAPSET_PAGE_BYTES],
    ) -> Result<Pid, CreateError> {
        let grants = spec.grants;
        let pid = self.create_reserving(spec, capset)?;
        self.finish_moves(grants);
        Ok(pid)
    }

    /// As [`Server::create_process`], with the sources of moves still with
    /// their holders, reserved: [`Server::finish_moves`] or
    /// [`Server::give_back_moves`] must follow.
    pub(crate) fn create_reserving(
        &mut self,
        spec: ProcessSpec<'_, M::Ring>,
        capset: &mut [u8; CAPSET_PAGE_BYTES],
    ) -> Result<Pid, CreateError> {
        debug_assert!(self.dead.is_empty(), "S3: all that is dead is ours");
        let pid = self.free_pid()?;
        let session = spec.session.unwrap_or(Self::SYSTEM_SESSION);
        if self.sessions.table.get(session.0).is_none_or(|s| s.ended) {
            return Err(CreateError::NoSuchSession);
        }
        let footprint = spec.space.footprint();
        if !self.memory.has_room(&Footprint::default(), &footprint) {
            return Err(CreateError::NoMemory);
        }
        let pages = spec.limits.frame_grant_pages;
        let mut caps = CapTable::new(spec.limits.cap_slots).with_page_limit(pages);
        let mut page = CapSetPage::new(capset);
        let grantee = Grantee {
            session,
            limits: &spec.limits,
            regrant: spec.regrant,
        };
        let granted = self.insert_grants(grantee, spec.grants, &mut caps, &mut page);
        if let Err(error) = granted {
            self.discard_dead();
            return Err(error);
        }
        if let Some(session) = self.sessions.table.get_mut(session.0) {
            session.processes += 1;
        }
        self.memory.promise(&Footprint::default(), &footprint);
        let mut space = spec.space;
        space.place_tls(TlsSlot::of(pid.slot()));
        let mut process = Process::new(pid, spec.ring, caps, space, spec.limits, session);
        process.class = spec.class;
        self.processes[pid.slot()] = Some(Box::new(process));
        self.next_pid = pid.successor().unwrap_or(pid);
        Ok(pid)
    }

    /// The first unissued number whose slot is empty.
    fn free_pid(&self) -> Result<Pid, CreateError> {
        let mut pid = self.next_pid;
        for _ in 0..PROCESS_SLOTS {
            if self.processes[pid.slot()].is_none() {
                return Ok(pid);
            }
            pid = pid.successor().ok_or(CreateError::PidsExhausted)?;
        }
        Err(CreateError::TooManyProcesses)
    }

    /// Drops the references of a hold that left its table.
    pub(crate) fn release_hold(&mut self, hold: Hold) {
        let dead = self.objects.release(hold.object, hold.epoch);
        self.dead.extend(dead);
    }

    pub(crate) fn release_table(&mut self, caps: &mut CapTable) {
        let (objects, dead) = (&mut self.objects, &mut self.dead);
        caps.clear(|hold| dead.extend(objects.release(hold.object, hold.epoch)));
    }

    /// Ends a process for a fault. Does nothing if `pid` is not live.
    pub fn destroy_process(&mut self, machine: &mut M, pid: Pid) {
        self.end_process(machine, pid, EXIT_FAULT);
    }

    /// Ends a process: its waits are cancelled, its capabilities released,
    /// callers it was serving answered, its number never reused. Does nothing
    /// if `pid` is not live.
    pub(crate) fn end_process(&mut self, machine: &mut M, pid: Pid, code: i64) {
        if self.process(pid).is_none() {
            return;
        }
        let slot = pid.slot();
        for timer in process::timers_of(slot) {
            self.deadlines.disarm(timer);
        }
        let Some(mut process) = self.processes[slot].take() else {
            return;
        };
        self.forget_exit_waits(pid);
        self.forget_threads(&process.observed, code);
        self.forget_pipe_waits(pid);
        self.forget_terminal_read(pid);
        self.forget_bit_waits(pid, process.notification_waits);
        self.cancel_process(machine, pid);
        self.bequeath(pid, process.sponsor, process.limits.processes);
        self.settle_handle(machine, process.handle, code);
        self.release_table(&mut process.caps);
        if let Some(session) = self.sessions.table.get_mut(process.session.0) {
            session.processes -= 1;
        }
        self.free_unused_session(process.session);
        self.reap(machine);
        self.inherit(pid, process.sponsor);
        machine.bury(pid, code);
        self.forget_memory(machine, &process.space);
    }

    /// Handles the `exit` trap of thread `tid`: its process ends.
    ///
    /// Returns the code for whoever waits, or `None` if there was no such
    /// thread.
    pub fn exit(&mut self, machine: &mut M, pid: Pid, tid: Tid, code: i64) -> Option<i64> {
        let index = self.process(pid)?.thread_index(tid)?;
        self.exit_at(machine, pid, index, code)
    }

    /// As [`Server::exit`], of the thread in a place.
    pub fn exit_at(&mut self, machine: &mut M, pid: Pid, index: usize, code: i64) -> Option<i64> {
        self.process(pid)?.tid_at(index)?;
        self.end_process(machine, pid, code);
        Some(code)
    }

    /// Handles the `cap_enter` trap of thread `tid`: drains the submission
    /// queue, then waits for `min_complete` completions or `timeout_ns`. The
    /// timeout runs from the end of the drain, which [`Entry::Again`] puts off.
    pub fn cap_enter(
        &mut self,
        machine: &mut M,
        pid: Pid,
        tid: Tid,
        min_complete: u64,
        timeout_ns: u64,
    ) -> Entry {
        match self.process(pid).and_then(|p| p.thread_index(tid)) {
            Some(index) => self.cap_enter_at(machine, pid, index, min_complete, timeout_ns),
            None => Entry::Resume(ENTER_REJECTED),
        }
    }

    /// As [`Server::cap_enter`], of the thread in a place, which the machine
    /// knows from [`Machine::create_thread`]; the first thread is in place 0.
    #[inline]
    pub fn cap_enter_at(
        &mut self,
        machine: &mut M,
        pid: Pid,
        index: usize,
        min_complete: u64,
        timeout_ns: u64,
    ) -> Entry {
        let Some(tid) = self.process(pid).and_then(|p| p.tid_at(index)) else {
            return Entry::Resume(ENTER_REJECTED);
        };
        let caller = Caller {
            slot: pid.slot(),
            thread: ThreadRef { pid, tid },
        };
        self.forget_stale_waits(caller, index);
        if min_complete > CQ_ENTRIES.into() {
            return Entry::Resume(ENTER_REJECTED);
        }
        let min_complete = min_complete as u32;
        let drained = self.drain(machine, caller);
        self.settle(machine, caller.slot);
        match drained {
            Drained::Parked => return Entry::Block,
            Drained::Ended(code) => return Entry::Ended(code),
            Drained::Done | Drained::OwnedByOther | Drained::OutOfTime => {}
        }
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Entry::Block;
        };
        if let Drained::OutOfTime = drained {
            return Entry::Again;
        }
        let available = process.ring.available();
        if let Drained::OwnedByOther = drained {
            let enough = available > 0 && available >= min_complete;
            return Entry::Resume(if enough {
                available.into()
            } else {
                ENTER_THREAD_OWNED_HEAD
            });
        }
        if available >= min_complete {
            return Entry::Resume(available.into());
        }
        self.block(machine, caller, available, min_complete, timeout_ns)
    }

    /// A thread that enters waits for nothing, whatever was recorded: a forged
    /// entry can come from a thread that is recorded as stopped.
    #[inline]
    fn forget_stale_waits(&mut self, caller: Caller, index: usize) {
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return;
        };
        let (waits, parked) = (process.waiter.is_some(), process.parks[index].is_some());
        if waits {
            self.forget_wait_of(caller);
        }
        if parked {
            self.interrupt_park(caller.slot, index);
        }
    }

    pub(crate) fn forget_wait_of(&mut self, caller: Caller) {
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return;
        };
        if process.waiter.is_some_and(|w| w.tid == caller.thread.tid) {
            process.waiter = None;
            self.deadlines
                .disarm(process::timer(caller.slot, TimerUse::Enter));
        }
    }

    /// After a drain: resumes another thread of the process whose completions
    /// came meanwhile.
    #[inline]
    fn settle(&mut self, machine: &mut M, slot: usize) {
        let process = self.processes[slot].as_deref();
        if process.is_some_and(|process| process.waiter.is_some()) {
            self.wake_if_satisfied(machine, slot);
        }
    }

    /// Makes the thread its process's waiter, if there is none and time to
    /// wait; otherwise it gets the present count.
    fn block(
        &mut self,
        machine: &mut M,
        caller: Caller,
        available: u32,
        min_complete: u32,
        timeout_ns: u64,
    ) -> Entry {
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Entry::Block;
        };
        if timeout_ns == 0 || process.waiter.is_some() {
            return Entry::Resume(available.into());
        }
        process.waiter = Some(Waiter {
            tid: caller.thread.tid,
            min_complete,
        });
        if timeout_ns != WAIT_FOREVER {
            let due = machine.now_ns().saturating_add(timeout_ns);
            self.deadlines
                .arm(process::timer(caller.slot, TimerUse::Enter), due);
        }
        Entry::Block
    }

    /// Takes and dispatches submissions until none is left, one cannot be
    /// taken, a queue's worth was taken, or time is up; at least one is taken
    /// if one can be.
    #[inline]
    fn drain(&mut self, machine: &mut M, caller: Caller) -> Drained {
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Drained::Done;
        };
        process.ring.flush_backlog();
        let mut left = process.ring.pending();
        while left > 0 {
            let Some(process) = self.processes[caller.slot].as_deref_mut() else {
                return Drained::Done;
            };
            let room = process.ring.room();
            if room == 0 {
                return Drained::Done;
            }
            let mut sqe = process.ring.peek();
            if is_nop(&sqe) {
                let (answered, behind) = process.ring.answer_nops(&sqe, left.min(room));
                left -= answered;
                let Some(behind) = behind else { continue };
                sqe = behind;
            }
            left -= 1;
            let checked = match sqe_wire_validation_error(&sqe) {
                Ok(()) if is_owned_by_other(&sqe, caller.thread.tid) => {
                    if process.thread_index(Tid::from_raw(sqe.call_id)).is_some() {
                        return Drained::OwnedByOther;
                    }
                    // Its owner ended, or never was: nobody could take it.
                    Err(CAP_ERR_INVALID_REQUEST)
                }
                checked => checked,
            };
            process.ring.advance();
            let outcome = match checked {
                Ok(()) => self.dispatch(machine, caller, &sqe),
                Err(code) => Outcome::code(&sqe, code),
            };
            match outcome {
                Outcome::Complete(cqe) => self.complete(machine, caller.slot, &sqe, &cqe),
                Outcome::Pending => {}
                Outcome::Parked => return Drained::Parked,
                Outcome::Ended(code) => return Drained::Ended(code),
            }
            // S3: the next submission may free the same place, or fill it.
            if !self.dead.is_empty() {
                self.reap(machine);
            }
            if left > 0 && machine.out_of_time() {
                return Drained::OutOfTime;
            }
        }
        Drained::Done
    }

    /// Posts the completion of a dispatched submission.
    #[inline]
    fn complete(&mut self, machine: &mut M, slot: usize, sqe: &CapSqe, cqe: &CapCqe) {
        if (CAP_ERR_TRANSFER_ABORTED..=CAP_ERR_INVALID_REQUEST).contains(&cqe.result) {
            self.report(machine, slot, sqe, cqe.result);
        }
        if let Some(process) = self.processes[slot].as_deref_mut() {
            process.ring.complete(cqe);
        }
    }

    /// Reports a refused submission, if its process's rate allows.
    #[cold]
    fn report(&mut self, machine: &mut M, slot: usize, sqe: &CapSqe, error: i32) {
        let Some(process) = self.processes[slot].as_deref_mut() else {
            return;
        };
        if !process.limiter.is_open() {
            let end = process.limiter.open(machine.now_ns());
            let timer = process::timer(slot, TimerUse::Diagnostics);
            self.deadlines.arm(timer, end);
        }
        // What is wrong with the entry's form is one kind of error whatever
        // capability the entry names.
        let structural = error != CAP_ERR_INVOKE_FAILED && sqe_wire_validation_error(sqe).is_err();
        let cap_id = if structural { 0 } else { sqe.cap_id };
        if process.limiter.admit(error, sqe.opcode, cap_id) {
            machine.diagnose(&Diagnostic::Invalid {
                pid: process.pid,
                error,
                opcode: sqe.opcode,
                cap_id,
            });
        }
    }

    /// Ends a process's diagnostics window.
    fn end_window(&mut self, machine: &mut M, slot: usize) {
        let Some(process) = self.processes[slot].as_deref_mut() else {
            return;
        };
        if let Some((count, last_error)) = process.limiter.close() {
            machine.diagnose(&Diagnostic::Suppressed {
                pid: process.pid,
                count,
                last_error,
            });
        }
    }

    /// The earliest moment at which [`Server::advance`] has something to do.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.next()
    }

    /// Acts on everything that is due at `now` (monotonic nanoseconds): posts
    /// completions and resumes threads.
    pub fn advance(&mut self, machine: &mut M, now: u64) {
        while let Some(timer) = self.deadlines.pop_due(now) {
            if let Some(index) = process::session_of_timer(timer) {
                self.finish_session(machine, SessionId(index));
                continue;
            }
            let (slot, timer_use) = process::timer_owner(timer);
            match timer_use {
                TimerUse::Enter => self.resume_waiter(machine, slot),
                TimerUse::Sleep(index) => self.end_sleep(machine, slot, index),
                TimerUse::Park(index) => self.end_park(machine, slot, index, PARK_TIMED_OUT),
                TimerUse::Diagnostics => self.end_window(machine, slot),
            }
        }
    }

    fn end_sleep(&mut self, machine: &mut M, slot: usize, index: usize) {
        let Some(process) = self.processes[slot].as_deref_mut() else {
            return;
        };
        if let Some(user_data) = process.sleeps[index].take() {
            process.complete_outstanding(&completion(user_data, 0));
            self.wake_if_satisfied(machine, slot);
        }
    }

    /// Resumes the waiter of a process if its completions are there.
    pub(crate) fn wake_if_satisfied(&mut self, machine: &mut M, slot: usize) {
        if let Some((thread, rax)) = self.take_satisfied_waiter(slot) {
            machine.resume(thread, rax);
        }
    }

    /// As [`Server::wake_if_satisfied`], for a receiver of a call.
    pub(crate) fn hand_over_if_satisfied(&mut self, machine: &mut M, slot: usize) {
        if let Some((thread, rax)) = self.take_satisfied_waiter(slot) {
            machine.hand_over(thread, rax);
        }
    }

    fn take_satisfied_waiter(&mut self, slot: usize) -> Option<(ThreadRef, u64)> {
        let process = self.processes[slot].as_deref_mut()?;
        let waiter = process.waiter?;
        if process.ring.available() < waiter.min_complete {
            return None;
        }
        self.take_waiter(slot)
    }

    /// Resumes the waiter of a process with the present count.
    fn resume_waiter(&mut self, machine: &mut M, slot: usize) {
        if let Some((thread, rax)) = self.take_waiter(slot) {
            machine.resume(thread, rax);
        }
    }

    fn take_waiter(&mut self, slot: usize) -> Option<(ThreadRef, u64)> {
        self.deadlines.disarm(process::timer(slot, TimerUse::Enter));
        let process = self.processes[slot].as_deref_mut()?;
        let tid = process.waiter.take()?.tid;
        let pid = process.pid;
        Some((ThreadRef { pid, tid }, process.ring.available().into()))
    }

    /// The live process `pid` names.
    #[inline]
    pub(crate) fn process(&self, pid: Pid) -> Option<&Process<M::Ring>> {
        self.processes[pid.slot()]
            .as_deref()
            .filter(|process| process.pid == pid)
    }

    /// The live process `pid` names, for change.
    #[inline]
    pub(crate) fn process_mut(&mut self, pid: Pid) -> Option<&mut Process<M::Ring>> {
        self.processes[pid.slot()]
            .as_deref_mut()
            .filter(|process| process.pid == pid)
    }

    /// Whether `pid` names a live process.
    pub fn is_live(&self, pid: Pid) -> bool {
        self.process(pid).is_some()
    }

    /// Whether no process, capability, call or extra session is left.
    pub fn is_idle(&self) -> bool {
        let (references, cells) = self.objects.total_references();
        self.processes.iter().all(Option::is_none)
            && references == self.roots.len() as u64
            && cells == 0
            && self.endpoints.is_empty()
            && self.pipes.table.iter().next().is_none()
            && self.notifications.table.iter().next().is_none()
            && self.sessions.is_idle()
    }

    /// What a live process holds, for reports of who holds what.
    pub fn holds(&self, pid: Pid) -> impl Iterator<Item = (CapId, &Hold)> {
        self.process(pid)
            .into_iter()
            .flat_map(|process| process.caps.iter())
    }

    /// Feeds what decides future behaviour, ring indices and time aside, to a
    /// hasher: for searches of the state space.
    pub fn fingerprint(&self, hasher: &mut impl Hasher) {
        struct Feed<'a, H>(&'a mut H);
        impl<H: Hasher> fmt::Write for Feed<'_, H> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.write(text.as_bytes());
                Ok(())
            }
        }
        let mut feed = Feed(hasher);
        let mut write = |value: &dyn fmt::Debug| {
            let written = fmt::write(&mut feed, format_args!("{value:?};"));
            debug_assert!(written.is_ok(), "a hasher takes everything");
        };
        for process in self.processes.iter().flatten() {
            write(&process.pid);
            write(&process.caps);
            write(&process.waiter);
            write(&process.parks);
            write(&process.threads);
            write(&process.observed);
            write(&process.sleeps);
            write(&process.session);
        }
        write(&self.thread_records);
        write(&self.objects);
        write(&self.endpoints.table);
        write(&self.endpoints.calls);
        write(&self.endpoints.recvs);
        write(&self.endpoints.pins);
        write(&self.pipes.table);
        write(&self.notifications);
        write(&self.sessions);
        write(&self.terminal.state());
    }

    /// Changes the memory map of a live process, to follow what was done to its
    /// memory behind the server's back.
    pub fn change_address_space<T>(
        &mut self,
        pid: Pid,
        change: impl FnOnce(&mut AddressMap) -> T,
    ) -> Option<T> {
        let process = self.process_mut(pid)?;
        let before = process.space.footprint();
        let changed = change(&mut process.space);
        let after = process.space.footprint();
        self.memory.promise(&before, &after);
        Some(changed)
    }

    /// Asserts every invariant that can be seen from outside a dispatch.
    pub fn check(&self) {
        self.objects.check();
        self.deadlines.check();
        self.check_sessions();
        self.endpoints.check();
        self.check_handles();
        self.check_memory();
        self.check_families();
        self.check_threads();
        self.pipes.check();
        self.notifications.check();
        self.terminal.check();
        assert!(self.dead.is_empty(), "S3: a dead object was not acted on");
        let (mut holds, mut reserved) = (0, 0);
        for (slot, process) in self.processes.iter().enumerate() {
            let Some(process) = process else { continue };
            assert_eq!(process.pid.slot(), slot, "P2: slot of {:?}", process.pid);
            process.caps.check();
            process.space.check();
            holds += u64::from(process.caps.used());
            reserved += u64::from(process.caps.reserved());
            self.check_waits(slot, process);
        }
        let (pins, moves) = self.endpoints.pins.totals();
        let (objects, epochs) = self.objects.total_references();
        let roots = self.roots.len() as u64;
        assert_eq!(objects, holds + pins + roots, "S2: objects");
        assert_eq!(epochs, holds + pins, "S2: epochs");
        assert_eq!(moves, reserved, "X2: reserved sources");
    }

    fn check_waits(&self, slot: usize, process: &Process<M::Ring>) {
        let pid = process.pid;
        let (mut calls, mut queued) = (0, 0);
        for (_, call) in self.endpoints.calls.iter() {
            if call.caller.pid != pid {
                continue;
            }
            calls += 1;
            if let CallState::Queued(chain) = call.state {
                queued += chain.len();
            }
        }
        assert_eq!(process.call_bytes, queued, "charge for queued params");
        let recvs = self.endpoints.recvs.iter();
        let recvs = recvs.filter(|(_, recv)| recv.receiver.pid == pid).count();
        let sleeps = process.sleeps.iter().flatten().count();
        let bits = self.notifications.waits_of(pid);
        assert_eq!(process.notification_waits as usize, bits, "N2: count");
        let objects = self.exit_waits(pid) + self.pipes.waits(pid) + self.joins(pid) + bits;
        let objects = objects + self.terminal.reads_of(pid);
        let waiting = sleeps + calls + objects;
        assert_eq!(process.outstanding as usize, waiting, "Q1: outstanding");
        assert_eq!(process.receives as usize, recvs, "Q1: receives");
        let parked = process.parks.iter().flatten().count();
        assert_eq!(process.ring.credits() as usize, parked, "R4: credits");
        let pipe_kib = self.pipes.charges(pid);
        assert_eq!(process.made.pipe_kib, pipe_kib, "W3: charge for pipes");
        let notifications = self.notifications.charges(pid);
        assert_eq!(process.made.notifications, notifications, "N2: charge");
        let endpoints = self.endpoints.table.iter();
        let endpoints = endpoints.filter(|(_, endpoint)| endpoint.payer == Some(pid));
        let endpoints = endpoints.count() as u32;
        assert_eq!(process.made.endpoints, endpoints, "E6: charge");
        self.check_timers(slot, process);
    }

    fn check_timers(&self, slot: usize, process: &Process<M::Ring>) {
        let armed = |timer_use| self.deadlines.is_armed(process::timer(slot, timer_use));
        for (index, sleep) in process.sleeps.iter().enumerate() {
            assert_eq!(sleep.is_some(), armed(TimerUse::Sleep(index)), "Q2: sleep");
        }
        for (index, park) in process.parks.iter().enumerate() {
            let timeout = armed(TimerUse::Park(index));
            assert!(park.is_some() || !timeout, "Q2: timeout without park");
            let thread = process.threads[index].is_some();
            assert!(park.is_none() || thread, "a park without its thread");
        }
        let timeout = armed(TimerUse::Enter);
        assert!(process.waiter.is_some() || !timeout, "Q2: no waiter");
        let window = armed(TimerUse::Diagnostics);
        assert_eq!(process.limiter.is_open(), window, "Q2: diagnostics");
    }
}

/// Whether another thread than `tid` must dispatch this submission.
#[inline]
fn is_owned_by_other(sqe: &CapSqe, tid: Tid) -> bool {
    sqe.flags & CAP_SQE_THREAD_OWNED != 0
        && matches!(sqe.opcode, CAP_OP_CALL | CAP_OP_PARK)
        && sqe.call_id != tid.raw()
}
