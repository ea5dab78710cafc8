//! The pure part: budgets and the queue.

use sel4_direct::budget::DEPTH_MAX;
use sel4_direct::queue::{BUFFER_BYTES, ENTRIES};
use sel4_direct::{Budget, Descriptor, Exhausted, Malformed, Progress, process_tx_queue};

#[test]
fn one_more_than_the_limit_is_refused_until_one_is_given_back() {
    let mut budget = Budget::new(2);
    let first = budget.derive(None).expect("room");
    let _second = budget.derive(None).expect("room");
    assert_eq!(budget.derive(None), Err(Exhausted::Count));
    budget.give_back(first);
    assert!(budget.derive(None).is_ok());
    assert_eq!(budget.live(), 2);
}

#[test]
fn what_was_revoked_counts_no_more_and_derives_nothing() {
    let mut budget = Budget::new(2);
    let first = budget.derive(None).expect("room");
    let second = budget.derive(Some(&first)).expect("room");
    budget.revoke();
    assert_eq!(budget.live(), 0);
    assert_eq!(budget.derive(Some(&first)), Err(Exhausted::Revoked));
    let fresh = budget.derive(None).expect("room again");
    budget.give_back(second);
    assert_eq!(budget.live(), 1, "the dead one is not counted off the live");
    budget.give_back(fresh);
    assert_eq!(budget.live(), 0);
}

#[test]
fn a_chain_ends_at_its_bound() {
    let mut budget = Budget::new(u32::MAX);
    let mut last = budget.derive(None).expect("the first");
    for _ in 1..DEPTH_MAX {
        last = budget.derive(Some(&last)).expect("within the bound");
    }
    assert_eq!(budget.derive(Some(&last)), Err(Exhausted::Depth));
    assert_eq!(budget.live(), u32::from(DEPTH_MAX));
}

#[test]
fn the_queue_is_followed_across_the_wrap_of_its_indices() {
    let mut progress = Progress {
        tail: u32::MAX - 1,
        bytes: 0,
    };
    let mut slots = Vec::new();
    let read = |slot| {
        slots.push(slot);
        Descriptor {
            offset: 0,
            length: 10,
        }
    };
    assert_eq!(process_tx_queue(&mut progress, 1, read, |_| {}), Ok(3));
    assert_eq!(slots, [ENTRIES - 2, ENTRIES - 1, 0]);
    assert_eq!((progress.tail, progress.bytes), (1, 30));
}

#[test]
fn a_head_that_claims_more_than_a_queue_takes_nothing() {
    let mut progress = Progress::default();
    let read = |_| unreachable!("nothing may be read");
    let taken = process_tx_queue(&mut progress, ENTRIES + 1, read, |_| {});
    assert_eq!(taken, Err(Malformed::Head));
    assert_eq!(progress, Progress::default());
}

#[test]
fn no_descriptor_outside_the_buffers_is_taken() {
    let edge = |offset, length| Descriptor { offset, length };
    for (bad, good) in [
        (edge(0, 0), edge(0, 1)),
        (edge(BUFFER_BYTES, 1), edge(BUFFER_BYTES - 1, 1)),
        (edge(1, BUFFER_BYTES), edge(0, BUFFER_BYTES)),
        (edge(u32::MAX, u32::MAX), edge(1, BUFFER_BYTES - 1)),
    ] {
        assert!(good.is_inside() && !bad.is_inside(), "{bad:?} {good:?}");
        let mut progress = Progress::default();
        let read = |slot| [good, bad][slot as usize];
        let mut taken = 0;
        let outcome = process_tx_queue(&mut progress, 2, read, |_| taken += 1);
        assert_eq!(outcome, Err(Malformed::Descriptor));
        assert_eq!((progress.tail, taken), (1, 1), "the good one stays taken");
    }
}
