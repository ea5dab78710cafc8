//! Receives that wait, answers on their way, and the loop around them.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;
use core::cell::RefCell;

use capos::{
    ApplicationException, CallId, Capability, CompletedCall, Endpoint, ExceptionType,
    RingClientError, RuntimeRingClient,
};
use capos_config::ring::{CAP_ERR_INVALID_RESULT_BUFFER, EndpointMessageHeader};

use crate::FOREVER;
use crate::call::{Abandoned, Call, Orphanage};
use crate::reply::{Refusal, Reply, refuse};

/// The longest message the system delivers, header included.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// How many submissions may stand in the queue before it is passed on; it has
/// room for 16.
const UNSENT_MAX: u32 = 8;

/// Why a server cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerError {
    /// The ring does not work.
    Ring(RingClientError),
    /// Receiving at this endpoint failed with this code: it is not, or no
    /// longer, this program's.
    Endpoint(usize, i32),
}

impl From<RingClientError> for ServerError {
    fn from(error: RingClientError) -> Self {
        Self::Ring(error)
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A call came.
    Call(Call),
    /// Something the service submitted itself is complete.
    Completed(CallId, Completion),
}

/// A completion of something the service submitted.
pub struct Completion(pub CompletedCall);

impl core::fmt::Debug for Completion {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Completion({})", self.0.cqe().result)
    }
}

/// What a look at the receives found.
#[expect(
    clippy::large_enum_variant,
    reason = "it is passed on at once and never kept"
)]
enum Received {
    Call(Call),
    /// A message that did not fit, or that was none; another receive waits.
    Unusable,
    Nothing,
}

struct Receive {
    endpoint: usize,
    call: CallId,
}

/// An answer that was submitted.
struct Return {
    submitted: CallId,
    endpoint: usize,
    id: u32,
    capabilities: Vec<u32>,
    /// A refusal that is refused is not replaced by another one.
    is_refusal: bool,
    _kept: Vec<alloc::boxed::Box<dyn Any>>,
}

/// Serves endpoints.
pub struct Server {
    endpoints: Vec<u32>,
    /// Room of a receive for a message.
    room: usize,
    receives: Vec<Receive>,
    returns: Vec<Return>,
    orphanage: Orphanage,
    unsent: u32,
}

impl Server {
    /// Serves `endpoints`, numbered in this order: `receives` calls are taken
    /// from each at a time, whose params are usually not longer than
    /// `params_bytes`.
    ///
    /// # Errors
    /// The ring's.
    pub fn new(
        ring: &mut RuntimeRingClient<'_>,
        endpoints: &[Capability<Endpoint>],
        receives: usize,
        params_bytes: usize,
    ) -> Result<Self, ServerError> {
        let header = size_of::<EndpointMessageHeader>();
        let mut server = Self {
            endpoints: endpoints.iter().map(|endpoint| endpoint.cap_id()).collect(),
            room: (header + params_bytes).min(MESSAGE_BYTES_MAX),
            receives: Vec::new(),
            returns: Vec::new(),
            orphanage: Rc::new(RefCell::new(Vec::new())),
            unsent: 0,
        };
        for endpoint in 0..endpoints.len() {
            for _ in 0..receives {
                server.receive(ring, endpoint, server.room)?;
            }
        }
        Ok(server)
    }

    /// Passes on what stands in the submission queue before it is full. A service
    /// calls this before it submits something itself whose completion it watches.
    ///
    /// # Errors
    /// The ring's.
    pub fn make_room(&mut self, ring: &mut RuntimeRingClient<'_>) -> Result<(), ServerError> {
        if self.unsent >= UNSENT_MAX {
            ring.cap_enter(0, 0)?;
            self.unsent = 0;
        }
        self.unsent += 1;
        Ok(())
    }

    fn receive(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        endpoint: usize,
        room: usize,
    ) -> Result<(), ServerError> {
        self.make_room(ring)?;
        let buffer = vec![0; room].into_boxed_slice();
        let call = ring.submit_endpoint_recv(self.endpoints[endpoint], buffer)?;
        self.receives.push(Receive { endpoint, call });
        Ok(())
    }

    /// What happens next: a call, or the completion of one of `watched`, which
    /// the service submitted and nobody else waits for. It comes back for every
    /// one of them, whenever it is completed.
    ///
    /// # Errors
    /// The ring's; an endpoint that cannot be served any more.
    pub fn next(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        watched: &[CallId],
    ) -> Result<Event, ServerError> {
        loop {
            if let Some(event) = self.next_within(ring, watched, FOREVER)? {
                return Ok(event);
            }
        }
    }

    /// As [`Server::next`]; `None` when nothing happened for `patience_ns`
    /// nanoseconds.
    ///
    /// # Errors
    /// Those of [`Server::next`].
    pub fn next_within(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        watched: &[CallId],
        patience_ns: u64,
    ) -> Result<Option<Event>, ServerError> {
        let mut is_over = false;
        loop {
            let taken_before = ring.buffered_completion_count();
            let mut is_idle = !self.settle(ring)?;
            for &call in watched {
                if let Some(completed) = ring.try_complete(call)? {
                    return Ok(Some(Event::Completed(call, Completion(completed))));
                }
            }
            match self.received(ring)? {
                Received::Call(call) => return Ok(Some(Event::Call(call))),
                Received::Unusable => is_idle = false,
                Received::Nothing => {}
            }
            // Each look takes all completions out of the queue, those of what
            // was looked at before among them: the queue is slept on only after
            // a round of looks that found and took nothing.
            if is_idle && ring.buffered_completion_count() == taken_before {
                if is_over {
                    return Ok(None);
                }
                self.unsent = 0;
                match ring.cap_enter(1, patience_ns) {
                    Ok(available) => is_over = available == 0,
                    Err(RingClientError::ThreadOwnedHead) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    /// The next call that came, if one did.
    fn received(&mut self, ring: &mut RuntimeRingClient<'_>) -> Result<Received, ServerError> {
        for index in 0..self.receives.len() {
            let Some(completed) = ring.try_complete(self.receives[index].call)? else {
                continue;
            };
            // In order, so that no endpoint is looked at last forever.
            let Receive { endpoint, .. } = self.receives.remove(index);
            match completed.cqe().result {
                CAP_ERR_INVALID_RESULT_BUFFER => {
                    self.receive(ring, endpoint, MESSAGE_BYTES_MAX)?;
                    return Ok(Received::Unusable);
                }
                code if code < 0 => return Err(ServerError::Endpoint(endpoint, code)),
                _ => self.receive(ring, endpoint, self.room)?,
            }
            let call = Call::new(endpoint, completed, &self.orphanage);
            return Ok(call.map_or(Received::Unusable, Received::Call));
        }
        Ok(Received::Nothing)
    }

    /// Answers `call`. The result is out of the service's hands: if it cannot
    /// be returned, the caller gets an exception, or is gone.
    ///
    /// # Errors
    /// The ring's.
    pub fn answer(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        mut call: Call,
        answer: Result<Reply, Refusal>,
    ) -> Result<(), ServerError> {
        let (endpoint, id) = (call.endpoint, call.id());
        let capabilities = call.dismantle();
        match answer {
            Ok(reply) => self.return_result(ring, endpoint, id, capabilities, reply),
            Err(refusal) => self.return_refusal(ring, endpoint, id, capabilities, refusal),
        }
    }

    fn return_result(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        endpoint: usize,
        id: u32,
        capabilities: Vec<u32>,
        reply: Reply,
    ) -> Result<(), ServerError> {
        self.make_room(ring)?;
        let cap_id = self.endpoints[endpoint];
        let submitted = ring.submit_endpoint_return_with_copy_transfers(
            cap_id,
            id,
            reply.bytes,
            &reply.transfers,
        )?;
        self.returns.push(Return {
            submitted,
            endpoint,
            id,
            capabilities,
            is_refusal: false,
            _kept: reply.kept,
        });
        Ok(())
    }

    fn return_refusal(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        endpoint: usize,
        id: u32,
        capabilities: Vec<u32>,
        refusal: Refusal,
    ) -> Result<(), ServerError> {
        self.make_room(ring)?;
        let cap_id = self.endpoints[endpoint];
        let exception = ApplicationException::from(refusal);
        let submitted = ring.submit_endpoint_return_exception(cap_id, id, exception)?;
        self.returns.push(Return {
            submitted,
            endpoint,
            id,
            capabilities,
            is_refusal: true,
            _kept: Vec::new(),
        });
        Ok(())
    }

    /// Finishes answers that are out, and answers calls that were dropped; true
    /// if there was one.
    fn settle(&mut self, ring: &mut RuntimeRingClient<'_>) -> Result<bool, ServerError> {
        let dropped: Vec<Abandoned> = self.orphanage.borrow_mut().drain(..).collect();
        let mut any = !dropped.is_empty();
        for call in dropped {
            let refusal = refuse(ExceptionType::Failed, "call was not answered");
            self.return_refusal(ring, call.endpoint, call.id, call.capabilities, refusal)?;
        }
        let mut index = 0;
        while index < self.returns.len() {
            let Some(completed) = ring.try_complete(self.returns[index].submitted)? else {
                index += 1;
                continue;
            };
            any = true;
            let done = self.returns.swap_remove(index);
            if completed.cqe().result < 0 && !done.is_refusal {
                // What was wrong with the result is this side's fault and the
                // call is still open; or the caller is gone, and this fails too.
                let refusal = refuse(ExceptionType::Failed, "result cannot be returned");
                self.return_refusal(ring, done.endpoint, done.id, done.capabilities, refusal)?;
            } else {
                for cap_id in done.capabilities {
                    ring.release_wait(cap_id, FOREVER)?;
                }
            }
        }
        ring.flush_releases()?;
        Ok(any)
    }
}

/// A service that answers every call at once.
pub trait Service {
    /// Whether the endpoint numbered `endpoint` has this method. Calls of
    /// others are answered `unimplemented` without a look at their params.
    fn has_method(&self, endpoint: usize, method: u16) -> bool;

    /// Answers a call.
    ///
    /// # Errors
    /// The exception the caller gets.
    fn call(&mut self, ring: &mut RuntimeRingClient<'_>, call: &mut Call)
    -> Result<Reply, Refusal>;
}

/// Serves until it is no longer possible.
///
/// # Errors
/// Always: it ends with one.
pub fn serve(
    ring: &mut RuntimeRingClient<'_>,
    mut server: Server,
    service: &mut impl Service,
) -> Result<core::convert::Infallible, ServerError> {
    loop {
        let Event::Call(mut call) = server.next(ring, &[])? else {
            continue;
        };
        let answer = if service.has_method(call.endpoint, call.method) {
            service.call(ring, &mut call)
        } else {
            Err(unknown_method())
        };
        server.answer(ring, call, answer)?;
    }
}

/// What a call of a method that is not there gets.
#[must_use]
pub fn unknown_method() -> Refusal {
    refuse(ExceptionType::Unimplemented, "no such method")
}
