//! Runs an image in QEMU and says how it ended.
//!
//! The guest has three serial ports. COM1 is the console: bytes an application
//! prints, passed on untouched and never interpreted. COM2 is the terminal,
//! where a [`Typist`] may type. COM3 is the root task's log: only lines read
//! there count as a verdict, so that an application cannot print itself one. All
//! are sockets inherited by QEMU; end of file on all means that QEMU has gone.
//!
//! QEMU is killed at the deadline, when the runner is dropped, and by the
//! kernel if this process dies first.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::terminal::{self, Typist};

/// The emulator that is run unless another is named.
pub const QEMU: &str = "qemu-system-x86_64";
/// The processor. SYSENTER in long mode exists on Intel\'s only.
pub const CPU_MODEL: &str = "max,vendor=GenuineIntel";
/// File descriptors under which QEMU inherits the ports.
const CONSOLE_FD: i32 = 3;
const LOG_FD: i32 = 4;
const TERMINAL_FD: i32 = 5;
/// How long QEMU may take to leave after the verdict.
const LEAVE_GRACE: Duration = Duration::from_secs(2);
/// How often a process that has gone is noticed.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Console bytes kept for reports; older ones are dropped.
const CONSOLE_BYTES_MAX: usize = 4 << 20;

/// Why nothing could be run.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// Not installed.
    #[error("{0} not found; `make setup` installs it (Debian package qemu-system-x86)")]
    Missing(PathBuf),
    /// The operating system refused.
    #[error("cannot run {program}: {source}")]
    Start {
        /// The emulator.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What the clocks of a machine count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// The host's time.
    #[default]
    Host,
    /// Instructions, one nanosecond each, and what the host takes while the
    /// guest waits; one processor only.
    Instructions,
    /// Instructions, one nanosecond each; waiting takes no time. Repeatable, one
    /// processor only.
    Repeatable,
}

/// A virtual machine about to be started.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The emulator.
    pub program: PathBuf,
    /// 32-bit form of the kernel.
    pub kernel: PathBuf,
    /// Root task with its boot archive.
    pub image: PathBuf,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub processors: u64,
    /// What its clocks count.
    pub pace: Pace,
    /// What the CMOS clock shows at power-on; the host's time if nothing.
    pub clock: Option<String>,
    /// COM1 carries the log and there is no console: so it is where a test of
    /// the layers below runs as the root task.
    pub log_on_com1: bool,
    /// Wait for a debugger on this local port before the first instruction.
    pub debugger_port: Option<u16>,
}

impl Machine {
    /// The command line, without the inherited descriptors.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        let (com1, com3) = match self.log_on_com1 {
            true => ("chardev:log", "chardev:console"),
            false => ("chardev:console", "chardev:log"),
        };
        command
            .args(["-cpu", CPU_MODEL])
            .args(["-m", &self.memory_mib.to_string()])
            .args(["-smp", &self.processors.to_string()])
            .args(["-nodefaults", "-no-reboot"])
            .args(["-display", "none", "-monitor", "none"])
            .args(["-chardev", &written("console", CONSOLE_FD)])
            .args(["-chardev", &written("log", LOG_FD)])
            .args(["-serial", com1])
            .args(["-chardev", &format!("socket,id=terminal,fd={TERMINAL_FD}")])
            .args(["-serial", "chardev:terminal"])
            .args(["-serial", com3])
            .args(["-device", "isa-debug-exit,iobase=0x501,iosize=2"])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.image);
        match self.pace {
            Pace::Host => {}
            Pace::Instructions => {
                command.args(["-icount", "shift=0,sleep=on"]);
            }
            Pace::Repeatable => {
                command.args(["-icount", "shift=0,sleep=off"]);
            }
        }
        if let Some(base) = &self.clock {
            command.args(["-rtc", &format!("base={base},clock=vm")]);
        }
        if let Some(port) = self.debugger_port {
            command.args(["-S", "-gdb", &format!("tcp:127.0.0.1:{port}")]);
        }
        command
    }

    /// Runs until the guest gives its verdict, QEMU ends or `timeout` passes;
    /// without a timeout it waits as long as it takes. `typist` types at the
    /// terminal, `observe` is told what the guest prints as it comes.
    ///
    /// # Errors
    /// [`QemuError`]: QEMU could not be started.
    pub fn run(
        &self,
        timeout: Option<Duration>,
        typist: Option<&mut dyn Typist>,
        observe: &mut dyn FnMut(Output<'_>),
    ) -> Result<Outcome, QemuError> {
        let (sender, events) = mpsc::channel();
        let (mut guest, line) = self.start(&sender)?;
        drop(sender);
        let mut transcript = Transcript {
            typist,
            ..Transcript::default()
        };
        if let Some(typist) = &mut transcript.typist {
            let (keys, typed) = mpsc::channel();
            terminal::forward(typed, line);
            typist.begin(keys);
            typist.look(&[]);
        }
        let end = transcript.collect(&mut guest.0, &events, timeout, observe);
        let typist = transcript.typist.as_deref();
        let unfinished = typist.and_then(|typist| typist.complaint(&transcript.terminal));
        Ok(Outcome {
            end,
            console: transcript.console,
            terminal: transcript.terminal,
            unfinished,
            log: transcript.log,
            complaints: String::from_utf8_lossy(&transcript.complaints).into_owned(),
        })
    }

    /// Starts QEMU; returns it and the writing end of the terminal's line.
    fn start(&self, sender: &Sender<Event>) -> Result<(Guest, UnixStream), QemuError> {
        let start_error = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => QemuError::Missing(self.program.clone()),
            _ => QemuError::Start {
                program: self.program.clone(),
                source,
            },
        };
        let (console, console_end) = io::pipe().map_err(start_error)?;
        let (log, log_end) = io::pipe().map_err(start_error)?;
        let (terminal, terminal_end) = UnixStream::pair().map_err(start_error)?;
        let line = terminal.try_clone().map_err(start_error)?;
        let mut command = self.command();
        let inherit = |parent_fd: OwnedFd, child_fd| FdMapping {
            parent_fd,
            child_fd,
        };
        command
            .fd_mappings(vec![
                inherit(console_end.into(), CONSOLE_FD),
                inherit(log_end.into(), LOG_FD),
                inherit(terminal_end.into(), TERMINAL_FD),
            ])
            .expect("the descriptor numbers differ");
        die_with_parent(&mut command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start_error)?;
        // The child has its copies; ours would keep the lines open.
        drop(command);
        let complaints = child.stderr.take().expect("stderr was piped above");
        forward(console, sender.clone(), Event::Console);
        forward(log, sender.clone(), Event::Log);
        forward(terminal, sender.clone(), Event::Terminal);
        forward(complaints, sender.clone(), Event::Complaint);
        Ok((Guest(child), line))
    }
}

/// A line the guest only writes to: a pipe. It holds more than a guest prints
/// before it is read even on a busy machine. A socket is full after some hundred
/// single bytes, and then the guest finds its port busy, so that its
/// instructions are not the same in every run.
fn written(name: &str, descriptor: i32) -> String {
    format!("file,id={name},path=/proc/self/fd/{descriptor}")
}

/// Has the kernel kill the child if this process goes away first.
fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec, where only
    // async-signal-safe calls are allowed; it makes one system call and
    // allocates nothing (the error conversion wraps an integer).
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
}

/// A started QEMU; dropping it kills it.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

enum Event {
    Console(Vec<u8>),
    Terminal(Vec<u8>),
    Log(Vec<u8>),
    Complaint(Vec<u8>),
}

/// Reads `source` to its end on a thread of its own.
fn forward(
    mut source: impl Read + Send + 'static,
    sender: Sender<Event>,
    wrap: fn(Vec<u8>) -> Event,
) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            if sender.send(wrap(buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
}

/// What the guest printed just now.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// Bytes on the console.
    Console(&'a [u8]),
    /// Bytes on the terminal.
    Terminal(&'a [u8]),
    /// One line of the root task's log, without line end.
    Log(&'a str),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// PID 1 exited with this code.
    Exit(i64),
    /// PID 1 was killed; the word says why (`page-fault`, ...).
    Killed(String),
    /// The system under it did not start; the log says why.
    BootFailed,
    /// The root task panicked, at this place.
    Panicked(String),
    /// The time was over first.
    TimedOut,
    /// Whoever typed at the terminal left.
    Left,
    /// QEMU ended without a verdict, with this status.
    Vanished(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit {code}"),
            Self::Killed(word) => write!(f, "killed {word}"),
            Self::BootFailed => f.write_str("killed boot"),
            Self::Panicked(place) => write!(f, "panic {place}"),
            Self::TimedOut => f.write_str("timeout"),
            Self::Left => f.write_str("left"),
            Self::Vanished(status) => write!(f, "no verdict ({status})"),
        }
    }
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// What the application printed (the last 4 MiB of it).
    pub console: Vec<u8>,
    /// What the terminal showed.
    pub terminal: Vec<u8>,
    /// What was to be typed or awaited there and was not.
    pub unfinished: Option<String>,
    /// The root task's log.
    pub log: Vec<String>,
    /// What QEMU itself said.
    pub complaints: String,
}

#[derive(Default)]
struct Transcript<'a> {
    typist: Option<&'a mut dyn Typist>,
    console: Vec<u8>,
    terminal: Vec<u8>,
    log: Vec<String>,
    log_rest: Vec<u8>,
    complaints: Vec<u8>,
}

impl Transcript<'_> {
    fn collect(
        &mut self,
        child: &mut Child,
        events: &Receiver<Event>,
        timeout: Option<Duration>,
        observe: &mut dyn FnMut(Output<'_>),
    ) -> End {
        let mut deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut verdict = None;
        let mut status = None;
        loop {
            let remaining = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if remaining.is_some_and(|r| r.is_zero()) {
                return verdict
                    .or_else(|| status.map(vanished))
                    .unwrap_or(End::TimedOut);
            }
            if self.typist.as_ref().is_some_and(|typist| typist.leaves()) {
                return verdict.unwrap_or(End::Left);
            }
            let wait = remaining.unwrap_or(POLL_INTERVAL).min(POLL_INTERVAL);
            match events.recv_timeout(wait) {
                Ok(event) => {
                    let found = self.accept(event, observe);
                    if verdict.is_none() && found.is_some() {
                        verdict = found;
                        deadline = Some(Instant::now() + LEAVE_GRACE);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let ended = child.wait().map(vanished);
                    return verdict.unwrap_or_else(|| match ended {
                        Ok(end) => end,
                        Err(error) => End::Vanished(error.to_string()),
                    });
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(typist) = &mut self.typist {
                        typist.look(&self.terminal);
                    }
                    if status.is_none()
                        && let Ok(Some(ended)) = child.try_wait()
                    {
                        status = Some(ended);
                        deadline = Some(Instant::now() + LEAVE_GRACE);
                    }
                }
            }
        }
    }

    /// Takes in one event; returns the verdict if it carried one.
    fn accept(&mut self, event: Event, observe: &mut dyn FnMut(Output<'_>)) -> Option<End> {
        match event {
            Event::Console(bytes) => {
                observe(Output::Console(&bytes));
                self.console.extend_from_slice(&bytes);
                let excess = self.console.len().saturating_sub(CONSOLE_BYTES_MAX);
                self.console.drain(..excess);
                None
            }
            Event::Terminal(bytes) => {
                observe(Output::Terminal(&bytes));
                self.terminal.extend_from_slice(&bytes);
                if let Some(typist) = &mut self.typist {
                    typist.look(&self.terminal);
                }
                None
            }
            Event::Complaint(bytes) => {
                self.complaints.extend_from_slice(&bytes);
                None
            }
            Event::Log(bytes) => self.accept_log(&bytes, observe),
        }
    }

    fn accept_log(&mut self, bytes: &[u8], observe: &mut dyn FnMut(Output<'_>)) -> Option<End> {
        let mut verdict = None;
        self.log_rest.extend_from_slice(bytes);
        while let Some(end) = self.log_rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.log_rest.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            observe(Output::Log(&text));
            verdict = verdict.or_else(|| parse_verdict(&text));
            self.log.push(text);
        }
        verdict
    }
}

fn vanished(status: ExitStatus) -> End {
    End::Vanished(status.to_string())
}

/// Reads a line `verdict: exit N`, `verdict: killed WORD` or `verdict: panic
/// FILE:LINE`. The word `boot` means that there was no process yet.
fn parse_verdict(line: &str) -> Option<End> {
    let (kind, detail) = line.strip_prefix("verdict: ")?.split_once(' ')?;
    match kind {
        "exit" => detail.parse().ok().map(End::Exit),
        "killed" if detail == "boot" => Some(End::BootFailed),
        "killed" => Some(End::Killed(detail.into())),
        "panic" => Some(End::Panicked(detail.into())),
        _ => None,
    }
}
