//! Authority that should not be there, for tests of the audit alone: this
//! module is in no root task that is built without the feature `plant`.

use cap_broker::{Hold, PAGE_BYTES, Rights, cap_of, slot_cap};
use capos_loader::layout::RING_ADDRESS;
use sel4::{AbsoluteCPtr, CapRights, IoPortAuthority, VmAttributes, cap, init_thread};

use crate::client::Client;
use crate::domains::Domains;
use crate::log;
use crate::world::World;

/// Gives the first process, or the first domain, something.
pub fn plant(world: &mut World, domains: &Domains, what: &str) {
    let planted = match what {
        "endpoint" => in_cspace(world, 15, |to, world, _| {
            to.copy(&own(world.endpoint()), CapRights::all())
        }),
        "tcb" => in_cspace(world, 14, |to, _, client| {
            let thread = client.threads().next().map(cap_of::<sel4::cap_type::Tcb>);
            let thread = thread.ok_or(sel4::Error::FailedLookup)?;
            to.copy(&own(thread), CapRights::all())
        }),
        "ports" => in_cspace(world, 13, |to, _, _| {
            IoPortAuthority::of_init_thread().issue(0x60, 0x64, to)
        }),
        "domain-endpoint" => {
            let mut lives = (0..domains.system().domains.len()).filter_map(|i| domains.life(i));
            let slot = lives.next().and_then(|life| life.slot(500));
            slot.map(|to| to.copy(&own(world.endpoint()), CapRights::all()))
        }
        "domain-ports" => in_ports_of_domain(domains),
        "writable" => writable(world),
        "frame" => frame(world),
        other => panic!("there is no plant {other}"),
    };
    match planted {
        Some(Ok(())) => log!("planted: {what}"),
        other => panic!("cannot plant {what}: {other:?}"),
    }
}

fn first(world: &World) -> Option<&Client> {
    (0..world.client_slots()).find_map(|slot| world.client_in(slot))
}

fn own<T: sel4::CapType>(cap: sel4::Cap<T>) -> AbsoluteCPtr {
    init_thread::slot::CNODE.cap().absolute_cptr(cap.cptr())
}

fn in_cspace(
    world: &World,
    index: usize,
    put: impl FnOnce(&AbsoluteCPtr, &World, &Client) -> sel4::Result<()>,
) -> Option<sel4::Result<()>> {
    let client = first(world)?;
    let slot = client.cspace()?(index);
    Some(put(&slot, world, client))
}

/// Replaces the ports of the first domain that has some by more of them.
fn in_ports_of_domain(domains: &Domains) -> Option<sel4::Result<()>> {
    let mut all = domains.system().domains.iter().enumerate();
    let (index, ports) = all.find_map(|(index, domain)| Some((index, domain.ports.first()?)))?;
    let slot = domains.life(index)?;
    let slot = slot.slot(capos_domains::slot::IO_PORT + u64::from(ports.id))?;
    let issue = || IoPortAuthority::of_init_thread().issue(ports.first, ports.last + 1, &slot);
    Some(slot.delete().and_then(|()| issue()))
}

/// Maps a page of code again, with more rights.
fn writable(world: &World) -> Option<sel4::Result<()>> {
    let space = first(world)?.space;
    let mut found = None;
    world.broker.for_each_page(space, |address, page| {
        if page.rights == Some(Rights::Read) && page.hold == Hold::Owned {
            found = found.or(Some(address));
        }
    });
    let address = found?;
    let frame: cap::Granule = slot_cap(world.broker.page_slot(space, address)?);
    let vspace = world.broker.vspace(space).ok()?;
    let rights = CapRights::read_write();
    Some(frame.frame_remap(vspace, address as usize, rights, VmAttributes::DEFAULT))
}

/// Maps a frame of the root task's beside the ring.
fn frame(world: &mut World) -> Option<sel4::Result<()>> {
    let space = first(world)?.space;
    let frame = world.broker.allocate_frame().ok()?;
    let copy = world.broker.allocate_slot().ok()?;
    let owner = world.broker.frame_cap(frame).ok()?;
    let copy: cap::Granule = slot_cap(copy);
    let vspace = world.broker.vspace(space).ok()?;
    let address = (1..16)
        .map(|page| RING_ADDRESS + page * PAGE_BYTES)
        .find(|address| world.broker.page(space, *address).is_none())?;
    let copied = own(copy).copy(&own(owner), CapRights::all());
    Some(copied.and_then(|()| {
        let rights = CapRights::read_only();
        copy.frame_map(vspace, address as usize, rights, VmAttributes::DEFAULT)
    }))
}
