//! A participant of the chat demo that is no person: it joins the lobby,
//! answers the first message it hears, and goes.
//!
//! Holds: `chat` (the calling side) and `timer`. It gives up after some minutes
//! of silence; either way its exit code is 0 if the room did its part.
#![no_std]
#![no_main]

extern crate alloc;

use capos::capos_capnp::ChatEventKind;
use capos::prelude::*;
use capos::{Endpoint, RuntimeRingClient};
use chat_api::ChatClient;
use service::FOREVER;

const LOBBY: &str = "#lobby";
const ANSWER: &str = "[chat-bot] echo-bot heard you.";
/// Nanoseconds between two looks.
const PAUSE_NS: u64 = 100_000_000;
/// How often it looks before it gives up: ten minutes.
const LOOKS_MAX: usize = 6_000;

const EXIT_BUNDLE: i64 = 2;
const EXIT_ROOM: i64 = 3;

/// Waits for a message and answers it. True if the room took the answer, or
/// nobody said anything.
fn attend(
    ring: &mut RuntimeRingClient<'_>,
    chat: ChatClient,
    timer: &mut TimerClient,
) -> Result<bool, ClientError> {
    if !chat.join_wait(ring, LOBBY, "chat-bot", FOREVER)? {
        return Ok(false);
    }
    for _ in 0..LOOKS_MAX {
        let events = chat.poll_wait(ring, FOREVER)?;
        if events
            .iter()
            .any(|event| event.kind == ChatEventKind::Message)
        {
            let sent = chat.send_wait(ring, LOBBY, ANSWER, FOREVER)?;
            return Ok(chat.leave_wait(ring, LOBBY, FOREVER)? && sent);
        }
        timer.sleep_wait(ring, PAUSE_NS, FOREVER)?;
    }
    chat.leave_wait(ring, LOBBY, FOREVER)
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let (Ok(chat), Ok(mut timer)) = (
        capset.get(b"chat"),
        capset.get_client::<TimerClient>(b"timer"),
    ) else {
        return EXIT_BUNDLE;
    };
    let Some(chat) = chat.typed::<Endpoint>() else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    match attend(&mut ring, ChatClient::new(chat), &mut timer) {
        Ok(true) => 0,
        Ok(false) | Err(_) => EXIT_ROOM,
    }
}

entry_point!(main);
