//! What a person sees of a run.

use std::io::{self, Write};
use std::time::Duration;

use crate::qemu::{End, Outcome, Output};
use crate::symbols::{SymbolTables, is_fault};

/// Exit status: killed, as shells report a killed process.
pub const STATUS_KILLED: u8 = 137;
/// Exit status: time over, as timeout(1) reports it.
pub const STATUS_TIMED_OUT: u8 = 124;
/// Exit status: the system under the application failed.
pub const STATUS_SYSTEM: u8 = 125;
/// Lines of guest output repeated where a run ended badly.
const LAST_LINES: usize = 12;

/// Passes guest output on as it comes: console and terminal to standard output,
/// fault reports with their place below it, the rest of the log to standard
/// error if asked for.
pub struct Printer {
    symbols: SymbolTables,
    show_log: bool,
    at_line_start: bool,
}

impl Printer {
    /// A printer that explains faults with `symbols`.
    pub fn new(symbols: SymbolTables, show_log: bool) -> Self {
        Self {
            symbols,
            show_log,
            at_line_start: true,
        }
    }

    /// Prints one piece of output. A closed standard output ends nothing: the
    /// run and its verdict go on.
    pub fn show(&mut self, output: Output<'_>) {
        match output {
            Output::Console(bytes) | Output::Terminal(bytes) => {
                let mut out = io::stdout().lock();
                let _ = out.write_all(bytes).and_then(|()| out.flush());
                if let Some(last) = bytes.last() {
                    self.at_line_start = *last == b'\n';
                }
            }
            Output::Log(line) if is_fault(line) => {
                self.line(line);
                for place in self.explain(line) {
                    self.line(&format!("  in {place}"));
                }
            }
            Output::Log(line) if self.show_log => eprintln!("{line}"),
            Output::Log(_) => {}
        }
    }

    /// Prints a line of ours, on a line of its own.
    pub fn line(&mut self, text: &str) {
        self.finish_line();
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// Ends the line the console is in the middle of.
    pub fn finish_line(&mut self) {
        if !self.at_line_start {
            let mut out = io::stdout().lock();
            let _ = writeln!(out).and_then(|()| out.flush());
            self.at_line_start = true;
        }
    }

    fn explain(&self, line: &str) -> Vec<String> {
        self.symbols.explain(line)
    }
}

/// The closing line of a run, after the name of what ran.
pub fn closing_line(end: &End, timeout: Duration) -> String {
    match end {
        End::Exit(code) => format!("exit {code}"),
        End::Killed(word) => format!("killed ({})", word.replace('-', " ")),
        End::BootFailed => "the system did not start".into(),
        End::Panicked(place) => format!("root task panicked at {place}"),
        End::TimedOut => format!("no exit within {} s", timeout.as_secs()),
        End::Left => "left".into(),
        End::Vanished(status) => format!("the machine stopped without a verdict ({status})"),
    }
}

/// The exit status of this process for a run that ended so: zero only for exit
/// code zero, and for a person who left.
pub fn status(end: &End) -> u8 {
    match end {
        End::Exit(0) | End::Left => 0,
        End::Exit(code) => u8::try_from(*code)
            .unwrap_or(1)
            .clamp(1, STATUS_TIMED_OUT - 1),
        End::Killed(_) => STATUS_KILLED,
        End::TimedOut => STATUS_TIMED_OUT,
        End::BootFailed | End::Panicked(_) | End::Vanished(_) => STATUS_SYSTEM,
    }
}

/// The last lines of a run, for a report of what went wrong.
pub fn last_lines(outcome: &Outcome) -> Vec<String> {
    let console = String::from_utf8_lossy(&outcome.console).into_owned();
    let mut lines = Vec::new();
    for (source, text) in [
        ("console", console),
        (
            "terminal",
            String::from_utf8_lossy(&outcome.terminal).into_owned(),
        ),
        ("log", outcome.log.join("\n")),
        ("qemu", outcome.complaints.clone()),
    ] {
        let all: Vec<&str> = text.lines().collect();
        let from = all.len().saturating_sub(LAST_LINES);
        lines.extend(all[from..].iter().map(|line| format!("{source}| {line}")));
    }
    if lines.is_empty() {
        lines.push("(the guest printed nothing)".into());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exit_code_zero_gives_status_zero() {
        let bad = [
            End::Exit(1),
            End::Exit(256),
            End::Exit(-1),
            End::Exit(i64::MIN),
            End::Killed("page-fault".into()),
            End::BootFailed,
            End::Panicked("main.rs:1".into()),
            End::TimedOut,
            End::Vanished("signal 9".into()),
        ];
        assert_eq!(status(&End::Exit(0)), 0);
        for end in bad {
            assert_ne!(status(&end), 0, "{end:?}");
        }
        assert_eq!(status(&End::Exit(101)), 101);
    }

    #[test]
    fn a_kill_is_named_in_words() {
        let line = closing_line(&End::Killed("page-fault".into()), Duration::ZERO);
        assert_eq!(line, "killed (page fault)");
    }
}
