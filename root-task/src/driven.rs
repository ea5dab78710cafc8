//! A serial port that a protection domain drives, as the root task sees it.
//!
//! A write is a copy into the driver's ring and a signal, and never waits. What
//! the ring has no room for is dropped; how much is said in the output as soon
//! as there is room, and in the log at the end. The ports stay within reach for
//! last words: when the system stops, the domains do first, and what is left in
//! the ring is sent from here.

use core::fmt::Write as _;

use serial_16550::ring::{Reader, Writer};

use crate::domains::DrivenPort;
use crate::log;
use crate::serial::Uart;

/// Longest note about what was dropped.
const NOTE_BYTES: usize = 64;

/// A port behind a driver.
pub struct Driven {
    port: DrivenPort,
    output: Writer,
    input: Reader,
    dropped: u64,
    dropped_in_all: u64,
}

impl Driven {
    /// A port whose rings are where `port` says; `None` where they have not the
    /// size of rings.
    ///
    /// # Safety
    /// The memory stays mapped, readable and writable, and is reached only
    /// through this and by the driver.
    pub unsafe fn new(port: DrivenPort) -> Option<Self> {
        // SAFETY: as the caller vouches.
        let rings = unsafe { (Writer::new(port.output), Reader::new(port.input)) };
        let (output, input) = (rings.0?, rings.1?);
        Some(Self {
            port,
            output,
            input,
            dropped: 0,
            dropped_in_all: 0,
        })
    }

    /// The badge of the driver's signals.
    pub const fn badge(&self) -> u64 {
        self.port.badge
    }

    /// Sends as much as there is room for and drops the rest.
    pub fn write(&mut self, bytes: &[u8]) {
        self.tell_of_dropped();
        // A driver that breaks the ring's rules is one that takes nothing.
        let taken = match self.dropped {
            0 => self.output.push(bytes).unwrap_or(0),
            _ => 0,
        };
        let dropped = (bytes.len() - taken) as u64;
        self.dropped += dropped;
        self.dropped_in_all += dropped;
        self.port.signal.signal();
    }

    /// The next received byte. A driver that breaks the ring's rules is one
    /// that received nothing.
    pub fn get(&mut self) -> Option<u8> {
        let was_full = self.input.is_full().ok()?;
        let byte = self.input.pop().ok()?;
        if was_full {
            // The driver left the rest in the port.
            self.port.signal.signal();
        }
        byte
    }

    /// The domains in `revived` have a new life: if the driver is among them,
    /// it goes on where the last one stopped. Returns whether it is.
    pub fn restarted(&mut self, revived: &[usize]) -> bool {
        let is_it = revived.contains(&self.port.domain);
        if is_it {
            self.output.mend();
            self.input.mend();
            self.port.signal.signal();
        }
        is_it
    }

    /// The last words, through `uart`: no driver runs any more.
    pub fn finish(&mut self, uart: &mut Uart, name: &str) {
        self.tell_of_dropped();
        while let Some(byte) = self.output.take_back() {
            uart.put(byte);
        }
        if self.dropped_in_all > 0 {
            log!("{name}: {} bytes dropped", self.dropped_in_all);
        }
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
