//! Page faults: what the server says about them, and faults that repeat.
//!
//! Threads of one process can fault on the same page before the first of them
//! is served; the later ones find it backed and retry. The kernel and the map
//! never disagree, so a retry succeeds, unless the fault was forged. Should
//! they disagree all the same, a thread would fault for ever: one that repeats
//! the very same fault [`REPEATS_MAX`] times, finding nothing to repair, is
//! stopped.

use ring_server_core::{Access, Backed, Denied, PageFault, THREADS_MAX};
use sel4::fault::{self, VmFault};

use crate::gate::{Gate, Speaker};

/// Times a thread may repeat a fault that leaves nothing to repair. Threads
/// that race for a page need one.
pub const REPEATS_MAX: u8 = 64;

/// Why a page fault was not repaired. The process is killed for all of them.
#[derive(Clone, Copy, Debug)]
pub enum Unrepaired {
    /// The server says so.
    Fault(PageFault),
    /// The page is there and allows the access, yet the processor refused it.
    Disagreement,
}

#[derive(Clone, Copy, Debug, Default)]
struct Repeat {
    address: u64,
    ip: u64,
    count: u8,
}

/// The last fault of each thread that left nothing to repair.
#[derive(Debug)]
pub struct Repeats([Repeat; THREADS_MAX]);

impl Repeats {
    /// No faults.
    pub const fn new() -> Self {
        const NONE: Repeat = Repeat {
            address: 0,
            ip: 0,
            count: 0,
        };
        Self([NONE; THREADS_MAX])
    }

    /// Notes such a fault; false when it came too often in a row.
    fn admit(&mut self, index: usize, fault: &VmFault) -> bool {
        let last = &mut self.0[index % THREADS_MAX];
        if (last.address, last.ip) != (fault.addr, fault.ip) {
            *last = Repeat {
                address: fault.addr,
                ip: fault.ip,
                count: 0,
            };
        }
        last.count = last.count.saturating_add(1);
        last.count <= REPEATS_MAX
    }

    /// Notes a fault that was repaired.
    fn reset(&mut self, index: usize) {
        self.0[index % THREADS_MAX].count = 0;
    }
}

impl Gate {
    /// Lets the server repair a page fault.
    ///
    /// # Errors
    /// [`Unrepaired`].
    pub fn repair(&mut self, speaker: Speaker, fault: &VmFault) -> Result<(), Unrepaired> {
        let client = self.world.client_in(speaker.slot);
        let denied = Unrepaired::Fault(PageFault::Denied(Denied::Unmapped));
        let pid = client.ok_or(denied)?.pid;
        let access = match fault.access() {
            fault::Access::Read => Access::Read,
            fault::Access::Write => Access::Write,
            fault::Access::Execute => Access::Execute,
        };
        let backed = self
            .server
            .page_fault(&mut self.world, pid, fault.addr, access)
            .map_err(Unrepaired::Fault)?;
        let Some(client) = self.world.client_in_mut(speaker.slot) else {
            return Ok(());
        };
        match backed {
            Backed::Now => client.repeats.reset(speaker.index),
            Backed::Already if client.repeats.admit(speaker.index, fault) => {}
            Backed::Already => return Err(Unrepaired::Disagreement),
        }
        Ok(())
    }
}
