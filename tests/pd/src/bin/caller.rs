//! Calls `callee` with one word and with as many as a message takes.

#![no_std]
#![no_main]

use sel4_microkit::{
    Channel, Handler, MessageInfo, NullHandler, get_mr, pd_name, protection_domain, set_mr,
};
use test_domains::Verdict;

const CALLEE: Channel = Channel::new(1);
const SMALL: Verdict = Verdict::new(10);
const LARGE: Verdict = Verdict::new(11);
const NAMED: Verdict = Verdict::new(12);
const WORDS: usize = 64;

#[protection_domain]
fn init() -> impl Handler {
    set_mr(0, 41);
    let answer = CALLEE.pp_call(MessageInfo::new(5, 1));
    SMALL.passed(answer.label() == 6 && answer.count() == 1 && get_mr(0) == 42);
    for word in 0..WORDS {
        set_mr(word, word as u64);
    }
    let answer = CALLEE.pp_call(MessageInfo::new(0, WORDS));
    let all = (0..WORDS).all(|word| get_mr(word) == word as u64 + 1);
    LARGE.passed(answer.count() == WORDS && all);
    NAMED.passed(pd_name(&mut [0; 64]) == "caller");
    NullHandler
}
