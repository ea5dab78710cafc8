//! Checks a capOS program image and plans its address space.
#![no_std]
