//! Untyped, slot, address-space and device accounting as pure state machines.
#![no_std]
