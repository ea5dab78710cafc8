//! Processor time as capabilities: `SchedulingContext` and
//! `SchedulingPolicyCap`.
//!
//! # Theory of operation
//! A thread without a context takes turns with its equals; how long each of its
//! turns is follows from its weight, so that equals share by weight. A context
//! is a budget. Bound to a thread, it replaces the turns until it is revoked or
//! released, or the thread ends. A machine that keeps budgets says when one is
//! used up ([`Server::budget_used_up`]); that is counted for whoever drains the
//! context's notifications, and kills the process if the context says so.
//!
//! Contexts belong to the process that made them. The source a manifest grants
//! is one that gives nothing, and makes others.
//!
//! # Invariants
//! - **I1** A context is bound to a thread exactly while that live thread's
//!   place names the context; a revoked context is bound to none.

use capnp::Word;
use capos_abi::scheduler::{DEFAULT_WEIGHT, REFERENCE_WEIGHT};
use capos_config::capos_capnp::{
    ExceptionType, LatencyClass, SchedulingContextBindState as BindState,
    SchedulingContextOperationResult as OperationResult,
};
use capos_config::ring::{CapCqe, CapSqe};

use crate::cap_table::HoldOrigin;
use crate::dispatch::{Caller, Outcome};
use crate::exception::Exception;
use crate::ids::{Pid, ThreadRef};
use crate::kernel::scheduling_context::{
    self, Binding, CREATED_BYTES, Depletions, Identity, Spec, method,
};
use crate::kernel::scheduling_policy::{self, Request, Snapshot};
use crate::kernel::{Refusal, copied};
use crate::limits::CONTEXTS_MAX;
use crate::machine::{Machine, Turn};
use crate::objects::Object;
use crate::pool::Pool;
use crate::results::ResultCaps;
use crate::server::{CreateError, Server};
use crate::spawn::create_refused;

/// A turn of a thread whose weight nobody changed, in microseconds.
const SLICE_US: u64 = 10_000;
/// Contexts of all processes.
const CONTEXTS: u32 = 256;

/// How a thread is scheduled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    weight: u16,
    class: LatencyClass,
    /// The context it is bound to (I1).
    context: Option<u32>,
    /// Budgets it used up.
    depletions: u64,
    /// Runtime in proportion to the weight there was, up to `counted_ns`.
    virtual_ns: u64,
    counted_ns: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            weight: DEFAULT_WEIGHT,
            class: LatencyClass::Normal,
            context: None,
            depletions: 0,
            virtual_ns: 0,
            counted_ns: 0,
        }
    }
}

impl Policy {
    /// Its turns while it has no context.
    fn turn(&self) -> Turn {
        Turn::Slice(SLICE_US * u64::from(self.weight) / u64::from(REFERENCE_WEIGHT))
    }

    /// Counts runtime up to now.
    fn count(&mut self, runtime_ns: u64) {
        let since = u128::from(runtime_ns.saturating_sub(self.counted_ns));
        let weighed = since * u128::from(REFERENCE_WEIGHT) / u128::from(self.weight);
        self.virtual_ns = self.virtual_ns.saturating_add(weighed as u64);
        self.counted_ns = runtime_ns;
    }
}

/// A thread a context is bound to, and what it used of the present period.
#[derive(Clone, Copy, Debug)]
struct Bound {
    thread: ThreadRef,
    index: usize,
    /// When the present period began, counted from binding.
    period_ns: u64,
    /// What the thread had had then, and when it was last looked at.
    base_ns: u64,
    seen_ns: u64,
}

/// What a `SchedulingContext` names.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    owner: Pid,
    identity: Identity,
    is_revoked: bool,
    spec: Spec,
    bound: Option<Bound>,
    depletions: Depletions,
}

impl Context {
    fn binding(&self) -> Binding {
        let state = match (self.is_revoked, &self.bound) {
            (true, _) => BindState::Revoked,
            (false, Some(_)) => BindState::Bound,
            (false, None) => BindState::Unbound,
        };
        let thread = self.bound.map(|bound| bound.thread);
        Binding { state, thread }
    }

    /// What is left of the budget, by periods counted from binding; what was
    /// used between two looks counts for the period of the later one.
    fn remaining_ns(&mut self, now_ns: u64, runtime_ns: u64) -> u64 {
        let (budget_ns, period_ns) = (self.spec.budget_ns, self.spec.period_ns.max(1));
        let Some(bound) = &mut self.bound else {
            return budget_ns;
        };
        let periods = now_ns.saturating_sub(bound.period_ns) / period_ns;
        if periods > 0 {
            bound.period_ns += periods * period_ns;
            bound.base_ns = bound.seen_ns;
        }
        bound.seen_ns = runtime_ns;
        budget_ns.saturating_sub(runtime_ns.saturating_sub(bound.base_ns))
    }
}

/// All contexts.
#[derive(Clone, Debug)]
pub(crate) struct Contexts {
    pub(crate) table: Pool<Context>,
    next_id: u64,
}

impl Contexts {
    pub(crate) fn new() -> Self {
        Self {
            table: Pool::with_capacity(CONTEXTS),
            next_id: 1,
        }
    }

    /// Makes one, unless there are too many.
    fn insert(&mut self, owner: Pid, spec: Spec) -> Option<u32> {
        let own = self.table.iter().filter(|(_, made)| made.owner == owner);
        if own.count() >= CONTEXTS_MAX {
            return None;
        }
        let identity = Identity {
            context_id: self.next_id,
            generation: 1,
        };
        let context = Context {
            owner,
            identity,
            is_revoked: false,
            spec,
            bound: None,
            depletions: Depletions::default(),
        };
        let index = self.table.insert(context).ok()?;
        self.next_id += 1;
        Some(index)
    }
}

/// What becomes of a thread that used its budget up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrun {
    /// It goes on in its next period.
    Throttled,
    /// Its context makes that a crime: its process is to be killed.
    Fault,
}

/// What machines without budgets answer.
const NOT_KEPT: Exception = Exception {
    kind: ExceptionType::Unimplemented,
    message: "this kernel has no scheduling contexts (MCS)",
};

impl<M: Machine> Server<M> {
    /// CALL to a `SchedulingContext`, or without `index` to their source.
    pub(crate) fn call_scheduling_context(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: Option<u32>,
    ) -> Outcome {
        let outcome = match sqe.method_id {
            _ if !machine.keeps_budgets() => Err(NOT_KEPT.into()),
            method::CREATE => self.create_context(machine, caller, sqe),
            method::INFO => self.context_info(machine, caller, sqe, index),
            method::BIND_CALLER_THREAD => self.bind_context(machine, caller, sqe, index),
            method::REVOKE => self.revoke_context(machine, caller, sqe, index),
            method::DRAIN_NOTIFICATIONS => self.drain_context(machine, caller, sqe, index),
            _ => Err(Exception::unimplemented().into()),
        };
        match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    fn context_mut(&mut self, index: Option<u32>) -> Option<&mut Context> {
        self.contexts.table.get_mut(index?)
    }

    fn create_context(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<Outcome, Refusal> {
        let params = self.fetch_params(machine, caller, sqe)?;
        let pid = caller.thread.pid;
        let Some(spec) = scheduling_context::decode_create(params, sqe)? else {
            return Ok(self.create_nothing(machine, caller, sqe, OperationResult::InvalidSpec));
        };
        self.check_result_room(caller, sqe, CREATED_BYTES, 1)?;
        let Some(index) = self.contexts.insert(pid, spec) else {
            let result = OperationResult::ResourceExhausted;
            return Ok(self.create_nothing(machine, caller, sqe, result));
        };
        self.give_context(machine, caller, sqe, index)
            .map(Outcome::Complete)
    }

    /// Answers that no context was made.
    fn create_nothing(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        result: OperationResult,
    ) -> Outcome {
        let reply = Word::words_to_bytes_mut(&mut self.reply);
        let emitted = scheduling_context::emit_created(reply, Identity::default(), result);
        self.answer(machine, caller, sqe, emitted)
    }

    fn give_context(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
    ) -> Result<CapCqe, Refusal> {
        let made = self.contexts.table.get(index);
        let identity = made.map(|made| made.identity).unwrap_or_default();
        let hold = self
            .mint_object(Object::SchedulingContext(index))
            .inspect_err(|_| self.discard_context(index));
        let mut given = ResultCaps::new();
        hold.and_then(|hold| {
            self.insert_result(caller.thread.pid, hold, HoldOrigin::ResultCap, &mut given)
        })
        .map_err(|error: CreateError| create_refused(&error))?;
        let mut result = [0; CREATED_BYTES];
        let emitted = scheduling_context::emit_created(&mut result, identity, OperationResult::Ok);
        let len = emitted.unwrap_or(result.len());
        self.write_results(machine, caller, sqe, &result[..len], &given)
    }

    fn context_info(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: Option<u32>,
    ) -> Result<Outcome, Refusal> {
        let now_ns = machine.now_ns();
        let bound = self.context_mut(index).and_then(|context| context.bound);
        let used = bound.map(|bound| machine.thread_use(bound.thread, bound.index).runtime_ns);
        let reply = Word::words_to_bytes_mut(&mut self.reply);
        let context = index.and_then(|index| self.contexts.table.get_mut(index));
        let emitted = match context {
            Some(context) => {
                let remaining_ns = context.remaining_ns(now_ns, used.unwrap_or_default());
                let (spec, binding) = (&context.spec, context.binding());
                scheduling_context::emit_info(reply, spec, remaining_ns, context.identity, binding)
            }
            None => scheduling_context::emit_info(
                reply,
                &Spec::nothing(),
                0,
                Identity::default(),
                Binding::UNBOUND,
            ),
        };
        Ok(self.answer(machine, caller, sqe, emitted))
    }

    fn bind_context(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: Option<u32>,
    ) -> Result<Outcome, Refusal> {
        let result = match index {
            Some(index) => self.bind(machine, caller, index),
            None => OperationResult::InvalidSpec,
        };
        let reply = Word::words_to_bytes_mut(&mut self.reply);
        let context = index.and_then(|index| self.contexts.table.get(index));
        let identity = context.map(|context| context.identity).unwrap_or_default();
        let binding = context.map_or(Binding::UNBOUND, Context::binding);
        let emitted = scheduling_context::emit_bound(reply, identity, binding, result);
        Ok(self.answer(machine, caller, sqe, emitted))
    }

    fn bind(&mut self, machine: &mut M, caller: Caller, number: u32) -> OperationResult {
        let thread = caller.thread;
        let Some(context) = self.contexts.table.get_mut(number) else {
            return OperationResult::StaleGeneration;
        };
        let process = self.processes[caller.slot].as_deref_mut();
        let place = process.and_then(|process| {
            let index = process.thread_index(thread.tid)?;
            Some((index, &mut process.policies[index]))
        });
        let Some((index, policy)) = place else {
            return OperationResult::CallerNotLive;
        };
        if context.is_revoked {
            return OperationResult::Revoked;
        }
        if context.bound.is_some() || policy.context.is_some() {
            return OperationResult::AlreadyBound;
        }
        let Some(budget) = context.spec.budget() else {
            return OperationResult::InvalidSpec;
        };
        let set = machine.set_turn(thread, index, Turn::Budget(budget));
        if set.is_err() {
            return OperationResult::ResourceExhausted;
        }
        let used_ns = machine.thread_use(thread, index).runtime_ns;
        policy.context = Some(number);
        context.bound = Some(Bound {
            thread,
            index,
            period_ns: machine.now_ns(),
            base_ns: used_ns,
            seen_ns: used_ns,
        });
        OperationResult::Ok
    }

    fn revoke_context(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: Option<u32>,
    ) -> Result<Outcome, Refusal> {
        let none = Exception::invalid_argument("the source of contexts cannot be revoked");
        let index = index.ok_or(none)?;
        let gone = Exception::disconnected("no such context");
        let context = self.contexts.table.get(index).ok_or(gone)?;
        let (before, was_bound) = (context.identity.generation, context.bound.is_some());
        let result = match context.is_revoked {
            true => OperationResult::Revoked,
            false => OperationResult::Ok,
        };
        self.unbind_context(machine, index);
        let context = self.contexts.table.get_mut(index).ok_or(gone)?;
        if !core::mem::replace(&mut context.is_revoked, true) {
            context.identity.generation += 1;
        }
        let identity = context.identity;
        let reply = Word::words_to_bytes_mut(&mut self.reply);
        let emitted =
            scheduling_context::emit_revoked(reply, identity, before, (result, was_bound));
        Ok(self.answer(machine, caller, sqe, emitted))
    }

    fn drain_context(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: Option<u32>,
    ) -> Result<Outcome, Refusal> {
        let context = index.and_then(|index| self.contexts.table.get(index));
        let (identity, is_revoked, depletions) = context
            .map(|context| (context.identity, context.is_revoked, context.depletions))
            .unwrap_or_default();
        let reply = Word::words_to_bytes_mut(&mut self.reply);
        let emitted = scheduling_context::emit_drained(reply, identity, is_revoked, &depletions);
        let outcome = self.answer(machine, caller, sqe, emitted);
        let told = matches!(&outcome, Outcome::Complete(cqe) if cqe.result >= 0);
        if told && let Some(context) = self.context_mut(index) {
            context.depletions.pending = 0;
        }
        Ok(outcome)
    }

    /// Lets the thread a context is bound to take turns again (I1).
    fn unbind_context(&mut self, machine: &mut M, index: u32) {
        let context = self.contexts.table.get_mut(index);
        let Some(bound) = context.and_then(|context| context.bound.take()) else {
            return;
        };
        let Some(process) = self.process_mut(bound.thread.pid) else {
            return;
        };
        let policy = &mut process.policies[bound.index];
        policy.context = None;
        let turn = policy.turn();
        // It had turns before, which the machine made.
        let _ = machine.set_turn(bound.thread, bound.index, turn);
    }

    /// The last hold on a context is gone.
    pub(crate) fn drop_context(&mut self, machine: &mut M, index: u32) {
        self.unbind_context(machine, index);
        self.contexts.table.remove(index);
    }

    /// As [`Server::drop_context`], where nobody can be bound to it yet.
    pub(crate) fn discard_context(&mut self, index: u32) {
        self.contexts.table.remove(index);
    }

    /// A thread ends: the next one in its place starts with nothing of it.
    pub(crate) fn forget_policy(&mut self, machine: &mut M, thread: ThreadRef, index: usize) {
        let Some(process) = self.process_mut(thread.pid) else {
            return;
        };
        let policy = core::mem::take(&mut process.policies[index]);
        if let Some(context) = self.context_mut(policy.context) {
            context.bound = None;
        }
        if policy.context.is_some() || policy.weight != DEFAULT_WEIGHT {
            // As in `unbind_context`.
            let _ = machine.set_turn(thread, index, Policy::default().turn());
        }
    }

    /// Notes that the thread in a place used up the budget it is bound to.
    pub fn budget_used_up(&mut self, machine: &mut M, pid: Pid, index: usize) -> Overrun {
        let Some(process) = self.process_mut(pid) else {
            return Overrun::Throttled;
        };
        let Some(policy) = process.policies.get_mut(index) else {
            return Overrun::Throttled;
        };
        policy.depletions += 1;
        let number = policy.context;
        let Some(context) = self.context_mut(number) else {
            return Overrun::Throttled;
        };
        let depletions = &mut context.depletions;
        depletions.sequence += 1;
        depletions.pending += 1;
        depletions.holder = context.bound.map(|bound| bound.thread);
        depletions.next_ns = machine.now_ns().saturating_add(context.spec.period_ns);
        match context.spec.faults() {
            true => Overrun::Fault,
            false => Overrun::Throttled,
        }
    }

    /// CALL to a `SchedulingPolicyCap`: acts on the thread that entered.
    pub(crate) fn call_scheduling_policy(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Outcome {
        let outcome = match machine.keeps_budgets() {
            true => self.perform_policy(machine, caller, sqe),
            false => Err(NOT_KEPT.into()),
        };
        match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    fn perform_policy(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<Outcome, Refusal> {
        self.fetch_params(machine, caller, sqe)?;
        let params = copied(Word::words_to_bytes(&self.params), sqe);
        let request = scheduling_policy::decode(params, sqe)?;
        let gone = Exception::disconnected("no such thread");
        let process = self.processes[caller.slot].as_deref_mut().ok_or(gone)?;
        let index = process.thread_index(caller.thread.tid).ok_or(gone)?;
        let policy = &mut process.policies[index];
        let used = machine.thread_use(caller.thread, index);
        policy.count(used.runtime_ns);
        let reply = Word::words_to_bytes_mut(&mut self.reply);
        let emitted = match request {
            Request::SetWeight(weight) => {
                let changed = Policy { weight, ..*policy };
                if policy.context.is_none() {
                    let set = machine.set_turn(caller.thread, index, changed.turn());
                    set.map_err(|_| Exception::failed("this program has a budget of its own"))?;
                }
                *policy = changed;
                scheduling_policy::emit_set(reply, request)
            }
            Request::SetLatencyClass(class) => {
                policy.class = class;
                scheduling_policy::emit_set(reply, request)
            }
            Request::Snapshot => {
                let snapshot = Snapshot {
                    weight: policy.weight,
                    class: policy.class,
                    runtime_ns: used.runtime_ns,
                    virtual_runtime_ns: policy.virtual_ns,
                    voluntary_blocks: used.blocks,
                    preemptions: policy.depletions,
                };
                scheduling_policy::emit_snapshot(reply, &snapshot)
            }
        };
        Ok(self.answer(machine, caller, sqe, emitted))
    }

    /// Asserts I1.
    pub(crate) fn check_contexts(&self) {
        self.contexts.table.check();
        for (number, context) in self.contexts.table.iter() {
            assert!(
                !context.is_revoked || context.bound.is_none(),
                "I1: revoked"
            );
            if let Some(bound) = context.bound {
                let process = self.process(bound.thread.pid);
                let process = process.expect("I1: bound to a process that lives");
                let thread = process.threads[bound.index];
                assert_eq!(thread, Some(bound.thread.tid), "I1: a live thread");
                let named = process.policies[bound.index].context;
                assert_eq!(named, Some(number), "I1: context {number}");
            }
        }
        for process in self.processes.iter().flatten() {
            for number in process.policies.iter().filter_map(|policy| policy.context) {
                let context = self.contexts.table.get(number);
                let bound = context.and_then(|context| context.bound);
                let pid = bound.map(|bound| bound.thread.pid);
                assert_eq!(pid, Some(process.pid), "I1: place names context {number}");
            }
        }
    }
}
