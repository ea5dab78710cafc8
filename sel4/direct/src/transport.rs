//! The system calls: a client that calls, and a server that answers one call at
//! a time.

use core::marker::PhantomData;

use sel4::{
    AbsoluteCPtr, Badge, CPtr, CPtrWithDepth, Cap, CapRights, CapType, Error, MessageInfo, Result,
    Word, cap, cap_type, with_ipc_buffer_mut,
};

use crate::budget::{Budget, Derivation, Exhausted};

/// Words in a message that travel in registers.
pub type Words = [Word; sel4::FAST_MESSAGE_REGISTERS];

/// Label of an answer that grants.
pub const DONE: Word = 0;
/// Label of an answer that refuses. It is none of the kernel's, which answers a
/// call through a capability that is gone itself.
pub const REFUSED: Word = 0x100;

/// A message: a call, or its answer.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// What is asked, or how it went.
    pub label: Word,
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
    pub const fn new(label: Word, length: usize, words: Words) -> Self {
        Self {
            label,
            length,
            words,
            has_cap: false,
        }
    }

    /// Fails for more than one capability, and for one that the kernel turned
    /// into its badge instead of putting it into the receive slot.
    #[inline]
    const fn received(info: MessageInfo, words: Words) -> Result<Self> {
        if info.extra_caps() > 1 || info.caps_unwrapped() != 0 {
            return Err(Error::InvalidCapability);
        }
        Ok(Self {
            label: info.label(),
            length: info.length(),
            words,
            has_cap: info.extra_caps() == 1,
        })
    }
}

/// What a server does with a call: the badge it came with, and the message.
pub trait Service {
    /// Answers a call; a capability named here goes with the answer. One that
    /// came with the call is deleted afterwards if it still is where it arrived.
    fn dispatch(&mut self, badge: Badge, call: Message) -> (Message, Option<CPtr>);

    /// A call came with more than one capability, or with one to the server
    /// itself; it is refused.
    fn refused(&mut self, badge: Badge);
}

/// A call as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    info: MessageInfo,
    badge: Badge,
    words: Words,
}

/// One end's way to speak: an endpoint, where a capability arrives, and what a
/// server answers through.
#[derive(Clone, Copy, Debug)]
pub struct Sel4DirectTransport {
    endpoint: cap::Endpoint,
    arrival: Option<AbsoluteCPtr>,
    reply: Option<cap::Reply>,
}

impl Sel4DirectTransport {
    /// Speaks through `endpoint`: the server's own, or the client's badged one.
    /// Capabilities sent here are not received.
    #[must_use]
    pub const fn new(endpoint: cap::Endpoint) -> Self {
        Self {
            endpoint,
            arrival: None,
            reply: None,
        }
    }

    /// As [`new`](Self::new), and receives a capability into the slot `arrival`,
    /// which is empty. The IPC buffer names one receive slot, so the thread has
    /// one such transport.
    #[must_use]
    pub fn receiving(endpoint: cap::Endpoint, arrival: AbsoluteCPtr) -> Self {
        with_ipc_buffer_mut(|buffer| buffer.set_recv_slot(&arrival));
        Self {
            arrival: Some(arrival),
            ..Self::new(endpoint)
        }
    }

    /// The same for a server that has a reply object of its own, on kernels with
    /// MCS; otherwise it is the program's ([`sel4::set_reply_object`]).
    #[must_use]
    pub const fn replying_through(self, reply: cap::Reply) -> Self {
        Self {
            reply: Some(reply),
            ..self
        }
    }

    /// Calls without a capability and waits for the answer.
    ///
    /// # Errors
    /// [`Error::InvalidCapability`] where the answer brings what it may not.
    #[inline]
    pub fn call(&self, call: Message) -> Result<Message> {
        let info = MessageInfo::new(call.label, 0, call.length);
        let (info, words) = self.endpoint.call_with_mrs(info, call.words);
        Message::received(info, words)
    }

    /// As [`call`](Self::call), and gives a capability away with it.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    #[inline]
    pub fn call_with_cap(&self, call: Message, given: CPtr) -> Result<Message> {
        with_ipc_buffer_mut(|buffer| buffer.set_cap(0, given));
        let info = MessageInfo::new(call.label, 1, call.length);
        let (info, words) = self.endpoint.call_with_mrs(info, call.words);
        Message::received(info, words)
    }

    /// Waits for a server's first call.
    #[must_use]
    pub fn receive(&self) -> Arrived {
        let (info, badge, words) = self.endpoint.recv_with_reply(self.reply);
        Arrived { info, badge, words }
    }

    /// Answers the call that arrived and waits for the next one. What a call
    /// brought and the service did not take is deleted: it would keep the next
    /// capability from arriving.
    #[inline]
    pub fn serve_once(&self, service: &mut impl Service, call: Arrived) -> Arrived {
        let (answer, given) = match Message::received(call.info, call.words) {
            Ok(message) => service.dispatch(call.badge, message),
            Err(_) => {
                service.refused(call.badge);
                (Message::new(REFUSED, 0, [0; 4]), None)
            }
        };
        if call.info.extra_caps() != 0 {
            self.empty_arrival();
        }
        let caps = usize::from(given.is_some());
        if let Some(given) = given {
            with_ipc_buffer_mut(|buffer| buffer.set_cap(0, given));
        }
        let info = MessageInfo::new(answer.label, caps, answer.length);
        let (info, badge, words) =
            self.endpoint
                .reply_recv_with_reply(info, answer.words, self.reply);
        Arrived { info, badge, words }
    }

    fn empty_arrival(&self) {
        if let Some(arrival) = self.arrival {
            // Deleting cannot fail for a slot that exists, and where it does
            // not nothing arrives.
            let _ = arrival.delete();
        }
    }
}

/// Why nothing was derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MintError {
    /// The session has as much as it may.
    Exhausted(Exhausted),
    /// The kernel refused.
    Kernel(Error),
}

/// A session: one capability of kind `T` below which everything else of it
/// hangs, and a bound on how much that is.
#[derive(Debug)]
pub struct SessionCaps<T> {
    root: AbsoluteCPtr,
    budget: Budget,
    kind: PhantomData<T>,
}

/// A capability that was derived and is to be given back.
#[derive(Debug)]
pub struct Derived<T> {
    place: AbsoluteCPtr,
    derivation: Derivation,
    kind: PhantomData<T>,
}

impl<T: CapType> Derived<T> {
    /// The capability, where its slot is in the caller's own CSpace.
    #[must_use]
    pub const fn cap(&self) -> Cap<T> {
        Cap::from_bits(self.place.path().bits())
    }
}

impl SessionCaps<cap_type::Endpoint> {
    /// Makes the root by badging `endpoint`, which has no badge yet: only then
    /// does the kernel take copies of the root for its children.
    ///
    /// # Errors
    /// The kernel's.
    pub fn mint(
        endpoint: &AbsoluteCPtr,
        root: AbsoluteCPtr,
        badge: Badge,
        limit: u32,
    ) -> Result<Self> {
        root.mint(endpoint, CapRights::all(), badge)?;
        Ok(Self::at(root, limit))
    }
}

impl<T: CapType> SessionCaps<T> {
    /// The session whose root is in that slot already, and which may have so
    /// many derived capabilities at a time.
    #[must_use]
    pub const fn at(root: AbsoluteCPtr, limit: u32) -> Self {
        Self {
            root,
            budget: Budget::new(limit),
            kind: PhantomData,
        }
    }

    /// One capability more, which dies with the root, into an empty slot.
    ///
    /// # Errors
    /// [`MintError`]; nothing was derived.
    pub fn derive(
        &mut self,
        from: Option<&Derived<T>>,
        place: AbsoluteCPtr,
    ) -> core::result::Result<Derived<T>, MintError> {
        let source = from.map_or(self.root, |from| from.place);
        let derivation = self.budget.derive(from.map(|from| &from.derivation));
        let derivation = derivation.map_err(MintError::Exhausted)?;
        match place.copy(&source, CapRights::all()) {
            Ok(()) => Ok(Derived {
                place,
                derivation,
                kind: PhantomData,
            }),
            Err(error) => {
                self.budget.give_back(derivation);
                Err(MintError::Kernel(error))
            }
        }
    }

    /// Deletes one. Copies that went to others stay until
    /// [`revoke`](Self::revoke).
    ///
    /// # Errors
    /// The kernel's.
    pub fn give_back(&mut self, derived: Derived<T>) -> Result<()> {
        derived.place.delete()?;
        self.budget.give_back(derived.derivation);
        Ok(())
    }

    /// Ends everything derived, wherever it went; the root stays.
    ///
    /// # Errors
    /// The kernel's.
    pub fn revoke(&mut self) -> Result<()> {
        self.root.revoke()?;
        self.budget.revoke();
        Ok(())
    }

    /// How many derived capabilities are live.
    #[must_use]
    pub const fn live(&self) -> u32 {
        self.budget.live()
    }
}

/// Capabilities of kind `T` in one CNode, given away as one capability.
#[derive(Debug)]
pub struct CapBundle<T> {
    cnode: cap::CNode,
    bits: usize,
    kind: PhantomData<T>,
}

impl<T: CapType> CapBundle<T> {
    /// Takes a CNode of `2^bits` slots; like [`Cap::from_bits`] it claims what
    /// is in them.
    #[must_use]
    pub const fn new(cnode: cap::CNode, bits: usize) -> Self {
        Self {
            cnode,
            bits,
            kind: PhantomData,
        }
    }

    /// Its slot `index`.
    #[must_use]
    pub fn slot(&self, index: Word) -> AbsoluteCPtr {
        let path = CPtrWithDepth::from_bits_with_depth(index, self.bits);
        self.cnode.absolute_cptr(path)
    }

    /// Takes one out, into an empty slot of the caller's own CSpace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take(&self, index: Word, place: &AbsoluteCPtr) -> Result<Cap<T>> {
        place.move_(&self.slot(index))?;
        Ok(Cap::from_bits(place.path().bits()))
    }

    /// Puts one back that [`take`](Self::take) took out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn put(&self, index: Word, place: &AbsoluteCPtr) -> Result<()> {
        self.slot(index).move_(place)
    }

    /// What gives all of it away.
    #[must_use]
    pub const fn cptr(&self) -> CPtr {
        self.cnode.cptr()
    }
}
