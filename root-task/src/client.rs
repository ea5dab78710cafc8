//! A process as the machine sees it: address space, CSpace, threads.
//!
//! # Theory of operation
//! [`Client::build`] turns a checked program into pages, tables and a thread
//! that has not run yet; [`Client::start`] lets it. Whatever fails half way is
//! taken down by [`Client::tear_down`], which is also how a process ends.
//!
//! The CSpace is a CNode with a slot for each thread a process can have, shared
//! by them all. A slot holds the fault endpoint, badged with the place of its
//! thread, from the first time that place is used; where the kernel keeps the
//! endpoint in the thread instead ([`crate::means`]), it stays empty. The CNode's guard is a number
//! no program holds in a register by accident, so that a stray seL4 call is a
//! capability fault with a report instead of a message.
//!
//! A thread can name the endpoint of a sibling and so put a page fault or a
//! capability fault into its mouth. Threads of a process share all its memory
//! anyway: the first backs a page that every one of them may touch, the second
//! ends the process, which any of them can do in easier ways.
//!
//! A thread that ends takes its TCB along. Keeping it for the next thread would
//! save some thousand instructions and hand over the state of the processor's
//! floating-point unit, which no invocation resets.
//!
//! What a thread has its time from, on kernels where that is an object, stays
//! with its place. The places a limited program has used share its budget: a
//! thread in a new one takes its part from the others, and one in an old one
//! goes on with what is left there, so that ending and making threads brings
//! no time.
//!
//! # Invariants
//! - **N1** The badge names process slot and thread place ([`badge_of`]); the
//!   kernel adds it and the program cannot choose it beyond its own threads.
//! - **N2** A thread whose `saved` is set does not run and waits for
//!   [`Client::resume`]; no reply is owed to it.

use alloc::string::String;
use core::fmt;

use cap_broker::{Broker, BrokerError, ObjectKind, OwnedObject, Rights, SpaceId, cap_of};
use capos_config::ring::{CapRingHeader, init_ring_header};
use capos_loader::{
    EntryState, LoadPlan, Protection, TlsSlot,
    layout::{CAPSET_ADDRESS, PAGE_BYTES, RING_ADDRESS},
};
use ring_server_core::{Class, CpuBudget, Pid, THREADS_MAX, ThreadEntry, ThreadUse, Tid, Turn};
use sel4::{
    AbsoluteCPtr, Budget, CNodeCapData, CPtr, FAULT_HANDLER_IN_TCB, UserContext, cap, cap_type,
    init_thread,
};

use crate::means::Means;
use crate::paging::Repeats;
use crate::priority;
use crate::window::{Page, RingWindow};

const CNODE_RADIX: u8 = 4;
const _: () = assert!(1 << CNODE_RADIX == THREADS_MAX, "a slot for each thread");
/// At most 18 bits on seL4 5.0.0.
const CSPACE_GUARD: u64 = 0x2_9a5b;
const CSPACE_GUARD_BITS: usize = 64 - CNODE_RADIX as usize;

const INDEX_BITS: u32 = 8;
const _: () = assert!(THREADS_MAX <= 1 << INDEX_BITS, "a place must fit");

/// The badge of the fault endpoint of the thread at `index` (N1). A badge of
/// zero is none and arrives as zero: the same.
pub const fn badge_of(pid: Pid, index: usize) -> u64 {
    (pid.slot() as u64) << INDEX_BITS | index as u64
}

/// Process slot and thread place in a badge.
pub const fn split_badge(badge: u64) -> (usize, usize) {
    (
        (badge >> INDEX_BITS) as usize,
        badge as usize & ((1 << INDEX_BITS) - 1),
    )
}

/// Registers of a thread that waits in `cap_enter`, apart from the result.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    /// Address of the instruction after the trap.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Flags.
    pub rflags: u64,
}

/// A thread: its number, its registers while it waits, its TCB.
pub struct Thread {
    /// Its number in its process.
    pub tid: Tid,
    /// Set while it waits (N2).
    pub saved: Option<Saved>,
    /// Times it had to wait.
    pub blocks: u64,
    /// Microseconds it ran, as far as the kernel was asked.
    runtime_us: u64,
    tcb: OwnedObject,
}

impl Thread {
    /// Its TCB.
    pub fn tcb(&self) -> cap::Tcb {
        cap::Tcb::from_bits(self.tcb.slot().0.into())
    }

    /// Lets it continue with `rax` if it waits (N2).
    ///
    /// # Errors
    /// The kernel's.
    pub fn resume(&mut self, rax: u64) -> sel4::Result<()> {
        match self.saved.take() {
            Some(saved) => self.continue_at(saved, rax),
            None => Ok(()),
        }
    }

    /// Sets the registers a trap may change and lets it run.
    ///
    /// # Errors
    /// The kernel's.
    pub fn continue_at(&self, saved: Saved, rax: u64) -> sel4::Result<()> {
        /// RIP, RSP, RFLAGS and RAX are the first four registers.
        const COUNT: usize = 4;
        let mut context = UserContext::default();
        context.rip = saved.rip;
        context.rsp = saved.rsp;
        context.rflags = saved.rflags;
        context.rax = rax;
        self.tcb().tcb_write_registers(true, COUNT, &context)
    }

    /// Base of its FS segment.
    ///
    /// # Errors
    /// The kernel's.
    pub fn fs_base(&self) -> sel4::Result<u64> {
        Ok(self.tcb().tcb_read_all_registers(false)?.fs_base())
    }

    /// Sets it; it is the last of the registers, so all are written.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_fs_base(&self, fs_base: u64) -> sel4::Result<()> {
        let mut context = self.tcb().tcb_read_all_registers(false)?;
        context.set_fs_base(fs_base);
        self.tcb().tcb_write_all_registers(false, &context)
    }
}

/// How the kernel finds the fault endpoint of a thread.
#[derive(Clone, Copy, Debug)]
pub struct FaultPlace {
    /// Its name in the CSpace.
    pub handler: CPtr,
    /// The CSpace.
    pub cspace: cap::CNode,
    /// The CSpace's guard.
    pub guard: CNodeCapData,
}

/// A process: what it is called, what its memory means, and its kernel
/// objects.
pub struct Client {
    /// Its number.
    pub pid: Pid,
    /// The program's name in the manifest.
    pub name: String,
    /// Its address space in the broker's books. What its addresses mean is
    /// the server's knowledge.
    pub space: SpaceId,
    /// Faults that found nothing to repair.
    pub repeats: Repeats,
    /// Calls whose delivery let a thread of it run next.
    pub hand_overs: u32,
    /// How urgent it is.
    pub class: Class,
    /// How much of the processor it may have, all its threads together.
    pub limit: Option<CpuBudget>,
    /// Whether it was said in the log that it used its budget up.
    overran: bool,
    /// Its threads' priority, now.
    priority: u8,
    /// Cores its threads are spread over.
    cores: u64,
    cspace: Option<OwnedObject>,
    threads: [Option<Thread>; THREADS_MAX],
    /// What the thread in each place has its time from, once there was one and
    /// where that is an object.
    times: [Option<OwnedObject>; THREADS_MAX],
    /// Places whose fault endpoint is in the CSpace.
    minted: [bool; THREADS_MAX],
}

/// The memory a process needs before the server knows it: its ring.
pub struct Nursery {
    /// Its address space.
    pub space: SpaceId,
    /// Its ring page.
    pub ring: RingWindow,
}

impl Nursery {
    /// An address space with an initialised ring page.
    ///
    /// # Errors
    /// The broker's, when memory runs out; nothing is left behind.
    pub fn new(broker: &mut Broker) -> Result<Self, BrokerError> {
        let space = broker.create_space()?;
        match new_page(broker, space, RING_ADDRESS, Rights::ReadWrite) {
            Ok(page) => {
                // SAFETY: the page is one frame of zeroes, mapped in our
                // window, 4096-aligned, and nobody else runs on it yet.
                unsafe { init_ring_header(page.as_ptr().cast::<CapRingHeader>()) };
                Ok(Self {
                    space,
                    ring: RingWindow::new(page),
                })
            }
            Err(error) => {
                broker.destroy_space(space)?;
                Err(error)
            }
        }
    }
}

impl Client {
    /// Fills the address space and makes a thread that has yet to be started.
    ///
    /// # Errors
    /// The broker's or the kernel's; the caller then calls
    /// [`Client::tear_down`] on nothing: what was made is gone.
    pub fn build(
        broker: &mut Broker,
        space: SpaceId,
        program: Program<'_>,
        capset: &[u8; PAGE_BYTES as usize],
        means: &Means,
    ) -> Result<Self, BuildError> {
        let mut client = Self {
            pid: program.pid,
            name: String::from(program.name),
            space,
            repeats: Repeats::new(),
            hand_overs: 0,
            class: program.class,
            limit: program.limit,
            overran: false,
            priority: priority::of(program.class),
            cores: program.cores,
            cspace: None,
            threads: [const { None }; THREADS_MAX],
            times: [const { None }; THREADS_MAX],
            minted: [false; THREADS_MAX],
        };
        match client.furnish(broker, &program, capset, means) {
            Ok(()) => Ok(client),
            Err(error) => {
                client.tear_down(broker)?;
                Err(error)
            }
        }
    }

    fn furnish(
        &mut self,
        broker: &mut Broker,
        program: &Program<'_>,
        capset: &[u8; PAGE_BYTES as usize],
        means: &Means,
    ) -> Result<(), BuildError> {
        new_page(broker, self.space, CAPSET_ADDRESS, Rights::Read)?.copy_in(0, capset);
        self.load_segments(broker, program)?;
        self.load_tls(broker, program)?;
        let cnode = broker.sizes().cnode(CNODE_RADIX);
        self.cspace = Some(broker.create_object(cnode)?);
        let slot = TlsSlot::of(self.pid.slot());
        let pid = u64::from(self.pid.raw());
        let entry = program.plan.entry_state(pid, true, slot);
        let thread = self.make_thread(broker, means, Tid::MAIN, 0)?;
        Ok(thread
            .tcb()
            .tcb_write_all_registers(false, &context(&entry))?)
    }

    /// Backs the pages that carry bytes of the file; the rest come on demand.
    fn load_segments(&self, broker: &mut Broker, program: &Program<'_>) -> Result<(), BuildError> {
        for segment in program.plan.segments() {
            for address in (segment.start..segment.file_end).step_by(PAGE_BYTES as usize) {
                let page = new_page(broker, self.space, address, rights(segment.protection))?;
                let content = segment.page_content(address);
                let bytes =
                    content.and_then(|c| Some((c.offset_in_page, c.bytes.of(program.file)?)));
                if let Some((offset, bytes)) = bytes {
                    page.copy_in(offset as usize, bytes);
                }
            }
        }
        Ok(())
    }

    /// The TLS block: template, zeroes, and the thread pointer at itself.
    fn load_tls(&self, broker: &mut Broker, program: &Program<'_>) -> Result<(), BuildError> {
        let Some(tls) = program.plan.tls_in(TlsSlot::of(self.pid.slot())) else {
            return Ok(());
        };
        for address in (tls.region_base..tls.region_end()).step_by(PAGE_BYTES as usize) {
            new_page(broker, self.space, address, Rights::ReadWrite)?;
        }
        let template = tls.template.of(program.file).unwrap_or_default();
        write_backed(broker, self.space, tls.image, template);
        write_backed(broker, self.space, tls.fs_base, &tls.fs_base.to_le_bytes());
        Ok(())
    }

    /// A thread that has yet to get its registers.
    fn make_thread(
        &mut self,
        broker: &mut Broker,
        means: &Means,
        tid: Tid,
        index: usize,
    ) -> Result<&Thread, BuildError> {
        let vspace = broker.vspace(self.space)?;
        let cnode = self.furnish_cspace(means, index)?;
        let badge = badge_of(self.pid, index);
        let core = self.core_of(index);
        self.furnish_time(broker, means, index)?;
        let tcb_object = broker.sizes().object(ObjectKind::Tcb);
        let place = self.threads.get_mut(index).ok_or(BuildError::NotPrepared)?;
        let thread = place.insert(Thread {
            tid,
            saved: None,
            blocks: 0,
            runtime_us: 0,
            tcb: broker.create_object(tcb_object)?,
        });
        let tcb = thread.tcb();
        let place = CPtr::from_bits(CSPACE_GUARD << CNODE_RADIX | index as u64);
        let guard = CNodeCapData::new(CSPACE_GUARD, CSPACE_GUARD_BITS);
        means.with_handler(place, badge, |handler| {
            tcb.tcb_set_space(handler, cnode, guard, vspace)
        })?;
        let authority = init_thread::slot::TCB.cap();
        tcb.tcb_set_priority(authority, self.priority)?;
        match &self.times[index] {
            Some(time) => cap_of::<cap_type::SchedContext>(time).sched_context_bind(tcb)?,
            None if self.cores > 1 => tcb.tcb_set_affinity(core)?,
            None => {}
        }
        if self.limit.is_some() && !self.overran {
            means.report_overruns(tcb, badge)?;
        }
        Ok(thread)
    }

    const fn core_of(&self, index: usize) -> u64 {
        (self.pid.slot() + index) as u64 % self.cores
    }

    /// Makes what a thread in a place has its time from. A place that is new
    /// changes the others' shares of the budget.
    fn furnish_time(
        &mut self,
        broker: &mut Broker,
        means: &Means,
        index: usize,
    ) -> Result<(), BuildError> {
        if let Some(time) = &self.times[index] {
            // What the last thread here had is not this one's.
            cap_of::<cap_type::SchedContext>(time).sched_context_consumed()?;
            return Ok(());
        }
        let places = self.places() + 1;
        let share = self
            .limit
            .map(|limit| kernel_budget(limit.shared_by(places)));
        if share.is_some() {
            // Where this fails the others have less than they might.
            for (place, time) in self.times.iter().enumerate() {
                if let Some(time) = time {
                    let badge = badge_of(self.pid, place);
                    means.set_time(time, self.core_of(place), share, badge)?;
                }
            }
        }
        let (core, badge) = (self.core_of(index), badge_of(self.pid, index));
        self.times[index] = means.make_time(broker, core, share, badge)?;
        Ok(())
    }

    /// How many places for threads have been used.
    pub fn places(&self) -> usize {
        self.times.iter().flatten().count()
    }

    /// Changes the turns of a thread.
    ///
    /// # Errors
    /// The kernel's; [`sel4::Error::IllegalOperation`] where the whole program
    /// has a budget, or there are none.
    pub fn set_turn(&self, means: &Means, index: usize, turn: Turn) -> sel4::Result<()> {
        let refused = sel4::Error::IllegalOperation;
        let thread = self.thread_at(index).ok_or(refused)?;
        let time = self.times.get(index).and_then(Option::as_ref);
        let time = time.filter(|_| self.limit.is_none()).ok_or(refused)?;
        let badge = badge_of(self.pid, index);
        let budget = match turn {
            Turn::Slice(slice_us) => Budget::unlimited(slice_us),
            Turn::Budget(budget) => kernel_budget(budget),
        };
        match turn {
            Turn::Slice(_) => Means::ignore_overruns(thread.tcb())?,
            Turn::Budget(_) => means.report_overruns(thread.tcb(), badge)?,
        }
        means.set_time(time, self.core_of(index), Some(budget), badge)
    }

    /// Notes what the kernel said the thread in a place had, once and for all.
    pub fn note_use(&mut self, index: usize, consumed_us: u64) {
        if let Some(thread) = self.thread_at_mut(index) {
            thread.runtime_us = thread.runtime_us.saturating_add(consumed_us);
        }
    }

    /// What the thread in a place had.
    pub fn thread_use(&mut self, index: usize) -> ThreadUse {
        let time = self.times.get(index).and_then(Option::as_ref);
        let used = time.map(|time| cap_of::<cap_type::SchedContext>(time).sched_context_consumed());
        let Some(thread) = self.thread_at_mut(index) else {
            return ThreadUse::default();
        };
        thread.runtime_us += used.and_then(Result::ok).unwrap_or_default();
        ThreadUse {
            runtime_ns: thread.runtime_us * 1_000,
            blocks: thread.blocks,
        }
    }

    /// Notes that a thread used its share of the budget up. The first time it
    /// is to be said; after that the kernel makes no more of it.
    ///
    /// # Errors
    /// The kernel's first.
    pub fn note_overrun(&mut self) -> sel4::Result<bool> {
        if self.limit.is_none() || core::mem::replace(&mut self.overran, true) {
            return Ok(false);
        }
        let threads = self.threads.iter().flatten();
        threads
            .map(|thread| Means::ignore_overruns(thread.tcb()))
            .fold(Ok(()), sel4::Result::and)
            .map(|()| true)
    }

    /// The CSpace, with the fault endpoint of a place in it if it belongs there.
    fn furnish_cspace(&mut self, means: &Means, index: usize) -> Result<cap::CNode, BuildError> {
        let cspace = self.cspace.as_ref().ok_or(BuildError::NotPrepared)?;
        let cnode = cap_of(cspace);
        if !self.minted[index] {
            let slot = (index as u64, CNODE_RADIX);
            means.furnish_cspace(cnode, slot, badge_of(self.pid, index))?;
            self.minted[index] = true;
        }
        Ok(cnode)
    }

    /// Makes another thread and lets it run.
    ///
    /// # Errors
    /// The broker's or the kernel's; nothing is left behind but a capability
    /// in the CSpace, for the next thread in this place.
    pub fn add_thread(
        &mut self,
        broker: &mut Broker,
        means: &Means,
        (tid, index): (Tid, usize),
        entry: &ThreadEntry,
    ) -> Result<(), BuildError> {
        let request = capos_loader::layout::ThreadEntry {
            entry: entry.entry,
            stack_top: entry.stack_top,
            argument: entry.arg,
            fs_base: entry.fs_base,
        };
        let (pid, number) = (self.pid.raw().into(), tid.raw().into());
        let context = context(&EntryState::thread(request, pid, number, true));
        let started = self
            .make_thread(broker, means, tid, index)
            .and_then(|thread| Ok(thread.tcb().tcb_write_all_registers(true, &context)?));
        if started.is_err() {
            self.remove_thread(broker, index)?;
        }
        started
    }

    /// Takes the thread in a place apart, if there is one.
    ///
    /// # Errors
    /// The broker's; it is gone all the same.
    pub fn remove_thread(&mut self, broker: &mut Broker, index: usize) -> Result<(), BrokerError> {
        match self.threads.get_mut(index).and_then(Option::take) {
            Some(thread) => broker.destroy_object(thread.tcb),
            None => Ok(()),
        }
    }

    /// Changes the priority of all its threads, present and future.
    ///
    /// # Errors
    /// The kernel's first; the other threads have it all the same.
    pub fn set_priority(&mut self, priority: u8) -> sel4::Result<()> {
        self.priority = priority;
        let authority = init_thread::slot::TCB.cap();
        let mut outcome = Ok(());
        for thread in self.threads.iter().flatten() {
            outcome = outcome.and(thread.tcb().tcb_set_priority(authority, priority));
        }
        outcome
    }

    /// How many threads it has.
    pub fn thread_count(&self) -> usize {
        self.threads().count()
    }

    /// The kernel objects of its threads.
    pub fn threads(&self) -> impl Iterator<Item = &OwnedObject> {
        self.threads.iter().flatten().map(|thread| &thread.tcb)
    }

    /// Names the slots of its CSpace, by index.
    pub fn cspace(&self) -> Option<impl Fn(usize) -> AbsoluteCPtr + use<>> {
        let cnode: cap::CNode = cap_of(self.cspace.as_ref()?);
        Some(move |index| {
            cnode.absolute_cptr_from_bits_with_depth(index as u64, CNODE_RADIX.into())
        })
    }

    /// For each slot of its CSpace, how the thread in that place finds its
    /// fault endpoint; none where there was no thread yet, or where the kernel
    /// keeps the endpoint in the thread.
    pub fn fault_places(&self) -> [Option<FaultPlace>; THREADS_MAX] {
        let cspace = self.cspace.as_ref().map(cap_of);
        core::array::from_fn(|index| {
            let cspace = cspace.filter(|_| self.minted[index] && !FAULT_HANDLER_IN_TCB)?;
            Some(FaultPlace {
                handler: CPtr::from_bits(CSPACE_GUARD << CNODE_RADIX | index as u64),
                cspace,
                guard: CNodeCapData::new(CSPACE_GUARD, CSPACE_GUARD_BITS),
            })
        })
    }

    /// The thread in a place, as named by a badge.
    #[inline]
    pub fn thread_at(&self, index: usize) -> Option<&Thread> {
        self.threads.get(index)?.as_ref()
    }

    /// The thread in a place, for change.
    #[inline]
    pub fn thread_at_mut(&mut self, index: usize) -> Option<&mut Thread> {
        self.threads.get_mut(index)?.as_mut()
    }

    /// The thread with a number, for change.
    #[inline]
    pub fn thread_mut(&mut self, tid: Tid) -> Option<&mut Thread> {
        let is_it = |place: &&mut Option<Thread>| place.as_ref().is_some_and(|t| t.tid == tid);
        self.threads.iter_mut().find(is_it)?.as_mut()
    }

    /// Lets its first thread run from where it stands.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(&self) -> sel4::Result<()> {
        match self.thread_at(0) {
            Some(thread) => thread.tcb().tcb_resume(),
            None => Ok(()),
        }
    }

    /// Takes threads, CSpace and memory apart and gives everything back.
    ///
    /// # Errors
    /// The broker's first; the rest is gone all the same.
    pub fn tear_down(&mut self, broker: &mut Broker) -> Result<(), BrokerError> {
        let mut outcome = Ok(());
        for index in 0..THREADS_MAX {
            outcome = outcome.and(self.remove_thread(broker, index));
        }
        for time in self.times.iter_mut().filter_map(Option::take) {
            outcome = outcome.and(broker.destroy_object(time));
        }
        if let Some(cspace) = self.cspace.take() {
            outcome = outcome.and(broker.destroy_object(cspace));
        }
        outcome.and(broker.destroy_space(self.space))
    }
}

/// A program about to become a process.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    /// The process's number.
    pub pid: Pid,
    /// How urgent it is.
    pub class: Class,
    /// How much of the processor it may have.
    pub limit: Option<CpuBudget>,
    /// How many cores there are.
    pub cores: u64,
    /// The program's name.
    pub name: &'a str,
    /// Its ELF file.
    pub file: &'a [u8],
    /// What the file asks for.
    pub plan: &'a LoadPlan,
}

/// Why a process could not be built; nothing is left behind.
#[derive(Clone, Copy, Debug)]
pub enum BuildError {
    /// Memory, slots or window ran out.
    Broker(BrokerError),
    /// The kernel refused to set the thread up.
    Kernel(sel4::Error),
    /// Nothing was prepared.
    NotPrepared,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) => write!(f, "{error}"),
            Self::Kernel(error) => write!(f, "seL4: {error:?}"),
            Self::NotPrepared => f.write_str("nothing was prepared"),
        }
    }
}

impl From<BrokerError> for BuildError {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl From<sel4::Error> for BuildError {
    fn from(error: sel4::Error) -> Self {
        Self::Kernel(error)
    }
}

/// Backs a page with zeroes and returns it as the root task sees it.
///
/// # Errors
/// The broker's.
pub fn new_page(
    broker: &mut Broker,
    space: SpaceId,
    address: u64,
    rights: Rights,
) -> Result<Page, BrokerError> {
    let frame = broker.back_page(space, address, rights)?;
    let window = broker.window_address(frame).ok_or(BrokerError::BadFrame)?;
    // SAFETY: the broker maps every allocated frame at its window address,
    // read-write, for as long as the frame lives.
    Ok(unsafe { Page::at(window) })
}

/// Copies bytes to client pages that are backed; others are passed over.
fn write_backed(broker: &Broker, space: SpaceId, address: u64, bytes: &[u8]) {
    let mut address = address;
    let mut rest = bytes;
    while !rest.is_empty() {
        let offset = (address % PAGE_BYTES) as usize;
        let (now, later) = rest.split_at(rest.len().min(PAGE_BYTES as usize - offset));
        if let Some(page) = backed_page(broker, space, address) {
            page.copy_in(offset, now);
        }
        address += now.len() as u64;
        rest = later;
    }
}

/// The page that contains `address`, as the root task sees it.
#[inline]
pub fn backed_page(broker: &Broker, space: SpaceId, address: u64) -> Option<Page> {
    let byte = broker.client_byte(space, address)?;
    // SAFETY: the broker maps every allocated frame at its window address,
    // read-write, for as long as the frame lives.
    Some(unsafe { Page::at(byte & !(PAGE_BYTES - 1)) })
}

/// Rights of a mapping; x86-64 seL4 knows no execute permission.
pub const fn rights(protection: Protection) -> Rights {
    if protection.write {
        Rights::ReadWrite
    } else {
        Rights::Read
    }
}

/// A budget as the kernel takes it.
const fn kernel_budget(budget: CpuBudget) -> Budget {
    Budget {
        budget_us: budget.budget_us(),
        period_us: budget.period_us(),
    }
}

fn context(entry: &EntryState) -> UserContext {
    let mut context = UserContext::default();
    context.rip = entry.rip;
    context.rsp = entry.rsp;
    context.rflags = entry.rflags;
    context.rdi = entry.rdi;
    context.rsi = entry.rsi;
    context.rdx = entry.rdx;
    context.rcx = entry.rcx;
    context.r8 = entry.r8;
    context.set_fs_base(entry.fs_base);
    context
}
