//! Guest test of the seL4 bindings and of the root-task runtime.
//!
//! Boots as the root task, prints one line per check on COM1 and a verdict,
//! and ends the machine. It also measures what one trap of an application
//! costs on this kernel before any work is done.
#![no_std]
#![no_main]

extern crate alloc;

mod costs;
mod faults;
mod interrupts;
mod objects;
mod report;
mod resources;
mod runtime;
mod thread;

use faults::Answer;
use sel4::BootInfoPtr;
use sel4_root_task::{EmergencyConsole, root_task};

use report::{EXIT_PORT, Report};
use resources::Resources;

/// Bytes of heap; `runtime::heap` allocates in quarters of it.
const HEAP_SIZE: usize = 256 * 1024;

#[root_task(stack_size = 64 * 1024, heap_size = HEAP_SIZE)]
fn main(bootinfo: &BootInfoPtr) -> ! {
    let mut resources = Resources::new(bootinfo);
    let mut report = open_report(&mut resources).expect("ports can be issued");
    describe(&mut report, bootinfo);
    report.check(
        "reply-object",
        resources.open_reply().map_err(report::refused("reply")),
    );

    report.check("heap", runtime::heap());
    report.check("memory-functions", runtime::memory_functions());
    report.check("archive", runtime::archive());
    report.check("sizes", objects::sizes(&mut resources));
    report.check("slots", objects::slots(&mut resources));
    report.check("mappings", objects::mappings(&mut resources));
    report.check("notifications", objects::notifications(&mut resources));
    report.check("ports", objects::ports(&mut resources));
    report.check("unknown-syscall", faults::unknown_syscall(&mut resources));
    report.check("user-exception", faults::user_exception(&mut resources));
    report.check("exception-reply", faults::exception_reply(&mut resources));
    report.check("vm-fault", faults::vm_fault(&mut resources));
    report.check("blocked-fault", faults::blocked(&mut resources));
    report.check(
        "bound-notification",
        faults::bound_notification(&mut resources),
    );
    report.check("timer-interrupt", interrupts::timer(&mut resources));
    let measured = [
        ("equal-priority", true, Answer::Reply),
        ("lower-priority", false, Answer::Reply),
        ("lower-priority-by-registers", false, Answer::Registers),
    ];
    for (name, equal, answer) in measured {
        let measured = faults::measure(&mut resources, equal, answer).map(|trip| {
            report.note(format_args!(
                "measure fault-round-trip {name} median={} min={}",
                trip.median, trip.minimum
            ));
        });
        report.check("fault-round-trip", measured);
    }
    let outcome = costs::measure_all(&mut resources, &mut report);
    report.check("costs", outcome);
    report.finish()
}

fn open_report(resources: &mut Resources) -> sel4::Result<Report> {
    let com1 = EmergencyConsole::COM1;
    let console = EmergencyConsole::new(resources.ports(com1, com1 + 7)?, com1);
    sel4_root_task::set_emergency_console(console);
    let exit = resources.ports(EXIT_PORT, EXIT_PORT + 1)?;
    Ok(Report::new(console, exit))
}

fn describe(report: &mut Report, bootinfo: &BootInfoPtr) {
    let memory: u64 = bootinfo
        .untyped_list()
        .filter(|desc| !desc.is_device())
        .map(|desc| 1 << desc.size_bits())
        .sum();
    report.note(format_args!(
        "bootinfo: {} KiB of memory, {} slots, {} cores, tsc {:?} MHz",
        memory / 1024,
        bootinfo.empty().len(),
        bootinfo.num_nodes(),
        bootinfo.tsc_frequency_mhz()
    ));
}
