//! Slots: of every CSpace, and of the root CNode.

use cap_broker::PortRange;
use sel4::{AbsoluteCPtr, CapRights, SlotKind, cap};

use crate::audit::AuditError;
use crate::audit::probe::{Probe, path};
use crate::audit::record::Record;
use crate::client::badge_of;
use crate::domains::Domains;
use crate::hardware;
use crate::world::World;

/// Every slot of the CSpace of the process in `slot`: the fault endpoints of
/// its threads, used as the kernel would use them, and nothing else.
pub fn cspace(
    world: &mut World,
    probe: &Probe,
    slot: usize,
    record: &mut Record,
) -> Result<(), AuditError> {
    let endpoint = world.endpoint();
    let Some(client) = world.client_in(slot) else {
        return Ok(());
    };
    let vspace = world.broker.vspace(client.space)?;
    let (pid, places) = (client.pid, client.fault_places());
    let Some(cnode) = client.cspace() else {
        return Ok(());
    };
    let bench = probe.bench();
    for (index, place) in places.iter().enumerate() {
        record.count_slot();
        let Some(place) = place else {
            let kind = cnode(index).kind(&bench)?;
            compare(index, kind, SlotKind::Empty, record);
            continue;
        };
        // Faulting through it says more than its kind, and sooner.
        let expected = badge_of(pid, index);
        match probe.fault_through(place, vspace, endpoint, &mut world.clock)? {
            Some(badge) if badge == expected => record.endpoint(index, badge),
            Some(badge) => record.deviation(format_args!(
                "CSpace slot {index}: faults arrive with badge {badge:#x}, not {expected:#x}"
            )),
            None => record.deviation(format_args!("CSpace slot {index}: faults do not arrive")),
        }
    }
    Ok(())
}

/// Compares what a slot holds with what it should.
pub fn compare(index: usize, kind: SlotKind, expected: SlotKind, record: &mut Record) {
    match (kind, expected) {
        (SlotKind::Empty, SlotKind::Empty) => {}
        (kind, expected) if kind == expected => record.slot(index, name(kind)),
        (kind, SlotKind::Empty) => record.deviation(format_args!(
            "CSpace slot {index} holds {}, and should be empty",
            name(kind)
        )),
        (kind, expected) => record.deviation(format_args!(
            "CSpace slot {index} holds {}, and should hold {}",
            name(kind),
            name(expected)
        )),
    }
}

/// Whether ports beside `range` can be used through the capability in `slot`.
/// Ports of the range are left alone: reading them may change what they say.
pub fn exceeds(probe: &Probe, slot: &AbsoluteCPtr, range: PortRange) -> Result<bool, AuditError> {
    let copy = probe.bench().copy;
    copy.copy(slot, CapRights::all())?;
    let ports = cap::IoPort::from_bits(copy.path().bits());
    let beside = [range.first.checked_sub(1), range.last.checked_add(1)];
    let mut answers = beside
        .into_iter()
        .flatten()
        .map(|port| ports.ioport_in8(port));
    let exceeds = answers.any(|answer| answer.is_ok());
    copy.delete()?;
    Ok(exceeds)
}

/// What the root task holds of devices and threads: the kinds the broker's
/// books say, and only hardware that is declared.
pub fn root_task(
    world: &World,
    domains: &Domains,
    probe: &Probe,
    record: &mut Record,
) -> Result<(), AuditError> {
    let bench = probe.bench();
    for (range, slot) in world.broker.ports() {
        let PortRange { first, last } = *range;
        let declared = hardware::declares(*range) || domains.declare(*range);
        match path(*slot).kind(&bench)? {
            SlotKind::IoPort if exceeds(probe, &path(*slot), *range)? => {
                record.deviation(format_args!(
                    "the slot of ports {first:#x} to {last:#x} allows more than these"
                ));
            }
            SlotKind::IoPort if declared => record.ports(first, last),
            SlotKind::IoPort => record.deviation(format_args!(
                "ports {first:#x} to {last:#x} are held and not declared"
            )),
            kind => record.deviation(format_args!(
                "the slot of ports {first:#x} to {last:#x} holds {}",
                name(kind)
            )),
        }
    }
    for (pin, slot) in world.broker.lines() {
        match path(*slot).kind(&bench)? {
            SlotKind::IrqHandler => record.line(pin.ioapic, pin.pin),
            kind => record.deviation(format_args!(
                "the slot of interrupt pin {} holds {}",
                pin.pin,
                name(kind)
            )),
        }
    }
    for slot in (0..world.client_slots()).filter_map(|slot| world.client_in(slot)) {
        for thread in slot.threads() {
            if path(thread.slot()).kind(&bench)? != SlotKind::Tcb {
                record.deviation(format_args!(
                    "pid {}: the slot of a thread holds none",
                    slot.pid.raw()
                ));
            }
        }
    }
    Ok(())
}

/// Every slot of the root CNode that the broker manages: what it counts as
/// free is empty.
pub fn root_cnode(world: &World, probe: &Probe, record: &mut Record) -> Result<(), AuditError> {
    let bench = probe.bench();
    for (slot, free) in world.broker.slots() {
        if path(slot) == bench.copy || path(slot) == bench.moved {
            continue;
        }
        record.count_slot();
        if free && !path(slot).is_empty(&bench.copy)? {
            let kind = path(slot).kind(&bench)?;
            record.deviation(format_args!(
                "slot {} of the root CNode holds {}, and is free in the books",
                slot.0,
                name(kind)
            ));
        }
    }
    Ok(())
}

pub const fn name(kind: SlotKind) -> &'static str {
    match kind {
        SlotKind::Empty => "nothing",
        SlotKind::Endpoint => "an endpoint",
        SlotKind::Notification => "a notification",
        SlotKind::IoPort => "I/O ports",
        SlotKind::Tcb => "a TCB",
        SlotKind::Frame => "a frame",
        SlotKind::CNode => "a CNode",
        SlotKind::Untyped => "untyped memory",
        SlotKind::IrqHandler => "an interrupt handler",
        SlotKind::Paging => "a page table",
        _ => "something of another kind",
    }
}
