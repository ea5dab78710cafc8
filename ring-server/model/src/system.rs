//! A server on the model machine, with simulated clients.

use capos_config::ring::{
    CAP_OP_CALL, CAP_OP_RECV, CAP_OP_RELEASE, CAP_OP_RETURN, CQ_ENTRIES, CapCqe, CapSqe, SQ_ENTRIES,
};
use ring_server_core::{
    BootSecret, CAPSET_PAGE_BYTES, CapId, CreateError, Entry, Grant, Limits, Pid, ProcessSpec,
    RingPage, RingWord, Server, SessionId, Tid,
};

use crate::programs::fresh_memory;
use crate::{Model, ModelRing};

/// Where each simulated process has read-write memory.
pub(crate) const DATA: u64 = 0x40_0000;
/// Bytes of it.
pub(crate) const DATA_BYTES: u64 = 0x8_0000;
/// Where each simulated process has read-only memory.
pub(crate) const RODATA: u64 = 0x20_0000;

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

    pub(crate) fn new(pid: Pid, ring: ModelRing, capset: Box<[u8; CAPSET_PAGE_BYTES]>) -> Self {
        Self {
            pid,
            tid: Tid::MAIN,
            ring,
            capset,
            sq_tail: 0,
            cq_head: 0,
        }
    }

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

    /// The capability granted under `name`, if there is one.
    pub fn find(&self, name: &str) -> Option<u32> {
        let entry = self.entry(name)?;
        entry[..4].try_into().ok().map(u32::from_le_bytes)
    }

    /// As [`Client::cap`], typed.
    pub fn cap_id(&self, name: &str) -> CapId {
        CapId::from_raw(self.cap(name))
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
#[derive(Debug)]
pub struct System {
    /// The server.
    pub server: Server<Model>,
    /// The machine.
    pub machine: Model,
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

/// What a call brought an endpoint owner.
#[derive(Debug)]
pub struct Message {
    /// To answer it with.
    pub call_id: u32,
    /// Badge of the hold it came through.
    pub badge: u64,
    /// The ABI's header.
    pub header: MessageHeader,
    /// Params bytes.
    pub params: Vec<u8>,
    /// Capabilities that came with it: number and interface id.
    pub caps: Vec<(u32, u64)>,
}

/// The fields of `EndpointMessageHeader` and of the session in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    /// Interface of the hold it came through.
    pub interface_id: u64,
    /// Method called.
    pub method_id: u16,
    /// Opaque reference to the caller's session: low and high word.
    pub reference: (u64, u64),
    /// Session epoch word.
    pub epoch: u64,
    /// `ENDPOINT_CALLER_SESSION_*` flags.
    pub flags: u32,
    /// Which of the next three are disclosed.
    pub disclosed: u32,
    /// Principal kind, authentication strength, profile class.
    pub fields: [u16; 3],
}

impl System {
    /// No processes, time zero, a fixed boot secret.
    pub fn new() -> Self {
        Self {
            server: Server::with_boot_secret(BootSecret::new([7; 32])),
            machine: Model::default(),
        }
    }

    /// A RECV into the lower half of the owner's second data page group.
    pub fn recv_sqe(endpoint: u32, user_data: u64) -> CapSqe {
        CapSqe {
            cap_id: endpoint,
            result_addr: Client::DATA + 0x2_0000,
            result_len: 0x1000,
            ..sqe(CAP_OP_RECV, user_data)
        }
    }

    /// A RETURN of `len` bytes at the start of the owner's data.
    pub fn return_sqe(endpoint: u32, user_data: u64, call_id: u32, len: u32) -> CapSqe {
        CapSqe {
            cap_id: endpoint,
            call_id,
            addr: Client::DATA,
            len,
            ..sqe(CAP_OP_RETURN, user_data)
        }
    }

    /// A RELEASE.
    pub fn release_sqe(cap: u32, user_data: u64) -> CapSqe {
        CapSqe {
            cap_id: cap,
            ..sqe(CAP_OP_RELEASE, user_data)
        }
    }

    /// Decodes what a completed RECV brought.
    pub fn message(&self, owner: &Client, recv: &CapSqe, cqe: &CapCqe) -> Message {
        assert!(cqe.result >= 56, "RECV succeeded: {}", cqe.result);
        let len = cqe.result as usize;
        let bytes = self.peek(owner, recv.result_addr, len);
        let records = self.peek(
            owner,
            recv.result_addr + len as u64,
            usize::from(cqe.cap_count) * 16,
        );
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let quarter = |at: usize| (word(at & !7) >> ((at & 7) * 8)) as u16;
        assert_eq!(
            word(8) >> 32,
            len as u64 - 56,
            "params_len matches the result"
        );
        Message {
            call_id: cqe.call_id,
            badge: cqe.badge,
            header: MessageHeader {
                interface_id: word(0),
                method_id: quarter(8),
                reference: (word(16), word(24)),
                epoch: word(32),
                flags: word(40) as u32,
                disclosed: (word(40) >> 32) as u32,
                fields: [quarter(48), quarter(50), quarter(52)],
            },
            params: bytes[56..].to_vec(),
            caps: cap_records(&records),
        }
    }

    /// Writes transfer descriptors behind `len` bytes at the start of a
    /// client's data: capability number and raw transfer mode each.
    pub fn put_descriptors(&mut self, client: &Client, len: u32, descriptors: &[(u32, u16)]) {
        let mut at = Client::DATA + u64::from(len);
        for (cap, mode) in descriptors {
            let mut bytes = cap.to_le_bytes().to_vec();
            bytes.extend(mode.to_le_bytes());
            bytes.extend([0, 0]);
            self.poke(client, at, &bytes);
            at += 8;
        }
    }

    /// Creates a process with these grants, ceilings as limits.
    pub fn spawn(&mut self, grants: &[Grant<'_>]) -> Client {
        self.spawn_limited(grants, Limits::CEILING)
    }

    /// Creates a process with these grants and limits.
    pub fn spawn_limited(&mut self, grants: &[Grant<'_>], limits: Limits) -> Client {
        self.try_spawn(grants, limits, None)
            .expect("the process can be created")
    }

    /// Creates a process with these grants in a session.
    pub fn spawn_in(&mut self, session: SessionId, grants: &[Grant<'_>]) -> Client {
        self.try_spawn(grants, Limits::CEILING, Some(session))
            .expect("the process can be created")
    }

    /// Creates a process, or says why not.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn try_spawn(
        &mut self,
        grants: &[Grant<'_>],
        limits: Limits,
        session: Option<SessionId>,
    ) -> Result<Client, CreateError> {
        let memory = fresh_memory();
        let ring = ModelRing::new();
        let mut capset = Box::new([0; CAPSET_PAGE_BYTES]);
        let mut spec = ProcessSpec::new(ring.clone(), memory.address_space())
            .limits(limits)
            .grants(grants);
        if let Some(session) = session {
            spec = spec.session(session);
        }
        let created = self.server.create_process(spec, &mut capset);
        self.server.check();
        let pid = created?;
        self.machine.memory.insert(pid, memory);
        Ok(Client::new(pid, ring, capset))
    }

    /// Pages of anonymous memory that a new process has.
    pub fn new_process_pages() -> u64 {
        fresh_memory().address_space().footprint().reserved
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

    /// Ends a session.
    pub fn end_session(&mut self, session: SessionId) {
        self.server.end_session(&mut self.machine, session);
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

/// Numbers and interface ids of result-capability records.
pub fn cap_records(bytes: &[u8]) -> Vec<(u32, u64)> {
    bytes
        .chunks_exact(16)
        .map(|record| {
            let (id, interface) = record.split_at(8);
            let id = u64::from_le_bytes(id.try_into().expect("8 bytes"));
            let interface = u64::from_le_bytes(interface.try_into().expect("8 bytes"));
            assert_eq!(id >> 32, 0, "the reserved half is zero");
            (id as u32, interface)
        })
        .collect()
}
