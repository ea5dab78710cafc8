//! The costs of seL4's primitives, in the log, before there is a program.
//!
//! Built in only with the feature of the same name: what the programs of the
//! same boot measure is then quoted beside it.

use alloc::vec::Vec;

use cap_broker::{Broker, Object, ObjectKind, Slot, cap_of};
use sel4::BootInfoPtr;
use sel4_baseline::{Pool, SLOTS, UNTYPED_BITS};

use crate::boot::BootError;
use crate::log;

/// Measures, and gives everything back.
///
/// # Errors
/// Memory or slots are short, or the kernel refuses something.
pub fn measure(broker: &mut Broker, bootinfo: &BootInfoPtr) -> Result<(), BootError> {
    let memory = broker.create_object(Object {
        kind: ObjectKind::Untyped,
        size_bits: UNTYPED_BITS as u8,
    })?;
    let slots: Vec<Slot> = (0..SLOTS)
        .map(|_| broker.allocate_slot())
        .collect::<Result<_, _>>()?;
    let indices = slots.iter().map(|slot| slot.0 as usize).collect();
    let mut pool = Pool::new(indices, cap_of(&memory));
    sel4_baseline::measure(&mut pool, bootinfo, &mut |name, samples| {
        log::line(format_args!("bench {name} {samples}"));
    })?;
    broker.destroy_object(memory)?;
    for slot in slots {
        broker.release_slot(slot)?;
    }
    Ok(())
}
