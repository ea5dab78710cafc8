//! Calls to the program that computes hashes.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;

use capnp::message::{Builder, HeapAllocator};
use capos::{
    CallId, CompletedCall, RingClientError, RuntimeRingClient, decode_completed_call,
    default_reader_options,
};
use sel4_capos_schema::method;
use sel4_capos_schema::password_capnp::password_hasher;

/// Room for a verifier, or an exception.
const RESULT_BYTES: usize = 1024;

/// The program that computes hashes.
pub(crate) struct Hasher {
    pub(crate) cap_id: u32,
}

impl Hasher {
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

    /// Asks whether `verifier` is of `password`.
    pub(crate) fn verify(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        verifier: &str,
        password: &[u8],
    ) -> Result<CallId, RingClientError> {
        let mut message = service::empty_message();
        let mut params: password_hasher::verify_params::Builder<'_> = message.init_root();
        params.set_verifier(verifier);
        params.set_password(password);
        self.submit(ring, method::VERIFY, &message)
    }

    /// Asks for a verifier of `password`.
    pub(crate) fn derive(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        password: &[u8],
        salt: &[u8],
    ) -> Result<CallId, RingClientError> {
        let mut message = service::empty_message();
        let mut params: password_hasher::derive_params::Builder<'_> = message.init_root();
        params.set_password(password);
        params.set_salt(salt);
        self.submit(ring, method::DERIVE, &message)
    }
}

/// What a verification came to; `None` if the hasher did not say.
pub(crate) fn matches(completed: &CompletedCall) -> Option<bool> {
    let message = message(completed)?;
    let results: password_hasher::verify_results::Reader<'_> = message.get_root().ok()?;
    Some(results.get_matches())
}

/// The verifier that was made, if one was.
pub(crate) fn verifier(completed: &CompletedCall) -> Option<String> {
    let message = message(completed)?;
    let results: password_hasher::derive_results::Reader<'_> = message.get_root().ok()?;
    results.get_verifier().ok()?.to_string().ok()
}

fn message(
    completed: &CompletedCall,
) -> Option<capnp::message::Reader<capnp::serialize::BufferSegments<&[u8]>>> {
    decode_completed_call(completed).ok()?;
    let mut bytes = completed.result_bytes().ok()?;
    let options = default_reader_options();
    capnp::serialize::read_message_from_flat_slice(&mut bytes, options).ok()
}
