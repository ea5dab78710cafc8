//! The rooms of the chat demo: `Chat` as a service.
//!
//! Holds: `chat`, the endpoint it serves. Membership goes by the caller-session
//! reference that the system delivers with each call; the `handle` of a join is
//! not looked at.
#![no_std]
#![no_main]

extern crate alloc;

use capos::capos_capnp::{ChatEventKind, chat};
use capos::prelude::*;
use capos::{Endpoint, ExceptionType, RuntimeRingClient};
use chat_core::{CallerRef, EventKind, Rooms};
use service::{Call, Refusal, Reply, Server, Service, empty_message, refuse, serve};

const RECEIVES: usize = 4;
/// A channel, a message and their framing.
const PARAMS_BYTES: usize = 512;
/// Most events in one result, however many are asked for.
const EVENTS_MAX: usize = 16;

const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;

mod ordinal {
    pub(super) const JOIN: u16 = 0;
    pub(super) const LEAVE: u16 = 1;
    pub(super) const SEND: u16 = 2;
    pub(super) const WHO: u16 = 3;
    pub(super) const POLL: u16 = 4;
}

struct Chat(Rooms);

/// Who calls. Only a live session is somebody.
fn caller(call: &Call) -> Result<CallerRef, Refusal> {
    let session = &call.caller;
    if session.flags & capos_abi::ENDPOINT_CALLER_SESSION_LIVE == 0 {
        return Err(refuse(ExceptionType::Disconnected, "the session is over"));
    }
    Ok(CallerRef {
        reference: [session.scoped_ref, session.scoped_ref_hi],
        epoch: session.epoch,
    })
}

impl Service for Chat {
    fn has_method(&self, _endpoint: usize, method: u16) -> bool {
        method <= ordinal::POLL
    }

    fn call(
        &mut self,
        _ring: &mut RuntimeRingClient<'_>,
        call: &mut Call,
    ) -> Result<Reply, Refusal> {
        let caller = caller(call)?;
        let message = call.message()?;
        let mut reply = empty_message();
        match call.method {
            ordinal::JOIN => {
                let params: chat::join_params::Reader<'_> = message.get_root()?;
                let joined = self.0.join(caller, params.get_channel()?.to_str()?);
                let mut results: chat::join_results::Builder<'_> = reply.init_root();
                results.set_joined(joined);
            }
            ordinal::LEAVE => {
                let params: chat::leave_params::Reader<'_> = message.get_root()?;
                let left = self.0.leave(caller, params.get_channel()?.to_str()?);
                let mut results: chat::leave_results::Builder<'_> = reply.init_root();
                results.set_left(left);
            }
            ordinal::SEND => {
                let params: chat::send_params::Reader<'_> = message.get_root()?;
                let (channel, text) = (params.get_channel()?, params.get_text()?);
                let sent = self.0.send(caller, channel.to_str()?, text.to_str()?);
                let mut results: chat::send_results::Builder<'_> = reply.init_root();
                results.set_sent(sent);
            }
            ordinal::WHO => {
                let params: chat::who_params::Reader<'_> = message.get_root()?;
                let members = self.0.who(params.get_channel()?.to_str()?);
                let results: chat::who_results::Builder<'_> = reply.init_root();
                let mut list = results.init_members(members.len() as u32);
                for (index, member) in (0u32..).zip(&members) {
                    list.set(index, member);
                }
            }
            _ => {
                let params: chat::poll_params::Reader<'_> = message.get_root()?;
                let most = usize::from(params.get_max_events()).min(EVENTS_MAX);
                let events = self.0.poll(caller, most);
                let results: chat::poll_results::Builder<'_> = reply.init_root();
                let mut list = results.init_events(events.len() as u32);
                for (index, event) in (0u32..).zip(&events) {
                    let mut entry = list.reborrow().get(index);
                    entry.set_channel(&event.channel);
                    entry.set_sender(&event.sender);
                    entry.set_kind(kind(event.kind));
                    entry.set_text(&event.text);
                }
            }
        }
        Ok(Reply::message(&reply))
    }
}

const fn kind(kind: EventKind) -> ChatEventKind {
    match kind {
        EventKind::Message => ChatEventKind::Message,
        EventKind::Joined => ChatEventKind::Joined,
        EventKind::Left => ChatEventKind::Left,
        EventKind::System => ChatEventKind::System,
    }
}

fn main(mut runtime: Runtime) -> i64 {
    let Ok(endpoint) = runtime.capset().get_typed::<Endpoint>(b"chat") else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let Ok(server) = Server::new(&mut ring, &[endpoint], RECEIVES, PARAMS_BYTES) else {
        return EXIT_SERVING;
    };
    let Err(_) = serve(&mut ring, server, &mut Chat(Rooms::default()));
    EXIT_SERVING
}

entry_point!(main);
