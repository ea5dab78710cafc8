//! Raw seL4 bindings generated from an installed kernel prefix.
#![no_std]
