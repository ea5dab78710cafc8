//! The end: the verdict and stopping the machine.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use sel4::{cap, init_thread};

use crate::log;

/// I/O port of QEMU's `isa-debug-exit`. A machine without it ignores the
/// write, and the root task stops.
pub const DEBUG_EXIT_PORT: u16 = 0x501;
const DEBUG_EXIT_VALUE: u16 = 1;

static PORTS: AtomicU64 = AtomicU64::new(0);

/// Names the capability to [`DEBUG_EXIT_PORT`].
pub fn open(ports: cap::IoPort) {
    PORTS.store(ports.bits(), Ordering::Relaxed);
}

/// How the system ended.
#[derive(Debug)]
pub enum Verdict {
    /// The first process exited with this code.
    Exit(i64),
    /// The first process was killed; one word says for what.
    Killed(&'static str),
    /// The system did not start: a step of booting failed.
    BootFailed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit {code}"),
            Self::Killed(word) => write!(f, "killed {word}"),
            Self::BootFailed => f.write_str("killed boot"),
        }
    }
}

/// Prints the verdict and stops the machine.
pub fn halt(verdict: &Verdict) -> ! {
    log::line(format_args!("verdict: {verdict}"));
    stop()
}

/// Ends the machine, where it knows how to.
pub fn power_off() {
    let ports = PORTS.load(Ordering::Relaxed);
    if ports != 0 {
        let ports = cap::IoPort::from_bits(ports);
        let _ = ports.ioport_out16(DEBUG_EXIT_PORT, DEBUG_EXIT_VALUE);
    }
}

/// Stops the machine.
pub fn stop() -> ! {
    power_off();
    init_thread::suspend_self()
}
