//! What single primitives cost, in ticks of the time-stamp counter
//! (instructions under `-icount shift=0`): what the costs of the personality
//! are quoted beside.

use alloc::string::String;

use sel4::init_thread::slot;
use sel4::{CapRights, ObjectBlueprint, UserContext, VmAttributes, cap};

use crate::faults::{PRIORITY, RoundTrip, timestamp};
use crate::report::{Outcome, Report, refused};
use crate::resources::{Resources, absolute};
use crate::thread::{Code, Thread, page_tables};

const ROUNDS: usize = 41;
const WARM_UP_ROUNDS: usize = 2;
/// Where a page is mapped for a moment.
const PAGE: usize = 0x6000_0000_0000;
const BADGE: sel4::Badge = 0x77;

/// Runs `action` again and again; it returns what the part that counts took.
fn sample(mut action: impl FnMut() -> Result<u64, String>) -> Result<RoundTrip, String> {
    let mut ticks = [0; ROUNDS];
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        let taken = action()?;
        if let Some(at) = round.checked_sub(WARM_UP_ROUNDS) {
            ticks[at] = taken;
        }
    }
    ticks.sort_unstable();
    Ok(RoundTrip {
        minimum: ticks[0],
        median: ticks[ROUNDS / 2],
    })
}

/// Measures everything here and notes it, a line each.
pub fn measure_all(resources: &mut Resources, report: &mut Report) -> Outcome {
    let mut note = |name: &str, trip: RoundTrip| {
        let (median, minimum) = (trip.median, trip.minimum);
        report.note(format_args!("measure {name} median={median} min={minimum}"));
    };
    let [map, unmap] = mapping(resources)?;
    note("frame-map", map);
    note("frame-unmap", unmap);
    note("slot-copy-and-delete", copy(resources)?);
    note("signal-and-wait", signal(resources)?);
    note("retype-frame", retype(resources, ObjectBlueprint::Granule)?);
    note("retype-tcb", retype(resources, ObjectBlueprint::Tcb)?);
    let [made, first] = process(resources)?;
    note("process-make", made);
    note("process-to-first-trap", first);
    Ok(())
}

/// Mapping a frame where the tables are there, and unmapping it.
fn mapping(resources: &mut Resources) -> Result<[RoundTrip; 2], String> {
    let vspace = slot::VSPACE.cap();
    page_tables(resources, vspace, PAGE).map_err(refused("page tables"))?;
    let frame: cap::Granule = resources
        .object(ObjectBlueprint::Granule)
        .map_err(refused("frame"))?;
    let map = || {
        let (rights, attributes) = (CapRights::read_write(), VmAttributes::DEFAULT);
        frame.frame_map(vspace, PAGE, rights, attributes)
    };
    let mapping = sample(|| {
        let start = timestamp();
        map().map_err(refused("map"))?;
        let taken = timestamp() - start;
        frame.frame_unmap().map_err(refused("unmap"))?;
        Ok(taken)
    })?;
    let unmapping = sample(|| {
        map().map_err(refused("map"))?;
        let start = timestamp();
        frame.frame_unmap().map_err(refused("unmap"))?;
        Ok(timestamp() - start)
    })?;
    Ok([mapping, unmapping])
}

/// A second capability to a frame, and its end.
fn copy(resources: &mut Resources) -> Result<RoundTrip, String> {
    let frame: cap::Granule = resources
        .object(ObjectBlueprint::Granule)
        .map_err(refused("frame"))?;
    let (from, to) = (absolute(frame.cptr()), resources.slot());
    sample(|| {
        let start = timestamp();
        to.copy(&from, CapRights::all()).map_err(refused("copy"))?;
        to.delete().map_err(refused("delete"))?;
        Ok(timestamp() - start)
    })
}

/// A signal that nobody waits for, and taking it.
fn signal(resources: &mut Resources) -> Result<RoundTrip, String> {
    let notification: cap::Notification = resources
        .object(ObjectBlueprint::Notification)
        .map_err(refused("notification"))?;
    sample(|| {
        let start = timestamp();
        notification.signal();
        notification.wait();
        Ok(timestamp() - start)
    })
}

/// One object out of untyped memory that was never used.
fn retype(resources: &mut Resources, blueprint: ObjectBlueprint) -> Result<RoundTrip, String> {
    sample(|| {
        let start = timestamp();
        resources
            .object::<sel4::cap_type::Unspecified>(blueprint)
            .map_err(refused("retype"))?;
        Ok(timestamp() - start)
    })
}

/// The least that a process is: an address space of three pages, a CSpace with
/// a fault endpoint, a thread. First made, then until its first trap arrives.
fn process(resources: &mut Resources) -> Result<[RoundTrip; 2], String> {
    let made = sample(|| {
        let start = timestamp();
        Thread::create(resources, BADGE, PRIORITY).map_err(refused("thread"))?;
        Ok(timestamp() - start)
    })?;
    let trapped = sample(|| {
        let start = timestamp();
        let thread = Thread::create(resources, BADGE, PRIORITY).map_err(refused("thread"))?;
        let started = thread.start(Code::Trap, UserContext::default());
        started.map_err(refused("start"))?;
        thread.faults.recv_with_mrs();
        let taken = timestamp() - start;
        thread.tcb.tcb_suspend().map_err(refused("suspend"))?;
        Ok(taken)
    })?;
    Ok([made, trapped])
}
