//! The verifier of a password that was made while the system runs, kept where
//! the next instance of this program finds it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;

use capnp::message::{Builder, HeapAllocator};
use capos::{
    CallId, CompletedCall, RingClientError, RuntimeRingClient, decode_completed_call,
    default_reader_options,
};
use sel4_capos_schema::method;
use sel4_capos_schema::supervisor_capnp::keepsake;
use service::FOREVER;
use zeroize::Zeroizing;

/// Room for a note of any length.
const RESULT_BYTES: usize = 1280;

/// Where the verifier is kept.
pub(crate) struct Keepsake {
    pub(crate) cap_id: u32,
}

/// What was kept cannot be learned.
pub(crate) struct Lost;

impl Keepsake {
    fn submit(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        method: u16,
        params: &Builder<HeapAllocator>,
    ) -> Result<CallId, RingClientError> {
        let params = capnp::serialize::write_message_to_words(params).into_boxed_slice();
        let result: Box<[u8]> = vec![0; RESULT_BYTES].into();
        ring.submit_call(self.cap_id, method, params, result)
    }

    /// Has `verifier` kept.
    pub(crate) fn keep(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        verifier: &str,
    ) -> Result<CallId, RingClientError> {
        let mut message = service::empty_message();
        let mut params: keepsake::keep_params::Builder<'_> = message.init_root();
        params.set_note(verifier.as_bytes());
        self.submit(ring, method::KEEP, &message)
    }

    /// The verifier that was kept; `None` if none was.
    pub(crate) fn kept(
        &self,
        ring: &mut RuntimeRingClient<'_>,
    ) -> Result<Option<Zeroizing<String>>, Lost> {
        let mut message = service::empty_message();
        let _: keepsake::kept_params::Builder<'_> = message.init_root();
        let call = self.submit(ring, method::KEPT, &message);
        let completed = call.and_then(|call| ring.wait(call, FOREVER));
        note(&completed.map_err(|_| Lost)?)
    }
}

fn note(completed: &CompletedCall) -> Result<Option<Zeroizing<String>>, Lost> {
    decode_completed_call(completed).map_err(|_| Lost)?;
    let mut bytes = completed.result_bytes().map_err(|_| Lost)?;
    let options = default_reader_options();
    let message = capnp::serialize::read_message_from_flat_slice(&mut bytes, options);
    let message = message.map_err(|_| Lost)?;
    let results: keepsake::kept_results::Reader<'_> = message.get_root().map_err(|_| Lost)?;
    let note = results.get_note().map_err(|_| Lost)?;
    let verifier = core::str::from_utf8(note).map_err(|_| Lost)?;
    Ok((!verifier.is_empty()).then(|| Zeroizing::new(verifier.into())))
}

/// Whether it is kept now.
pub(crate) fn is_kept(completed: &CompletedCall) -> bool {
    decode_completed_call(completed).is_ok()
}
