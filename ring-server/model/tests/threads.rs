//! `ThreadControl`, `ThreadSpawner`, `ThreadHandle`: every rule of threads.

mod support;

use capos_config::KernelCapSource;
use capos_config::capos_capnp::{ExceptionType, thread_control, thread_handle, thread_spawner};
use capos_config::process_layout::{USER_TLS_REGION_BASE, USER_TLS_REGION_LIMIT};
use capos_config::ring::*;
use ring_server_core::{
    CapId, ENTER_REJECTED, ENTER_THREAD_OWNED_HEAD, Entry, Grant, Limits, Passing, ROOT_OBJECTS,
    RingPage, RingWord, THREADS_MAX, ThreadEntry, ThreadRef, Tid, WAIT_FOREVER,
};
use ring_server_model::{Client, System, call, cap_records, sqe};

const GRANTS: [Grant<'_>; 4] = [
    Grant::kernel("control", KernelCapSource::ThreadControl),
    Grant::kernel("spawner", KernelCapSource::ThreadSpawner),
    Grant::kernel("park", KernelCapSource::ParkSpace),
    Grant::kernel("timer", KernelCapSource::Timer),
];

const GET_FS_BASE: u16 = 0;
const SET_FS_BASE: u16 = 1;
const EXIT_THREAD: u16 = 2;
const JOIN: u16 = 0;
const EXIT_CODE: u16 = 1;

const RESULT: u64 = Client::DATA + 0x1000;
const JOIN_RESULT: u64 = Client::DATA + 0x2000;
const RESULT_LEN: u32 = 256;
/// End of the canonical lower half.
const USER_END: u64 = 1 << 47;

const GOOD: ThreadEntry = ThreadEntry {
    entry: Client::RODATA,
    stack_top: Client::DATA + 0x8000,
    arg: u64::MAX,
    fs_base: 0,
};

fn words(
    build: impl FnOnce(&mut capnp::message::Builder<capnp::message::HeapAllocator>),
) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    build(&mut message);
    capnp::serialize::write_message_to_words(&message)
}

fn create_params(entry: &ThreadEntry, flags: u64) -> Vec<u8> {
    words(|message| {
        let mut params = message.init_root::<thread_spawner::create_params::Builder<'_>>();
        params.set_entry(entry.entry);
        params.set_stack_top(entry.stack_top);
        params.set_arg(entry.arg);
        params.set_fs_base(entry.fs_base);
        params.set_flags(flags);
    })
}

/// A system with one process that has threads.
struct Team {
    system: System,
    client: Client,
}

impl Team {
    fn new() -> Self {
        Self::limited(Limits::CEILING)
    }

    fn limited(limits: Limits) -> Self {
        let mut system = System::new();
        let client = system.spawn_limited(&GRANTS, limits);
        Self { system, client }
    }

    /// A CALL with params and a result buffer.
    fn entry(&mut self, cap: u32, method: u16, params: &[u8]) -> CapSqe {
        self.system.poke(&self.client, Client::DATA, params);
        CapSqe {
            addr: Client::DATA,
            len: params.len() as u32,
            result_addr: RESULT,
            result_len: RESULT_LEN,
            ..call(77, cap, method)
        }
    }

    fn named(&mut self, name: &str, method: u16, params: &[u8]) -> CapSqe {
        let cap = self.client.cap(name);
        self.entry(cap, method, params)
    }

    fn run(&mut self, entry: &CapSqe) -> CapCqe {
        self.run_as(Tid::MAIN, entry)
    }

    /// Submits, enters as a thread, and returns the only completion.
    fn run_as(&mut self, tid: Tid, entry: &CapSqe) -> CapCqe {
        self.client.submit(entry);
        let entered = self.system.enter_as(&self.client, tid, 0, 0);
        assert!(matches!(entered, Entry::Resume(_)), "{entered:?}");
        self.client.completion().expect("completes at once")
    }

    fn result(&self, len: usize) -> Vec<u8> {
        self.system.peek(&self.client, RESULT, len)
    }

    /// Kind of the exception that `cqe` reports.
    fn exception(&self, cqe: &CapCqe) -> ExceptionType {
        assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);
        support::decode_exception(&self.result(RESULT_LEN as usize)).0
    }

    fn try_create(&mut self, entry: &ThreadEntry, flags: u64) -> CapCqe {
        let params = create_params(entry, flags);
        let entry = self.named("spawner", 0, &params);
        self.run(&entry)
    }

    /// A new thread and the handle on it.
    fn create(&mut self) -> (Tid, u32) {
        let cqe = self.try_create(&GOOD, 0);
        self.created(&cqe)
    }

    fn created(&mut self, cqe: &CapCqe) -> (Tid, u32) {
        assert_eq!((cqe.result, cqe.cap_count), (24, 1));
        assert_eq!(cqe.flags, CAP_CQE_TRANSFER_RESULT_CAPS);
        let records = cap_records(&self.result(40)[24..]);
        assert_eq!(records[0].1, capos_config::THREAD_HANDLE_INTERFACE_ID);
        let started = self.system.machine.threads.keys().next_back();
        (started.expect("a thread was made").tid, records[0].0)
    }

    fn exit_params(code: i64) -> Vec<u8> {
        words(|message| {
            message
                .init_root::<thread_control::exit_thread_params::Builder<'_>>()
                .set_code(code);
        })
    }

    /// A thread ends itself with an owned submission.
    fn exit(&mut self, tid: Tid, code: i64) -> Entry {
        let params = Self::exit_params(code);
        let entry = CapSqe {
            flags: CAP_SQE_THREAD_OWNED,
            call_id: tid.raw(),
            ..self.named("control", EXIT_THREAD, &params)
        };
        self.client.submit(&entry);
        self.system.enter_as(&self.client, tid, 1, WAIT_FOREVER)
    }

    fn join_entry(&self, handle: u32, user_data: u64) -> CapSqe {
        CapSqe {
            result_addr: JOIN_RESULT,
            result_len: 64,
            ..call(user_data, handle, JOIN)
        }
    }

    /// What `join` wrote.
    fn joined(&self) -> i64 {
        let bytes = self.system.peek(&self.client, JOIN_RESULT, 24);
        let message =
            capnp::serialize::read_message(&mut &bytes[..], capos_config::default_reader_options())
                .expect("a message");
        let root = message.get_root::<thread_handle::join_results::Reader<'_>>();
        root.expect("join_results").get_exit_code()
    }

    fn exit_code(&mut self, handle: u32) -> Option<i64> {
        let entry = self.entry(handle, EXIT_CODE, &[]);
        let cqe = self.run(&entry);
        assert_eq!((cqe.result, cqe.cap_count), (32, 0));
        let bytes = self.result(32);
        let message =
            capnp::serialize::read_message(&mut &bytes[..], capos_config::default_reader_options())
                .expect("a message");
        let root = message
            .get_root::<thread_handle::exit_code_results::Reader<'_>>()
            .expect("exit_code_results");
        root.get_exited().then(|| root.get_exit_code())
    }

    fn release(&mut self, cap: u32) {
        let entry = System::release_sqe(cap, 5);
        assert_eq!(self.run(&entry).result, 0);
    }

    fn park(&self, tid: Tid, user_data: u64, timeout_ns: u64) -> CapSqe {
        CapSqe {
            flags: CAP_SQE_THREAD_OWNED,
            call_id: tid.raw(),
            cap_id: self.client.cap("park"),
            addr: Client::DATA + 0x4000,
            pipeline_dep: timeout_ns,
            ..sqe(CAP_OP_PARK, user_data)
        }
    }

    fn unpark(&self, user_data: u64, count: u32) -> CapSqe {
        CapSqe {
            cap_id: self.client.cap("park"),
            addr: Client::DATA + 0x4000,
            len: count,
            ..sqe(CAP_OP_UNPARK, user_data)
        }
    }

    /// Ends the process and asserts that nothing of it is left.
    fn over(self) {
        let mut system = self.system;
        system.kill(self.client);
        assert!(system.server.is_idle(), "nothing is left");
        assert_eq!(system.server.next_deadline(), None);
        assert!(system.machine.threads.is_empty());
    }
}

#[test]
fn a_thread_starts_as_asked_and_its_handle_is_the_only_result() {
    let mut team = Team::new();
    let asked = ThreadEntry {
        entry: USER_END - 1,
        stack_top: USER_END,
        arg: 0xdead_beef_dead_beef,
        fs_base: USER_END - 1,
    };
    let cqe = team.try_create(&asked, 0);
    let (tid, handle) = team.created(&cqe);
    assert_eq!(tid, Tid::from_raw(2));
    let thread = ThreadRef {
        pid: team.client.pid,
        tid,
    };
    let started = team.system.machine.threads[&thread];
    assert_eq!(started.entry, Some(asked));
    assert_eq!(started.index, 1);
    assert_eq!(team.exit_code(handle), None);
    // It is a thread of the ring like any other.
    let nop = sqe(CAP_OP_NOP, 9);
    assert_eq!(team.run_as(tid, &nop).user_data, 9);
    team.over();
}

#[test]
fn each_argument_wrong_in_turn_is_refused_without_a_trace() {
    let mut team = Team::new();
    let with = |change: &dyn Fn(&mut ThreadEntry)| {
        let mut entry = GOOD;
        change(&mut entry);
        entry
    };
    let bad: [(ThreadEntry, u64); 13] = [
        (with(&|e| e.entry = 0), 0),
        (with(&|e| e.entry = USER_END), 0),
        (with(&|e| e.entry = u64::MAX), 0),
        (with(&|e| e.entry = 0xffff_8000_0000_0000), 0),
        (with(&|e| e.stack_top = 0), 0),
        (with(&|e| e.stack_top += 8), 0),
        (with(&|e| e.stack_top |= 1), 0),
        (with(&|e| e.stack_top = USER_END + 16), 0),
        (with(&|e| e.stack_top = !15), 0),
        (with(&|e| e.fs_base = USER_END), 0),
        (with(&|e| e.fs_base = u64::MAX), 0),
        (GOOD, 1),
        (GOOD, 1 << 63),
    ];
    for (entry, flags) in bad {
        let cqe = team.try_create(&entry, flags);
        assert_eq!(team.exception(&cqe), ExceptionType::Failed, "{entry:?}");
        assert_eq!((cqe.cap_count, cqe.flags), (0, 0));
    }
    assert!(team.system.machine.threads.is_empty());
    // Params that are no message, methods that do not exist, short buffers.
    for params in [&[][..], &[0xff; 64]] {
        let entry = team.named("spawner", 0, params);
        let cqe = team.run(&entry);
        assert_eq!(team.exception(&cqe), ExceptionType::InvalidArgument);
    }
    for (name, method) in [("spawner", 1), ("control", 3), ("control", u16::MAX)] {
        let entry = team.named(name, method, &[]);
        let cqe = team.run(&entry);
        assert_eq!(team.exception(&cqe), ExceptionType::Unimplemented);
    }
    let params = create_params(&GOOD, 0);
    let short = CapSqe {
        result_len: 39,
        ..team.named("spawner", 0, &params)
    };
    assert_eq!(
        team.run(&short).result,
        CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED
    );
    // All of that took no thread number.
    assert_eq!(team.create().0, Tid::from_raw(2));
    team.over();
}

#[test]
fn a_process_has_sixteen_threads_and_no_more() {
    let mut team = Team::new();
    let handles: Vec<_> = (1..THREADS_MAX).map(|_| team.create()).collect();
    let cqe = team.try_create(&GOOD, 0);
    assert_eq!(team.exception(&cqe), ExceptionType::Overloaded);
    // One that ended and can be joined still counts.
    let (tid, handle) = handles[3];
    assert_eq!(team.exit(tid, 1), Entry::Ended(None));
    let cqe = team.try_create(&GOOD, 0);
    assert_eq!(team.exception(&cqe), ExceptionType::Overloaded);
    // Joined, it does not; its number is not used again, its place is.
    let join = team.join_entry(handle, 3);
    assert_eq!(team.run(&join).result, 24);
    let (next, _) = team.create();
    assert_eq!(next, Tid::from_raw(THREADS_MAX as u32 + 1));
    let thread = ThreadRef {
        pid: team.client.pid,
        tid: next,
    };
    assert_eq!(team.system.machine.threads[&thread].index, 4);
    // Released instead of joined: the same.
    let (tid, handle) = handles[5];
    assert_eq!(team.exit(tid, 1), Entry::Ended(None));
    team.release(handle);
    team.create();
    // Released while it runs: its place is free when it ends.
    let (tid, handle) = handles[6];
    team.release(handle);
    let cqe = team.try_create(&GOOD, 0);
    assert_eq!(team.exception(&cqe), ExceptionType::Overloaded);
    assert_eq!(team.exit(tid, 1), Entry::Ended(None));
    team.create();
    team.over();
}

#[test]
fn a_profile_narrows_the_number_of_threads() {
    let mut team = Team::limited(Limits {
        threads: 2,
        ..Limits::CEILING
    });
    team.create();
    let cqe = team.try_create(&GOOD, 0);
    assert_eq!(team.exception(&cqe), ExceptionType::Overloaded);
    team.over();
}

#[test]
fn refusals_of_the_machine_and_of_stores_leave_nothing() {
    let mut team = Team::new();
    team.system.machine.thread_room = Some(0);
    let before = team.system.server.holds(team.client.pid).count();
    for _ in 0..40 {
        let cqe = team.try_create(&GOOD, 0);
        assert_eq!(team.exception(&cqe), ExceptionType::Overloaded);
        let holds = team.system.server.holds(team.client.pid).count();
        assert_eq!(holds, before, "the handle was taken back");
    }
    // A result buffer that is there when it is checked and gone when written.
    team.system.machine.thread_room = None;
    let params = create_params(&GOOD, 0);
    let entry = team.named("spawner", 0, &params);
    let memory = team
        .system
        .machine
        .memory
        .get_mut(&team.client.pid)
        .unwrap();
    memory.unmap(RESULT, 0x1000);
    assert_eq!(team.run(&entry).result, CAP_ERR_INVALID_RESULT_BUFFER);
    assert!(team.system.machine.threads.is_empty());
    team.over();
    // No capability slot, then no object.
    let mut team = Team::limited(Limits {
        cap_slots: GRANTS.len() as u32,
        ..Limits::CEILING
    });
    let cqe = team.try_create(&GOOD, 0);
    assert_eq!(team.exception(&cqe), ExceptionType::Overloaded);
    team.over();
    let mut team = Team::new();
    let capacity = ring_server_core::Capacity {
        objects: ROOT_OBJECTS,
        ..ring_server_core::Capacity::DEFAULT
    };
    team.system.server = ring_server_core::Server::with_capacity(&capacity, None);
    team.client = team.system.spawn(&GRANTS);
    let cqe = team.try_create(&GOOD, 0);
    assert_eq!(team.exception(&cqe), ExceptionType::Overloaded);
}

#[test]
fn join_is_had_once() {
    let mut team = Team::new();
    let (tid, handle) = team.create();
    let join = team.join_entry(handle, 3);
    // The thread itself, then a second one beside the first.
    let own = CapSqe {
        result_addr: RESULT,
        result_len: RESULT_LEN,
        ..join
    };
    let cqe = team.run_as(tid, &own);
    assert_eq!(team.exception(&cqe), ExceptionType::Failed, "self-join");
    assert!(
        team.system.run(&mut team.client, &join).is_none(),
        "it waits"
    );
    let cqe = team.run(&own);
    assert_eq!(team.exception(&cqe), ExceptionType::Failed, "another joins");
    assert_eq!(team.exit(tid, -5), Entry::Ended(None));
    let cqe = team.client.completion().expect("the join completes");
    assert_eq!((cqe.user_data, cqe.result), (3, 24));
    assert_eq!(team.joined(), -5);
    let cqe = team.run(&own);
    assert_eq!(
        team.exception(&cqe),
        ExceptionType::Failed,
        "joined already"
    );
    assert_eq!(
        team.exit_code(handle),
        Some(-5),
        "the code can be seen again"
    );
    team.over();
}

#[test]
fn a_join_after_the_end_is_answered_at_once() {
    let mut team = Team::new();
    let (tid, handle) = team.create();
    assert_eq!(team.exit(tid, i64::MIN), Entry::Ended(None));
    assert_eq!(team.exit_code(handle), Some(i64::MIN), "not consumed");
    assert_eq!(team.exit_code(handle), Some(i64::MIN), "nor by the first");
    let short = CapSqe {
        result_len: 23,
        ..team.join_entry(handle, 3)
    };
    assert_eq!(
        team.run(&short).result,
        CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED
    );
    let join = team.join_entry(handle, 4);
    assert_eq!(
        team.run(&join).result,
        24,
        "a short buffer consumed nothing"
    );
    assert_eq!(team.joined(), i64::MIN);
    team.over();
}

#[test]
fn a_released_handle_detaches_and_a_waiting_join_pins() {
    let mut team = Team::new();
    let (tid, handle) = team.create();
    let join = team.join_entry(handle, 3);
    assert!(team.system.run(&mut team.client, &join).is_none());
    team.release(handle);
    let entry = team.entry(handle, EXIT_CODE, &[]);
    assert_eq!(team.run(&entry).result, CAP_ERR_INVOKE_FAILED);
    assert_eq!(team.exit(tid, 8), Entry::Ended(None));
    assert_eq!(team.client.completion().expect("pinned").user_data, 3);
    assert_eq!(team.joined(), 8);
    // A join that waits when its process ends is forgotten with it.
    let (_, handle) = team.create();
    let join = team.join_entry(handle, 4);
    assert!(team.system.run(&mut team.client, &join).is_none());
    team.release(handle);
    team.over();
}

#[test]
fn a_join_whose_buffer_is_gone_is_answered_without_a_code() {
    let mut team = Team::new();
    let (tid, handle) = team.create();
    let join = team.join_entry(handle, 3);
    assert!(team.system.run(&mut team.client, &join).is_none());
    let memory = team
        .system
        .machine
        .memory
        .get_mut(&team.client.pid)
        .unwrap();
    memory.unmap(JOIN_RESULT, 0x1000);
    assert_eq!(team.exit(tid, 8), Entry::Ended(None));
    let cqe = team.client.completion().expect("answered");
    assert_eq!(cqe.result, CAP_ERR_INVALID_RESULT_BUFFER);
    team.over();
}

#[test]
fn joins_are_charged_and_given_back() {
    let mut team = Team::limited(Limits {
        outstanding_calls: 1,
        ..Limits::CEILING
    });
    let (first, handle) = team.create();
    let (_, other) = team.create();
    let join = team.join_entry(handle, 3);
    assert!(team.system.run(&mut team.client, &join).is_none());
    let second = CapSqe {
        result_addr: RESULT,
        result_len: RESULT_LEN,
        ..team.join_entry(other, 4)
    };
    let cqe = team.run(&second);
    assert_eq!(team.exception(&cqe), ExceptionType::Overloaded);
    team.exit(first, 0);
    team.client.completions();
    assert!(
        team.system.run(&mut team.client, &second).is_none(),
        "it waits"
    );
    team.over();
}

#[test]
fn exit_thread_posts_nothing_and_leaves_what_comes_behind() {
    let mut team = Team::new();
    let (tid, _) = team.create();
    let params = Team::exit_params(1);
    let exit = CapSqe {
        flags: CAP_SQE_THREAD_OWNED,
        call_id: tid.raw(),
        ..team.named("control", EXIT_THREAD, &params)
    };
    team.client.submit(&sqe(CAP_OP_NOP, 1));
    team.client.submit(&exit);
    team.client.submit(&sqe(CAP_OP_NOP, 2));
    let entry = team.system.enter(&team.client, 1, 0);
    assert_eq!(entry, Entry::Resume(1), "what is there is not hidden");
    let entry = team.system.enter(&team.client, 2, 0);
    assert_eq!(entry, Entry::Resume(ENTER_THREAD_OWNED_HEAD));
    let entry = team.system.enter_as(&team.client, tid, 1, 0);
    assert_eq!(entry, Entry::Ended(None));
    assert_eq!(team.client.ring.load(RingWord::SqHead), 3, "the NOP stays");
    let entry = team.system.enter_as(&team.client, tid, 0, 0);
    assert_eq!(entry, Entry::Resume(ENTER_REJECTED), "it is no thread now");
    assert_eq!(team.system.enter(&team.client, 2, 0), Entry::Resume(2));
    let order: Vec<u64> = team
        .client
        .completions()
        .iter()
        .map(|c| c.user_data)
        .collect();
    assert_eq!(order, [1, 2], "exitThread has no completion");
    team.over();
}

#[test]
fn a_submission_of_nobody_is_refused_not_kept() {
    let mut team = Team::new();
    let (tid, _) = team.create();
    for owner in [tid, Tid::from_raw(99)] {
        if owner == tid {
            team.exit(tid, 0);
        }
        let park = team.park(owner, 6, WAIT_FOREVER);
        assert_eq!(team.run(&park).result, CAP_ERR_INVALID_REQUEST);
    }
    assert_eq!(team.run(&sqe(CAP_OP_NOP, 1)).result, 0, "the ring goes on");
    team.over();
}

#[test]
fn the_last_thread_takes_its_process_along() {
    let mut team = Team::new();
    let pid = team.client.pid;
    let (tid, _) = team.create();
    assert_eq!(team.exit(Tid::MAIN, 1), Entry::Ended(None));
    assert!(team.system.server.is_live(pid));
    assert_eq!(team.exit(tid, 42), Entry::Ended(Some(42)));
    assert!(!team.system.server.is_live(pid));
    assert_eq!(team.system.machine.programs.buried, [(pid, 42)]);
    assert!(team.system.server.is_idle());
}

#[test]
fn a_single_thread_is_its_process() {
    let mut team = Team::new();
    let pid = team.client.pid;
    assert_eq!(team.exit(Tid::MAIN, -1), Entry::Ended(Some(-1)));
    assert_eq!(team.system.machine.programs.buried, [(pid, -1)]);
}

#[test]
fn exit_ends_every_thread_whatever_it_waits_for() {
    let mut team = Team::new();
    let pid = team.client.pid;
    let (parked, handle) = team.create();
    let (entered, _) = team.create();
    let (exiting, _) = team.create();
    let join = team.join_entry(handle, 3);
    assert!(team.system.run(&mut team.client, &join).is_none());
    let park = team.park(parked, 6, 1_000_000);
    team.client.submit(&park);
    assert_eq!(
        team.system.enter_as(&team.client, parked, 0, 0),
        Entry::Block
    );
    let entry = team.system.enter_as(&team.client, entered, 1, 5_000);
    assert_eq!(entry, Entry::Block);
    let System { server, machine } = &mut team.system;
    assert_eq!(server.exit(machine, pid, exiting, 9), Some(9));
    server.check();
    assert!(server.is_idle());
    assert_eq!(server.next_deadline(), None);
    assert!(machine.resumed.is_empty(), "nobody is resumed");
    assert_eq!(machine.programs.buried, [(pid, 9)]);
}

/// What a thread leaves behind is its process's: sleeps and joins complete on
/// the ring, whoever asked for them.
#[test]
fn what_a_thread_asked_for_completes_without_it() {
    let mut team = Team::new();
    let (first, handle) = team.create();
    let (second, _) = team.create();
    let params = support::sleep_params(1_000);
    let sleep = CapSqe {
        user_data: 11,
        ..team.named("timer", 1, &params)
    };
    team.client.submit(&sleep);
    let join = team.join_entry(handle, 12);
    team.client.submit(&join);
    team.system.enter_as(&team.client, second, 0, 0);
    assert_eq!(team.exit(second, 0), Entry::Ended(None));
    let entry = team.system.enter(&team.client, 2, WAIT_FOREVER);
    assert_eq!(entry, Entry::Block);
    team.system.pass(1_000);
    assert!(team.system.machine.resumed.is_empty(), "one of two");
    team.exit(first, 4);
    let resumed: Vec<_> = team.system.machine.resumed.drain(..).collect();
    let main = ThreadRef {
        pid: team.client.pid,
        tid: Tid::MAIN,
    };
    assert_eq!(resumed, [(main, 2)]);
    let order: Vec<u64> = team
        .client
        .completions()
        .iter()
        .map(|c| c.user_data)
        .collect();
    assert_eq!(order, [11, 12]);
    assert_eq!(team.joined(), 4);
    team.over();
}

#[test]
fn the_waiter_can_end_and_another_can_wait() {
    let mut team = Team::new();
    let (tid, _) = team.create();
    let entry = team.system.enter_as(&team.client, tid, 1, 700);
    assert_eq!(entry, Entry::Block);
    // Only a forged entry finds a thread that waits; it waits no more.
    assert_eq!(team.exit(tid, 0), Entry::Ended(None));
    assert_eq!(team.system.server.next_deadline(), None);
    let entry = team.system.enter(&team.client, 1, WAIT_FOREVER);
    assert_eq!(entry, Entry::Block, "the place is free");
    team.over();
}

#[test]
fn each_thread_has_its_own_fs_base() {
    let mut team = Team::new();
    let (tid, _) = team.create();
    let set = |team: &mut Team, base: u64| {
        let params = words(|message| {
            message
                .init_root::<thread_control::set_fs_base_params::Builder<'_>>()
                .set_fs_base(base);
        });
        team.named("control", SET_FS_BASE, &params)
    };
    let get = |team: &mut Team, tid: Tid| {
        let entry = team.named("control", GET_FS_BASE, &[]);
        assert_eq!(team.run_as(tid, &entry).result, 24);
        u64::from_le_bytes(team.result(24)[16..].try_into().unwrap())
    };
    for (thread, base) in [(Tid::MAIN, 0x1000), (tid, USER_END - 1)] {
        let entry = set(&mut team, base);
        let cqe = team.run_as(thread, &entry);
        assert_eq!((cqe.result, cqe.cap_count), (0, 0), "a void result");
    }
    assert_eq!(get(&mut team, Tid::MAIN), 0x1000);
    assert_eq!(get(&mut team, tid), USER_END - 1);
    for base in [USER_END, u64::MAX, 0xffff_8000_0000_0000] {
        let entry = set(&mut team, base);
        let cqe = team.run_as(tid, &entry);
        assert_eq!(team.exception(&cqe), ExceptionType::Failed, "{base:#x}");
    }
    assert_eq!(get(&mut team, tid), USER_END - 1, "unchanged");
    team.over();
}

/// Where all first threads have their blocks: not a place for other bases.
#[test]
fn a_base_in_the_tls_region_is_refused() {
    let mut team = Team::new();
    for base in [USER_TLS_REGION_BASE, USER_TLS_REGION_LIMIT - 1] {
        let params = words(|message| {
            message
                .init_root::<thread_control::set_fs_base_params::Builder<'_>>()
                .set_fs_base(base);
        });
        let entry = team.named("control", SET_FS_BASE, &params);
        let cqe = team.run(&entry);
        assert_eq!(team.exception(&cqe), ExceptionType::InvalidArgument);
        let entry = ThreadEntry {
            fs_base: base,
            ..GOOD
        };
        let cqe = team.try_create(&entry, 0);
        assert_eq!(team.exception(&cqe), ExceptionType::InvalidArgument);
        assert_eq!((cqe.cap_count, cqe.flags), (0, 0));
    }
    assert!(team.system.machine.threads.is_empty());
    for fs_base in [USER_TLS_REGION_BASE - 1, USER_TLS_REGION_LIMIT] {
        let cqe = team.try_create(&ThreadEntry { fs_base, ..GOOD }, 0);
        team.created(&cqe);
    }
    team.over();
}

/// A handle that another process came to hold tells it nothing.
#[test]
fn a_handle_is_of_use_in_its_own_process_alone() {
    let mut team = Team::new();
    let (tid, handle) = team.create();
    let given = [
        Grant::held("h", team.client.pid, CapId::from_raw(handle), Passing::Raw),
        GRANTS[0],
    ];
    let mut other = team.system.spawn(&given);
    for method in [JOIN, EXIT_CODE] {
        let entry = CapSqe {
            result_addr: RESULT,
            result_len: RESULT_LEN,
            ..call(1, other.cap("h"), method)
        };
        let cqe = team.system.run(&mut other, &entry).expect("refused");
        assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);
        let bytes = team.system.peek(&other, RESULT, 128);
        let (kind, _) = support::decode_exception(&bytes);
        assert_eq!(kind, ExceptionType::Failed);
    }
    // It does keep the record, through the end of thread and process.
    team.release(handle);
    team.exit(tid, 1);
    let Team { mut system, client } = team;
    system.kill(client);
    system.kill(other);
    assert!(system.server.is_idle());
}

#[test]
fn thread_capabilities_do_not_travel() {
    let system = System::new();
    for source in [
        KernelCapSource::ThreadControl,
        KernelCapSource::ThreadSpawner,
    ] {
        let object = ring_server_core::Object::from_source(source).unwrap();
        let mode = ring_server_core::transfer_mode(object);
        assert_eq!(mode, ring_server_core::TransferMode::NonTransferable);
    }
    let handle = ring_server_core::Object::ThreadHandle(0);
    let mode = ring_server_core::transfer_mode(handle);
    assert_eq!(mode, ring_server_core::TransferMode::NonTransferable);
    assert!(system.server.is_idle());
}

/// R4 with several threads: a wake takes nobody it cannot tell, and nobody's
/// completion is lost however full the queue is.
#[test]
fn sixteen_parked_threads_are_all_told() {
    let mut team = Team::new();
    let threads: Vec<Tid> = (1..THREADS_MAX).map(|_| team.create().0).collect();
    for (index, &tid) in threads.iter().enumerate() {
        let park = team.park(tid, 100 + index as u64, WAIT_FOREVER);
        team.client.submit(&park);
        assert_eq!(team.system.enter_as(&team.client, tid, 0, 0), Entry::Block);
    }
    // Ordinary completions fill what is not reserved.
    for user_data in 0..16 {
        team.client.submit(&sqe(CAP_OP_NOP, user_data));
    }
    team.system.enter(&team.client, 0, 0);
    for user_data in 16..32 {
        team.client.submit_unchecked(&sqe(CAP_OP_NOP, user_data));
    }
    assert_eq!(team.system.enter(&team.client, 0, 0), Entry::Resume(17));
    // The queue of submissions is stuck behind the full one; nobody is woken.
    assert!(team.system.machine.resumed.is_empty());
    assert_eq!(team.client.completions().len(), 17);
    team.system.enter(&team.client, 0, 0);
    let rest = team.client.completions().len();
    assert_eq!(rest, 15);
    let unpark = team.unpark(900, u32::MAX / 2);
    team.client.submit(&unpark);
    team.system.enter(&team.client, 0, 0);
    let woken: Vec<Tid> = team
        .system
        .machine
        .resumed
        .drain(..)
        .map(|(t, _)| t.tid)
        .collect();
    assert_eq!(woken, threads, "first come, first woken");
    let mut told = team.client.completions();
    told.sort_by_key(|cqe| cqe.user_data);
    assert_eq!(told.len(), THREADS_MAX);
    assert!(told[..15].iter().all(|cqe| cqe.result == PARK_WOKEN));
    assert_eq!(told[15].result, 15, "how many were woken");
    team.over();
}

#[test]
fn a_park_does_not_take_the_place_of_the_waiter() {
    let mut team = Team::new();
    let (parked, _) = team.create();
    let (other, _) = team.create();
    assert_eq!(
        team.system.enter(&team.client, 1, WAIT_FOREVER),
        Entry::Block
    );
    let park = team.park(parked, 6, 300);
    team.client.submit(&park);
    assert_eq!(
        team.system.enter_as(&team.client, parked, 1, 0),
        Entry::Block
    );
    // Another thread still has its work done.
    let nop = sqe(CAP_OP_NOP, 1);
    team.client.submit(&nop);
    assert_eq!(
        team.system.enter_as(&team.client, other, 1, 0),
        Entry::Resume(1)
    );
    let resumed: Vec<Tid> = team
        .system
        .machine
        .resumed
        .drain(..)
        .map(|(t, _)| t.tid)
        .collect();
    assert_eq!(resumed, [Tid::MAIN], "the waiter has its completion");
    team.system.pass(300);
    let resumed: Vec<Tid> = team
        .system
        .machine
        .resumed
        .drain(..)
        .map(|(t, _)| t.tid)
        .collect();
    assert_eq!(resumed, [parked], "the timeout is the parked thread's");
    team.over();
}
