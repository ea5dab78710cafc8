//! A client of `Chat`, the interface of a room of people. The published SDK has
//! the interface and no client for it.

#![no_std]

extern crate alloc;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use capnp::Word;
use capnp::message::{Builder, HeapAllocator};
use capnp::traits::Owned;
use capos::capos_capnp::{ChatEventKind, chat};
use capos::{Capability, ClientError, Endpoint, RuntimeRingClient, decode_completed_call};

/// Room for what a poll brings: 16 events of the longest text.
const RESULT_BYTES: usize = 16 * 1024;
/// Most events that are asked for at a time.
pub const EVENTS_MAX: u16 = 16;

mod ordinal {
    pub(super) const JOIN: u16 = 0;
    pub(super) const LEAVE: u16 = 1;
    pub(super) const SEND: u16 = 2;
    pub(super) const WHO: u16 = 3;
    pub(super) const POLL: u16 = 4;
}

/// Something that happened in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where; empty for notices about the connection.
    pub channel: String,
    /// Who did it, as the service calls them.
    pub sender: String,
    /// What about.
    pub kind: ChatEventKind,
    /// What was said.
    pub text: String,
}

/// A participant.
#[derive(Clone, Copy, Debug)]
pub struct ChatClient(Capability<Endpoint>);

impl ChatClient {
    /// A participant that speaks through `endpoint`.
    #[must_use]
    pub const fn new(endpoint: Capability<Endpoint>) -> Self {
        Self(endpoint)
    }

    /// Joins a channel. False if the service does not take this participant.
    ///
    /// # Errors
    /// The ring's, or an exception.
    pub fn join_wait(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        channel: &str,
        handle: &str,
        timeout_ns: u64,
    ) -> Result<bool, ClientError> {
        let mut message = Builder::new_default();
        let mut params: chat::join_params::Builder<'_> = message.init_root();
        params.set_channel(channel);
        params.set_handle(handle);
        let words = self.call(ring, ordinal::JOIN, &message, timeout_ns)?;
        read::<chat::join_results::Owned, _>(&words, |results| Ok(results.get_joined()))
    }

    /// Leaves a channel. False if this participant was not in it.
    ///
    /// # Errors
    /// The ring's, or an exception.
    pub fn leave_wait(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        channel: &str,
        timeout_ns: u64,
    ) -> Result<bool, ClientError> {
        let mut message = Builder::new_default();
        let mut params: chat::leave_params::Builder<'_> = message.init_root();
        params.set_channel(channel);
        let words = self.call(ring, ordinal::LEAVE, &message, timeout_ns)?;
        read::<chat::leave_results::Owned, _>(&words, |results| Ok(results.get_left()))
    }

    /// Says something. False if it cannot be said there.
    ///
    /// # Errors
    /// The ring's, or an exception.
    pub fn send_wait(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        channel: &str,
        text: &str,
        timeout_ns: u64,
    ) -> Result<bool, ClientError> {
        let mut message = Builder::new_default();
        let mut params: chat::send_params::Builder<'_> = message.init_root();
        params.set_channel(channel);
        params.set_text(text);
        let words = self.call(ring, ordinal::SEND, &message, timeout_ns)?;
        read::<chat::send_results::Owned, _>(&words, |results| Ok(results.get_sent()))
    }

    /// Who is in a channel.
    ///
    /// # Errors
    /// The ring's, or an exception.
    pub fn who_wait(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        channel: &str,
        timeout_ns: u64,
    ) -> Result<Vec<String>, ClientError> {
        let mut message = Builder::new_default();
        let mut params: chat::who_params::Builder<'_> = message.init_root();
        params.set_channel(channel);
        let words = self.call(ring, ordinal::WHO, &message, timeout_ns)?;
        read::<chat::who_results::Owned, _>(&words, |results| {
            let members = results.get_members()?.iter();
            members
                .map(|member| Ok(member?.to_str()?.to_string()))
                .collect()
        })
    }

    /// What happened since the last poll.
    ///
    /// # Errors
    /// The ring's, or an exception.
    pub fn poll_wait(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        timeout_ns: u64,
    ) -> Result<Vec<Event>, ClientError> {
        let mut message = Builder::new_default();
        let mut params: chat::poll_params::Builder<'_> = message.init_root();
        params.set_max_events(EVENTS_MAX);
        let words = self.call(ring, ordinal::POLL, &message, timeout_ns)?;
        read::<chat::poll_results::Owned, _>(&words, |results| {
            let events = results.get_events()?.iter();
            events
                .map(|event| {
                    Ok(Event {
                        channel: event.get_channel()?.to_str()?.to_string(),
                        sender: event.get_sender()?.to_str()?.to_string(),
                        kind: event.get_kind()?,
                        text: event.get_text()?.to_str()?.to_string(),
                    })
                })
                .collect()
        })
    }

    /// Makes a call; gives its results where Cap'n Proto wants them.
    fn call(
        &self,
        ring: &mut RuntimeRingClient<'_>,
        method: u16,
        params: &Builder<HeapAllocator>,
        timeout_ns: u64,
    ) -> Result<Vec<Word>, ClientError> {
        let params = capnp::serialize::write_message_to_words(params).into_boxed_slice();
        let room: Box<[u8]> = vec![0; RESULT_BYTES].into_boxed_slice();
        let call = ring.submit_call(self.0.cap_id(), method, params, room)?;
        let completed = ring.wait(call, timeout_ns)?;
        decode_completed_call(&completed)?;
        let bytes = completed.result_bytes()?;
        let mut words = Word::allocate_zeroed_vec(bytes.len().div_ceil(size_of::<Word>()));
        Word::words_to_bytes_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Ok(words)
    }
}

fn read<T: Owned, R>(
    words: &[Word],
    with: impl FnOnce(T::Reader<'_>) -> capnp::Result<R>,
) -> Result<R, ClientError> {
    let mut bytes = Word::words_to_bytes(words);
    let options = capos::default_reader_options();
    let message = capnp::serialize::read_message_from_flat_slice_no_alloc(&mut bytes, options);
    message
        .and_then(|message| with(message.get_root()?))
        .map_err(|_| ClientError::MessageEncode)
}
