//! `Pipe`: a bounded stream of bytes from one end to the other.
//!
//! # Theory of operation
//! A pipe is a ring buffer in blocks of a fixed pool, made by
//! `ProcessSpawner.createPipe`. Each end is an object of its own; how many
//! processes hold it does not matter to the pipe. An end closes when someone
//! says so through it, or when its last hold goes.
//!
//! At most one read waits, while the pipe is empty and the writing end open;
//! at most one write waits, while the pipe is full and the reading end open. A
//! write takes what fits, at least one byte: it waits only for the first. A
//! write that waits leaves its bytes in its process's memory until there is
//! room.
//!
//! A result that cannot be written changes nothing in the pipe.
//!
//! # Invariants
//! - **W1** `len` is at most the capacity, `start` less than it.
//! - **W2** A read waits only at an empty pipe whose ends are open; a write
//!   only at a full one whose ends are open.
//! - **W3** The blocks of a pipe are charged to its `payer`, if that lives.

use capnp::Word;
use capnp::serialize::read_message_from_flat_slice_no_alloc;
use capnp::traits::HasStructSize;
use capos_config::capos_capnp::pipe::{
    is_closed_results, read_params, read_results, write_params, write_results,
};
use capos_config::capos_capnp::process_spawner::{create_pipe_params, create_pipe_results};
use capos_config::ring::{CAP_ERR_INVALID_PARAMS_BUFFER, CapCqe, CapSqe};
use core::ops::Range;

use super::{Refusal, copied, malformed, message};
use crate::blocks::{BLOCK_BYTES, Blocks, Chain};
use crate::cap_table::HoldOrigin;
use crate::decode;
use crate::dispatch::{Caller, Outcome};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::ids::Pid;
use crate::limits::{Capacity, PIPE_BYTES_MAX};
use crate::machine::Machine;
use crate::objects::Object;
use crate::pool::Pool;
use crate::results::ResultCaps;
use crate::server::{CreateError, Server};
use crate::spawn::create_refused;
use crate::waiting::Waiting;

const READ: u16 = 0;
const WRITE: u16 = 1;
const CLOSE: u16 = 2;
const IS_CLOSED: u16 = 3;

/// Table, root pointer, one data word, one pointer.
const READ_RESULT_BYTES: usize = 4 * size_of::<Word>();
const WORD_RESULT_BYTES: usize = 3 * size_of::<Word>();

/// Which way bytes go through an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Bytes come out here.
    Read,
    /// Bytes go in here.
    Write,
}

impl End {
    const fn other(self) -> Self {
        match self {
            Self::Read => Self::Write,
            Self::Write => Self::Read,
        }
    }
}

/// State of one end.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    closed: bool,
    /// Whether no hold on this end is left.
    unheld: bool,
    waiting: Option<Transfer>,
}

/// A read or write that waits.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    call: Waiting,
    /// Params of a write; `addr` is unused by a read.
    addr: u64,
    /// Bytes of a write's params; most bytes a read wants.
    len: u32,
}

/// One pipe.
#[derive(Clone, Debug)]
pub(crate) struct Pipe {
    payer: Pid,
    buffer: Chain,
    start: u32,
    len: u32,
    read: Side,
    write: Side,
}

impl Pipe {
    const fn capacity(&self) -> u32 {
        self.buffer.len()
    }

    const fn room(&self) -> u32 {
        self.capacity() - self.len
    }

    fn side(&mut self, end: End) -> &mut Side {
        match end {
            End::Read => &mut self.read,
            End::Write => &mut self.write,
        }
    }

    /// Splits `count` bytes of the ring from `offset` where it wraps.
    fn span(&self, offset: u32, count: u32) -> (u32, u32) {
        let at = (self.start + offset) % self.capacity();
        (at, count.min(self.capacity() - at))
    }

    fn peek(&self, blocks: &Blocks, out: &mut [u8]) {
        let (at, first) = self.span(0, out.len() as u32);
        let (before, after) = out.split_at_mut(first as usize);
        blocks.read_at(self.buffer, at, before);
        blocks.read_at(self.buffer, 0, after);
    }

    fn push(&mut self, blocks: &mut Blocks, bytes: &[u8]) {
        let (at, first) = self.span(self.len, bytes.len() as u32);
        let (before, after) = bytes.split_at(first as usize);
        blocks.write_at(self.buffer, at, before);
        blocks.write_at(self.buffer, 0, after);
        self.len += bytes.len() as u32;
    }

    const fn consume(&mut self, count: u32) {
        self.start = (self.start + count) % self.capacity();
        self.len -= count;
    }
}

/// All pipes and what is in them.
#[derive(Clone, Debug)]
pub(crate) struct Pipes {
    pub(crate) table: Pool<Pipe>,
    pub(crate) blocks: Blocks,
}

impl Pipes {
    pub(crate) fn new(capacity: &Capacity) -> Self {
        Self {
            table: Pool::with_capacity(capacity.pipes),
            blocks: Blocks::new(capacity.pipe_kib),
        }
    }

    /// Makes a pipe of `bytes` bytes, charged to `payer`.
    fn create(&mut self, bytes: u32, payer: Pid) -> Option<u32> {
        let buffer = self.blocks.allocate(bytes)?;
        let pipe = Pipe {
            payer,
            buffer,
            start: 0,
            len: 0,
            read: Side::default(),
            write: Side::default(),
        };
        let index = self.table.insert(pipe);
        index.inspect_err(|_| self.blocks.free(buffer)).ok()
    }

    /// Calls of `pid` that wait at pipes.
    pub(crate) fn waits(&self, pid: Pid) -> usize {
        let sides = self.table.iter().flat_map(|(_, p)| [&p.read, &p.write]);
        let calls = sides.filter_map(|side| side.waiting);
        calls.filter(|wait| wait.call.thread.pid == pid).count()
    }

    /// KiB charged to `pid`.
    pub(crate) fn charges(&self, pid: Pid) -> u32 {
        let mine = self.table.iter().filter(|(_, pipe)| pipe.payer == pid);
        mine.map(|(_, pipe)| charge(pipe.capacity())).sum()
    }

    /// Asserts W1 and W2, and that no block is lost.
    pub(crate) fn check(&self) {
        self.table.check();
        self.blocks
            .check(self.table.iter().map(|(_, pipe)| pipe.buffer));
        for (index, pipe) in self.table.iter() {
            assert!(pipe.len <= pipe.capacity(), "W1: length of pipe {index}");
            assert!(pipe.start < pipe.capacity(), "W1: start of pipe {index}");
            let open = !pipe.read.closed && !pipe.write.closed;
            let (read, write) = (pipe.read.waiting, pipe.write.waiting);
            assert!(read.is_none() || open && pipe.len == 0, "W2: a read");
            assert!(write.is_none() || open && pipe.room() == 0, "W2: a write");
            let lost = pipe.read.unheld && pipe.write.unheld;
            assert!(!lost, "pipe {index} is held by nobody");
        }
    }
}

/// What a pipe of `bytes` bytes costs its maker, in KiB.
const fn charge(bytes: u32) -> u32 {
    Chain::blocks_for(bytes) as u32
}

const _: () = assert!(BLOCK_BYTES == 1024, "charges are counted in KiB");

impl<M: Machine> Server<M> {
    /// `ProcessSpawner.createPipe`: reading end first, writing end second.
    pub(crate) fn create_pipe(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<CapCqe, Refusal> {
        let pid = caller.thread.pid;
        self.fetch(machine, pid, (sqe.addr, sqe.len))?;
        let bytes = message(Word::words_to_bytes(&self.params), sqe)?
            .get_root::<create_pipe_params::Reader<'_>>()
            .map_err(malformed)?
            .get_buffer_bytes()
            .min(PIPE_BYTES_MAX);
        if bytes == 0 {
            return Err(Exception::invalid_argument("a pipe without a buffer").into());
        }
        self.check_result_room(caller, sqe, WORD_RESULT_BYTES, 2)?;
        let index = self.charge_pipe(pid, bytes)?;
        let mut given = ResultCaps::new();
        if let Err(error) = self.give_ends(pid, index, &mut given) {
            self.take_results_back(pid, &given);
            return Err(create_refused(&error).into());
        }
        let mut result = [0; WORD_RESULT_BYTES];
        let len = emit_ends(&mut result).unwrap_or(result.len());
        self.write_results(machine, caller, sqe, &result[..len], &given)
    }

    /// Makes a pipe and charges it.
    fn charge_pipe(&mut self, pid: Pid, bytes: u32) -> Result<u32, Refusal> {
        let full = Exception::overloaded("pipe storage exhausted");
        let process = self.processes[pid.slot()].as_deref_mut().ok_or(full)?;
        if process.made.pipe_kib + charge(bytes) > process.limits.pipe_kib {
            return Err(Exception::overloaded("too many pipes").into());
        }
        let index = self.pipes.create(bytes, pid).ok_or(full)?;
        process.made.pipe_kib += charge(bytes);
        Ok(index)
    }

    /// Inserts both ends. An end that got no object is dropped at once; one
    /// that did goes with its object.
    fn give_ends(
        &mut self,
        pid: Pid,
        index: u32,
        given: &mut ResultCaps,
    ) -> Result<(), CreateError> {
        let read = self.mint_object(Object::PipeRead(index)).inspect_err(|_| {
            self.discard_pipe_end(index, End::Read);
            self.discard_pipe_end(index, End::Write);
        })?;
        let write = self.mint_object(Object::PipeWrite(index));
        let given_read = self.insert_result(pid, read, HoldOrigin::ResultCap, given);
        let write = write.inspect_err(|_| self.discard_pipe_end(index, End::Write))?;
        let given_write = self.insert_result(pid, write, HoldOrigin::ResultCap, given);
        given_read.and(given_write)
    }

    fn free_pipe(&mut self, index: u32) {
        let Some(pipe) = self.pipes.table.remove(index) else {
            return;
        };
        self.pipes.blocks.free(pipe.buffer);
        if let Some(payer) = self.process_mut(pipe.payer) {
            payer.made.pipe_kib -= charge(pipe.capacity());
        }
    }

    /// CALL to an end of a pipe.
    pub(crate) fn call_pipe(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
        end: End,
    ) -> Outcome {
        let outcome = match sqe.method_id {
            READ => self.pipe_read(machine, caller, sqe, index, end),
            WRITE => self.pipe_write(machine, caller, sqe, index, end),
            CLOSE => {
                self.close_pipe(machine, index, end);
                Ok(Outcome::code(sqe, 0))
            }
            IS_CLOSED => self.pipe_is_closed(machine, caller, sqe, index, end),
            _ => Err(Exception::unimplemented().into()),
        };
        match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    /// The pipe behind an end, if `wanted` is that end, it is open, and nobody
    /// waits at it.
    fn usable_pipe(&mut self, index: u32, end: End, wanted: End) -> Result<&mut Pipe, Exception> {
        if end != wanted {
            return Err(Exception::failed("the other end of the pipe"));
        }
        let closed = Exception::disconnected("pipe end closed");
        let pipe = self.pipes.table.get_mut(index).ok_or(closed)?;
        let side = pipe.side(end);
        if side.closed {
            return Err(closed);
        }
        if side.waiting.is_some() {
            return Err(Exception::failed("someone waits at this end already"));
        }
        Ok(pipe)
    }

    fn pipe_read(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
        end: End,
    ) -> Result<Outcome, Refusal> {
        self.fetch(machine, caller.thread.pid, (sqe.addr, sqe.len))?;
        let params = Word::words_to_bytes(&self.params);
        let wanted = match decode::root_u64(copied(params, sqe)) {
            Some(word) => word as u32,
            None => message(params, sqe)?
                .get_root::<read_params::Reader<'_>>()
                .map_err(malformed)?
                .get_max_len(),
        };
        let call = Waiting::new(caller, sqe);
        let pipe = self.usable_pipe(index, end, End::Read)?;
        if pipe.len == 0 && wanted > 0 && !pipe.write.closed {
            let transfer = Transfer {
                call,
                addr: 0,
                len: wanted,
            };
            return self.wait_at_pipe(caller, index, end, transfer);
        }
        let code = self.deliver_read(machine, index, &call, wanted);
        self.continue_writer(machine, index);
        Ok(Outcome::code(sqe, code))
    }

    fn wait_at_pipe(
        &mut self,
        caller: Caller,
        index: u32,
        end: End,
        transfer: Transfer,
    ) -> Result<Outcome, Refusal> {
        let gone = Exception::disconnected("pipe end closed");
        let process = self.processes[caller.slot].as_deref_mut().ok_or(gone)?;
        let pipe = self.pipes.table.get_mut(index).ok_or(gone)?;
        process.begin_outstanding()?;
        pipe.side(end).waiting = Some(transfer);
        Ok(Outcome::Pending)
    }

    /// Answers a read with what is there; returns the completion code. The
    /// bytes leave the pipe only with a result that was written.
    fn deliver_read(&mut self, machine: &mut M, index: u32, call: &Waiting, wanted: u32) -> i32 {
        let Some(pipe) = self.pipes.table.get(index) else {
            return CAP_ERR_INVALID_PARAMS_BUFFER;
        };
        let room = (call.result.len as usize).saturating_sub(READ_RESULT_BYTES);
        let fits = (room - room % size_of::<Word>()) as u32;
        let count = wanted.min(pipe.len).min(fits);
        if count == 0 && wanted.min(pipe.len) > 0 {
            let exception = Exception::overloaded("result buffer too small");
            return self.raise_to(machine, call.thread.pid, call.result, exception);
        }
        // End of file is told by itself, after the last byte.
        let ended = pipe.len == 0 && pipe.write.closed;
        let mut reply = core::mem::take(&mut self.reply);
        let out = Word::words_to_bytes_mut(&mut reply);
        let emitted = emit_read(out, count as usize, ended, |bytes| {
            pipe.peek(&self.pipes.blocks, bytes);
        });
        let len = emitted.unwrap_or(READ_RESULT_BYTES);
        let code = self.write_result(machine, call, &Word::words_to_bytes(&reply)[..len]);
        self.reply = reply;
        if code >= 0
            && let Some(pipe) = self.pipes.table.get_mut(index)
        {
            pipe.consume(count);
        }
        code
    }

    fn pipe_write(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
        end: End,
    ) -> Result<Outcome, Refusal> {
        let params = (sqe.addr, sqe.len);
        self.fetch(machine, caller.thread.pid, params)?;
        let offered = data_range(&self.params, sqe.len)?.len();
        let pipe = self.usable_pipe(index, end, End::Write)?;
        let call = Waiting::new(caller, sqe);
        if pipe.room() == 0 && offered > 0 && !pipe.read.closed {
            let (addr, len) = params;
            let transfer = Transfer { call, addr, len };
            return self.wait_at_pipe(caller, index, end, transfer);
        }
        let code = self.accept_write(machine, index, &call, sqe.len)?;
        self.continue_reader(machine, index);
        Ok(Outcome::code(sqe, code))
    }

    /// Answers a write whose params are in scratch: takes what fits, nothing
    /// if the reader is gone; returns the completion code. The bytes enter the
    /// pipe only with a result that was written.
    fn accept_write(
        &mut self,
        machine: &mut M,
        index: u32,
        call: &Waiting,
        len: u32,
    ) -> Result<i32, Refusal> {
        let gone = Exception::disconnected("pipe end closed");
        let pipe = self.pipes.table.get(index).ok_or(gone)?;
        let data = data_range(&self.params, len)?;
        let room = if pipe.read.closed { 0 } else { pipe.room() };
        let count = room.min(data.len() as u32);
        let mut result = [0; WORD_RESULT_BYTES];
        let bytes = emit_count(&mut result, count).unwrap_or(result.len());
        let code = self.write_result(machine, call, &result[..bytes]);
        if code >= 0
            && let Some(pipe) = self.pipes.table.get_mut(index)
        {
            let data = &Word::words_to_bytes(&self.params)[data];
            pipe.push(&mut self.pipes.blocks, &data[..count as usize]);
        }
        Ok(code)
    }

    /// Lets a write that waits go on, if it can.
    fn continue_writer(&mut self, machine: &mut M, index: u32) {
        let Some(pipe) = self.pipes.table.get_mut(index) else {
            return;
        };
        if pipe.room() == 0 && !pipe.read.closed {
            return;
        }
        let Some(write) = pipe.write.waiting.take() else {
            return;
        };
        let code = self.resume_write(machine, index, &write);
        self.finish_waiting(machine, &write.call, code);
        self.continue_reader(machine, index);
    }

    /// The completion code of a write that waited: its params are read again,
    /// from what its process has there now.
    fn resume_write(&mut self, machine: &mut M, index: u32, write: &Transfer) -> i32 {
        let (pid, params) = (write.call.thread.pid, (write.addr, write.len));
        let space = self.process(pid).map(|process| &process.space);
        if !space.is_some_and(|space| space.is_readable(write.addr, write.len.into())) {
            return CAP_ERR_INVALID_PARAMS_BUFFER;
        }
        let accepted = self
            .fetch(machine, pid, params)
            .and_then(|()| self.accept_write(machine, index, &write.call, write.len));
        match accepted {
            Ok(code) | Err(Refusal::Transport(code)) => code,
            Err(Refusal::Exception(exception)) => {
                self.raise_to(machine, pid, write.call.result, exception)
            }
        }
    }

    /// Lets a read that waits go on, if it can.
    fn continue_reader(&mut self, machine: &mut M, index: u32) {
        let Some(pipe) = self.pipes.table.get_mut(index) else {
            return;
        };
        if pipe.len == 0 && !pipe.write.closed {
            return;
        }
        let Some(read) = pipe.read.waiting.take() else {
            return;
        };
        let code = self.deliver_read(machine, index, &read.call, read.len);
        self.finish_waiting(machine, &read.call, code);
        self.continue_writer(machine, index);
    }

    /// Closes an end: who waits at it is disconnected, who waits at the other
    /// learns.
    fn close_pipe(&mut self, machine: &mut M, index: u32, end: End) {
        let Some(pipe) = self.pipes.table.get_mut(index) else {
            return;
        };
        let side = pipe.side(end);
        side.closed = true;
        if let Some(wait) = side.waiting.take() {
            let closed = Exception::disconnected("pipe end closed");
            self.fail_waiting(machine, &wait.call, closed);
        }
        match end.other() {
            End::Read => self.continue_reader(machine, index),
            End::Write => self.continue_writer(machine, index),
        }
    }

    fn pipe_is_closed(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
        end: End,
    ) -> Result<Outcome, Refusal> {
        let gone = Exception::disconnected("pipe end closed");
        let pipe = self.pipes.table.get_mut(index).ok_or(gone)?;
        let closed = pipe.side(end).closed;
        let mut result = [0; WORD_RESULT_BYTES];
        let len = emit_closed(&mut result, closed).unwrap_or(result.len());
        let call = Waiting::new(caller, sqe);
        let code = self.write_result(machine, &call, &result[..len]);
        Ok(Outcome::code(sqe, code))
    }

    /// The last hold on an end is gone.
    pub(crate) fn drop_pipe_end(&mut self, machine: &mut M, index: u32, end: End) {
        self.close_pipe(machine, index, end);
        self.discard_pipe_end(index, end);
    }

    /// As [`Server::drop_pipe_end`], where nobody can wait yet.
    pub(crate) fn discard_pipe_end(&mut self, index: u32, end: End) {
        let Some(pipe) = self.pipes.table.get_mut(index) else {
            return;
        };
        let side = pipe.side(end);
        (side.closed, side.unheld) = (true, true);
        if pipe.read.unheld && pipe.write.unheld {
            self.free_pipe(index);
        }
    }

    /// Closes an end whose holds are all revoked; disconnects whoever waits at
    /// it and is one of those that `lost` it.
    pub(crate) fn revoke_pipe_end(
        &mut self,
        machine: &mut M,
        (index, end): (u32, End),
        held: bool,
        lost: impl Fn(&Self, Pid) -> bool,
    ) {
        if !held {
            return self.close_pipe(machine, index, end);
        }
        let Some(pipe) = self.pipes.table.get_mut(index) else {
            return;
        };
        let waiting = pipe.side(end).waiting;
        if let Some(wait) = waiting.filter(|wait| lost(self, wait.call.thread.pid)) {
            if let Some(pipe) = self.pipes.table.get_mut(index) {
                pipe.side(end).waiting = None;
            }
            let revoked = Exception::disconnected("capability revoked");
            self.fail_waiting(machine, &wait.call, revoked);
        }
    }

    /// Forgets what a process that is gone was waiting for at pipes.
    pub(crate) fn forget_pipe_waits(&mut self, pid: Pid) {
        for pipe in self.pipes.table.values_mut() {
            for side in [&mut pipe.read, &mut pipe.write] {
                let gone = |wait: &mut Transfer| wait.call.thread.pid == pid;
                side.waiting.take_if(gone);
            }
        }
    }

    /// Charges whoever answers for a process that is gone with the pipes it
    /// made and others still hold. What nobody answers for is limited by its
    /// store alone.
    pub(crate) fn inherit_pipes(&mut self, from: Pid, heir: Pid) {
        let mut inherited = 0;
        for pipe in self.pipes.table.values_mut() {
            if pipe.payer == from {
                pipe.payer = heir;
                inherited += charge(pipe.capacity());
            }
        }
        if let Some(heir) = self.process_mut(heir) {
            heir.made.pipe_kib += inherited;
        }
    }
}

/// Where in scratch the bytes of a write lie whose params are there.
fn data_range(params: &[Word], len: u32) -> Result<Range<usize>, Refusal> {
    let bytes = Word::words_to_bytes(params)
        .get(..len as usize)
        .ok_or(Refusal::Transport(CAP_ERR_INVALID_PARAMS_BUFFER))?;
    if let Some(data) = decode::root_data(bytes) {
        return Ok(range_within(bytes, data));
    }
    let options = capos_config::default_reader_options();
    let message = read_message_from_flat_slice_no_alloc(&mut &*bytes, options);
    let message = message.map_err(malformed)?;
    let params: write_params::Reader<'_> = message.get_root().map_err(malformed)?;
    Ok(range_within(bytes, params.get_data().map_err(malformed)?))
}

/// Where in `bytes` its part `data` lies; a missing field is no part of it.
fn range_within(bytes: &[u8], data: &[u8]) -> Range<usize> {
    let start = data.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
    match start.checked_add(data.len()) {
        Some(end) if end <= bytes.len() => start..end,
        _ => 0..0,
    }
}

fn emit_read(
    out: &mut [u8],
    count: usize,
    ended: bool,
    fill: impl FnOnce(&mut [u8]),
) -> Result<usize, NoRoom> {
    let size = <read_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_first_bool(root, ended)?;
    fill(message.place_bytes_field(root, 0, count)?);
    message.finish()
}

fn emit_count(out: &mut [u8], count: u32) -> Result<usize, NoRoom> {
    let size = <write_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u32(root, 0, count)?;
    message.finish()
}

fn emit_closed(out: &mut [u8], closed: bool) -> Result<usize, NoRoom> {
    let size = <is_closed_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_first_bool(root, closed)?;
    message.finish()
}

fn emit_ends(out: &mut [u8]) -> Result<usize, NoRoom> {
    let size = <create_pipe_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u16(root, 0, 0)?;
    message.set_u16(root, 1, 1)?;
    message.finish()
}
