//! The program `sharer` as its parent sees it: memory shared with a second
//! process.

use alloc::vec::Vec;

use capos::{KernelCapSource, Runtime, SpawnGrant};

use crate::family::{self, Child};
use crate::objects::Object;
use crate::proof::{Failure, Process, Proof, equal};
use crate::{Mailbox, Message, Sqe, call, copied};

/// Its methods; see the program.
pub mod method {
    /// Map an object.
    pub const ATTACH: u16 = 0;
    /// Write bytes.
    pub const FILL: u16 = 1;
    /// Add bytes up.
    pub const SUM: u16 = 2;
    /// Park on a word.
    pub const PARK: u16 = 3;
    /// Unmap and release.
    pub const DETACH: u16 = 4;
    /// Exit.
    pub const STOP: u16 = 5;
}

/// A running `sharer`.
pub struct Sharer {
    child: Child,
    facet: u32,
}

impl Sharer {
    /// Starts it, with more grants than it needs.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start(runtime: &mut Runtime, more: &[SpawnGrant<'_>]) -> Result<Self, Failure> {
        let own = [
            family::same(runtime, "console")?,
            family::fresh("endpoint", KernelCapSource::Endpoint),
        ];
        let grants: Vec<_> = own.iter().chain(more).copied().collect();
        let child = family::spawn(runtime, "sharer", &grants)?;
        let facet = child.endpoint(0)?.cap_id();
        Ok(Self { child, facet })
    }

    /// Sends it an object to map at `hint`; where it did.
    ///
    /// # Errors
    /// It does not answer.
    pub fn attach(&self, process: &mut Process, object: Object, hint: u64) -> Result<u64, Failure> {
        let message = Message::new(&hint.to_le_bytes(), &[copied(object.0)]);
        let mut answer = Mailbox::new(64);
        let entry = call(self.facet, method::ATTACH)
            .message(&message)
            .result(answer.bytes_mut());
        let cqe = process.ring.perform(entry)?;
        number(&answer, &cqe)
    }

    /// Has it do something; its answer.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ask(&self, process: &mut Process, method: u16, words: [u64; 3]) -> Result<u64, Failure> {
        let params: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut answer = Mailbox::new(64);
        let entry = call(self.facet, method)
            .params(&params)
            .result(answer.bytes_mut());
        let cqe = process.ring.perform(entry)?;
        number(&answer, &cqe)
    }

    /// Ends it.
    ///
    /// # Errors
    /// It ends badly.
    pub fn stop(self, runtime: &mut Runtime) -> Proof {
        self.ask(&mut Process::new(runtime), method::STOP, [0; 3])?;
        self.child.succeeds(runtime, "the sharer")
    }

    /// Ends it wherever it is.
    ///
    /// # Errors
    /// The system refuses.
    pub fn terminate(self, runtime: &mut Runtime) -> Proof {
        self.child.terminate(runtime)?;
        equal("exit code", self.child.wait(runtime)?, 137)
    }
}

fn number(answer: &Mailbox, cqe: &capos_config::ring::CapCqe) -> Result<u64, Failure> {
    let bytes = answer.written(cqe)?.try_into();
    bytes
        .map(u64::from_le_bytes)
        .map_err(|_| Failure::new("an answer of one word"))
}
