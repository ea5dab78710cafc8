//! Endpoint queues: calls that wait, receives that wait, calls in flight.
//!
//! This module is storage and its accounting; `rendezvous` moves calls through
//! it.
//!
//! # Invariants
//! - **E1** A call record is in exactly one endpoint's queue, or in flight.
//! - **E2** A call and a receive never wait at one endpoint at the same time,
//!   unless its in-flight quota is spent or it is closed.
//! - **E3** `in_flight` is the number of in-flight call records that name the
//!   endpoint; it never exceeds `in_flight_limit`.
//! - **E4** A call id names one delivery: the record's index, tagged with a
//!   generation that changes at each use; never zero.
//! - **E5** Nothing waits at a closed endpoint, and an endpoint stays while an
//!   object names it.
//! - **E6** Whoever made an endpoint for others to serve is charged for it as
//!   long as it is there.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use capos_abi::EndpointCallerSession;

use crate::blocks::{BLOCK_BYTES, Blocks, Chain};
use crate::ids::{Pid, ThreadRef};
use crate::limits::{Capacity, Limits};
use crate::objects::ObjectId;
use crate::pool::Pool;
use crate::session::SessionId;
use crate::transfer::{PinList, Pins};

const CALL_INDEX_BITS: u32 = 10;
/// Most calls that ids can tell apart.
const CALLS_MAX: u32 = 1 << CALL_INDEX_BITS;
const _: () = assert!(Capacity::DEFAULT.calls <= CALLS_MAX);
const _: () = assert!(BLOCK_BYTES == 1024, "capacity is given in KiB");

/// Where a client wants a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResultBuffer {
    pub(crate) addr: u64,
    pub(crate) len: u32,
}

/// Progress of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallState {
    /// Waiting for a receive; its params are kept here.
    Queued(Chain),
    /// Delivered to this process, which may return it.
    InFlight(Pid),
}

/// One call to an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) endpoint: u32,
    pub(crate) state: CallState,
    pub(crate) caller: ThreadRef,
    pub(crate) session: SessionId,
    pub(crate) described: EndpointCallerSession,
    pub(crate) user_data: u64,
    pub(crate) interface_id: u64,
    pub(crate) method_id: u16,
    pub(crate) badge: u64,
    pub(crate) result: ResultBuffer,
    pub(crate) pins: PinList,
}

/// One receive that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recv {
    pub(crate) receiver: ThreadRef,
    pub(crate) user_data: u64,
    pub(crate) result: ResultBuffer,
}

/// One endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Service scope that caller references are derived for.
    pub(crate) scope_id: u64,
    /// The object that client facets name, while there are any.
    pub(crate) client: Option<ObjectId>,
    /// Whether no owner can use it any more.
    pub(crate) closed: bool,
    /// Whether the owners' object still names it.
    pub(crate) owned: bool,
    /// Who is charged for it, if it was made for others to serve.
    pub(crate) payer: Option<Pid>,
    pub(crate) calls: VecDeque<u32>,
    pub(crate) recvs: VecDeque<u32>,
    pub(crate) in_flight: u32,
    pub(crate) queue_limit: usize,
    pub(crate) in_flight_limit: u32,
}

/// Memory of an endpoint whose owner has the given queue quota, in bytes: the
/// record and its two queues. Params of calls that wait are stored apart.
pub const fn endpoint_bytes(queue_limit: u32) -> usize {
    let queue = (queue_limit as usize + 1) * size_of::<u32>();
    size_of::<Endpoint>() + 2 * queue
}

impl Endpoint {
    /// An open endpoint with its creator's quotas, storage included.
    pub(crate) fn new(scope_id: u64, limits: &Limits) -> Self {
        let queue_limit = limits.endpoint_queue as usize;
        Self {
            scope_id,
            client: None,
            closed: false,
            owned: true,
            payer: None,
            calls: VecDeque::with_capacity(queue_limit + 1),
            recvs: VecDeque::with_capacity(queue_limit + 1),
            in_flight: 0,
            queue_limit,
            in_flight_limit: limits.in_flight_calls,
        }
    }

    /// Whether a call can be delivered now.
    pub(crate) fn can_deliver(&self) -> bool {
        !self.closed && !self.recvs.is_empty() && self.in_flight < self.in_flight_limit
    }

    /// Whether another call may enter the queue.
    pub(crate) fn can_queue(&self) -> bool {
        self.calls.len() < self.queue_limit || (self.calls.is_empty() && self.can_deliver())
    }
}

/// All endpoints and what waits at them.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    pub(crate) table: Pool<Endpoint>,
    pub(crate) calls: Pool<Call>,
    pub(crate) recvs: Pool<Recv>,
    pub(crate) pins: Pins,
    pub(crate) blocks: Blocks,
    generations: Vec<u32>,
    next_scope_id: u64,
    /// What is found out about each endpoint while a session ends.
    pub(crate) owners: Vec<Owners>,
}

/// In which sessions the processes that own an endpoint run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owners {
    pub(crate) ending: bool,
    pub(crate) live: bool,
}

impl Endpoints {
    pub(crate) fn new(capacity: &Capacity) -> Self {
        let calls = capacity.calls.min(CALLS_MAX);
        Self {
            table: Pool::with_capacity(capacity.endpoints),
            calls: Pool::with_capacity(calls),
            recvs: Pool::with_capacity(capacity.recvs),
            pins: Pins::with_capacity(capacity.pins),
            blocks: Blocks::new(capacity.params_kib),
            generations: vec![0; calls as usize],
            next_scope_id: 1,
            owners: vec![Owners::default(); capacity.endpoints as usize],
        }
    }

    /// Makes an endpoint with a scope of its own.
    pub(crate) fn create(&mut self, limits: &Limits) -> Option<u32> {
        let endpoint = Endpoint::new(self.next_scope_id, limits);
        let index = self.table.insert(endpoint).ok()?;
        self.next_scope_id += 1;
        Some(index)
    }

    /// Stores a call record under a fresh id (E4).
    pub(crate) fn insert_call(&mut self, call: Call) -> Option<u32> {
        let index = self.calls.insert(call).ok()?;
        let generation = &mut self.generations[index as usize];
        *generation = match (*generation + 1) << CALL_INDEX_BITS {
            0 => 1,
            _ => *generation + 1,
        };
        Some(index)
    }

    /// The id of the call record at `index`.
    pub(crate) fn call_id(&self, index: u32) -> u32 {
        self.generations[index as usize] << CALL_INDEX_BITS | index
    }

    /// The record that `call_id` names, if it is still that delivery.
    pub(crate) fn call_index(&self, call_id: u32) -> Option<u32> {
        let index = call_id & (CALLS_MAX - 1);
        self.calls.get(index)?;
        (self.call_id(index) == call_id).then_some(index)
    }

    /// Whether there is no endpoint and nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.iter().next().is_none()
            && self.calls.iter().next().is_none()
            && self.recvs.iter().next().is_none()
            && self.pins.totals() == (0, 0)
    }

    /// Asserts E1 to E3 and that nothing stored is unreachable.
    pub(crate) fn check(&self) {
        self.table.check();
        self.calls.check();
        self.recvs.check();
        self.check_queues();
        for (index, endpoint) in self.table.iter() {
            let in_flight = self.calls.iter().filter(|(_, call)| {
                call.endpoint == index && matches!(call.state, CallState::InFlight(_))
            });
            assert_eq!(in_flight.count() as u32, endpoint.in_flight, "E3");
            assert!(endpoint.in_flight <= endpoint.in_flight_limit, "E3: limit");
            let stuck = !endpoint.calls.is_empty() && endpoint.can_deliver();
            let idle = endpoint.calls.is_empty() && endpoint.recvs.is_empty();
            assert!(!endpoint.closed || idle, "E5: endpoint {index} is closed");
            let named = endpoint.owned || endpoint.client.is_some();
            assert!(named, "E5: nothing names endpoint {index}");
            assert!(!stuck, "E2: a call and a receive wait at endpoint {index}");
        }
        self.pins
            .check(self.calls.iter().map(|(_, call)| call.pins));
        let chains = self.calls.iter().filter_map(|(_, call)| match call.state {
            CallState::Queued(chain) => Some(chain),
            CallState::InFlight(_) => None,
        });
        self.blocks.check(chains);
    }

    fn check_queues(&self) {
        let mut queued = 0;
        let mut receiving = 0;
        for (index, endpoint) in self.table.iter() {
            for &call in &endpoint.calls {
                let call = self.calls.get(call).expect("E1: a queued call exists");
                assert_eq!(call.endpoint, index, "E1: queued elsewhere");
                assert!(matches!(call.state, CallState::Queued(_)), "E1: state");
            }
            queued += endpoint.calls.len();
            receiving += endpoint.recvs.len();
        }
        let waiting = |call: &Call| matches!(call.state, CallState::Queued(_));
        let records = self.calls.iter().filter(|(_, call)| waiting(call)).count();
        assert_eq!(records, queued, "E1: a call is in no queue");
        assert_eq!(self.recvs.iter().count(), receiving, "a receive was lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_ids_are_never_zero_and_never_name_a_later_call() {
        let mut endpoints = Endpoints::new(&Capacity::DEFAULT);
        let call = Call {
            endpoint: 0,
            state: CallState::InFlight(Pid::FIRST),
            caller: ThreadRef {
                pid: Pid::FIRST,
                tid: crate::Tid::MAIN,
            },
            session: SessionId(0),
            described: EndpointCallerSession::NONE,
            user_data: 0,
            interface_id: 0,
            method_id: 0,
            badge: 0,
            result: ResultBuffer { addr: 0, len: 0 },
            pins: PinList::EMPTY,
        };
        let mut previous = None;
        for _ in 0..10_000 {
            let index = endpoints.insert_call(call).expect("one call fits");
            let id = endpoints.call_id(index);
            assert_ne!(id, 0);
            assert_ne!(Some(id), previous, "an id is not reissued at once");
            assert_eq!(endpoints.call_index(id), Some(index));
            endpoints.calls.remove(index);
            assert_eq!(endpoints.call_index(id), None, "a finished call is gone");
            previous = Some(id);
        }
        endpoints.generations[0] = u32::MAX >> CALL_INDEX_BITS;
        let index = endpoints.insert_call(call).expect("one call fits");
        assert_eq!(index, 0);
        assert_ne!(endpoints.call_id(index), 0, "the generation wraps to one");
    }
}
