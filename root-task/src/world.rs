//! Everything below the personality: memory, time, console, threads.
//!
//! `World` is the [`Machine`] of `ring-server-core` on seL4. It holds the
//! clients, the broker and the devices; the server holds the policy and never
//! sees a capability.

use cap_broker::{Broker, BrokerError, Rights};
use capos_loader::{Access, Backing, Denied, FaultVerdict, Page as ClientPage, layout::PAGE_BYTES};
use ring_server_core::{AccessFault, Machine, PROCESS_SLOTS, Pid, ThreadRef};

use crate::client::{Client, backed_page, new_page, rights};
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
    clients: [Option<Client>; PROCESS_SLOTS],
}

impl World {
    /// A machine without clients.
    pub const fn new(broker: Broker, clock: Clock, console: Uart) -> Self {
        Self {
            broker,
            clock,
            console,
            clients: [const { None }; PROCESS_SLOTS],
        }
    }

    /// Takes a client in, in the place its number gives it.
    pub fn admit(&mut self, client: Client) {
        let slot = client.pid.slot();
        self.clients[slot] = Some(client);
    }

    /// Takes a client out, to be torn down.
    pub fn dismiss(&mut self, pid: Pid) -> Option<Client> {
        let place = &mut self.clients[pid.slot()];
        place.take_if(|client| client.pid == pid)
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
    fn reach(&mut self, pid: Pid, addr: u64, access: Access) -> Result<Option<Page>, AccessFault> {
        let client = self.client(pid).ok_or(AccessFault)?;
        let page = client.map.page_for(addr, access).map_err(|_| AccessFault)?;
        let space = client.space;
        match backed_page(&self.broker, space, page.address) {
            Some(page) => Ok(Some(page)),
            None if page.backing != Backing::DemandZero => Err(AccessFault),
            None if access == Access::Read => Ok(None),
            None => self.back_for_server(space, page).map(Some),
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

    fn resume(&mut self, thread: ThreadRef, rax: u64) {
        let slot = thread.pid.slot();
        let Some(client) = self.client_in_mut(slot).filter(|c| c.pid == thread.pid) else {
            return;
        };
        if let Err(error) = message::preserve(|| client.resume(rax)) {
            log!("pid {} cannot be resumed: {error:?}", thread.pid.raw());
        }
    }
}
