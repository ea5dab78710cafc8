//! Why a process was killed, in one line that a program can read too.

use core::fmt;

use ring_server_core::{Denied, PageFault, Tid};
use sel4::MessageInfo;
use sel4::fault::{CapFault, UnknownSyscall, UserException, VmFault};

use crate::client::Client;
use crate::paging::Unrepaired;

/// What a process did.
#[derive(Debug)]
pub enum Crime {
    /// An access its address space does not allow, or no memory allows.
    PageFault(VmFault, Unrepaired),
    /// A processor exception.
    Exception(UserException),
    /// A `syscall` instruction that was not rewritten.
    RawSyscall(UnknownSyscall),
    /// An seL4 call with a capability it does not hold.
    CapFault(CapFault),
    /// It used up the budget of a context that makes this a fault.
    Overrun,
    /// A message that is no fault: it was forged.
    Malformed(MessageInfo),
}

impl Crime {
    /// The word for it in reports and verdicts.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::PageFault(..) => "page-fault",
            Self::Exception(_) => "exception",
            Self::RawSyscall(_) => "syscall",
            Self::CapFault(_) => "cap-fault",
            Self::Overrun => "overrun",
            Self::Malformed(_) => "malformed",
        }
    }
}

impl fmt::Display for Crime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PageFault(fault, reason) => {
                let access = match fault.access() {
                    sel4::fault::Access::Read => "read",
                    sel4::fault::Access::Write => "write",
                    sel4::fault::Access::Execute => "exec",
                };
                let (addr, ip) = (fault.addr, fault.ip);
                let reason = because(reason);
                write!(
                    f,
                    "access={access} addr={addr:#x} reason={reason} ip={ip:#x}"
                )
            }
            Self::Exception(fault) => write!(
                f,
                "vector={} error={:#x} ip={:#x}",
                fault.number, fault.code, fault.fault_ip
            ),
            Self::RawSyscall(fault) => write!(
                f,
                "number={:#x} reason=raw-syscall ip={:#x}",
                fault.syscall, fault.fault_ip
            ),
            Self::CapFault(fault) => write!(f, "cptr={:#x} ip={:#x}", fault.cptr, fault.ip),
            Self::Overrun => f.write_str("reason=budget-used-up"),
            Self::Malformed(info) => {
                write!(
                    f,
                    "label={:#x} length={} ip=0x0",
                    info.label(),
                    info.length()
                )
            }
        }
    }
}

fn because(reason: &Unrepaired) -> &'static str {
    match reason {
        Unrepaired::Fault(PageFault::Denied(Denied::Unmapped)) => "unmapped",
        Unrepaired::Fault(PageFault::Denied(Denied::Reserved)) => "reserved",
        Unrepaired::Fault(PageFault::Denied(Denied::NotReadable)) => "not-readable",
        Unrepaired::Fault(PageFault::Denied(Denied::NotWritable)) => "not-writable",
        Unrepaired::Fault(PageFault::Denied(Denied::NotExecutable)) => "not-executable",
        Unrepaired::Fault(PageFault::NoMemory) => "no-memory",
        Unrepaired::Disagreement => "mapped-already",
    }
}

/// Writes the report of a killed process. The thread is named where it is not
/// the one the process started with.
pub fn fault(client: &Client, tid: Option<Tid>, crime: &Crime) {
    let (pid, name, word) = (client.pid.raw(), &client.name, crime.word());
    match tid.filter(|&tid| tid != Tid::MAIN) {
        None => crate::log::line(format_args!(
            "fault: pid={pid} program={name} type={word} {crime}"
        )),
        Some(tid) => crate::log::line(format_args!(
            "fault: pid={pid} program={name} type={word} {crime} thread={}",
            tid.raw()
        )),
    }
}
