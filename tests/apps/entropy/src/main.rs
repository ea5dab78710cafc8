//! The entropy source gives as many bytes as asked for, never the same twice,
//! and none at all beyond its bound.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;

use capos::prelude::*;
use capos::{EntropySourceClient, EntropyStatus, RuntimeRingClient};
use raw_ring::PATIENCE_NS;
use raw_ring::proof::{self, Failure, Proof, equal, that};

/// Most bytes of one call.
const BOUND: u32 = 256;
const ROUNDS: usize = 64;
/// Of 256 fair bits, this few or this many are set less than once in 10^15.
const FEWEST: u32 = 64;
const MOST: u32 = 192;

fn fill(
    source: &mut EntropySourceClient,
    ring: &mut RuntimeRingClient<'_>,
    bytes: u32,
) -> Result<(EntropyStatus, Box<[u8]>), Failure> {
    let filled = source
        .fill_wait(&mut **ring, bytes, PATIENCE_NS)
        .map_err(|error| Failure::new(format!("fill({bytes}): {error:?}")))?;
    Ok((filled.status, filled.data))
}

fn prove(runtime: &mut Runtime) -> Proof {
    let mut source = runtime
        .capset()
        .get_client::<EntropySourceClient>(b"entropy")
        .map_err(|_| Failure::new("no entropy source"))?;
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))?;
    for bytes in [0, 1, 7, 8, 32, BOUND] {
        let (status, data) = fill(&mut source, &mut ring, bytes)?;
        that(status == EntropyStatus::Ok, "not available")?;
        equal("bytes", data.len(), bytes as usize)?;
    }
    let mut last: Box<[u8]> = Box::default();
    for _ in 0..ROUNDS {
        let (_, data) = fill(&mut source, &mut ring, 32)?;
        that(data != last, "the same bytes twice")?;
        let ones: u32 = data.iter().map(|byte| byte.count_ones()).sum();
        that((FEWEST..MOST).contains(&ones), "not random")?;
        last = data;
    }
    for bytes in [BOUND + 1, 480, 65_536, u32::MAX] {
        let (status, data) = fill(&mut source, &mut ring, bytes)?;
        let refused = status == EntropyStatus::Unavailable && data.is_empty();
        that(refused, "more than the bound")?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "entropy", prove)
}

entry_point!(main);
