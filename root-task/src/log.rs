//! The root task's own words: log lines, fault reports and the verdict.
//!
//! Lines go to COM3 where the machine has one, so that what applications print
//! on the console stays exactly that, and to COM1 otherwise. A line starts
//! with who speaks: `root-task:`, `fault:` or `verdict:`.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use sel4::cap;

use crate::serial::Uart;

/// Port capability and base port of the log; zero until [`open`].
static PORTS: AtomicU64 = AtomicU64::new(0);
static BASE: AtomicU16 = AtomicU16::new(0);

/// Sends log lines to a UART that [`Uart::open`] has programmed.
pub fn open(ports: cap::IoPort, base: u16) {
    PORTS.store(ports.bits(), Ordering::Relaxed);
    BASE.store(base, Ordering::Relaxed);
}

/// Writes one line. Lost when no log is open yet.
pub fn line(text: fmt::Arguments<'_>) {
    let base = BASE.load(Ordering::Relaxed);
    if base == 0 {
        return;
    }
    let ports = cap::IoPort::from_bits(PORTS.load(Ordering::Relaxed));
    let mut writer = Writer(Uart::attach(ports, base));
    let _ = write!(writer, "{text}");
    writer.0.put(b'\n');
    // Where the console shares the port, it counts on an empty FIFO.
    writer.0.drain();
}

/// Formats one log line.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => {
        $crate::log::line(format_args!("root-task: {}", format_args!($($argument)*)))
    };
}

struct Writer(Uart);

impl Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // A program's name is the only text here that is not ours: it must
            // not end this line and begin one of its own.
            let printable = (b' '..=b'~').contains(&byte);
            self.0.put(if printable { byte } else { b'?' });
        }
        Ok(())
    }
}
