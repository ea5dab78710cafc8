//! The 16550 UARTs of a PC, output only: COM1 is the capOS console, COM3 the
//! root task's log where the machine has one.
//!
//! Register offsets and bits: National Semiconductor PC16550D data sheet.

use sel4::cap::IOPort;

/// Base port of COM1, the capOS console.
pub const COM1: u16 = 0x3f8;
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
const STATUS_TRANSMIT_EMPTY: u8 = 0x20;
/// 115200 baud from the 1.8432 MHz clock.
const DIVISOR_115200: u8 = 1;
/// Bytes the transmit FIFO takes once it is empty.
const FIFO_DEPTH: usize = 16;
/// A transmitter that stays busy this many polls is given up on: output must
/// never stop the system.
const BUSY_POLL_LIMIT: u32 = 100_000;
