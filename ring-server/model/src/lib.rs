//! Host model of the machine below `ring-server-core`.
//!
//! Two machines: [`Model`] simulates processes, memory, time and the console;
//! [`HostMachine`] lets the published client library, compiled for the host,
//! be the client, with this process's memory as client memory. [`System`]
//! couples a [`Model`] with a server and offers what a client does as methods,
//! checking every server invariant after each step.

mod host;
mod memory;
mod page;
mod system;

use std::collections::BTreeMap;

pub use host::HostMachine;
pub use memory::Memory;
pub use page::ModelRing;
use ring_server_core::{AccessFault, Diagnostic, Machine, Pid, ThreadRef};
pub use system::{Client, Message, MessageHeader, System, call, cap_records, sqe};

/// The simulated machine.
#[derive(Debug, Default)]
pub struct Model {
    /// Monotonic time in nanoseconds; tests move it.
    pub now_ns: u64,
    /// Everything written to the console.
    pub console: Vec<u8>,
    /// Memory of each process.
    pub memory: BTreeMap<Pid, Memory>,
    /// Threads resumed since the test last looked, with RAX.
    pub resumed: Vec<(ThreadRef, u64)>,
    /// Threads resumed by direct hand-over, a subset of `resumed`.
    pub handed_over: Vec<ThreadRef>,
    /// Reports of invalid submissions.
    pub diagnostics: Vec<Diagnostic>,
}

impl Machine for Model {
    type Ring = ModelRing;

    fn now_ns(&mut self) -> u64 {
        self.now_ns
    }

    fn console_write(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
    }

    fn read(&mut self, pid: Pid, addr: u64, out: &mut [u8]) -> Result<(), AccessFault> {
        self.memory.get(&pid).ok_or(AccessFault)?.read(addr, out)
    }

    fn write(&mut self, pid: Pid, addr: u64, bytes: &[u8]) -> Result<(), AccessFault> {
        self.memory
            .get_mut(&pid)
            .ok_or(AccessFault)?
            .write(addr, bytes)
    }

    fn resume(&mut self, thread: ThreadRef, rax: u64) {
        self.resumed.push((thread, rax));
    }

    fn hand_over(&mut self, thread: ThreadRef, rax: u64) {
        self.handed_over.push(thread);
        self.resume(thread, rax);
    }

    fn diagnose(&mut self, diagnostic: &Diagnostic) {
        self.diagnostics.push(*diagnostic);
    }
}
