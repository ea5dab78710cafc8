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
mod programs;
mod system;

use std::collections::BTreeMap;

pub use host::HostMachine;
pub use memory::{Memory, ObjectFrames, anonymous};
pub use page::ModelRing;
pub use programs::Programs;
use ring_server_core::{
    AccessFault, Backed, CAPSET_PAGE_BYTES, Class, ClockReading, Diagnostic, Embryo, Machine,
    NoMemory, Pid, PrepareError, Protection, ThreadEntry, ThreadRef, ThreadRefused,
};
pub use system::{Client, Message, MessageHeader, System, call, cap_records, sqe};

/// A thread the server made or asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelThread {
    /// Its place among the threads of its process.
    pub index: usize,
    /// How it started, if the server started it.
    pub entry: Option<ThreadEntry>,
    /// Base of its FS segment.
    pub fs_base: u64,
}

/// The simulated machine.
#[derive(Debug, Default)]
pub struct Model {
    /// Monotonic time in nanoseconds; tests move it.
    pub now_ns: u64,
    /// Everything written to the console.
    pub console: Vec<u8>,
    /// Everything written to the terminal.
    pub terminal: Vec<u8>,
    /// Memory of each process.
    pub memory: BTreeMap<Pid, Memory>,
    /// Threads resumed since the test last looked, with RAX.
    pub resumed: Vec<(ThreadRef, u64)>,
    /// Threads resumed by direct hand-over, a subset of `resumed`.
    pub handed_over: Vec<ThreadRef>,
    /// Reports of invalid submissions.
    pub diagnostics: Vec<Diagnostic>,
    /// What the boot package shows.
    pub manifest: Vec<u8>,
    /// What the clock said when the machine started.
    pub clock_reading: Option<ClockReading>,
    /// State of the generator behind the entropy source; `None` has it fail.
    pub generator: Option<u64>,
    /// What can be spawned.
    pub programs: Programs,
    /// Memory of memory objects.
    pub objects: ObjectFrames,
    /// Whether page tables have run out.
    pub no_tables: bool,
    /// Threads the server made, or set the FS base of.
    pub threads: BTreeMap<ThreadRef, ModelThread>,
    /// Threads that can still be made before memory runs out, if that is
    /// limited.
    pub thread_room: Option<u32>,
    /// Threads that ended while their process lived.
    pub ended: Vec<ThreadRef>,
    /// Steps that succeed before one fails, if one is to fail: loading,
    /// starting, reading and writing count.
    pub steps_left: Option<u32>,
    /// Reads and writes of memory that is not there or not writable.
    pub faults: u64,
    /// Whether time is up after each submission.
    pub hurried: bool,
}

impl Model {
    /// Whether this step is the one to fail.
    fn fails_now(&mut self) -> bool {
        match &mut self.steps_left {
            Some(0) => {
                self.steps_left = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

impl Machine for Model {
    type Ring = ModelRing;

    fn prepare(&mut self, program: &str) -> Result<Embryo<ModelRing>, PrepareError> {
        if self.fails_now() {
            return Err(PrepareError::NoMemory);
        }
        self.programs.prepare(program)
    }

    fn launch(
        &mut self,
        pid: Pid,
        class: Class,
        capset: &[u8; CAPSET_PAGE_BYTES],
    ) -> Result<(), PrepareError> {
        if self.fails_now() {
            self.programs.discard();
            return Err(PrepareError::NoMemory);
        }
        let memory = self.programs.launch(pid, class, capset)?;
        self.memory.insert(pid, memory);
        Ok(())
    }

    fn set_class(&mut self, pid: Pid, class: Class) {
        self.programs.classes.push((pid, class));
    }

    fn discard(&mut self) {
        self.programs.discard();
    }

    fn bury(&mut self, pid: Pid, code: i64) {
        self.memory.remove(&pid);
        self.threads.retain(|thread, _| thread.pid != pid);
        self.programs.buried.push((pid, code));
    }

    fn create_thread(
        &mut self,
        thread: ThreadRef,
        index: usize,
        entry: &ThreadEntry,
    ) -> Result<(), ThreadRefused> {
        match &mut self.thread_room {
            Some(0) => return Err(ThreadRefused),
            Some(room) => *room -= 1,
            None => {}
        }
        let started = ModelThread {
            index,
            entry: Some(*entry),
            fs_base: entry.fs_base,
        };
        let twin = self.threads.insert(thread, started);
        assert_eq!(twin, None, "a thread number is used once");
        Ok(())
    }

    fn end_thread(&mut self, thread: ThreadRef, index: usize) {
        if let Some(known) = self.threads.remove(&thread) {
            assert_eq!(known.index, index, "a thread keeps its place");
        }
        self.ended.push(thread);
    }

    fn fs_base(&mut self, thread: ThreadRef, index: usize) -> u64 {
        let known = self.threads.get(&thread).copied().unwrap_or_default();
        assert!(known.entry.is_none() || known.index == index, "its place");
        known.fs_base
    }

    fn set_fs_base(&mut self, thread: ThreadRef, index: usize, fs_base: u64) {
        let known = self.threads.entry(thread).or_default();
        known.index = index;
        known.fs_base = fs_base;
    }

    fn boot_manifest(&self) -> &[u8] {
        &self.manifest
    }

    fn clock_reading(&self) -> Option<ClockReading> {
        self.clock_reading
    }

    /// Counts upwards: enough to see which bytes went where.
    fn entropy(&mut self, out: &mut [u8]) -> bool {
        let Some(state) = &mut self.generator else {
            return false;
        };
        for byte in out {
            *state += 1;
            *byte = *state as u8;
        }
        true
    }

    fn now_ns(&mut self) -> u64 {
        self.now_ns
    }

    fn out_of_time(&mut self) -> bool {
        self.hurried
    }

    fn console_write(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
    }

    fn terminal_write(&mut self, bytes: &[u8]) {
        self.terminal.extend_from_slice(bytes);
    }

    fn back(&mut self, pid: Pid, page: u64, protection: Protection) -> Result<Backed, NoMemory> {
        let memory = self.memory.get_mut(&pid).ok_or(NoMemory)?;
        memory.back(page, protection)
    }

    fn provide_tables(&mut self, pid: Pid, start: u64, end: u64) -> Result<(), NoMemory> {
        if self.no_tables {
            return Err(NoMemory);
        }
        let memory = self.memory.get_mut(&pid).ok_or(NoMemory)?;
        memory.provide_tables(start, end);
        Ok(())
    }

    fn release_tables(&mut self, pid: Pid, start: u64, end: u64) {
        if let Some(memory) = self.memory.get_mut(&pid) {
            memory.release_tables(start, end);
        }
    }

    fn unmap(&mut self, pid: Pid, start: u64, end: u64) {
        if let Some(memory) = self.memory.get_mut(&pid) {
            memory.unmap_pages(start, end);
        }
    }

    fn protect(&mut self, pid: Pid, start: u64, end: u64, protection: Protection) {
        if let Some(memory) = self.memory.get_mut(&pid) {
            memory.protect(start, end, protection);
        }
    }

    fn create_object(&mut self, object: u32, pages: u32) -> Result<(), NoMemory> {
        self.objects.create(object, pages)
    }

    fn free_object(&mut self, object: u32) {
        self.objects.free(object);
    }

    fn map_object(
        &mut self,
        pid: Pid,
        range: (u64, u64),
        object: (u32, u32),
        protection: Protection,
    ) -> Result<(), NoMemory> {
        let memory = self.memory.get_mut(&pid).ok_or(NoMemory)?;
        memory.map_object(range, &self.objects, object, protection);
        Ok(())
    }

    fn read(&mut self, pid: Pid, addr: u64, out: &mut [u8]) -> Result<(), AccessFault> {
        if self.fails_now() {
            return Err(AccessFault);
        }
        let memory = self.memory.get(&pid).ok_or(AccessFault);
        let read = memory.and_then(|memory| memory.read(addr, out));
        self.faults += u64::from(read.is_err());
        read
    }

    fn write(&mut self, pid: Pid, addr: u64, bytes: &[u8]) -> Result<(), AccessFault> {
        if self.fails_now() {
            return Err(AccessFault);
        }
        let memory = self.memory.get_mut(&pid).ok_or(AccessFault);
        let written = memory.and_then(|memory| memory.write(addr, bytes));
        self.faults += u64::from(written.is_err());
        written
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
