//! NOP completes with 0 under exactly the `user_data` it was submitted with,
//! one or a queue full at a time.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::syscall::cap_enter;
use capos_config::ring::SQ_ENTRIES;
use raw_ring::proof::{self, equal, that};
use raw_ring::{Process, Proof, Sqe, nop};

fn one_at_a_time(process: &mut Process) -> Proof {
    for user_data in [0, 1, u64::MAX, 1 << 63, 0xffff_ffff_ffff_ff01] {
        process.ring.submit(&[nop().user_data(user_data)]);
        equal("completions", cap_enter(1, 0).ok(), Some(1))?;
        let cqe = process.ring.take();
        let cqe = cqe.ok_or_else(|| proof::Failure::new("no completion"))?;
        equal("user_data", cqe.user_data, user_data)?;
        equal("result", cqe.result, 0)?;
        let rest = (cqe.flags, cqe.cap_count, cqe.badge, cqe.call_id);
        equal("other fields", rest, (0, 0, 0, 0))?;
        that(process.ring.take().is_none(), "a second completion")?;
    }
    Ok(())
}

fn a_queue_full(process: &mut Process) -> Proof {
    let entries: [_; SQ_ENTRIES as usize] = core::array::from_fn(|n| nop().user_data(n as u64));
    for _ in 0..100 {
        equal("taken", process.ring.flush(&entries)?, SQ_ENTRIES)?;
        for user_data in 0..u64::from(SQ_ENTRIES) {
            let cqe = process.ring.take().map(|cqe| (cqe.user_data, cqe.result));
            equal("in order", cqe, Some((user_data, 0)))?;
        }
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "ring-nop", |process| {
        one_at_a_time(process)?;
        a_queue_full(process)
    })
}

entry_point!(main);
