//! Says that it is there and never ends.
#![no_std]
#![no_main]

use capos::prelude::*;

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;

fn main(mut runtime: Runtime) -> i64 {
    if let Ok(mut console) = runtime.capset().get_client::<ConsoleClient>(b"console")
        && let Ok(mut ring) = runtime.ring_client()
    {
        let _ = console.write_line_wait(&mut ring, "spinning", FOREVER);
    }
    loop {
        core::hint::spin_loop();
    }
}

entry_point!(main);
