//! Runtime for an seL4 root task: entry, stack, heap, panic.
#![no_std]
