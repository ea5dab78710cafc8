//! One line per check, and the verdict.

use alloc::string::String;
use core::fmt::Write;

use sel4::cap;
use sel4_root_task::EmergencyConsole;

/// Why a check failed, for people.
pub type Outcome = Result<(), String>;

/// QEMU's `isa-debug-exit` device.
pub const EXIT_PORT: u16 = 0x501;
const EXIT_VALUE: u16 = 1;

/// Fails a check unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(alloc::format!($($message)*));
        }
    };
}

/// Turns the kernel's refusal into a reason.
pub fn refused(what: &'static str) -> impl Fn(sel4::Error) -> String {
    move |error| alloc::format!("{what}: {error}")
}

/// Where lines go, and the score.
pub struct Report {
    console: EmergencyConsole,
    exit: cap::IoPort,
    passed: usize,
    failed: usize,
}

impl Report {
    /// Reports on `console`, and ends the machine through `exit`.
    pub const fn new(console: EmergencyConsole, exit: cap::IoPort) -> Self {
        Self {
            console,
            exit,
            passed: 0,
            failed: 0,
        }
    }

    /// Prints a line that is no check.
    pub fn note(&mut self, text: core::fmt::Arguments<'_>) {
        // A console that fails leaves nobody to tell.
        let _ = writeln!(self.console, "{text}");
    }

    /// Prints the result of a check.
    pub fn check(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                self.note(format_args!("check {name} ok"));
            }
            Err(reason) => {
                self.failed += 1;
                self.note(format_args!("check {name} FAILED: {reason}"));
            }
        }
    }

    /// Prints the verdict and ends the machine.
    pub fn finish(mut self) -> ! {
        let (passed, failed) = (self.passed, self.failed);
        self.note(format_args!("{passed} passed, {failed} failed"));
        self.note(format_args!("verdict: exit {}", i32::from(failed != 0)));
        // Without the device the machine stays; the verdict is out already.
        let _ = self.exit.ioport_out16(EXIT_PORT, EXIT_VALUE);
        sel4::init_thread::suspend_self()
    }
}
