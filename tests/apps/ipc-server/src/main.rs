//! Serves one client: answers each number with its square, refuses odd
//! requests with an exception, and ends when it is told to.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec;

use capos::prelude::*;
use capos::{ApplicationException, Endpoint, ExceptionType, RuntimeRingClient};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const SQUARE: u16 = 1;
const STOP: u16 = 2;

/// What became of one call.
enum Served {
    Answered,
    Stopped,
}

fn answer(ring: &mut RuntimeRingClient<'_>, endpoint: u32) -> Result<Served, i64> {
    let receive = ring
        .submit_endpoint_recv(endpoint, vec![0; 256].into())
        .map_err(|_| 10)?;
    let received = ring.wait(receive, FOREVER).map_err(|_| 11)?;
    let message = received.endpoint_message().map_err(|_| 12)?;
    if message.caller_session.flags != 1 || message.cap_count != 0 {
        return Err(13);
    }
    let number = message.params.try_into().map(u32::from_le_bytes);
    let (id, method) = (message.call_id, message.method_id);
    let (returned, served) = match (method, number) {
        (SQUARE, Ok(number)) => {
            let square = u64::from(number) * u64::from(number);
            let payload = Box::from(square.to_le_bytes());
            let returned = ring.submit_endpoint_return(endpoint, id, payload);
            (returned, Served::Answered)
        }
        (STOP, _) => {
            let returned = ring.submit_endpoint_return(endpoint, id, Box::from([]));
            (returned, Served::Stopped)
        }
        _ => {
            let exception =
                ApplicationException::new(ExceptionType::InvalidArgument, "no number".into());
            let returned = ring.submit_endpoint_return_exception(endpoint, id, exception);
            (returned, Served::Answered)
        }
    };
    let returned = ring.wait(returned.map_err(|_| 14)?, FOREVER);
    match returned.map_err(|_| 15)?.cqe().result {
        0 => Ok(served),
        _ => Err(16),
    }
}

fn serve(mut runtime: Runtime) -> Result<(), i64> {
    let capset = runtime.capset();
    let mut console: ConsoleClient = capset.get_client(b"console").map_err(|_| 2)?;
    let endpoint = capset.get_typed::<Endpoint>(b"endpoint").map_err(|_| 3)?;
    let mut ring = runtime.ring_client().map_err(|_| 4)?;
    console
        .write_line_wait(&mut ring, "ipc-server: ready", FOREVER)
        .map_err(|_| 5)?;
    while let Served::Answered = answer(&mut ring, endpoint.cap_id())? {}
    console
        .write_line_wait(&mut ring, "ipc-server: done", FOREVER)
        .map_err(|_| 5)
}

fn main(runtime: Runtime) -> i64 {
    serve(runtime).err().unwrap_or(0)
}

entry_point!(main);
