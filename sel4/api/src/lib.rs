//! Typed seL4 capabilities and invocations.
#![no_std]
