//! A file of lines that are typed at the terminal, each at a prompt.
//!
//! | line of the file | what happens |
//! |---|---|
//! | any other text | it is typed at the next prompt, and Return |
//! | `@enter` | Return alone is typed at the next prompt |
//! | `@keys TEXT` | exactly `TEXT` at the next prompt: `^C` is Control-C, `^[` Escape |
//! | `@await TEXT` | nothing is typed until the terminal has shown `TEXT` |
//! | `@prompt TEXT` | in the whole file, `TEXT` and a space are what a prompt ends with |
//! | `# ...`, empty | nothing |
//!
//! A prompt is an unfinished line that ends with a space and that nothing
//! followed for [`QUIET`]; behind a line that was typed it is another one. A
//! program that stops in the middle of a line to work looks like one, and so does
//! a machine that is held up there. `@await` waits for what the program says next;
//! a file that has `@prompt` lines, one for each, takes nothing else for a prompt.

use std::fmt::Write as _;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::terminal::{self, Typist};

/// How long the terminal is quiet at a prompt.
pub const QUIET: Duration = Duration::from_millis(200);

/// A line that means nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}: `{text}` is none of `@enter`, `@keys TEXT`, `@await TEXT` and \
     `@prompt TEXT`; `@@` begins a line that is typed with one `@`"
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

/// A line of the file.
enum Line {
    Entry(Entry),
    /// What a prompt may end with, space included.
    Prompt(String),
    Nothing,
}

/// Types the lines of a file.
#[derive(Debug)]
pub struct Answers {
    /// With the number of the line each stands in.
    entries: Vec<(usize, Entry)>,
    /// What prompts end with; nothing in particular if there are none.
    prompts: Vec<String>,
    done: usize,
    /// Bytes that were shown when something was typed or awaited last.
    seen: usize,
    /// A line was typed whose end was not seen yet.
    is_in_line: bool,
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
        let (mut entries, mut prompts) = (Vec::new(), Vec::new());
        for (index, line) in lines {
            match parse_line(index + 1, line)? {
                Line::Prompt(end) => prompts.push(end),
                Line::Entry(entry) => entries.push((index + 1, entry)),
                Line::Nothing => {}
            }
        }
        Ok(Self {
            entries,
            prompts,
            done: 0,
            seen: 0,
            is_in_line: false,
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
                Some(at) => {
                    self.seen += at + text.len() - 1;
                    self.is_in_line = false;
                }
                None => return false,
            },
            Entry::Type(_) if !quiet || !self.is_prompt(news) => return false,
            Entry::Type(bytes) => {
                if let Some(line) = &self.line {
                    // The line's end is noticed as the machine's.
                    let _ = line.send(bytes.clone());
                }
                self.seen = shown.len();
                self.is_in_line = bytes.ends_with(b"\r");
            }
        }
        self.done += 1;
        true
    }

    /// Whether the terminal waits for a line: what it showed last is a prompt.
    fn is_prompt(&self, news: &[u8]) -> bool {
        let mut lines = news.rsplit(|&byte| byte == b'\n');
        let last = lines.next().unwrap_or(news);
        if self.is_in_line && lines.next().is_none() {
            return false;
        }
        match &self.prompts[..] {
            [] => last.ends_with(b" "),
            prompts => prompts.iter().any(|end| last.ends_with(end.as_bytes())),
        }
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

fn parse_line(number: usize, line: &str) -> Result<Line, AnswersError> {
    let typed = |text: &str| Entry::Type(format!("{text}\r").into_bytes());
    let command = match line.strip_prefix('@') {
        None if line.is_empty() || line.starts_with('#') => return Ok(Line::Nothing),
        None => return Ok(Line::Entry(typed(line))),
        Some(command) => command,
    };
    let entry = match command.split_once(' ').unwrap_or((command, "")) {
        ("enter", "") => typed(""),
        ("keys", keys) if !keys.is_empty() => Entry::Type(parse_keys(keys)),
        ("await", text) if !text.is_empty() => Entry::Await(text.into()),
        ("prompt", text) if !text.trim().is_empty() => {
            return Ok(Line::Prompt(format!("{} ", text.trim_end())));
        }
        _ if command.starts_with('@') => typed(command),
        _ => {
            return Err(AnswersError {
                line: number,
                text: line.into(),
            });
        }
    };
    Ok(Line::Entry(entry))
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
    fn only_what_the_file_says_is_a_prompt() {
        let (mut answers, typed) = started("one\ntwo\n@prompt login:\n@prompt $\n");
        look_long(&mut answers, b"Every resource is a ");
        assert!(typed.try_recv().is_err(), "held up in the middle of a line");
        look_long(&mut answers, b"Every resource is a capability\r\nlogin: ");
        assert_eq!(typed.try_recv().unwrap(), b"one\r");
        let echoed = b"Every resource is a capability\r\nlogin: \rlogin: ".to_vec();
        look_long(&mut answers, &echoed);
        assert!(typed.try_recv().is_err(), "the line is drawn again");
        look_long(&mut answers, &[&echoed[..], b"one\r\n$ "].concat());
        assert_eq!(typed.try_recv().unwrap(), b"two\r");
        assert_eq!(answers.complaint(b""), None);
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
        for text in ["@entre", "@keys", "@await ", "@enter now", "@prompt  "] {
            let refused = Answers::parse(&format!("ok\n{text}\n")).unwrap_err();
            assert_eq!((refused.line, &*refused.text), (2, text));
        }
    }
}
