//! What a notification costs, in ticks of the time stamp counter: a signal that
//! nobody waits for, taking bits that are there, and a round trip through
//! another process (signal and wait here, wake-up, signal and wait there).
//!
//! Where time is counted in instructions, a tick is one instruction. The lines
//! are `bench NAME median=N min=N max=N`, over 101 rounds.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::prelude::*;
use capos::syscall::cap_enter;
use capos::{
    CapSqe, CapabilityRef, OwnedCapability, ProcessSpawnerClient, SpawnGrant, SpawnGrantMode,
    SpawnGrantSource,
};
use raw_ring::bench::{Samples, ticks};
use raw_ring::family;
use raw_ring::proof::{self, Failure, Proof, no_params, that};
use raw_ring::{Mailbox, PATIENCE_NS, RawRing, Sqe, call};
use sel4_capos_client::{Notification, create_notification_wait};
use sel4_capos_schema::method::{POLL, SIGNAL, WAIT};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const ROUNDS: usize = 101;
const WARM_UP_ROUNDS: usize = 5;
/// A message with one word: the bits.
const ONE: [u64; 3] = [2 << 32, 1 << 32, 1];
/// Bits that tell the other side to stop.
const STOP: [u64; 3] = [2 << 32, 1 << 32, 1 << 63];

fn bytes(words: &[u64; 3]) -> &[u8] {
    // SAFETY: every byte of an integer is one, and the length is the array's.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

fn create(runtime: &mut Runtime) -> Result<OwnedCapability<Notification>, Failure> {
    let spawner = runtime
        .capset()
        .get_client::<ProcessSpawnerClient>(b"spawner");
    let spawner = spawner.map_err(|_| Failure::new("no spawner"))?;
    let mut ring = runtime.ring_client().map_err(|_| Failure::new("ring"))?;
    create_notification_wait(spawner.capability(), &mut ring, PATIENCE_NS)
        .map_err(|error| Failure::new(format!("createNotification: {error:?}")))
}

const fn copy(name: &str, capability: CapabilityRef) -> SpawnGrant<'_> {
    SpawnGrant {
        name,
        source: SpawnGrantSource::Capability(capability),
        mode: SpawnGrantMode::Raw,
        badge: 0,
    }
}

/// Submits, waits for all completions, and returns the time it took.
fn round(ring: &mut RawRing, entries: &[CapSqe]) -> Result<u64, Failure> {
    let start = ticks();
    ring.submit(entries);
    let entered = cap_enter(entries.len() as u32, FOREVER);
    let mut good = 0;
    while let Some(cqe) = ring.take() {
        good += usize::from(cqe.result >= 0);
    }
    let taken = ticks() - start;
    that(entered.is_ok() && good == entries.len(), "a completion")?;
    Ok(taken)
}

fn measure(
    ring: &mut RawRing,
    name: &str,
    entries: &[CapSqe],
) -> Result<alloc::string::String, Failure> {
    let samples = Samples::take(WARM_UP_ROUNDS, ROUNDS, || round(ring, entries))?;
    Ok(samples.line(name))
}

fn prove(runtime: &mut Runtime) -> Proof {
    let (there, back) = (create(runtime)?, create(runtime)?);
    let grants = [
        copy("there", there.capability().raw()),
        copy("back", back.capability().raw()),
    ];
    let peer = family::spawn(runtime, "bench-notified", &grants)?;
    let (there, back) = (there.cap_id(), back.cap_id());
    let mut result = Mailbox::new(64);
    let nothing = no_params();
    let lines = {
        // SAFETY: the runtime's page; its ring client is not in use meanwhile.
        let mut ring = unsafe { RawRing::new(runtime.ring()) };
        let signal = |cap, words| call(cap, SIGNAL).params(bytes(words));
        let wait = call(back, WAIT).params(&nothing).result(result.bytes_mut());
        let poll = CapSqe {
            method_id: POLL,
            ..wait
        };
        let trip = measure(
            &mut ring,
            "notification-round-trip",
            &[signal(there, &ONE), wait],
        )?;
        let unheard = measure(&mut ring, "notification-signal", &[signal(back, &ONE)])?;
        let taken = measure(&mut ring, "notification-poll", &[poll])?;
        round(&mut ring, &[signal(there, &STOP)])?;
        [trip, unheard, taken]
    };
    peer.succeeds(runtime, "the peer")?;
    let console = runtime.capset().get_client::<ConsoleClient>(b"console");
    let mut console = console.map_err(|_| Failure::new("no console"))?;
    let mut ring = runtime.ring_client().map_err(|_| Failure::new("ring"))?;
    for line in &lines {
        console
            .write_line_wait(&mut *ring, line, FOREVER)
            .map_err(|_| Failure::new("console"))?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "bench-notification", prove)
}

entry_point!(main);
