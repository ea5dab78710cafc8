//! Runtime of a protection domain, shaped like rust-sel4's `sel4-microkit`.
//!
//! [`protection_domain`] names the initialisation, which returns a
//! [`Handler`]; from then on the domain waits for notifications, protected
//! calls and faults of its children, one at a time. What it may talk to is
//! named by number: [`Channel`], [`IoPort`], [`Child`]. Memory regions and
//! other values of the system description arrive in variables
//! ([`var!`], [`memory_region_symbol!`]).
//!
//! # Differences by kernel
//! Slot numbers are Microkit's everywhere. Kernels whose badges are narrower
//! than 64 bits carry the numbers that can signal a domain packed together, and
//! there the variable `microkit_incoming` says which they are; elsewhere it is
//! not looked at. Where the IPC buffer lies is in
//! `microkit_ipc_buffer`, whose initial value is Microkit's address. On kernels
//! without MCS replies are implicit and there is no reply object.
//!
//! # Invariants
//! - **M1** The IPC buffer is named before anything else runs, and one thread
//!   runs in a domain.
#![no_std]

mod channel;
mod entry;
mod handler;
mod message;
mod port;
mod symbols;

// Linked for the symbols it defines.
use freestanding_mem as _;

pub use channel::{Channel, ChannelSet, Child, IrqAckError};
pub use handler::{Handler, NullHandler};
pub use message::{MessageInfo, get_mr, set_mr};
pub use port::{IoPort, IoPortError};
pub use sel4_microkit_macros::protection_domain;
pub use symbols::{Var, pd_name};

#[doc(hidden)]
pub mod _private {
    //! For the macros.
    pub use crate::handler::run;
    pub use crate::symbols::region;
}

/// What `#[protection_domain]` expands to.
#[doc(hidden)]
#[macro_export]
macro_rules! declare_protection_domain {
    ($init:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            fn __sel4_microkit_main() -> ! {
                $crate::_private::run($init())
            }
        };
    };
}
