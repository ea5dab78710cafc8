//! Sends one move several times: behind each other while the first is on its
//! way, twice in one message, and after it arrived. One capability arrives.
#![no_std]
#![no_main]

use capos::prelude::*;
use raw_ring::proof::{self, equal, no_params, that};
use raw_ring::{
    Loopback, Mailbox, Message, Process, Proof, Sqe, call, copied, moved, release, returns,
};

const NOW: u16 = 0;
const NOW_BYTES: i32 = 32;

fn works(process: &mut Process, timer: u32) -> Proof {
    let params = no_params();
    let mut result = [0; 64];
    let now = call(timer, NOW).params(&params).result(&mut result);
    process.ring.expect("Timer.now", now, NOW_BYTES).map(drop)
}

/// A source that moves cannot be sent a second time in the same message:
/// neither happens.
fn twice_in_one(process: &mut Process, own: Loopback, timer: u32) -> Proof {
    for second in [moved(timer), copied(timer)] {
        let message = Message::new(&[], &[moved(timer), second]);
        let mut result = Mailbox::new(64);
        let refused = process.ring.perform(own.call(&message, &mut result))?;
        that(refused.result < 0, "one source was sent twice")?;
        works(process, timer)?;
    }
    Ok(())
}

/// The same entry three times in one batch, received once.
fn replayed(process: &mut Process, own: Loopback, timer: u32) -> Proof {
    let message = Message::new(b"take", &[moved(timer)]);
    let mut results = [(); 3].map(|()| Mailbox::new(64));
    let [first, second, third] = results.each_mut().map(|result| own.call(&message, result));
    let names = [0; 3].map(|_: u64| process.ring.fresh_user_data());
    process.ring.flush(&[
        first.user_data(names[0]),
        second.user_data(names[1]),
        third.user_data(names[2]),
    ])?;
    for name in &names[1..] {
        let replay = process.ring.find(*name);
        that(
            replay.is_some_and(|cqe| cqe.result < 0),
            "a replay on the way was accepted",
        )?;
    }
    let open = own.receive(process, names[0])?;
    let records = open.mailbox.delivery(&open.cqe)?.records;
    equal("records", records.len(), 1)?;
    let mut result = Mailbox::new(64);
    let replay = own.call(&message, &mut result);
    let late = process.ring.perform(replay)?.result;
    that(late < 0, "a replay after arrival was accepted")?;
    let answer = returns(own.endpoint, open.cqe.call_id);
    process.ring.expect("RETURN", answer, 0)?;
    process.ring.wait(names[0])?;
    works(process, records[0].cap_id)?;
    process
        .ring
        .expect("RELEASE", release(records[0].cap_id), 0)?;
    equal("left", process.ring.unclaimed(), 0)
}

fn prove(process: &mut Process) -> Proof {
    let own = Loopback::new(process, "endpoint")?;
    let timer = process.cap("timer")?;
    twice_in_one(process, own, timer)?;
    replayed(process, own, timer)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "replayed-move", prove)
}

entry_point!(main);
