//! The serial driver of one port: a ring of bytes each way.
//!
//! It holds the port's I/O ports, its interrupt and the rings, and a channel by
//! which it and the root task tell each other that there is something new, or
//! room again. A root task that
//! breaks the ring's rules ends the domain, which is then made again.

#![no_std]
#![no_main]

use core::convert::Infallible;

use sel4_microkit::{
    Channel, ChannelSet, Handler, IoPort, memory_region_symbol, protection_domain, var,
};
use serial_16550::ring::{Reader, Writer};
use serial_16550::uart::{Line, Registers, Uart};

const INTERRUPT: Channel = Channel::new(0);
const PORTS: IoPort = IoPort::new(0);
const ROOT_TASK: Channel = Channel::new(2);
/// Bytes of the rings' regions in the description.
const OUTPUT_BYTES: usize = 0x9000;
const INPUT_BYTES: usize = 0x2000;
/// What a peer that breaks a ring's rules meets with.
const RULES: &str = "the root task keeps to the ring's rules";

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
    rings: Rings,
}

/// The two rings.
struct Rings {
    output: Reader,
    input: Writer,
    /// Something was received that the root task has not been told of.
    untold: bool,
}

impl Line for Rings {
    fn next(&mut self) -> Option<u8> {
        self.output.pop().expect(RULES)
    }

    fn has_room(&mut self) -> bool {
        self.input.room().expect(RULES) > 0
    }

    fn received(&mut self, byte: u8) {
        self.input.push(&[byte]).expect(RULES);
        self.untold = true;
    }
}

#[protection_domain]
fn init() -> impl Handler {
    let output = memory_region_symbol!(output_vaddr: *mut [u8], n = OUTPUT_BYTES);
    let input = memory_region_symbol!(input_vaddr: *mut [u8], n = INPUT_BYTES);
    // SAFETY: the description maps so many bytes there, writable, and nothing
    // else here uses them.
    let rings = unsafe { (Reader::new(output), Writer::new(input)) };
    let (Some(output), Some(input)) = rings else {
        panic!("the regions are not rings");
    };
    let base = var!(port_base: u64 = 0) as u16;
    let uart = Uart::open(Ports { base }).expect("a port answers");
    let rings = Rings {
        output,
        input,
        untold: false,
    };
    let mut driver = Driver { uart, rings };
    driver.serve();
    driver
}

impl Driver {
    fn serve(&mut self) {
        self.uart.service(&mut self.rings);
        if core::mem::take(&mut self.rings.untold) {
            ROOT_TASK.notify();
        }
    }
}

impl Handler for Driver {
    type Error = Infallible;

    fn notified(&mut self, channels: ChannelSet) -> Result<(), Infallible> {
        self.serve();
        if channels.contains(INTERRUPT) {
            INTERRUPT.irq_ack().expect("the interrupt is the domain's");
            // What was raised before that came to nothing.
            self.serve();
        }
        Ok(())
    }
}
