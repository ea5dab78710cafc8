//! A kernel for the host: [`SimKernel`] enforces the rules of
//! [`crate::operation`] and panics when the broker breaks one.
