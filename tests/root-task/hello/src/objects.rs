//! Checks of objects: retype, slots, mappings, notifications, ports.

use sel4::init_thread::slot;
use sel4::{
    BADGE_MAX, Cap, CapRights, Error, IoPortAuthority, ObjectBlueprint, VmAttributes, cap, cap_type,
};

use crate::ensure;
use crate::report::{Outcome, refused};
use crate::resources::{Resources, absolute};
use crate::thread::page_tables;

/// Every kind takes exactly the memory its blueprint says.
pub fn sizes(resources: &mut Resources) -> Outcome {
    let kinds = [
        ObjectBlueprint::Untyped { size_bits: 4 },
        ObjectBlueprint::Endpoint,
        ObjectBlueprint::Notification,
        ObjectBlueprint::CNode { size_bits: 1 },
        ObjectBlueprint::Tcb,
        ObjectBlueprint::Pml4,
        ObjectBlueprint::Pdpt,
        ObjectBlueprint::PageDirectory,
        ObjectBlueprint::PageTable,
        ObjectBlueprint::Granule,
        ObjectBlueprint::LargePage,
    ];
    let where_present = [ObjectBlueprint::reply(), ObjectBlueprint::thread_time()];
    for kind in kinds.into_iter().chain(where_present.into_iter().flatten()) {
        let size_bits = kind.physical_size_bits();
        let memory: cap::Untyped = resources
            .object(ObjectBlueprint::Untyped { size_bits })
            .map_err(refused("carving memory"))?;
        resources
            .object_from::<cap_type::Unspecified>(memory, kind)
            .map_err(|error| alloc::format!("{kind:?} does not fit: {error}"))?;
        let second = resources.object_from::<cap_type::Unspecified>(memory, kind);
        ensure!(
            second == Err(Error::NotEnoughMemory),
            "{kind:?} leaves room: {second:?}"
        );
    }
    Ok(())
}

/// Copies, mints, moves and deletes do what they say, and refuse what they
/// should.
pub fn slots(resources: &mut Resources) -> Outcome {
    let endpoint: cap::Endpoint = resources
        .object(ObjectBlueprint::Endpoint)
        .map_err(refused("endpoint"))?;
    let original = absolute(endpoint.cptr());
    let (a, b) = (resources.slot(), resources.slot());
    a.copy(&original, CapRights::all())
        .map_err(refused("copy"))?;
    let taken = a.copy(&original, CapRights::all());
    ensure!(
        taken == Err(Error::DeleteFirst),
        "copy onto a capability: {taken:?}"
    );
    b.move_(&a).map_err(refused("move"))?;
    let empty = resources.slot().move_(&a);
    ensure!(
        empty == Err(Error::FailedLookup),
        "move of nothing: {empty:?}"
    );
    b.delete().map_err(refused("delete"))?;
    b.mint(&original, CapRights::write_only(), BADGE_MAX)
        .map_err(refused("mint"))?;
    // Where badges are whole words, none is too wide.
    if let Some(badge) = BADGE_MAX.checked_add(1) {
        let wide = a.mint(&original, CapRights::all(), badge);
        ensure!(
            wide == Err(Error::InvalidArgument),
            "badge too wide: {wide:?}"
        );
    }
    original.revoke().map_err(refused("revoke"))?;
    let revoked = a.move_(&b);
    ensure!(
        revoked == Err(Error::FailedLookup),
        "revoked capability: {revoked:?}"
    );
    Ok(())
}

/// A frame mapped twice is one memory; errors say what is missing.
pub fn mappings(resources: &mut Resources) -> Outcome {
    const A: usize = 0x7000_0000_0000;
    const B: usize = A + sel4::GRANULE_SIZE;
    let vspace = slot::VSPACE.cap();
    let map = |frame: cap::Granule, address| {
        frame.frame_map(
            vspace,
            address,
            CapRights::read_write(),
            VmAttributes::DEFAULT,
        )
    };
    let frame: cap::Granule = resources
        .object(ObjectBlueprint::Granule)
        .map_err(refused("frame"))?;
    let early = map(frame, A);
    ensure!(
        early == Err(Error::FailedLookup),
        "map without tables: {early:?}"
    );
    page_tables(resources, vspace, A).map_err(refused("page tables"))?;
    map(frame, A).map_err(refused("map"))?;
    let alias_slot = resources.slot();
    alias_slot
        .copy(&absolute(frame.cptr()), CapRights::all())
        .map_err(refused("copy"))?;
    let alias: cap::Granule = Cap::from_bits(alias_slot.path().bits());
    map(alias, B).map_err(refused("map of the copy"))?;
    // SAFETY: both pages were just mapped, writable, and nothing else uses them.
    let seen = unsafe {
        core::ptr::with_exposed_provenance_mut::<u64>(A).write_volatile(0x5EAF_00D5);
        core::ptr::with_exposed_provenance_mut::<u64>(B).read_volatile()
    };
    ensure!(seen == 0x5EAF_00D5, "the copy shows {seen:#x}");
    let (first, second) = (frame.frame_get_address(), alias.frame_get_address());
    ensure!(
        first == second && first.is_ok(),
        "addresses {first:?} {second:?}"
    );
    alias.frame_unmap().map_err(refused("unmap"))?;
    frame.frame_unmap().map_err(refused("unmap"))?;
    let other: cap::Granule = resources
        .object(ObjectBlueprint::Granule)
        .map_err(refused("frame"))?;
    map(other, A).map_err(refused("map where another was"))?;
    other.frame_unmap().map_err(refused("unmap"))
}

/// Signals accumulate, and taking them empties the word.
pub fn notifications(resources: &mut Resources) -> Outcome {
    let notification: cap::Notification = resources
        .object(ObjectBlueprint::Notification)
        .map_err(refused("notification"))?;
    ensure!(notification.poll() == 0, "a new notification is not empty");
    for badge in [1, 4] {
        let slot = resources.slot();
        slot.mint(
            &absolute(notification.cptr()),
            CapRights::write_only(),
            badge,
        )
        .map_err(refused("mint"))?;
        Cap::<cap_type::Notification>::from_bits(slot.path().bits()).signal();
    }
    let seen = notification.wait();
    ensure!(seen == 5, "two signals made {seen:#x}");
    ensure!(notification.poll() == 0, "waiting left something");
    Ok(())
}

/// A narrowed port capability reaches its range and nothing else.
pub fn ports(resources: &mut Resources) -> Outcome {
    const SCRATCH: u16 = 7;
    const COM2: u16 = 0x2f8;
    const COM3: u16 = 0x3e8;
    let ports = resources
        .ports(COM2, COM2 + SCRATCH)
        .map_err(refused("issue"))?;
    ports
        .ioport_out8(COM2 + SCRATCH, 0x5A)
        .map_err(refused("write"))?;
    ports.ioport_in8(COM2 + SCRATCH).map_err(refused("read"))?;
    let outside = ports.ioport_in8(COM3);
    ensure!(
        outside == Err(Error::IllegalOperation),
        "outside: {outside:?}"
    );
    let reversed = IoPortAuthority::of_init_thread().issue(COM3, COM2, &resources.slot());
    ensure!(reversed.is_err(), "a reversed range was issued");
    Ok(())
}
