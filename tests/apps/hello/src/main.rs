//! The first program: greets through the console it was given.
//!
//! Returns 0 after the greeting, 1 if it was given no console.
#![no_std]
#![no_main]

use capos::prelude::*;

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;

fn main(mut runtime: Runtime) -> i64 {
    let Ok(mut console) = runtime.capset().get_client::<ConsoleClient>(b"console") else {
        return 1;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return 2;
    };
    match console.write_line_wait(&mut ring, "hello from capos", FOREVER) {
        Ok(()) => 0,
        Err(_) => 3,
    }
}

entry_point!(main);
