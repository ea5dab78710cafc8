//! `Notification` and `Signaller`: a word of bits that one side sets and
//! another waits for.
//!
//! The semantics are seL4's: signals that nobody waits for are or-ed into the
//! word, the first waiter takes the whole word, and a badged capability signals
//! its badge. A `Signaller` is the badged capability: the same object under an
//! interface that can only signal, with the bits it may set in the badge of the
//! hold. A signaller without a badge may set any.
//!
//! A result that cannot be written takes no bits: they go to the next waiter,
//! or stay in the word.
//!
//! # Invariants
//! - **N1** Nobody waits while the word is not zero.
//! - **N2** Every wait record is in the line of exactly one notification, and
//!   is counted by its process.

use capnp::Word;
use capnp::traits::HasStructSize;
use capos_config::ring::{CapCqe, CapSqe};
use sel4_capos_schema::notification_capnp::notification::{
    signal_params, signaller_params, signaller_results, wait_results,
};
use sel4_capos_schema::notification_capnp::spawner_extension::create_notification_results;
use sel4_capos_schema::{SIGNALLER_INTERFACE_ID, method};

use super::{Refusal, copied, malformed, message};
use crate::cap_table::{Hold, HoldOrigin};
use crate::decode;
use crate::dispatch::{Caller, Outcome};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::ids::Pid;
use crate::limits::Capacity;
use crate::machine::Machine;
use crate::objects::Object;
use crate::pool::Pool;
use crate::results::ResultCaps;
use crate::server::Server;
use crate::spawn::create_refused;
use crate::waiting::Waiting;

const NONE: u32 = u32::MAX;
const WORD_RESULT_BYTES: usize = 3 * size_of::<Word>();

/// A call that waits, and the next in line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    call: Waiting,
    next: u32,
}

/// One notification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notification {
    /// Who is charged for it.
    payer: Pid,
    word: u64,
    first: u32,
    last: u32,
}

/// All notifications, and who waits.
#[derive(Clone, Debug)]
pub(crate) struct Notifications {
    pub(crate) table: Pool<Notification>,
    pub(crate) waits: Pool<Wait>,
}

impl Notifications {
    pub(crate) fn new(capacity: &Capacity) -> Self {
        Self {
            table: Pool::with_capacity(capacity.notifications),
            waits: Pool::with_capacity(capacity.notification_waits),
        }
    }

    fn create(&mut self, payer: Pid) -> Option<u32> {
        let notification = Notification {
            payer,
            word: 0,
            first: NONE,
            last: NONE,
        };
        self.table.insert(notification).ok()
    }

    /// Puts a call at the end of the line.
    fn enqueue(&mut self, index: u32, call: Waiting) -> Option<()> {
        let notification = self.table.get_mut(index)?;
        let wait = self.waits.insert(Wait { call, next: NONE }).ok()?;
        match self.waits.get_mut(notification.last) {
            Some(last) => last.next = wait,
            None => notification.first = wait,
        }
        notification.last = wait;
        Some(())
    }

    /// Takes the first call that `wanted` accepts out of the line.
    fn take(&mut self, index: u32, wanted: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        let notification = self.table.get_mut(index)?;
        let (mut before, mut at) = (NONE, notification.first);
        loop {
            let wait = *self.waits.get(at)?;
            if !wanted(&wait.call) {
                (before, at) = (at, wait.next);
                continue;
            }
            match self.waits.get_mut(before) {
                Some(previous) => previous.next = wait.next,
                None => notification.first = wait.next,
            }
            if notification.last == at {
                notification.last = before;
            }
            self.waits.remove(at);
            return Some(wait.call);
        }
    }

    fn line(&self, notification: &Notification) -> impl Iterator<Item = &Waiting> {
        let mut at = notification.first;
        core::iter::from_fn(move || {
            let wait = self.waits.get(at)?;
            at = wait.next;
            Some(&wait.call)
        })
    }

    /// Calls of `pid` that wait.
    pub(crate) fn waits_of(&self, pid: Pid) -> usize {
        let mine = |wait: &Wait| wait.call.thread.pid == pid;
        self.waits.iter().filter(|(_, wait)| mine(wait)).count()
    }

    /// Notifications charged to `pid`.
    pub(crate) fn charges(&self, pid: Pid) -> u32 {
        let mine = self.table.iter().filter(|(_, n)| n.payer == pid);
        mine.count() as u32
    }

    /// Asserts N1 and N2.
    pub(crate) fn check(&self) {
        self.table.check();
        self.waits.check();
        let mut listed = 0;
        for (index, notification) in self.table.iter() {
            let waiting = self.line(notification).count();
            assert!(waiting == 0 || notification.word == 0, "N1: {index}");
            assert_eq!(
                waiting == 0,
                notification.last == NONE,
                "N2: end of {index}"
            );
            listed += waiting;
        }
        assert_eq!(listed, self.waits.iter().count(), "N2: a wait in no line");
    }
}

impl<M: Machine> Server<M> {
    /// `SpawnerExtension.createNotification`.
    pub(crate) fn create_notification(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<CapCqe, Refusal> {
        let pid = caller.thread.pid;
        self.check_result_room(caller, sqe, WORD_RESULT_BYTES, 1)?;
        let index = self.charge_notification(pid)?;
        let mut given = ResultCaps::new();
        let minted = self
            .mint_object(Object::Notification(index))
            .inspect_err(|_| self.free_notification(index))
            .and_then(|hold| self.insert_result(pid, hold, HoldOrigin::ResultCap, &mut given));
        minted.map_err(|error| create_refused(&error))?;
        let mut result = [0; WORD_RESULT_BYTES];
        let len = emit_created(&mut result).unwrap_or(result.len());
        self.write_results(machine, caller, sqe, &result[..len], &given)
    }

    fn charge_notification(&mut self, pid: Pid) -> Result<u32, Refusal> {
        let full = Exception::overloaded("notification storage exhausted");
        let process = self.processes[pid.slot()].as_deref_mut().ok_or(full)?;
        if process.made.notifications >= process.limits.notifications {
            return Err(Exception::overloaded("too many notifications").into());
        }
        let index = self.notifications.create(pid).ok_or(full)?;
        process.made.notifications += 1;
        Ok(index)
    }

    fn free_notification(&mut self, index: u32) {
        if let Some(notification) = self.notifications.table.remove(index)
            && let Some(payer) = self.process_mut(notification.payer)
        {
            payer.made.notifications -= 1;
        }
    }

    /// CALL to a notification, or through a signaller to one.
    pub(crate) fn call_notification(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        hold: &Hold,
        index: u32,
    ) -> Outcome {
        let outcome = match sqe.method_id {
            method::SIGNAL => self.signal(machine, caller, sqe, hold, index),
            _ if hold.interface_id == SIGNALLER_INTERFACE_ID => {
                Err(Exception::unimplemented().into())
            }
            method::WAIT => self.wait_for_bits(machine, caller, sqe, index),
            method::POLL => self.poll_bits(machine, caller, sqe, index),
            method::SIGNALLER => self.make_signaller(machine, caller, sqe, hold),
            _ => Err(Exception::unimplemented().into()),
        };
        match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    fn signal(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        hold: &Hold,
        index: u32,
    ) -> Result<Outcome, Refusal> {
        self.fetch(machine, caller.thread.pid, (sqe.addr, sqe.len))?;
        let params = Word::words_to_bytes(&self.params);
        let bits = match decode::root_u64(copied(params, sqe)) {
            Some(bits) => bits,
            None => message(params, sqe)?
                .get_root::<signal_params::Reader<'_>>()
                .map_err(malformed)?
                .get_bits(),
        };
        let bits = match (bits, hold.badge) {
            (0, 0) => return Err(Exception::invalid_argument("a signal of nothing").into()),
            (0, badge) => badge,
            (bits, 0) => bits,
            (bits, badge) if bits & !badge == 0 => bits,
            _ => return Err(Exception::invalid_argument("not this capability's bits").into()),
        };
        self.deliver_bits(machine, index, bits);
        Ok(Outcome::code(sqe, 0))
    }

    /// Gives bits to the first who can take them, or keeps them.
    fn deliver_bits(&mut self, machine: &mut M, index: u32, bits: u64) {
        while let Some(call) = self.take_wait(index, |_| true) {
            let code = self.write_bits(machine, &call, bits);
            self.finish_waiting(machine, &call, code);
            if code >= 0 {
                return;
            }
        }
        if let Some(notification) = self.notifications.table.get_mut(index) {
            notification.word |= bits;
        }
    }

    fn take_wait(&mut self, index: u32, wanted: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        let call = self.notifications.take(index, wanted)?;
        if let Some(process) = self.process_mut(call.thread.pid) {
            process.notification_waits -= 1;
        }
        Some(call)
    }

    fn write_bits(&mut self, machine: &mut M, call: &Waiting, bits: u64) -> i32 {
        let mut result = [0; WORD_RESULT_BYTES];
        let len = emit_bits(&mut result, bits).unwrap_or(result.len());
        self.write_result(machine, call, &result[..len])
    }

    fn wait_for_bits(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
    ) -> Result<Outcome, Refusal> {
        let gone = Exception::disconnected("notification is gone");
        let word = self.notifications.table.get(index).ok_or(gone)?.word;
        if word != 0 {
            return self.poll_bits(machine, caller, sqe, index);
        }
        let full = Exception::overloaded("too many waits");
        let process = self.processes[caller.slot].as_deref_mut().ok_or(gone)?;
        if process.notification_waits >= process.limits.notification_waits {
            return Err(full.into());
        }
        process.begin_outstanding()?;
        let queued = self.notifications.enqueue(index, Waiting::new(caller, sqe));
        match queued {
            Some(()) => {
                process.notification_waits += 1;
                Ok(Outcome::Pending)
            }
            None => {
                process.outstanding -= 1;
                Err(full.into())
            }
        }
    }

    /// Takes the word as it is.
    fn poll_bits(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
    ) -> Result<Outcome, Refusal> {
        let gone = Exception::disconnected("notification is gone");
        let word = self.notifications.table.get(index).ok_or(gone)?.word;
        let code = self.write_bits(machine, &Waiting::new(caller, sqe), word);
        if code >= 0
            && let Some(notification) = self.notifications.table.get_mut(index)
        {
            notification.word = 0;
        }
        Ok(Outcome::code(sqe, code))
    }

    /// A capability that can set some bits and nothing else. It is revoked
    /// with the one it was made through.
    fn make_signaller(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        hold: &Hold,
    ) -> Result<Outcome, Refusal> {
        let pid = caller.thread.pid;
        self.fetch(machine, pid, (sqe.addr, sqe.len))?;
        let badge = message(Word::words_to_bytes(&self.params), sqe)?
            .get_root::<signaller_params::Reader<'_>>()
            .map_err(malformed)?
            .get_badge();
        self.check_result_room(caller, sqe, WORD_RESULT_BYTES, 1)?;
        let below = self
            .objects
            .insert_epoch_below(hold.epoch, hold.observed_epoch);
        let epoch = below.ok_or(Exception::overloaded("objects exhausted"))?;
        self.objects.retain_object(hold.object);
        let signaller = Hold {
            epoch,
            observed_epoch: 0,
            interface_id: SIGNALLER_INTERFACE_ID,
            badge,
            ..*hold
        };
        let mut given = ResultCaps::new();
        self.insert_result(pid, signaller, HoldOrigin::ResultCap, &mut given)
            .map_err(|error| create_refused(&error))?;
        let mut result = [0; WORD_RESULT_BYTES];
        let len = emit_made(&mut result).unwrap_or(result.len());
        self.write_results(machine, caller, sqe, &result[..len], &given)
            .map(Outcome::Complete)
    }

    /// The last hold is gone: who still waits is disconnected.
    pub(crate) fn drop_notification(&mut self, machine: &mut M, index: u32) {
        self.end_bit_waits(machine, index, |_, _| true);
        self.free_notification(index);
    }

    /// As [`Server::drop_notification`], where nobody can wait yet.
    pub(crate) fn discard_notification(&mut self, index: u32) {
        self.free_notification(index);
    }

    /// Disconnects those of a notification's waiters that `whose` accepts.
    pub(crate) fn end_bit_waits(
        &mut self,
        machine: &mut M,
        index: u32,
        whose: impl Fn(&Self, Pid) -> bool,
    ) {
        let gone = Exception::disconnected("notification is gone");
        while let Some(pid) = self.first_bit_wait(index, &whose) {
            match self.take_wait(index, |call| call.thread.pid == pid) {
                Some(call) => self.fail_waiting(machine, &call, gone),
                None => return,
            }
        }
    }

    fn first_bit_wait(&self, index: u32, whose: impl Fn(&Self, Pid) -> bool) -> Option<Pid> {
        let notification = self.notifications.table.get(index)?;
        let waiting = self.notifications.line(notification);
        let mut pids = waiting.map(|call| call.thread.pid);
        pids.find(|&pid| whose(self, pid))
    }

    /// Forgets what a process that is gone was waiting for.
    pub(crate) fn forget_bit_waits(&mut self, pid: Pid, count: u32) {
        if count == 0 {
            return;
        }
        for index in 0..self.notifications.table.capacity() {
            let mine = |call: &Waiting| call.thread.pid == pid;
            while self.notifications.take(index, mine).is_some() {}
        }
    }

    /// Charges whoever answers for a process that is gone with the
    /// notifications it made and others still hold.
    pub(crate) fn inherit_notifications(&mut self, from: Pid, heir: Pid) {
        let mut inherited = 0;
        for notification in self.notifications.table.values_mut() {
            if notification.payer == from {
                notification.payer = heir;
                inherited += 1;
            }
        }
        if let Some(heir) = self.process_mut(heir) {
            heir.made.notifications += inherited;
        }
    }
}

fn emit_bits(out: &mut [u8], bits: u64) -> Result<usize, NoRoom> {
    let size = <wait_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_u64(root, 0, bits)?;
    message.finish()
}

fn emit_created(out: &mut [u8]) -> Result<usize, NoRoom> {
    let size = <create_notification_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (message, _) = Emitter::new(out, size)?;
    message.finish()
}

fn emit_made(out: &mut [u8]) -> Result<usize, NoRoom> {
    let size = <signaller_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (message, _) = Emitter::new(out, size)?;
    message.finish()
}
