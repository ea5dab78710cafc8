//! Two notifications between two programs: one to signal, one to wait for, and
//! both with one trap.

use alloc::vec::Vec;

use capos::syscall::cap_enter;
use capos_config::ring::CapSqe;
use sel4_capos_schema::method::{SIGNAL, WAIT};

use crate::proof::{Failure, no_params, that};
use crate::{Mailbox, PATIENCE_NS, Proof, RawRing, Sqe, call};

/// The word of a message or result that has one.
const WORD: core::ops::Range<usize> = 16..24;

/// Both notifications as one side has them.
pub struct Exchange {
    signalled: u32,
    awaited: u32,
    result: Mailbox,
    nothing: Vec<u8>,
}

impl Exchange {
    /// Signals capability `signalled` and waits for capability `awaited`.
    pub fn new(signalled: u32, awaited: u32) -> Self {
        Self {
            signalled,
            awaited,
            result: Mailbox::new(256),
            nothing: no_params(),
        }
    }

    /// Signals and does not wait for anybody.
    ///
    /// # Errors
    /// The system refuses.
    pub fn signal(&self, ring: &mut RawRing, bits: u64) -> Proof {
        let params = message(bits);
        enter(ring, &[call(self.signalled, SIGNAL).params(&params)])
    }

    /// Waits for bits and takes them.
    ///
    /// # Errors
    /// The system refuses, or nobody signals in time.
    pub fn wait(&mut self, ring: &mut RawRing) -> Result<u64, Failure> {
        let waiting = self.waiting();
        enter(ring, &[waiting])?;
        self.bits()
    }

    /// Signals, waits for bits and takes them.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn signal_and_wait(&mut self, ring: &mut RawRing, bits: u64) -> Result<u64, Failure> {
        let params = message(bits);
        let waiting = self.waiting();
        let signal = call(self.signalled, SIGNAL).params(&params);
        enter(ring, &[signal, waiting])?;
        self.bits()
    }

    fn waiting(&mut self) -> CapSqe {
        let entry = call(self.awaited, WAIT).params(&self.nothing);
        entry.result(self.result.bytes_mut())
    }

    fn bits(&self) -> Result<u64, Failure> {
        let word = self.result.bytes()[WORD].try_into();
        word.map(u64::from_le_bytes)
            .map_err(|_| Failure::new("no bits"))
    }
}

/// Enters once with `entries`; all of them must be completed well.
fn enter(ring: &mut RawRing, entries: &[CapSqe]) -> Proof {
    ring.submit(entries);
    let entered = cap_enter(entries.len() as u32, PATIENCE_NS);
    let mut good = 0;
    while let Some(cqe) = ring.take() {
        good += usize::from(cqe.result >= 0);
    }
    that(
        entered.is_ok() && good == entries.len(),
        "a signal or a wait was not completed",
    )
}

/// A message of one segment with a struct of one word.
fn message(word: u64) -> [u8; WORD.end] {
    let mut bytes = [0; WORD.end];
    bytes[4] = 2;
    bytes[12] = 1;
    bytes[WORD].copy_from_slice(&word.to_le_bytes());
    bytes
}
