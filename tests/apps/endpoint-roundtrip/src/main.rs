//! One process, both ends of an endpoint, through the published client: a call
//! is delivered with its params, answered with a result, and answered with an
//! exception, whichever end came first.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec;

use capos::prelude::*;
use capos::{
    ApplicationException, CapabilityType, CompletedCall, Endpoint, ExceptionType, RingClientError,
};
use capos_config::ring::CAP_ERR_APPLICATION_EXCEPTION;

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const METHOD: u16 = 3;
const REQUEST: &[u8] = b"twelve bytes";
const ANSWER: &[u8] = b"and an answer of another length";

/// Who submits first.
#[derive(Clone, Copy)]
enum First {
    Caller,
    Receiver,
}

/// How the call is answered.
#[derive(Clone, Copy)]
enum Kind {
    Result,
    Exception,
}

struct Ends<'a, 'r> {
    ring: &'a mut capos::RuntimeRingClient<'r>,
    endpoint: u32,
}

fn room() -> Box<[u8]> {
    vec![0; 512].into()
}

fn code(_: RingClientError) -> i64 {
    10
}

impl Ends<'_, '_> {
    /// Performs one call; its completion at the caller.
    fn call(&mut self, first: First, kind: Kind) -> Result<CompletedCall, i64> {
        let endpoint = self.endpoint;
        let params = Box::from(REQUEST);
        let (call, receive);
        match first {
            First::Caller => {
                call = self.ring.submit_call(endpoint, METHOD, params, room());
                self.ring.cap_enter(0, 0).map_err(code)?;
                receive = self.ring.submit_endpoint_recv(endpoint, room());
            }
            First::Receiver => {
                receive = self.ring.submit_endpoint_recv(endpoint, room());
                self.ring.cap_enter(0, 0).map_err(code)?;
                call = self.ring.submit_call(endpoint, METHOD, params, room());
            }
        }
        let (call, receive) = (call.map_err(code)?, receive.map_err(code)?);
        let received = self.ring.wait(receive, FOREVER).map_err(code)?;
        let id = self.check_message(&received)?;
        let early = self.ring.try_complete(call).map_err(code)?;
        if early.is_some() {
            return Err(20);
        }
        let answered = match kind {
            Kind::Result => {
                let answer = Box::from(ANSWER);
                self.ring.submit_endpoint_return(endpoint, id, answer)
            }
            Kind::Exception => {
                let exception =
                    ApplicationException::new(ExceptionType::Overloaded, "too much".into());
                self.ring
                    .submit_endpoint_return_exception(endpoint, id, exception)
            }
        };
        let answered = self.ring.wait(answered.map_err(code)?, FOREVER);
        if answered.map_err(code)?.cqe().result != 0 {
            return Err(21);
        }
        self.ring.wait(call, FOREVER).map_err(code)
    }

    fn check_message(&self, received: &CompletedCall) -> Result<u32, i64> {
        let message = received.endpoint_message().map_err(|_| 30)?;
        let right = message.params == REQUEST
            && message.method_id == METHOD
            && message.interface_id == Endpoint::INTERFACE_ID
            && message.flags == 0
            && message.badge == 0
            && message.cap_count == 0;
        if right { Ok(message.call_id) } else { Err(31) }
    }
}

fn run(runtime: &mut Runtime) -> Result<(), i64> {
    let capset = runtime.capset();
    let mut console: ConsoleClient = capset.get_client(b"console").map_err(|_| 2)?;
    let endpoint = capset.get_typed::<Endpoint>(b"endpoint").map_err(|_| 3)?;
    let mut ring = runtime.ring_client().map_err(code)?;
    let mut ends = Ends {
        ring: &mut ring,
        endpoint: endpoint.cap_id(),
    };
    for first in [First::Caller, First::Receiver] {
        let result = ends.call(first, Kind::Result)?;
        if result.result_bytes().map_err(|_| 40)? != ANSWER || result.cqe().cap_count != 0 {
            return Err(41);
        }
        let refused = ends.call(first, Kind::Exception)?;
        if refused.cqe().result != CAP_ERR_APPLICATION_EXCEPTION {
            return Err(42);
        }
        let exception = raw_ring::exception::parse(refused.result_buffer());
        let (kind, text) = exception.map_err(|_| 43)?;
        if kind != capos::capos_capnp::ExceptionType::Overloaded || text != "too much" {
            return Err(44);
        }
    }
    console
        .write_line_wait(&mut ring, "endpoint-roundtrip: proved", FOREVER)
        .map_err(|_| 4)
}

fn main(mut runtime: Runtime) -> i64 {
    run(&mut runtime).err().unwrap_or(0)
}

entry_point!(main);
