//! A server on the model machine, with simulated clients.

use capos_config::ring::{CAP_OP_CALL, CQ_ENTRIES, CapCqe, CapSqe, SQ_ENTRIES};
use ring_server_core::{
    Access, CAPSET_PAGE_BYTES, Entry, Grant, Limits, Pid, ProcessSpec, RingPage, RingWord, Server,
    Tid,
};

use crate::{Memory, Model, ModelRing};

/// Where each simulated process has read-write memory.
const DATA: u64 = 0x40_0000;
/// Bytes of it.
const DATA_BYTES: u64 = 0x8_0000;
/// Where each simulated process has read-only memory.
const RODATA: u64 = 0x20_0000;

/// A simulated client: the user half of a ring, and memory to point at.
#[derive(Debug)]
pub struct Client {
    /// The process.
    pub pid: Pid,
    /// The thread that enters unless a test says otherwise.
    pub tid: Tid,
    /// The ring page.
    pub ring: ModelRing,
    /// The CapSet page.
    pub capset: Box<[u8; CAPSET_PAGE_BYTES]>,
    sq_tail: u32,
    cq_head: u32,
}

impl Client {
    /// Start of 512 KiB of read-write memory.
    pub const DATA: u64 = DATA;
    /// Start of one page of read-only memory.
    pub const RODATA: u64 = RODATA;
    /// An address at which nothing is mapped.
    pub const NOWHERE: u64 = 0x7000_0000;

    /// Publishes a submission; panics if the queue is full, as a client that
    /// overruns its own queue is a different test.
    pub fn submit(&mut self, sqe: &CapSqe) {
        let head = self.ring.load(RingWord::SqHead);
        assert!(self.sq_tail.wrapping_sub(head) < SQ_ENTRIES, "SQ is full");
        self.submit_unchecked(sqe);
    }

    /// Publishes a submission whatever the head says.
    pub fn submit_unchecked(&mut self, sqe: &CapSqe) {
        self.ring.write_sqe(self.sq_tail % SQ_ENTRIES, sqe);
        self.sq_tail = self.sq_tail.wrapping_add(1);
        self.ring.store(RingWord::SqTail, self.sq_tail);
    }

    /// Takes all completions.
    pub fn completions(&mut self) -> Vec<CapCqe> {
        let mut taken = Vec::new();
        while let Some(cqe) = self.completion() {
            taken.push(cqe);
        }
        taken
    }

    /// Takes one completion.
    pub fn completion(&mut self) -> Option<CapCqe> {
        let tail = self.ring.load(RingWord::CqTail);
        if tail == self.cq_head {
            return None;
        }
        let cqe = self.ring.read_cqe(self.cq_head % CQ_ENTRIES);
        self.cq_head = self.cq_head.wrapping_add(1);
        self.ring.store(RingWord::CqHead, self.cq_head);
        Some(cqe)
    }

    /// Moves the client's idea of both indices to what the page says, after a
    /// test corrupted them.
    pub fn resynchronise(&mut self) {
        self.sq_tail = self.ring.load(RingWord::SqHead);
        self.ring.store(RingWord::SqTail, self.sq_tail);
        self.cq_head = self.ring.load(RingWord::CqTail);
        self.ring.store(RingWord::CqHead, self.cq_head);
    }

    /// The capability granted under `name`.
    pub fn cap(&self, name: &str) -> u32 {
        let entry = self.entry(name).expect("name is in the CapSet");
        u32::from_le_bytes(entry[..4].try_into().expect("four bytes"))
    }

    /// Interface id granted under `name`.
    pub fn interface(&self, name: &str) -> u64 {
        let entry = self.entry(name).expect("name is in the CapSet");
        u64::from_le_bytes(entry[8..16].try_into().expect("eight bytes"))
    }

    fn entry(&self, name: &str) -> Option<&[u8]> {
        let page = &self.capset[..];
        let count = u32::from_le_bytes(page[12..16].try_into().ok()?) as usize;
        page[16..].chunks_exact(48).take(count).find(|entry| {
            let len = entry[4] as usize;
            &entry[16..16 + len] == name.as_bytes()
        })
    }
}

/// An all-zero submission with an opcode and `user_data`.
pub fn sqe(opcode: u8, user_data: u64) -> CapSqe {
    CapSqe {
        opcode,
        flags: 0,
        method_id: 0,
        cap_id: 0,
        user_data,
        addr: 0,
        len: 0,
        result_len: 0,
        result_addr: 0,
        pipeline_dep: 0,
        pipeline_field: 0,
        xfer_cap_count: 0,
        call_id: 0,
        session_disclosure: 0,
    }
}

/// A CALL without params and result buffer.
pub fn call(user_data: u64, cap_id: u32, method_id: u16) -> CapSqe {
    CapSqe {
        cap_id,
        method_id,
        ..sqe(CAP_OP_CALL, user_data)
    }
}

/// A server and the machine under it.
#[derive(Debug, Default)]
pub struct System {
    /// The server.
    pub server: Server<Model>,
    /// The machine.
    pub machine: Model,
}

impl System {
    /// No processes, time zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a process with these grants, ceilings as limits.
    pub fn spawn(&mut self, grants: &[Grant<'_>]) -> Client {
        self.spawn_limited(grants, Limits::CEILING)
    }

    /// Creates a process with these grants and limits.
    pub fn spawn_limited(&mut self, grants: &[Grant<'_>], limits: Limits) -> Client {
        let mut memory = Memory::default();
        memory.map(DATA, DATA_BYTES, Access::ReadWrite);
        memory.map(RODATA, 4096, Access::Read);
        let ring = ModelRing::new();
        let mut capset = Box::new([0; CAPSET_PAGE_BYTES]);
        let spec = ProcessSpec::new(ring.clone(), memory.address_space())
            .limits(limits)
            .grants(grants);
        let pid = self
            .server
            .create_process(spec, &mut capset)
            .expect("the process can be created");
        self.machine.memory.insert(pid, memory);
        self.server.check();
        Client {
            pid,
            tid: Tid::MAIN,
            ring,
            capset,
            sq_tail: 0,
            cq_head: 0,
        }
    }

    /// `cap_enter` by the client's thread.
    pub fn enter(&mut self, client: &Client, min_complete: u64, timeout_ns: u64) -> Entry {
        self.enter_as(client, client.tid, min_complete, timeout_ns)
    }

    /// `cap_enter` by a chosen thread.
    pub fn enter_as(
        &mut self,
        client: &Client,
        tid: Tid,
        min_complete: u64,
        timeout_ns: u64,
    ) -> Entry {
        let entry =
            self.server
                .cap_enter(&mut self.machine, client.pid, tid, min_complete, timeout_ns);
        self.server.check();
        entry
    }

    /// Submits one entry, enters without waiting, and returns its completion
    /// if it came at once.
    pub fn run(&mut self, client: &mut Client, sqe: &CapSqe) -> Option<CapCqe> {
        client.submit(sqe);
        self.enter(client, 0, 0);
        client.completion()
    }

    /// As [`System::run`], for the result code alone.
    pub fn result(&mut self, client: &mut Client, sqe: &CapSqe) -> i32 {
        self.run(client, sqe).expect("completes at once").result
    }

    /// Moves time forward and lets the server act on it.
    pub fn pass(&mut self, ns: u64) {
        self.machine.now_ns += ns;
        let now = self.machine.now_ns;
        self.server.advance(&mut self.machine, now);
        self.server.check();
    }

    /// Ends a process.
    pub fn kill(&mut self, client: Client) {
        self.server.destroy_process(&mut self.machine, client.pid);
        self.machine.memory.remove(&client.pid);
        self.server.check();
    }

    /// Writes client memory.
    pub fn poke(&mut self, client: &Client, addr: u64, bytes: &[u8]) {
        let memory = self.machine.memory.get_mut(&client.pid);
        memory
            .expect("the process lives")
            .write(addr, bytes)
            .expect("the range is writable");
    }

    /// Reads client memory.
    pub fn peek(&self, client: &Client, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.machine.memory[&client.pid]
            .read(addr, &mut bytes)
            .expect("the range is mapped");
        bytes
    }

    /// Takes what the console showed so far.
    pub fn console(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.machine.console)).expect("UTF-8 output")
    }
}
