//! The system calls: a client that calls, and a server that answers one call at
//! a time.

use sel4::{
    AbsoluteCPtr, Badge, CPtr, CPtrWithDepth, CapRights, Error, MessageInfo, Result, Word, cap,
    with_ipc_buffer_mut,
};

/// Words in a message that travel in registers.
pub type Words = [Word; sel4::FAST_MESSAGE_REGISTERS];

/// A message that arrived: a call, or its answer.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// What is asked, or how it went.
    pub method: Word,
    /// How many words there are; those from the fifth on are in the IPC buffer.
    pub length: usize,
    /// The first words.
    pub words: Words,
    /// Whether a capability came with it, into the receive slot.
    pub has_cap: bool,
}

impl Message {
    /// A message of `length` words, of which four at most are here.
    #[must_use]
    pub const fn new(method: Word, length: usize, words: Words) -> Self {
        Self {
            method,
            length,
            words,
            has_cap: false,
        }
    }

    /// Fails for more than one capability, and for one that was not unwrapped
    /// into the receive slot.
    #[inline]
    const fn received(info: MessageInfo, words: Words) -> Result<Self> {
        if info.extra_caps() > 1 || info.caps_unwrapped() != 0 {
            return Err(Error::InvalidCapability);
        }
        Ok(Self {
            method: info.label(),
            length: info.length(),
            words,
            has_cap: info.extra_caps() == 1,
        })
    }
}

/// The two ends' way to speak: an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Sel4DirectTransport {
    endpoint: cap::Endpoint,
}

/// What a server does with a call: the badge it came with, and the message.
pub trait Service {
    /// Answers a call; a capability named here goes with the answer.
    fn dispatch(&mut self, badge: Badge, call: Message) -> (Message, Option<CPtr>);
}

impl Sel4DirectTransport {
    /// Speaks through `endpoint`: the server's own, or the client's badged one.
    #[must_use]
    pub const fn new(endpoint: cap::Endpoint) -> Self {
        Self { endpoint }
    }

    /// Calls without a capability and waits for the answer.
    ///
    /// # Errors
    /// [`Error::InvalidCapability`] where the answer brings what it may not.
    #[inline]
    pub fn call(&self, call: Message) -> Result<Message> {
        let info = MessageInfo::new(call.method, 0, call.length);
        let (info, words) = self.endpoint.call_with_mrs(info, call.words);
        Message::received(info, words)
    }

    /// As [`call`](Self::call), and gives a capability away with it.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub fn call_with_cap(&self, call: Message, given: CPtr) -> Result<Message> {
        with_ipc_buffer_mut(|buffer| buffer.set_cap(0, given));
        let info = MessageInfo::new(call.method, 1, call.length);
        let (info, words) = self.endpoint.call_with_mrs(info, call.words);
        Message::received(info, words)
    }

    /// Waits for a server's first call.
    #[must_use]
    pub fn receive(&self) -> (MessageInfo, Badge, Words) {
        self.endpoint.recv_with_mrs()
    }

    /// Answers the call that arrived and waits for the next one.
    #[inline]
    pub fn serve_once(
        &self,
        service: &mut impl Service,
        (info, badge, words): (MessageInfo, Badge, Words),
    ) -> (MessageInfo, Badge, Words) {
        let (answer, given) = match Message::received(info, words) {
            Ok(call) => service.dispatch(badge, call),
            Err(_) => (Message::new(REFUSED, 0, [0; 4]), None),
        };
        let caps = usize::from(given.is_some());
        if let Some(given) = given {
            with_ipc_buffer_mut(|buffer| buffer.set_cap(0, given));
        }
        let info = MessageInfo::new(answer.method, caps, answer.length);
        self.endpoint.reply_recv_with_mrs(info, answer.words)
    }
}

/// Method of an answer that refuses.
pub const REFUSED: Word = 1;
/// Method of an answer that grants.
pub const DONE: Word = 0;

/// A session: one capability below which everything else of it hangs.
#[derive(Clone, Copy, Debug)]
pub struct SessionCaps {
    root: AbsoluteCPtr,
}

impl SessionCaps {
    /// Makes the root by badging `endpoint`, which has no badge yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn mint(endpoint: &AbsoluteCPtr, root: AbsoluteCPtr, badge: Badge) -> Result<Self> {
        root.mint(endpoint, CapRights::all(), badge)?;
        Ok(Self { root })
    }

    /// The session whose root is in that slot already.
    #[must_use]
    pub const fn at(root: AbsoluteCPtr) -> Self {
        Self { root }
    }

    /// One capability more, which dies with the root.
    ///
    /// # Errors
    /// The kernel's.
    pub fn derive(&self, place: &AbsoluteCPtr) -> Result<()> {
        place.copy(&self.root, CapRights::all())
    }

    /// Ends everything derived; the root stays.
    ///
    /// # Errors
    /// The kernel's.
    pub fn revoke(&self) -> Result<()> {
        self.root.revoke()
    }
}

/// Frames in one CNode, given away as one capability.
#[derive(Clone, Copy, Debug)]
pub struct CapBundle {
    cnode: cap::CNode,
    bits: usize,
}

impl CapBundle {
    /// Takes a CNode of `2^bits` slots.
    #[must_use]
    pub const fn new(cnode: cap::CNode, bits: usize) -> Self {
        Self { cnode, bits }
    }

    /// Its slot `index`.
    #[must_use]
    pub fn slot(&self, index: Word) -> AbsoluteCPtr {
        let path = CPtrWithDepth::from_bits_with_depth(index, self.bits);
        self.cnode.absolute_cptr(path)
    }

    /// What gives all of it away.
    #[must_use]
    pub const fn cptr(&self) -> CPtr {
        self.cnode.cptr()
    }
}
