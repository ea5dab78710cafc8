//! The terminal's line: COM2, both ways.
//!
//! Received bytes are taken out of the UART when its interrupt says so, as many
//! as the personality has room for; while it has none the interrupt stays
//! unacknowledged, and the line's flow control keeps the sender waiting.

use cap_broker::{Pin, Trigger};
use ring_server_core::Server;
use sel4::cap;

use crate::serial::Uart;
use crate::world::World;

/// Pin of the first I/O APIC that COM2 interrupts on.
pub const COM2_PIN: Pin = Pin { ioapic: 0, pin: 3 };
/// How it does.
pub const COM2_TRIGGER: Trigger = Trigger::Edge;
/// Bytes taken at one time, before anything else is served.
const BATCH: usize = 64;

/// The terminal's UART and its interrupt.
pub struct TerminalLine {
    /// The UART.
    pub uart: Uart,
    /// Its interrupt.
    pub handler: cap::IrqHandler,
    /// The interrupt came and is not acknowledged.
    pub pending: bool,
}

impl TerminalLine {
    /// Takes in what the UART has, as far as there is room, and acknowledges
    /// its interrupt once nothing is left.
    fn receive(&mut self, out: &mut [u8; BATCH], room: usize) -> usize {
        let mut len = 0;
        while len < BATCH.min(room) {
            match self.uart.get() {
                Some(byte) => {
                    out[len] = byte;
                    len += 1;
                }
                None => break,
            }
        }
        len
    }
}

/// Serves the terminal's interrupt; whether there is more to do at once.
///
/// # Errors
/// The kernel's, from the acknowledgement.
pub fn serve(world: &mut World, server: &mut Server<World>) -> sel4::Result<()> {
    loop {
        let room = server.terminal_room();
        let Some(line) = world.terminal.as_mut() else {
            return Ok(());
        };
        if !line.pending || room == 0 {
            return Ok(());
        }
        let mut bytes = [0; BATCH];
        let len = line.receive(&mut bytes, room);
        if len == 0 {
            line.pending = false;
            line.handler.irq_handler_ack()?;
            // What came between the last look and the acknowledgement raised
            // no edge of its own.
            let Some(byte) = line.uart.get() else {
                return Ok(());
            };
            line.pending = true;
            server.terminal_input(world, &[byte]);
            continue;
        }
        let taken = server.terminal_input(world, &bytes[..len]);
        debug_assert_eq!(taken, len, "there was room");
        bytes.fill(0);
    }
}
