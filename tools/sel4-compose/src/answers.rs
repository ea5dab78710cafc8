//! A file of lines that are typed at the terminal, each at a prompt.
//!
//! | line of the file | what happens |
//! |---|---|
//! | any other text | it is typed at the next prompt, and Return |
//! | `@enter` | Return alone is typed at the next prompt |
//! | `@keys TEXT` | exactly `TEXT` at the next prompt: `^C` is Control-C, `^[` Escape |
//! | `@await TEXT` | nothing is typed until the terminal has shown `TEXT` |
//! | `# ...`, empty | nothing |
//!
//! A prompt is an unfinished line that ends with a space and that nothing
//! followed for [`QUIET`]. A program that stops in the middle of a line to work
//! looks like one; `@await` waits for what it says next.

use std::fmt::Write as _;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::terminal::{self, Typist};

/// How long the terminal is quiet at a prompt.
pub const QUIET: Duration = Duration::from_millis(200);

/// A line that means nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: `{text}` is none of `@enter`, `@keys TEXT` and `@await TEXT`; \
     `@@` begins a line that is typed with one `@`"
)]
pub struct AnswersError {
    /// Its number, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// Bytes for the next prompt.
    Type(Vec<u8>),
    /// Text that must have been shown.
    Await(String),
}

/// Types the lines of a file.
#[derive(Debug)]
pub struct Answers {
    /// With the number of the line each stands in.
    entries: Vec<(usize, Entry)>,
    done: usize,
    /// Bytes that were shown when something was typed or awaited last.
    seen: usize,
    /// Bytes that were shown at the last look, and since when.
    shown: (usize, Instant),
    line: Option<Sender<Vec<u8>>>,
}

impl Answers {
    /// Reads the contents of such a file.
    ///
    /// # Errors
    /// [`AnswersError`]: the first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, AnswersError> {
        let lines = text.lines().enumerate();
        let entries = lines.filter_map(|(index, line)| {
            let entry = parse_line(index + 1, line).transpose()?;
            Some(entry.map(|entry| (index + 1, entry)))
        });
        Ok(Self {
            entries: entries.collect::<Result<_, _>>()?,
            done: 0,
            seen: 0,
            shown: (0, Instant::now()),
            line: None,
        })
    }

    fn advance(&mut self, shown: &[u8], quiet: bool) -> bool {
        let Some((_, entry)) = self.entries.get(self.done) else {
            return false;
        };
        let news = &shown[self.seen..];
        match entry {
            Entry::Await(text) => match terminal::find(news, text.as_bytes()) {
                // A prompt may follow at once, or be part of the text.
                Some(at) => self.seen += at + text.len() - 1,
                None => return false,
            },
            Entry::Type(_) if !quiet || !is_prompt(news) => return false,
            Entry::Type(bytes) => {
                if let Some(line) = &self.line {
                    // The line's end is noticed as the machine's.
                    let _ = line.send(bytes.clone());
                }
                self.seen = shown.len();
            }
        }
        self.done += 1;
        true
    }
}

impl Typist for Answers {
    fn begin(&mut self, line: Sender<Vec<u8>>) {
        self.line = Some(line);
    }

    fn look(&mut self, shown: &[u8]) {
        if self.shown.0 != shown.len() {
            self.shown = (shown.len(), Instant::now());
        }
        let quiet = self.shown.1.elapsed() >= QUIET;
        while self.advance(shown, quiet) {}
    }

    fn complaint(&self, _shown: &[u8]) -> Option<String> {
        let (line, entry) = self.entries.get(self.done)?;
        let what = match entry {
            Entry::Type(bytes) => format!("{:?} was not typed", String::from_utf8_lossy(bytes)),
            Entry::Await(text) => format!("{text:?} was not shown"),
        };
        Some(format!("line {line} of the script was not reached: {what}"))
    }
}

/// Whether the terminal waits for a line: what it showed last is a prompt.
fn is_prompt(news: &[u8]) -> bool {
    let last = news.rsplit(|&byte| byte == b'\n').next().unwrap_or(news);
    last.ends_with(b" ")
}

fn parse_line(number: usize, line: &str) -> Result<Option<Entry>, AnswersError> {
    let typed = |text: &str| Entry::Type(format!("{text}\r").into_bytes());
    let command = match line.strip_prefix('@') {
        None if line.is_empty() || line.starts_with('#') => return Ok(None),
        None => return Ok(Some(typed(line))),
        Some(command) => command,
    };
    let entry = match command.split_once(' ').unwrap_or((command, "")) {
        ("enter", "") => typed(""),
        ("keys", keys) if !keys.is_empty() => Entry::Type(parse_keys(keys)),
        ("await", text) if !text.is_empty() => Entry::Await(text.into()),
        _ if command.starts_with('@') => typed(command),
        _ => {
            return Err(AnswersError {
                line: number,
                text: line.into(),
            });
        }
    };
    Ok(Some(entry))
}

/// `^C` and the like become control characters; all else stands for itself.
fn parse_keys(text: &str) -> Vec<u8> {
    let mut keys = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let control = characters.next_if(|next| character == '^' && ('?'..='_').contains(next));
        // `^?` is Delete, by the same arithmetic.
        let key = control.map_or(character, |letter| char::from(letter as u8 ^ 0x40));
        let _ = keys.write_char(key);
    }
    keys.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, Receiver};

    fn started(text: &str) -> (Answers, Receiver<Vec<u8>>) {
        let mut answers = Answers::parse(text).expect("a good file");
        let (line, typed) = mpsc::channel();
        answers.begin(line);
        (answers, typed)
    }

    /// As if `shown` had stood there for a while.
    fn look_long(answers: &mut Answers, shown: &[u8]) {
        answers.look(shown);
        answers.shown.1 = Instant::now() - QUIET;
        answers.look(shown);
    }

    #[test]
    fn a_line_is_typed_at_each_prompt() {
        let (mut answers, typed) = started("# who\nme\n\n@enter\n@@x\n");
        look_long(&mut answers, b"booting\r\n");
        assert!(typed.try_recv().is_err(), "no prompt yet");
        look_long(&mut answers, b"booting\r\nlogin: ");
        assert_eq!(typed.try_recv().unwrap(), b"me\r");
        look_long(&mut answers, b"booting\r\nlogin: ");
        assert!(typed.try_recv().is_err(), "the same prompt");
        look_long(&mut answers, b"booting\r\nlogin: me\r\n$ ");
        assert_eq!(typed.try_recv().unwrap(), b"\r");
        assert!(answers.complaint(b"").unwrap().starts_with("line 5 "));
        look_long(&mut answers, b"booting\r\nlogin: me\r\n$ \r\n$ ");
        assert_eq!(typed.try_recv().unwrap(), b"@x\r");
        assert_eq!(answers.complaint(b""), None);
    }

    #[test]
    fn a_prompt_that_goes_on_is_none() {
        let (mut answers, typed) = started("x");
        answers.look(b"working ");
        assert!(typed.try_recv().is_err(), "it may go on");
        look_long(&mut answers, b"working on");
        assert!(typed.try_recv().is_err());
    }

    #[test]
    fn awaited_text_may_end_with_the_prompt() {
        let (mut answers, typed) = started("@await ready\n@await $ \ngo\n");
        look_long(&mut answers, b"busy $ ");
        assert!(typed.try_recv().is_err());
        look_long(&mut answers, b"busy $ ready\r\n$ ");
        assert_eq!(typed.try_recv().unwrap(), b"go\r");
    }

    #[test]
    fn keys_are_sent_as_they_are() {
        let (mut answers, typed) = started("@keys half^C^[[A^?^");
        look_long(&mut answers, b"$ ");
        assert_eq!(typed.try_recv().unwrap(), b"half\x03\x1b[A\x7f^");
    }

    #[test]
    fn a_line_that_means_nothing_is_refused_with_its_number() {
        for text in ["@entre", "@keys", "@await ", "@enter now"] {
            let refused = Answers::parse(&format!("ok\n{text}\n")).unwrap_err();
            assert_eq!((refused.line, &*refused.text), (2, text));
        }
    }
}
