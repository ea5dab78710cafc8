//! Everything below the personality: memory, time, console, threads.
//!
//! `World` is the [`Machine`] of `ring-server-core` on seL4. It holds the
//! clients, the broker and the devices; the server holds the policy and never
//! sees a capability.

use alloc::string::String;

use cap_broker::{Broker, BrokerError, Rights, SpaceId, Usage};
use capos_loader::{
    Access, AddressMap, Backing, Denied, FaultVerdict, LoadPlan, Page as ClientPage,
    layout::PAGE_BYTES,
};
use ring_server_core::{
    AccessFault, AddressSpace, CAPSET_PAGE_BYTES, Embryo, Machine, PROCESS_SLOTS, Pid,
    PrepareError, ThreadRef,
};
use sel4::cap;

use crate::archive::Package;
use crate::client::{BuildError, Client, Nursery, Program, frame_page, new_page, rights};
use crate::clock::Clock;
use crate::log;
use crate::message;
use crate::serial::Uart;
use crate::window::{Page, RingWindow};

/// Why a page fault was not repaired. The process is killed for all of them.
#[derive(Clone, Copy, Debug)]
pub enum PageFault {
    /// The process may not do that.
    Denied(Denied),
    /// The page is there and allows the access, yet the processor refused it.
    Disagreement,
    /// No memory for the page.
    NoMemory(BrokerError),
}

/// The machine below the server.
pub struct World {
    /// Memory, slots and devices.
    pub broker: Broker,
    /// Time.
    pub clock: Clock,
    /// The capOS console.
    pub console: Uart,
    /// Programs and manifest.
    package: Package,
    /// Where faults arrive.
    endpoint: cap::Endpoint,
    /// The process whose end is the system's.
    first: Option<Pid>,
    prepared: Option<Prepared>,
    /// What was in use before the first process.
    idle: Option<Usage>,
    clients: [Option<Client>; PROCESS_SLOTS],
}

/// A process under construction.
struct Prepared {
    name: String,
    file: &'static [u8],
    plan: LoadPlan,
    space: SpaceId,
}

impl World {
    /// A machine without clients. Their faults go to `endpoint`.
    pub const fn new(
        broker: Broker,
        clock: Clock,
        console: Uart,
        package: Package,
        endpoint: cap::Endpoint,
    ) -> Self {
        Self {
            broker,
            clock,
            console,
            package,
            endpoint,
            first: None,
            prepared: None,
            idle: None,
            clients: [const { None }; PROCESS_SLOTS],
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
        if trimmed.is_ok() && held(&now) == held(&idle) {
            let tables = now.window_tables - idle.window_tables;
            log!("all memory is back, {tables} window tables stay");
        } else {
            log!("lost since boot ({trimmed:?}): {idle:?} became {now:?}");
        }
    }

    /// Makes an address space with a ring page for a program of the package.
    fn load(&mut self, program: &str) -> Result<Embryo<RingWindow>, PrepareError> {
        let file = self.package.program(program)?;
        let plan = LoadPlan::parse(file).map_err(|error| {
            log!("{program} was refused: {error}");
            PrepareError::BadProgram
        })?;
        let nursery = Nursery::new(&mut self.broker).map_err(no_memory)?;
        let space = readable_ranges(&plan);
        self.prepared = Some(Prepared {
            name: String::from(program),
            file,
            plan,
            space: nursery.space,
        });
        Ok(Embryo {
            ring: nursery.ring,
            space,
        })
    }

    fn build(&mut self, pid: Pid, capset: &[u8; CAPSET_PAGE_BYTES]) -> Result<Client, BuildError> {
        let prepared = self.prepared.take().ok_or(BuildError::NotPrepared)?;
        let program = Program {
            pid,
            name: &prepared.name,
            file: prepared.file,
            plan: &prepared.plan,
        };
        let broker = &mut self.broker;
        let mut client = Client::build(broker, prepared.space, program, capset, self.endpoint)?;
        if let Err(error) = client.start() {
            client.tear_down(broker)?;
            return Err(error.into());
        }
        Ok(client)
    }

    /// The client in a process slot, as named by a badge.
    pub fn client_in(&self, slot: usize) -> Option<&Client> {
        self.clients.get(slot)?.as_ref()
    }

    /// The client in a process slot, for change.
    pub fn client_in_mut(&mut self, slot: usize) -> Option<&mut Client> {
        self.clients.get_mut(slot)?.as_mut()
    }

    fn client(&self, pid: Pid) -> Option<&Client> {
        self.client_in(pid.slot())
            .filter(|client| client.pid == pid)
    }

    /// Backs the page a fault of `slot`'s process asks for.
    ///
    /// # Errors
    /// [`PageFault`].
    pub fn repair(&mut self, slot: usize, fault: &sel4::fault::VmFault) -> Result<(), PageFault> {
        let Some(client) = self.client_in(slot) else {
            return Err(PageFault::Denied(Denied::Unmapped));
        };
        let access = fault.access();
        let is_write = access == sel4::fault::Access::Write;
        let is_fetch = access == sel4::fault::Access::Execute;
        match client.map.classify_fault(fault.addr, is_write, is_fetch) {
            FaultVerdict::Deny(denied) => Err(PageFault::Denied(denied)),
            FaultVerdict::Back(page) => {
                let space = client.space;
                if self.broker.page(space, page.address).is_some() {
                    return Err(PageFault::Disagreement);
                }
                new_page(
                    &mut self.broker,
                    space,
                    page.address,
                    rights(page.protection),
                )
                .map(drop)
                .map_err(PageFault::NoMemory)
            }
        }
    }

    /// The page behind `addr` if the process may access it so; backed for
    /// writing, `None` inside for a page of zeroes not backed yet.
    ///
    /// A page that is mapped allows what its mapping does, so the map of
    /// regions is asked only about pages that are not.
    #[inline]
    fn reach(&mut self, pid: Pid, addr: u64, access: Access) -> Result<Option<Page>, AccessFault> {
        let space = self.client(pid).ok_or(AccessFault)?.space;
        match self.broker.page(space, addr) {
            Some(page) if access == Access::Write && page.rights != Rights::ReadWrite => {
                Err(AccessFault)
            }
            Some(page) => frame_page(&self.broker, page.frame)
                .map(Some)
                .ok_or(AccessFault),
            None => self.reach_unbacked(pid, addr, access),
        }
    }

    #[cold]
    fn reach_unbacked(
        &mut self,
        pid: Pid,
        addr: u64,
        access: Access,
    ) -> Result<Option<Page>, AccessFault> {
        let client = self.client(pid).ok_or(AccessFault)?;
        let page = client.map.page_for(addr, access).map_err(|_| AccessFault)?;
        let space = client.space;
        match access {
            _ if page.backing != Backing::DemandZero => Err(AccessFault),
            Access::Read | Access::Execute => Ok(None),
            Access::Write => self.back_for_server(space, page).map(Some),
        }
    }

    /// As a page fault would, in the middle of a fault message.
    fn back_for_server(
        &mut self,
        space: cap_broker::SpaceId,
        page: ClientPage,
    ) -> Result<Page, AccessFault> {
        let rights: Rights = rights(page.protection);
        message::preserve(|| new_page(&mut self.broker, space, page.address, rights))
            .map_err(|_| AccessFault)
    }
}

/// What processes can hold of `usage`: everything but the tables behind the
/// root task's window, which are made when first needed and then stay.
fn held(usage: &Usage) -> Usage {
    Usage {
        free_bytes: usage.free_bytes + u64::from(usage.window_tables) * PAGE_BYTES,
        window_tables: 0,
        // Tables that stay keep the blocks they were split from in pieces.
        used_slots: 0,
        ..*usage
    }
}

fn no_memory(error: BrokerError) -> PrepareError {
    log!("no room for a process: {error}");
    PrepareError::NoMemory
}

/// The ranges a process may name as buffers.
fn readable_ranges(plan: &LoadPlan) -> AddressSpace {
    let mut space = AddressSpace::new();
    for region in AddressMap::for_program(plan, true).regions() {
        let access = if region.protection.write {
            ring_server_core::Access::ReadWrite
        } else {
            ring_server_core::Access::Read
        };
        let mapped = space.map(region.start, region.end - region.start, access);
        debug_assert!(mapped.is_ok(), "regions of a program do not overlap");
    }
    space
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

    fn now_ns(&mut self) -> u64 {
        self.clock.now_ns()
    }

    fn console_write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.console.put(byte);
        }
    }

    fn read(&mut self, pid: Pid, addr: u64, out: &mut [u8]) -> Result<(), AccessFault> {
        for (at, range) in pieces(addr, out.len()) {
            match self.reach(pid, at, Access::Read)? {
                Some(page) => page.copy_out(offset_in_page(at), &mut out[range]),
                None => out[range].fill(0),
            }
        }
        Ok(())
    }

    fn write(&mut self, pid: Pid, addr: u64, bytes: &[u8]) -> Result<(), AccessFault> {
        for (at, range) in pieces(addr, bytes.len()) {
            if let Some(page) = self.reach(pid, at, Access::Write)? {
                page.copy_in(offset_in_page(at), &bytes[range]);
            }
        }
        Ok(())
    }

    fn prepare(&mut self, program: &str) -> Result<Embryo<RingWindow>, PrepareError> {
        message::preserve(|| self.load(program))
    }

    fn launch(&mut self, pid: Pid, capset: &[u8; CAPSET_PAGE_BYTES]) -> Result<(), PrepareError> {
        match message::preserve(|| self.build(pid, capset)) {
            Ok(client) => {
                log!("pid {} is {}", pid.raw(), client.name);
                self.clients[pid.slot()] = Some(client);
                Ok(())
            }
            Err(error) => {
                log!("pid {} cannot be built: {error}", pid.raw());
                Err(PrepareError::NoMemory)
            }
        }
    }

    fn discard(&mut self) {
        let Some(prepared) = self.prepared.take() else {
            return;
        };
        if let Err(error) = message::preserve(|| self.broker.destroy_space(prepared.space)) {
            log!("{} leaves something behind: {error}", prepared.name);
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
    }

    fn boot_manifest(&self) -> &[u8] {
        self.package.manifest
    }

    /// seL4 puts a thread that is restarted at the head of its priority's
    /// queue, so the receiver runs before programs that were ready already.
    fn hand_over(&mut self, thread: ThreadRef, rax: u64) {
        if let Some(client) = self.client_in_mut(thread.pid.slot()) {
            client.hand_overs = client.hand_overs.saturating_add(1);
        }
        self.resume(thread, rax);
    }

    fn resume(&mut self, thread: ThreadRef, rax: u64) {
        let slot = thread.pid.slot();
        let Some(client) = self.client_in_mut(slot).filter(|c| c.pid == thread.pid) else {
            return;
        };
        if let Err(error) = message::preserve_resume(|| client.resume(rax)) {
            log!("pid {} cannot be resumed: {error:?}", thread.pid.raw());
        }
    }
}
