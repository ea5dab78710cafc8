//! A long random walk of hostile clients over the whole server.
//!
//! Entries are half sensible: real capabilities and buffers, wrong often
//! enough. The server's invariants are checked after every step. Every
//! submission has its own `user_data`, so that each completion can be counted:
//! none that was not asked for, none twice.
//!
//! `RING_SEED` replays a run, `RING_STEPS` changes its length.

use std::collections::HashMap;

use capos_config::ring::*;
use capos_config::{KernelCapSource, PIPE_INTERFACE_ID};
use ring_server_core::{
    CapId, Capacity, Entry, Grant, Limits, Passing, RingPage, RingWord, Server, Tid, WAIT_FOREVER,
};
use ring_server_model::{Client, System, sqe};
use sel4_capos_schema::{NOTIFICATION_INTERFACE_ID, SIGNALLER_INTERFACE_ID};

const CLIENTS: usize = 4;
/// Interfaces of what a spawner makes.
const OBJECTS: [u64; 3] = [
    PIPE_INTERFACE_ID,
    NOTIFICATION_INTERFACE_ID,
    SIGNALLER_INTERFACE_ID,
];

/// In `user_data`: the call is one to such an object.
const OBJECT_CALL: u64 = 1 << 63;

/// A message of one word.
fn message_of(word: u64) -> Vec<u8> {
    let words = [2_u64 << 32, 1 << 32, word];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A message with one field of `len` bytes of data.
fn data_message(len: usize) -> Vec<u8> {
    let words = len.div_ceil(8) as u64;
    let data = 1 | (2 | (len as u64) << 3) << 32;
    let head = [(2 + words) << 32, 1 << 48, data];
    let mut message: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
    message.extend((0..words * 8).map(|n| n as u8));
    message
}
/// Numbers of capabilities as every client is granted them: thread control,
/// thread spawner, and the first of what differs.
const CONTROL: u32 = 4;
const SPAWNER: u32 = 5;
const FACETS: u32 = 6;
/// `ThreadControl.exitThread`.
const EXIT_THREAD: u16 = 2;
const SEED: u64 = 0x5eed_0000_0000_0a1c;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A client and what it knows.
struct Actor {
    client: Client,
    caps: Vec<u32>,
    /// Endpoints it can receive on, and those it can call.
    owned: Vec<u32>,
    callable: Vec<u32>,
    calls: Vec<u32>,
    /// Submissions without a completion so far, by `user_data`.
    open: HashMap<u64, u8>,
    blocked: Vec<Tid>,
    threads: Vec<Tid>,
}

struct Walk {
    system: System,
    random: Random,
    actors: Vec<Actor>,
    next_data: u64,
    completions: u64,
    delivered: u64,
    transferred: u64,
    /// Calls to pipes and notifications that succeeded.
    object_calls: u64,
    created: u64,
    ended: u64,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut system = System::new();
        let capacity = Capacity {
            objects: 96,
            epochs: 256,
            endpoints: 8,
            calls: 24,
            recvs: 16,
            pins: 12,
            params_kib: 96,
            pipes: 5,
            pipe_kib: 8,
            notifications: 5,
            notification_waits: 6,
            ..Capacity::DEFAULT
        };
        let secret = ring_server_core::BootSecret::new([3; 32]);
        system.server = Server::with_capacity(&capacity, Some(secret));
        let mut walk = Self {
            system,
            random: Random(seed),
            actors: Vec::new(),
            next_data: 1,
            completions: 0,
            delivered: 0,
            transferred: 0,
            object_calls: 0,
            created: 0,
            ended: 0,
        };
        for _ in 0..CLIENTS {
            walk.spawn();
        }
        walk
    }

    fn spawn(&mut self) {
        let mut grants = vec![
            Grant::kernel("console", KernelCapSource::Console),
            Grant::kernel("timer", KernelCapSource::Timer),
            Grant::kernel("park", KernelCapSource::ParkSpace),
        ];
        grants.push(Grant::kernel("own", KernelCapSource::Endpoint));
        grants.push(Grant::kernel("control", KernelCapSource::ThreadControl));
        grants.push(Grant::kernel("spawner", KernelCapSource::ThreadSpawner));
        let live: Vec<_> = self
            .actors
            .iter()
            .map(|a| (a.client.pid, &a.owned))
            .collect();
        for (pid, owned) in live {
            for &own in owned {
                grants.push(Grant::client("callable", pid, CapId::from_raw(own)));
            }
        }
        let sure = grants.len();
        grants.push(Grant::kernel("processes", KernelCapSource::ProcessSpawner));
        for actor in &self.actors {
            let pid = actor.client.pid;
            grants.push(Grant::manager("manager", pid));
            for &cap in &actor.caps {
                let passing = match cap % 4 {
                    0 => Passing::Copy,
                    1 => Passing::Raw,
                    2 => Passing::Move,
                    _ => Passing::Client {
                        interface_id: None,
                        badge: None,
                        disclosure_scope: 7,
                    },
                };
                let grant = Grant::held("held", pid, CapId::from_raw(cap), passing);
                let only = [grant];
                if grants.len() < 14 && self.random.one_in(3) {
                    grants.extend(only);
                }
            }
        }
        let limits = Limits {
            cap_slots: 26,
            threads: 5,
            sleeps: 3,
            outstanding_calls: 12,
            endpoint_queue: 4,
            in_flight_calls: 3,
            ..Limits::CEILING
        };
        // A grant that cannot be had refuses them all: try with fewer.
        let client = loop {
            match self.system.try_spawn(&grants, limits, None) {
                Ok(client) => break client,
                Err(_) if grants.pop().is_none() => return,
                Err(_) => {}
            }
        };
        let count = u32::from_le_bytes(client.capset[12..16].try_into().unwrap());
        self.actors.push(Actor {
            threads: vec![client.tid],
            client,
            caps: (0..count).collect(),
            owned: vec![3],
            callable: [3]
                .into_iter()
                .chain(FACETS..(sure as u32).min(count))
                .collect(),
            calls: Vec::new(),
            open: HashMap::new(),
            blocked: Vec::new(),
        });
    }

    fn step(&mut self) {
        if self.actors.len() < 2 {
            self.spawn();
            return;
        }
        let at = self.random.below(self.actors.len() as u64) as usize;
        match self.random.below(1000) {
            0..=1 => self.kill(at),
            2..=9 if self.actors.len() < CLIENTS => self.spawn(),
            10..=12 => self.corrupt(at),
            13..=15 => {
                let room = self.random.below(3) as u32;
                self.system.machine.thread_room = (room > 0).then_some(room);
            }
            16..=80 => {
                let ns = self.random.below(2_000);
                self.system.pass(ns);
            }
            81..=560 => self.submit(at),
            _ => self.enter(at),
        }
        self.resume();
        self.learn_threads();
        self.reap_completions();
    }

    /// What a client would be told: which threads there are.
    fn learn_threads(&mut self) {
        for actor in &mut self.actors {
            let pid = actor.client.pid;
            for (thread, started) in &self.system.machine.threads {
                let news = thread.pid == pid && started.entry.is_some();
                if news && !actor.threads.contains(&thread.tid) {
                    actor.threads.push(thread.tid);
                    self.created += 1;
                }
            }
        }
    }

    fn kill(&mut self, at: usize) {
        let actor = self.actors.swap_remove(at);
        self.system.kill(actor.client);
    }

    /// Writes nonsense into the indices or takes memory away.
    fn corrupt(&mut self, at: usize) {
        let value = self.random.next() as u32;
        let word = self.random.pick(&[
            RingWord::SqTail,
            RingWord::SqHead,
            RingWord::CqTail,
            RingWord::CqOverflow,
        ]);
        let actor = &mut self.actors[at];
        let real = actor.client.ring.load(word);
        actor.client.ring.store(word, value);
        if let Some(tid) = actor.threads.first().copied()
            && !actor.blocked.contains(&tid)
            && self.enter_as(at, tid, 0, 0)
        {
            return;
        }
        let actor = &mut self.actors[at];
        if word != RingWord::SqTail && actor.client.ring.load(word) == value {
            actor.client.ring.store(word, real);
        }
        // What was submitted and not taken is lost with the indices.
        actor.client.resynchronise();
        actor.open.clear();
        actor.calls.clear();
    }

    fn submit(&mut self, at: usize) {
        let head = self.actors[at].client.ring.load(RingWord::SqHead);
        let tail = self.actors[at].client.ring.load(RingWord::SqTail);
        if tail.wrapping_sub(head) >= SQ_ENTRIES {
            return;
        }
        let sqe = self.entry(at);
        let actor = &mut self.actors[at];
        actor.open.insert(sqe.user_data, sqe.opcode);
        actor.client.submit(&sqe);
    }

    fn cap(&mut self, at: usize) -> u32 {
        if self.random.one_in(12) || self.actors[at].caps.is_empty() {
            return self.random.next() as u32 & 0x0300_001f;
        }
        let caps = std::mem::take(&mut self.actors[at].caps);
        let cap = self.random.pick(&caps);
        self.actors[at].caps = caps;
        cap
    }

    fn addr(&mut self) -> u64 {
        match self.random.below(20) {
            0 => Client::NOWHERE,
            1 => Client::RODATA,
            2 => self.random.next(),
            _ => Client::DATA + self.random.below(0x40) * 0x400,
        }
    }

    fn entry(&mut self, at: usize) -> CapSqe {
        let user_data = self.next_data;
        self.next_data += 1;
        let opcode = match self.random.below(100) {
            0..=6 => return self.thread_entry(at, user_data),
            7..=14 => return self.object_entry(at, user_data),
            15..=34 => CAP_OP_CALL,
            35..=59 => CAP_OP_RECV,
            60..=84 => CAP_OP_RETURN,
            85..=88 => CAP_OP_NOP,
            89..=90 => CAP_OP_CANCEL,
            91..=92 => CAP_OP_PARK,
            93..=96 => CAP_OP_UNPARK,
            97..=98 => CAP_OP_RELEASE,
            _ => self.random.next() as u8,
        };
        let known = match opcode {
            CAP_OP_CALL => self.actors[at].callable.clone(),
            CAP_OP_RECV | CAP_OP_RETURN | CAP_OP_CANCEL => self.actors[at].owned.clone(),
            CAP_OP_PARK | CAP_OP_UNPARK => vec![2],
            _ => Vec::new(),
        };
        let cap_id = if known.is_empty() || self.random.one_in(4) {
            self.cap(at)
        } else {
            self.random.pick(&known)
        };
        let base = CapSqe {
            cap_id,
            ..sqe(opcode, user_data)
        };
        let mut entry = match opcode {
            CAP_OP_CALL => self.call_entry(at, base),
            CAP_OP_RECV => CapSqe {
                result_addr: self.addr(),
                result_len: self.random.pick(&[56, 256, 4096, 4096, 4096]),
                ..base
            },
            CAP_OP_RETURN => self.return_entry(at, base),
            CAP_OP_NOP => sqe(opcode, user_data),
            CAP_OP_CANCEL => CapSqe {
                pipeline_dep: self.next_data - self.random.below(8).min(self.next_data),
                ..base
            },
            CAP_OP_PARK => {
                let threads = self.actors[at].threads.clone();
                CapSqe {
                    flags: CAP_SQE_THREAD_OWNED,
                    call_id: self.random.pick(&threads).raw(),
                    addr: Client::DATA + 0x7_0000 + self.random.below(2) * 4,
                    pipeline_dep: self.random.pick(&[0, 500, WAIT_FOREVER]),
                    ..base
                }
            }
            CAP_OP_UNPARK => CapSqe {
                addr: Client::DATA + 0x7_0000 + self.random.below(2) * 4,
                len: self.random.below(4) as u32,
                ..base
            },
            _ => base,
        };
        if self.random.one_in(40) {
            entry.pipeline_field = 1;
        }
        if self.random.one_in(60) {
            entry.flags ^= 1 << self.random.below(8);
        }
        entry
    }

    /// A call to one of the three thread interfaces.
    fn thread_entry(&mut self, at: usize, user_data: u64) -> CapSqe {
        let threads = self.actors[at].threads.clone();
        let words: Vec<u64> = match self.random.below(8) {
            0..=2 => {
                let (code, stack) = (Client::RODATA, Client::DATA + 64);
                let entry = self.random.pick(&[code, code, code, u64::MAX]);
                let stack = self.random.pick(&[stack, stack, stack, 0, stack + 8]);
                vec![5, entry, stack, 3, 0, 0]
            }
            _ => vec![1, self.random.next() >> self.random.below(64)],
        };
        let pointers = 0;
        let mut bytes = ((words.len() as u64) << 32).to_le_bytes().to_vec();
        bytes.extend((words[0] << 32 | pointers << 48).to_le_bytes());
        bytes.extend(words[1..].iter().flat_map(|word| word.to_le_bytes()));
        let create = words[0] == 5;
        let addr = Client::DATA + 0x7_8000 + self.random.below(64) * 64;
        let pid = self.actors[at].client.pid;
        if let Some(memory) = self.system.machine.memory.get_mut(&pid) {
            // A range that cannot be written is the server's to refuse.
            let _ = memory.write(addr, &bytes);
        }
        let base = CapSqe {
            addr,
            len: bytes.len() as u32,
            result_addr: self.addr(),
            result_len: self.random.pick(&[0, 32, 64, 192, 192, 192]),
            ..sqe(CAP_OP_CALL, user_data)
        };
        if create {
            return CapSqe {
                cap_id: SPAWNER,
                ..base
            };
        }
        match self.random.below(24) {
            0 => CapSqe {
                cap_id: CONTROL,
                method_id: EXIT_THREAD,
                flags: CAP_SQE_THREAD_OWNED,
                call_id: self.random.pick(&threads).raw(),
                ..base
            },
            1..=4 => CapSqe {
                cap_id: CONTROL,
                method_id: self.random.below(2) as u16,
                ..base
            },
            _ => CapSqe {
                // Handles go to the lowest free slots.
                cap_id: ((self.random.below(3) as u32) << 24)
                    | (FACETS + self.random.below(8) as u32),
                method_id: self.random.below(2) as u16,
                ..base
            },
        }
    }

    /// A call that makes, or uses, a pipe or a notification: mostly sensible.
    fn object_entry(&mut self, at: usize, user_data: u64) -> CapSqe {
        let client = &self.actors[at].client;
        let (pid, spawner) = (client.pid, client.find("processes"));
        let holds = self.system.server.holds(pid);
        let held: Vec<(u32, u64)> = holds
            .map(|(id, hold)| (id.raw(), hold.interface_id))
            .filter(|(_, interface)| OBJECTS.contains(interface))
            .collect();
        // What came in results fills the table, unless some of it goes again.
        let last = self.system.server.holds(pid).last().map(|(id, _)| id.raw());
        if let Some(last) = last.filter(|_| self.random.one_in(3)) {
            return System::release_sqe(last, user_data);
        }
        let (cap_id, method_id, params) = match spawner {
            Some(spawner) if held.is_empty() || self.random.one_in(6) => {
                let (method, word) = self.random.pick(&[(1, 1500), (1, 0), (0x8000, 0)]);
                (spawner, method, message_of(word))
            }
            _ if held.is_empty() => (self.cap(at), 0, message_of(1)),
            _ => {
                let (cap, interface) = self.random.pick(&held);
                let method = self.random.below(5) as u16;
                let bytes = self.random.below(900) as usize;
                let word = self.random.pick(&[0, 1, 300, u64::MAX]);
                let is_write = interface == PIPE_INTERFACE_ID && method == 1;
                let params = match is_write {
                    true => data_message(bytes),
                    false => message_of(word),
                };
                (cap, method, params)
            }
        };
        let addr = self.addr();
        if let Some(memory) = self.system.machine.memory.get_mut(&pid) {
            // A range that cannot be written is the server's to refuse.
            let _ = memory.write(addr, &params);
        }
        CapSqe {
            cap_id,
            method_id,
            addr,
            len: params.len() as u32,
            result_addr: self.addr(),
            result_len: self.random.pick(&[0, 16, 64, 1024, 1024, 1024]),
            ..sqe(CAP_OP_CALL, OBJECT_CALL | user_data)
        }
    }

    fn call_entry(&mut self, at: usize, base: CapSqe) -> CapSqe {
        let addr = self.addr();
        let len = self
            .random
            .pick(&[0, 8, 8, 8, 40, 40, 4096, 65_536, 65_537]);
        let count = if self.random.one_in(3) {
            self.descriptors(at, addr, len)
        } else {
            0
        };
        CapSqe {
            addr,
            len,
            xfer_cap_count: count,
            method_id: self.random.below(4) as u16,
            result_addr: self.addr(),
            result_len: self.random.pick(&[0, 16, 64, 1024, 1024]),
            session_disclosure: self.random.below(8),
            ..base
        }
    }

    fn return_entry(&mut self, at: usize, base: CapSqe) -> CapSqe {
        let call_id = match self.actors[at].calls.len() as u64 {
            0 => self.random.next() as u32,
            len => {
                let index = self.random.below(len) as usize;
                self.actors[at].calls.swap_remove(index)
            }
        };
        let addr = self.addr();
        let len = self.random.pick(&[0, 8, 24, 2048]);
        let exception = self.random.one_in(4);
        let count = if !exception && self.random.one_in(2) {
            self.descriptors(at, addr, len)
        } else {
            0
        };
        let flags = if exception {
            CAP_SQE_RETURN_APPLICATION_EXCEPTION
        } else {
            0
        };
        CapSqe {
            addr,
            len,
            call_id,
            flags,
            xfer_cap_count: count,
            ..base
        }
    }

    fn descriptors(&mut self, at: usize, addr: u64, len: u32) -> u16 {
        let count = self.random.pick(&[1, 1, 2, 3, 16]);
        let mut bytes = Vec::new();
        for _ in 0..count {
            let cap = self.cap(at);
            let mode: u16 = self.random.pick(&[1, 2, 2, 2, 3]);
            bytes.extend(cap.to_le_bytes());
            bytes.extend(mode.to_le_bytes());
            bytes.extend([0; 2]);
        }
        let pid = self.actors[at].client.pid;
        if let Some(memory) = self.system.machine.memory.get_mut(&pid) {
            // A range that cannot be written is the server's to refuse.
            let _ = memory.write(addr.wrapping_add(len.into()), &bytes);
        }
        count
    }

    fn enter(&mut self, at: usize) {
        let actor = &self.actors[at];
        let free: Vec<Tid> = actor
            .threads
            .iter()
            .copied()
            .filter(|tid| !actor.blocked.contains(tid) || self.random.one_in(50))
            .collect();
        if free.is_empty() {
            // A process that waits for itself would stay for ever.
            if self.random.one_in(20) {
                self.kill(at);
            }
            return;
        }
        let tid = self.random.pick(&free);
        let min = self.random.pick(&[0, 1, 1, 2, 33]);
        let timeout = self.random.pick(&[0, 0, 100, 1_000, WAIT_FOREVER]);
        self.enter_as(at, tid, min, timeout);
    }

    /// Enters as a thread; true if that was the end of its process.
    fn enter_as(&mut self, at: usize, tid: Tid, min: u64, timeout: u64) -> bool {
        let entry = self
            .system
            .enter_as(&self.actors[at].client, tid, min, timeout);
        let blocked = &mut self.actors[at].blocked;
        blocked.retain(|&waiting| waiting != tid);
        match entry {
            Entry::Block => blocked.push(tid),
            Entry::Resume(_) => {}
            Entry::Again => unreachable!("nothing limits the time of an entry here"),
            Entry::Ended(code) => {
                self.ended += 1;
                self.learn_threads();
                self.actors[at].threads.retain(|&live| live != tid);
                let over = self.actors[at].threads.is_empty();
                assert_eq!(code.is_some(), over, "the last takes the process along");
                if over {
                    self.actors.swap_remove(at);
                }
                return over;
            }
        }
        false
    }

    /// Only threads that are blocked are resumed, each once.
    fn resume(&mut self) {
        for (thread, _) in std::mem::take(&mut self.system.machine.resumed) {
            let actor = self.actors.iter_mut().find(|a| a.client.pid == thread.pid);
            let blocked = &mut actor.expect("a resumed process lives").blocked;
            let at = blocked.iter().position(|&tid| tid == thread.tid);
            blocked.remove(at.expect("S1: a resumed thread was blocked"));
        }
    }

    fn reap_completions(&mut self) {
        for at in 0..self.actors.len() {
            if self.random.one_in(3) {
                continue;
            }
            for cqe in self.actors[at].client.completions() {
                self.count(at, &cqe);
            }
        }
    }

    fn count(&mut self, at: usize, cqe: &CapCqe) {
        let actor = &mut self.actors[at];
        let opcode = actor.open.remove(&cqe.user_data);
        self.completions += 1;
        self.object_calls += u64::from(cqe.user_data & OBJECT_CALL != 0 && cqe.result >= 0);
        if opcode == Some(CAP_OP_RECV) && cqe.result >= 0 {
            assert!(cqe.result >= 56 && cqe.call_id != 0);
            actor.calls.push(cqe.call_id);
            self.delivered += 1;
        }
        if cqe.cap_count > 0 {
            self.transferred += u64::from(cqe.cap_count);
            // The walk does not keep the result address: likely numbers do.
            let generation = self.random.below(3) as u32;
            actor
                .caps
                .push(generation << 24 | self.random.below(16) as u32);
        }
        if actor.caps.len() > 24 {
            actor.caps.remove(0);
        }
    }
}

#[test]
fn hostile_clients_break_no_invariant() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a decimal number"))
    };
    let seed = number("RING_SEED", SEED);
    let steps = number("RING_STEPS", 400_000);
    println!("seed RING_SEED={seed}, {steps} steps");
    let mut walk = Walk::new(seed);
    for _ in 0..steps {
        walk.step();
    }
    let (completions, delivered) = (walk.completions, walk.delivered);
    let transferred = walk.transferred;
    println!("{completions} completions, {delivered} calls delivered, {transferred} capabilities");
    assert!(delivered > steps / 1000, "the walk reaches deliveries");
    assert!(transferred > 0, "the walk reaches transfers");
    let used = walk.object_calls;
    println!("{used} calls to pipes and notifications succeeded");
    assert!(
        used > steps / 1000,
        "the walk reaches pipes and notifications"
    );
    let (created, ended) = (walk.created, walk.ended);
    println!("{created} threads created, {ended} ended by themselves");
    assert!(
        ended > steps / 10_000 && created > steps / 2_000,
        "the walk reaches threads"
    );
    while let Some(actor) = walk.actors.pop() {
        walk.system.kill(actor.client);
        walk.resume();
    }
    assert_eq!(walk.system.server.next_deadline(), None);
    assert!(walk.system.server.is_idle(), "nothing is left");
}

#[test]
fn completions_are_never_doubled() {
    // Without corruption, every completion answers one open submission.
    let mut walk = Walk::new(99);
    for _ in 0..5_000 {
        if walk.actors.len() < 2 {
            walk.spawn();
        }
        let at = walk.random.below(walk.actors.len() as u64) as usize;
        match walk.random.below(10) {
            0..=4 => walk.submit(at),
            5 => walk.system.pass(300),
            _ => walk.enter(at),
        }
        walk.resume();
        for at in 0..walk.actors.len() {
            for cqe in walk.actors[at].client.completions() {
                let open = walk.actors[at].open.contains_key(&cqe.user_data);
                assert!(open, "completion {} was not asked for", cqe.user_data);
                walk.count(at, &cqe);
            }
        }
    }
}
