//! The capOS console: COM1, through the serial driver's domain where the
//! system has one, and by hand where it has none.
//!
//! Through the driver a write is a copy into the ring and a signal, and never
//! waits. What the ring has no room for is dropped; how much is said on the
//! console as soon as there is room, and in the log at the end. The ports stay
//! within reach for last words: when the system stops, the domains do first,
//! and what is left in the ring is sent from here.

use core::fmt::Write as _;
use core::ptr::NonNull;

use sel4::cap;
use serial_16550::ring::Writer;

use crate::clock::rdtsc;
use crate::log;
use crate::serial::Uart;

/// Longest note about what was dropped.
const NOTE_BYTES: usize = 64;

/// Where the bytes go.
pub struct Console {
    uart: Uart,
    driver: Option<Driver>,
    /// Bytes written and what that took, where it is being measured.
    measured: Option<(u64, u64)>,
}

/// The driver as the root task sees it.
struct Driver {
    output: Writer,
    signal: cap::Notification,
    dropped: u64,
    dropped_in_all: u64,
}

impl Console {
    /// A console that is sent by hand.
    pub const fn new(uart: Uart) -> Self {
        Self {
            uart,
            driver: None,
            measured: None,
        }
    }

    /// Sends through a driver from now on, whose ring is in `memory`. Returns
    /// whether the memory has the size of a ring.
    ///
    /// # Safety
    /// `memory` stays mapped, readable and writable, and is reached only
    /// through this console and by the driver.
    pub unsafe fn attach(&mut self, memory: NonNull<[u8]>, signal: cap::Notification) -> bool {
        // SAFETY: as the caller vouches.
        let output = unsafe { Writer::new(memory) };
        self.driver = output.map(|output| Driver {
            output,
            signal,
            dropped: 0,
            dropped_in_all: 0,
        });
        self.driver.is_some()
    }

    /// Counts what writing takes, for the log.
    pub fn measure(&mut self) {
        self.measured = Some((0, 0));
    }

    /// Writes; never waits for a driver.
    pub fn write(&mut self, bytes: &[u8]) {
        let before = self.measured.map(|_| rdtsc());
        match &mut self.driver {
            Some(driver) => driver.write(bytes),
            None => bytes.iter().for_each(|&byte| self.uart.put(byte)),
        }
        if let (Some((count, ticks)), Some(before)) = (&mut self.measured, before) {
            *count += bytes.len() as u64;
            *ticks += rdtsc().wrapping_sub(before);
        }
    }

    /// The driver has a new life, and what it left is to be sent.
    pub fn restarted(&mut self) {
        if let Some(driver) = &mut self.driver {
            driver.output.mend();
            driver.signal.signal();
        }
    }

    /// The last words: no driver runs any more.
    pub fn finish(&mut self) {
        if let Some((bytes, ticks)) = self.measured {
            log!("console: {bytes} bytes in {ticks} ticks");
        }
        let Some(driver) = &mut self.driver else {
            return;
        };
        driver.tell_of_dropped();
        while let Some(byte) = driver.output.take_back() {
            self.uart.put(byte);
        }
        if driver.dropped_in_all > 0 {
            log!("console: {} bytes dropped", driver.dropped_in_all);
        }
    }
}

impl Driver {
    fn write(&mut self, bytes: &[u8]) {
        self.tell_of_dropped();
        // A driver that breaks the ring's rules is one that takes nothing.
        let taken = match self.dropped {
            0 => self.output.push(bytes).unwrap_or(0),
            _ => 0,
        };
        let dropped = (bytes.len() - taken) as u64;
        self.dropped += dropped;
        self.dropped_in_all += dropped;
        self.signal.signal();
    }

    /// Says how much is missing, once there is room for the whole note.
    fn tell_of_dropped(&mut self) {
        if self.dropped == 0 || self.output.room().unwrap_or(0) < NOTE_BYTES {
            return;
        }
        let mut note = Note {
            text: [0; NOTE_BYTES],
            length: 0,
        };
        let _ = write!(note, "\n[{} bytes dropped]\n", self.dropped);
        if self.output.push(&note.text[..note.length]).is_ok() {
            self.dropped = 0;
        }
    }
}

/// A short text.
struct Note {
    text: [u8; NOTE_BYTES],
    length: usize,
}

impl core::fmt::Write for Note {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.length + text.len();
        let place = self
            .text
            .get_mut(self.length..end)
            .ok_or(core::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
