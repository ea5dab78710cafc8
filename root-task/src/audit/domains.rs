//! Protection domains: what each really holds, compared with the description
//! (`system.xml`), slot by slot and region by region.

use cap_broker::{Hold, MappedPage, PAGE_BYTES, Rights, SpaceId};
use capos_domains::{Domain, slot};
use sel4::{FAULT_HANDLER_IN_TCB, ObjectBlueprint, SlotKind};

use crate::audit::AuditError;
use crate::audit::capabilities::{compare, exceeds};
use crate::audit::memory;
use crate::audit::probe::Probe;
use crate::audit::record::Record;
use crate::domain::Life;
use crate::domains::{Domains, range_of};
use crate::world::World;

/// Slots of a domain's CSpace.
const SLOTS: usize = 1 << slot::BITS;

/// Every domain that lives.
pub fn living(
    world: &mut World,
    domains: &Domains,
    probe: &Probe,
    record: &mut Record,
) -> Result<(), AuditError> {
    for (index, domain) in domains.system().domains.iter().enumerate() {
        let Some(life) = domains.life(index) else {
            continue;
        };
        record.domain(index, &domain.name);
        cspace(domains, index, life, probe, record)?;
        memory::space(world, probe, life.space(), record)?;
        regions(world, domains, domain, life.space(), record);
    }
    Ok(())
}

/// Every slot, and that ports are no more than the description says.
fn cspace(
    domains: &Domains,
    index: usize,
    life: &Life,
    probe: &Probe,
    record: &mut Record,
) -> Result<(), AuditError> {
    let bench = probe.bench();
    for (number, expected) in expected(domains, index).into_iter().enumerate() {
        let Some(place) = life.slot(number as u64) else {
            continue;
        };
        record.count_slot();
        compare(number, place.kind(&bench)?, expected, record);
    }
    for ports in &domains.system().domains[index].ports {
        let number = slot::IO_PORT + u64::from(ports.id);
        let Some(place) = life.slot(number) else {
            continue;
        };
        let range = range_of(ports);
        if place.kind(&bench)? == SlotKind::IoPort && exceeds(probe, &place, range)? {
            record.deviation(format_args!(
                "CSpace slot {number} allows more than ports {:#x} to {:#x}",
                range.first, range.last
            ));
        }
    }
    Ok(())
}

/// What the description says each slot holds.
fn expected(domains: &Domains, index: usize) -> [SlotKind; SLOTS] {
    let system = domains.system();
    let domain = &system.domains[index];
    let mut slots = [SlotKind::Empty; SLOTS];
    let mut put = |first: u64, id: u8, kind| slots[first as usize + usize::from(id)] = kind;
    // A notification looks like an endpoint where it cannot be bound: it is
    // bound already, or may only be signalled.
    put(slot::INPUT, 0, SlotKind::Endpoint);
    if !FAULT_HANDLER_IN_TCB {
        put(slot::FAULT, 0, SlotKind::Endpoint);
    }
    if ObjectBlueprint::reply().is_some() {
        put(slot::REPLY, 0, SlotKind::Other);
    }
    for irq in &domain.interrupts {
        put(slot::IRQ, irq.id, SlotKind::IrqHandler);
    }
    for ports in &domain.ports {
        put(slot::IO_PORT, ports.id, SlotKind::IoPort);
    }
    for channel in &domain.channels {
        if channel.notify {
            put(slot::OUTPUT_NOTIFICATION, channel.id, SlotKind::Endpoint);
        }
        if channel.call && !system.domains[usize::from(channel.peer)].is_root_task {
            put(slot::ENDPOINT, channel.id, SlotKind::Endpoint);
        }
    }
    for (child, domain) in system.domains.iter().enumerate() {
        let parent = domain.parent.as_ref();
        let parent = parent.filter(|parent| usize::from(parent.domain) == index);
        if let (Some(parent), Some(_)) = (parent, domains.life(child)) {
            put(slot::CHILD_TCB, parent.id, SlotKind::Tcb);
        }
    }
    slots
}

/// Every page of every region the domain maps, and that it shares no other.
/// What the books say of a page was compared with the page before.
fn regions(world: &World, domains: &Domains, domain: &Domain, space: SpaceId, record: &mut Record) {
    let mut shared = 0;
    for map in &domain.maps {
        let rights = match map.writable {
            true => Rights::ReadWrite,
            false => Rights::Read,
        };
        let frames = &domains.regions()[usize::from(map.region)];
        let addresses = (map.vaddr..).step_by(PAGE_BYTES as usize);
        for (address, &frame) in addresses.zip(frames) {
            shared += 1;
            let page = world.broker.page(space, address);
            let expected = MappedPage {
                frame,
                rights: Some(rights),
                hold: Hold::Shared,
            };
            if page != Some(expected) {
                record.deviation(format_args!(
                    "page {address:#x} is not the one of its region"
                ));
            }
        }
    }
    let mut found = 0;
    world.broker.for_each_page(space, |_, page| {
        found += usize::from(page.hold == Hold::Shared);
    });
    if found != shared {
        record.deviation(format_args!(
            "{found} pages are shared, and {shared} are in the description"
        ));
    }
}
