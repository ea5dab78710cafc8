//! Earlier lines, oldest first, within the bounds of `readEdited`.

use alloc::collections::VecDeque;
use alloc::string::String;

/// Most lines that are kept.
pub const LINES_MAX: usize = 64;
/// Most bytes that all lines together have.
pub const BYTES_MAX: usize = 4096;

/// Earlier lines.
#[derive(Clone, Debug, Default)]
pub struct History {
    lines: VecDeque<String>,
    bytes: usize,
}

impl History {
    /// Keeps a line, and as many of those before it as there is room for. An
    /// empty line, a repetition and a line larger than all room are not kept.
    pub fn push(&mut self, line: &str) {
        let repeated = self.lines.back().is_some_and(|last| last == line);
        if line.trim().is_empty() || repeated || line.len() > BYTES_MAX {
            return;
        }
        self.lines.push_back(String::from(line));
        self.bytes += line.len();
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let oldest = self.lines.pop_front();
            self.bytes -= oldest.map_or(self.bytes, |line| line.len());
        }
    }

    /// The lines, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn repetitions_and_blanks_are_left_out() {
        let mut history = History::default();
        for line in ["caps", "caps", " ", "", "session", "caps"] {
            history.push(line);
        }
        let kept: Vec<&str> = history.iter().collect();
        assert_eq!(kept, ["caps", "session", "caps"]);
    }

    proptest! {
        #[test]
        fn the_newest_lines_stay_and_fit(lines in proptest::collection::vec(".{0,300}", 0..200)) {
            let mut history = History::default();
            for line in &lines {
                history.push(line);
            }
            let kept: Vec<&str> = history.iter().collect();
            prop_assert!(kept.len() <= LINES_MAX);
            prop_assert!(kept.iter().map(|line| line.len()).sum::<usize>() <= BYTES_MAX);
            let newest = lines.iter().rfind(|line| !line.trim().is_empty() && line.len() <= BYTES_MAX);
            prop_assert_eq!(kept.last().copied(), newest.map(String::as_str));
        }
    }
}
