//! A process that calls itself through an endpoint it owns.

use capos_config::ring::{CapCqe, CapSqe};

use crate::proof::{Failure, Process};
use crate::{Mailbox, Message, Sqe, call, receive, returns};

/// Method that loopback calls name.
pub const METHOD: u16 = 7;
/// Room that serves every message of a proof.
pub const ROOM: usize = 1024;

/// An endpoint of this process.
#[derive(Clone, Copy)]
pub struct Loopback {
    /// Its owner's capability.
    pub endpoint: u32,
}

/// A call that was delivered and waits for RETURN.
pub struct Open {
    /// `user_data` of the CALL.
    pub user_data: u64,
    /// Completion of the RECV.
    pub cqe: CapCqe,
    /// The message.
    pub mailbox: Mailbox,
}

impl Loopback {
    /// The endpoint granted as `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn new(process: &Process, name: &str) -> Result<Self, Failure> {
        process.cap(name).map(|endpoint| Self { endpoint })
    }

    /// A CALL with `message` and room for a result.
    pub fn call(&self, message: &Message, result: &mut Mailbox) -> CapSqe {
        call(self.endpoint, METHOD)
            .message(message)
            .result(result.bytes_mut())
    }

    /// Receives the call submitted as `user_data`, which is queued first.
    ///
    /// # Errors
    /// It is not delivered.
    pub fn receive(&self, process: &mut Process, user_data: u64) -> Result<Open, Failure> {
        let mut mailbox = Mailbox::new(ROOM);
        let cqe = process.ring.perform(receive(self.endpoint, &mut mailbox))?;
        Ok(Open {
            user_data,
            cqe,
            mailbox,
        })
    }

    /// Calls with `message` and receives the call.
    ///
    /// # Errors
    /// It is not delivered.
    pub fn deliver(
        &self,
        process: &mut Process,
        message: &Message,
        result: &mut Mailbox,
    ) -> Result<Open, Failure> {
        let user_data = process.ring.start(self.call(message, result))?;
        if let Some(cqe) = process.ring.find(user_data) {
            return Err(Failure::new(alloc::format!(
                "a CALL ended at once with {}",
                cqe.result
            )));
        }
        self.receive(process, user_data)
    }

    /// Answers an open call with `payload`; the caller's completion.
    ///
    /// # Errors
    /// The RETURN is refused, or the caller's completion does not come.
    pub fn answer(
        &self,
        process: &mut Process,
        open: &Open,
        payload: &Message,
    ) -> Result<CapCqe, Failure> {
        let answer = returns(self.endpoint, open.cqe.call_id).message(payload);
        process.ring.expect("RETURN", answer, 0)?;
        process.ring.wait(open.user_data)
    }

    /// Passes capabilities to this process itself; what arrived.
    ///
    /// # Errors
    /// Any step fails.
    pub fn pass(
        &self,
        process: &mut Process,
        message: &Message,
    ) -> Result<alloc::vec::Vec<crate::Record>, Failure> {
        let mut result = Mailbox::new(ROOM);
        let open = self.deliver(process, message, &mut result)?;
        let records = open.mailbox.delivery(&open.cqe)?.records;
        self.answer(process, &open, &Message::new(&[], &[]))?;
        Ok(records)
    }
}
