//! Takes anonymous memory and touches it until that is refused, goes on trying
//! for a while, and exits with it: the hog of `allocates-until-refused`.
#![no_std]
#![no_main]

use capos::capos_capnp::ExceptionType;
use capos::prelude::*;
use raw_ring::Process;
use raw_ring::latency::Hog;
use raw_ring::objects::{self, PAGE, refused};
use raw_ring::proof::{self, Proof};

/// Bytes it asks for at one time.
const BITE: u64 = 64 * PAGE;

/// Takes memory until it may not; pages it got.
fn gobble(process: &mut Process, vm: u32) -> Result<u64, proof::Failure> {
    let mut pages = 0;
    for bite in [BITE, PAGE] {
        while let Ok(at) = objects::map(&mut process.ring, vm, 0, bite)? {
            for page in 0..bite / PAGE {
                // SAFETY: the memory was just mapped for us.
                unsafe { objects::store(at + page * PAGE, 1) };
            }
            pages += bite / PAGE;
        }
    }
    Ok(pages)
}

fn prove(process: &mut Process) -> Proof {
    let mut hog = Hog::new(process)?;
    let vm = process.cap("vm")?;
    let pages = gobble(process, vm)?;
    hog.full(process, pages)?;
    while hog.goes_on(process)? {
        let again = objects::map(&mut process.ring, vm, 0, PAGE);
        refused("one page more", again, ExceptionType::Overloaded)?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "gobbler", prove)
}

entry_point!(main);
