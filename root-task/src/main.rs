//! The capOS personality on seL4.
//!
//! The one program that holds raw seL4 authority. It starts the machine's
//! memory, clock and console, makes the first process out of the boot archive,
//! and from then on serves faults. What it decides comes from
//! `ring-server-core`, which knows no seL4; what it does is in the modules
//! below, which hold no policy. Read `docs/boot.md` first, then `gate`.

#![no_std]
#![no_main]

extern crate alloc;

mod archive;
mod audit;
#[cfg(feature = "baseline")]
mod baseline;
mod books;
mod boot;
mod client;
mod clock;
mod console;
mod domain;
mod domains;
mod driven;
mod end;
mod entropy;
mod fairness;
mod gate;
mod hardware;
mod log;
mod means;
mod memory;
mod message;
mod paging;
mod priority;
mod program;
mod report;
mod rtc;
mod serial;
mod terminal;
mod window;
mod world;

use sel4::BootInfoPtr;
use sel4_root_task::root_task;

#[root_task(stack_size = 128 * 1024, heap_size = 2 * 1024 * 1024)]
fn main(bootinfo: &BootInfoPtr) -> ! {
    match boot::boot(bootinfo) {
        Ok(gate) => gate.run(),
        Err(error) => {
            log!("boot: {error}");
            end::halt(&end::Verdict::BootFailed)
        }
    }
}
