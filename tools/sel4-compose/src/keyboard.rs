//! The terminal of the guest on the terminal of whoever started it.
//!
//! Standard input is put into raw mode, so that every key reaches the guest;
//! ctrl-a begins the few that do not. The mode it had comes back when
//! [`RawMode`] is dropped, and when a signal ends this process.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{self, SetArg, Termios};

use crate::terminal::Typist;

/// Begins a key for this program.
const PREFIX: u8 = 0x01;
/// What ctrl-a ? shows.
pub const HELP: &str = "ctrl-a x leaves, ctrl-a ctrl-a sends ctrl-a, ctrl-a ? shows this";

/// Standard input is not a terminal.
#[derive(Debug, thiserror::Error)]
#[error(
    "standard input is not a terminal: give SCRIPT=file with what is to be typed, or HEADLESS=1"
)]
pub struct NoTerminal;

/// Standard input in raw mode, until dropped.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Makes standard input raw.
    ///
    /// Signals that would end this process end the run instead, so that the
    /// mode is restored: `leave` becomes true. Call it before other threads
    /// exist, since they inherit that the signals are blocked.
    ///
    /// # Errors
    /// [`NoTerminal`]
    pub fn enter(leave: &Arc<AtomicBool>) -> Result<Self, NoTerminal> {
        let before = termios::tcgetattr(io::stdin()).map_err(|_| NoTerminal)?;
        let signals: SigSet = [
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGTERM,
        ]
        .into_iter()
        .collect();
        signals.thread_block().map_err(|_| NoTerminal)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).map_err(|_| NoTerminal)?;
        let leave = Arc::clone(leave);
        thread::spawn(move || {
            if signals.wait().is_ok() {
                leave.store(true, Ordering::Relaxed);
            }
        });
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// What a byte from the keyboard is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// The guest.
    Guest(u8),
    /// The machine is to be stopped.
    Leave,
    /// The keys are to be explained.
    Help,
    /// Nothing, or nothing yet.
    Nothing,
}

/// Tells the keys for this program from those for the guest.
#[derive(Debug, Default)]
struct Prefix {
    begun: bool,
}

impl Prefix {
    fn step(&mut self, byte: u8) -> Key {
        if !std::mem::replace(&mut self.begun, false) {
            self.begun = byte == PREFIX;
            return match self.begun {
                true => Key::Nothing,
                false => Key::Guest(byte),
            };
        }
        match byte {
            b'x' | b'X' => Key::Leave,
            b'?' | b'h' => Key::Help,
            PREFIX | b'a' => Key::Guest(PREFIX),
            _ => Key::Nothing,
        }
    }
}

/// Types what a person types.
#[derive(Debug)]
pub struct Keyboard {
    leave: Arc<AtomicBool>,
}

impl Keyboard {
    /// A keyboard; the machine is stopped once `leave` is true.
    pub fn new(leave: Arc<AtomicBool>) -> Self {
        Self { leave }
    }
}

impl Typist for Keyboard {
    fn begin(&mut self, line: Sender<Vec<u8>>) {
        let leave = Arc::clone(&self.leave);
        thread::spawn(move || pass_on(io::stdin(), &line, &leave));
    }

    fn look(&mut self, _shown: &[u8]) {}

    fn leaves(&self) -> bool {
        self.leave.load(Ordering::Relaxed)
    }

    fn complaint(&self, _shown: &[u8]) -> Option<String> {
        None
    }
}

/// Passes keys on until the person leaves, or the keyboard ends.
fn pass_on(mut keys: impl Read, line: &Sender<Vec<u8>>, leave: &AtomicBool) {
    let mut prefix = Prefix::default();
    let mut buffer = [0; 256];
    while let Ok(count @ 1..) = keys.read(&mut buffer) {
        let mut typed = Vec::new();
        for &byte in &buffer[..count] {
            match prefix.step(byte) {
                Key::Guest(byte) => typed.push(byte),
                Key::Help => explain(),
                Key::Leave => leave.store(true, Ordering::Relaxed),
                Key::Nothing => {}
            }
        }
        if line.send(typed).is_err() {
            return;
        }
    }
    // Nobody is there any more.
    leave.store(true, Ordering::Relaxed);
}

fn explain() {
    let mut out = io::stdout().lock();
    let _ = write!(out, "\r\n[{HELP}]\r\n").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn ctrl_a_begins_the_keys_that_are_not_for_the_guest() {
        let keys = |bytes: &[u8]| -> Vec<Key> {
            let mut prefix = Prefix::default();
            let keys = bytes.iter().map(|&byte| prefix.step(byte));
            keys.filter(|&key| key != Key::Nothing).collect()
        };
        assert_eq!(keys(b"x\x03"), [Key::Guest(b'x'), Key::Guest(3)]);
        assert_eq!(keys(b"\x01x"), [Key::Leave]);
        assert_eq!(keys(b"\x01?"), [Key::Help]);
        assert_eq!(keys(b"\x01\x01x"), [Key::Guest(1), Key::Guest(b'x')]);
        assert_eq!(keys(b"\x01zx"), [Key::Guest(b'x')]);
    }

    #[test]
    fn a_keyboard_that_ends_leaves() {
        let (line, typed) = mpsc::channel();
        let leave = AtomicBool::new(false);
        pass_on(&b"ls\r"[..], &line, &leave);
        assert_eq!(typed.recv().unwrap(), b"ls\r");
        assert!(leave.into_inner());
    }
}
