//! Rooms of the chat demo: who is where, who said what.
//!
//! A participant is known by the opaque caller-session reference that comes
//! with a call, never by anything in the call: a handle is what somebody calls
//! themselves, and says nothing. Everybody is shown as `member-N`, numbered by
//! first appearance.
//!
//! # Invariants
//! - **C1** Participants, channels and each participant's waiting events are
//!   bounded; a participant that joins when all places are taken is refused, or
//!   takes the place of one that is in no channel.
//! - **C2** A message reaches those that are in its channel, and nobody else.
//! - **C3** When more happens than a participant polls for, the oldest events go
//!   and one notice says how many.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Most participants at one time.
pub const PARTICIPANTS_MAX: usize = 32;
/// Most channels a participant is in at one time.
pub const CHANNELS_PER_PARTICIPANT_MAX: usize = 4;
/// Most events that wait for one participant.
pub const EVENTS_MAX: usize = 32;
/// Longest name of a channel, with its `#`, in bytes.
pub const CHANNEL_BYTES_MAX: usize = 32;
/// Longest message in bytes.
pub const TEXT_BYTES_MAX: usize = 240;

/// A caller, as the endpoint tells it: a reference and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerRef {
    /// The opaque reference.
    pub reference: [u64; 2],
    /// Its epoch.
    pub epoch: u64,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Somebody said something.
    Message,
    /// Somebody came.
    Joined,
    /// Somebody went.
    Left,
    /// The service says something.
    System,
}

/// Something that happened in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where.
    pub channel: String,
    /// `member-N`, or `system`.
    pub sender: String,
    /// What about.
    pub kind: EventKind,
    /// What was said.
    pub text: String,
}

#[derive(Debug)]
struct Participant {
    caller: CallerRef,
    number: u64,
    channels: Vec<String>,
    events: VecDeque<Event>,
    lost: u64,
}

impl Participant {
    fn label(&self) -> String {
        format!("member-{}", self.number)
    }

    fn is_in(&self, channel: &str) -> bool {
        self.channels.iter().any(|joined| joined == channel)
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
            self.lost += 1;
        }
        self.events.push_back(event);
    }
}

/// All channels and everybody in them.
#[derive(Debug, Default)]
pub struct Rooms {
    participants: Vec<Participant>,
    numbered: u64,
}

/// Whether `channel` can be the name of a channel: `#` and letters, digits,
/// `-` or `_`.
#[must_use]
pub fn is_channel(channel: &str) -> bool {
    let name = channel.strip_prefix('#').unwrap_or_default();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !name.is_empty() && channel.len() <= CHANNEL_BYTES_MAX && name.bytes().all(allowed)
}

/// Whether `text` can be said: one line, nothing a terminal would act on.
#[must_use]
pub fn is_sayable(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

impl Rooms {
    fn place(&self, caller: CallerRef) -> Option<usize> {
        self.participants
            .iter()
            .position(|participant| participant.caller == caller)
    }

    /// A place for a caller that has none.
    fn admit(&mut self, caller: CallerRef) -> Option<usize> {
        if self.participants.len() == PARTICIPANTS_MAX {
            let idle = self
                .participants
                .iter()
                .position(|participant| participant.channels.is_empty())?;
            self.participants.remove(idle);
        }
        self.numbered += 1;
        self.participants.push(Participant {
            caller,
            number: self.numbered,
            channels: Vec::new(),
            events: VecDeque::new(),
            lost: 0,
        });
        Some(self.participants.len() - 1)
    }

    /// Tells everybody in `channel`.
    fn announce(&mut self, channel: &str, sender: &str, kind: EventKind, text: &str) {
        let event = Event {
            channel: channel.to_string(),
            sender: sender.to_string(),
            kind,
            text: text.to_string(),
        };
        let inside = self.participants.iter_mut();
        for participant in inside.filter(|participant| participant.is_in(channel)) {
            participant.tell(event.clone());
        }
    }

    /// Puts a caller into a channel. Being there already is fine.
    pub fn join(&mut self, caller: CallerRef, channel: &str) -> bool {
        if !is_channel(channel) {
            return false;
        }
        let Some(place) = self.place(caller).or_else(|| self.admit(caller)) else {
            return false;
        };
        let participant = &mut self.participants[place];
        if participant.is_in(channel) {
            return true;
        }
        if participant.channels.len() == CHANNELS_PER_PARTICIPANT_MAX {
            return false;
        }
        let label = participant.label();
        participant.channels.push(channel.to_string());
        self.announce(channel, &label, EventKind::Joined, "joined");
        true
    }

    /// Takes a caller out of a channel.
    pub fn leave(&mut self, caller: CallerRef, channel: &str) -> bool {
        let Some(place) = self.place(caller) else {
            return false;
        };
        let participant = &mut self.participants[place];
        let Some(joined) = participant.channels.iter().position(|one| one == channel) else {
            return false;
        };
        participant.channels.remove(joined);
        let label = participant.label();
        self.announce(channel, &label, EventKind::Left, "left");
        true
    }

    /// Says something in a channel the caller is in.
    pub fn send(&mut self, caller: CallerRef, channel: &str, text: &str) -> bool {
        let speaker = self.place(caller).map(|place| &self.participants[place]);
        let Some(speaker) = speaker.filter(|speaker| speaker.is_in(channel)) else {
            return false;
        };
        if !is_sayable(text) {
            return false;
        }
        let label = speaker.label();
        self.announce(channel, &label, EventKind::Message, text);
        true
    }

    /// Who is in a channel.
    #[must_use]
    pub fn who(&self, channel: &str) -> Vec<String> {
        let inside = self.participants.iter();
        let mut inside: Vec<&Participant> = inside
            .filter(|participant| participant.is_in(channel))
            .collect();
        inside.sort_by_key(|participant| participant.number);
        inside
            .iter()
            .map(|participant| participant.label())
            .collect()
    }

    /// Takes up to `most` events that wait for a caller, oldest first.
    pub fn poll(&mut self, caller: CallerRef, most: usize) -> Vec<Event> {
        let Some(place) = self.place(caller) else {
            return Vec::new();
        };
        let participant = &mut self.participants[place];
        let mut events = Vec::new();
        if participant.lost > 0 && most > 0 {
            events.push(Event {
                channel: String::new(),
                sender: String::from("system"),
                kind: EventKind::System,
                text: format!("{} earlier events were lost", participant.lost),
            });
            participant.lost = 0;
        }
        let room = most.saturating_sub(events.len());
        let taken = participant.events.len().min(room);
        events.extend(participant.events.drain(..taken));
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn caller(number: u64) -> CallerRef {
        CallerRef {
            reference: [number, !number],
            epoch: 1,
        }
    }

    #[test]
    fn members_are_numbered_by_appearance_and_hear_each_other() {
        let mut rooms = Rooms::default();
        assert!(rooms.join(caller(9), "#lobby"));
        assert!(rooms.join(caller(4), "#lobby"));
        assert!(rooms.send(caller(4), "#lobby", "hello from shell"));
        assert_eq!(rooms.who("#lobby"), ["member-1", "member-2"]);
        let heard = rooms.poll(caller(9), 10);
        let last = heard.last().expect("it heard the message");
        assert_eq!(
            (last.sender.as_str(), last.kind),
            ("member-2", EventKind::Message)
        );
        assert_eq!(rooms.poll(caller(9), 10), []);
    }

    #[test]
    fn the_same_reference_of_another_epoch_is_somebody_else() {
        let mut rooms = Rooms::default();
        rooms.join(caller(1), "#lobby");
        let later = CallerRef {
            epoch: 2,
            ..caller(1)
        };
        assert!(!rooms.send(later, "#lobby", "it is me"));
        assert!(!rooms.leave(later, "#lobby"));
    }

    #[test]
    fn whoever_is_not_in_a_channel_says_and_hears_nothing_there() {
        let mut rooms = Rooms::default();
        rooms.join(caller(1), "#a");
        rooms.join(caller(2), "#b");
        assert!(!rooms.send(caller(2), "#a", "hi"));
        rooms.send(caller(1), "#a", "hi");
        assert!(
            rooms
                .poll(caller(2), 10)
                .iter()
                .all(|event| event.channel == "#b")
        );
        assert_eq!(rooms.who("#a"), ["member-1"]);
    }

    #[test]
    fn bad_names_and_texts_are_refused() {
        let mut rooms = Rooms::default();
        for channel in ["", "lobby", "#", "#a b", "#\u{1b}", &"#".repeat(40)] {
            assert!(!rooms.join(caller(1), channel), "{channel}");
        }
        rooms.join(caller(1), "#lobby");
        for text in [
            "",
            "\u{1b}[2J",
            "two\nlines",
            &"x".repeat(TEXT_BYTES_MAX + 1),
        ] {
            assert!(!rooms.send(caller(1), "#lobby", text), "{text}");
        }
    }

    #[test]
    fn a_full_house_gives_the_place_of_one_who_left() {
        let mut rooms = Rooms::default();
        for number in 0..PARTICIPANTS_MAX as u64 {
            assert!(rooms.join(caller(number), "#lobby"));
        }
        assert!(!rooms.join(caller(1000), "#lobby"));
        rooms.leave(caller(3), "#lobby");
        assert!(rooms.join(caller(1000), "#lobby"));
        assert_eq!(rooms.who("#lobby").len(), PARTICIPANTS_MAX);
    }

    #[test]
    fn a_slow_listener_is_told_what_it_missed() {
        let mut rooms = Rooms::default();
        rooms.join(caller(1), "#lobby");
        for number in 0..EVENTS_MAX + 4 {
            rooms.send(caller(1), "#lobby", &number.to_string());
        }
        let events = rooms.poll(caller(1), EVENTS_MAX + 1);
        assert_eq!(events[0].text, "5 earlier events were lost");
        assert_eq!(events.len(), EVENTS_MAX + 1);
        assert_eq!(events[EVENTS_MAX].text, (EVENTS_MAX + 3).to_string());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(u64, u8),
        Leave(u64, u8),
        Send(u64, u8, String),
        Poll(u64, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let who = 0..40u64;
        let channel = 0..6u8;
        prop_oneof![
            (who.clone(), channel.clone()).prop_map(|(who, channel)| Step::Join(who, channel)),
            (who.clone(), channel.clone()).prop_map(|(who, channel)| Step::Leave(who, channel)),
            (who.clone(), channel, ".{0,8}")
                .prop_map(|(who, channel, text)| Step::Send(who, channel, text)),
            (who, 0..50usize).prop_map(|(who, most)| Step::Poll(who, most)),
        ]
    }

    proptest! {
        #[test]
        fn everything_stays_bounded(steps in proptest::collection::vec(step(), 0..300)) {
            let mut rooms = Rooms::default();
            let name = |channel: u8| format!("#{channel}");
            for step in steps {
                match step {
                    Step::Join(who, channel) => {
                        let joined = rooms.join(caller(who), &name(channel));
                        prop_assert!(!joined || !rooms.who(&name(channel)).is_empty());
                    }
                    Step::Leave(who, channel) => { rooms.leave(caller(who), &name(channel)); }
                    Step::Send(who, channel, text) => { rooms.send(caller(who), &name(channel), &text); }
                    Step::Poll(who, most) => {
                        let events = rooms.poll(caller(who), most);
                        prop_assert!(events.len() <= most);
                    }
                }
                prop_assert!(rooms.participants.len() <= PARTICIPANTS_MAX);
                for participant in &rooms.participants {
                    prop_assert!(participant.channels.len() <= CHANNELS_PER_PARTICIPANT_MAX);
                    prop_assert!(participant.events.len() <= EVENTS_MAX);
                    let numbers = rooms.participants.iter().filter(|one| one.number == participant.number);
                    prop_assert_eq!(numbers.count(), 1);
                }
            }
        }
    }
}
