//! Check of interrupts: the PIT through the I/O APIC.

use sel4::init_thread::slot;
use sel4::{Cap, ObjectBlueprint, cap};

use crate::ensure;
use crate::report::{Outcome, refused};
use crate::resources::Resources;

const PIT_COMMAND: u16 = 0x43;
const PIT_CHANNEL_0: u16 = 0x40;
/// Channel 0, low then high byte, rate generator.
const PIT_PERIODIC: u8 = 0x34;
/// Channel 0, low then high byte, interrupt on terminal count: stops it.
const PIT_STOP: u8 = 0x30;
/// Roughly 10 ms at 1.193182 MHz.
const DIVISOR: u16 = 11932;
/// The PIT is wired to this pin of the first I/O APIC.
const PIN: u64 = 2;
const VECTOR: u64 = 5;
const TICKS: usize = 3;

/// Three ticks arrive, each after its acknowledgement.
pub fn timer(resources: &mut Resources) -> Outcome {
    let ports = resources
        .ports(PIT_CHANNEL_0, PIT_COMMAND)
        .map_err(refused("ports"))?;
    let notification: cap::Notification = resources
        .object(ObjectBlueprint::Notification)
        .map_err(refused("notification"))?;
    let handler_slot = resources.slot();
    slot::IRQ_CONTROL
        .cap()
        .irq_control_get_ioapic(0, PIN, 0, 0, VECTOR, &handler_slot)
        .map_err(refused("issue"))?;
    let handler: cap::IrqHandler = Cap::from_bits(handler_slot.path().bits());
    let again =
        slot::IRQ_CONTROL
            .cap()
            .irq_control_get_ioapic(0, PIN, 0, 0, VECTOR, &resources.slot());
    ensure!(
        again == Err(sel4::Error::RevokeFirst),
        "issued twice: {again:?}"
    );
    handler
        .irq_handler_set_notification(notification)
        .map_err(refused("bind"))?;
    let [low, high] = DIVISOR.to_le_bytes();
    for (port, value) in [
        (PIT_COMMAND, PIT_PERIODIC),
        (PIT_CHANNEL_0, low),
        (PIT_CHANNEL_0, high),
    ] {
        ports.ioport_out8(port, value).map_err(refused("program"))?;
    }
    for _ in 0..TICKS {
        notification.wait();
        handler.irq_handler_ack().map_err(refused("acknowledge"))?;
    }
    ports
        .ioport_out8(PIT_COMMAND, PIT_STOP)
        .map_err(refused("stop"))?;
    handler.irq_handler_clear().map_err(refused("clear"))
}
