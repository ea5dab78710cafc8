//! `SchedulingContext` and `SchedulingPolicyCap`: what binds, what unbinds,
//! what is told; and what machines without budgets answer.

mod support;

use capnp::message::{Builder, ReaderOptions};
use capnp::serialize::{read_message, write_message_to_words};
use capos_config::KernelCapSource;
use capos_config::capos_capnp::{
    ExceptionType, LatencyClass, OverrunPolicy, SchedulingContextBindState as BindState,
    SchedulingContextDispatchEffect as Effect,
    SchedulingContextNotificationObserverResult as Observer,
    SchedulingContextOperationResult as Outcome, SchedulingContextState as State,
    scheduling_context, scheduling_policy_cap, thread_control,
};
use capos_config::ring::*;
use ring_server_core::{CONTEXTS_MAX, CpuBudget, Grant, Overrun, ThreadRef, ThreadUse, Tid, Turn};
use ring_server_model::{Client, System, call, cap_records};

const GRANTS: [Grant<'_>; 3] = [
    Grant::kernel("contexts", KernelCapSource::SchedulingContext),
    Grant::kernel("policy", KernelCapSource::SchedulingPolicy),
    Grant::kernel("control", KernelCapSource::ThreadControl),
];
const RESULT: u64 = Client::DATA + 0x1000;
const INFO: u16 = 0;
const CREATE: u16 = 1;
const BIND: u16 = 2;
const REVOKE: u16 = 3;
const DRAIN: u16 = 4;
const SET_WEIGHT: u16 = 0;
const SET_CLASS: u16 = 1;
const SNAPSHOT: u16 = 2;
const EXIT_THREAD: u16 = 2;
const MS: u64 = 1_000_000;
const TURN: Turn = Turn::Slice(10_000);

struct Case {
    system: System,
    client: Client,
}

impl Case {
    fn new() -> Self {
        let mut system = System::new();
        system.machine.keeps_budgets = true;
        let client = system.spawn(&GRANTS);
        Self { system, client }
    }

    fn thread(&self) -> ThreadRef {
        let (pid, tid) = (self.client.pid, self.client.tid);
        ThreadRef { pid, tid }
    }

    fn turn(&self) -> Option<Turn> {
        self.system.machine.turns.get(&self.thread()).copied()
    }

    fn call(&mut self, cap: u32, method: u16, params: &[u8]) -> CapCqe {
        self.system.poke(&self.client, Client::DATA, params);
        let entry = CapSqe {
            addr: Client::DATA,
            len: params.len() as u32,
            result_addr: RESULT,
            result_len: 512,
            ..call(1, cap, method)
        };
        self.system.run(&mut self.client, &entry).expect("at once")
    }

    /// A result that is a message.
    fn ask(&mut self, cap: u32, method: u16, params: &[u8]) -> Message {
        let cqe = self.call(cap, method, params);
        assert!(cqe.result > 0, "method {method}: {}", cqe.result);
        let bytes = self.system.peek(&self.client, RESULT, cqe.result as usize);
        read_message(&mut &bytes[..], ReaderOptions::new()).expect("a message")
    }

    fn exception(&mut self, cap: u32, method: u16, params: &[u8]) -> ExceptionType {
        let cqe = self.call(cap, method, params);
        assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);
        support::decode_exception(&self.system.peek(&self.client, RESULT, 192)).0
    }

    fn cap(&self, name: &str) -> u32 {
        self.client.cap(name)
    }

    fn try_create(&mut self, params: &[u8]) -> Result<u32, Outcome> {
        let cqe = self.call(self.cap("contexts"), CREATE, params);
        let len = cqe.result as usize;
        let bytes = self.system.peek(&self.client, RESULT, len + 16);
        let message = read_message(&mut &bytes[..len], ReaderOptions::new()).unwrap();
        let root: scheduling_context::create_results::Reader<'_> = message.get_root().unwrap();
        match root.get_result().unwrap() {
            Outcome::Ok => {
                assert_eq!((root.get_context_index(), cqe.cap_count), (0, 1));
                Ok(cap_records(&bytes[len..])[0].0)
            }
            refused => {
                assert_eq!((root.get_context_index(), cqe.cap_count), (u16::MAX, 0));
                Err(refused)
            }
        }
    }

    fn create(&mut self) -> u32 {
        self.try_create(&spec(MS, 10 * MS, 0, &[1], OverrunPolicy::Throttle))
            .expect("a context")
    }

    fn bind(&mut self, cap: u32) -> Outcome {
        let message = self.ask(cap, BIND, &[]);
        let root: scheduling_context::bind_caller_thread_results::Reader<'_> =
            message.get_root().unwrap();
        let result = root.get_result().unwrap();
        let effect = root.get_dispatch_effect().unwrap();
        assert_eq!(effect == Effect::BudgetEnforced, result == Outcome::Ok);
        if result == Outcome::Ok {
            let binding = root.get_binding().unwrap();
            let thread = self.thread();
            assert_eq!(binding.get_state(), Ok(BindState::Bound));
            assert_eq!(binding.get_pid(), thread.pid.raw());
            assert_eq!(binding.get_tid(), thread.tid.raw());
        }
        result
    }

    fn revoke(&mut self, cap: u32) -> Outcome {
        let message = self.ask(cap, REVOKE, &[]);
        let root: scheduling_context::revoke_results::Reader<'_> = message.get_root().unwrap();
        let result = root.get_result().unwrap();
        let moved = u64::from(result == Outcome::Ok);
        let generation = root.get_identity().unwrap().get_generation();
        assert_eq!(generation, root.get_previous_generation() + moved);
        result
    }

    /// State, binding, what is left.
    fn info(&mut self, cap: u32) -> (State, BindState, u64) {
        let message = self.ask(cap, INFO, &[]);
        let root: scheduling_context::info_results::Reader<'_> = message.get_root().unwrap();
        let info = root.get_info().unwrap();
        let binding = info.get_binding().unwrap().get_state().unwrap();
        let state = info.get_state().unwrap();
        (state, binding, info.get_remaining_budget_ns())
    }

    /// Overruns since the last time, all there were, and who observes.
    fn drain(&mut self, cap: u32) -> (Option<u64>, u64, Observer) {
        let message = self.ask(cap, DRAIN, &[]);
        let root: scheduling_context::drain_notifications_results::Reader<'_> =
            message.get_root().unwrap();
        let told = root.get_notifications().unwrap();
        assert!(!told.get_deadline_or_timeout().unwrap().get_present());
        let slot = told.get_budget_depleted().unwrap();
        let count = slot.get_present().then(|| slot.get_coalesced_count() + 1);
        let observer = told.get_observer_result().unwrap();
        (count, slot.get_sequence(), observer)
    }

    fn ran(&mut self, runtime_ns: u64) {
        let thread = self.thread();
        let had = self.system.machine.uses.entry(thread).or_default();
        had.runtime_ns += runtime_ns;
    }

    fn overrun(&mut self) -> Overrun {
        let (server, machine) = (&mut self.system.server, &mut self.system.machine);
        let outcome = server.budget_used_up(machine, self.client.pid, 0);
        server.check();
        outcome
    }
}

type Message = capnp::message::Reader<capnp::serialize::OwnedSegments>;

fn spec(budget: u64, period: u64, deadline: u64, mask: &[u8], policy: OverrunPolicy) -> Vec<u8> {
    let mut message = Builder::new_default();
    let params: scheduling_context::create_params::Builder<'_> = message.init_root();
    let mut spec = params.init_spec();
    spec.set_budget_ns(budget);
    spec.set_period_ns(period);
    spec.set_relative_deadline_ns(deadline);
    spec.set_cpu_mask(mask);
    spec.set_overrun_policy(policy);
    write_message_to_words(&message)
}

fn weight(weight: u16) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: scheduling_policy_cap::set_weight_params::Builder<'_> = message.init_root();
    params.set_weight(weight);
    write_message_to_words(&message)
}

#[test]
fn a_machine_without_budgets_says_so_to_every_method() {
    let mut case = Case::new();
    case.system.machine.keeps_budgets = false;
    let create = spec(MS, 10 * MS, 0, &[1], OverrunPolicy::Throttle);
    for (cap, method, params) in [
        ("contexts", INFO, &[][..]),
        ("contexts", CREATE, &create),
        ("contexts", BIND, &[]),
        ("contexts", REVOKE, &[]),
        ("contexts", DRAIN, &[]),
        ("policy", SET_WEIGHT, &weight(1)),
        ("policy", SET_CLASS, &[]),
        ("policy", SNAPSHOT, &[]),
    ] {
        let kind = case.exception(case.cap(cap), method, params);
        assert_eq!(kind, ExceptionType::Unimplemented, "{cap} {method}");
    }
    assert!(case.system.machine.turns.is_empty());
}

#[test]
fn a_context_that_cannot_be_is_refused() {
    let mut case = Case::new();
    let throttle = OverrunPolicy::Throttle;
    for params in [
        spec(0, 10 * MS, 0, &[1], throttle),
        spec(10 * MS, 10 * MS, 0, &[1], throttle),
        spec(MS, u64::MAX, 0, &[1], throttle),
        spec(u64::MAX, u64::MAX, 0, &[1], throttle),
        spec(MS, 10 * MS, MS - 1, &[1], throttle),
        spec(MS, 10 * MS, 10 * MS + 1, &[1], throttle),
        spec(MS, 10 * MS, 0, &[], throttle),
        spec(MS, 10 * MS, 0, &[1, 0], throttle),
        spec(MS, 10 * MS, 0, &[1; 9], throttle),
    ] {
        assert_eq!(case.try_create(&params), Err(Outcome::InvalidSpec));
    }
    for _ in 0..CONTEXTS_MAX {
        case.create();
    }
    let one_more = case.try_create(&spec(MS, 10 * MS, MS, &[0, 1], throttle));
    assert_eq!(one_more, Err(Outcome::ResourceExhausted));
    let kind = case.exception(case.cap("contexts"), CREATE, b"nonsense");
    assert_eq!(kind, ExceptionType::InvalidArgument);
}

#[test]
fn a_bound_context_is_the_threads_budget_until_it_is_revoked() {
    let mut case = Case::new();
    let cap = case.create();
    assert_eq!(case.info(cap), (State::Active, BindState::Unbound, MS));
    assert_eq!(case.bind(cap), Outcome::Ok);
    let budget = CpuBudget::new(1_000, 10_000).unwrap();
    assert_eq!(case.turn(), Some(Turn::Budget(budget)));
    assert_eq!(case.bind(cap), Outcome::AlreadyBound);
    let other = case.create();
    assert_eq!(case.bind(other), Outcome::AlreadyBound);
    assert_eq!(case.revoke(cap), Outcome::Ok);
    assert_eq!(case.turn(), Some(TURN));
    assert_eq!(case.info(cap).0, State::Revoked);
    assert_eq!(case.bind(cap), Outcome::Revoked);
    assert_eq!(case.revoke(cap), Outcome::Revoked);
    assert_eq!(case.drain(cap).2, Observer::Revoked);
    assert_eq!(case.bind(other), Outcome::Ok, "the thread is free again");
}

#[test]
fn the_source_gives_nothing_itself() {
    let mut case = Case::new();
    let source = case.cap("contexts");
    assert_eq!(case.info(source), (State::Active, BindState::Unbound, 0));
    assert_eq!(case.bind(source), Outcome::InvalidSpec);
    let kind = case.exception(source, REVOKE, &[]);
    assert_eq!(kind, ExceptionType::InvalidArgument);
    assert_eq!(case.drain(source), (None, 0, Observer::Ok));
}

#[test]
fn overruns_are_told_once_and_counted() {
    let mut case = Case::new();
    assert_eq!(case.overrun(), Overrun::Throttled, "without a context");
    let cap = case.create();
    assert_eq!(case.bind(cap), Outcome::Ok);
    assert_eq!(case.drain(cap), (None, 0, Observer::Ok));
    for _ in 0..3 {
        assert_eq!(case.overrun(), Overrun::Throttled);
    }
    assert_eq!(case.drain(cap), (Some(3), 3, Observer::Ok));
    assert_eq!(case.drain(cap).0, None);
    assert_eq!(case.overrun(), Overrun::Throttled);
    assert_eq!(case.drain(cap), (Some(1), 4, Observer::Ok));
    assert_eq!(case.revoke(cap), Outcome::Ok);
    let fault = spec(MS, 10 * MS, 0, &[1], OverrunPolicy::Fault);
    let cap = case.try_create(&fault).expect("a context");
    assert_eq!(case.bind(cap), Outcome::Ok);
    assert_eq!(case.overrun(), Overrun::Fault);
}

#[test]
fn what_is_left_is_never_said_to_be_more() {
    let mut case = Case::new();
    let cap = case.create();
    case.ran(5 * MS);
    assert_eq!(case.bind(cap), Outcome::Ok);
    assert_eq!(case.info(cap).2, MS, "what was used before does not count");
    case.ran(MS / 4);
    assert_eq!(case.info(cap).2, MS * 3 / 4);
    case.system.pass(10 * MS);
    case.ran(MS / 2);
    assert_eq!(case.info(cap).2, MS / 2, "a new period");
    case.ran(2 * MS);
    assert_eq!(case.info(cap).2, 0);
    case.system.pass(30 * MS);
    assert_eq!(case.info(cap).2, MS);
}

#[test]
fn a_refused_budget_leaves_nothing_bound() {
    let mut case = Case::new();
    let cap = case.create();
    // Setting the turn is the first step that can fail.
    case.system.machine.steps_left = Some(0);
    assert_eq!(case.bind(cap), Outcome::ResourceExhausted);
    assert_eq!(case.info(cap).1, BindState::Unbound);
    assert_eq!(case.bind(cap), Outcome::Ok);
}

#[test]
fn release_unbinds_and_so_does_the_end_of_the_thread() {
    let mut case = Case::new();
    let cap = case.create();
    assert_eq!(case.bind(cap), Outcome::Ok);
    let released = case
        .system
        .run(&mut case.client, &System::release_sqe(cap, 9));
    assert_eq!(released.expect("at once").result, 0);
    assert_eq!(case.turn(), Some(TURN));
    assert_eq!(case.system.server.books().contexts, 0);

    let pid = case.client.pid;
    case.client.tid = case.system.server.create_thread(pid).expect("a thread");
    let cap = case.create();
    assert_eq!(case.bind(cap), Outcome::Ok);
    let second = case.thread();
    let exit = {
        let mut message = Builder::new_default();
        let _: thread_control::exit_thread_params::Builder<'_> = message.init_root();
        write_message_to_words(&message)
    };
    case.system.poke(&case.client, Client::DATA, &exit);
    let entry = CapSqe {
        addr: Client::DATA,
        len: exit.len() as u32,
        ..call(1, case.cap("control"), EXIT_THREAD)
    };
    case.client.submit(&entry);
    case.system.enter(&case.client, 0, 0);
    assert_eq!(case.system.machine.turns[&second], TURN);
    case.client.tid = Tid::MAIN;
    assert_eq!(case.info(cap).1, BindState::Unbound);
    assert_eq!(case.bind(cap), Outcome::Ok, "another thread can have it");
    let Case { mut system, client } = case;
    system.kill(client);
    assert_eq!(system.server.books().contexts, 0);
}

#[test]
fn a_weight_is_the_length_of_a_turn() {
    let mut case = Case::new();
    let policy = case.cap("policy");
    for bad in [0, 1025, u16::MAX] {
        let kind = case.exception(policy, SET_WEIGHT, &weight(bad));
        assert_eq!(kind, ExceptionType::InvalidArgument);
    }
    case.ask(policy, SET_WEIGHT, &weight(192));
    assert_eq!(case.turn(), Some(Turn::Slice(30_000)));
    case.ran(9 * MS);
    let message = case.ask(policy, SNAPSHOT, &[]);
    let root: scheduling_policy_cap::snapshot_results::Reader<'_> = message.get_root().unwrap();
    assert_eq!(root.get_weight(), 192);
    assert_eq!(root.get_class(), Ok(LatencyClass::Normal));
    assert_eq!(root.get_runtime_ns(), 9 * MS);
    assert_eq!(root.get_virtual_runtime_ns(), 3 * MS);
    let thread = case.thread();
    let had = ThreadUse {
        runtime_ns: 9 * MS,
        blocks: 7,
    };
    case.system.machine.uses.insert(thread, had);
    let cap = case.create();
    assert_eq!(case.bind(cap), Outcome::Ok);
    case.overrun();
    case.ask(policy, SET_WEIGHT, &weight(64));
    assert!(
        matches!(case.turn(), Some(Turn::Budget(_))),
        "a budget stays"
    );
    let message = case.ask(policy, SNAPSHOT, &[]);
    let root: scheduling_policy_cap::snapshot_results::Reader<'_> = message.get_root().unwrap();
    assert_eq!(
        (root.get_voluntary_blocks(), root.get_preemptions()),
        (7, 1)
    );
    assert_eq!(case.revoke(cap), Outcome::Ok);
    assert_eq!(case.turn(), Some(TURN));
}
