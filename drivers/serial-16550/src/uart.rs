//! The port itself: 115,200 baud, 8N1, driven by interrupts.
//!
//! Register offsets and bits: National Semiconductor PC16550D data sheet.
//!
//! The interrupt is edge-triggered, so [`Uart::service`] goes on until the port
//! has none pending; a port that never gets there is left after
//! [`ROUNDS_MAX`] rounds and looked at again at the next signal.

/// Access to the eight registers.
pub trait Registers {
    /// Reads a register.
    fn read(&mut self, register: u16) -> u8;
    /// Writes a register.
    fn write(&mut self, register: u16, value: u8);
}

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const INTERRUPT_IDENTIFICATION: u16 = 2;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

const ENABLE_RECEIVE: u8 = 0x01;
const ENABLE_TRANSMIT: u8 = 0x02;
const DATA_READY: u8 = 0x01;
const NO_INTERRUPT: u8 = 0x01;
const LINE_8N1: u8 = 0x03;
const LINE_DIVISOR_LATCH: u8 = 0x80;
/// Without clearing it: what was received before the driver's last end stays.
const FIFO_ENABLE: u8 = 0x01;
const MODEM_DTR_RTS_OUT2: u8 = 0x0b;
const TRANSMIT_EMPTY: u8 = 0x20;
/// 115200 baud from the 1.8432 MHz clock.
const DIVISOR_115200: u8 = 1;
/// Bytes the transmit FIFO takes once it is empty.
const FIFO_DEPTH: usize = 16;
/// Rounds of one service.
pub const ROUNDS_MAX: u32 = 4096;

/// What the port is connected to on our side.
pub trait Line {
    /// The next byte to send.
    fn next(&mut self) -> Option<u8>;
    /// Whether there is room for a received byte.
    fn has_room(&mut self) -> bool;
    /// A received byte, for which there was room.
    fn received(&mut self, byte: u8);
}

/// A port.
pub struct Uart<R> {
    registers: R,
    /// The interrupts that are enabled.
    enabled: u8,
}

impl<R: Registers> Uart<R> {
    /// Programs the port; `None` when none answers.
    pub fn open(mut registers: R) -> Option<Self> {
        for pattern in [0x5a, 0xa5] {
            registers.write(SCRATCH, pattern);
            if registers.read(SCRATCH) != pattern {
                return None;
            }
        }
        registers.write(INTERRUPT_ENABLE, 0);
        registers.write(LINE_CONTROL, LINE_DIVISOR_LATCH);
        registers.write(DATA, DIVISOR_115200);
        registers.write(INTERRUPT_ENABLE, 0);
        registers.write(LINE_CONTROL, LINE_8N1);
        registers.write(FIFO_CONTROL, FIFO_ENABLE);
        registers.write(MODEM_CONTROL, MODEM_DTR_RTS_OUT2);
        Some(Self {
            registers,
            enabled: 0,
        })
    }

    /// Takes what was received and sends what there is to send, as far as both
    /// sides have room, without waiting; an interrupt comes when the port has
    /// more of either. Call it at each interrupt, when there is something new
    /// to send, and when there is room again for what is received: while there
    /// is none, the port is not asked.
    pub fn service(&mut self, line: &mut impl Line) {
        for _ in 0..ROUNDS_MAX {
            let held_back = self.receive(line);
            let empty = self.registers.read(LINE_STATUS) & TRANSMIT_EMPTY != 0;
            let sent = match empty {
                true => self.fill(line),
                false => 0,
            };
            let waits = !empty || sent == FIFO_DEPTH;
            let transmit = if waits { ENABLE_TRANSMIT } else { 0 };
            let receive = if held_back { 0 } else { ENABLE_RECEIVE };
            self.enable(transmit | receive);
            let quiet = self.registers.read(INTERRUPT_IDENTIFICATION) & NO_INTERRUPT != 0;
            let again = held_back && line.has_room();
            if sent < FIFO_DEPTH && quiet && !again {
                return;
            }
        }
    }

    /// Takes what was received; returns whether something is left there.
    fn receive(&mut self, line: &mut impl Line) -> bool {
        for _ in 0..ROUNDS_MAX {
            if self.registers.read(LINE_STATUS) & DATA_READY == 0 {
                return false;
            }
            if !line.has_room() {
                return true;
            }
            let byte = self.registers.read(DATA);
            line.received(byte);
        }
        false
    }

    /// Fills the FIFO, which is empty; returns how much was sent.
    fn fill(&mut self, line: &mut impl Line) -> usize {
        for sent in 0..FIFO_DEPTH {
            match line.next() {
                Some(byte) => self.registers.write(DATA, byte),
                None => return sent,
            }
        }
        FIFO_DEPTH
    }

    fn enable(&mut self, interrupts: u8) {
        if interrupts != self.enabled {
            self.enabled = interrupts;
            self.registers.write(INTERRUPT_ENABLE, interrupts);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::VecDeque;
    use std::vec::Vec;

    use super::*;

    /// A port as the data sheet has it: bytes leave the FIFO when told to.
    #[derive(Default)]
    struct Model {
        scratch: u8,
        enable: u8,
        line_control: u8,
        fifo: Vec<u8>,
        line: Vec<u8>,
        absent: bool,
        /// Sends at once what is written.
        instant: bool,
        overruns: u32,
        /// Received and not read.
        arrived: VecDeque<u8>,
    }

    /// Sends `out` and keeps what is received, up to `room` bytes.
    struct Ends {
        out: VecDeque<u8>,
        got: Vec<u8>,
        room: usize,
    }

    impl Ends {
        fn sending(bytes: &[u8]) -> Self {
            Self {
                out: bytes.iter().copied().collect(),
                got: Vec::new(),
                room: 0,
            }
        }
    }

    impl Line for Ends {
        fn next(&mut self) -> Option<u8> {
            self.out.pop_front()
        }

        fn has_room(&mut self) -> bool {
            self.got.len() < self.room
        }

        fn received(&mut self, byte: u8) {
            assert!(self.has_room());
            self.got.push(byte);
        }
    }

    impl Model {
        fn transmit(&mut self) {
            self.line.append(&mut self.fifo);
        }
    }

    impl Registers for &mut Model {
        fn read(&mut self, register: u16) -> u8 {
            let sent = self.enable & ENABLE_TRANSMIT != 0 && self.fifo.is_empty();
            let received = self.enable & ENABLE_RECEIVE != 0 && !self.arrived.is_empty();
            let pending = sent || received;
            let ready = u8::from(!self.arrived.is_empty());
            match register {
                _ if self.absent => 0xff,
                SCRATCH => self.scratch,
                DATA => self.arrived.pop_front().unwrap_or(0),
                LINE_STATUS if self.fifo.is_empty() => TRANSMIT_EMPTY | ready,
                LINE_STATUS => ready,
                INTERRUPT_IDENTIFICATION if pending => 0x02,
                INTERRUPT_IDENTIFICATION => NO_INTERRUPT,
                _ => 0,
            }
        }

        fn write(&mut self, register: u16, value: u8) {
            let divisor = self.line_control & LINE_DIVISOR_LATCH != 0;
            match register {
                SCRATCH => self.scratch = value,
                LINE_CONTROL => self.line_control = value,
                INTERRUPT_ENABLE if !divisor => self.enable = value,
                DATA if !divisor => {
                    self.overruns += u32::from(self.fifo.len() == FIFO_DEPTH);
                    self.fifo.push(value);
                    if self.instant {
                        self.transmit();
                    }
                }
                _ => {}
            }
        }
    }

    #[test]
    fn nothing_answers_where_no_port_is() {
        let mut model = Model {
            absent: true,
            ..Model::default()
        };
        assert!(Uart::open(&mut model).is_none());
    }

    #[test]
    fn a_slow_line_is_fed_a_fifo_at_a_time_and_never_overrun() {
        let text: Vec<u8> = (0..100).collect();
        let mut ends = Ends::sending(&text);
        let mut model = Model::default();
        let mut rounds = 0;
        while model.line.len() < text.len() {
            let mut uart = Uart {
                enabled: model.enable,
                registers: &mut model,
            };
            uart.service(&mut ends);
            assert!(model.fifo.len() <= FIFO_DEPTH);
            let interrupts = model.enable & ENABLE_TRANSMIT != 0;
            assert!(interrupts || ends.out.is_empty(), "it would wait for ever");
            model.transmit();
            rounds += 1;
            assert!(rounds < 20, "no progress");
        }
        assert_eq!(model.line, text);
        assert_eq!(model.overruns, 0);
    }

    #[test]
    fn a_fast_line_takes_everything_at_once() {
        let text: Vec<u8> = (0..100).collect();
        let mut ends = Ends::sending(&text);
        let mut model = Model {
            instant: true,
            ..Model::default()
        };
        let mut uart = Uart::open(&mut model).expect("it answers");
        uart.service(&mut ends);
        assert_eq!(model.line, text);
        assert_eq!(model.enable, ENABLE_RECEIVE, "nothing is left to send");
    }

    #[test]
    fn what_there_is_no_room_for_stays_in_the_port() {
        let mut model = Model {
            arrived: b"abcdef".iter().copied().collect(),
            ..Model::default()
        };
        let mut ends = Ends::sending(b"");
        ends.room = 4;
        let mut uart = Uart::open(&mut model).expect("it answers");
        uart.service(&mut ends);
        assert_eq!(ends.got, b"abcd");
        assert_eq!(uart.enabled, 0, "the port would interrupt without end");
        ends.room = 8;
        uart.service(&mut ends);
        assert_eq!(ends.got, b"abcdef");
        assert_eq!(model.enable, ENABLE_RECEIVE);
    }
}
