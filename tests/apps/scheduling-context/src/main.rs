//! `SchedulingContext` and `SchedulingPolicyCap` through the published clients.
//!
//! On a kernel that keeps budgets a context slows the thread it is bound to
//! down to its share, tells that the budget was used up, and lets it go when it
//! is revoked; one that makes an overrun a fault ends its program; and equals
//! share the processor by weight. On other kernels each method answers
//! `unimplemented`. Which of the two is to be shown, a capability tells.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use core::hint;

use capos::prelude::*;
use capos::{
    ExceptionType, KernelCapSource, LatencyClass, OverrunPolicy, OwnedCapability,
    RuntimeRingClient, SchedulingContext, SchedulingContextBindState, SchedulingContextClient,
    SchedulingContextCreateOutcome, SchedulingContextDispatchEffect,
    SchedulingContextNotificationKind, SchedulingContextNotificationObserverResult,
    SchedulingContextOperationResult as Outcome, SchedulingContextSpec, SchedulingContextState,
    SchedulingPolicyClient,
};
use raw_ring::family;
use raw_ring::proof::{self, Failure, Process, Proof, equal, that};
use raw_ring::threads::FOREVER;

const NAME: &str = "scheduling-context";
/// Held where the kernel is said to keep no budgets.
const NONE: &str = "none";
/// What children are to do.
const SPIN: &str = "spin";
const OVERRUN: &str = "overrun";
const CONTEXTS: &str = "contexts";
const POLICY: &str = "policy";

/// Rounds of work that waits for nothing: some hundredths of a second.
const ROUNDS: u64 = 5_000_000;
/// Exit code of a program that was ended by a fault.
const FAULTED: i64 = 139;
/// Time for a child to get ready, and for a changed turn to be made up for.
const SETTLED_NS: u64 = 100_000_000;
/// A tenth of the processor.
const SPEC: (u64, u64) = (1_000_000, 10_000_000);

struct Tools<'a> {
    ring: RuntimeRingClient<'a>,
    timer: TimerClient,
    contexts: SchedulingContextClient,
    policy: SchedulingPolicyClient,
}

fn failed(what: &str, error: &ClientError) -> Failure {
    Failure::new(format!("{what}: {error:?}"))
}

fn spec(
    (budget_ns, period_ns): (u64, u64),
    overrun_policy: OverrunPolicy,
) -> SchedulingContextSpec {
    SchedulingContextSpec {
        budget_ns,
        period_ns,
        relative_deadline_ns: period_ns,
        cpu_mask: Box::new([1]),
        overrun_policy,
    }
}

fn tools(runtime: &mut Runtime) -> Result<Tools<'_>, Failure> {
    let missing = |_| Failure::new("a capability is missing");
    let capset = runtime.capset();
    Ok(Tools {
        timer: capset.get_client(b"timer").map_err(missing)?,
        contexts: capset.get_client(CONTEXTS.as_bytes()).map_err(missing)?,
        policy: capset.get_client(POLICY.as_bytes()).map_err(missing)?,
        ring: runtime.ring_client().map_err(|_| Failure::new("ring"))?,
    })
}

impl Tools<'_> {
    /// How long the work takes, in nanoseconds.
    fn work(&mut self, rounds: u64) -> Result<u64, Failure> {
        let now = |timer: &mut TimerClient, ring: &mut RuntimeRingClient<'_>| {
            let now = timer.now_wait(&mut **ring, FOREVER);
            now.map_err(|error| failed("now", &error))
        };
        let before = now(&mut self.timer, &mut self.ring)?.monotonic_ns;
        for round in 0..rounds {
            hint::black_box(round);
        }
        Ok(now(&mut self.timer, &mut self.ring)?.monotonic_ns - before)
    }

    fn settle(&mut self) -> Proof {
        let slept = self
            .timer
            .sleep_wait(&mut *self.ring, SETTLED_NS, FOREVER)
            .map(drop);
        slept.map_err(|error| failed("sleep", &error))
    }

    fn create(
        &mut self,
        spec: &SchedulingContextSpec,
    ) -> Result<SchedulingContextCreateOutcome, Failure> {
        let created = self.contexts.create_wait(&mut self.ring, spec, FOREVER);
        created.map_err(|error| failed("create", &error))
    }

    fn context(
        &mut self,
        spec: &SchedulingContextSpec,
    ) -> Result<OwnedCapability<SchedulingContext>, Failure> {
        match self.create(spec)? {
            SchedulingContextCreateOutcome::Created(made) => Ok(made.context),
            SchedulingContextCreateOutcome::Rejected(why) => {
                Err(Failure::new(format!("create: {why:?}")))
            }
        }
    }
}

/// Contexts that cannot be are refused, each for itself.
fn refusals(tools: &mut Tools<'_>) -> Proof {
    let good = spec(SPEC, OverrunPolicy::Throttle);
    let bad = [
        SchedulingContextSpec {
            budget_ns: 0,
            ..good.clone()
        },
        SchedulingContextSpec {
            budget_ns: good.period_ns,
            ..good.clone()
        },
        SchedulingContextSpec {
            period_ns: u64::MAX,
            ..good.clone()
        },
        SchedulingContextSpec {
            relative_deadline_ns: 1,
            ..good.clone()
        },
        SchedulingContextSpec {
            cpu_mask: Box::new([]),
            ..good.clone()
        },
        SchedulingContextSpec {
            cpu_mask: Box::new([1, 0]),
            ..good.clone()
        },
    ];
    for spec in &bad {
        match tools.create(spec)? {
            SchedulingContextCreateOutcome::Rejected(why) => {
                equal("refused for", why.result, Outcome::InvalidSpec)?;
            }
            SchedulingContextCreateOutcome::Created(_) => {
                return Err(Failure::new(format!("created: {spec:?}")));
            }
        }
    }
    Ok(())
}

/// A bound context slows its thread down, says so, and lets it go.
fn budget(tools: &mut Tools<'_>) -> Result<[u64; 3], Failure> {
    let asked = |error: ClientError| failed("context", &error);
    let alone = tools.work(ROUNDS)?;
    let context = tools.context(&spec(SPEC, OverrunPolicy::Throttle))?;
    let mut client = SchedulingContextClient::from_capability(context.capability());
    let info = client.info_wait(&mut *tools.ring, FOREVER).map_err(asked)?;
    equal("budget", (info.spec.budget_ns, info.spec.period_ns), SPEC)?;
    equal(
        "unbound",
        info.binding.state,
        SchedulingContextBindState::Unbound,
    )?;
    let bound = client.bind_caller_thread_wait(&mut *tools.ring, FOREVER);
    let bound = bound.map_err(asked)?;
    equal("bind", bound.result, Outcome::Ok)?;
    let enforced = SchedulingContextDispatchEffect::BudgetEnforced;
    equal("effect", bound.dispatch_effect, enforced)?;
    let before = tools.policy.snapshot_wait(&mut *tools.ring, FOREVER);
    let limited = tools.work(ROUNDS)?;
    let info = client.info_wait(&mut *tools.ring, FOREVER).map_err(asked)?;
    equal(
        "bound",
        info.binding.state,
        SchedulingContextBindState::Bound,
    )?;
    let after = tools.policy.snapshot_wait(&mut *tools.ring, FOREVER);
    let had = after.map_err(asked)?.runtime_ns - before.map_err(asked)?.runtime_ns;
    that(
        had > alone * 9 / 10,
        "what was used before an overrun counts",
    )?;
    that(had < alone * 13 / 10, "and once")?;
    let again = client.bind_caller_thread_wait(&mut *tools.ring, FOREVER);
    equal(
        "bind again",
        again.map_err(asked)?.result,
        Outcome::AlreadyBound,
    )?;
    let other = tools.context(&spec(SPEC, OverrunPolicy::Throttle))?;
    let mut other = SchedulingContextClient::from_capability(other.capability());
    let second = other.bind_caller_thread_wait(&mut *tools.ring, FOREVER);
    equal(
        "bind another",
        second.map_err(asked)?.result,
        Outcome::AlreadyBound,
    )?;
    let told = client.drain_notifications_wait(&mut *tools.ring, FOREVER);
    let told = told.map_err(asked)?.budget_depleted;
    that(told.present, "a budget was used up")?;
    equal(
        "kind",
        told.kind,
        SchedulingContextNotificationKind::BudgetDepleted,
    )?;
    equal("all of them", told.coalesced_count + 1, told.sequence)?;
    let revoked = client
        .revoke_wait(&mut *tools.ring, FOREVER)
        .map_err(asked)?;
    equal("revoke", revoked.result, Outcome::Ok)?;
    equal(
        "generation",
        revoked.identity.generation,
        revoked.previous_generation + 1,
    )?;
    let released = tools.work(ROUNDS)?;
    let info = client.info_wait(&mut *tools.ring, FOREVER).map_err(asked)?;
    equal("revoked", info.state, SchedulingContextState::Revoked)?;
    let bound = client.bind_caller_thread_wait(&mut *tools.ring, FOREVER);
    equal(
        "bind revoked",
        bound.map_err(asked)?.result,
        Outcome::Revoked,
    )?;
    let observed = client.drain_notifications_wait(&mut *tools.ring, FOREVER);
    let observed = observed.map_err(asked)?.observer_result;
    equal(
        "drain",
        observed,
        SchedulingContextNotificationObserverResult::Revoked,
    )?;
    // A tenth of the processor, of which entering takes something.
    let as_long = limited * 100 / alone;
    if !(900..1_500).contains(&as_long) {
        let what = format!("{limited} ns instead of {alone} ns at a tenth");
        return Err(Failure::new(what));
    }
    that(released < alone * 11 / 10, "free again")?;
    that(told_as_often(told.sequence, limited), "once in each period")?;
    Ok([alone, limited, released])
}

/// Whether budgets were used up in nearly all periods of a time, and not more
/// often.
fn told_as_often(times: u64, taken_ns: u64) -> bool {
    let periods = taken_ns / SPEC.1;
    (periods.saturating_sub(2)..=periods + 2).contains(&times)
}

fn is_invalid(result: Result<(), ClientError>) -> bool {
    let invalid = ExceptionType::InvalidArgument;
    matches!(result, Err(ClientError::Application(why)) if why.exception_type() == invalid)
}

/// Weights are checked, reported, and counted.
fn weights(tools: &mut Tools<'_>) -> Proof {
    let asked = |error: ClientError| failed("policy", &error);
    for bad in [0, 1025] {
        let set = tools.policy.set_weight_wait(&mut *tools.ring, bad, FOREVER);
        that(is_invalid(set), "a weight out of range")?;
    }
    let before = tools.policy.snapshot_wait(&mut *tools.ring, FOREVER);
    let before = before.map_err(asked)?;
    equal(
        "weight",
        (before.weight, before.class),
        (64, LatencyClass::Normal),
    )?;
    let set = tools.policy.set_weight_wait(&mut *tools.ring, 128, FOREVER);
    set.map_err(asked)?;
    let class = LatencyClass::Batch;
    let set = tools
        .policy
        .set_latency_class_wait(&mut *tools.ring, class, FOREVER);
    set.map_err(asked)?;
    let worked = tools.work(ROUNDS)?;
    tools.settle()?;
    let after = tools.policy.snapshot_wait(&mut *tools.ring, FOREVER);
    let after = after.map_err(asked)?;
    equal("weight", (after.weight, after.class), (128, class))?;
    let had = after.runtime_ns - before.runtime_ns;
    that(had > worked * 9 / 10, "work counts")?;
    that(had < worked * 13 / 10 + SETTLED_NS / 10, "sleep does not")?;
    let virtually = after.virtual_runtime_ns - before.virtual_runtime_ns;
    that(virtually < had * 6 / 10, "twice the weight, half as much")?;
    that(virtually > had * 4 / 10, "and not less")?;
    that(
        after.voluntary_blocks > before.voluntary_blocks,
        "it waited",
    )
}

/// How many times as long, in thousandths, the work takes beside an equal that
/// spins, with a weight.
fn beside(tools: &mut Tools<'_>, weight: u16, alone: u64) -> Result<u64, Failure> {
    let set = tools
        .policy
        .set_weight_wait(&mut *tools.ring, weight, FOREVER);
    set.map_err(|error| failed("weight", &error))?;
    tools.settle()?;
    Ok(tools.work(ROUNDS * 10)? * 100 / alone)
}

struct Seen {
    times: [u64; 3],
    equal: u64,
    triple: u64,
}

fn kept(runtime: &mut Runtime) -> Result<Seen, Failure> {
    let times = {
        let mut tools = tools(runtime)?;
        refusals(&mut tools)?;
        let times = budget(&mut tools)?;
        weights(&mut tools)?;
        times
    };
    let overrun = family::spawn(runtime, NAME, &grants(OVERRUN))?;
    equal(
        "an overrun that is a fault",
        overrun.wait(runtime)?,
        FAULTED,
    )?;
    let spinner = family::spawn(runtime, NAME, &grants(SPIN))?;
    let seen = {
        let mut tools = tools(runtime)?;
        Seen {
            times,
            equal: beside(&mut tools, 64, times[0])?,
            triple: beside(&mut tools, 192, times[0])?,
        }
    };
    spinner.terminate(runtime)?;
    Ok(seen)
}

fn grants(role: &'static str) -> [capos::SpawnGrant<'static>; 5] {
    [
        family::fresh(role, KernelCapSource::Console),
        family::fresh("console", KernelCapSource::Console),
        family::fresh("timer", KernelCapSource::Timer),
        family::fresh(CONTEXTS, KernelCapSource::SchedulingContext),
        family::fresh(POLICY, KernelCapSource::SchedulingPolicy),
    ]
}

/// Binds itself to a context in which using the budget up is a fault.
fn overruns(runtime: &mut Runtime) -> i64 {
    let bound = tools(runtime).and_then(|mut tools| {
        let context = tools.context(&spec(SPEC, OverrunPolicy::Fault))?;
        let mut client = SchedulingContextClient::from_capability(context.capability());
        let bound = client.bind_caller_thread_wait(&mut *tools.ring, FOREVER);
        bound.map_err(|error| failed("bind", &error))?;
        tools.work(ROUNDS)
    });
    i64::from(bound.is_err())
}

fn is_unimplemented<T>(what: &str, result: Result<T, ClientError>) -> Proof {
    match result {
        Err(ClientError::Application(why))
            if why.exception_type() == ExceptionType::Unimplemented =>
        {
            Ok(())
        }
        Err(error) => Err(failed(what, &error)),
        Ok(_) => Err(Failure::new(format!("{what}: there is none"))),
    }
}

/// Every method says that there is nothing of the kind.
fn none(runtime: &mut Runtime) -> Proof {
    let Tools {
        mut ring,
        mut contexts,
        mut policy,
        ..
    } = tools(runtime)?;
    let spec = spec(SPEC, OverrunPolicy::Throttle);
    is_unimplemented("create", contexts.create_wait(&mut ring, &spec, FOREVER))?;
    let ring = &mut *ring;
    is_unimplemented("info", contexts.info_wait(ring, FOREVER))?;
    is_unimplemented("bind", contexts.bind_caller_thread_wait(ring, FOREVER))?;
    is_unimplemented("revoke", contexts.revoke_wait(ring, FOREVER))?;
    is_unimplemented("drain", contexts.drain_notifications_wait(ring, FOREVER))?;
    is_unimplemented("weight", policy.set_weight_wait(ring, 64, FOREVER))?;
    let class = LatencyClass::Normal;
    is_unimplemented("class", policy.set_latency_class_wait(ring, class, FOREVER))?;
    is_unimplemented("snapshot", policy.snapshot_wait(ring, FOREVER))
}

fn main(mut runtime: Runtime) -> i64 {
    let is = |role: &str| runtime.capset().get(role.as_bytes()).is_ok();
    if is(SPIN) {
        let mut rounds = 0_u64;
        loop {
            // No `pause`: an emulator makes it an expensive wait.
            rounds = hint::black_box(rounds + 1);
        }
    }
    if is(OVERRUN) {
        return overruns(&mut runtime);
    }
    if is(NONE) {
        return proof::run_parent(runtime, NAME, none);
    }
    let seen = kept(&mut runtime);
    proof::run(&runtime, NAME, |process: &mut Process| {
        let Seen {
            times: [alone, limited, released],
            equal,
            triple,
        } = seen?;
        process.print(&format!(
            "budget work: alone={alone} limited={limited} released={released} ns"
        ))?;
        process.print(&format!(
            "budget beside an equal: weight 64 to 64={equal}/1000, 192 to 64={triple}/1000"
        ))?;
        that((1_850..2_150).contains(&equal), "equals share alike")?;
        that((1_250..1_430).contains(&triple), "three to one")
    })
}

entry_point!(main);
