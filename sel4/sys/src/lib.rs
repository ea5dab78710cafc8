//! Raw seL4 bindings, generated from an installed kernel prefix.
//!
//! Everything that differs between kernels (numbers, layouts, methods) comes
//! out of `build/`, which reads the prefix named by `SEL4_PREFIX`; what is
//! written by hand here is how a system call is entered ([`syscalls`]) and how
//! a message is put together ([`invoke`]). Names are libsel4's. Exactly one
//! crate, `sel4`, is meant to use this one.
//!
//! The functions never look for the IPC buffer themselves (libsel4 finds it
//! through a segment register or thread-local storage): each takes a pointer.
#![no_std]

/// Options of the kernel, named without their `CONFIG_` prefix.
pub mod config {
    #![allow(non_upper_case_globals, reason = "named as the kernel names them")]
    include!(concat!(env!("OUT_DIR"), "/config.rs"));
}

mod generated {
    //! What the build script wrote.
    #![allow(
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        clippy::too_many_arguments,
        clippy::identity_op,
        unused_parens,
        reason = "generated under the names of libsel4"
    )]
    use crate::message::{get_words, invoke, put_words, set_cap, set_mr};

    include!(concat!(env!("OUT_DIR"), "/constants.rs"));
    include!(concat!(env!("OUT_DIR"), "/types.rs"));
    include!(concat!(env!("OUT_DIR"), "/invocations.rs"));
}

#[cfg(test)]
mod marshalling;
mod message;
pub mod syscalls;

pub use generated::*;
pub use message::{get_mr, invoke, message_info, message_label, message_length, set_cap, set_mr};
