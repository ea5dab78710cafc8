//! I/O ports of x86, which Microkit numbers in a series of their own.

use core::fmt;

use sel4::cap;

/// First slot of a range of ports (Microkit 2.3).
const SLOT: u64 = 394;

/// A range of ports, by its number in the description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoPort {
    index: usize,
}

/// The kernel refused the access: the port is outside the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoPortError(sel4::Error);

impl fmt::Display for IoPortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I/O port: {:?}", self.0)
    }
}

impl IoPort {
    /// The range called `index` in the description.
    #[must_use]
    pub const fn new(index: usize) -> Self {
        Self { index }
    }

    /// Reads a byte.
    ///
    /// # Errors
    /// [`IoPortError`]
    #[inline]
    pub fn read_8(self, port: u16) -> Result<u8, IoPortError> {
        self.cap().ioport_in8(port).map_err(IoPortError)
    }

    /// Writes a byte.
    ///
    /// # Errors
    /// [`IoPortError`]
    #[inline]
    pub fn write_8(self, port: u16, value: u8) -> Result<(), IoPortError> {
        self.cap().ioport_out8(port, value).map_err(IoPortError)
    }

    fn cap(self) -> cap::IoPort {
        cap::IoPort::from_bits(SLOT + self.index as u64)
    }
}
