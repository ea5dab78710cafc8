//! Answers calls on its endpoint with nothing, one trap for each: RETURN of
//! the last call and RECV of the next go in together. Method 1 ends it.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::syscall::cap_enter;
use capos::{CapSqe, Endpoint};
use raw_ring::{Mailbox, RawRing, receive, returns};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const STOP: u16 = 1;
/// `method_id` in the header of a delivered message.
const METHOD_OFFSET: usize =
    core::mem::offset_of!(capos_config::ring::EndpointMessageHeader, method_id);
const RECEIVED: u64 = 1;
const RETURNED: u64 = 2;

/// The call that the receive brought, out of `wanted` completions.
fn delivered(ring: &mut RawRing, wanted: u32) -> Result<u32, i64> {
    cap_enter(wanted, FOREVER).map_err(|_| 10)?;
    let mut call_id = None;
    while let Some(cqe) = ring.take() {
        match cqe.user_data {
            RECEIVED if cqe.result > 0 => call_id = Some(cqe.call_id),
            RETURNED if cqe.result == 0 => {}
            _ => return Err(11),
        }
    }
    call_id.ok_or(12)
}

fn serve(runtime: &Runtime) -> Result<(), i64> {
    let endpoint = runtime.capset().get_typed::<Endpoint>(b"endpoint");
    let endpoint = endpoint.map_err(|_| 2)?.cap_id();
    // SAFETY: the runtime's page; its ring client is not in use.
    let mut ring = unsafe { RawRing::new(runtime.ring()) };
    let mut mailbox = Mailbox::new(64);
    let next = CapSqe {
        user_data: RECEIVED,
        ..receive(endpoint, &mut mailbox)
    };
    ring.submit(&[next]);
    let mut call_id = delivered(&mut ring, 1)?;
    loop {
        let answer = CapSqe {
            user_data: RETURNED,
            ..returns(endpoint, call_id)
        };
        let method = [
            mailbox.bytes()[METHOD_OFFSET],
            mailbox.bytes()[METHOD_OFFSET + 1],
        ];
        if u16::from_le_bytes(method) == STOP {
            ring.submit(&[answer]);
            return cap_enter(1, FOREVER).map(drop).map_err(|_| 13);
        }
        ring.submit(&[answer, next]);
        call_id = delivered(&mut ring, 2)?;
    }
}

fn main(runtime: Runtime) -> i64 {
    serve(&runtime).err().unwrap_or(0)
}

entry_point!(main);
