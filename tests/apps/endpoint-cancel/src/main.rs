//! CANCEL withdraws one waiting RECV: both complete, no other is touched, and
//! what is not waiting cannot be cancelled.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos_config::ring::CAP_ERR_INVOKE_FAILED;
use raw_ring::proof::{self, equal, that};
use raw_ring::{Loopback, Mailbox, Message, Process, Proof, Sqe, cancel, receive};

fn prove(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let mut mailboxes = core::array::from_fn::<_, 3, _>(|_| Mailbox::new(256));
    let mut receives = [0; 3];
    for (user_data, mailbox) in receives.iter_mut().zip(&mut mailboxes) {
        *user_data = process.ring.start(receive(own.endpoint, mailbox))?;
    }
    let [first, second, third] = receives;
    process
        .ring
        .expect("CANCEL", cancel(own.endpoint, second), 0)?;
    let cancelled = process.ring.wait(second)?;
    that(cancelled.result < 0, "a cancelled RECV succeeded")?;
    let refused = CAP_ERR_INVOKE_FAILED;
    for (what, user_data) in [("cancelled", second), ("never submitted", 0x7777_7777)] {
        let sqe = cancel(own.endpoint, user_data);
        process.ring.expect(what, sqe, refused)?;
    }
    equal("others completed", process.ring.unclaimed(), 0)?;
    // The one that came first takes the next call.
    let mut result = Mailbox::new(64);
    let call = process
        .ring
        .start(own.call(&Message::new(b"hello", &[]), &mut result))?;
    let delivered = process.ring.wait(first)?;
    let call_id = mailboxes[0].delivery(&delivered)?.call_id;
    let answer = raw_ring::returns(own.endpoint, call_id).params(b"bye");
    process.ring.expect("RETURN", answer, 0)?;
    equal("the call", process.ring.wait(call)?.result, 3)?;
    process
        .ring
        .expect("CANCEL", cancel(own.endpoint, third), 0)?;
    that(process.ring.wait(third)?.result < 0, "the last RECV")?;
    equal("left", process.ring.unclaimed(), 0)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "endpoint-cancel", prove)
}

entry_point!(main);
