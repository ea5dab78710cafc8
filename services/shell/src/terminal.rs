//! The person at the terminal.

use alloc::string::String;
use alloc::vec::Vec;

use capos::{
    CallId, Capability, ClientError, CompletedCall, ExceptionType, LineEcho, LineStatus,
    RuntimeRingClient, TerminalReadResult, TerminalSession, TerminalSessionClient,
};
use sel4_capos_client::{finish_read_edited, read_edited};
use service::FOREVER;
use shell_core::history::History;
use zeroize::Zeroizing;

/// Longest line a terminal gives.
pub(crate) const LINE_BYTES_MAX: u32 = 256;
/// Output goes out in pieces of at most this many bytes.
const PIECE_BYTES: usize = 1024;

/// What came of asking for a line.
pub(crate) enum Line {
    /// A line.
    Submitted(Zeroizing<Vec<u8>>),
    /// ^C
    Cancelled,
    /// ^D, or nobody is there any more.
    Closed,
}

impl From<TerminalReadResult> for Line {
    fn from(result: TerminalReadResult) -> Self {
        let line = Zeroizing::new(Vec::from(result.line));
        match result.status {
            LineStatus::Submitted => Self::Submitted(line),
            LineStatus::Cancelled => Self::Cancelled,
            LineStatus::Closed => Self::Closed,
        }
    }
}

/// The terminal of this shell.
pub(crate) struct Terminal {
    capability: Capability<TerminalSession>,
    /// Whether it keeps history for a line that is read; found out once.
    edits: bool,
}

impl Terminal {
    pub(crate) const fn new(capability: Capability<TerminalSession>) -> Self {
        Self {
            capability,
            edits: true,
        }
    }

    fn client(&self) -> TerminalSessionClient {
        TerminalSessionClient::new(self.capability)
    }

    /// Shows text and ends the line.
    pub(crate) fn say(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        text: &str,
    ) -> Result<(), ClientError> {
        let mut rest = text;
        while rest.len() > PIECE_BYTES {
            let end = piece(rest);
            self.show(ring, &rest[..end])?;
            rest = &rest[end..];
        }
        self.client().write_line_wait(ring, rest, FOREVER)
    }

    /// Shows text as it is, with the line ends a terminal needs.
    pub(crate) fn show(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        text: &str,
    ) -> Result<(), ClientError> {
        let text = text.replace('\n', "\r\n");
        self.client().write_wait(ring, text.as_bytes(), FOREVER)
    }

    /// Asks for a command.
    pub(crate) fn command(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        prompt: &str,
        history: &History,
    ) -> Result<Line, ClientError> {
        if self.edits {
            let lines: Vec<&str> = history.iter().collect();
            let call = read_edited(self.capability, ring, prompt, LINE_BYTES_MAX, &lines)?;
            let completed = ring.wait(call, FOREVER).map_err(ClientError::Ring)?;
            match finish_read_edited(&completed) {
                Ok(result) => return Ok(result.into()),
                Err(error) if is_unimplemented(&error) => self.edits = false,
                Err(error) => return Err(error),
            }
        }
        self.ask(ring, prompt, LineEcho::Visible)
    }

    /// Asks for a line.
    pub(crate) fn ask(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        prompt: &str,
        echo: LineEcho,
    ) -> Result<Line, ClientError> {
        let mut client = self.client();
        let result = client.read_line_wait(ring, prompt, LINE_BYTES_MAX, echo, false, FOREVER)?;
        Ok(result.into())
    }

    /// Begins to ask for a line, for a program.
    pub(crate) fn begin(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        prompt: &str,
        most: u32,
        echo: LineEcho,
        allow_empty: bool,
    ) -> Result<CallId, ClientError> {
        let most = most.clamp(1, LINE_BYTES_MAX);
        self.client()
            .read_line(ring, prompt, most, echo, allow_empty)
    }

    /// Ends what [`Self::begin`] began.
    pub(crate) fn finish(&self, completed: CompletedCall) -> Result<Line, ClientError> {
        Ok(self.client().finish_read_line(completed)?.into())
    }
}

/// Where the first piece of a long text ends: between characters.
fn piece(text: &str) -> usize {
    let mut end = PIECE_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}

fn is_unimplemented(error: &ClientError) -> bool {
    matches!(error, ClientError::Application(exception)
        if exception.exception_type() == ExceptionType::Unimplemented)
}

/// A line as text; what is not UTF-8 is replaced.
pub(crate) fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}
