//! From the bootinfo to the core's terms.

extern crate alloc;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use cap_broker_core::{
    BootUntyped, BrokerConfig, BrokerError, Kernel, ObjectKind, ObjectSizes, Operation, PAGE_BITS,
    Slot,
};
use sel4::{BootInfo, ObjectBlueprint, init_thread};

static CLAIMED: AtomicBool = AtomicBool::new(false);

/// Makes sure there is one broker (a second would hand out the same slots).
pub fn claim() {
    let claimed = CLAIMED.swap(true, Ordering::Relaxed);
    assert!(!claimed, "a program has one broker");
}

/// The untypeds with their slots.
pub fn untypeds(bootinfo: &BootInfo) -> Vec<BootUntyped> {
    let all = bootinfo.untypeds();
    all.map(|(cap, desc)| BootUntyped {
        slot: Slot(cap.bits() as u32),
        paddr: desc.paddr(),
        size_bits: desc.size_bits() as u8,
        is_device: desc.is_device(),
    })
    .collect()
}

/// Makes the kernel clear all memory now.
///
/// It gives memory out zeroed, and clears an untyped that comes from boot whole
/// when something is first made of it: for the largest, millions of
/// instructions that nothing can interrupt for the one who asks. An object made
/// and deleted in each brings that forward; what comes later clears no more
/// than was used.
///
/// # Errors
/// The kernel's refusal to make so small an object: never seen.
pub fn clear(
    kernel: &mut impl Kernel,
    untypeds: &[BootUntyped],
    config: &BrokerConfig,
) -> Result<(), BrokerError> {
    let object = config.sizes.object(ObjectKind::Endpoint);
    let slot = config.first_slot;
    for untyped in untypeds.iter().filter(|untyped| !untyped.is_device) {
        kernel.execute(&Operation::Retype {
            untyped: untyped.slot,
            object,
            first: slot,
            count: 1,
        })?;
        kernel.execute(&Operation::Delete { slot })?;
    }
    Ok(())
}

/// The core's configuration on this kernel and machine.
pub fn config(bootinfo: &BootInfo) -> Result<BrokerConfig, BrokerError> {
    let empty = bootinfo.empty();
    let space = Slot(init_thread::slot::VSPACE.index() as u32);
    let (first, end) = (Slot(empty.start as u32), Slot(empty.end as u32));
    let mut config = BrokerConfig::new(first, end, space, window_pages(bootinfo));
    config.sizes = sizes();
    check_window(bootinfo, config.window_base)?;
    Ok(config)
}

/// As many pages as RAM has, but no more than slots allow frames: each takes
/// two.
fn window_pages(bootinfo: &BootInfo) -> u32 {
    let ram = bootinfo.untyped_list().filter(|desc| !desc.is_device());
    let bytes: u64 = ram.map(|desc| 1_u64 << desc.size_bits()).sum();
    let by_memory = u32::try_from(bytes >> PAGE_BITS).unwrap_or(u32::MAX);
    let by_slots = (bootinfo.empty().len() / 2) as u32;
    by_memory.min(by_slots) + BrokerConfig::DEVICE_PAGES
}

fn sizes() -> ObjectSizes {
    let bits = |blueprint: ObjectBlueprint| blueprint.physical_size_bits() as u8;
    let usual = ObjectSizes::SEL4_5_X86_64;
    ObjectSizes {
        tcb: bits(ObjectBlueprint::Tcb),
        endpoint: bits(ObjectBlueprint::Endpoint),
        notification: bits(ObjectBlueprint::Notification),
        cnode_slot: bits(ObjectBlueprint::CNode { size_bits: 0 }),
        reply: ObjectBlueprint::reply().map_or(usual.reply, bits),
        sched_context: ObjectBlueprint::thread_time().map_or(usual.sched_context, bits),
    }
}

/// W1, as far as it can be seen: image, bootinfo, IPC buffer and stack lie
/// below the window.
fn check_window(bootinfo: &BootInfo, base: u64) -> Result<(), BrokerError> {
    let local = 0_u8;
    let seen = [
        core::ptr::from_ref(&CLAIMED).addr(),
        core::ptr::from_ref(bootinfo).addr(),
        bootinfo.ipc_buffer().addr(),
        core::ptr::from_ref(&local).addr(),
    ];
    match seen.into_iter().find(|address| *address as u64 >= base) {
        Some(address) => Err(BrokerError::BadAddress {
            vaddr: address as u64,
        }),
        None => Ok(()),
    }
}
