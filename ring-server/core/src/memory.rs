//! What a process's addresses mean while it runs: page faults.
//!
//! The address map of the process decides; the machine only backs pages.

use capos_loader::{Access, Backing, Denied, layout::page_floor};

use crate::ids::Pid;
use crate::machine::{Backed, Machine, NoMemory};
use crate::server::Server;

/// Why a page fault was not repaired. The process is at fault unless memory
/// ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFault {
    /// The process may not do that.
    Denied(Denied),
    /// No memory for the page.
    NoMemory,
}

impl From<NoMemory> for PageFault {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl<M: Machine> Server<M> {
    /// Handles a page fault: backs the page if the process may access it so.
    ///
    /// [`Backed::Already`] says that the page was there with what its region
    /// allows: another thread touched it first, or the fault was forged. The
    /// thread retries; a caller that sees the same fault again and again has
    /// found a kernel that disagrees with the map.
    ///
    /// # Errors
    /// [`PageFault`]; the thread cannot go on.
    pub fn page_fault(
        &mut self,
        machine: &mut M,
        pid: Pid,
        address: u64,
        access: Access,
    ) -> Result<Backed, PageFault> {
        let process = self.process(pid);
        let process = process.ok_or(PageFault::Denied(Denied::Unmapped))?;
        let page = process.space.page_for(address, access);
        let page = page.map_err(PageFault::Denied)?;
        match page.backing {
            Backing::DemandZero => Ok(machine.back(pid, page_floor(address), page.protection)?),
            Backing::Eager | Backing::Reserved => Ok(Backed::Already),
        }
    }
}
