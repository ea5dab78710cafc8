//! The most recent log records, in a ring of bounded size.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

/// Records kept.
pub const RECORDS_MAX: usize = 256;
/// Records of one answer.
pub const READ_MAX: usize = 16;
/// Bytes of a component's name.
pub const COMPONENT_BYTES_MAX: usize = 32;
/// Bytes of a message. With [`READ_MAX`] records of this size an answer fits
/// the 8 KiB a reader has.
pub const MESSAGE_BYTES_MAX: usize = 256;

/// Severity, as the schema's `LogLevel` orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who look for an error.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was accepted, in ticks of the system's clock.
    pub tick: u64,
    /// Its severity.
    pub level: Level,
    /// Who wrote it, as the writer says.
    pub component: String,
    /// The writer's process, as the writer says.
    pub pid: u32,
    /// What it says.
    pub message: String,
}

/// What a reader wants to see.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// The least severity.
    pub level: Level,
    /// How the component's name begins.
    pub component: &'a str,
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Records, oldest first.
    pub records: Vec<Record>,
    /// Where to read on.
    pub next: u64,
    /// Records that were overwritten so far.
    pub dropped: u64,
}

/// The ring. The first record has number 1.
#[derive(Clone, Debug)]
pub struct Journal {
    threshold: Level,
    records: VecDeque<Record>,
    /// Number of the oldest record kept; also one more than were dropped.
    first: u64,
}

impl Journal {
    /// Keeps records of at least this severity.
    #[must_use]
    pub fn new(threshold: Level) -> Self {
        Self {
            threshold,
            records: VecDeque::with_capacity(RECORDS_MAX),
            first: 1,
        }
    }

    /// Whether records of this severity are kept.
    #[must_use]
    pub fn accepts(&self, level: Level) -> bool {
        level >= self.threshold
    }

    /// Keeps a record, shortened to the bounds, unless it is below the
    /// threshold; says whether it did.
    pub fn write(&mut self, mut record: Record) -> bool {
        if !self.accepts(record.level) {
            return false;
        }
        cut(&mut record.component, COMPONENT_BYTES_MAX);
        cut(&mut record.message, MESSAGE_BYTES_MAX);
        if self.records.len() == RECORDS_MAX {
            self.records.pop_front();
            self.first += 1;
        }
        self.records.push_back(record);
        true
    }

    /// The record that was kept last.
    #[must_use]
    pub fn newest(&self) -> Option<&Record> {
        self.records.back()
    }

    /// Records from number `cursor` on, the oldest kept if that one is gone.
    #[must_use]
    pub fn read(&self, cursor: u64, count: usize, filter: Filter<'_>) -> Read {
        let end = self.first + self.records.len() as u64;
        let mut next = cursor.clamp(self.first, end);
        let mut records = Vec::new();
        let count = count.min(READ_MAX);
        while records.len() < count && next < end {
            let Some(record) = self.records.get((next - self.first) as usize) else {
                break;
            };
            next += 1;
            if record.level >= filter.level && record.component.starts_with(filter.component) {
                records.push(record.clone());
            }
        }
        Read {
            records,
            next,
            dropped: self.first - 1,
        }
    }
}

/// Shortens a text to at most `bytes`, between characters.
fn cut(text: &mut String, bytes: usize) {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    // What was cut off is not kept either.
    text.shrink_to_fit();
}

/// A text on one line: what would move the cursor or end the line is escaped.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let plain = !c.is_control() && c != '\\';
            let escape = (!plain).then(|| c.escape_default());
            let plain = plain.then_some(c);
            plain.into_iter().chain(escape.into_iter().flatten())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn record(level: Level, component: &str, message: &str) -> Record {
        Record {
            tick: 1,
            level,
            component: component.into(),
            pid: 2,
            message: message.into(),
        }
    }

    const ALL: Filter<'static> = Filter {
        level: Level::Debug,
        component: "",
    };

    #[test]
    fn what_is_below_the_threshold_is_not_kept() {
        let mut journal = Journal::new(Level::Warn);
        assert!(!journal.write(record(Level::Info, "a", "x")));
        assert!(journal.write(record(Level::Warn, "a", "y")));
        let read = journal.read(0, 16, ALL);
        assert_eq!(read.records.len(), 1);
        assert_eq!((read.next, read.dropped), (2, 0));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let mut journal = Journal::new(Level::Debug);
        let long = "é".repeat(MESSAGE_BYTES_MAX);
        assert!(journal.write(record(Level::Error, &long, &long)));
        let kept = &journal.read(0, 1, ALL).records[0];
        assert_eq!(kept.component.len(), COMPONENT_BYTES_MAX);
        assert_eq!(kept.message.len(), MESSAGE_BYTES_MAX);
        let room = journal.newest().map(|record| record.message.capacity());
        assert!(room < Some(2 * MESSAGE_BYTES_MAX), "{room:?}");
        let odd = alloc::format!("x{long}");
        assert!(journal.write(record(Level::Error, "c", &odd)));
        let kept = &journal.read(2, 1, ALL).records[0];
        assert_eq!(kept.message.len(), MESSAGE_BYTES_MAX - 1);
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(escaped("a\nb\x1b[2J\\n"), "a\\nb\\u{1b}[2J\\\\n");
        assert_eq!(escaped("plain é"), "plain é");
    }

    proptest! {
        /// A reader that goes on where it was told sees every record that was
        /// not overwritten before it came, once, in order, and is told of the
        /// others.
        #[test]
        fn a_reader_sees_what_was_not_overwritten(steps in proptest::collection::vec((0usize..400, 0usize..20), 1..20)) {
            let mut journal = Journal::new(Level::Debug);
            let (mut written, mut cursor, mut last) = (0u64, 0u64, 0u64);
            for (writes, count) in steps {
                for _ in 0..writes {
                    written += 1;
                    journal.write(record(Level::Info, "c", &written.to_string()));
                }
                let oldest = written.saturating_sub(RECORDS_MAX as u64) + 1;
                let read = journal.read(cursor, count, ALL);
                prop_assert_eq!(read.dropped, oldest - 1);
                prop_assert!(read.records.len() <= count.min(READ_MAX));
                for record in &read.records {
                    let number: u64 = record.message.parse().expect("a number");
                    prop_assert_eq!(number, (last + 1).max(oldest));
                    last = number;
                }
                if count == 0 {
                    prop_assert_eq!(read.next, cursor.max(oldest));
                }
                cursor = read.next;
                last = last.max(cursor - 1);
            }
        }

        /// The filter hides records and moves the cursor past them.
        #[test]
        fn a_filter_only_hides(levels in proptest::collection::vec(0u8..4, 0..40), least in 0u8..4) {
            let level = |n| [Level::Debug, Level::Info, Level::Warn, Level::Error][usize::from(n)];
            let mut journal = Journal::new(Level::Debug);
            for n in &levels {
                journal.write(record(level(*n), if n % 2 == 0 { "even" } else { "odd" }, "m"));
            }
            let filter = Filter { level: level(least), component: "ev" };
            let (mut cursor, mut seen) = (0, 0);
            loop {
                let read = journal.read(cursor, 16, filter);
                seen += read.records.len();
                if read.records.is_empty() { break; }
                cursor = read.next;
            }
            let expected = levels.iter().filter(|n| **n >= least && **n % 2 == 0).count();
            prop_assert_eq!(seen, expected);
        }
    }
}
