//! The PC's battery-backed clock (MC146818 and its successors).
//!
//! # Theory of operation
//! The clock answers through two I/O ports: the number of a register goes to
//! [`INDEX_PORT`], its value comes from [`DATA_PORT`]. [`read_time`] knows the
//! registers; how to reach the ports is the [`Registers`] trait, so that
//! everything here is tested on the host.
//!
//! Once a second the clock updates its registers, and what is read meanwhile
//! is undefined. A reading counts when no update was under way before it and a
//! second one, read the same way, says the same. Digits are BCD or binary, and
//! hours 12 or 24, as register B says. The century has a register on every PC
//! with ACPI; what it holds is used if it makes sense, otherwise years below 70
//! are in this century.
//!
//! The clock is taken to show UTC.
//!
//! Registers: Motorola MC146818A data sheet, "Address map" and "Registers"; the
//! century register is the one ACPI's FADT names on PCs (0x32).

#![no_std]
#![forbid(unsafe_code)]

/// Where the number of a register is written.
pub const INDEX_PORT: u16 = 0x70;
/// Where its value is read.
pub const DATA_PORT: u16 = 0x71;

/// How often to look for a moment between two updates. An update takes at most
/// 2 ms, and a register read about 1 µs on a real bus.
const ATTEMPTS: u32 = 100_000;

mod register {
    pub const SECONDS: u8 = 0x00;
    pub const MINUTES: u8 = 0x02;
    pub const HOURS: u8 = 0x04;
    pub const DAY: u8 = 0x07;
    pub const MONTH: u8 = 0x08;
    pub const YEAR: u8 = 0x09;
    pub const A: u8 = 0x0a;
    pub const B: u8 = 0x0b;
    pub const D: u8 = 0x0d;
    pub const CENTURY: u8 = 0x32;
}

/// Register A: an update is under way or due.
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// Register B: digits are binary, not BCD.
const BINARY: u8 = 1 << 2;
/// Register B: hours count to 24.
const HOURS_24: u8 = 1 << 1;
/// Register D: the battery did not fail.
const VALID: u8 = 1 << 7;
/// Bit of the hours register in 12-hour mode.
const AFTERNOON: u8 = 1 << 7;

/// How the clock's registers are reached.
pub trait Registers {
    /// Reads one register.
    fn read(&mut self, register: u8) -> u8;
}

/// Why there is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockError {
    /// The clock was updating all the time, or never said the same twice:
    /// probably there is none.
    NeverStill,
    /// Its battery failed; set the time in the firmware.
    NotValid,
    /// A field is outside its range; set the time in the firmware.
    BadField,
}

impl core::fmt::Display for ClockError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NeverStill => "the clock is never still; is there one?",
            Self::NotValid => "the battery failed; set the time in the firmware",
            Self::BadField => "the time makes no sense; set it in the firmware",
        })
    }
}

impl core::error::Error for ClockError {}

/// The registers as they were at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Snapshot {
    seconds: u8,
    minutes: u8,
    hours: u8,
    day: u8,
    month: u8,
    year: u8,
    century: u8,
}

/// Reads the time: seconds since 1970-01-01 00:00 UTC.
///
/// # Errors
/// [`ClockError`].
pub fn read_time(registers: &mut impl Registers) -> Result<i64, ClockError> {
    if registers.read(register::D) & VALID == 0 {
        return Err(ClockError::NotValid);
    }
    let format = registers.read(register::B);
    let snapshot = settled(registers)?;
    unix_time(&snapshot, format)
}

/// Two equal snapshots in a row, none of them taken during an update.
fn settled(registers: &mut impl Registers) -> Result<Snapshot, ClockError> {
    let mut previous = None;
    for _ in 0..ATTEMPTS {
        if registers.read(register::A) & UPDATE_IN_PROGRESS != 0 {
            continue;
        }
        let snapshot = Snapshot {
            seconds: registers.read(register::SECONDS),
            minutes: registers.read(register::MINUTES),
            hours: registers.read(register::HOURS),
            day: registers.read(register::DAY),
            month: registers.read(register::MONTH),
            year: registers.read(register::YEAR),
            century: registers.read(register::CENTURY),
        };
        if previous == Some(snapshot) {
            return Ok(snapshot);
        }
        previous = Some(snapshot);
    }
    Err(ClockError::NeverStill)
}

fn unix_time(snapshot: &Snapshot, format: u8) -> Result<i64, ClockError> {
    let number = |raw, least, most| {
        let value = digits(raw, format & BINARY != 0).ok_or(ClockError::BadField)?;
        if (least..=most).contains(&value) {
            Ok(i64::from(value))
        } else {
            Err(ClockError::BadField)
        }
    };
    let seconds = number(snapshot.seconds, 0, 59)?;
    let minutes = number(snapshot.minutes, 0, 59)?;
    let hours = if format & HOURS_24 != 0 {
        number(snapshot.hours, 0, 23)?
    } else {
        let half = number(snapshot.hours & !AFTERNOON, 1, 12)? % 12;
        half + 12 * i64::from(snapshot.hours & AFTERNOON != 0)
    };
    let month = number(snapshot.month, 1, 12)?;
    let year = full_year(number(snapshot.year, 0, 99)?, snapshot.century, format);
    let day = number(snapshot.day, 1, days_in_month(year, month) as u8)?;
    let days = days_since_epoch(year, month, day);
    Ok(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
}

/// A register's number, unless a BCD digit is none.
fn digits(raw: u8, binary: bool) -> Option<u8> {
    let (tens, ones) = (raw >> 4, raw & 0xf);
    match binary {
        true => Some(raw),
        false if tens > 9 || ones > 9 => None,
        false => Some(tens * 10 + ones),
    }
}

/// A year with its century, which is believed if it is the 20th to the 22nd.
fn full_year(year: i64, century: u8, format: u8) -> i64 {
    match digits(century, format & BINARY != 0) {
        Some(century @ 19..=21) => i64::from(century) * 100 + year,
        _ if year < 70 => 2000 + year,
        _ => 1900 + year,
    }
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + is_leap(year) as i64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar from year 1 on.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    /// Days from 0001-01-01 to 1970-01-01.
    const EPOCH: i64 = 719_162;
    let past = year - 1;
    let years = past * 365 + past / 4 - past / 100 + past / 400;
    let months: i64 = (1..month).map(|month| days_in_month(year, month)).sum();
    years + months + day - 1 - EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that updates while it is read, as scripted.
    struct Script {
        registers: [u8; 128],
        /// Reads of register A that still say "updating".
        updating: u32,
        /// Reads after which the seconds change once.
        tick_after: u32,
    }

    impl Script {
        fn new(format: u8, time: [u8; 7]) -> Self {
            let [century, year, month, day, hours, minutes, seconds] = time;
            let mut registers = [0; 128];
            for (register, value) in [
                (register::B, format),
                (register::D, VALID),
                (register::CENTURY, century),
                (register::YEAR, year),
                (register::MONTH, month),
                (register::DAY, day),
                (register::HOURS, hours),
                (register::MINUTES, minutes),
                (register::SECONDS, seconds),
            ] {
                registers[usize::from(register)] = value;
            }
            Self {
                registers,
                updating: 0,
                tick_after: 0,
            }
        }
    }

    impl Registers for Script {
        fn read(&mut self, register: u8) -> u8 {
            if self.tick_after > 0 {
                self.tick_after -= 1;
                if self.tick_after == 0 {
                    self.registers[usize::from(register::SECONDS)] += 1;
                }
            }
            if register == register::A && self.updating > 0 {
                self.updating -= 1;
                return UPDATE_IN_PROGRESS;
            }
            self.registers[usize::from(register)]
        }
    }

    /// 2026-11-20 16:05:09 UTC, from `date -u -d … +%s`.
    const MOMENT: i64 = 1_795_190_709;

    #[test]
    fn every_format_says_the_same() {
        let bcd_24 = [0x20, 0x26, 0x11, 0x20, 0x16, 0x05, 0x09];
        let bcd_12 = [0x20, 0x26, 0x11, 0x20, 0x84, 0x05, 0x09];
        let binary_24 = [20, 26, 11, 20, 16, 5, 9];
        let binary_12 = [20, 26, 11, 20, 0x80 | 4, 5, 9];
        for (format, time) in [
            (HOURS_24, bcd_24),
            (0, bcd_12),
            (HOURS_24 | BINARY, binary_24),
            (BINARY, binary_12),
        ] {
            assert_eq!(read_time(&mut Script::new(format, time)), Ok(MOMENT));
        }
    }

    #[test]
    fn twelve_is_noon_or_midnight() {
        let at = |hours| {
            let time = [0x20, 0x26, 0x11, 0x20, hours, 0, 0];
            read_time(&mut Script::new(0, time)).expect("a time") % 86_400
        };
        assert_eq!(at(0x12), 0);
        assert_eq!(at(0x92), 12 * 3600);
        assert_eq!(at(0x01), 3600);
        assert_eq!(at(0x91), 23 * 3600);
    }

    #[test]
    fn an_update_is_waited_for_and_a_torn_reading_repeated() {
        let time = [0x20, 0x26, 0x11, 0x20, 0x16, 0x05, 0x09];
        let mut clock = Script::new(HOURS_24, time);
        clock.updating = 500;
        assert_eq!(read_time(&mut clock), Ok(MOMENT));
        let before = [0x20, 0x26, 0x11, 0x20, 0x16, 0x05, 0x08];
        for tick_after in 1..40 {
            let mut clock = Script::new(HOURS_24, before);
            clock.tick_after = tick_after;
            let read = read_time(&mut clock).expect("a time");
            assert!(read == MOMENT - 1 || read == MOMENT, "{read}");
        }
        let mut clock = Script::new(HOURS_24, time);
        clock.updating = u32::MAX;
        assert_eq!(read_time(&mut clock), Err(ClockError::NeverStill));
    }

    #[test]
    fn centuries_and_leap_years() {
        let noon = |century, year, month, day| {
            let time = [century, year, month, day, 0x12, 0, 0];
            read_time(&mut Script::new(HOURS_24, time))
        };
        assert_eq!(noon(0x19, 0x70, 1, 1), Ok(43_200));
        assert_eq!(noon(0, 0x70, 1, 1), Ok(43_200), "no century register");
        assert_eq!(noon(0xff, 0x00, 3, 1), Ok(951_912_000));
        assert_eq!(noon(0x20, 0x00, 2, 0x29), Ok(951_825_600));
        assert_eq!(noon(0x21, 0x00, 2, 0x29), Err(ClockError::BadField));
        assert_eq!(noon(0x20, 0x24, 2, 0x29), Ok(1_709_208_000));
        assert_eq!(noon(0x20, 0x25, 2, 0x29), Err(ClockError::BadField));
    }

    #[test]
    fn nonsense_is_refused() {
        let good = [0x20, 0x26, 0x11, 0x20, 0x16, 0x05, 0x09];
        for (field, bad) in [
            (1, 0xa0),
            (2, 0x13),
            (2, 0x00),
            (3, 0x31),
            (3, 0x00),
            (4, 0x24),
            (5, 0x60),
            (6, 0x6a),
        ] {
            let mut time = good;
            time[field] = bad;
            let read = read_time(&mut Script::new(HOURS_24, time));
            assert_eq!(read, Err(ClockError::BadField), "field {field} = {bad:#x}");
        }
        let mut clock = Script::new(HOURS_24, good);
        clock.registers[usize::from(register::D)] = 0;
        assert_eq!(read_time(&mut clock), Err(ClockError::NotValid));
    }
}
