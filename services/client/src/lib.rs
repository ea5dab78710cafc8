//! Clients of the interfaces that this system adds to capOS, for applications
//! written against crate `capos`.
//!
//! They have the shape of the published clients: a method submits and returns
//! a call, `finish_…` reads its completion, and `…_wait` does both. A client
//! that was told `disconnected` says so from then on.
//!
//! A program that holds a `ProcessSpawner` makes notifications with
//! [`create_notification_wait`] and passes them on like any capability; others
//! are granted one, or a [`Signaller`] that can only signal. A service that
//! opens sessions holds a [`SessionMint`].

#![no_std]

extern crate alloc;

mod session;
mod terminal;

pub use session::{
    NewSession, SessionMint, SessionMintClient, create_endpoint_wait, leave_service_class_wait,
};
pub use terminal::{finish_read_edited, read_edited, read_edited_wait};

use alloc::boxed::Box;
use alloc::vec;

use capnp::message::{Builder, HeapAllocator};
use capos::{
    CallId, Capability, CapabilityType, Client, ClientError, CompletedCall, ExceptionType,
    OwnedCapability, ProcessSpawner, RuntimeRingClient, Transport, decode_completed_call,
};
use sel4_capos_schema::notification_capnp::{notification, spawner_extension};
use sel4_capos_schema::{NOTIFICATION_INTERFACE_ID, SIGNALLER_INTERFACE_ID, method};

/// Room for a word, or for an exception with its text.
const RESULT_BYTES: usize = 256;

/// Marks a capability to a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification;

impl CapabilityType for Notification {
    const INTERFACE_ID: u64 = NOTIFICATION_INTERFACE_ID;
}

/// Marks a capability that can only signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signaller;

impl CapabilityType for Signaller {
    const INTERFACE_ID: u64 = SIGNALLER_INTERFACE_ID;
}

/// What all clients know of their capability.
#[derive(Debug)]
struct State<T: CapabilityType> {
    capability: Capability<T>,
    broken: bool,
}

impl<T: CapabilityType> State<T> {
    fn submit(
        &self,
        ring: &mut impl Transport,
        method: u16,
        params: Box<[u8]>,
    ) -> Result<CallId, ClientError> {
        if self.broken {
            return Err(ClientError::BrokenCapability);
        }
        let result = vec![0; RESULT_BYTES].into_boxed_slice();
        ring.submit_call(self.capability.cap_id(), method, params, result)
            .map_err(ClientError::Ring)
    }

    /// Length of a result without capabilities.
    fn finish(&mut self, completion: &CompletedCall) -> Result<usize, ClientError> {
        let written = decode_completed_call(completion).inspect_err(|error| {
            if let ClientError::Application(exception) = error {
                self.broken |= exception.exception_type() == ExceptionType::Disconnected;
            }
        })?;
        match completion.cqe().cap_count {
            0 => Ok(written),
            cap_count => Err(ClientError::UnexpectedResultCaps { cap_count }),
        }
    }

    fn finish_void(&mut self, completion: &CompletedCall) -> Result<(), ClientError> {
        match self.finish(completion)? {
            0 => Ok(()),
            bytes_written => Err(ClientError::UnexpectedResultBytes { bytes_written }),
        }
    }
}

macro_rules! client {
    ($client:ident, $type:ty) => {
        impl Client for $client {
            type Capability = $type;

            fn from_capability(capability: Capability<$type>) -> Self {
                let broken = false;
                Self(State { capability, broken })
            }

            fn capability(&self) -> Capability<$type> {
                self.0.capability
            }

            fn is_broken(&self) -> bool {
                self.0.broken
            }
        }

        impl $client {
            /// Submits a signal of `bits`.
            ///
            /// # Errors
            /// The ring's; the capability broke earlier.
            pub fn signal(
                &mut self,
                ring: &mut impl Transport,
                bits: u64,
            ) -> Result<CallId, ClientError> {
                self.0.submit(ring, method::SIGNAL, signal_params(bits))
            }

            /// Reads the completion of a signal.
            ///
            /// # Errors
            /// An exception: `invalidArgument` for bits this capability is not
            /// for, or none at all.
            pub fn finish_signal(&mut self, completion: CompletedCall) -> Result<(), ClientError> {
                self.0.finish_void(&completion)
            }

            /// Signals `bits`.
            ///
            /// # Errors
            /// As the two steps.
            pub fn signal_wait(
                &mut self,
                ring: &mut impl Transport,
                bits: u64,
                timeout_ns: u64,
            ) -> Result<(), ClientError> {
                let call = self.signal(ring, bits)?;
                let completion = ring.wait(call, timeout_ns).map_err(ClientError::Ring)?;
                self.finish_signal(completion)
            }
        }
    };
}

/// Sets some bits of a notification. Zero stands for all it is for.
#[derive(Debug)]
pub struct SignallerClient(State<Signaller>);

client!(SignallerClient, Signaller);

/// Sets, waits for and takes the bits of a notification.
#[derive(Debug)]
pub struct NotificationClient(State<Notification>);

client!(NotificationClient, Notification);

impl NotificationClient {
    /// Submits a wait for bits.
    ///
    /// # Errors
    /// The ring's; the capability broke earlier.
    pub fn wait(&mut self, ring: &mut impl Transport) -> Result<CallId, ClientError> {
        self.0.submit(ring, method::WAIT, empty_params())
    }

    /// Submits a look at the bits, which takes them.
    ///
    /// # Errors
    /// The ring's; the capability broke earlier.
    pub fn poll(&mut self, ring: &mut impl Transport) -> Result<CallId, ClientError> {
        self.0.submit(ring, method::POLL, empty_params())
    }

    /// Reads the completion of [`Self::wait`] or [`Self::poll`].
    ///
    /// # Errors
    /// An exception: `overloaded` when too much waits already, `disconnected`
    /// when the capability was revoked meanwhile.
    pub fn finish_bits(&mut self, completion: CompletedCall) -> Result<u64, ClientError> {
        self.0.finish(&completion)?;
        let malformed = |_| ClientError::MessageEncode;
        let mut bytes = completion.result_bytes().map_err(ClientError::ResultCap)?;
        let options = capos::default_reader_options();
        capnp::serialize::read_message_from_flat_slice_no_alloc(&mut bytes, options)
            .and_then(|message| {
                let root: notification::wait_results::Reader<'_> = message.get_root()?;
                Ok(root.get_bits())
            })
            .map_err(malformed)
    }

    /// Waits until there are bits and takes them.
    ///
    /// # Errors
    /// As the two steps. After a timeout the call still waits, and takes bits
    /// when they come.
    pub fn wait_wait(
        &mut self,
        ring: &mut impl Transport,
        timeout_ns: u64,
    ) -> Result<u64, ClientError> {
        let call = self.wait(ring)?;
        let completion = ring.wait(call, timeout_ns).map_err(ClientError::Ring)?;
        self.finish_bits(completion)
    }

    /// Takes the bits there are.
    ///
    /// # Errors
    /// As the two steps.
    pub fn poll_wait(
        &mut self,
        ring: &mut impl Transport,
        timeout_ns: u64,
    ) -> Result<u64, ClientError> {
        let call = self.poll(ring)?;
        let completion = ring.wait(call, timeout_ns).map_err(ClientError::Ring)?;
        self.finish_bits(completion)
    }

    /// Makes a capability that can set the bits of `badge` and do nothing else;
    /// any bits if it is zero.
    ///
    /// # Errors
    /// The ring's, or an exception.
    pub fn signaller_wait(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        badge: u64,
        timeout_ns: u64,
    ) -> Result<OwnedCapability<Signaller>, ClientError> {
        let params = signaller_params(badge);
        let call = self.0.submit(&mut **ring, method::SIGNALLER, params)?;
        only_capability(ring, call, timeout_ns)
    }
}

/// Makes a notification.
///
/// # Errors
/// The ring's, or an exception: `unimplemented` on a system without
/// notifications, `overloaded` when this process made too many.
pub fn create_notification_wait(
    spawner: Capability<ProcessSpawner>,
    ring: &mut RuntimeRingClient<'_>,
    timeout_ns: u64,
) -> Result<OwnedCapability<Notification>, ClientError> {
    let result = vec![0; RESULT_BYTES].into_boxed_slice();
    let params = create_params();
    let call = ring
        .submit_call(
            spawner.cap_id(),
            method::CREATE_NOTIFICATION,
            params,
            result,
        )
        .map_err(ClientError::Ring)?;
    only_capability(ring, call, timeout_ns)
}

/// The one capability of a result; its index is zero.
fn only_capability<T: CapabilityType>(
    ring: &mut RuntimeRingClient<'_>,
    call: CallId,
    timeout_ns: u64,
) -> Result<OwnedCapability<T>, ClientError> {
    let mut completion = ring.wait(call, timeout_ns).map_err(ClientError::Ring)?;
    decode_completed_call(&completion)?;
    match completion.cqe().cap_count {
        1 => ring
            .adopt_result_capability(&mut completion, 0)
            .map_err(ClientError::ResultCap),
        cap_count => Err(ClientError::UnexpectedResultCaps { cap_count }),
    }
}

fn finished(message: &Builder<HeapAllocator>) -> Box<[u8]> {
    capnp::serialize::write_message_to_words(message).into_boxed_slice()
}

fn signal_params(bits: u64) -> Box<[u8]> {
    let mut message = Builder::new_default();
    let mut params: notification::signal_params::Builder<'_> = message.init_root();
    params.set_bits(bits);
    finished(&message)
}

fn signaller_params(badge: u64) -> Box<[u8]> {
    let mut message = Builder::new_default();
    let mut params: notification::signaller_params::Builder<'_> = message.init_root();
    params.set_badge(badge);
    finished(&message)
}

fn create_params() -> Box<[u8]> {
    let mut message = Builder::new_default();
    let _: spawner_extension::create_notification_params::Builder<'_> = message.init_root();
    finished(&message)
}

fn empty_params() -> Box<[u8]> {
    let mut message = Builder::new_default();
    let _: notification::wait_params::Builder<'_> = message.init_root();
    finished(&message)
}
