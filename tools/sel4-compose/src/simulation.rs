//! A run with the guest's terminal in front: a person's, or one that a file
//! types at.
//!
//! Console and log go into files, so that the terminal shows what a person at
//! the machine would see, and nothing else.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::answers::Answers;
use crate::keyboard::{self, Keyboard, NoTerminal, RawMode};
use crate::qemu::{Machine, Outcome, Output, QemuError};
use crate::symbols::{SymbolTables, is_fault};
use crate::terminal::Typist;

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// See [`QemuError`].
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// See [`NoTerminal`].
    #[error(transparent)]
    NoTerminal(#[from] NoTerminal),
    /// A file of output could not be made.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Who types.
pub enum Hands {
    /// The person at standard input.
    Person,
    /// A file.
    File(Answers),
    /// Nobody.
    Nobody,
}

/// Where the output goes that is not the terminal's.
#[derive(Clone, Debug)]
pub struct Files {
    /// What applications print on the console.
    pub console: PathBuf,
    /// What the root task logs.
    pub log: PathBuf,
}

impl Files {
    /// The files of a simulation in `directory`.
    pub fn inside(directory: &Path) -> Self {
        Self {
            console: directory.join("console.log"),
            log: directory.join("root-task.log"),
        }
    }
}

/// Writes what a run shows to where it belongs.
struct Display {
    symbols: SymbolTables,
    console: File,
    log: File,
    faults: usize,
}

impl Display {
    fn open(files: &Files, symbols: SymbolTables) -> Result<Self, SimulationError> {
        Ok(Self {
            symbols,
            console: create(&files.console)?,
            log: create(&files.log)?,
            faults: 0,
        })
    }

    /// A full disk or closed output ends nothing: the run and its verdict go on.
    fn show(&mut self, output: Output<'_>) {
        match output {
            Output::Terminal(bytes) => {
                let mut out = io::stdout().lock();
                let _ = out.write_all(bytes).and_then(|()| out.flush());
            }
            Output::Console(bytes) => {
                let _ = self.console.write_all(bytes);
            }
            Output::Log(line) => {
                let _ = writeln!(self.log, "{line}");
                if is_fault(line) {
                    self.faults += 1;
                    for place in self.symbols.explain(line) {
                        let _ = writeln!(self.log, "  in {place}");
                    }
                }
            }
        }
    }
}

fn create(path: &Path) -> Result<File, SimulationError> {
    let made = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| File::create(path));
    made.map_err(|source| SimulationError::File {
        path: path.into(),
        source,
    })
}

/// Runs `machine` until it ends, `timeout` passes or the person leaves. The
/// terminal goes to standard output, all else into `files`; returns the outcome
/// and how many programs faulted.
///
/// # Errors
/// [`SimulationError`]
pub fn run(
    machine: &Machine,
    symbols: SymbolTables,
    files: &Files,
    hands: Hands,
    timeout: Option<Duration>,
) -> Result<(Outcome, usize), SimulationError> {
    let mut display = Display::open(files, symbols)?;
    let leave = Arc::new(AtomicBool::new(false));
    let (mut keyboard, mut answers);
    let mut raw = None;
    let typist: Option<&mut dyn Typist> = match hands {
        Hands::Person => {
            raw = Some(RawMode::enter(&leave)?);
            eprint!("[{}]\r\n", keyboard::HELP);
            keyboard = Keyboard::new(leave);
            Some(&mut keyboard)
        }
        Hands::File(file) => {
            answers = file;
            Some(&mut answers)
        }
        Hands::Nobody => None,
    };
    let outcome = machine.run(timeout, typist, &mut |output| display.show(output));
    drop(raw);
    Ok((outcome?, display.faults))
}
