//! Complaints that say where: file, line, column, what is wrong, what to do.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes of a text.
pub type Span = Range<usize>;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where.
    pub span: Span,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl Complaint {
    /// A complaint about `span`.
    pub fn new(span: &Span, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            span: span.clone(),
            what: what.into(),
            advice: advice.into(),
        }
    }
}

/// A file that was refused, with every complaint about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The file as it was named.
    pub path: PathBuf,
    text: String,
    /// What is wrong, in the order of the file.
    pub complaints: Vec<Complaint>,
}

impl Refusal {
    /// A refusal of `text`, which is the contents of `path`.
    pub fn new(path: &Path, text: &str, mut complaints: Vec<Complaint>) -> Self {
        complaints.sort_by_key(|complaint| complaint.span.start);
        complaints.dedup();
        Self {
            path: path.into(),
            text: text.into(),
            complaints,
        }
    }

    /// Line and column of a complaint, both counted from 1, the column in
    /// characters.
    pub fn place(&self, complaint: &Complaint) -> (usize, usize) {
        let start = floor_boundary(&self.text, complaint.span.start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, complaint: &Complaint) -> fmt::Result {
        let (line, column) = self.place(complaint);
        let path = self.path.display();
        write!(f, "{path}:{line}:{column}: {}", complaint.what)?;
        if let Some(text) = self.text.lines().nth(line - 1) {
            let number = line.to_string();
            let gutter = " ".repeat(number.len());
            let lead: String = text.chars().take(column - 1).map(blank).collect();
            let marks = "^".repeat(self.width(complaint, text, column));
            write!(f, "\n {number} | {text}\n {gutter} | {lead}{marks}")?;
        }
        write!(f, "\n advice: {}", complaint.advice)
    }

    /// How many characters of its line a complaint is about; at least one.
    fn width(&self, complaint: &Complaint, line: &str, column: usize) -> usize {
        let start = floor_boundary(&self.text, complaint.span.start);
        let end = floor_boundary(&self.text, complaint.span.end.max(start));
        let shown = self.text[start..end].lines().next().unwrap_or_default();
        let rest = line.chars().count().saturating_sub(column - 1);
        shown.trim_end().chars().count().clamp(1, rest.max(1))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, complaint) in self.complaints.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            self.write(f, complaint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Keeps tabs, so that marks stand below what they mark.
fn blank(character: char) -> char {
    if character == '\t' { '\t' } else { ' ' }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The one of `known` that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Jaro-Winkler similarity below which a guess is noise.
    const ALIKE: f64 = 0.8;
    let similar = |candidate: &str| {
        strsim::jaro_winkler(&word.to_ascii_lowercase(), &candidate.to_ascii_lowercase())
    };
    known
        .into_iter()
        .map(|candidate| (similar(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `did you mean ...?` and what there is to choose from.
pub fn choose(word: &str, known: &[&str], otherwise: &str) -> String {
    match (nearest(word, known.iter().copied()), known) {
        (Some(meant), _) => format!("did you mean `{meant}`?"),
        (None, []) => otherwise.into(),
        (None, known) => format!("choose from {}", listed(known)),
    }
}

/// `a`, `b` and `c`.
pub fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => "nothing".into(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_shown_with_its_line_and_mark() {
        let text = "one = 1\n\ttwö = 2 # tail\n";
        let at = text.find("2 #").unwrap();
        let complaint = Complaint::new(&(at..at + 1), "two is not 2", "write 3");
        let refusal = Refusal::new(Path::new("a.toml"), text, vec![complaint]);
        let shown = refusal.to_string();
        let expected =
            "a.toml:2:8: two is not 2\n 2 | \ttwö = 2 # tail\n   | \t      ^\n advice: write 3";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_complaint_behind_the_end_is_still_shown() {
        let complaint = Complaint::new(&(90..95), "something lacks", "add it");
        let refusal = Refusal::new(Path::new("a.toml"), "x\n", vec![complaint]);
        assert!(refusal.to_string().starts_with("a.toml:2:1: something"));
    }

    #[test]
    fn near_words_are_guessed_and_far_ones_listed() {
        assert_eq!(
            choose("consle", &["timer", "console"], ""),
            "did you mean `console`?"
        );
        assert_eq!(
            choose("xyz", &["timer", "console"], ""),
            "choose from `timer` and `console`"
        );
        assert_eq!(choose("xyz", &[], "declare one"), "declare one");
    }
}
