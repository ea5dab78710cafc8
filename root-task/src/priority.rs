//! Who runs before whom: every priority of the system, in one place.
//!
//! seL4 runs the most urgent thread that can run, and those of one priority in
//! turn, a time slice each. Reasons and measurements: docs/scheduling.md.

use ring_server_core::Class;

/// The root task, which the kernel starts with its highest priority: it only
/// runs to answer, and everybody waits for its answers.
pub const ROOT_TASK: u8 = 255;
/// The probe of an audit, which runs while the root task waits for it; no
/// program or domain runs then.
pub const PROBE: u8 = ROOT_TASK;
/// Drivers: they serve a device that does not wait, and briefly.
pub const DRIVER: u8 = 200;
/// The first program and the services it starts.
pub const SERVICE: u8 = 120;
/// Everything else.
pub const APPLICATION: u8 = 100;

/// A program whose budget went into what the system did for it: everybody else
/// runs first, until its next period.
pub const OUT_OF_BUDGET: u8 = 1;

const _: () = assert!(OUT_OF_BUDGET < behind(APPLICATION));
const _: () = assert!(
    APPLICATION < behind(SERVICE),
    "a spinning application delays no service"
);
const _: () = assert!(SERVICE < DRIVER, "a spinning service delays no device");
const _: () = assert!(DRIVER < ROOT_TASK, "faults of drivers are answered");

/// The priority of the threads of a program that had its turn (`crate::fairness`):
/// behind all of its class, before everything below.
pub const fn behind(priority: u8) -> u8 {
    priority - 1
}

/// The priority of a program's threads. They all have the same: a program that
/// wants some of its threads to be more urgent than others has no means to say
/// so.
pub const fn of(class: Class) -> u8 {
    match class {
        Class::Init | Class::Service => SERVICE,
        Class::Application => APPLICATION,
    }
}
