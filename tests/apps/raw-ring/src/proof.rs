//! A program that proves one thing, says so on its console, and exits with 0;
//! or says what went wrong and exits with 1.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Debug;

use capos::{CapSet, Runtime, capos_capnp};

use crate::{RawRing, Sqe, call};

/// `Console.writeLine`.
const WRITE_LINE: u16 = 1;
/// Name of the console in every proof's CapSet.
const CONSOLE: &str = "console";

/// What went wrong, in words.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure with this explanation.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Says where it happened.
    pub fn within(self, what: &str) -> Self {
        Self(alloc::format!("{what}: {}", self.0))
    }
}

/// What a proof comes to.
pub type Proof = Result<(), Failure>;

/// Says so unless `actual` is `expected`.
///
/// # Errors
/// It is not.
pub fn equal<T: PartialEq + Debug>(what: &str, actual: T, expected: T) -> Proof {
    if actual == expected {
        return Ok(());
    }
    Err(Failure(alloc::format!(
        "{what}: {actual:?}, not {expected:?}"
    )))
}

/// Says so unless `condition` holds.
///
/// # Errors
/// It does not.
pub fn that(condition: bool, otherwise: &str) -> Proof {
    if condition {
        Ok(())
    } else {
        Err(Failure(otherwise.to_string()))
    }
}

/// The process a proof runs in.
pub struct Process {
    /// Its ring.
    pub ring: RawRing,
    capset: CapSet,
    pid: u64,
}

impl Process {
    /// Takes a process over from its runtime, whose ring client must not be
    /// used any more.
    pub fn new(runtime: &Runtime) -> Self {
        Self {
            // SAFETY: the runtime's page; it lends no client while we run.
            ring: unsafe { RawRing::new(runtime.ring()) },
            capset: runtime.capset(),
            pid: runtime.pid(),
        }
    }

    /// Its number.
    pub fn pid(&self) -> u64 {
        self.pid
    }

    /// What it was granted.
    pub fn capset(&self) -> CapSet {
        self.capset
    }

    /// The capability granted as `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn cap(&self, name: &str) -> Result<u32, Failure> {
        self.capset
            .get(name.as_bytes())
            .map(|capability| capability.cap_id())
            .map_err(|_| Failure(alloc::format!("no capability `{name}`")))
    }

    /// The number that a capability's name ends in: with `seed-7` granted,
    /// `seed` is 7. What it grants does not matter; it is a way to tell a
    /// program something.
    pub fn told(&self, name: &str) -> Option<u64> {
        self.capset.iter().find_map(|entry| {
            let name_bytes = entry.name.get(..entry.name_len as usize)?;
            let number = core::str::from_utf8(name_bytes)
                .ok()?
                .strip_prefix(name)?
                .strip_prefix('-')?;
            number.parse().ok()
        })
    }

    /// Writes a line on the console.
    ///
    /// # Errors
    /// There is no console, or it refuses.
    pub fn print(&mut self, text: &str) -> Proof {
        let console = self.cap(CONSOLE)?;
        self.print_through(console, text)
    }

    /// Writes a line on a console held under another number.
    ///
    /// # Errors
    /// It is no console, or it refuses.
    pub fn print_through(&mut self, console: u32, text: &str) -> Proof {
        let params = line_params(text);
        let line = call(console, WRITE_LINE).params(&params);
        self.ring.expect("Console.writeLine", line, 0).map(drop)
    }
}

/// Params of `Console.writeLine`.
pub fn line_params(text: &str) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<capos_capnp::console::write_line_params::Builder<'_>>()
        .set_text(text);
    capnp::serialize::write_message_to_words(&message)
}

/// Params of a method that takes none.
pub fn no_params() -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message.init_root::<capos_capnp::timer::now_params::Builder<'_>>();
    capnp::serialize::write_message_to_words(&message)
}

/// Runs `prove` and prints what it came to as one line that begins with
/// `name`. Returns the exit code.
pub fn run(runtime: &Runtime, name: &str, prove: impl FnOnce(&mut Process) -> Proof) -> i64 {
    let mut process = Process::new(runtime);
    let outcome = prove(&mut process);
    conclude(&mut process, name, &outcome)
}

/// As [`run`], for a program that starts others and therefore needs its
/// runtime.
pub fn run_parent(
    mut runtime: Runtime,
    name: &str,
    prove: impl FnOnce(&mut Runtime) -> Proof,
) -> i64 {
    let outcome = prove(&mut runtime);
    conclude(&mut Process::new(&runtime), name, &outcome)
}

fn conclude(process: &mut Process, name: &str, outcome: &Proof) -> i64 {
    let line = match outcome {
        Ok(()) => alloc::format!("{name}: proved"),
        Err(Failure(text)) => alloc::format!("{name}: FAILED: {text}"),
    };
    // Without a console only the exit code tells.
    let _ = process.print(&line);
    i64::from(outcome.is_err())
}
