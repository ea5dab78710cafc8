//! `TerminalSession`: the one terminal of the machine, read line by line.
//!
//! Received bytes go to the line that is being read. Bytes that arrive while
//! nobody reads are kept, so that what is typed or pasted ahead is not lost, and
//! the machine is told to take no more when they fill their buffer. What was
//! kept is scrubbed where it could reach someone it was not meant for: before
//! and after a hidden line, after a cancellation, and when the reader was another
//! process than the last one or went away.
//!
//! One call reads at a time; another one is refused. Reading and writing are
//! for live sessions alone, and a read ends with its caller's session.
//!
//! # Invariants
//! - **Y1** The reader is a live process, and is charged one outstanding
//!   operation for it.
//! - **Y2** Where nobody reads, neither the line nor history is in memory.

use alloc::boxed::Box;
use alloc::vec;
use core::mem;

use capnp::Word;
use capnp::traits::HasStructSize;
use capos_config::capos_capnp::terminal_session::{
    read_line_params, read_line_results, write_line_params, write_params,
};
use capos_config::capos_capnp::{LineEcho as WireEcho, LineStatus};
use capos_config::ring::CapSqe;
use sel4_capos_schema::method::READ_EDITED;
use sel4_capos_schema::terminal_capnp::terminal_extension::read_edited_params;

use super::{Refusal, copied, malformed, message};
use crate::decode;
use crate::dispatch::{Caller, Outcome};
use crate::editor::{History, LINE_BYTES_MAX, LineEcho, LineEditor, LineEvent};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::ids::Pid;
use crate::machine::Machine;
use crate::objects::{Object, ObjectId};
use crate::server::Server;
use crate::waiting::Waiting;

const WRITE: u16 = 0;
const WRITE_LINE: u16 = 1;
const READ_LINE: u16 = 2;

/// Longest prompt in bytes.
pub const PROMPT_BYTES_MAX: usize = 256;
/// Bytes that are kept while nobody reads.
pub const TYPED_AHEAD_MAX: usize = 4096;
/// A result without its line, in bytes.
const LINE_RESULT_BYTES: usize = 4 * size_of::<Word>();
const RESULT_BYTES_MAX: usize = LINE_RESULT_BYTES + LINE_BYTES_MAX;

/// Bytes in the order they came.
#[derive(Clone, Debug)]
struct TypedAhead {
    bytes: Box<[u8]>,
    first: usize,
    len: usize,
}

impl TypedAhead {
    fn new() -> Self {
        Self {
            bytes: vec![0; TYPED_AHEAD_MAX].into_boxed_slice(),
            first: 0,
            len: 0,
        }
    }

    const fn room(&self) -> usize {
        TYPED_AHEAD_MAX - self.len
    }

    fn push(&mut self, byte: u8) {
        if self.room() > 0 {
            self.bytes[(self.first + self.len) % TYPED_AHEAD_MAX] = byte;
            self.len += 1;
        }
    }

    fn pop(&mut self) -> Option<u8> {
        self.len = self.len.checked_sub(1)?;
        let byte = mem::take(&mut self.bytes[self.first]);
        self.first = (self.first + 1) % TYPED_AHEAD_MAX;
        Some(byte)
    }

    fn scrub(&mut self) {
        if self.len > 0 {
            self.bytes.fill(0);
        }
        (self.first, self.len) = (0, 0);
    }
}

/// The terminal.
#[derive(Clone, Debug)]
pub(crate) struct Terminal {
    /// The call that reads.
    reader: Option<Waiting>,
    /// Whose visible line was submitted last: what is typed ahead is for the same
    /// process.
    last: Option<Pid>,
    echo: LineEcho,
    prompt: [u8; PROMPT_BYTES_MAX],
    prompt_len: usize,
    editor: LineEditor,
    history: History,
    ahead: TypedAhead,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        Self {
            reader: None,
            last: None,
            echo: LineEcho::Visible,
            prompt: [0; PROMPT_BYTES_MAX],
            prompt_len: 0,
            editor: LineEditor::IDLE,
            history: History::new(),
            ahead: TypedAhead::new(),
        }
    }

    /// Calls of `pid` that read.
    pub(crate) fn reads_of(&self, pid: Pid) -> usize {
        usize::from(self.reader.is_some_and(|reader| reader.thread.pid == pid))
    }

    /// What decides future behaviour.
    pub(crate) fn state(&self) -> impl core::fmt::Debug {
        (self.reader, self.last, self.echo, self.ahead.len)
    }

    fn prompt(&self) -> &[u8] {
        &self.prompt[..self.prompt_len]
    }

    /// Makes `call` the reader, whose prompt, history and echo are set.
    fn begin(&mut self, call: Waiting, allow_empty: bool, max: usize) {
        let same = self.last == Some(call.thread.pid);
        if !same || self.echo == LineEcho::Hidden {
            self.ahead.scrub();
        }
        self.editor.begin(self.echo, allow_empty, max);
        self.reader = Some(call);
    }

    /// Ends the read. What is typed from here on is for its caller if `keep` says
    /// so and the line was visible.
    fn end(&mut self, keep: bool) -> Option<Waiting> {
        let reader = self.reader.take()?;
        let keep = keep && self.echo == LineEcho::Visible;
        if !keep {
            self.ahead.scrub();
        }
        self.last = keep.then_some(reader.thread.pid);
        self.editor.clear();
        self.history.clear();
        Some(reader)
    }

    /// Asserts Y2.
    pub(crate) fn check(&self) {
        assert!(self.ahead.len <= TYPED_AHEAD_MAX, "bytes typed ahead");
        if self.reader.is_none() {
            assert!(self.editor.line().is_empty(), "Y2: a line without reader");
        }
    }
}

/// What a read asks for.
struct Request<'a> {
    prompt: &'a [u8],
    max: u32,
    allow_empty: bool,
}

impl Request<'_> {
    fn check(&self) -> Result<(), Exception> {
        if self.prompt.len() > PROMPT_BYTES_MAX {
            return Err(Exception::invalid_argument("the prompt is too long"));
        }
        if self.max == 0 {
            return Err(Exception::invalid_argument("a line of no bytes"));
        }
        Ok(())
    }
}

impl<M: Machine> Server<M> {
    /// Takes in bytes the terminal received, and returns how many: the rest, if
    /// there is one, waits with the machine until [`Server::terminal_room`] says
    /// that there is room again.
    pub fn terminal_input(&mut self, machine: &mut M, bytes: &[u8]) -> usize {
        for (taken, &byte) in bytes.iter().enumerate() {
            if self.terminal.reader.is_some() {
                self.step_line(machine, byte);
            } else if self.terminal.ahead.room() > 0 {
                self.terminal.ahead.push(byte);
            } else {
                return taken;
            }
        }
        bytes.len()
    }

    /// Bytes that can certainly be taken in now.
    pub const fn terminal_room(&self) -> usize {
        self.terminal.ahead.room()
    }

    /// CALL to the terminal.
    pub(crate) fn call_terminal(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Outcome {
        let outcome = match sqe.method_id {
            WRITE..=READ_LINE | READ_EDITED
                if !self.in_live_session(machine, caller.thread.pid) =>
            {
                Err(Exception::disconnected("the session is over").into())
            }
            WRITE => self.terminal_write(machine, caller, sqe),
            WRITE_LINE => self.terminal_write_line(machine, caller, sqe),
            READ_LINE => self.terminal_read_line(machine, caller, sqe),
            READ_EDITED => self.terminal_read_edited(machine, caller, sqe),
            _ => Err(Exception::unimplemented().into()),
        };
        match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    /// Whether calls on behalf of a process's session are accepted.
    fn in_live_session(&self, machine: &mut M, pid: Pid) -> bool {
        let session = self.process(pid).map(|process| process.session);
        session.is_some_and(|session| self.check_session(machine, session).is_ok())
    }

    fn terminal_write(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<Outcome, Refusal> {
        self.fetch(machine, caller.thread.pid, (sqe.addr, sqe.len))?;
        let params = Word::words_to_bytes(&self.params);
        match decode::root_data(copied(params, sqe)) {
            Some(data) => machine.terminal_write(data),
            None => machine.terminal_write(
                message(params, sqe)?
                    .get_root::<write_params::Reader<'_>>()
                    .map_err(malformed)?
                    .get_data()
                    .map_err(malformed)?,
            ),
        }
        Ok(Outcome::code(sqe, 0))
    }

    fn terminal_write_line(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<Outcome, Refusal> {
        self.fetch(machine, caller.thread.pid, (sqe.addr, sqe.len))?;
        let params = Word::words_to_bytes(&self.params);
        match decode::root_text(copied(params, sqe)) {
            Some(text) => write_lines(machine, text),
            None => write_lines(
                machine,
                message(params, sqe)?
                    .get_root::<write_line_params::Reader<'_>>()
                    .map_err(malformed)?
                    .get_text()
                    .map_err(malformed)?
                    .as_bytes(),
            ),
        }
        machine.terminal_write(b"\r\n");
        Ok(Outcome::code(sqe, 0))
    }

    fn terminal_read_line(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<Outcome, Refusal> {
        self.fetch(machine, caller.thread.pid, (sqe.addr, sqe.len))?;
        let params = mem::take(&mut self.params);
        let begun = message(Word::words_to_bytes(&params), sqe).and_then(|message| {
            let params = message.get_root::<read_line_params::Reader<'_>>();
            let request = params
                .and_then(|params| params.get_request())
                .map_err(malformed)?;
            let echo = match request.get_echo() {
                Ok(WireEcho::Visible) => LineEcho::Visible,
                Ok(WireEcho::Hidden) => LineEcho::Hidden,
                Err(_) => return Err(Exception::invalid_argument("unknown echo").into()),
            };
            let request = Request {
                prompt: request.get_prompt().map_err(malformed)?.as_bytes(),
                max: request.get_max_bytes(),
                allow_empty: request.get_allow_empty(),
            };
            self.begin_read(machine, caller, sqe, &request, echo, None)
        });
        self.params = params;
        begun
    }

    fn terminal_read_edited(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<Outcome, Refusal> {
        self.fetch(machine, caller.thread.pid, (sqe.addr, sqe.len))?;
        let params = mem::take(&mut self.params);
        let begun = message(Word::words_to_bytes(&params), sqe).and_then(|message| {
            let params = message
                .get_root::<read_edited_params::Reader<'_>>()
                .map_err(malformed)?;
            let request = params.get_request().map_err(malformed)?;
            let lines = params.get_history().map_err(malformed)?;
            let request = Request {
                prompt: request.get_prompt().map_err(malformed)?.as_bytes(),
                max: request.get_max_bytes(),
                allow_empty: request.get_allow_empty(),
            };
            let echo = LineEcho::Visible;
            self.begin_read(machine, caller, sqe, &request, echo, Some(lines))
        });
        self.params = params;
        begun
    }

    /// Keeps the newest lines that fit, in their order.
    fn keep_history(&mut self, lines: capnp::text_list::Reader<'_>) {
        let history = &mut self.terminal.history;
        history.clear();
        let text = |index| lines.get(index).ok().and_then(|line| line.to_str().ok());
        let mut left = crate::editor::HISTORY_BYTES_MAX;
        let newest = (0..lines.len())
            .rev()
            .take(crate::editor::HISTORY_LINES_MAX);
        let fitting = newest.take_while(|&index| {
            let len = text(index).map_or(0, str::len);
            let fits = len <= left;
            left = left.saturating_sub(len);
            fits
        });
        let first = lines.len() - fitting.count() as u32;
        for line in (first..lines.len()).filter_map(text) {
            history.push(line);
        }
    }

    fn begin_read(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        request: &Request<'_>,
        echo: LineEcho,
        history: Option<capnp::text_list::Reader<'_>>,
    ) -> Result<Outcome, Refusal> {
        request.check()?;
        if self.terminal.reader.is_some() {
            return Err(Exception::overloaded("the terminal is being read").into());
        }
        let gone = Exception::disconnected("the caller is gone");
        let process = self.processes[caller.slot].as_deref_mut().ok_or(gone)?;
        process.begin_outstanding()?;
        let terminal = &mut self.terminal;
        let prompt = request.prompt;
        terminal.prompt[..prompt.len()].copy_from_slice(prompt);
        terminal.prompt_len = prompt.len();
        terminal.echo = echo;
        machine.terminal_write(prompt);
        let max = request.max as usize;
        terminal.begin(Waiting::new(caller, sqe), request.allow_empty, max);
        if let Some(lines) = history {
            self.keep_history(lines);
        }
        // What was typed ahead may recall from it already.
        while self.terminal.reader.is_some()
            && let Some(byte) = self.terminal.ahead.pop()
        {
            self.step_line(machine, byte);
        }
        Ok(Outcome::Pending)
    }

    /// One byte for the line that is being read.
    fn step_line(&mut self, machine: &mut M, byte: u8) {
        let reader = self.terminal.reader.map(|reader| reader.thread.pid);
        if reader.is_some_and(|pid| !self.in_live_session(machine, pid)) {
            self.end_terminal_read(machine, |_, _| true);
            return;
        }
        let Terminal {
            editor, history, ..
        } = &mut *self.terminal;
        match editor.step(byte, history, |bytes| machine.terminal_write(bytes)) {
            LineEvent::Pending => {}
            LineEvent::Reprompt => machine.terminal_write(self.terminal.prompt()),
            LineEvent::Redraw => {
                machine.terminal_write(self.terminal.prompt());
                let editor = &self.terminal.editor;
                editor.redraw(|bytes| machine.terminal_write(bytes));
            }
            LineEvent::Submitted => self.finish_line(machine, LineStatus::Submitted),
            LineEvent::Cancelled => self.finish_line(machine, LineStatus::Cancelled),
            LineEvent::Closed => self.finish_line(machine, LineStatus::Closed),
        }
    }

    /// Answers the reader.
    fn finish_line(&mut self, machine: &mut M, status: LineStatus) {
        let submitted = status == LineStatus::Submitted;
        let mut result = [0; RESULT_BYTES_MAX];
        let line = match submitted {
            true => self.terminal.editor.line(),
            false => &[],
        };
        let emitted = emit_line(&mut result, status, line);
        let Some(reader) = self.terminal.end(submitted) else {
            return;
        };
        let len = emitted.unwrap_or_default();
        let code = self.write_result(machine, &reader, &result[..len]);
        result.fill(0);
        self.finish_waiting(machine, &reader, code);
    }

    /// Ends the read if `whose` says so of its caller: it is disconnected.
    pub(crate) fn end_terminal_read(
        &mut self,
        machine: &mut M,
        whose: impl FnOnce(&Self, Pid) -> bool,
    ) {
        let reader = self.terminal.reader;
        if !reader.is_some_and(|reader| whose(self, reader.thread.pid)) {
            return;
        }
        if let Some(reader) = self.terminal.end(false) {
            machine.terminal_write(b"\r\n");
            let over = Exception::disconnected("the terminal cannot be read any more");
            self.fail_waiting(machine, &reader, over);
        }
    }

    /// After a release: a process that holds the terminal no more reads it no
    /// more.
    pub(crate) fn settle_terminal(&mut self, machine: &mut M, pid: Pid, object: ObjectId) {
        if self.terminal.reads_of(pid) == 0
            || self.objects.get(object) != Some(Object::TerminalSession)
        {
            return;
        }
        self.end_terminal_read(machine, |server, pid| !server.holds_object(pid, object));
    }

    fn holds_object(&self, pid: Pid, object: ObjectId) -> bool {
        let process = self.process(pid);
        process.is_some_and(|process| process.caps.iter().any(|(_, hold)| hold.object == object))
    }

    /// Forgets what a process that is gone was reading, or would have read.
    pub(crate) fn forget_terminal_read(&mut self, pid: Pid) {
        if self.terminal.reads_of(pid) > 0 {
            self.terminal.end(false);
        }
        if self.terminal.last == Some(pid) {
            self.terminal.ahead.scrub();
            self.terminal.last = None;
        }
    }
}

/// Writes text with line ends as a terminal wants them.
fn write_lines<M: Machine>(machine: &mut M, text: &[u8]) {
    let mut lines = text.split(|&byte| byte == b'\n');
    if let Some(first) = lines.next() {
        machine.terminal_write(first);
    }
    for line in lines {
        machine.terminal_write(b"\r\n");
        machine.terminal_write(line);
    }
}

fn emit_line(out: &mut [u8], status: LineStatus, line: &[u8]) -> Result<usize, NoRoom> {
    let size = <read_line_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u16(root, 0, status.into())?;
    message.set_bytes_field(root, 0, line)?;
    message.finish()
}
