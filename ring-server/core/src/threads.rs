//! Threads: `ThreadControl`, `ThreadSpawner` and `ThreadHandle`.
//!
//! # Theory of operation
//! A process has a fixed number of thread slots. A thread keeps its slot for
//! life; its number is never used again in its process, so a submission owned
//! by a thread that ended never becomes another's. The machine makes and ends
//! the threads and holds their registers; everything else is here.
//!
//! A handle names a record in a table of its own, which goes when the last hold
//! on it does. A thread that ended stays charged to its process as long as its
//! handle can still be joined: until the join, or the release of the handle.
//!
//! A thread ends itself, with `exitThread`; nothing ends another thread of its
//! process but the end of the process. The last thread takes the process along.
//! What the thread submitted and did not wait for belongs to the process's ring
//! and completes there.
//!
//! # Invariants
//! - **J1** A record is running exactly while its thread lives; the thread's
//!   slot and the record then name each other.
//! - **J2** A retained slot has no thread, and a record that has ended, is held
//!   and was not joined.
//! - **J3** A joiner is a thread of the same process, is charged one outstanding
//!   operation, and waits for a thread that lives.

use capnp::Word;
use capos_config::ring::{CAP_ERR_INVALID_RESULT_BUFFER, CapCqe, CapSqe};
use capos_loader::AddressMap;
use capos_loader::layout::{TLS_BASE, TLS_LIMIT};

use crate::cap_table::HoldOrigin;
use crate::class::Class;
use crate::dispatch::{Caller, Outcome};
use crate::encode::NoRoom;
use crate::exception::Exception;
use crate::ids::{Pid, ThreadRef, Tid};
use crate::kernel::{Refusal, thread_control, thread_handle, thread_spawner};
use crate::limits::{Capacity, THREADS_MAX};
use crate::machine::{Machine, ThreadEntry};
use crate::objects::Object;
use crate::pool::Pool;
use crate::process::{self, Observed, TimerUse};
use crate::results::ResultCaps;
use crate::server::{CreateError, Server};
use crate::spawn::create_refused;
use crate::waiting::Waiting;

/// End of the lower half of the canonical addresses: what instruction pointer,
/// stack pointer and segment bases of a program must stay below.
pub(crate) const USER_CANONICAL_END: u64 = 1 << 47;

/// Whether a program may put this into an address register.
pub(crate) const fn is_user_address(address: u64) -> bool {
    address < USER_CANONICAL_END
}

/// Why such a base is refused.
const NOT_OWN: &str = "FS base in the TLS region that is not this program's own";

/// Refuses an FS base that may be another program's: the TLS region holds those
/// of all first threads (L6 of the loader), and each is its own program's.
fn check_fs_base(space: &AddressMap, fs_base: u64) -> Result<(), Exception> {
    let is_own = space.tls_fs_base() == Some(fs_base);
    if is_own || !(TLS_BASE..TLS_LIMIT).contains(&fs_base) {
        return Ok(());
    }
    Err(Exception::invalid_argument(NOT_OWN))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// Ended with this code; not joined.
    Ended(i64),
    /// Ended with this code, and somebody was told.
    Joined(i64),
}

/// What a `ThreadHandle` names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadRecord {
    thread: ThreadRef,
    index: usize,
    state: State,
    joiner: Option<Waiting>,
    /// Whether any hold is left; a joiner alone keeps the record, too.
    held: bool,
}

/// All thread records.
pub(crate) type ThreadRecords = Pool<ThreadRecord>;

/// An empty table of thread records: each is behind an object.
pub(crate) fn thread_records(capacity: &Capacity) -> ThreadRecords {
    Pool::with_capacity(capacity.objects)
}

impl<M: Machine> Server<M> {
    /// CALL to a `ThreadControl`: acts on the thread that entered.
    pub(crate) fn call_thread_control(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Outcome {
        let request = self
            .fetch_params(machine, caller, sqe)
            .and_then(|params| thread_control::decode(params, sqe));
        let request = request.and_then(|request| match request {
            thread_control::Request::SetFsBase(fs_base) => {
                self.check_fs_base(caller, fs_base).map(|()| request)
            }
            _ => Ok(request),
        });
        match request {
            Ok(thread_control::Request::GetFsBase) => self.get_fs_base(machine, caller, sqe),
            Ok(thread_control::Request::SetFsBase(fs_base)) => {
                if let Some(index) = self.index_of(caller) {
                    machine.set_fs_base(caller.thread, index, fs_base);
                }
                Outcome::code(sqe, 0)
            }
            Ok(thread_control::Request::Exit(code)) => Outcome::Ended(self.exit_thread(
                machine,
                caller.thread.pid,
                caller.thread.tid,
                code,
            )),
            Ok(thread_control::Request::LeaveServiceClass) => {
                if let Some(process) = self.process_mut(caller.thread.pid) {
                    process.class = Class::Application;
                    machine.set_class(caller.thread.pid, Class::Application);
                }
                Outcome::code(sqe, 0)
            }
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    fn get_fs_base(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Outcome {
        let index = self.index_of(caller).unwrap_or_default();
        let fs_base = machine.fs_base(caller.thread, index);
        let emitted = thread_control::emit_fs_base(self.reply_bytes(), fs_base);
        self.answer(machine, caller, sqe, emitted)
    }

    fn check_fs_base(&self, caller: Caller, fs_base: u64) -> Result<(), Refusal> {
        let process = self.process(caller.thread.pid);
        let process = process.ok_or(Exception::disconnected("no process"))?;
        Ok(check_fs_base(&process.space, fs_base)?)
    }

    /// CALL to a `ThreadSpawner`.
    pub(crate) fn call_thread_spawner(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Outcome {
        let created = self
            .fetch_params(machine, caller, sqe)
            .and_then(|params| thread_spawner::decode(params, sqe))
            .and_then(|entry| self.check_fs_base(caller, entry.fs_base).map(|()| entry))
            .and_then(|entry| self.spawn_thread(machine, caller, sqe, &entry));
        match created {
            Ok(cqe) => Outcome::Complete(cqe),
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    /// CALL to a `ThreadHandle`.
    pub(crate) fn call_thread_handle(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        record: u32,
    ) -> Outcome {
        let outcome = thread_handle::decode(sqe).and_then(|request| match request {
            thread_handle::Request::Join => self.join(machine, caller, sqe, record),
            thread_handle::Request::ExitCode => self.exit_code(machine, caller, sqe, record),
        });
        match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    /// The params of a submission, copied in once.
    pub(crate) fn fetch_params(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<&[u8], Refusal> {
        self.fetch(machine, caller.thread.pid, (sqe.addr, sqe.len))?;
        Ok(Word::words_to_bytes(&self.params))
    }

    fn reply_bytes(&mut self) -> &mut [u8] {
        Word::words_to_bytes_mut(&mut self.reply)
    }

    /// Completes with what was emitted into the reply buffer.
    pub(crate) fn answer(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        emitted: Result<usize, NoRoom>,
    ) -> Outcome {
        let short = Exception::overloaded("result buffer too small");
        let len = match emitted {
            Ok(len) if len <= sqe.result_len as usize => len,
            _ => return self.refuse(machine, caller, sqe, short.into()),
        };
        let reply = &Word::words_to_bytes(&self.reply)[..len];
        let written = machine.write(caller.thread.pid, sqe.result_addr, reply);
        let code = written.map_or(CAP_ERR_INVALID_RESULT_BUFFER, |()| len as i32);
        Outcome::code(sqe, code)
    }

    fn index_of(&self, caller: Caller) -> Option<usize> {
        self.process(caller.thread.pid)?
            .thread_index(caller.thread.tid)
    }

    /// Adds a thread with a handle to the caller's process. The machine comes
    /// last, because a thread that runs cannot be taken back.
    fn spawn_thread(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        entry: &ThreadEntry,
    ) -> Result<CapCqe, Refusal> {
        self.check_result_room(caller, sqe, thread_spawner::CREATE_RESULT_BYTES, 1)?;
        let pid = caller.thread.pid;
        let process = self
            .process_mut(pid)
            .ok_or(Exception::disconnected("no process"))?;
        let (index, tid) = process
            .add_thread()
            .ok_or(Exception::overloaded("too many threads"))?;
        let thread = ThreadRef { pid, tid };
        let mut given = ResultCaps::new();
        let started = self
            .give_thread_handle(thread, index, &mut given)
            .map_err(|error| Refusal::Exception(create_refused(&error)))
            .and_then(|()| self.write_created(machine, caller, sqe, &given))
            .and_then(|cqe| match machine.create_thread(thread, index, entry) {
                Ok(()) => Ok(cqe),
                Err(_) => Err(Exception::overloaded("no memory for a thread").into()),
            });
        if started.is_err() {
            self.forget_thread(thread, index, 0);
            self.take_results_back(pid, &given);
        }
        started
    }

    /// Gives the process a handle on its new thread.
    fn give_thread_handle(
        &mut self,
        thread: ThreadRef,
        index: usize,
        given: &mut ResultCaps,
    ) -> Result<(), CreateError> {
        let record = self.thread_records.insert(ThreadRecord {
            thread,
            index,
            state: State::Running,
            joiner: None,
            held: true,
        });
        let record = record.map_err(|_| CreateError::ObjectsExhausted)?;
        let hold = match self.mint_object(Object::ThreadHandle(record)) {
            Ok(hold) => hold,
            Err(error) => {
                self.thread_records.remove(record);
                return Err(error);
            }
        };
        if let Some(process) = self.process_mut(thread.pid) {
            process.observed[index].record = Some(record);
        }
        self.insert_result(thread.pid, hold, HoldOrigin::ResultCap, given)
    }

    fn write_created(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        given: &ResultCaps,
    ) -> Result<CapCqe, Refusal> {
        let mut result = [0; thread_spawner::CREATE_RESULT_BYTES];
        let len = thread_spawner::emit_created(&mut result).unwrap_or(result.len());
        self.write_results(machine, caller, sqe, &result[..len], given)
    }

    /// The record behind a handle of the caller's own process.
    fn own_record(&self, caller: Caller, record: u32) -> Result<ThreadRecord, Exception> {
        let record = self.thread_records.get(record);
        let record = record.ok_or(Exception::disconnected("no such thread"))?;
        if record.thread.pid == caller.thread.pid {
            Ok(*record)
        } else {
            Err(Exception::failed("a thread of another process"))
        }
    }

    /// `ThreadHandle.join`: the exit code, now or when there is one; once.
    fn join(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        record: u32,
    ) -> Result<Outcome, Refusal> {
        let ThreadRecord {
            thread,
            index,
            state,
            joiner,
            ..
        } = self.own_record(caller, record)?;
        if thread == caller.thread {
            return Err(Exception::failed("a thread cannot join itself").into());
        }
        if (sqe.result_len as usize) < thread_handle::JOIN_RESULT_BYTES {
            return Err(Exception::overloaded("result buffer too small").into());
        }
        let waiter = Waiting::new(caller, sqe);
        match state {
            State::Running if joiner.is_some() => {
                Err(Exception::failed("another join waits").into())
            }
            State::Running => {
                let process = self.process_mut(caller.thread.pid);
                let process = process.ok_or(Exception::disconnected("no process"))?;
                process.begin_outstanding()?;
                self.set_record(record, |record| record.joiner = Some(waiter));
                Ok(Outcome::Pending)
            }
            State::Ended(code) => {
                let result = self.write_joined(machine, &waiter, code);
                if result >= 0 {
                    self.set_record(record, |record| record.state = State::Joined(code));
                    self.free_slot(thread.pid, index);
                }
                Ok(Outcome::code(sqe, result))
            }
            State::Joined(_) => Err(Exception::failed("joined already").into()),
        }
    }

    fn set_record(&mut self, record: u32, change: impl FnOnce(&mut ThreadRecord)) {
        if let Some(record) = self.thread_records.get_mut(record) {
            change(record);
        }
    }

    /// Writes `join`'s result; returns the completion code.
    fn write_joined(&mut self, machine: &mut M, joiner: &Waiting, code: i64) -> i32 {
        let mut bytes = [0; thread_handle::JOIN_RESULT_BYTES];
        let len = thread_handle::emit_joined(&mut bytes, code).unwrap_or(bytes.len());
        self.write_result(machine, joiner, &bytes[..len])
    }

    /// `ThreadHandle.exitCode`: whether the thread ended, and how.
    fn exit_code(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        record: u32,
    ) -> Result<Outcome, Refusal> {
        let code = match self.own_record(caller, record)?.state {
            State::Running => None,
            State::Ended(code) | State::Joined(code) => Some(code),
        };
        let emitted = thread_handle::emit_exit_code(self.reply_bytes(), code);
        Ok(self.answer(machine, caller, sqe, emitted))
    }

    /// Adds a thread to a process, for hosts that run it themselves: it has no
    /// handle, and the machine is not told. `None` if its quota is spent.
    pub fn create_thread(&mut self, pid: Pid) -> Option<Tid> {
        self.process_mut(pid)?.add_thread().map(|(_, tid)| tid)
    }

    /// Ends one thread of a process: what it waits for is forgotten without a
    /// completion, and whoever joins it is told `code`. Ends the process if
    /// this was its last thread, and then returns the code. Does nothing if
    /// there is no such thread.
    pub fn exit_thread(&mut self, machine: &mut M, pid: Pid, tid: Tid, code: i64) -> Option<i64> {
        let index = self.process(pid)?.thread_index(tid)?;
        let thread = ThreadRef { pid, tid };
        self.forget_waits(Caller {
            slot: pid.slot(),
            thread,
        });
        if self.process(pid)?.live_threads() == 1 {
            self.end_process(machine, pid, code);
            return Some(code);
        }
        let joined = self.forget_thread(thread, index, code);
        machine.end_thread(thread, index);
        if let Some((record, joiner)) = joined {
            self.complete_join(machine, record, &joiner, code);
        }
        None
    }

    /// What a thread waits for ends without a completion.
    fn forget_waits(&mut self, caller: Caller) {
        self.forget_wait_of(caller);
        let Some(index) = self.index_of(caller) else {
            return;
        };
        self.deadlines
            .disarm(process::timer(caller.slot, TimerUse::Park(index)));
        if let Some(process) = self.processes[caller.slot].as_deref_mut()
            && process.parks[index].take().is_some()
        {
            process.ring.release_credit();
        }
    }

    /// Takes a thread out of its process. Its slot stays taken if it can still
    /// be joined; if somebody waits for that, returns who.
    fn forget_thread(
        &mut self,
        thread: ThreadRef,
        index: usize,
        code: i64,
    ) -> Option<(u32, Waiting)> {
        let process = self.process_mut(thread.pid)?;
        process.threads[index] = None;
        let record = process.observed[index].record?;
        let observed = self.thread_records.get_mut(record)?;
        observed.state = State::Ended(code);
        let joiner = observed.joiner.take();
        if joiner.is_none() {
            process_retains(self.process_mut(thread.pid), index);
        }
        joiner.map(|joiner| (record, joiner))
    }

    /// Tells the joiner of a thread that just ended.
    fn complete_join(&mut self, machine: &mut M, record: u32, joiner: &Waiting, code: i64) {
        let Some(ThreadRecord {
            thread,
            index,
            held,
            ..
        }) = self.thread_records.get(record).copied()
        else {
            return;
        };
        let result = self.write_joined(machine, joiner, code);
        self.set_record(record, |record| record.state = State::Joined(code));
        self.free_slot(thread.pid, index);
        if !held {
            self.thread_records.remove(record);
        }
        self.finish_waiting(machine, joiner, result);
    }

    /// The slot of a thread that ended can be used again.
    fn free_slot(&mut self, pid: Pid, index: usize) {
        if let Some(process) = self.process_mut(pid) {
            process.observed[index] = Observed::default();
        }
    }

    /// The last hold on a handle is gone: nobody can join any more, unless
    /// somebody waits already.
    pub(crate) fn close_thread_handle(&mut self, record: u32) {
        let Some(observed) = self.thread_records.get_mut(record) else {
            return;
        };
        observed.held = false;
        if observed.joiner.is_some() {
            return;
        }
        let (pid, index) = (observed.thread.pid, observed.index);
        self.thread_records.remove(record);
        if let Some(process) = self.process_mut(pid)
            && process.observed[index].record == Some(record)
        {
            process.observed[index] = Observed::default();
        }
    }

    /// The threads of a process that is gone ended with it, and none of them
    /// waits for another any more.
    pub(crate) fn forget_threads(&mut self, observed: &[Observed; THREADS_MAX], code: i64) {
        for number in observed.iter().filter_map(|slot| slot.record) {
            let Some(record) = self.thread_records.get_mut(number) else {
                continue;
            };
            record.joiner = None;
            if record.state == State::Running {
                record.state = State::Ended(code);
            }
            if !record.held {
                self.thread_records.remove(number);
            }
        }
    }

    /// Operations of `pid` that wait for the end of a thread (J3).
    pub(crate) fn joins(&self, pid: Pid) -> usize {
        let waits = |record: &ThreadRecord| record.joiner.is_some_and(|j| j.thread.pid == pid);
        let records = self.thread_records.iter();
        records.filter(|(_, record)| waits(record)).count()
    }

    /// Asserts J1, J2 and J3.
    pub(crate) fn check_threads(&self) {
        self.thread_records.check();
        for (number, record) in self.thread_records.iter() {
            assert!(record.held || record.joiner.is_some(), "record {number}");
            let process = self.process(record.thread.pid);
            let observed = process.map(|process| process.observed[record.index]);
            let named = observed.is_some_and(|observed| observed.record == Some(number));
            let thread = process.and_then(|process| process.threads[record.index]);
            let lives = named && thread == Some(record.thread.tid);
            assert_eq!(record.state == State::Running, lives, "J1: record {number}");
            if let Some(joiner) = record.joiner {
                assert_eq!(joiner.thread.pid, record.thread.pid, "J3: same process");
                assert!(lives, "J3: a joined thread lives");
            }
            let ended = named && matches!(record.state, State::Ended(_));
            let retained = observed.is_some_and(|observed| named && observed.retained);
            assert_eq!(ended, retained, "J2: record {number}");
        }
        for process in self.processes.iter().flatten() {
            for (index, observed) in process.observed.iter().enumerate() {
                let record = observed.record.and_then(|r| self.thread_records.get(r));
                assert_eq!(observed.record.is_some(), record.is_some(), "J1: slot");
                let empty = process.threads[index].is_none();
                assert!(!observed.retained || empty, "J2: a retained slot");
                assert_eq!(observed.retained, record.is_some() && empty, "J2: slot");
            }
            let live = process.live_threads();
            assert!(live > 0, "a process without threads");
        }
    }
}

fn process_retains<R>(process: Option<&mut process::Process<R>>, index: usize) {
    if let Some(process) = process {
        process.observed[index].retained = true;
    }
}

#[cfg(test)]
mod tests {
    use capos_loader::tls::TLS_SLOTS;
    use capos_loader::{FileRange, TlsPlan, TlsSlot};

    use super::*;

    /// A block of one page in a slot, with its thread pointer in the middle.
    fn space(slot: TlsSlot) -> (AddressMap, u64) {
        let first = TlsPlan {
            region_base: TLS_BASE,
            pages: 1,
            image: TLS_BASE,
            template: FileRange::default(),
            fs_base: TLS_BASE + 0x40,
        };
        let mut space = AddressMap::new(4);
        space.insert_tls(first).expect("the map is empty");
        space.place_tls(slot);
        space.check();
        (space, slot.end() - 0x1000 + 0x40)
    }

    #[test]
    fn of_all_bases_in_the_tls_region_a_process_may_set_its_own() {
        for number in 0..TLS_SLOTS as usize {
            let (own, base) = space(TlsSlot::of(number));
            assert_eq!(own.tls_fs_base(), Some(base));
            let others = (0..TLS_SLOTS as usize).filter(|other| *other != number);
            let others = others.map(|other| space(TlsSlot::of(other)).1);
            let edges = [TLS_BASE, base - 1, base + 1, TLS_LIMIT - 1];
            for refused in others.chain(edges) {
                let expected = Err(Exception::invalid_argument(NOT_OWN));
                assert_eq!(check_fs_base(&own, refused), expected, "{refused:#x}");
            }
            for fine in [0, TLS_BASE - 1, base, TLS_LIMIT, USER_CANONICAL_END - 1] {
                assert_eq!(check_fs_base(&own, fine), Ok(()), "{fine:#x}");
            }
        }
    }
}
