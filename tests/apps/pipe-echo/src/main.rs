//! Writes what it reads until its input ends.
//!
//! Returns 0, or the number of the step that failed.
#![no_std]
#![no_main]

use capos::PipeClient;
use capos::prelude::*;

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const PIECE_BYTES: u32 = 4096;

fn run(mut runtime: Runtime) -> Result<(), i64> {
    let capset = runtime.capset();
    let mut input: PipeClient = capset.get_client(b"input").map_err(|_| 1)?;
    let mut output: PipeClient = capset.get_client(b"output").map_err(|_| 2)?;
    let mut ring = runtime.ring_client().map_err(|_| 3)?;
    loop {
        let read = input.read_wait(&mut *ring, PIECE_BYTES, FOREVER);
        let read = read.map_err(|_| 4)?;
        if read.eof {
            return Ok(());
        }
        let mut rest = &*read.data;
        while !rest.is_empty() {
            let count = output.write_wait(&mut *ring, rest, FOREVER);
            match count.map_err(|_| 5)? {
                0 => return Err(6),
                count => rest = &rest[count as usize..],
            }
        }
    }
}

fn main(runtime: Runtime) -> i64 {
    run(runtime).err().unwrap_or(0)
}

entry_point!(main);
