//! Starts hundreds of programs that are wrong in one place each. Whatever the
//! loader makes of one, its parent lives, a good program still starts, and
//! nothing is left behind.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec;

use capos::prelude::*;
use raw_ring::proof::{self, Failure, Process, Proof, equal, that};
use raw_ring::spawner::{Answer, Spawner, request};

/// The good one among them, and what it exits with.
const GOOD: &str = "mutant-000";
const SEVEN: i64 = 7;
/// How many wrong ones are tried between two good ones.
const STRIDE: usize = 10;
/// At least so many must be refused.
const REFUSED_LEAST: usize = 100;
/// Memory this program may need later, touched before anything is counted.
const HEAP_BYTES: usize = 256 * 1024;

fn honest(process: &mut Process, spawner: &mut Spawner) -> Proof {
    match spawner.ask(process, &request(GOOD))? {
        Answer::Started(child) => equal("the exit code", spawner.finish(process, child)?, SEVEN),
        other => Err(Failure::new(format!("the good program: {other:?}"))),
    }
}

fn prove(process: &mut Process) -> Proof {
    drop(core::hint::black_box(vec![1_u8; HEAP_BYTES]));
    let mut spawner = Spawner::new(process)?;
    honest(process, &mut spawner)?;
    let (mut refused, mut ran, mut died) = (0, 0, 0);
    let mut index = 1;
    loop {
        let answer = spawner.ask(process, &request(&format!("mutant-{index:03}")))?;
        match answer {
            Answer::Refused(_, text) if text == "no such program" => break,
            Answer::Refused(..) => refused += 1,
            Answer::Rejected(code) => return Err(Failure::new(format!("{index}: {code}"))),
            Answer::Started(child) => match spawner.finish(process, child)? {
                SEVEN => ran += 1,
                _ => died += 1,
            },
        }
        if index % STRIDE == 0 {
            honest(process, &mut spawner)
                .map_err(|failure| failure.within(&format!("after mutant {index}")))?;
        }
        index += 1;
    }
    honest(process, &mut spawner)?;
    that(refused >= REFUSED_LEAST, "too few were refused")?;
    let line = format!(
        "spawn-hostile-elf: {} mutants: {refused} refused, {ran} ran, {died} died alone",
        index - 1
    );
    process.print(&line)
}

fn main(runtime: Runtime) -> i64 {
    proof::run(&runtime, "spawn-hostile-elf", prove)
}

entry_point!(main);
