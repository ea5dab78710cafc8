//! The terminal's line: COM2, both ways, through the serial driver's domain
//! where the system has one, and by hand where it has none.
//!
//! Received bytes are taken out of the UART when its interrupt says so, as many
//! as the personality has room for; while it has none the interrupt stays
//! unacknowledged, and the line's flow control keeps the sender waiting.

use cap_broker::{Pin, Trigger};
use ring_server_core::Server;
use sel4::cap;

use crate::driven::Driven;
use crate::gate::TERMINAL_BADGE;
use crate::serial::Uart;
use crate::world::World;

/// Pin of the first I/O APIC that COM2 interrupts on.
pub const COM2_PIN: Pin = Pin { ioapic: 0, pin: 3 };
/// How it does.
pub const COM2_TRIGGER: Trigger = Trigger::Edge;
/// Bytes taken at one time, before anything else is served.
const BATCH: usize = 64;

/// The terminal's port, and whether it has something.
pub struct TerminalLine {
    /// The UART; the driver's while there is one.
    uart: Uart,
    port: Port,
    /// Something came in that is not taken.
    pub pending: bool,
}

/// Who drives the port.
enum Port {
    /// The root task, with this interrupt.
    Own(cap::IrqHandler),
    /// A protection domain.
    Driven(Driven),
}

impl TerminalLine {
    /// A line with a driver.
    pub const fn driven(uart: Uart, driven: Driven) -> Self {
        Self {
            uart,
            port: Port::Driven(driven),
            pending: false,
        }
    }

    /// A line without: its interrupt is `handler`.
    pub const fn own(uart: Uart, handler: cap::IrqHandler) -> Self {
        Self {
            uart,
            port: Port::Own(handler),
            pending: false,
        }
    }

    /// The badge that says that something came in.
    pub const fn badge(&self) -> u64 {
        match &self.port {
            Port::Own(_) => TERMINAL_BADGE,
            Port::Driven(driven) => driven.badge(),
        }
    }

    /// Writes. By hand this waits for the UART, within bounds; a driver's ring
    /// drops what it has no room for.
    pub fn write(&mut self, bytes: &[u8]) {
        match &mut self.port {
            Port::Own(_) => bytes.iter().for_each(|&byte| self.uart.put(byte)),
            Port::Driven(driven) => driven.write(bytes),
        }
    }

    /// See [`Driven::restarted`]; what the last driver left is looked at.
    pub fn restarted(&mut self, revived: &[usize]) {
        if let Port::Driven(driven) = &mut self.port
            && driven.restarted(revived)
        {
            self.pending = true;
        }
    }

    /// The last words: no driver runs any more.
    pub fn finish(&mut self) {
        if let Port::Driven(driven) = &mut self.port {
            driven.finish(&mut self.uart, "terminal");
        }
    }

    fn get(&mut self) -> Option<u8> {
        match &mut self.port {
            Port::Own(_) => self.uart.get(),
            Port::Driven(driven) => driven.get(),
        }
    }

    fn acknowledge(&self) -> sel4::Result<()> {
        match &self.port {
            Port::Own(handler) => handler.irq_handler_ack(),
            Port::Driven(_) => Ok(()),
        }
    }

    /// Takes in what there is, as far as there is room.
    fn receive(&mut self, out: &mut [u8; BATCH], room: usize) -> usize {
        let mut len = 0;
        while len < BATCH.min(room) {
            match self.get() {
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
            line.acknowledge()?;
            // What came between the last look and the acknowledgement raised
            // no edge of its own.
            let Some(byte) = line.get() else {
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
