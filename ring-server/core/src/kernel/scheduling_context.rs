//! `SchedulingContext`: what is asked for, decoded and checked, and what is
//! answered.

use arrayvec::ArrayVec;
use capnp::traits::HasStructSize;
use capos_config::capos_capnp::scheduling_context::{
    bind_caller_thread_results, create_params, create_results, drain_notifications_results,
    info_results, revoke_results,
};
use capos_config::capos_capnp::{
    OverrunPolicy, SchedulingContextBindState as BindState,
    SchedulingContextDispatchEffect as Effect, SchedulingContextNotificationKind as Kind,
    SchedulingContextNotificationLifecycleEvent as LifecycleEvent,
    SchedulingContextNotificationObserverResult as ObserverResult,
    SchedulingContextOperationResult as OperationResult, SchedulingContextState as State,
    scheduling_context_binding, scheduling_context_identity, scheduling_context_info,
    scheduling_context_notification_slot, scheduling_context_notification_snapshot,
    scheduling_context_spec,
};
use capos_config::ring::CapSqe;

use super::{Refusal, malformed, message};
use crate::budget::CpuBudget;
use crate::encode::{Emitter, NoRoom, Placed};
use crate::ids::ThreadRef;

pub(crate) mod method {
    pub(crate) const INFO: u16 = 0;
    pub(crate) const CREATE: u16 = 1;
    pub(crate) const BIND_CALLER_THREAD: u16 = 2;
    pub(crate) const REVOKE: u16 = 3;
    pub(crate) const DRAIN_NOTIFICATIONS: u16 = 4;
}

/// Bytes of the result of `create`: table, pointer, one word of data, one
/// pointer, and an identity.
pub(crate) const CREATED_BYTES: usize = 6 * size_of::<u64>();
/// Longest processor mask, in bytes: 64 processors.
const MASK_BYTES_MAX: usize = 8;
/// `contextIndex` where no context is given.
const NO_CONTEXT: u16 = u16::MAX;
/// Numbers of processes and threads are never used again, so that each has
/// one generation.
const ONLY_GENERATION: u64 = 1;

/// What a context is to give.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) budget_ns: u64,
    pub(crate) period_ns: u64,
    relative_deadline_ns: u64,
    cpu_mask: ArrayVec<u8, MASK_BYTES_MAX>,
    overrun_policy: OverrunPolicy,
}

impl Spec {
    /// That of the source of contexts, which gives nothing.
    pub(crate) const fn nothing() -> Self {
        Self {
            budget_ns: 0,
            period_ns: 0,
            relative_deadline_ns: 0,
            cpu_mask: ArrayVec::new_const(),
            overrun_policy: OverrunPolicy::Throttle,
        }
    }

    /// The budget, rounded so that it is never more than was asked for.
    pub(crate) fn budget(&self) -> Option<CpuBudget> {
        const NS_PER_US: u64 = 1_000;
        let period_us = self.period_ns.div_ceil(NS_PER_US);
        CpuBudget::new(self.budget_ns / NS_PER_US, period_us).ok()
    }

    /// Whether using the budget up is a crime.
    pub(crate) const fn faults(&self) -> bool {
        matches!(self.overrun_policy, OverrunPolicy::Fault)
    }

    /// A deadline lies within the period, behind the budget; zero is none. A
    /// mask is in its shortest form and names a processor.
    fn is_valid(&self) -> bool {
        let deadline = self.relative_deadline_ns;
        let is_met = deadline == 0 || (self.budget_ns..=self.period_ns).contains(&deadline);
        let is_canonical = self.cpu_mask.last().is_some_and(|&last| last != 0);
        is_met && is_canonical && self.budget().is_some()
    }
}

/// The params of `create`; `None` for a context that cannot be.
pub(crate) fn decode_create(params: &[u8], sqe: &CapSqe) -> Result<Option<Spec>, Refusal> {
    let message = message(params, sqe)?;
    let root: create_params::Reader<'_> = message.get_root().map_err(malformed)?;
    let asked = root.get_spec().map_err(malformed)?;
    let mask = asked.get_cpu_mask().map_err(malformed)?;
    let (Ok(cpu_mask), Ok(overrun_policy)) = (ArrayVec::try_from(mask), asked.get_overrun_policy())
    else {
        return Ok(None);
    };
    let spec = Spec {
        budget_ns: asked.get_budget_ns(),
        period_ns: asked.get_period_ns(),
        relative_deadline_ns: asked.get_relative_deadline_ns(),
        cpu_mask,
        overrun_policy,
    };
    Ok(spec.is_valid().then_some(spec))
}

/// Which context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) context_id: u64,
    pub(crate) generation: u64,
}

/// Whom it is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    pub(crate) state: BindState,
    pub(crate) thread: Option<ThreadRef>,
}

impl Binding {
    /// To nobody.
    pub(crate) const UNBOUND: Self = Self {
        state: BindState::Unbound,
        thread: None,
    };
}

/// Budgets that were used up since the last drain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Depletions {
    /// All there ever were.
    pub(crate) sequence: u64,
    /// Those since the last drain.
    pub(crate) pending: u64,
    /// Who used it up last.
    pub(crate) holder: Option<ThreadRef>,
    /// When it had time again at the latest.
    pub(crate) next_ns: u64,
}

fn set_identity(
    message: &mut Emitter<'_>,
    place: Placed,
    index: usize,
    identity: Identity,
) -> Result<(), NoRoom> {
    let size = <scheduling_context_identity::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let at = message.set_struct(place, index, size)?;
    message.set_u64(at, 0, identity.context_id)?;
    message.set_u64(at, 1, identity.generation)
}

fn set_binding(
    message: &mut Emitter<'_>,
    place: Placed,
    index: usize,
    binding: Binding,
) -> Result<(), NoRoom> {
    let size = <scheduling_context_binding::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let at = message.set_struct(place, index, size)?;
    message.set_u16(at, 0, binding.state.into())?;
    let Some(thread) = binding.thread else {
        return Ok(());
    };
    message.set_u32(at, 1, thread.pid.raw())?;
    message.set_u32(at, 2, thread.tid.raw())?;
    message.set_u64(at, 2, ONLY_GENERATION)?;
    message.set_u64(at, 3, ONLY_GENERATION)
}

/// What binding changes.
const fn effect(is_bound: bool) -> Effect {
    if is_bound {
        Effect::BudgetEnforced
    } else {
        Effect::InfoOnlyNoDispatchChange
    }
}

/// The result of `info`.
pub(crate) fn emit_info(
    out: &mut [u8],
    spec: &Spec,
    remaining_ns: u64,
    identity: Identity,
    binding: Binding,
) -> Result<usize, NoRoom> {
    let size = <info_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let info_size = <scheduling_context_info::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let spec_size = <scheduling_context_spec::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let state = match binding.state {
        BindState::Revoked => State::Revoked,
        _ => State::Active,
    };
    let (mut message, root) = Emitter::new(out, size)?;
    let info = message.set_struct(root, 0, info_size)?;
    message.set_u64(info, 0, remaining_ns)?;
    message.set_u16(info, 4, state.into())?;
    message.set_u16(info, 5, effect(binding.thread.is_some()).into())?;
    let at = message.set_struct(info, 0, spec_size)?;
    message.set_u64(at, 0, spec.budget_ns)?;
    message.set_u64(at, 1, spec.period_ns)?;
    message.set_u64(at, 2, spec.relative_deadline_ns)?;
    message.set_u16(at, 12, spec.overrun_policy.into())?;
    message.set_bytes_field(at, 0, &spec.cpu_mask)?;
    set_identity(&mut message, info, 1, identity)?;
    set_binding(&mut message, info, 2, binding)?;
    message.finish()
}

/// The result of `create`: the context is the only result capability, if there
/// is one.
pub(crate) fn emit_created(
    out: &mut [u8],
    identity: Identity,
    result: OperationResult,
) -> Result<usize, NoRoom> {
    let size = <create_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let index = match result {
        OperationResult::Ok => 0,
        _ => NO_CONTEXT,
    };
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u16(root, 0, index)?;
    message.set_u16(root, 1, result.into())?;
    message.set_u16(root, 2, effect(false).into())?;
    set_identity(&mut message, root, 0, identity)?;
    message.finish()
}

/// The result of `bindCallerThread`.
pub(crate) fn emit_bound(
    out: &mut [u8],
    identity: Identity,
    binding: Binding,
    result: OperationResult,
) -> Result<usize, NoRoom> {
    let size = <bind_caller_thread_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let is_bound = matches!(result, OperationResult::Ok);
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u16(root, 0, result.into())?;
    message.set_u16(root, 1, effect(is_bound).into())?;
    set_identity(&mut message, root, 0, identity)?;
    set_binding(&mut message, root, 1, binding)?;
    message.finish()
}

/// The result of `revoke`.
pub(crate) fn emit_revoked(
    out: &mut [u8],
    identity: Identity,
    previous_generation: u64,
    (result, was_bound): (OperationResult, bool),
) -> Result<usize, NoRoom> {
    let size = <revoke_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u64(root, 0, previous_generation)?;
    message.set_u16(root, 4, result.into())?;
    message.set_u16(root, 5, effect(was_bound).into())?;
    set_identity(&mut message, root, 0, identity)?;
    message.finish()
}

/// The result of `drainNotifications`. The kernel knows no deadlines, so that
/// slot stays empty.
pub(crate) fn emit_drained(
    out: &mut [u8],
    identity: Identity,
    is_revoked: bool,
    depletions: &Depletions,
) -> Result<usize, NoRoom> {
    let size = <drain_notifications_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let all = <scheduling_context_notification_snapshot::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (observer, event) = match is_revoked {
        true => (ObserverResult::Revoked, LifecycleEvent::ExplicitRevoke),
        false => (ObserverResult::Ok, LifecycleEvent::None),
    };
    let (mut message, root) = Emitter::new(out, size)?;
    let snapshot = message.set_struct(root, 0, all)?;
    message.set_u16(snapshot, 0, observer.into())?;
    message.set_u16(snapshot, 1, event.into())?;
    set_identity(&mut message, snapshot, 0, identity)?;
    set_slot(&mut message, (snapshot, 1), identity, depletions)?;
    set_slot(
        &mut message,
        (snapshot, 2),
        identity,
        &Depletions::default(),
    )?;
    message.finish()
}

fn set_slot(
    message: &mut Emitter<'_>,
    (place, index): (Placed, usize),
    identity: Identity,
    depletions: &Depletions,
) -> Result<(), NoRoom> {
    let size = <scheduling_context_notification_slot::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let slot = message.set_struct(place, index, size)?;
    if depletions.pending == 0 {
        return set_binding(message, slot, 0, Binding::UNBOUND);
    }
    message.set_u16(slot, 0, Kind::BudgetDepleted.into())?;
    message.set_u16(slot, 1, true.into())?;
    message.set_u64(slot, 1, depletions.sequence)?;
    message.set_u64(slot, 2, depletions.pending - 1)?;
    message.set_u64(slot, 3, identity.context_id)?;
    message.set_u64(slot, 4, identity.generation)?;
    message.set_u64(slot, 6, depletions.next_ns)?;
    let holder = Binding {
        state: BindState::Bound,
        thread: depletions.holder,
    };
    set_binding(message, slot, 0, holder)
}
