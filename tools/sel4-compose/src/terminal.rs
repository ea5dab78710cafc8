//! What is typed at the guest's terminal (COM2), and when.
//!
//! A [`Typist`] is told what the terminal shows as it comes, and types through a
//! channel. A thread writes what it typed to the line; QEMU takes bytes only as
//! fast as the guest does, so nothing is lost however much is typed.

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// After how long something is typed again that is typed until it helps.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Types at a terminal.
pub trait Typist {
    /// The machine runs from here on; bytes sent to `line` are typed.
    fn begin(&mut self, line: Sender<Vec<u8>>);

    /// Everything the terminal has shown so far; told at least every tenth of a
    /// second.
    fn look(&mut self, shown: &[u8]);

    /// Whether the machine is to be stopped.
    fn leaves(&self) -> bool {
        false
    }

    /// What was to be done and was not, if the end came too early.
    fn complaint(&self, shown: &[u8]) -> Option<String>;
}

/// Writes what is typed to `line` until nobody types any more, or the line ends.
pub fn forward(typed: Receiver<Vec<u8>>, mut line: impl Write + Send + 'static) {
    thread::spawn(move || {
        for bytes in typed {
            if line.write_all(&bytes).is_err() {
                return;
            }
        }
    });
}

/// One step of a conversation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", untagged)]
pub enum Step {
    /// Wait until the terminal shows this, behind what was waited for before.
    Expect(Expect),
    /// Type this and Return.
    Line(Line),
    /// Type exactly these bytes.
    Raw(Raw),
    /// Type bytes without meaning.
    Random(Random),
    /// Type many lines that differ.
    Numbered(Numbered),
    /// Type one character again and again, each time after it was echoed.
    Echoed(Echoed),
}

/// See [`Step::Expect`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The text.
    pub expect: String,
}

/// See [`Step::Line`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The line, without its end.
    pub send: String,
}

/// See [`Step::Raw`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// The text; TOML's escapes make control characters.
    pub raw: String,
    /// How often.
    #[serde(default = "once")]
    pub times: usize,
    /// Type it again every second until the terminal shows this.
    pub until: Option<String>,
}

/// See [`Step::Echoed`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Echoed {
    /// The character.
    pub echoed: char,
    /// How often.
    pub times: usize,
}

/// See [`Step::Numbered`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbered {
    /// How many lines of 32 bytes with their ends; the first has number 0.
    pub numbered: usize,
}

impl Numbered {
    fn bytes(&self) -> Vec<u8> {
        let lines =
            (0..self.numbered).map(|number| format!("{number:07} the line has its number\r"));
        lines.collect::<String>().into_bytes()
    }
}

/// See [`Step::Random`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Random {
    /// How many bytes.
    pub random: usize,
    /// Which ones.
    #[serde(default = "first_seed")]
    pub seed: u64,
    /// Bytes that are not among them.
    #[serde(default)]
    pub except: String,
}

const fn once() -> usize {
    1
}

const fn first_seed() -> u64 {
    1
}

impl Random {
    /// The bytes: xorshift64 of the seed.
    pub fn bytes(&self) -> Vec<u8> {
        let mut state = self.seed.max(1);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        let mut wanted = core::iter::repeat_with(&mut next)
            .filter(|byte| !self.except.as_bytes().contains(byte));
        wanted.by_ref().take(self.random).collect()
    }
}

/// Goes through the steps of a conversation.
#[derive(Debug)]
pub struct Script {
    steps: Vec<Step>,
    done: usize,
    /// Where in what was shown the last awaited text ends.
    seen: usize,
    /// Up to where the next one was looked for in vain.
    searched: usize,
    /// When something was typed that is typed again.
    typed: Option<Instant>,
    /// How often something was typed that is to be echoed.
    echoes: usize,
    line: Option<Sender<Vec<u8>>>,
}

impl Script {
    /// A typist for these steps.
    pub fn new(steps: &[Step]) -> Self {
        Self {
            steps: steps.to_vec(),
            done: 0,
            seen: 0,
            searched: 0,
            typed: None,
            echoes: 0,
            line: None,
        }
    }

    fn send(&self, bytes: Vec<u8>) {
        if let Some(line) = &self.line {
            // The line's end is noticed as the machine's.
            let _ = line.send(bytes);
        }
    }

    /// Whether the terminal has shown `text` behind what was awaited before it,
    /// which it then is too.
    fn has_shown(&mut self, shown: &[u8], text: &str) -> bool {
        // A beginning of it may be what was shown last.
        let from = self.seen.max(self.searched.saturating_sub(text.len()));
        self.searched = shown.len();
        let Some(at) = find(&shown[from..], text.as_bytes()) else {
            return false;
        };
        self.seen = from + at + text.len();
        self.searched = self.seen;
        true
    }

    /// Does the next step if it can be done; whether it was.
    fn advance(&mut self, shown: &[u8]) -> bool {
        let Some(step) = self.steps.get(self.done).cloned() else {
            return false;
        };
        match step {
            Step::Expect(Expect { expect }) => {
                if !self.has_shown(shown, &expect) {
                    return false;
                }
            }
            Step::Line(Line { send }) => self.send(format!("{send}\r").into_bytes()),
            Step::Raw(Raw { raw, times, until }) => {
                let again =
                    until.is_some() && self.typed.is_none_or(|at| at.elapsed() >= AGAIN_AFTER);
                if until.is_none() || again {
                    self.send(raw.repeat(times).into_bytes());
                    self.typed = Some(Instant::now());
                }
                if let Some(until) = until
                    && !self.has_shown(shown, &until)
                {
                    return false;
                }
                self.typed = None;
            }
            Step::Numbered(numbered) => self.send(numbered.bytes()),
            Step::Echoed(Echoed { echoed, times }) => {
                let text = echoed.to_string();
                if self.echoes > 0 && !self.has_shown(shown, &text) {
                    return false;
                }
                if self.echoes < times {
                    self.echoes += 1;
                    self.send(text.into_bytes());
                    return false;
                }
                self.echoes = 0;
            }
            Step::Random(random) => self.send(random.bytes()),
        }
        self.done += 1;
        true
    }
}

impl Typist for Script {
    fn begin(&mut self, line: Sender<Vec<u8>>) {
        self.line = Some(line);
    }

    fn look(&mut self, shown: &[u8]) {
        while self.advance(shown) {}
    }

    fn complaint(&self, shown: &[u8]) -> Option<String> {
        const SHOWN_LAST: usize = 400;
        let step = self.steps.get(self.done)?;
        let rest = &shown[self.seen..];
        let rest = String::from_utf8_lossy(&rest[rest.len().saturating_sub(SHOWN_LAST)..]);
        Some(format!(
            "terminal step {} was not reached: {step:?}; after the one before it the terminal \
             showed {rest:?}",
            self.done + 1
        ))
    }
}

/// Where `wanted` begins in `text`.
pub(crate) fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    text.windows(wanted.len()).position(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn steps(text: &str) -> Vec<Step> {
        #[derive(Deserialize)]
        struct Steps {
            terminal: Vec<Step>,
        }
        toml::from_str::<Steps>(text).expect("steps").terminal
    }

    #[test]
    fn steps_wait_for_what_is_shown_and_in_order() {
        let steps = steps(
            "terminal = [{ expect = 'login: ' }, { send = 'me' }, { expect = '$ ' }, \
             { raw = '#', times = 2 }, { random = 3 }]",
        );
        let (sender, typed) = mpsc::channel();
        let mut script = Script::new(&steps);
        script.begin(sender);
        script.look(b"$ log");
        assert!(typed.try_recv().is_err());
        assert!(script.complaint(b"$ log").unwrap().contains("step 1"));
        script.look(b"$ login: ");
        assert_eq!(typed.try_recv().unwrap(), b"me\r");
        script.look(b"$ login: me\r\n");
        assert!(typed.try_recv().is_err(), "the earlier `$ ` does not count");
        script.look(b"$ login: me\r\n$ ");
        assert_eq!(typed.try_recv().unwrap(), b"##");
        assert_eq!(typed.try_recv().unwrap().len(), 3);
        assert_eq!(script.complaint(b"$ login: me\r\n$ "), None);
    }

    #[test]
    fn what_is_typed_until_it_helps_is_typed_again() {
        let steps = steps("terminal = [{ raw = 'x', until = 'ok' }, { numbered = 2 }]");
        let (sender, typed) = mpsc::channel();
        let mut script = Script::new(&steps);
        script.begin(sender);
        script.look(b"");
        script.look(b"x");
        assert_eq!(typed.try_iter().count(), 1, "a second has not passed");
        script.typed = script.typed.and_then(|at| at.checked_sub(AGAIN_AFTER));
        script.look(b"x");
        assert_eq!(typed.try_iter().count(), 1);
        script.look(b"xok");
        let lines = typed.try_recv().expect("the next step");
        assert_eq!((lines.len(), lines[31], lines[38]), (64, b'\r', b'1'));
        assert_eq!(script.complaint(b"xok"), None);
    }

    #[test]
    fn each_character_waits_for_the_last_ones_echo() {
        let steps = steps("terminal = [{ echoed = '~', times = 2 }, { send = 'x' }]");
        let (sender, typed) = mpsc::channel();
        let mut script = Script::new(&steps);
        script.begin(sender);
        script.look(b"> ");
        script.look(b"> ");
        assert_eq!(typed.try_iter().count(), 1);
        script.look(b"> ~");
        script.look(b"> ~");
        assert_eq!(typed.try_iter().count(), 1);
        script.look(b"> ~~");
        assert_eq!(typed.try_recv().expect("the next step"), b"x\r");
    }

    #[test]
    fn an_unknown_step_is_refused() {
        #[derive(Debug, Deserialize)]
        struct Steps {
            #[expect(dead_code, reason = "parsing is what is tested")]
            terminal: Vec<Step>,
        }
        toml::from_str::<Steps>("terminal = [{ sent = 'x' }]").expect_err("no such step");
    }

    #[test]
    fn random_bytes_depend_on_the_seed_alone() {
        let bytes = |seed, except: &str| {
            let except = except.into();
            let random = 1000;
            Random {
                random,
                seed,
                except,
            }
            .bytes()
        };
        assert_eq!(bytes(7, ""), bytes(7, ""));
        assert_ne!(bytes(7, ""), bytes(8, ""));
        let without = bytes(7, "\r\n");
        assert_eq!(without.len(), 1000);
        assert!(!without.contains(&b'\r') && bytes(7, "").contains(&b'\r'));
    }
}
