//! A 16550 serial port, and the byte rings its driver is reached through.
//!
//! [`uart`] knows the registers and no ring, [`ring`] knows shared memory and
//! no device; the protection domain in `domain/` puts the two together.

#![no_std]

pub mod ring;
pub mod uart;
