//! The hardware the root task takes for itself, as data.
//!
//! Boot asks for exactly these; the table stays in the image, where
//! `sel4-compose inspect` finds it by its first bytes and prints it. The two
//! sides share the layout below and nothing else: a table of another version
//! has another magic.

use cap_broker::PortRange;

use crate::clock::HPET_PADDR;
use crate::end::DEBUG_EXIT_PORT;
use crate::serial::{COM1, COM2, COM3, PORT_COUNT};
use crate::terminal::COM2_PIN;

/// Mode and command register of the 8254 timer.
pub const PIT_COMMAND: u16 = 0x43;
/// Ports of the console.
pub const CONSOLE: PortRange = ports(COM1, PORT_COUNT);
/// Ports of the terminal.
pub const TERMINAL: PortRange = ports(COM2, PORT_COUNT);
/// Ports of the log.
pub const LOG: PortRange = ports(COM3, PORT_COUNT);
/// Ports that stop the machine.
pub const DEBUG_EXIT: PortRange = ports(DEBUG_EXIT_PORT, 2);
/// Port that stops the PIT.
pub const PIT: PortRange = ports(PIT_COMMAND, 1);

/// Ports of the CMOS clock.
pub const RTC: PortRange = PortRange {
    first: cmos_rtc::INDEX_PORT,
    last: cmos_rtc::DATA_PORT,
};

const fn ports(first: u16, count: u16) -> PortRange {
    PortRange {
        first,
        last: first + (count - 1),
    }
}

/// Whether a range of ports is one of those that boot asks for.
pub fn declares(range: PortRange) -> bool {
    [CONSOLE, TERMINAL, LOG, DEBUG_EXIT, PIT, RTC].contains(&range)
}

/// Longest description of a use.
const USE_BYTES: usize = 40;
/// Bytes of the HPET's register block.
const HPET_BYTES: u64 = 4096;

/// One resource.
#[repr(C)]
struct Resource {
    /// 1 I/O ports, 2 physical memory, 3 pins of the first I/O APIC, 4 and
    /// 5 ports and pins that a protection domain may have instead.
    kind: u64,
    /// First port, address or pin.
    first: u64,
    /// Last port, address or pin.
    last: u64,
    /// What for; padded with zeroes.
    purpose: [u8; USE_BYTES],
}

/// The table with what it is found by.
#[repr(C)]
struct Table<const N: usize> {
    magic: [u8; 16],
    count: u64,
    resources: [Resource; N],
}

const PORTS: u64 = 1;
const MEMORY: u64 = 2;
const PINS: u64 = 3;
const SPARE_PORTS: u64 = 4;
const SPARE_PINS: u64 = 5;

const fn resource(kind: u64, first: u64, last: u64, purpose: &str) -> Resource {
    let mut padded = [0; USE_BYTES];
    let bytes = purpose.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        padded[index] = bytes[index];
        index += 1;
    }
    Resource {
        kind,
        first,
        last,
        purpose: padded,
    }
}

const fn port_resource(range: PortRange, purpose: &str) -> Resource {
    resource(PORTS, range.first as u64, range.last as u64, purpose)
}

const HPET_FIRST: u64 = HPET_PADDR as u64;
/// Pins of an I/O APIC; the HPET says at boot to which ones its timer reaches.
const LAST_PIN: u64 = 23;

#[used]
static TABLE: Table<9> = Table {
    magic: *b"capos-hardware-1",
    count: 9,
    resources: [
        resource(
            SPARE_PORTS,
            CONSOLE.first as u64,
            CONSOLE.last as u64,
            "COM1: console",
        ),
        resource(
            SPARE_PORTS,
            TERMINAL.first as u64,
            TERMINAL.last as u64,
            "COM2: terminal",
        ),
        port_resource(LOG, "COM3: log of the root task"),
        port_resource(DEBUG_EXIT, "stopping the machine"),
        port_resource(PIT, "8254: stopped at boot"),
        port_resource(RTC, "CMOS clock: read at boot, then free"),
        resource(
            MEMORY,
            HPET_FIRST,
            HPET_FIRST + (HPET_BYTES - 1),
            "HPET: wake-ups",
        ),
        resource(
            SPARE_PINS,
            COM2_PIN.pin as u64,
            COM2_PIN.pin as u64,
            "COM2: bytes received",
        ),
        resource(PINS, 0, LAST_PIN, "HPET timer 0: one of these pins"),
    ],
};
