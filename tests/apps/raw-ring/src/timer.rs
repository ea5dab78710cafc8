//! The monotonic clock over the raw ring.

use alloc::vec::Vec;

use capos::capos_capnp;

use crate::proof::{Failure, no_params};
use crate::{Mailbox, Proof, RawRing, Sqe, call};

const NOW: u16 = 0;
const SLEEP: u16 = 1;
/// Room for the answer of `now`.
const ANSWER_BYTES: usize = 64;

/// A `Timer` this process holds, with its messages made beforehand.
pub struct Timer {
    cap: u32,
    empty: Vec<u8>,
    answer: Mailbox,
}

impl Timer {
    /// The timer held as `cap`.
    pub fn new(cap: u32) -> Self {
        Self {
            cap,
            empty: no_params(),
            answer: Mailbox::new(ANSWER_BYTES),
        }
    }

    /// Nanoseconds since boot.
    ///
    /// # Errors
    /// It is no timer.
    pub fn now_ns(&mut self, ring: &mut RawRing) -> Result<u64, Failure> {
        let entry = call(self.cap, NOW)
            .params(&self.empty)
            .result(self.answer.bytes_mut());
        let cqe = ring.perform(entry)?;
        let mut bytes = self.answer.written(&cqe)?;
        let bad = |_| Failure::new("the answer of Timer.now");
        let options = capos::default_reader_options();
        let message = capnp::serialize::read_message_from_flat_slice_no_alloc(&mut bytes, options)
            .map_err(bad)?;
        message
            .get_root::<capos_capnp::timer::now_results::Reader<'_>>()
            .map(|results| results.get_monotonic_ns())
            .map_err(bad)
    }

    /// Sleeps at least `duration_ns`.
    ///
    /// # Errors
    /// It is no timer, or as many sleep already as may.
    pub fn sleep(&mut self, ring: &mut RawRing, duration_ns: u64) -> Proof {
        let params = sleep_params(duration_ns);
        let entry = call(self.cap, SLEEP)
            .params(&params)
            .result(self.answer.bytes_mut());
        ring.expect("Timer.sleep", entry, 0).map(drop)
    }
}

/// Params of `Timer.sleep`.
pub fn sleep_params(duration_ns: u64) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<capos_capnp::timer::sleep_params::Builder<'_>>()
        .set_duration_ns(duration_ns);
    capnp::serialize::write_message_to_words(&message)
}
