//! The capOS console: COM1, through the serial driver's domain where the
//! system has one, and by hand where it has none.

use crate::clock::rdtsc;
use crate::driven::Driven;
use crate::log;
use crate::serial::Uart;

/// Where the bytes go.
pub struct Console {
    uart: Uart,
    driven: Option<Driven>,
    /// Bytes written and what that took, where it is being measured.
    measured: Option<(u64, u64)>,
}

impl Console {
    /// A console that is sent through a driver, if there is one.
    pub const fn new(uart: Uart, driven: Option<Driven>) -> Self {
        Self {
            uart,
            driven,
            measured: None,
        }
    }

    /// Counts what writing takes, for the log.
    pub fn measure(&mut self) {
        self.measured = Some((0, 0));
    }

    /// Writes; never waits for a driver.
    pub fn write(&mut self, bytes: &[u8]) {
        let before = self.measured.map(|_| rdtsc());
        match &mut self.driven {
            Some(driven) => driven.write(bytes),
            None => bytes.iter().for_each(|&byte| self.uart.put(byte)),
        }
        if let (Some((count, ticks)), Some(before)) = (&mut self.measured, before) {
            *count += bytes.len() as u64;
            *ticks += rdtsc().wrapping_sub(before);
        }
    }

    /// See [`Driven::restarted`].
    pub fn restarted(&mut self, revived: &[usize]) {
        if let Some(driven) = &mut self.driven {
            driven.restarted(revived);
        }
    }

    /// The last words: no driver runs any more.
    pub fn finish(&mut self) {
        if let Some((bytes, ticks)) = self.measured {
            log!("console: {bytes} bytes in {ticks} ticks");
        }
        if let Some(driven) = &mut self.driven {
            driven.finish(&mut self.uart, "console");
        }
    }
}
