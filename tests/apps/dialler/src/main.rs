//! Calls the endpoint it was given until that is refused, and then waits for
//! the answers; its exit code is how many there were. Without an endpoint it
//! waits for ever.
#![no_std]
#![no_main]

use capos::capos_capnp::ExceptionType;
use capos::prelude::*;
use capos::syscall::cap_enter;
use raw_ring::proof::{self, Failure, equal};
use raw_ring::{Mailbox, Process, Sqe, call, exception};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
/// More than any quota allows, and than an exit code of this program means.
const FLOOD: i64 = 900;
const FAILED: i64 = 1000;

fn dial(process: &mut Process, endpoint: u32) -> Result<i64, Failure> {
    let mut result = Mailbox::new(256);
    let mut refusal = Mailbox::new(256);
    let mut accepted = 0;
    while accepted < FLOOD {
        let params = (accepted as u32).to_le_bytes();
        let sqe = call(endpoint, 1).params(&params).result(if accepted == 0 {
            result.bytes_mut()
        } else {
            refusal.bytes_mut()
        });
        let user_data = process.ring.start(sqe)?;
        if let Some(refused) = process.ring.find(user_data) {
            let kind = ExceptionType::Overloaded;
            exception::expect("the call too many", &refused, refusal.bytes(), kind)?;
            break;
        }
        accepted += 1;
    }
    let mut answered = process.ring.unclaimed() as i64;
    while answered < accepted {
        let waiting = cap_enter(1, raw_ring::PATIENCE_NS);
        if !waiting.is_ok_and(|count| count > 0) {
            return Err(Failure::new("an answer does not come"));
        }
        answered = process.ring.unclaimed() as i64;
    }
    equal("answers", answered, accepted)?;
    Ok(accepted)
}

fn main(runtime: Runtime) -> i64 {
    let process = Process::new(&runtime);
    let Ok(endpoint) = process.cap("endpoint") else {
        let _ = cap_enter(1, FOREVER);
        return FAILED;
    };
    let mut code = FAILED;
    proof::run(&runtime, "dialler", |process| {
        code = dial(process, endpoint)?;
        Ok(())
    });
    code
}

entry_point!(main);
