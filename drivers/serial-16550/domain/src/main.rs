//! The serial driver's program: [`serial_16550_domain`], unwatched.

#![no_std]
#![no_main]

use sel4_microkit::{Handler, protection_domain};
use serial_16550_domain::Unwatched;

#[protection_domain]
fn init() -> impl Handler {
    serial_16550_domain::start(Unwatched)
}
