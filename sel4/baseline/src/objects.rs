//! Objects, capabilities and mappings.

use sel4::init_thread::slot;
use sel4::{BootInfo, CapRights, ObjectBlueprint, Result, VmAttributes, cap, cap_type};

use crate::Sink;
use crate::pool::{Pool, absolute};
use crate::samples::{Samples, timed};

/// Where a page is mapped for a moment.
const PAGE: usize = 0x5200_0000_0000;
const BADGE: sel4::Badge = 0x77;
/// How many derived capabilities are revoked at once; the last is the number
/// that goals are quoted for.
const DERIVED: [usize; 5] = [1, 10, 100, 250, 500];
/// Slots of the CNode that holds them, as a power of two.
const BUNDLE_BITS: usize = 9;

pub fn measure(pool: &mut Pool, _: &BootInfo, sink: &mut Sink<'_>) -> Result<()> {
    capabilities(pool, sink)?;
    mapping(pool, sink)?;
    revocation(pool, sink)?;
    for (name, blueprint) in [
        ("raw-retype-endpoint", ObjectBlueprint::Endpoint),
        ("raw-retype-tcb", ObjectBlueprint::Tcb),
        ("raw-retype-frame", ObjectBlueprint::Granule),
    ] {
        let make = || timed(|| pool.object::<cap_type::Unspecified>(blueprint).map(drop));
        sink(name, &Samples::take(make)?);
    }
    Ok(())
}

fn capabilities(pool: &mut Pool, sink: &mut Sink<'_>) -> Result<()> {
    let endpoint: cap::Endpoint = pool.object(ObjectBlueprint::Endpoint)?;
    let from = absolute(endpoint.cptr());
    let (place, other) = (pool.slot()?, pool.slot()?);
    let copy = || {
        let taken = timed(|| place.copy(&from, CapRights::all()))?;
        place.delete()?;
        Ok(taken)
    };
    sink("raw-cap-copy", &Samples::take(copy)?);
    let mint = || {
        let taken = timed(|| place.mint(&from, CapRights::all(), BADGE))?;
        place.delete()?;
        Ok(taken)
    };
    sink("raw-cap-mint", &Samples::take(mint)?);
    let delete = || {
        place.copy(&from, CapRights::all())?;
        timed(|| place.delete())
    };
    sink("raw-cap-delete", &Samples::take(delete)?);
    place.copy(&from, CapRights::all())?;
    let moves = || {
        let taken = timed(|| other.move_(&place))?;
        place.move_(&other)?;
        Ok(taken)
    };
    sink("raw-cap-move", &Samples::take(moves)?);
    Ok(())
}

/// A frame where the tables are there.
fn mapping(pool: &mut Pool, sink: &mut Sink<'_>) -> Result<()> {
    let vspace = slot::VSPACE.cap();
    let frame: cap::Granule = pool.object(ObjectBlueprint::Granule)?;
    pool.map(vspace, frame, PAGE, CapRights::read_write())?;
    frame.frame_unmap()?;
    let map = || {
        let (rights, attributes) = (CapRights::read_write(), VmAttributes::DEFAULT);
        frame.frame_map(vspace, PAGE, rights, attributes)
    };
    let mapping = || {
        let taken = timed(map)?;
        frame.frame_unmap()?;
        Ok(taken)
    };
    sink("raw-frame-map", &Samples::take(mapping)?);
    let unmapping = || {
        map()?;
        timed(|| frame.frame_unmap())
    };
    sink("raw-frame-unmap", &Samples::take(unmapping)?);
    Ok(())
}

/// Revoking a frame's capability with so many copies of it in a CNode.
fn revocation(pool: &mut Pool, sink: &mut Sink<'_>) -> Result<()> {
    let frame: cap::Granule = pool.object(ObjectBlueprint::Granule)?;
    let bundle: cap::CNode = pool.object(ObjectBlueprint::CNode {
        size_bits: BUNDLE_BITS,
    })?;
    let root = absolute(frame.cptr());
    for count in DERIVED {
        let revoke = || {
            for index in 0..count {
                bundle
                    .absolute_cptr_from_bits_with_depth(index as u64, BUNDLE_BITS)
                    .copy(&root, CapRights::all())?;
            }
            timed(|| root.revoke())
        };
        let samples = Samples::take(revoke)?;
        let name = alloc::format!("raw-revoke derived={count}");
        sink(&name, &samples);
    }
    Ok(())
}
