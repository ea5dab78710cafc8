//! Address spaces: every place for a page table, and every page.
//!
//! Page tables are asked for by trying to put one: where the kernel says that
//! there is one (or a large page), the books must have it. Pages are tried by
//! the probe. So nothing of an address space below the kernel's half stays
//! unseen.

extern crate alloc;

use alloc::vec::Vec;

use cap_broker::{Level, Rights, Slot, SpaceId, slot_cap};
use capos_loader::layout::PAGE_BYTES;
use sel4::{Error, VmAttributes, cap};

use crate::audit::AuditError;
use crate::audit::probe::{Access, CODE_ADDRESS, Probe};
use crate::audit::record::Record;
use crate::client::backed_page;
use crate::world::World;

/// Entries of every level.
const ENTRIES: u64 = 512;
/// Entries of the top level that are not the kernel's.
const USER_ENTRIES: u64 = ENTRIES / 2;

/// An address space.
pub fn space(
    world: &mut World,
    probe: &Probe,
    space: SpaceId,
    record: &mut Record,
) -> Result<(), AuditError> {
    probe.enter(&mut world.broker, space)?;
    let known: Vec<(Level, u64)> = world.broker.tables(space)?.collect();
    let vspace = world.broker.vspace(space)?;
    let outcome = tables(probe, vspace, &known, record).and_then(|()| {
        let tables = known.iter().filter(|(level, _)| *level == Level::PageTable);
        tables
            .clone()
            .try_for_each(|(_, base)| pages(world, probe, space, *base, record))
    });
    record.flush();
    outcome.and(probe.leave(&mut world.broker, space))
}

/// Every place for a table: below the top, and below each table that is known.
fn tables(
    probe: &Probe,
    vspace: cap::VSpace,
    known: &[(Level, u64)],
    record: &mut Record,
) -> Result<(), AuditError> {
    places(probe, vspace, known, record, (Level::Pdpt, 0, USER_ENTRIES))?;
    for &(level, base) in known {
        let below = match level {
            Level::Pdpt => Level::Directory,
            Level::Directory => Level::PageTable,
            Level::PageTable => continue,
        };
        places(probe, vspace, known, record, (below, base, ENTRIES))?;
    }
    Ok(())
}

fn places(
    probe: &Probe,
    vspace: cap::VSpace,
    known: &[(Level, u64)],
    record: &mut Record,
    (level, start, count): (Level, u64, u64),
) -> Result<(), AuditError> {
    for index in 0..count {
        let base = start + (index << level.span_bits());
        record.count_table();
        let there = !is_vacant(probe.table(level), level, vspace, base)?;
        let expected = known.contains(&(level, base));
        if there != expected {
            let (is, should) = (word(there), word(expected));
            record.deviation(format_args!(
                "{level:?} at {base:#x} is {is} and should be {should}"
            ));
        }
    }
    Ok(())
}

const fn word(there: bool) -> &'static str {
    if there { "there" } else { "absent" }
}

/// Whether a table of `level` can be put at `base`; it is taken away again.
fn is_vacant(
    table: Slot,
    level: Level,
    vspace: cap::VSpace,
    base: u64,
) -> Result<bool, AuditError> {
    let (address, attributes) = (base as usize, VmAttributes::DEFAULT);
    let put = match level {
        Level::Pdpt => slot_cap::<sel4::cap_type::Pdpt>(table).map(vspace, address, attributes),
        Level::Directory => {
            slot_cap::<sel4::cap_type::PageDirectory>(table).map(vspace, address, attributes)
        }
        Level::PageTable => {
            slot_cap::<sel4::cap_type::PageTable>(table).map(vspace, address, attributes)
        }
    };
    match put {
        Err(Error::DeleteFirst) => return Ok(false),
        other => other?,
    }
    match level {
        Level::Pdpt => slot_cap::<sel4::cap_type::Pdpt>(table).unmap(),
        Level::Directory => slot_cap::<sel4::cap_type::PageDirectory>(table).unmap(),
        Level::PageTable => slot_cap::<sel4::cap_type::PageTable>(table).unmap(),
    }?;
    Ok(true)
}

/// Every page of one page table.
fn pages(
    world: &World,
    probe: &Probe,
    space: SpaceId,
    base: u64,
    record: &mut Record,
) -> Result<(), AuditError> {
    let addresses = (base..).step_by(PAGE_BYTES as usize).take(ENTRIES as usize);
    // The page the probe runs on is there only while it looks.
    let mut addresses = addresses.filter(|address| *address != CODE_ADDRESS);
    addresses.try_for_each(|address| page(world, probe, space, address, record))
}

fn page(
    world: &World,
    probe: &Probe,
    space: SpaceId,
    address: u64,
    record: &mut Record,
) -> Result<(), AuditError> {
    let broker = &world.broker;
    let mapped = broker.page(space, address);
    let expected = mapped.and_then(|page| page.rights);
    let (access, same) = match backed_page(broker, space, address) {
        Some(page) if expected.is_some() => {
            // The word is another while the probe loads it. Nobody else runs
            // meanwhile, but on other processors.
            let mut word = [0; size_of::<u64>()];
            page.copy_out(0, &mut word);
            let marked = u64::from_le_bytes(word) ^ MARK;
            if world.is_alone_on_memory() {
                page.copy_in(0, &marked.to_le_bytes());
            }
            let access = probe.look(address);
            let seen = match world.is_alone_on_memory() {
                true => marked,
                false => u64::from_le_bytes(word),
            };
            if world.is_alone_on_memory() {
                page.copy_in(0, &word);
            }
            let access = access?;
            (access, value(access) == Some(seen))
        }
        _ => (probe.look(address)?, true),
    };
    match (expected, access) {
        (None, Access::Absent) => {}
        (Some(Rights::Read), Access::Read(_)) | (Some(Rights::ReadWrite), Access::Write(_)) => {
            let frame = mapped.and_then(|page| broker.paddr(page.frame));
            match frame.filter(|_| same) {
                Some(frame) => record.page(address, frame, matches!(access, Access::Write(_))),
                None => record.deviation(format_args!(
                    "page {address:#x} shows another frame than it should"
                )),
            }
        }
        (expected, access) => record.deviation(format_args!(
            "page {address:#x} is {} and should be {}",
            allows(access),
            should(expected)
        )),
    }
    Ok(())
}

/// What the first word of a page is changed by.
const MARK: u64 = 0x5ca1_ab1e_0ddb_a11d;

const fn value(access: Access) -> Option<u64> {
    match access {
        Access::Absent => None,
        Access::Read(value) | Access::Write(value) => Some(value),
    }
}

const fn allows(access: Access) -> &'static str {
    match access {
        Access::Absent => "absent",
        Access::Read(_) => "readable",
        Access::Write(_) => "writable",
    }
}

const fn should(rights: Option<Rights>) -> &'static str {
    match rights {
        None => "absent",
        Some(Rights::Read) => "readable",
        Some(Rights::ReadWrite) => "writable",
    }
}
