//! The serial driver: sends what arrives in a ring through one port.
//!
//! It holds the port's I/O ports, its interrupt and the ring, and a channel by
//! which the root task says that there is something new. A root task that
//! breaks the ring's rules ends the domain, which is then made again.

#![no_std]
#![no_main]

use core::convert::Infallible;

use sel4_microkit::{
    Channel, ChannelSet, Handler, IoPort, memory_region_symbol, protection_domain, var,
};
use serial_16550::ring::Reader;
use serial_16550::uart::{Registers, Uart};

const INTERRUPT: Channel = Channel::new(0);
const PORTS: IoPort = IoPort::new(0);
/// Bytes of the ring's region in the description.
const RING_BYTES: usize = 0x9000;

/// The registers behind the domain's I/O ports.
struct Ports {
    base: u16,
}

impl Registers for Ports {
    fn read(&mut self, register: u16) -> u8 {
        PORTS
            .read_8(self.base + register)
            .expect("the port is the domain's")
    }

    fn write(&mut self, register: u16, value: u8) {
        PORTS
            .write_8(self.base + register, value)
            .expect("the port is the domain's");
    }
}

struct Driver {
    uart: Uart<Ports>,
    output: Reader,
}

#[protection_domain]
fn init() -> impl Handler {
    let memory = memory_region_symbol!(output_vaddr: *mut [u8], n = RING_BYTES);
    // SAFETY: the description maps so many bytes there, writable, and nothing
    // else here uses them.
    let output = unsafe { Reader::new(memory) }.expect("the region is a ring");
    let base = var!(port_base: u64 = 0) as u16;
    let uart = Uart::open(Ports { base }).expect("a port answers");
    let mut driver = Driver { uart, output };
    driver.send();
    driver
}

impl Driver {
    fn send(&mut self) {
        let output = &mut self.output;
        let next = || output.pop().expect("the writer keeps to the ring's rules");
        self.uart.service(next);
    }
}

impl Handler for Driver {
    type Error = Infallible;

    fn notified(&mut self, channels: ChannelSet) -> Result<(), Infallible> {
        self.send();
        if channels.contains(INTERRUPT) {
            INTERRUPT.irq_ack().expect("the interrupt is the domain's");
            // What was raised before that came to nothing.
            self.send();
        }
        Ok(())
    }
}
