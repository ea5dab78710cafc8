//! Receives its child's fault and restarts the child, once.

#![no_std]
#![no_main]

use core::convert::Infallible;

use sel4_microkit::{Child, Handler, MessageInfo, protection_domain};
use test_domains::Verdict;

const CHILD: Child = Child::new(9);
const FAULTED: Verdict = Verdict::new(10);
const FAULTED_AGAIN: Verdict = Verdict::new(11);
/// Where the linker script puts a domain's entry.
const ENTRY: u64 = 0x20_0000;

struct Parent {
    faults: u32,
}

#[protection_domain]
fn init() -> impl Handler {
    Parent { faults: 0 }
}

impl Handler for Parent {
    type Error = Infallible;

    fn fault(&mut self, child: Child, _: MessageInfo) -> Result<Option<MessageInfo>, Infallible> {
        self.faults += 1;
        if self.faults == 1 {
            FAULTED.passed(child == CHILD && child.restart(ENTRY).is_ok());
        } else {
            FAULTED_AGAIN.passed(child == CHILD && child.stop().is_ok());
        }
        Ok(None)
    }
}
