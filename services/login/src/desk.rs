//! Talking to the person at the terminal.

use alloc::boxed::Box;
use alloc::string::String;

use capos::{
    Capability, Client, ClientError, LineEcho, LineStatus, RuntimeRingClient, TerminalReadResult,
    TerminalSession, TerminalSessionClient, Timer, TimerClient,
};
use zeroize::Zeroizing;

use crate::TerminalGone;

/// Waits that end when what is waited for happens.
pub(crate) const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;

/// How long to wait before the terminal is asked for again that another reads.
const PAUSE_NS: u64 = 200_000_000;

/// What somebody said.
pub(crate) enum Answer {
    /// Nothing: they cancelled.
    Nothing,
    /// A line, without space around it.
    Line(String),
}

/// The terminal and the ring to reach it, and everything else, through.
pub(crate) struct Desk<'a> {
    terminal: Capability<TerminalSession>,
    timer: Option<Capability<Timer>>,
    pub(crate) ring: RuntimeRingClient<'a>,
}

impl<'a> Desk<'a> {
    pub(crate) const fn new(
        terminal: Capability<TerminalSession>,
        timer: Option<Capability<Timer>>,
        ring: RuntimeRingClient<'a>,
    ) -> Self {
        Self {
            terminal,
            timer,
            ring,
        }
    }

    /// Prints a line.
    pub(crate) fn say(&mut self, text: &str) -> Result<(), TerminalGone> {
        TerminalSessionClient::from_capability(self.terminal)
            .write_line_wait(&mut *self.ring, text, FOREVER)
            .map_err(|_| TerminalGone)
    }

    /// Asks for a line that is shown.
    pub(crate) fn ask(&mut self, prompt: &str, bytes: u32) -> Result<Answer, TerminalGone> {
        let read = self.read(prompt, bytes, LineEcho::Visible)?;
        let text = core::str::from_utf8(&read.line).unwrap_or_default().trim();
        Ok(match read.status {
            LineStatus::Submitted if !text.is_empty() => Answer::Line(text.into()),
            _ => Answer::Nothing,
        })
    }

    /// Asks for a line that is not shown; `None` if it was not given.
    pub(crate) fn ask_secret(
        &mut self,
        prompt: &str,
        bytes: u32,
    ) -> Result<Option<Zeroizing<Box<[u8]>>>, TerminalGone> {
        let read = self.read(prompt, bytes, LineEcho::Hidden)?;
        let line = Zeroizing::new(read.line);
        Ok((read.status == LineStatus::Submitted).then_some(line))
    }

    /// Lets a little time pass.
    fn pause(&mut self) {
        if let Some(timer) = self.timer {
            let mut timer = TimerClient::from_capability(timer);
            let _ = timer.sleep_wait(&mut *self.ring, PAUSE_NS, FOREVER);
        }
    }

    fn read(
        &mut self,
        prompt: &str,
        bytes: u32,
        echo: LineEcho,
    ) -> Result<TerminalReadResult, TerminalGone> {
        let mut terminal = TerminalSessionClient::from_capability(self.terminal);
        loop {
            match terminal.read_line_wait(&mut *self.ring, prompt, bytes, echo, false, FOREVER) {
                Ok(read) => return Ok(read),
                // Somebody else reads: a shell that is about to end, or that an
                // earlier instance of this program started.
                Err(ClientError::Application(exception))
                    if exception.exception_type() == capos::ExceptionType::Overloaded =>
                {
                    self.pause();
                }
                Err(_) => return Err(TerminalGone),
            }
        }
    }
}
