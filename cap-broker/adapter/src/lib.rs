//! Turns the decisions of cap-broker-core into seL4 invocations.
#![no_std]
