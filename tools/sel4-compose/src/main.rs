//! Builds, checks and runs capOS-on-seL4 systems.
fn main() {}
