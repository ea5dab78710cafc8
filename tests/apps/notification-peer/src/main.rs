//! Waits for `there` and signals what came, as far as it may, to `back`; until
//! the highest bit comes.
//!
//! Returns 0, 9 when it is disconnected, or the number of the step that failed.
#![no_std]
#![no_main]

use capos::ExceptionType;
use capos::prelude::*;
use sel4_capos_client::{NotificationClient, SignallerClient};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const LAST: u64 = 1 << 63;
const DISCONNECTED: i64 = 9;
/// What `back` was made for.
const BADGE: u64 = 0b1110;

fn step(error: ClientError, number: i64) -> i64 {
    match error {
        ClientError::Application(exception)
            if exception.exception_type() == ExceptionType::Disconnected =>
        {
            DISCONNECTED
        }
        _ => number,
    }
}

fn run(mut runtime: Runtime) -> Result<(), i64> {
    let capset = runtime.capset();
    let mut there: NotificationClient = capset.get_client(b"there").map_err(|_| 1)?;
    let mut back: SignallerClient = capset.get_client(b"back").map_err(|_| 2)?;
    let mut ring = runtime.ring_client().map_err(|_| 3)?;
    loop {
        let bits = there.wait_wait(&mut *ring, FOREVER);
        let bits = bits.map_err(|error| step(error, 4))?;
        if bits & LAST != 0 {
            return Ok(());
        }
        let answer = back.signal_wait(&mut *ring, bits & BADGE, FOREVER);
        answer.map_err(|error| step(error, 5))?;
    }
}

fn main(runtime: Runtime) -> i64 {
    run(runtime).err().unwrap_or(0)
}

entry_point!(main);
