//! What the system's services decide, apart from how they are asked.
//!
//! Each module is the part of one service that needs no capability ring: it
//! takes what was asked and the time, and says what is to be done. The services
//! beside this crate do it.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod attempts;
pub mod audit;
pub mod hashing;
pub mod journal;
pub mod launch;
pub mod passwords;
pub mod sessions;
