//! PARK and UNPARK: a thread waits on a word of its own memory.
//!
//! The word is read, compared and the thread enqueued in one dispatch, so a
//! wake cannot fall between. A parked thread holds one completion slot in
//! reserve; wake, timeout and interruption use it, and exactly one of them
//! happens.

use capos_config::ring::{
    CAP_ERR_INVALID_PARAMS_BUFFER, CAP_ERR_INVALID_REQUEST, CAP_ERR_INVOKE_FAILED, CapSqe,
    PARK_INTERRUPTED, PARK_TIMED_OUT, PARK_VALUE_MISMATCH, PARK_WOKEN,
};
use capos_loader::layout::USER_LIMIT;

use crate::cap_table::CapId;
use crate::dispatch::{Caller, Outcome};
use crate::ids::{PROCESS_SLOTS, ThreadRef};
use crate::machine::Machine;
use crate::objects::Object;
use crate::process::{self, TimerUse};
use crate::ring::completion;
use crate::server::{Server, WAIT_FOREVER};

const WORD_BYTES: u64 = size_of::<u32>() as u64;

/// What waits and wakes meet at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParkKey {
    /// An address of one process.
    Private {
        /// The process's slot.
        slot: usize,
        /// The word.
        addr: u64,
    },
    /// A word of a memory object, wherever processes map it.
    Shared {
        /// The object.
        object: u32,
        /// The word, in bytes from the object's start.
        offset: u64,
    },
}

/// A parked thread; its slot in the process says which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Park {
    pub(crate) addr: u64,
    pub(crate) key: ParkKey,
    pub(crate) user_data: u64,
    /// Order of arrival, system-wide.
    pub(crate) sequence: u64,
}

impl<M: Machine> Server<M> {
    /// PARK: stops the calling thread if its word has the expected value.
    pub(crate) fn park(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Outcome {
        let key = match self.check_park_word(caller, sqe) {
            Ok(key) => key,
            Err(code) => return Outcome::code(sqe, code),
        };
        let mut word = [0; WORD_BYTES as usize];
        if machine
            .read(caller.thread.pid, sqe.addr, &mut word)
            .is_err()
        {
            return Outcome::code(sqe, CAP_ERR_INVALID_PARAMS_BUFFER);
        }
        if u32::from_le_bytes(word) != sqe.len {
            return Outcome::code(sqe, PARK_VALUE_MISMATCH);
        }
        let timeout_ns = sqe.pipeline_dep;
        if timeout_ns == 0 {
            return Outcome::code(sqe, PARK_TIMED_OUT);
        }
        let Some(process) = self.processes[caller.slot].as_deref_mut() else {
            return Outcome::Pending;
        };
        // Draining checked for room, so the credit is there.
        let index = process.thread_index(caller.thread.tid);
        let Some(index) = index.filter(|_| process.ring.reserve_credit()) else {
            return Outcome::code(sqe, CAP_ERR_INVALID_REQUEST);
        };
        process.parks[index] = Some(Park {
            addr: sqe.addr,
            key,
            user_data: sqe.user_data,
            sequence: self.next_park,
        });
        self.next_park += 1;
        if timeout_ns != WAIT_FOREVER {
            let due = machine.now_ns().saturating_add(timeout_ns);
            let timer = process::timer(caller.slot, TimerUse::Park(index));
            self.deadlines.arm(timer, due);
        }
        Outcome::Parked
    }

    /// Authority, shape and readability of a park word.
    fn check_park_word(&self, caller: Caller, sqe: &CapSqe) -> Result<ParkKey, i32> {
        let key = self.park_key(caller, sqe)?;
        let process = self
            .process(caller.thread.pid)
            .ok_or(CAP_ERR_INVOKE_FAILED)?;
        if process.space.is_readable(sqe.addr, WORD_BYTES) {
            Ok(key)
        } else {
            Err(CAP_ERR_INVALID_PARAMS_BUFFER)
        }
    }

    /// What PARK and UNPARK both need: a live `ParkSpace`, or a
    /// `SharedParkSpace` (or the memory object it is of) and a word of that
    /// object; an aligned address.
    fn park_key(&self, caller: Caller, sqe: &CapSqe) -> Result<ParkKey, i32> {
        let process = self
            .process(caller.thread.pid)
            .ok_or(CAP_ERR_INVOKE_FAILED)?;
        let hold = process
            .caps
            .lookup(CapId::from_raw(sqe.cap_id), &self.objects)
            .map_err(|_| CAP_ERR_INVOKE_FAILED)?;
        let shared = match self.objects.get(hold.object) {
            Some(Object::ParkSpace) => None,
            Some(Object::SharedParkSpace(object) | Object::MemoryObject(object)) => Some(object),
            _ => return Err(CAP_ERR_INVOKE_FAILED),
        };
        if !sqe.addr.is_multiple_of(WORD_BYTES) || sqe.addr >= USER_LIMIT {
            return Err(CAP_ERR_INVALID_REQUEST);
        }
        let Some(object) = shared else {
            let (slot, addr) = (caller.slot, sqe.addr);
            return Ok(ParkKey::Private { slot, addr });
        };
        let (id, offset) = process
            .space
            .object_at(sqe.addr)
            .ok_or(CAP_ERR_INVALID_PARAMS_BUFFER)?;
        if id != object {
            return Err(CAP_ERR_INVALID_PARAMS_BUFFER);
        }
        Ok(ParkKey::Shared { object, offset })
    }

    /// UNPARK: wakes up to `len` threads parked at the word, first come first
    /// served, across processes if the word is shared; answers their number.
    /// At most every thread of the system is woken, each after a look at all
    /// that are parked.
    pub(crate) fn unpark(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Outcome {
        let key = match self.park_key(caller, sqe) {
            Ok(key) => key,
            Err(code) => return Outcome::code(sqe, code),
        };
        if sqe.len == 0 {
            return Outcome::code(sqe, CAP_ERR_INVALID_REQUEST);
        }
        let mut woken = 0;
        while woken < sqe.len
            && let Some((slot, index)) = self.first_parked(key)
        {
            self.end_park(machine, slot, index, PARK_WOKEN);
            woken += 1;
        }
        Outcome::code(sqe, woken as i32)
    }

    /// Process slot and thread slot of the thread that parked first.
    fn first_parked(&self, key: ParkKey) -> Option<(usize, usize)> {
        let slots = match key {
            ParkKey::Private { slot, .. } => slot..slot + 1,
            ParkKey::Shared { .. } => 0..PROCESS_SLOTS,
        };
        let parks = slots.filter_map(|slot| Some((slot, self.processes[slot].as_deref()?)));
        parks
            .flat_map(|(slot, process)| {
                let parks = process.parks.iter().enumerate();
                parks.filter_map(move |(index, park)| Some((slot, index, (*park)?)))
            })
            .filter(|(_, _, park)| park.key == key)
            .min_by_key(|(_, _, park)| park.sequence)
            .map(|(slot, index, _)| (slot, index))
    }

    /// Completes a park with `status` and resumes its thread.
    pub(crate) fn end_park(&mut self, machine: &mut M, slot: usize, index: usize, status: i32) {
        self.deadlines
            .disarm(process::timer(slot, TimerUse::Park(index)));
        let Some(process) = self.processes[slot].as_deref_mut() else {
            return;
        };
        let (Some(park), Some(tid)) = (process.parks[index].take(), process.threads[index]) else {
            return;
        };
        process
            .ring
            .complete_on_credit(&completion(park.user_data, status));
        let pid = process.pid;
        let available = process.ring.available();
        machine.resume(ThreadRef { pid, tid }, available.into());
        self.wake_if_satisfied(machine, slot);
    }

    /// A thread that enters is not parked: its park, if any, is interrupted.
    /// Only a forged entry can find one.
    pub(crate) fn interrupt_park(&mut self, slot: usize, index: usize) {
        self.deadlines
            .disarm(process::timer(slot, TimerUse::Park(index)));
        if let Some(process) = self.processes[slot].as_deref_mut()
            && let Some(park) = process.parks[index].take()
        {
            process
                .ring
                .complete_on_credit(&completion(park.user_data, PARK_INTERRUPTED));
        }
    }
}
