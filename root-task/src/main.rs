//! The capOS personality on seL4.
fn main() {}
