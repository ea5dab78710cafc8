//! The 16550 UARTs of a PC: COM1 is the capOS console, COM2 the terminal, COM3
//! the root task's log, the last two where the machine has them.
//!
//! Register offsets and bits: National Semiconductor PC16550D data sheet.

use sel4::cap;

/// Base port of COM1, the capOS console.
pub const COM1: u16 = 0x3f8;
/// Base port of COM2, the terminal.
pub const COM2: u16 = 0x2f8;
/// Base port of COM3, the log.
pub const COM3: u16 = 0x3e8;
/// Ports a UART occupies.
pub const PORT_COUNT: u16 = 8;

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

const LINE_8N1: u8 = 0x03;
const LINE_DIVISOR_LATCH: u8 = 0x80;
const FIFO_ENABLE_AND_CLEAR: u8 = 0x07;
const MODEM_DTR_RTS_OUT2: u8 = 0x0b;
const INTERRUPT_RECEIVED: u8 = 0x01;
const STATUS_DATA_READY: u8 = 0x01;
const STATUS_TRANSMIT_EMPTY: u8 = 0x20;
/// 115200 baud from the 1.8432 MHz clock.
const DIVISOR_115200: u8 = 1;
/// Bytes the transmit FIFO takes once it is empty.
const FIFO_DEPTH: usize = 16;
/// A transmitter that stays busy this many polls is given up on: output must
/// never stop the system.
const BUSY_POLL_LIMIT: u32 = 100_000;

/// A UART in 115200 8N1, and the capability to its ports.
pub struct Uart {
    ports: cap::IoPort,
    base: u16,
    /// Bytes the transmit FIFO certainly still takes.
    room: usize,
}

impl Uart {
    /// Programs the UART at `base`; `None` when no UART answers there.
    ///
    /// # Errors
    /// The kernel's, when `ports` does not cover the UART.
    pub fn open(ports: cap::IoPort, base: u16) -> sel4::Result<Option<Self>> {
        let uart = Self::attach(ports, base);
        if !uart.answers()? {
            return Ok(None);
        }
        uart.write(INTERRUPT_ENABLE, 0)?;
        uart.write(LINE_CONTROL, LINE_DIVISOR_LATCH)?;
        uart.write(DATA, DIVISOR_115200)?;
        uart.write(INTERRUPT_ENABLE, 0)?;
        uart.write(LINE_CONTROL, LINE_8N1)?;
        uart.write(FIFO_CONTROL, FIFO_ENABLE_AND_CLEAR)?;
        uart.write(MODEM_CONTROL, MODEM_DTR_RTS_OUT2)?;
        Ok(Some(uart))
    }

    /// A UART that [`Uart::open`] has programmed before.
    pub const fn attach(ports: cap::IoPort, base: u16) -> Self {
        Self {
            ports,
            base,
            room: 0,
        }
    }

    /// Has received bytes raise the interrupt.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen(&self) -> sel4::Result<()> {
        self.write(INTERRUPT_ENABLE, INTERRUPT_RECEIVED)
    }

    /// The next received byte, if there is one.
    pub fn get(&mut self) -> Option<u8> {
        let status = self.ports.ioport_in8(self.base + LINE_STATUS).ok()?;
        if status & STATUS_DATA_READY == 0 {
            return None;
        }
        self.ports.ioport_in8(self.base + DATA).ok()
    }

    /// Sends one byte. A transmitter that never gets ready loses it.
    pub fn put(&mut self, byte: u8) {
        if self.room == 0 {
            self.wait_for_room();
        }
        self.room -= 1;
        let _ = self.write(DATA, byte);
    }

    /// Waits until everything put has left the FIFO, within bounds.
    pub fn drain(&mut self) {
        self.wait_for_room();
    }

    /// Waits until the FIFO is empty, within bounds.
    fn wait_for_room(&mut self) {
        for _ in 0..BUSY_POLL_LIMIT {
            match self.ports.ioport_in8(self.base + LINE_STATUS) {
                Ok(status) if status & STATUS_TRANSMIT_EMPTY == 0 => core::hint::spin_loop(),
                _ => break,
            }
        }
        self.room = FIFO_DEPTH;
    }

    /// The scratch register keeps what is written only where a UART is.
    fn answers(&self) -> sel4::Result<bool> {
        for pattern in [0x5a, 0xa5] {
            self.write(SCRATCH, pattern)?;
            if self.ports.ioport_in8(self.base + SCRATCH)? != pattern {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write(&self, register: u16, value: u8) -> sel4::Result<()> {
        self.ports.ioport_out8(self.base + register, value)
    }
}
