//! The serial driver, with a watch that measures echoes.
//!
//! Measured is the time from taking a `~` out of the port's receive register to
//! having the `~` that the root task echoes, which is then put into the transmit
//! register: the ring to the root task, its line editor, the ring back, and
//! everything that keeps the three from running. The time-stamp counter counts
//! instructions where QEMU counts time in them.
//!
//! After each [`SAMPLES`] echoes it writes median and worst into the output.
//! The first round is what later ones are compared with: their medians may be
//! [`RATIO_MAX`] percent of its median.

#![no_std]
#![no_main]

use core::arch::x86_64::_rdtsc;
use core::fmt::{self, Write};

use sel4_microkit::{Handler, protection_domain};
use serial_16550_domain::Watch;

/// What is typed to be measured.
const STIMULUS: u8 = b'~';
/// Echoes of a round.
const SAMPLES: usize = 64;
/// Most that a later round's median may be, in percent of the first one's.
const RATIO_MAX: u64 = 120;
/// Room for a report.
const TEXT_BYTES: usize = 160;

fn now() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and the kernel leaves it
    // readable.
    unsafe { _rdtsc() }
}

/// What is to be written beside the output.
struct Report {
    text: [u8; TEXT_BYTES],
    length: usize,
    written: usize,
}

impl Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let place = self.text.get_mut(self.length..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

struct Meter {
    /// When the stimulus came that is not echoed yet.
    came: Option<u64>,
    samples: [u64; SAMPLES],
    count: usize,
    /// Median of the first round.
    first: Option<u64>,
    report: Report,
}

impl Meter {
    /// Ends a round.
    fn conclude(&mut self) -> fmt::Result {
        self.samples.sort_unstable();
        let (median, worst) = (self.samples[SAMPLES / 2], self.samples[SAMPLES - 1]);
        self.count = 0;
        (self.report.length, self.report.written) = (0, 0);
        let report = &mut self.report;
        write!(
            report,
            "\r\necho of {SAMPLES}: median {median}, worst {worst}"
        )?;
        if let Some(first) = self.first {
            let ratio = median * 100 / first;
            let verdict = match median * 100 <= first * RATIO_MAX {
                true => "within bounds",
                false => "TOO SLOW",
            };
            write!(report, "; {ratio} % of the first median: {verdict}")?;
        } else {
            self.first = Some(median);
        }
        report.write_str("\r\n")
    }
}

impl Watch for Meter {
    fn received(&mut self, byte: u8) {
        if byte == STIMULUS {
            self.came = Some(now());
        }
    }

    fn sends(&mut self, byte: u8) {
        let Some(came) = self.came.filter(|_| byte == STIMULUS) else {
            return;
        };
        self.came = None;
        self.samples[self.count] = now() - came;
        self.count += 1;
        if self.count == SAMPLES {
            self.conclude().expect("there is room for the report");
        }
    }

    fn adds(&mut self) -> Option<u8> {
        let report = &mut self.report;
        let byte = *report.text[..report.length].get(report.written)?;
        report.written += 1;
        Some(byte)
    }
}

#[protection_domain]
fn init() -> impl Handler {
    serial_16550_domain::start(Meter {
        came: None,
        samples: [0; SAMPLES],
        count: 0,
        first: None,
        report: Report {
            text: [0; TEXT_BYTES],
            length: 0,
            written: 0,
        },
    })
}
