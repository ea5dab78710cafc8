//! Guest test of the bindings.
#![no_std]
#![no_main]

extern crate alloc;

use core::fmt::Write;

use sel4::{BootInfoPtr, Error, init_thread::slot};
use sel4_root_task::{EmergencyConsole, Never, root_task};

#[root_task(stack_size = 64 * 1024, heap_size = 256 * 1024)]
fn main(bootinfo: &BootInfoPtr) -> Result<Never, Error> {
    let ports = slot::IO_PORT.cap();
    let mut console = EmergencyConsole::new(ports, EmergencyConsole::COM1);
    sel4_root_task::set_emergency_console(console);
    let text = alloc::format!("hello: empty {:?}", bootinfo.empty());
    let _ = writeln!(console, "{text}");
    for (cap, desc) in bootinfo.untypeds().filter(|(_, desc)| !desc.is_device()) {
        let _ = writeln!(console, "{cap:?} {desc:?}");
    }
    ports.ioport_out16(0x501, 1)?;
    sel4::init_thread::suspend_self()
}
