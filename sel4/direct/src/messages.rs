//! The methods of `Bridge` (`bridge.capnp`), and their params as words.
//!
//! No struct of that interface has pointers, so the words of a message are the
//! data section of its struct as Cap'n Proto lays it out, one word at most:
//! there is nothing to frame and nothing to traverse. A capability goes beside
//! the words, by the kernel.

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Answers the words it is called with, as many as the caller likes.
    Echo,
    /// Derives a session from the root (0) or from session `parent`; the
    /// capability comes with the answer.
    OpenSession {
        /// What it derives from.
        parent: u32,
    },
    /// Gives a session back.
    CloseSession {
        /// The number that `openSession` answered.
        session: u32,
    },
    /// Brings the notification that a queue's completions are signalled on.
    RegisterQueue {
        /// Which queue.
        queue: u32,
    },
    /// Takes what a queue has up to its head, and signals its notification.
    Kick {
        /// Which queue.
        queue: u32,
        /// Where the client will write next.
        head: u32,
    },
    /// Brings a CNode with so many frames, from its first slot on.
    PreGrantMemory {
        /// How many.
        frames: u32,
    },
    /// Maps every frame that was granted; answers how many can be written.
    UseMemory,
    /// Puts the frames back into their CNode.
    ReturnMemory,
    /// Ends every session.
    RevokeSessions,
    /// How many calls have arrived.
    CountCalls,
}

/// The message is no call of a method, or has too few words for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

/// Ordinal of [`Method::Echo`].
pub const ECHO: u64 = ordinal::ECHO;

/// Ordinals of `Bridge`.
mod ordinal {
    pub const ECHO: u64 = 0;
    pub const OPEN_SESSION: u64 = 1;
    pub const CLOSE_SESSION: u64 = 2;
    pub const REGISTER_QUEUE: u64 = 3;
    pub const KICK: u64 = 4;
    pub const PRE_GRANT_MEMORY: u64 = 5;
    pub const USE_MEMORY: u64 = 6;
    pub const RETURN_MEMORY: u64 = 7;
    pub const REVOKE_SESSIONS: u64 = 8;
    pub const COUNT_CALLS: u64 = 9;
}

/// A method's ordinal, and its params if it has some.
pub type Encoded = (u64, Option<u64>);

impl Method {
    /// As it goes into a message.
    #[must_use]
    pub fn encode(self) -> Encoded {
        use self::ordinal as o;
        match self {
            Self::Echo => (o::ECHO, None),
            Self::OpenSession { parent } => (o::OPEN_SESSION, Some(parent.into())),
            Self::CloseSession { session } => (o::CLOSE_SESSION, Some(session.into())),
            Self::RegisterQueue { queue } => (o::REGISTER_QUEUE, Some(queue.into())),
            Self::Kick { queue, head } => {
                let word = u64::from(queue) | u64::from(head) << 32;
                (o::KICK, Some(word))
            }
            Self::PreGrantMemory { frames } => (o::PRE_GRANT_MEMORY, Some(frames.into())),
            Self::UseMemory => (o::USE_MEMORY, None),
            Self::ReturnMemory => (o::RETURN_MEMORY, None),
            Self::RevokeSessions => (o::REVOKE_SESSIONS, None),
            Self::CountCalls => (o::COUNT_CALLS, None),
        }
    }

    /// The method a message asks for; `params` is its first word, if it has
    /// one. Words beyond those known are of a newer schema, and ignored.
    ///
    /// # Errors
    /// [`Unknown`]
    #[inline]
    pub fn decode((label, params): Encoded) -> Result<Self, Unknown> {
        use self::ordinal as o;
        let word = params.ok_or(Unknown);
        let low = word.map(|word| word as u32);
        Ok(match label {
            o::ECHO => Self::Echo,
            o::OPEN_SESSION => Self::OpenSession { parent: low? },
            o::CLOSE_SESSION => Self::CloseSession { session: low? },
            o::REGISTER_QUEUE => Self::RegisterQueue { queue: low? },
            o::KICK => Self::Kick {
                queue: low?,
                head: (word? >> 32) as u32,
            },
            o::PRE_GRANT_MEMORY => Self::PreGrantMemory { frames: low? },
            o::USE_MEMORY => Self::UseMemory,
            o::RETURN_MEMORY => Self::ReturnMemory,
            o::REVOKE_SESSIONS => Self::RevokeSessions,
            o::COUNT_CALLS => Self::CountCalls,
            _ => return Err(Unknown),
        })
    }
}
