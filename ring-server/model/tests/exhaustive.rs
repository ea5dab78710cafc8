//! Exhaustive search of a small system: the real server, three processes, every
//! order of calls, receives, returns, transfers, releases, revocation, exits
//! and memory faults up to a depth.
//!
//! In every state: all server invariants (`check`), no authority out of
//! nothing, a moved capability in at most one table, no completion that was not
//! asked for.
//!
//! `RING_DEPTH` changes the depth.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};

use capos_config::KernelCapSource;
use capos_config::ring::*;
use ring_server_core::*;
use ring_server_model::{anonymous, call, sqe};

const DATA: u64 = 0x1000;
const PAGE: usize = 4096;
const RESULT: u64 = DATA + 0x400;
const RECEIVED: u64 = DATA + 0x800;
const COPIED: u64 = 66;
const MOVED: u64 = 77;

type RingWords = [u32; 1024];

thread_local! {
    /// The ring pages of the state being stepped.
    static PAGES: RefCell<[RingWords; 3]> = const { RefCell::new([[0; 1024]; 3]) };
}

/// A ring page in `PAGES`, so that cloning a server does not share pages.
#[derive(Clone, Copy, Debug)]
struct TinyRing(usize);

impl RingPage for TinyRing {
    fn load(&self, word: RingWord) -> u32 {
        PAGES.with_borrow(|pages| pages[self.0][word.offset() / 4])
    }

    fn store(&self, word: RingWord, value: u32) {
        PAGES.with_borrow_mut(|pages| pages[self.0][word.offset() / 4] = value);
    }

    fn read_sqe(&self, slot: u32) -> CapSqe {
        let at = (SQE_ARRAY_OFFSET + slot * 64) as usize / 4;
        let w = PAGES.with_borrow(|pages| pages[self.0]);
        let long = |i: usize| u64::from(w[at + i]) | u64::from(w[at + i + 1]) << 32;
        CapSqe {
            opcode: w[at] as u8,
            flags: (w[at] >> 8) as u8,
            method_id: (w[at] >> 16) as u16,
            cap_id: w[at + 1],
            user_data: long(2),
            addr: long(4),
            len: w[at + 6],
            result_len: w[at + 7],
            result_addr: long(8),
            pipeline_dep: long(10),
            pipeline_field: w[at + 12] as u16,
            xfer_cap_count: (w[at + 12] >> 16) as u16,
            call_id: w[at + 13],
            session_disclosure: long(14),
        }
    }

    fn write_cqe(&self, slot: u32, cqe: &CapCqe) {
        let at = (CQE_ARRAY_OFFSET + slot * 32) as usize / 4;
        PAGES.with_borrow_mut(|pages| {
            let w = &mut pages[self.0];
            w[at] = cqe.user_data as u32;
            w[at + 2] = cqe.result as u32;
            w[at + 3] = u32::from(cqe.flags) | u32::from(cqe.cap_count) << 16;
            w[at + 6] = cqe.call_id;
        });
    }
}

/// One page of memory per process, and a switch that makes writes fail.
#[derive(Clone, Debug, Default)]
struct Tiny {
    memory: Vec<Vec<u8>>,
    faulty: bool,
}

impl Tiny {
    fn page(&mut self, pid: Pid) -> &mut Vec<u8> {
        &mut self.memory[pid.raw() as usize - 1]
    }
}

impl Machine for Tiny {
    type Ring = TinyRing;

    fn now_ns(&mut self) -> u64 {
        0
    }

    fn console_write(&mut self, _: &[u8]) {}

    fn read(&mut self, pid: Pid, addr: u64, out: &mut [u8]) -> Result<(), AccessFault> {
        let at = (addr - DATA) as usize;
        out.copy_from_slice(&self.page(pid)[at..at + out.len()]);
        Ok(())
    }

    fn write(&mut self, pid: Pid, addr: u64, bytes: &[u8]) -> Result<(), AccessFault> {
        if self.faulty {
            return Err(AccessFault);
        }
        let at = (addr - DATA) as usize;
        self.page(pid)[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn resume(&mut self, _: ThreadRef, _: u64) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A client calls: nothing, a copy of one, a move of the other capability.
    Call(usize, Option<(u64, u16)>),
    /// The owner receives, into a buffer of this length.
    Recv(u32),
    /// The owner returns its oldest call, with a capability or not.
    Return(Option<(u64, u16)>),
    /// A process drops the hold with this badge, or the endpoint.
    Release(usize, u64),
    /// The owner withdraws a receive.
    Cancel,
    /// The second client's holds of the moved object are revoked by a manager.
    Revoke,
    /// A process ends.
    Exit(usize),
    /// Memory writes start or stop failing.
    Fault,
}

#[derive(Clone)]
struct State {
    server: Server<Tiny>,
    machine: Tiny,
    pages: [RingWords; 3],
    /// Calls the owner received and did not return.
    received: Vec<u32>,
    asked: u32,
    answered: u32,
}

const OWNER: usize = 0;
const ENDPOINT_BADGE: u64 = 0;

impl State {
    fn new() -> Self {
        PAGES.set([[0; 1024]; 3]);
        let capacity = Capacity {
            objects: ring_server_core::ROOT_OBJECTS + 7,
            epochs: 24,
            sessions: 2,
            launchers: 0,
            launcher_kib: 0,
            endpoints: 1,
            calls: 4,
            recvs: 2,
            pins: 3,
            params_kib: 2,
            pipes: 0,
            pipe_kib: 0,
            notifications: 0,
            notification_waits: 0,
        };
        let secret = BootSecret::new([1; 32]);
        let mut state = Self {
            server: Server::with_capacity(&capacity, Some(secret)),
            machine: Tiny::default(),
            pages: [[0; 1024]; 3],
            received: Vec::new(),
            asked: 0,
            answered: 0,
        };
        let owned = Grant::kernel("service", KernelCapSource::Endpoint);
        let owner = state.spawn(0, &[owned], 3);
        let facet = Grant::client("service", owner, CapId::from_raw(0));
        let badged = |name, badge| Grant {
            badge,
            ..Grant::kernel(name, KernelCapSource::Timer)
        };
        let copied = badged("copied", COPIED);
        state.spawn(1, &[facet, copied, badged("moved", MOVED)], 4);
        let manager = Grant::manager("manager", Pid::from_raw(2));
        state.spawn(2, &[facet, copied, manager], 4);
        state
    }

    fn spawn(&mut self, index: usize, grants: &[Grant<'_>], cap_slots: u32) -> Pid {
        let mut space = AddressMap::new(1);
        space
            .insert(anonymous(DATA, PAGE as u64, Protection::READ_WRITE))
            .expect("free");
        let limits = Limits {
            cap_slots,
            endpoint_queue: 2,
            in_flight_calls: 1,
            outstanding_calls: 2,
            ..Limits::CEILING
        };
        let spec = ProcessSpec::new(TinyRing(index), space)
            .limits(limits)
            .grants(grants);
        let mut capset = [0; CAPSET_PAGE_BYTES];
        self.machine.memory.push(vec![0; PAGE]);
        self.server.create_process(spec, &mut capset).expect("fits")
    }

    fn pid(index: usize) -> Pid {
        Pid::from_raw(index as u32 + 1)
    }

    fn find(&self, index: usize, badge: u64) -> Option<u32> {
        let mut holds = self.server.holds(Self::pid(index));
        let found = holds.find(|(_, hold)| hold.badge == badge);
        found.map(|(id, _)| id.raw())
    }

    fn actions() -> Vec<Action> {
        let mut actions = vec![
            Action::Recv(0x300),
            Action::Recv(60),
            Action::Return(None),
            Action::Return(Some((MOVED, CAP_TRANSFER_MODE_MOVE))),
            Action::Return(Some((COPIED, CAP_TRANSFER_MODE_COPY))),
            Action::Release(OWNER, ENDPOINT_BADGE),
            Action::Cancel,
            Action::Revoke,
            Action::Fault,
        ];
        for client in [1, 2] {
            actions.extend([
                Action::Call(client, None),
                Action::Call(client, Some((COPIED, CAP_TRANSFER_MODE_COPY))),
                Action::Call(client, Some((MOVED, CAP_TRANSFER_MODE_MOVE))),
                Action::Release(client, MOVED),
            ]);
        }
        actions.extend((0..3).map(Action::Exit));
        actions
    }

    /// Performs an action; `false` if it makes no sense here.
    fn step(&mut self, action: Action) -> bool {
        PAGES.set(self.pages);
        let done = self.act(action);
        if done {
            self.server.check();
            self.check_authority();
            self.pages = PAGES.with_borrow(|pages| *pages);
        }
        done
    }

    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Call(client, transfer) => {
                let Some(entry) = self.call_entry(client, transfer) else {
                    return false;
                };
                self.submit(client, &entry)
            }
            Action::Recv(len) => {
                let entry = CapSqe {
                    cap_id: 0,
                    result_addr: RECEIVED,
                    result_len: len,
                    ..sqe(CAP_OP_RECV, 10)
                };
                self.submit(OWNER, &entry)
            }
            Action::Return(transfer) => self.ret(transfer),
            Action::Release(process, badge) => {
                let Some(cap_id) = self.find(process, badge) else {
                    return false;
                };
                let entry = CapSqe {
                    cap_id,
                    ..sqe(CAP_OP_RELEASE, 12)
                };
                self.submit(process, &entry)
            }
            Action::Cancel => {
                let entry = CapSqe {
                    pipeline_dep: 10,
                    ..sqe(CAP_OP_CANCEL, 13)
                };
                self.submit(OWNER, &entry)
            }
            Action::Revoke => self.revoke(),
            Action::Exit(process) => {
                let pid = Self::pid(process);
                let live = self.server.is_live(pid);
                self.server.destroy_process(&mut self.machine, pid);
                self.collect();
                live
            }
            Action::Fault => {
                self.machine.faulty = !self.machine.faulty;
                true
            }
        }
    }

    fn call_entry(&mut self, client: usize, transfer: Option<(u64, u16)>) -> Option<CapSqe> {
        let entry = CapSqe {
            addr: DATA,
            len: 8,
            result_addr: RESULT,
            result_len: 0x100,
            ..call(20 + client as u64, 0, 1)
        };
        self.with_transfer(client, entry, transfer)
    }

    fn with_transfer(
        &mut self,
        process: usize,
        entry: CapSqe,
        transfer: Option<(u64, u16)>,
    ) -> Option<CapSqe> {
        let Some((badge, mode)) = transfer else {
            return Some(entry);
        };
        let cap = self.find(process, badge)?;
        let at = (entry.addr - DATA) as usize + entry.len as usize;
        let page = self.machine.page(Self::pid(process));
        page[at..at + 4].copy_from_slice(&cap.to_le_bytes());
        page[at + 4..at + 6].copy_from_slice(&mode.to_le_bytes());
        let xfer_cap_count = 1;
        Some(CapSqe {
            xfer_cap_count,
            ..entry
        })
    }

    fn ret(&mut self, transfer: Option<(u64, u16)>) -> bool {
        let Some(&call_id) = self.received.first() else {
            return false;
        };
        let entry = CapSqe {
            call_id,
            addr: DATA,
            len: 8,
            ..sqe(CAP_OP_RETURN, 11)
        };
        let Some(entry) = self.with_transfer(OWNER, entry, transfer) else {
            return false;
        };
        let calls = self.received.len();
        let submitted = self.submit(OWNER, &entry);
        if submitted && self.received.len() == calls {
            self.received.remove(0);
        }
        submitted
    }

    /// `CapabilityManager.revoke` of the first client's moved object.
    fn revoke(&mut self) -> bool {
        let (manager, target) = (self.find_manager(), self.find(1, MOVED));
        let (Some(manager), Some(target)) = (manager, target) else {
            return false;
        };
        let words: [u64; 3] = [2 << 32, 1 << 32, target.into()];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.machine.page(Self::pid(2))[0x100..0x118].copy_from_slice(&bytes);
        let entry = CapSqe {
            addr: DATA + 0x100,
            len: 24,
            result_addr: RESULT,
            result_len: 64,
            ..call(14, manager, 1)
        };
        self.submit(2, &entry)
    }

    fn find_manager(&self) -> Option<u32> {
        let wanted = capos_config::CAPABILITY_MANAGER_INTERFACE_ID;
        let mut holds = self.server.holds(Self::pid(2));
        let found = holds.find(|(_, hold)| hold.interface_id == wanted);
        found.map(|(id, _)| id.raw())
    }

    fn submit(&mut self, process: usize, entry: &CapSqe) -> bool {
        let pid = Self::pid(process);
        if !self.server.is_live(pid) {
            return false;
        }
        PAGES.with_borrow_mut(|pages| put(&mut pages[process], entry));
        self.asked += 1;
        self.server
            .cap_enter(&mut self.machine, pid, Tid::MAIN, 0, 0);
        self.collect();
        true
    }

    /// Takes all completions; the owner remembers calls it received.
    fn collect(&mut self) {
        for process in 0..3 {
            let ring = TinyRing(process);
            let mut head = ring.load(RingWord::CqHead);
            while head != ring.load(RingWord::CqTail) {
                let at = (CQE_ARRAY_OFFSET + head % CQ_ENTRIES * 32) as usize / 4;
                let words = PAGES.with_borrow(|pages| pages[process]);
                let (data, result, call) = (words[at], words[at + 2] as i32, words[at + 6]);
                if data == 10 && result >= 0 {
                    self.received.push(call);
                }
                self.answered += 1;
                head = head.wrapping_add(1);
            }
            ring.store(RingWord::CqHead, head);
        }
    }

    fn check_authority(&self) {
        let mut moved = 0;
        for process in 0..3 {
            for (_, hold) in self.server.holds(Self::pid(process)) {
                moved += u32::from(hold.badge == MOVED);
                assert!([0, COPIED, MOVED].contains(&hold.badge), "out of nothing");
            }
        }
        assert!(moved <= 1, "a moved capability has one holder");
        assert!(self.answered <= self.asked, "unasked completion");
    }

    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.server.fingerprint(&mut hasher);
        hasher.write_u8(self.machine.faulty.into());
        for &call in &self.received {
            hasher.write_u32(call);
        }
        hasher.finish()
    }
}

fn put(words: &mut RingWords, sqe: &CapSqe) {
    let tail = words[1];
    let at = (SQE_ARRAY_OFFSET + tail % SQ_ENTRIES * 64) as usize / 4;
    let mut long = |i: usize, value: u64| {
        words[at + i] = value as u32;
        words[at + i + 1] = (value >> 32) as u32;
    };
    long(2, sqe.user_data);
    long(4, sqe.addr);
    long(8, sqe.result_addr);
    long(10, sqe.pipeline_dep);
    long(14, sqe.session_disclosure);
    words[at] = u32::from(sqe.opcode) | u32::from(sqe.flags) << 8 | u32::from(sqe.method_id) << 16;
    words[at + 1] = sqe.cap_id;
    words[at + 6] = sqe.len;
    words[at + 7] = sqe.result_len;
    words[at + 12] = u32::from(sqe.pipeline_field) | u32::from(sqe.xfer_cap_count) << 16;
    words[at + 13] = sqe.call_id;
    words[1] = tail.wrapping_add(1);
}

#[test]
fn every_order_of_events_keeps_the_invariants() {
    let default = if cfg!(debug_assertions) { 6 } else { 7 };
    let depth = std::env::var("RING_DEPTH").map_or(default, |text| text.parse().expect("a number"));
    let actions = State::actions();
    let mut seen = HashSet::new();
    let first = State::new();
    seen.insert(first.key());
    let mut frontier = vec![(first, Vec::new())];
    let mut transitions = 0_u64;
    for level in 1..=depth {
        let mut next = Vec::new();
        for (state, path) in &frontier {
            for &action in &actions {
                let mut successor = state.clone();
                let path: Vec<Action> = path.iter().copied().chain([action]).collect();
                let stepped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    successor.step(action)
                }));
                let Ok(stepped) = stepped else {
                    panic!("broken by {path:?}");
                };
                if !stepped {
                    continue;
                }
                transitions += 1;
                if seen.insert(successor.key()) {
                    next.push((successor, path));
                }
            }
        }
        println!(
            "depth {level}: {} states, {transitions} transitions",
            seen.len()
        );
        frontier = next;
    }
}
