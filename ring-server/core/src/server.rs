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

use alloc::boxed::Box;
use alloc::vec::Vec;

use capnp::Word;
use capos_config::KernelCapSource;
use capos_config::ring::{
    CAP_OP_CALL, CAP_OP_NOP, CAP_OP_PARK, CAP_SQE_THREAD_OWNED, CQ_ENTRIES, CapSqe,
    sqe_wire_validation_error,
};

use crate::address_space::AddressSpace;
use crate::cap_table::{CapError, CapId, CapTable, Hold, HoldOrigin, TransferMode, TransferScope};
use crate::capset::{CAPSET_PAGE_BYTES, CapSetError, CapSetPage};
use crate::deadline::Deadlines;
use crate::dispatch::{Caller, Outcome};
use crate::ids::{PROCESS_SLOTS, Pid, ThreadRef, Tid};
use crate::limits::{Limits, PARAMS_BYTES_MAX, RESULT_BYTES_MAX};
use crate::machine::Machine;
use crate::objects::{Object, ObjectId, Objects, UnsupportedSource};
use crate::process::{self, Process, TIMERS, TimerUse, Waiter};
use crate::ring::{Ring, completion};

/// `cap_enter` result: the arguments were refused.
pub const ENTER_REJECTED: u64 = u64::MAX;
/// `cap_enter` result: the submission at the head belongs to another thread.
pub const ENTER_THREAD_OWNED_HEAD: u64 = u64::MAX - 2;
/// `cap_enter` timeout that never ends.
pub const WAIT_FOREVER: u64 = u64::MAX;

/// Objects that can exist at one time.
const OBJECTS_MAX: u32 = 1024;

/// What becomes of a thread that entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It continues now with this value in RAX.
    Resume(u64),
    /// It stays stopped until [`Machine::resume`] names it.
    Block,
}

/// What a process is granted under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantSource {
    /// A kernel capability, named as manifests name it.
    Kernel(KernelCapSource),
}

/// One line of a process's CapSet.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The name the program looks up.
    pub name: &'a str,
    /// Where the capability comes from.
    pub source: GrantSource,
    /// Badge of the hold; 0 for kernel objects.
    pub badge: u64,
}

impl<'a> Grant<'a> {
    /// A kernel capability with badge 0.
    pub const fn kernel(name: &'a str, source: KernelCapSource) -> Self {
        Self {
            name,
            source: GrantSource::Kernel(source),
            badge: 0,
        }
    }
}

/// What [`Server::create_process`] needs to know.
#[derive(Debug)]
pub struct ProcessSpec<'a, R> {
    ring: R,
    space: AddressSpace,
    limits: Limits,
    grants: &'a [Grant<'a>],
}

impl<'a, R> ProcessSpec<'a, R> {
    /// A process whose ring page is `ring` (already initialised with the ABI's
    /// header) and whose memory is `space`; ceilings as limits, no grants.
    pub const fn new(ring: R, space: AddressSpace) -> Self {
        Self {
            ring,
            space,
            limits: Limits::CEILING,
            grants: &[],
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
}

impl From<CapError> for CreateError {
    fn from(_: CapError) -> Self {
        Self::CapSlotsExhausted
    }
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
#[derive(Debug)]
pub struct Server<M: Machine> {
    pub(crate) processes: Box<[ProcessSlot<M::Ring>; PROCESS_SLOTS]>,
    pub(crate) objects: Objects,
    pub(crate) deadlines: Deadlines,
    /// Private copy of the params being decoded.
    pub(crate) params: Vec<Word>,
    /// Result under construction.
    pub(crate) reply: Vec<Word>,
    /// Stateless kernel objects, each kept alive by one reference.
    roots: Vec<(Object, ObjectId)>,
    next_pid: Pid,
}

/// How draining a submission queue ended.
enum Drained {
    /// Nothing more can be taken now.
    Done,
    /// The head belongs to another thread.
    OwnedByOther,
    /// The entering thread is parked.
    Parked,
    /// The process ended.
    Gone,
}

impl<M: Machine> Default for Server<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> Server<M> {
    /// A server without processes. All storage that dispatch uses is taken
    /// here and in [`Server::create_process`].
    pub fn new() -> Self {
        let mut objects = Objects::with_capacity(OBJECTS_MAX);
        let roots = [Object::Console, Object::Timer, Object::ParkSpace]
            .into_iter()
            .filter_map(|object| Some((object, objects.insert(object)?)))
            .collect();
        Self {
            processes: Box::new([const { None }; PROCESS_SLOTS]),
            objects,
            deadlines: Deadlines::new(TIMERS),
            params: Word::allocate_zeroed_vec(PARAMS_BYTES_MAX as usize / size_of::<Word>()),
            reply: Word::allocate_zeroed_vec(RESULT_BYTES_MAX as usize / size_of::<Word>()),
            roots,
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
        let pid = self.free_pid()?;
        let mut caps = CapTable::new(spec.limits.cap_slots);
        let mut page = CapSetPage::new(capset);
        for grant in spec.grants {
            if let Err(error) = self.insert_grant(&mut caps, &mut page, grant) {
                self.release_table(&mut caps);
                return Err(error);
            }
        }
        self.processes[pid.slot()] = Some(Box::new(Process {
            pid,
            ring: Ring::new(spec.ring),
            caps,
            space: spec.space,
            limits: spec.limits,
            outstanding: 0,
            waiter: None,
            sleeps: [None; _],
        }));
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

    fn insert_grant(
        &mut self,
        caps: &mut CapTable,
        page: &mut CapSetPage<'_>,
        grant: &Grant<'_>,
    ) -> Result<CapId, CreateError> {
        let hold = self.mint_grant(grant)?;
        let id = match caps.insert(hold) {
            Ok(id) => id,
            Err(error) => {
                self.objects.release(hold.object, hold.epoch);
                return Err(error.into());
            }
        };
        page.push(grant.name, id, hold.interface_id)?;
        Ok(id)
    }

    /// A hold for a grant, with its references.
    fn mint_grant(&mut self, grant: &Grant<'_>) -> Result<Hold, CreateError> {
        let GrantSource::Kernel(source) = grant.source;
        let object = Object::from_source(source)?;
        let root = self.roots.iter().find(|&&(root, _)| root == object);
        let &(_, id) = root.ok_or(CreateError::ObjectsExhausted)?;
        let epoch = self
            .objects
            .insert_epoch()
            .ok_or(CreateError::ObjectsExhausted)?;
        self.objects.retain_object(id);
        Ok(Hold {
            badge: grant.badge,
            ..kernel_hold(object, id, epoch)
        })
    }

    fn release_table(&mut self, caps: &mut CapTable) {
        let objects = &mut self.objects;
        caps.clear(|hold| {
            objects.release(hold.object, hold.epoch);
        });
    }

    /// Ends a process: its waits are cancelled, its capabilities released, its
    /// number never reused. Does nothing if `pid` is not live.
    pub fn destroy_process(&mut self, machine: &mut M, pid: Pid) {
        let _ = machine;
        if self.process(pid).is_none() {
            return;
        }
        let slot = pid.slot();
        for timer in process::timers_of(slot) {
            self.deadlines.disarm(timer);
        }
        if let Some(mut process) = self.processes[slot].take() {
            self.release_table(&mut process.caps);
        }
    }

    /// Handles the `exit` trap: the process of `thread` ends.
    ///
    /// Returns the code for whoever waits, or `None` if there was no such
    /// process.
    pub fn exit(&mut self, machine: &mut M, pid: Pid, tid: Tid, code: i64) -> Option<i64> {
        let _ = tid;
        self.process(pid)?;
        self.destroy_process(machine, pid);
        Some(code)
    }

    /// Handles the `cap_enter` trap of thread `tid`: drains the submission
    /// queue, then waits for `min_complete` completions or `timeout_ns`.
    pub fn cap_enter(
        &mut self,
        machine: &mut M,
        pid: Pid,
        tid: Tid,
        min_complete: u64,
        timeout_ns: u64,
    ) -> Entry {
        if min_complete > u64::from(CQ_ENTRIES) || self.process(pid).is_none() {
            return Entry::Resume(ENTER_REJECTED);
        }
        let min_complete = min_complete as u32;
        let caller = Caller {
            slot: pid.slot(),
            thread: ThreadRef { pid, tid },
        };
        self.forget_wait_of(caller);
        let owned_by_other = match self.drain(machine, caller) {
            Drained::Done => false,
            Drained::OwnedByOther => true,
            Drained::Parked | Drained::Gone => return Entry::Block,
        };
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Entry::Block;
        };
        let available = process.ring.available();
        if process.waiter.is_some() {
            self.wake_if_satisfied(machine, caller.slot);
        }
        if available >= min_complete && !(owned_by_other && available == 0) {
            return Entry::Resume(available.into());
        }
        if owned_by_other {
            return Entry::Resume(ENTER_THREAD_OWNED_HEAD);
        }
        self.block(machine, caller, available, min_complete, timeout_ns)
    }

    /// A thread that enters is not waiting, whatever it was before.
    #[inline]
    fn forget_wait_of(&mut self, caller: Caller) {
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return;
        };
        if process.waiter.is_some_and(|w| w.tid == caller.thread.tid) {
            process.waiter = None;
            self.deadlines
                .disarm(process::timer(caller.slot, TimerUse::Enter));
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
    /// taken, or a queue's worth was taken.
    #[inline]
    fn drain(&mut self, machine: &mut M, caller: Caller) -> Drained {
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Drained::Gone;
        };
        process.ring.flush_backlog();
        for _ in 0..process.ring.pending() {
            let Some(process) = self.processes[caller.slot].as_deref_mut() else {
                return Drained::Gone;
            };
            if !process.ring.has_room() {
                return Drained::Done;
            }
            let sqe = process.ring.peek();
            if let Err(code) = sqe_wire_validation_error(&sqe) {
                process.ring.advance();
                process.ring.post(&completion(sqe.user_data, code));
                continue;
            }
            if sqe.opcode == CAP_OP_NOP {
                process.ring.advance();
                process.ring.post(&completion(sqe.user_data, 0));
                continue;
            }
            if is_owned_by_other(&sqe, caller.thread.tid) {
                return Drained::OwnedByOther;
            }
            process.ring.advance();
            match self.dispatch(machine, caller, &sqe) {
                Outcome::Complete(cqe) => self.complete(caller.slot, &cqe),
                Outcome::Pending => {}
                Outcome::Parked => return Drained::Parked,
            }
        }
        Drained::Done
    }

    fn complete(&mut self, slot: usize, cqe: &capos_config::ring::CapCqe) {
        if let Some(process) = self.processes[slot].as_deref_mut() {
            process.ring.complete(cqe);
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
            let (slot, timer_use) = process::timer_owner(timer);
            match timer_use {
                TimerUse::Enter => self.resume_waiter(machine, slot),
                TimerUse::Sleep(index) => self.end_sleep(machine, slot, index),
                TimerUse::Park(_) => {}
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
        let Some(process) = self.processes[slot].as_deref_mut() else {
            return;
        };
        let Some(waiter) = process.waiter else {
            return;
        };
        if process.ring.available() >= waiter.min_complete {
            self.resume_waiter(machine, slot);
        }
    }

    /// Resumes the waiter of a process with the present count.
    fn resume_waiter(&mut self, machine: &mut M, slot: usize) {
        self.deadlines.disarm(process::timer(slot, TimerUse::Enter));
        let Some(process) = self.processes[slot].as_deref_mut() else {
            return;
        };
        if let Some(waiter) = process.waiter.take() {
            let available = process.ring.available();
            let thread = ThreadRef {
                pid: process.pid,
                tid: waiter.tid,
            };
            machine.resume(thread, available.into());
        }
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

    /// The memory map of a live process, to follow mappings made for it.
    pub fn address_space_mut(&mut self, pid: Pid) -> Option<&mut AddressSpace> {
        self.process_mut(pid).map(|process| &mut process.space)
    }

    /// Asserts every invariant that can be seen from outside a dispatch.
    pub fn check(&self) {
        self.objects.check();
        self.deadlines.check();
        let mut holds = 0;
        for (slot, process) in self.processes.iter().enumerate() {
            let Some(process) = process else { continue };
            assert_eq!(process.pid.slot(), slot, "P2: slot of {:?}", process.pid);
            process.caps.check();
            process.space.check();
            holds += u64::from(process.caps.used());
            self.check_waits(slot, process);
        }
        let (objects, epochs) = self.objects.total_references();
        assert_eq!(objects, holds + self.roots.len() as u64, "S2: objects");
        assert_eq!(epochs, holds, "S2: epochs");
    }

    fn check_waits(&self, slot: usize, process: &Process<M::Ring>) {
        let sleeps = process.sleeps.iter().flatten().count() as u32;
        assert_eq!(process.outstanding, sleeps, "Q1: outstanding");
        for (index, sleep) in process.sleeps.iter().enumerate() {
            let timer = process::timer(slot, TimerUse::Sleep(index));
            assert_eq!(sleep.is_some(), self.deadlines.is_armed(timer), "Q2: sleep");
        }
        let timer = process::timer(slot, TimerUse::Enter);
        assert!(
            process.waiter.is_some() || !self.deadlines.is_armed(timer),
            "Q2: timeout without waiter"
        );
    }
}

/// Whether another thread than `tid` must dispatch this submission.
#[inline]
fn is_owned_by_other(sqe: &CapSqe, tid: Tid) -> bool {
    sqe.flags & CAP_SQE_THREAD_OWNED != 0
        && matches!(sqe.opcode, CAP_OP_CALL | CAP_OP_PARK)
        && sqe.call_id != tid.raw()
}

/// The hold a process gets on a kernel object at start.
fn kernel_hold(object: Object, id: ObjectId, epoch: crate::objects::EpochId) -> Hold {
    Hold {
        object: id,
        epoch,
        observed_epoch: 0,
        interface_id: object.interface_id(),
        badge: 0,
        disclosure_scope: 0,
        transfer_mode: transfer_mode(object),
        transfer_scope: TransferScope::SameSession,
        origin: HoldOrigin::Kernel,
    }
}

/// Transfer mode of a kernel object's boot hold.
pub const fn transfer_mode(object: Object) -> TransferMode {
    match object {
        Object::Console | Object::Timer | Object::EndpointClient(_) => TransferMode::Copy,
        Object::ParkSpace | Object::CapabilityManager(_) | Object::EndpointOwner(_) => {
            TransferMode::NonTransferable
        }
    }
}
