//! What a revocation means for calls that wait already.
//!
//! A revoked hold is refused wherever it is looked up. What entered before is
//! acted on here: a call that its process waits for through a revoked hold, and
//! through no other, is disconnected; and an object that nobody can use any
//! more behaves as if its last hold had been released, although revoked holds
//! still count until their holders release them.

use crate::exception::Exception;
use crate::ids::Pid;
use crate::kernel::pipe::End;
use crate::machine::Machine;
use crate::objects::{Object, ObjectId};
use crate::server::Server;

impl<M: Machine> Server<M> {
    /// Acts on calls that wait on an object of which a hold was revoked.
    pub(crate) fn settle_revocation(&mut self, machine: &mut M, id: ObjectId) {
        let lost = move |server: &Self, pid: Pid| server.lost(pid, id);
        match self.objects.get(id) {
            Some(Object::EndpointOwner(index)) if !self.is_usable(id) => {
                self.shut_endpoint(machine, index);
            }
            Some(Object::EndpointOwner(index)) => self.drop_owners(machine, index, lost),
            Some(Object::PipeRead(index)) => {
                let held = self.is_usable(id);
                self.revoke_pipe_end(machine, (index, End::Read), held, lost);
            }
            Some(Object::PipeWrite(index)) => {
                let held = self.is_usable(id);
                self.revoke_pipe_end(machine, (index, End::Write), held, lost);
            }
            Some(Object::Notification(index)) => self.end_bit_waits(machine, index, lost),
            Some(Object::TerminalSession) => self.end_terminal_read(machine, lost),
            Some(Object::ProcessHandle(index)) => self.end_exit_wait(machine, index, lost),
            _ => {}
        }
    }

    /// Whether a process holds an object, but not currently.
    fn lost(&self, pid: Pid, id: ObjectId) -> bool {
        let Some(process) = self.process(pid) else {
            return false;
        };
        let (mut any, mut current) = (false, false);
        for (_, hold) in process.caps.iter().filter(|(_, hold)| hold.object == id) {
            any = true;
            current |= self.objects.is_current(hold.epoch, hold.observed_epoch);
        }
        any && !current
    }

    /// Whether anyone can use an object: a hold that is current, or one on its
    /// way.
    fn is_usable(&self, id: ObjectId) -> bool {
        let processes = self.processes.iter().flatten();
        let holds = processes.flat_map(|process| process.caps.iter());
        let mut holds = holds
            .map(|(_, hold)| hold)
            .chain(self.endpoints.pins.holds());
        holds.any(|hold| {
            hold.object == id && self.objects.is_current(hold.epoch, hold.observed_epoch)
        })
    }

    /// Disconnects whoever waits for a process through a handle they lost.
    fn end_exit_wait(&mut self, machine: &mut M, index: u32, lost: impl Fn(&Self, Pid) -> bool) {
        let waiter = self.handles.get(index).and_then(|record| record.waiter);
        if let Some(waiter) = waiter.filter(|waiter| lost(self, waiter.thread.pid)) {
            if let Some(record) = self.handles.get_mut(index) {
                record.waiter = None;
            }
            let revoked = Exception::disconnected("capability revoked");
            self.fail_waiting(machine, &waiter, revoked);
        }
    }
}
