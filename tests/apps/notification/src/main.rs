//! Makes notifications, hands one side of each to a child, and proves that bits
//! coalesce, wake, stay within a signaller's badge, and that nobody waits for
//! what can never come.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::ExceptionType;
use capos::prelude::*;
use capos::{
    CapabilityRef, OwnedCapability, ProcessSpawnerClient, RuntimeRingClient, SpawnGrant,
    SpawnGrantMode, SpawnGrantSource,
};
use raw_ring::PATIENCE_NS;
use raw_ring::family::{self, Child};
use raw_ring::proof::{self, Failure, Proof, equal, that};
use sel4_capos_client::{
    Notification, NotificationClient, Signaller, SignallerClient, create_notification_wait,
};

/// Rounds of a conversation that has no other channel.
const ROUNDS: u64 = 200;
/// What the peer may signal.
const BADGE: u64 = 0b1110;

fn failed(what: &str, error: &ClientError) -> Failure {
    Failure::new(format!("{what}: {error:?}"))
}

fn ring(runtime: &mut Runtime) -> Result<RuntimeRingClient<'_>, Failure> {
    runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))
}

fn create(runtime: &mut Runtime) -> Result<OwnedCapability<Notification>, Failure> {
    let spawner = runtime
        .capset()
        .get_client::<ProcessSpawnerClient>(b"spawner");
    let spawner = spawner.map_err(|_| Failure::new("no spawner"))?;
    let mut ring = ring(runtime)?;
    create_notification_wait(spawner.capability(), &mut ring, PATIENCE_NS)
        .map_err(|error| failed("createNotification", &error))
}

fn signaller(
    runtime: &mut Runtime,
    of: &OwnedCapability<Notification>,
    badge: u64,
) -> Result<OwnedCapability<Signaller>, Failure> {
    let mut client = NotificationClient::from_capability(of.capability());
    client
        .signaller_wait(&mut ring(runtime)?, badge, PATIENCE_NS)
        .map_err(|error| failed("signaller", &error))
}

/// A copy of a capability, its label kept.
const fn copy(name: &str, capability: CapabilityRef, badge: u64) -> SpawnGrant<'_> {
    SpawnGrant {
        name,
        source: SpawnGrantSource::Capability(capability),
        mode: SpawnGrantMode::Raw,
        badge,
    }
}

/// Signals that nobody waits for are taken together, once.
fn coalesces(runtime: &mut Runtime) -> Proof {
    let made = create(runtime)?;
    let badged = signaller(runtime, &made, BADGE)?;
    let mut client = NotificationClient::from_capability(made.capability());
    let mut other = SignallerClient::from_capability(badged.capability());
    let mut ring = ring(runtime)?;
    let ring = &mut *ring;
    let bits = |error: ClientError| failed("bits", &error);
    equal(
        "at first",
        client.poll_wait(ring, PATIENCE_NS).map_err(bits)?,
        0,
    )?;
    for bit in [1, 1 << 63, 1] {
        client.signal_wait(ring, bit, PATIENCE_NS).map_err(bits)?;
    }
    other.signal_wait(ring, 0, PATIENCE_NS).map_err(bits)?;
    let all = client.wait_wait(ring, PATIENCE_NS).map_err(bits)?;
    equal("together", all, 1 | 1 << 63 | BADGE)?;
    equal(
        "then",
        client.poll_wait(ring, PATIENCE_NS).map_err(bits)?,
        0,
    )?;
    for wrong in [1, BADGE | 1, u64::MAX] {
        match other.signal_wait(ring, wrong, PATIENCE_NS) {
            Err(ClientError::Application(exception)) => {
                let kind = exception.exception_type();
                that(kind == ExceptionType::InvalidArgument, "the exception")?;
            }
            _ => return Err(Failure::new("bits beyond the badge")),
        }
    }
    equal(
        "still",
        client.poll_wait(ring, PATIENCE_NS).map_err(bits)?,
        0,
    )
}

/// A child and the two notifications between us.
struct Peer {
    child: Child,
    there: OwnedCapability<Notification>,
    back: OwnedCapability<Notification>,
}

impl Peer {
    /// The child may wait for `there`, and set the bits of the badge in `back`.
    fn start(runtime: &mut Runtime) -> Result<Self, Failure> {
        let (there, back) = (create(runtime)?, create(runtime)?);
        let answer = signaller(runtime, &back, BADGE)?;
        let grants = [
            family::same(runtime, "console")?,
            copy("there", there.capability().raw(), 0),
            copy("back", answer.capability().raw(), BADGE),
        ];
        let child = family::spawn(runtime, "notification-peer", &grants)?;
        Ok(Self { child, there, back })
    }
}

/// Each side waits for the other's signal, many times.
fn converses(runtime: &mut Runtime) -> Proof {
    let peer = Peer::start(runtime)?;
    {
        let mut there = NotificationClient::from_capability(peer.there.capability());
        let mut back = NotificationClient::from_capability(peer.back.capability());
        let mut ring = ring(runtime)?;
        let ring = &mut *ring;
        for round in 1..=ROUNDS {
            there
                .signal_wait(ring, round, PATIENCE_NS)
                .map_err(|error| failed("signal", &error))?;
            let bits = back
                .wait_wait(ring, PATIENCE_NS)
                .map_err(|error| failed("wait", &error))?;
            let expected = if round & BADGE == 0 {
                BADGE
            } else {
                round & BADGE
            };
            equal("the answer", bits, expected)?;
        }
        there
            .signal_wait(ring, 1 << 63, PATIENCE_NS)
            .map_err(|error| failed("the last signal", &error))?;
    }
    peer.child.succeeds(runtime, "the peer's exit code")
}

/// A peer that waits is told when its authority is taken away.
fn revoked(runtime: &mut Runtime) -> Proof {
    let peer = Peer::start(runtime)?;
    {
        let mut back = NotificationClient::from_capability(peer.back.capability());
        let mut there = NotificationClient::from_capability(peer.there.capability());
        let mut ring = ring(runtime)?;
        let ring = &mut *ring;
        // After this round it waits for the next.
        there
            .signal_wait(ring, 2, PATIENCE_NS)
            .map_err(|error| failed("signal", &error))?;
        back.wait_wait(ring, PATIENCE_NS)
            .map_err(|error| failed("wait", &error))?;
    }
    peer.child.revoke::<Notification>(runtime)?;
    /// What the peer exits with when it is disconnected.
    const DISCONNECTED: i64 = 9;
    equal("the exit code", peer.child.wait(runtime)?, DISCONNECTED)
}

fn prove(runtime: &mut Runtime) -> Proof {
    coalesces(runtime)?;
    converses(runtime)?;
    revoked(runtime)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "notification", prove)
}

entry_point!(main);
