//! The ring protocol under every interleaving, with loom.
//!
//! The server's own ring code runs against a page of loom atomics while a
//! client thread submits and reaps. Honest client: every submission taken is
//! completed once, in order, with its own data. Hostile client: it rewrites the
//! indices and an entry while they are read; the server takes at most a queue's
//! worth and stays sound.

use capos_config::ring::*;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use ring_server_core::*;

const WORDS: usize = 13;
/// Slots the tests use; the rest of the page stays out of the state space.
const SLOTS: usize = 2;

struct Page {
    words: Vec<AtomicU32>,
    /// `opcode` and `user_data` of each submission slot.
    submissions: Vec<(AtomicU32, AtomicU64)>,
    /// `user_data` and `result` of each completion slot.
    completions: Vec<(AtomicU64, AtomicU32)>,
}

#[derive(Clone)]
struct LoomRing(Arc<Page>);

impl LoomRing {
    fn new() -> Self {
        Self(Arc::new(Page {
            words: (0..WORDS).map(|_| AtomicU32::new(0)).collect(),
            submissions: (0..SLOTS)
                .map(|_| (AtomicU32::new(0), AtomicU64::new(0)))
                .collect(),
            completions: (0..SLOTS)
                .map(|_| (AtomicU64::new(0), AtomicU32::new(0)))
                .collect(),
        }))
    }

    fn word(&self, word: RingWord) -> &AtomicU32 {
        &self.0.words[word.offset() / 4]
    }
}

impl RingPage for LoomRing {
    fn load(&self, word: RingWord) -> u32 {
        self.word(word).load(Ordering::Acquire)
    }

    fn store(&self, word: RingWord, value: u32) {
        self.word(word).store(value, Ordering::Release);
    }

    fn read_sqe(&self, slot: u32) -> CapSqe {
        assert!(slot < SQ_ENTRIES, "masked");
        let (opcode, data) = &self.0.submissions[slot as usize % SLOTS];
        let opcode = opcode.load(Ordering::Relaxed) as u8;
        ring_server_model::sqe(opcode, data.load(Ordering::Relaxed))
    }

    fn write_cqe(&self, slot: u32, cqe: &CapCqe) {
        assert!(slot < CQ_ENTRIES, "masked");
        let (data, result) = &self.0.completions[slot as usize % SLOTS];
        data.store(cqe.user_data, Ordering::Relaxed);
        result.store(cqe.result as u32, Ordering::Relaxed);
    }
}

struct Still;

impl Machine for Still {
    type Ring = LoomRing;

    fn now_ns(&mut self) -> u64 {
        0
    }

    fn console_write(&mut self, _: &[u8]) {}

    fn read(&mut self, _: Pid, _: u64, _: &mut [u8]) -> Result<(), AccessFault> {
        Err(AccessFault)
    }

    fn write(&mut self, _: Pid, _: u64, _: &[u8]) -> Result<(), AccessFault> {
        Err(AccessFault)
    }

    fn resume(&mut self, _: ThreadRef, _: u64) {}
}

fn server(ring: &LoomRing) -> (Server<Still>, Pid) {
    let capacity = Capacity {
        objects: ring_server_core::ROOT_OBJECTS,
        epochs: 1,
        sessions: 1,
        launchers: 0,
        launcher_kib: 0,
        endpoints: 0,
        calls: 0,
        recvs: 0,
        pins: 0,
        params_kib: 0,
        pipes: 0,
        pipe_kib: 0,
        notifications: 0,
        notification_waits: 0,
    };
    let mut server = Server::with_capacity(&capacity, None);
    let spec = ProcessSpec::new(ring.clone(), AddressMap::new(0));
    let pid = server.create_process(spec, &mut [0; CAPSET_PAGE_BYTES]);
    (server, pid.expect("one process fits"))
}

fn submit(ring: &LoomRing, tail: u32, data: u64) {
    let (opcode, user_data) = &ring.0.submissions[tail as usize % SLOTS];
    opcode.store(CAP_OP_NOP.into(), Ordering::Relaxed);
    user_data.store(data, Ordering::Relaxed);
    ring.store(RingWord::SqTail, tail + 1);
}

#[test]
fn an_honest_client_gets_each_completion_once_and_in_order() {
    loom::model(|| {
        let ring = LoomRing::new();
        let (mut server, pid) = server(&ring);
        let client_ring = ring.clone();
        let client = loom::thread::spawn(move || {
            submit(&client_ring, 0, 100);
            submit(&client_ring, 1, 101);
            let mut seen = 0;
            // Whatever is published is complete.
            while seen < client_ring.load(RingWord::CqTail) {
                let (data, result) = &client_ring.0.completions[seen as usize];
                assert_eq!(data.load(Ordering::Relaxed), 100 + u64::from(seen));
                assert_eq!(result.load(Ordering::Relaxed), 0);
                seen += 1;
                client_ring.store(RingWord::CqHead, seen);
            }
        });
        server.cap_enter(&mut Still, pid, Tid::MAIN, 0, 0);
        client.join().expect("the client's assertions hold");
        server.cap_enter(&mut Still, pid, Tid::MAIN, 0, 0);
        assert_eq!(ring.load(RingWord::SqHead), 2, "everything was taken");
        assert_eq!(ring.load(RingWord::CqTail), 2, "and completed");
        server.check();
    });
}

#[test]
fn a_hostile_client_can_only_confuse_itself() {
    loom::model(|| {
        let ring = LoomRing::new();
        let (mut server, pid) = server(&ring);
        let client_ring = ring.clone();
        let client = loom::thread::spawn(move || {
            submit(&client_ring, 0, 100);
            client_ring.0.submissions[0].0.store(200, Ordering::Relaxed);
            client_ring.store(RingWord::CqHead, 40);
            client_ring.store(RingWord::SqTail, 1000);
        });
        server.cap_enter(&mut Still, pid, Tid::MAIN, 0, 0);
        client.join().expect("the client does not fail");
        server.cap_enter(&mut Still, pid, Tid::MAIN, 0, 0);
        server.check();
        let taken = ring.load(RingWord::CqTail);
        assert!(
            taken <= 1,
            "one submission was published, {taken} completed"
        );
        let tail = ring.load(RingWord::SqTail);
        assert_eq!(ring.load(RingWord::SqHead), tail, "recovered");
        // The process is usable: its next submission is taken.
        let (opcode, data) = &ring.0.submissions[tail as usize % SLOTS];
        opcode.store(CAP_OP_NOP.into(), Ordering::Relaxed);
        data.store(7, Ordering::Relaxed);
        ring.store(RingWord::SqTail, tail + 1);
        ring.store(RingWord::CqHead, taken);
        let entry = server.cap_enter(&mut Still, pid, Tid::MAIN, 0, 0);
        assert_eq!(entry, Entry::Resume(1));
    });
}
