//! Uses a port of its range, and is refused the ports around it.

#![no_std]
#![no_main]

use sel4_microkit::{Handler, IoPort, NullHandler, protection_domain, var};
use test_domains::Verdict;

const PORTS: IoPort = IoPort::new(3);
const OTHER: IoPort = IoPort::new(4);
const INSIDE: Verdict = Verdict::new(10);
const OUTSIDE: Verdict = Verdict::new(11);
/// A page register of the DMA controller, which keeps what is written.
const SCRATCH: u16 = 7;

#[protection_domain]
fn init() -> impl Handler {
    let base = var!(ports_base: u64 = 0) as u16;
    let wrote = PORTS.write_8(base + SCRATCH, 0x5a).is_ok();
    INSIDE.passed(wrote && PORTS.read_8(base + SCRATCH) == Ok(0x5a));
    let below = PORTS.read_8(base - 1).is_err() && PORTS.write_8(base - 1, 0).is_err();
    let above = PORTS.read_8(base + 8).is_err() && PORTS.write_8(base + 8, 0).is_err();
    OUTSIDE.passed(below && above && OTHER.read_8(base).is_err());
    NullHandler
}
