//! A person in the rooms of the chat demo.
//!
//! Holds: `stdio` and `chat`, the calling sides of two endpoints, and nothing
//! else. While the person types, what others say is shown as it comes.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};

use capos::capos_capnp::ChatEventKind;
use capos::prelude::*;
use capos::{
    CallId, Endpoint, LineStatus, RingClientError, RuntimeRingClient, StdIOClient, StdIOReadMode,
    StdIOReadRequest, StdIOReadResult, StdIOStream,
};
use chat_api::{ChatClient, Event};
use service::FOREVER;

const LOBBY: &str = "#lobby";
/// The handle of a join is the caller's own idea, and the service ignores it.
const HANDLE: &str = "shell";
/// Nanoseconds between two looks at the room.
const PAUSE_NS: u64 = 200_000_000;
/// Longest line, in bytes.
const LINE_BYTES_MAX: u32 = 240;

const EXIT_BUNDLE: i64 = 2;
const EXIT_FAILED: i64 = 3;

struct Person<'r> {
    ring: RuntimeRingClient<'r>,
    stdio: StdIOClient,
    chat: ChatClient,
    channel: Option<String>,
}

impl Person<'_> {
    fn say(&mut self, text: &str) -> Result<(), ClientError> {
        let line = format!("[chat] {text}\n");
        self.stdio
            .write_wait(&mut self.ring, StdIOStream::Stdout, &line, FOREVER)
    }

    fn stay(&mut self) -> Result<(), ClientError> {
        self.say("/join <channel>, /leave, /who, /exit, or plain text")?;
        self.join(LOBBY)?;
        loop {
            // Above the prompt rather than behind it.
            self.look()?;
            let read = self.begin_read()?;
            let result = self.line(read)?;
            if result.status == LineStatus::Closed {
                break;
            }
            if result.status == LineStatus::Submitted && !self.carry_out(result.text.trim())? {
                break;
            }
        }
        if let Some(channel) = self.channel.take() {
            self.chat.leave_wait(&mut self.ring, &channel, FOREVER)?;
        }
        self.stdio.close_wait(&mut self.ring, FOREVER)
    }

    fn begin_read(&mut self) -> Result<CallId, ClientError> {
        let channel = self.channel.as_deref().unwrap_or("nowhere");
        let request = StdIOReadRequest {
            prompt: format!("[chat:{channel}]> "),
            mode: StdIOReadMode::Line,
            max_bytes: LINE_BYTES_MAX,
            allow_empty: true,
        };
        self.stdio.read(&mut self.ring, &request)
    }

    /// Waits for the line, showing what happens meanwhile.
    fn line(&mut self, read: CallId) -> Result<StdIOReadResult, ClientError> {
        loop {
            match self.ring.wait(read, PAUSE_NS) {
                Ok(completed) => return self.stdio.finish_read(completed),
                Err(RingClientError::Timeout | RingClientError::TargetStillPending) => {
                    self.look()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Shows what happened in the room.
    fn look(&mut self) -> Result<(), ClientError> {
        for event in self.chat.poll_wait(&mut self.ring, FOREVER)? {
            let text = shown(&event);
            self.say(&text)?;
        }
        Ok(())
    }

    /// False when the person goes.
    fn carry_out(&mut self, line: &str) -> Result<bool, ClientError> {
        match line
            .split_once(' ')
            .map_or((line, ""), |(a, b)| (a, b.trim()))
        {
            ("", _) => {}
            ("/exit" | "/quit", "") => return Ok(false),
            ("/join", channel) if !channel.is_empty() => self.join(channel)?,
            ("/leave", "") => self.leave()?,
            ("/who", "") => self.who()?,
            (command, _) if command.starts_with('/') => {
                self.say(&format!("{command} does not work like that"))?;
            }
            _ => self.send(line)?,
        }
        Ok(true)
    }

    fn join(&mut self, channel: &str) -> Result<(), ClientError> {
        if self
            .chat
            .join_wait(&mut self.ring, channel, HANDLE, FOREVER)?
        {
            self.channel = Some(channel.to_string());
            return Ok(());
        }
        self.say("that channel takes nobody")
    }

    fn leave(&mut self) -> Result<(), ClientError> {
        match self.channel.take() {
            Some(channel) => {
                self.chat.leave_wait(&mut self.ring, &channel, FOREVER)?;
                self.say(&format!("left {channel}"))
            }
            None => self.say("you are nowhere"),
        }
    }

    fn who(&mut self) -> Result<(), ClientError> {
        let Some(channel) = self.channel.clone() else {
            return self.say("you are nowhere");
        };
        let members = self.chat.who_wait(&mut self.ring, &channel, FOREVER)?;
        self.say(&format!("{channel} members: {}", members.join(", ")))
    }

    fn send(&mut self, text: &str) -> Result<(), ClientError> {
        let Some(channel) = self.channel.clone() else {
            return self.say("you are nowhere; /join a channel first");
        };
        if !self
            .chat
            .send_wait(&mut self.ring, &channel, text, FOREVER)?
        {
            return self.say("that cannot be said here");
        }
        Ok(())
    }
}

fn shown(event: &Event) -> String {
    let Event {
        channel,
        sender,
        kind,
        text,
    } = event;
    match kind {
        ChatEventKind::Message | ChatEventKind::History => format!("{channel} <{sender}> {text}"),
        ChatEventKind::Joined | ChatEventKind::Left => format!("{channel} {sender} {text}"),
        ChatEventKind::System => text.clone(),
    }
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let held = |name: &[u8]| capset.get(name).ok()?.typed::<Endpoint>();
    let (stdio, chat) = (held(b"stdio"), held(b"chat"));
    let (Some(stdio), Ok(mut ring)) = (stdio, runtime.ring_client()) else {
        return EXIT_BUNDLE;
    };
    let Some(chat) = chat else {
        let text = "[chat] there is no `chat` among what this program was given\n";
        let _ = StdIOClient::new(stdio).write_wait(&mut ring, StdIOStream::Stderr, text, FOREVER);
        return EXIT_BUNDLE;
    };
    let mut person = Person {
        ring,
        stdio: StdIOClient::new(stdio),
        chat: ChatClient::new(chat),
        channel: None,
    };
    match person.stay() {
        Ok(()) => 0,
        Err(_) => EXIT_FAILED,
    }
}

entry_point!(main);
