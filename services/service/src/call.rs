//! One call at an endpoint, and its params.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use capnp::Word;
use capnp::message::ReaderOptions;
use capnp::serialize::BufferSegments;
use capos::{
    CapabilityRef, CapabilityType, CompletedCall, ExceptionType, OwnedCapability, RuntimeRingClient,
};
use capos_abi::EndpointCallerSession;

use crate::reply::{Refusal, refuse};

/// How often a message may be visited, as a multiple of its size. Pointers may
/// share what they point to; without a bound a small message could be long to
/// read.
const VISITS: usize = 4;

/// Params of a call, decoded as far as their framing.
pub type Message<'a> = capnp::message::Reader<BufferSegments<&'a [u8]>>;

/// What a dropped call leaves to be done.
pub(crate) struct Abandoned {
    pub(crate) endpoint: usize,
    pub(crate) id: u32,
    pub(crate) capabilities: Vec<u32>,
}

/// Where dropped calls are noted.
pub(crate) type Orphanage = Rc<RefCell<Vec<Abandoned>>>;

/// A call that was received and is to be answered, with [`crate::Server::answer`].
pub struct Call {
    /// Which of the server's endpoints it came to.
    pub endpoint: usize,
    /// Number of the method.
    pub method: u16,
    /// Interface the caller's capability carries.
    pub interface_id: u64,
    /// Badge of the caller's capability.
    pub badge: u64,
    /// What the system tells about the caller's session.
    pub caller: EndpointCallerSession,
    id: u32,
    params: Vec<Word>,
    params_len: usize,
    received: CompletedCall,
    capabilities: Vec<Option<CapabilityRef>>,
    orphanage: Option<Orphanage>,
}

impl core::fmt::Debug for Call {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Never the params: they may be a password.
        f.debug_struct("Call")
            .field("endpoint", &self.endpoint)
            .field("method", &self.method)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// The call that `received` delivered to `endpoint`, if it is one.
    pub(crate) fn new(
        endpoint: usize,
        received: CompletedCall,
        orphanage: &Orphanage,
    ) -> Option<Self> {
        let message = received.endpoint_message().ok()?;
        let params_len = message.params.len();
        let mut params = Word::allocate_zeroed_vec(params_len.div_ceil(size_of::<Word>()));
        Word::words_to_bytes_mut(&mut params)[..params_len].copy_from_slice(message.params);
        let (method, interface_id) = (message.method_id, message.interface_id);
        let (badge, caller, id) = (message.badge, message.caller_session, message.call_id);
        let count = usize::from(message.cap_count);
        let capabilities = (0..count)
            .map(|index| received.result_cap(index).ok())
            .collect();
        let orphanage = Some(Rc::clone(orphanage));
        Some(Self {
            endpoint,
            method,
            interface_id,
            badge,
            caller,
            id,
            params,
            params_len,
            received,
            capabilities,
            orphanage,
        })
    }

    /// Number the system gave this delivery; a `callId` of `SessionMint`.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The params as they came.
    #[must_use]
    pub fn params(&self) -> &[u8] {
        &Word::words_to_bytes(&self.params)[..self.params_len]
    }

    /// The params as a message whose reading is bounded by its size.
    ///
    /// # Errors
    /// `invalidArgument` if they are none.
    pub fn message(&self) -> Result<Message<'_>, Refusal> {
        let mut options = ReaderOptions::new();
        let budget = self.params.len().saturating_mul(VISITS);
        options.traversal_limit_in_words(Some(budget));
        options.nesting_limit(capos::default_reader_options().nesting_limit);
        let mut bytes = self.params();
        let message = capnp::serialize::read_message_from_flat_slice(&mut bytes, options);
        message.map_err(Refusal::from)
    }

    /// How many capabilities came along.
    #[must_use]
    pub fn capability_count(&self) -> usize {
        self.capabilities.len()
    }

    /// A capability that came along, as long as nobody took it.
    #[must_use]
    pub fn capability(&self, index: usize) -> Option<CapabilityRef> {
        self.capabilities.get(index).copied().flatten()
    }

    /// Takes a capability that came along; it is then the service's to keep.
    ///
    /// # Errors
    /// `invalidArgument` if there is none of this interface at `index`.
    pub fn take<T: CapabilityType>(
        &mut self,
        ring: &RuntimeRingClient<'_>,
        index: usize,
    ) -> Result<OwnedCapability<T>, Refusal> {
        let missing = |_| refuse(ExceptionType::InvalidArgument, "capability is missing");
        let taken = ring
            .adopt_result_capability(&mut self.received, index)
            .map_err(missing)?;
        self.capabilities[index] = None;
        Ok(taken)
    }

    /// Numbers of the capabilities nobody took. The call counts as answered.
    pub(crate) fn dismantle(&mut self) -> Vec<u32> {
        self.orphanage = None;
        let left = self.capabilities.drain(..).flatten();
        left.map(CapabilityRef::cap_id).collect()
    }

    /// Overwrites the params. What the SDK received them in is freed with the
    /// call, and not overwritten.
    pub fn erase_params(&mut self) {
        let bytes = Word::words_to_bytes_mut(&mut self.params);
        bytes.fill(0);
        core::hint::black_box(bytes);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(orphanage) = self.orphanage.take() {
            let (endpoint, id) = (self.endpoint, self.id);
            let capabilities = self.dismantle();
            orphanage.borrow_mut().push(Abandoned {
                endpoint,
                id,
                capabilities,
            });
        }
    }
}
