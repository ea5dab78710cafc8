//! One object held many times, and the two programs of `bench-revoke`.

use alloc::vec::Vec;

use capos::CapSqe;
use capos::syscall::cap_enter;

use crate::objects::Object;
use crate::proof::{Failure, Process, Proof, equal, that};
use crate::{Loopback, Message, RawRing, copied, release};

/// Methods of `bench-holder`.
pub mod method {
    /// Hold the memory object that comes along as often as the params, a word,
    /// say; answers a number under which it is held.
    pub const HOLD: u16 = 0;
    /// Let go of all of it; answers, in a word, how many could still be used.
    pub const LET_GO: u16 = 1;
    /// End.
    pub const STOP: u16 = 2;
}

/// Most capabilities of a message, and entries that are submitted together.
const BATCH: usize = 16;

/// The numbers under which one memory object is held.
pub struct Holds {
    ids: Vec<u32>,
}

impl Holds {
    /// Holds the object `count` times, by calls of this process to itself that
    /// bring copies.
    ///
    /// # Errors
    /// A call fails.
    pub fn multiply(
        process: &mut Process,
        own: Loopback,
        object: u32,
        count: usize,
    ) -> Result<Self, Failure> {
        let mut ids = Vec::with_capacity(count);
        ids.push(object);
        while ids.len() < count {
            let batch = BATCH.min(count - ids.len());
            let sources: Vec<_> = (0..batch).map(|_| copied(object)).collect();
            let records = own.pass(process, &Message::new(&[], &sources))?;
            ids.extend(records.iter().map(|record| record.cap_id));
        }
        equal("holds", ids.len(), count)?;
        Ok(Self { ids })
    }

    /// Lets go of all; how many could be used until then.
    ///
    /// # Errors
    /// A release fails.
    pub fn let_go(self, ring: &mut RawRing) -> Result<usize, Failure> {
        let mut usable = 0;
        for &id in &self.ids {
            usable += usize::from(Object(id).info(ring)?.is_ok());
        }
        for ids in self.ids.chunks(BATCH) {
            let entries: Vec<CapSqe> = ids.iter().map(|&id| release(id)).collect();
            release_all(ring, &entries)?;
        }
        Ok(usable)
    }
}

fn release_all(ring: &mut RawRing, entries: &[CapSqe]) -> Proof {
    ring.submit(entries);
    let entered = cap_enter(entries.len() as u32, crate::PATIENCE_NS);
    that(entered.is_ok(), "cap_enter")?;
    let released = core::iter::from_fn(|| ring.take()).filter(|cqe| cqe.result == 0);
    equal("releases", released.count(), entries.len())
}
