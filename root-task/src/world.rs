//! Everything below the personality: memory, time, console, threads.
//!
//! `World` is the [`Machine`] of `ring-server-core` on seL4. It holds the
//! clients, the broker and the devices; the server holds the policy and never
//! sees a capability.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use cap_broker::{Broker, BrokerError, Rights, SpaceId, Usage};
use capos_loader::layout::{PAGE_BYTES, page_floor};
use capos_loader::{AddressMap, Protection};
use ring_server_core::{
    AccessFault, Backed, CAPSET_PAGE_BYTES, Class, ClockReading, CpuBudget, Embryo, Machine,
    NoMemory, PROCESS_SLOTS, Pid, PrepareError, ThreadEntry, ThreadRef, ThreadRefused, ThreadUse,
    Tid, Turn, TurnRefused,
};

use crate::archive::Package;
use crate::client::{self, BuildError, Client, Nursery, Thread, backed_page, new_page, rights};
use crate::clock::Clock;
use crate::console::Console;
use crate::entropy;
use crate::fairness::Fairness;
use crate::log;
use crate::means::Means;
use crate::memory::{self, ObjectFrames};
use crate::message;
use crate::priority;
use crate::program::{Program, Programs};
use crate::terminal::TerminalLine;
use crate::window::{Page, RingWindow};
use sel4::{HAS_SCHED_CONTEXTS, cap};

/// The machine below the server.
pub struct World {
    /// Memory, slots and devices.
    pub broker: Broker,
    /// Time.
    pub clock: Clock,
    /// Whose turn is over.
    pub fairness: Fairness,
    /// The capOS console.
    pub console: Console,
    /// The terminal, if the machine has one.
    pub terminal: Option<TerminalLine>,
    /// Programs and manifest.
    package: Package,
    programs: Programs,
    /// Programs that may have no more than a part of the processor.
    budgets: Vec<(String, CpuBudget)>,
    /// What threads are made with.
    means: Means,
    /// How many cores threads are spread over.
    cores: u64,
    /// The process whose end is the system's.
    first: Option<Pid>,
    prepared: Option<Prepared>,
    /// What the CMOS clock said at boot.
    reading: Option<ClockReading>,
    /// What was in use before the first process.
    idle: Option<Usage>,
    /// Set when a process ended and only the first one is left.
    alone_again: bool,
    /// Memory of the server's memory objects.
    objects: ObjectFrames,
    clients: [Option<Box<Client>>; PROCESS_SLOTS],
}

/// A process under construction.
struct Prepared {
    program: Rc<Program>,
    space: SpaceId,
}

impl World {
    /// A machine without clients.
    pub fn new(
        broker: Broker,
        clock: Clock,
        console: Console,
        package: Package,
        means: Means,
    ) -> Self {
        Self {
            broker,
            fairness: Fairness::new(&clock),
            clock,
            console,
            terminal: None,
            package,
            programs: Programs::new(),
            budgets: Vec::new(),
            means,
            cores: 1,
            first: None,
            prepared: None,
            reading: None,
            idle: None,
            alone_again: false,
            objects: ObjectFrames::new(),
            clients: [const { None }; PROCESS_SLOTS],
        }
    }

    /// What a thread is made of.
    pub fn making(&mut self) -> (&mut Broker, &Means) {
        (&mut self.broker, &self.means)
    }

    /// Spreads the threads of programs over so many cores.
    pub fn set_cores(&mut self, cores: u64) {
        self.cores = cores;
    }

    /// Limits programs, by name, from the next process of each.
    pub fn set_budgets(&mut self, budgets: Vec<(String, CpuBudget)>) {
        self.budgets = budgets;
    }

    fn budget_of(&self, program: &str) -> Option<CpuBudget> {
        let mut named = self.budgets.iter().filter(|(name, _)| name == program);
        named.next().map(|&(_, budget)| budget)
    }

    /// Says that the process in a slot used up the budget of its program, if it
    /// has one, and once for each process.
    #[cold]
    pub fn note_overrun(&mut self, slot: usize) {
        let Some(client) = self.client_in_mut(slot) else {
            return;
        };
        let noted = client.note_overrun();
        let (pid, name) = (client.pid.raw(), &client.name);
        match (noted, client.limit) {
            (Ok(true), Some(limit)) => {
                let (budget, period) = (limit.budget_us(), limit.period_us());
                log!("pid {pid} ({name}) used up its budget: {budget} of {period} us");
            }
            (Ok(_), _) => {}
            (Err(error), _) => log!("pid {pid} keeps reporting its budget: {error:?}"),
        }
    }

    /// Names the process whose end stops the machine.
    pub fn set_first(&mut self, pid: Pid) {
        self.first = Some(pid);
    }

    /// Whether the system ends with this process.
    pub fn is_first(&self, pid: Pid) -> bool {
        self.first == Some(pid)
    }

    /// Whether a process ended, since this was last asked, and left the first
    /// one alone.
    #[inline]
    pub fn take_alone_again(&mut self) -> bool {
        core::mem::take(&mut self.alone_again)
    }

    /// Whether the terminal received something that is still to be taken in.
    #[inline]
    pub fn has_terminal_input(&self) -> bool {
        self.terminal.as_ref().is_some_and(|line| line.pending)
    }

    /// Sets what the clock said, and when.
    pub fn set_clock_reading(&mut self, reading: Option<ClockReading>) {
        self.reading = reading;
    }

    /// Notes what is in use while there is no process.
    ///
    /// # Errors
    /// The broker's.
    pub fn note_idle(&mut self) -> Result<(), BrokerError> {
        self.broker.trim()?;
        self.idle = Some(self.broker.usage());
        Ok(())
    }

    /// Says in the log whether everything that processes had is back. Says
    /// nothing while there are processes.
    pub fn audit(&mut self) {
        if self.prepared.is_some() || self.clients.iter().any(Option::is_some) {
            return;
        }
        let Some(idle) = self.idle else { return };
        let trimmed = self.broker.trim();
        self.broker.check();
        let now = self.broker.usage();
        if trimmed.is_ok() && now == idle {
            log!("all memory is back");
        } else {
            log!("lost since boot ({trimmed:?}): {idle:?} became {now:?}");
        }
    }

    /// Makes an address space with a ring page for a program of the package.
    fn load(&mut self, program: &str) -> Result<Embryo<RingWindow>, PrepareError> {
        let program = self.programs.find(&mut self.package, program)?;
        let nursery = Nursery::new(&mut self.broker).map_err(no_memory)?;
        let space = AddressMap::for_program(&program.plan, true);
        let provided = memory::provide(&mut self.broker, nursery.space, &space);
        if let Err(error) = provided {
            self.give_up(nursery.space);
            return Err(no_memory(error));
        }
        self.prepared = Some(Prepared {
            program,
            space: nursery.space,
        });
        Ok(Embryo {
            ring: nursery.ring,
            space,
        })
    }

    /// Destroys the address space of a process that will not be.
    fn give_up(&mut self, space: SpaceId) {
        if let Err(error) = self.broker.destroy_space(space) {
            log!("an unused address space leaves something behind: {error}");
        }
    }

    fn build(
        &mut self,
        pid: Pid,
        class: Class,
        capset: &[u8; CAPSET_PAGE_BYTES],
    ) -> Result<Client, BuildError> {
        let prepared = self.prepared.take().ok_or(BuildError::NotPrepared)?;
        let program = client::Program {
            pid,
            class,
            limit: self.budget_of(&prepared.program.name),
            cores: self.cores,
            name: &prepared.program.name,
            file: prepared.program.file,
            plan: &prepared.program.plan,
        };
        let broker = &mut self.broker;
        let mut client = Client::build(broker, prepared.space, program, capset, &self.means)?;
        if let Err(error) = client.start() {
            client.tear_down(broker)?;
            return Err(error.into());
        }
        Ok(client)
    }

    /// Ends the turn of the process in a slot: others of its class run first,
    /// or everybody if it has a budget.
    #[cold]
    pub fn end_turn(&mut self, slot: usize) {
        let now = self.clock.now_ns();
        let Some(client) = self.clients[slot].as_deref_mut() else {
            return;
        };
        if self.fairness.spend(client.pid, now) {
            change_priority(client, priority_away(client));
            message::preserve(|| self.note_overrun(slot));
        }
    }

    /// Lets those come back that have waited for others long enough.
    pub fn begin_turns(&mut self, now: u64) {
        while let Some(pid) = self.fairness.take_due(now) {
            if let Some(client) = self.client_mut(pid) {
                change_priority(client, priority::of(client.class));
            }
        }
    }

    /// How many process slots there are.
    pub const fn client_slots(&self) -> usize {
        self.clients.len()
    }

    /// Where faults arrive.
    pub const fn endpoint(&self) -> cap::Endpoint {
        self.means.endpoint()
    }

    /// What threads are made with.
    pub const fn means(&self) -> &Means {
        &self.means
    }

    /// Whether no program runs while the root task does.
    pub const fn is_alone_on_memory(&self) -> bool {
        self.cores == 1
    }

    /// The client in a process slot, as named by a badge.
    pub fn client_in(&self, slot: usize) -> Option<&Client> {
        self.clients.get(slot)?.as_deref()
    }

    /// The client in a process slot, for change.
    pub fn client_in_mut(&mut self, slot: usize) -> Option<&mut Client> {
        self.clients.get_mut(slot)?.as_deref_mut()
    }

    /// The thread in a place of a live process.
    fn thread(&self, thread: ThreadRef, index: usize) -> Option<&Thread> {
        let threads = self.client(thread.pid)?.thread_at(index);
        threads.filter(|known| known.tid == thread.tid)
    }

    #[inline]
    fn client_mut(&mut self, pid: Pid) -> Option<&mut Client> {
        self.client_in_mut(pid.slot())
            .filter(|client| client.pid == pid)
    }

    fn client(&self, pid: Pid) -> Option<&Client> {
        self.client_in(pid.slot())
            .filter(|client| client.pid == pid)
    }

    /// The page behind `addr`: `None` for zeroes that have no memory yet.
    #[inline]
    fn page_at(&self, pid: Pid, addr: u64) -> Result<Option<Page>, AccessFault> {
        let space = self.client(pid).ok_or(AccessFault)?.space;
        Ok(backed_page(&self.broker, space, addr))
    }

    /// Copies bytes of one page out.
    #[inline]
    fn read_page(&self, pid: Pid, addr: u64, out: &mut [u8]) -> Result<(), AccessFault> {
        match self.page_at(pid, addr)? {
            Some(page) => page.copy_out(offset_in_page(addr), out),
            None => out.fill(0),
        }
        Ok(())
    }

    /// Copies bytes into one page.
    #[inline]
    fn write_page(&mut self, pid: Pid, addr: u64, bytes: &[u8]) -> Result<(), AccessFault> {
        let page = match self.page_at(pid, addr)? {
            Some(page) => page,
            None => self.back_for_server(pid, addr)?,
        };
        page.copy_in(offset_in_page(addr), bytes);
        Ok(())
    }

    #[inline(never)]
    fn read_pages(&self, pid: Pid, addr: u64, out: &mut [u8]) -> Result<(), AccessFault> {
        let mut pieces = pieces(addr, out.len());
        pieces.try_for_each(|(at, range)| self.read_page(pid, at, &mut out[range]))
    }

    #[inline(never)]
    fn write_pages(&mut self, pid: Pid, addr: u64, bytes: &[u8]) -> Result<(), AccessFault> {
        let mut pieces = pieces(addr, bytes.len());
        pieces.try_for_each(|(at, range)| self.write_page(pid, at, &bytes[range]))
    }

    /// As a page fault would, in the middle of a fault message.
    #[cold]
    fn back_for_server(&mut self, pid: Pid, addr: u64) -> Result<Page, AccessFault> {
        let space = self.client(pid).ok_or(AccessFault)?.space;
        let page = page_floor(addr);
        message::preserve(|| new_page(&mut self.broker, space, page, Rights::ReadWrite)).map_err(
            |error| {
                log!("no page for a buffer: {error}");
                AccessFault
            },
        )
    }
}

/// The priority of a program that had its turn.
const fn priority_away(client: &Client) -> u8 {
    match client.limit {
        Some(_) => priority::OUT_OF_BUDGET,
        None => priority::behind(priority::of(client.class)),
    }
}

fn change_priority(client: &mut Client, priority: u8) {
    if let Err(error) = message::preserve(|| client.set_priority(priority)) {
        log!("pid {} keeps its priority: {error:?}", client.pid.raw());
    }
}

#[cold]
fn refused(error: BrokerError) -> NoMemory {
    log!("no memory: {error}");
    NoMemory
}

/// Says so if the kernel would not let go of something.
fn report(what: &str, outcome: Result<(), BrokerError>) {
    if let Err(error) = outcome {
        log!("{what} of a process stay behind: {error}");
    }
}

fn no_memory(error: BrokerError) -> PrepareError {
    log!("no room for a process: {error}");
    PrepareError::NoMemory
}

/// Splits a range of client addresses at page boundaries: address, range in
/// the buffer.
fn pieces(addr: u64, len: usize) -> impl Iterator<Item = (u64, core::ops::Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        (done < len).then(|| {
            let at = addr.wrapping_add(done as u64);
            let room = (PAGE_BYTES - at % PAGE_BYTES) as usize;
            let range = done..done + room.min(len - done);
            done = range.end;
            (at, range)
        })
    })
}

const fn offset_in_page(addr: u64) -> usize {
    (addr % PAGE_BYTES) as usize
}

impl Machine for World {
    type Ring = RingWindow;

    fn keeps_budgets(&self) -> bool {
        HAS_SCHED_CONTEXTS
    }

    fn clock_reading(&self) -> Option<ClockReading> {
        self.reading
    }

    fn entropy(&mut self, out: &mut [u8]) -> bool {
        entropy::fill(out).is_ok()
    }

    fn now_ns(&mut self) -> u64 {
        self.clock.now_ns()
    }

    fn out_of_time(&mut self) -> bool {
        self.fairness.is_over_budget()
    }

    fn console_write(&mut self, bytes: &[u8]) {
        self.console.write(bytes);
    }

    fn terminal_write(&mut self, bytes: &[u8]) {
        if let Some(line) = &mut self.terminal {
            line.write(bytes);
        }
    }

    fn back(&mut self, pid: Pid, page: u64, protection: Protection) -> Result<Backed, NoMemory> {
        let space = self.client(pid).ok_or(NoMemory)?.space;
        if self.broker.page(space, page).is_some() {
            return Ok(Backed::Already);
        }
        match new_page(&mut self.broker, space, page, rights(protection)) {
            Ok(_) => Ok(Backed::Now),
            Err(error) => {
                log!("pid {}: {error}", pid.raw());
                Err(NoMemory)
            }
        }
    }

    fn provide_tables(&mut self, pid: Pid, start: u64, end: u64) -> Result<(), NoMemory> {
        let space = self.client(pid).ok_or(NoMemory)?.space;
        message::preserve(|| self.broker.prepare_tables(space, start, end)).map_err(refused)
    }

    fn release_tables(&mut self, pid: Pid, start: u64, end: u64) {
        let Some(space) = self.client(pid).map(|client| client.space) else {
            return;
        };
        let released = message::preserve(|| self.broker.release_tables(space, start, end));
        report("page tables", released);
    }

    fn unmap(&mut self, pid: Pid, start: u64, end: u64) {
        let Some(space) = self.client(pid).map(|client| client.space) else {
            return;
        };
        let unmapped = message::preserve(|| self.broker.unmap_pages(space, start, end));
        report("pages", unmapped.map(drop));
    }

    fn protect(&mut self, pid: Pid, start: u64, end: u64, protection: Protection) {
        let Some(space) = self.client(pid).map(|client| client.space) else {
            return;
        };
        let rights = (!protection.is_none()).then(|| rights(protection));
        let done = message::preserve(|| self.broker.protect_pages(space, start, end, rights));
        report("protection", done);
    }

    fn create_object(&mut self, object: u32, pages: u32) -> Result<(), NoMemory> {
        message::preserve(|| self.objects.create(&mut self.broker, object, pages)).map_err(refused)
    }

    fn free_object(&mut self, object: u32) {
        let freed = message::preserve(|| self.objects.free(&mut self.broker, object));
        report("a memory object", freed);
    }

    fn map_object(
        &mut self,
        pid: Pid,
        range: (u64, u64),
        object: (u32, u32),
        protection: Protection,
    ) -> Result<(), NoMemory> {
        let space = self.client(pid).ok_or(NoMemory)?.space;
        let broker = &mut self.broker;
        message::preserve(|| self.objects.map(broker, space, range, object, protection))
            .map_err(refused)
    }

    fn read(&mut self, pid: Pid, addr: u64, out: &mut [u8]) -> Result<(), AccessFault> {
        if offset_in_page(addr) + out.len() <= PAGE_BYTES as usize {
            return self.read_page(pid, addr, out);
        }
        self.read_pages(pid, addr, out)
    }

    fn write(&mut self, pid: Pid, addr: u64, bytes: &[u8]) -> Result<(), AccessFault> {
        if offset_in_page(addr) + bytes.len() <= PAGE_BYTES as usize {
            return self.write_page(pid, addr, bytes);
        }
        self.write_pages(pid, addr, bytes)
    }

    fn prepare(&mut self, program: &str) -> Result<Embryo<RingWindow>, PrepareError> {
        message::preserve(|| self.load(program))
    }

    fn launch(
        &mut self,
        pid: Pid,
        class: Class,
        capset: &[u8; CAPSET_PAGE_BYTES],
    ) -> Result<(), PrepareError> {
        match message::preserve(|| self.build(pid, class, capset)) {
            Ok(client) => {
                log!("pid {} is {}", pid.raw(), client.name);
                self.fairness.start(pid, client.limit);
                self.clients[pid.slot()] = Some(Box::new(client));
                Ok(())
            }
            Err(error) => {
                log!("pid {} cannot be built: {error}", pid.raw());
                Err(PrepareError::NoMemory)
            }
        }
    }

    fn set_class(&mut self, pid: Pid, class: Class) {
        let waits = self.fairness.is_spent(pid);
        if let Some(client) = self.client_mut(pid) {
            client.class = class;
            let now = match waits {
                true => priority_away(client),
                false => priority::of(class),
            };
            change_priority(client, now);
        }
    }

    fn discard(&mut self) {
        let Some(prepared) = self.prepared.take() else {
            return;
        };
        if let Err(error) = message::preserve(|| self.broker.destroy_space(prepared.space)) {
            log!("{} leaves something behind: {error}", prepared.program.name);
        }
    }

    fn bury(&mut self, pid: Pid, code: i64) {
        let place = &mut self.clients[pid.slot()];
        let Some(mut client) = place.take_if(|client| client.pid == pid) else {
            return;
        };
        log!("pid {} ended: {code}", pid.raw());
        if client.hand_overs > 0 {
            let (receiver, calls) = (pid.raw(), client.hand_overs);
            log!("{calls} calls were handed over to pid {receiver}");
        }
        if let Err(error) = message::preserve(|| client.tear_down(&mut self.broker)) {
            log!("pid {} leaves something behind: {error}", pid.raw());
        }
        self.fairness.forget(pid);
        self.alone_again = self.clients.iter().flatten().count() == 1;
    }

    fn create_thread(
        &mut self,
        thread: ThreadRef,
        index: usize,
        entry: &ThreadEntry,
    ) -> Result<(), ThreadRefused> {
        let place = self.clients[thread.pid.slot()].as_deref_mut();
        let client = place.filter(|client| client.pid == thread.pid);
        let client = client.ok_or(ThreadRefused)?;
        let (broker, means) = (&mut self.broker, &self.means);
        let places = client.places();
        let added =
            message::preserve(|| client.add_thread(broker, means, (thread.tid, index), entry));
        if let Some(limit) = client.limit.filter(|_| client.places() > places) {
            // The kernel gives threads that do not run a new budget.
            self.fairness.charge_us(thread.pid, limit.budget_us());
        }
        added.map_err(|error| {
            log!("no thread for pid {}: {error}", thread.pid.raw());
            ThreadRefused
        })
    }

    fn end_thread(&mut self, thread: ThreadRef, index: usize) {
        let place = self.clients[thread.pid.slot()].as_deref_mut();
        let Some(client) = place.filter(|client| client.pid == thread.pid) else {
            return;
        };
        let broker = &mut self.broker;
        if let Err(error) = message::preserve(|| client.remove_thread(broker, index)) {
            let (pid, tid) = (thread.pid.raw(), thread.tid.raw());
            log!("thread {tid} of pid {pid} leaves something behind: {error}");
        }
    }

    fn set_turn(&mut self, thread: ThreadRef, index: usize, turn: Turn) -> Result<(), TurnRefused> {
        let client = self.client(thread.pid).ok_or(TurnRefused)?;
        let set = message::preserve(|| client.set_turn(&self.means, index, turn));
        // The kernel begins a new turn with it.
        self.fairness.charge_us(thread.pid, turn.length_us());
        set.map_err(|_| TurnRefused)
    }

    fn thread_use(&mut self, thread: ThreadRef, index: usize) -> ThreadUse {
        let client = self.client_mut(thread.pid);
        let used = client.map(|client| message::preserve(|| client.thread_use(index)));
        used.unwrap_or_default()
    }

    fn fs_base(&mut self, thread: ThreadRef, index: usize) -> u64 {
        let known = self.thread(thread, index);
        let fs_base = known.map(|known| message::preserve(|| known.fs_base()));
        fs_base.and_then(Result::ok).unwrap_or_default()
    }

    fn set_fs_base(&mut self, thread: ThreadRef, index: usize, fs_base: u64) {
        let known = self.thread(thread, index);
        let set = known.map(|known| message::preserve(|| known.set_fs_base(fs_base)));
        if let Some(Err(error)) = set {
            log!(
                "an FS base of pid {} is not set: {error:?}",
                thread.pid.raw()
            );
        }
    }

    fn boot_manifest(&self) -> &[u8] {
        self.package.manifest
    }

    /// seL4 puts a thread that is restarted at the head of its priority's
    /// queue, so the receiver runs before programs that were ready already.
    fn hand_over(&mut self, thread: ThreadRef, rax: u64) {
        if let Some(client) = self.client_mut(thread.pid) {
            client.hand_overs = client.hand_overs.saturating_add(1);
            continue_with(client, thread.tid, rax);
        }
    }

    fn resume(&mut self, thread: ThreadRef, rax: u64) {
        if let Some(client) = self.client_mut(thread.pid) {
            continue_with(client, thread.tid, rax);
            if client.limit.is_some() {
                self.fairness.charge_wakeup(thread.pid);
            }
        }
    }
}

/// Lets a thread that waits continue.
#[inline]
fn continue_with(client: &mut Client, tid: Tid, rax: u64) {
    let pid = client.pid;
    let Some(thread) = client.thread_mut(tid) else {
        return;
    };
    if let Err(error) = message::preserve_resume(|| thread.resume(rax)) {
        log!("pid {} cannot be resumed: {error:?}", pid.raw());
    }
}
