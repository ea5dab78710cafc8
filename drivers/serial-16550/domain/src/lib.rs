//! The serial driver of one port: a ring of bytes each way.
//!
//! It holds the port's I/O ports, its interrupt and the rings, and a channel by
//! which it and the root task tell each other that there is something new, or
//! room again. A root task that
//! breaks the ring's rules ends the domain, which is then made again.
//!
//! A [`Watch`] sees the bytes go by; the driver itself has none.

#![no_std]

use core::convert::Infallible;

use sel4_microkit::{Channel, ChannelSet, Handler, IoPort, memory_region_symbol, var};
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

/// Sees the bytes that the driver moves, and may add to what is sent.
pub trait Watch {
    /// A byte came in at the port.
    fn received(&mut self, _byte: u8) {}

    /// A byte of the root task's is about to go out.
    fn sends(&mut self, _byte: u8) {}

    /// A byte to send before the root task's next one.
    fn adds(&mut self) -> Option<u8> {
        None
    }
}

/// Nobody watches.
pub struct Unwatched;

impl Watch for Unwatched {}

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

/// The driver.
pub struct Driver<W> {
    uart: Uart<Ports>,
    rings: Rings<W>,
}

/// The two rings.
struct Rings<W> {
    output: Reader,
    input: Writer,
    /// Something was received that the root task has not been told of.
    untold: bool,
    watch: W,
}

impl<W: Watch> Line for Rings<W> {
    fn next(&mut self) -> Option<u8> {
        let added = self.watch.adds();
        added.or_else(|| {
            let byte = self.output.pop().expect(RULES)?;
            self.watch.sends(byte);
            Some(byte)
        })
    }

    fn has_room(&mut self) -> bool {
        self.input.room().expect(RULES) > 0
    }

    fn received(&mut self, byte: u8) {
        self.watch.received(byte);
        self.input.push(&[byte]).expect(RULES);
        self.untold = true;
    }
}

/// The rings' memory.
fn rings() -> Option<(Reader, Writer)> {
    let output = memory_region_symbol!(output_vaddr: *mut [u8], n = OUTPUT_BYTES);
    let input = memory_region_symbol!(input_vaddr: *mut [u8], n = INPUT_BYTES);
    // SAFETY: the description maps so many bytes there, writable, and nothing
    // else here uses them.
    let (output, input) = unsafe { (Reader::new(output), Writer::new(input)) };
    Some((output?, input?))
}

fn port() -> Ports {
    let base = var!(port_base: u64 = 0) as u16;
    Ports { base }
}

/// Opens the port and serves what is there.
///
/// # Panics
/// The regions are no rings, or no port answers.
pub fn start<W: Watch>(watch: W) -> Driver<W> {
    let (output, input) = rings().expect("the regions are rings");
    let uart = Uart::open(port()).expect("a port answers");
    let rings = Rings {
        output,
        input,
        untold: false,
        watch,
    };
    let mut driver = Driver { uart, rings };
    driver.serve();
    driver
}

impl<W: Watch> Driver<W> {
    fn serve(&mut self) {
        self.uart.service(&mut self.rings);
        if core::mem::take(&mut self.rings.untold) {
            ROOT_TASK.notify();
        }
    }
}

impl<W: Watch> Handler for Driver<W> {
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
