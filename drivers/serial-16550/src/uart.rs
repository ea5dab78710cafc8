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

const ENABLE_TRANSMIT: u8 = 0x02;
const NO_INTERRUPT: u8 = 0x01;
const LINE_8N1: u8 = 0x03;
const LINE_DIVISOR_LATCH: u8 = 0x80;
const FIFO_ENABLE_AND_CLEAR: u8 = 0x07;
const MODEM_DTR_RTS_OUT2: u8 = 0x0b;
const TRANSMIT_EMPTY: u8 = 0x20;
/// 115200 baud from the 1.8432 MHz clock.
const DIVISOR_115200: u8 = 1;
/// Bytes the transmit FIFO takes once it is empty.
const FIFO_DEPTH: usize = 16;
/// Rounds of one service.
pub const ROUNDS_MAX: u32 = 4096;

/// A port that is sent through.
pub struct Uart<R> {
    registers: R,
    waits_for_room: bool,
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
        registers.write(FIFO_CONTROL, FIFO_ENABLE_AND_CLEAR);
        registers.write(MODEM_CONTROL, MODEM_DTR_RTS_OUT2);
        Some(Self {
            registers,
            waits_for_room: false,
        })
    }

    /// Sends what `next` yields, as far as the port takes it without waiting;
    /// an interrupt comes when it takes more. Call it at each interrupt, and
    /// when there is something new.
    pub fn service(&mut self, mut next: impl FnMut() -> Option<u8>) {
        for _ in 0..ROUNDS_MAX {
            let empty = self.registers.read(LINE_STATUS) & TRANSMIT_EMPTY != 0;
            let sent = match empty {
                true => self.fill(&mut next),
                false => 0,
            };
            self.wait_for_room(!empty || sent == FIFO_DEPTH);
            let identification = self.registers.read(INTERRUPT_IDENTIFICATION);
            if sent < FIFO_DEPTH && identification & NO_INTERRUPT != 0 {
                return;
            }
        }
    }

    /// Fills the FIFO, which is empty; returns how much was sent.
    fn fill(&mut self, next: &mut impl FnMut() -> Option<u8>) -> usize {
        for sent in 0..FIFO_DEPTH {
            match next() {
                Some(byte) => self.registers.write(DATA, byte),
                None => return sent,
            }
        }
        FIFO_DEPTH
    }

    fn wait_for_room(&mut self, waits: bool) {
        if waits != self.waits_for_room {
            self.waits_for_room = waits;
            let enable = if waits { ENABLE_TRANSMIT } else { 0 };
            self.registers.write(INTERRUPT_ENABLE, enable);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

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
    }

    impl Model {
        fn transmit(&mut self) {
            self.line.append(&mut self.fifo);
        }
    }

    impl Registers for &mut Model {
        fn read(&mut self, register: u16) -> u8 {
            let pending = self.enable & ENABLE_TRANSMIT != 0 && self.fifo.is_empty();
            match register {
                _ if self.absent => 0xff,
                SCRATCH => self.scratch,
                LINE_STATUS if self.fifo.is_empty() => TRANSMIT_EMPTY,
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
        let mut rest = text.iter().copied();
        let mut model = Model::default();
        let mut rounds = 0;
        while model.line.len() < text.len() {
            let mut uart = Uart {
                waits_for_room: model.enable != 0,
                registers: &mut model,
            };
            uart.service(|| rest.next());
            assert!(model.fifo.len() <= FIFO_DEPTH);
            let interrupts = model.enable & ENABLE_TRANSMIT != 0;
            assert!(interrupts || rest.len() == 0, "it would wait for ever");
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
        let mut rest = text.iter().copied();
        let mut model = Model {
            instant: true,
            ..Model::default()
        };
        let mut uart = Uart::open(&mut model).expect("it answers");
        uart.service(|| rest.next());
        assert_eq!(model.line, text);
        assert_eq!(model.enable, 0, "nothing is left to wait for");
    }
}
