//! The program `zerocopy-consumer` as its parent sees it: it checks records in
//! a shared page, told of each by a call or of some by a notification.

use alloc::format;
use alloc::vec::Vec;

use capos::{
    CapabilityRef, Client, KernelCapSource, OwnedCapability, ProcessSpawnerClient, Runtime,
    SpawnGrant, SpawnGrantMode, SpawnGrantSource,
};
use sel4_capos_client::{Notification, NotificationClient, Signaller, create_notification_wait};

use crate::exchange::Exchange;
use crate::family::{self, Child};
use crate::objects::{Frames, PAGE, READ_WRITE, granted};
use crate::proof::{Failure, Process, Proof, equal};
use crate::records::SharedPage;
use crate::{Mailbox, Message, PATIENCE_NS, Sqe, call, copied};

/// Its methods; numbers are little-endian words.
pub mod method {
    /// Map the page that comes along.
    pub const ATTACH: u16 = 0;
    /// Do nothing.
    pub const NOTHING: u16 = 1;
    /// Check the record in the slot of word 0, whose checksum is word 1.
    pub const RECORD: u16 = 2;
    /// Answer, then take records from the ring until [`super::LAST`].
    pub const FOLLOW: u16 = 3;
    /// Answer [`super::Totals`] and begin new ones.
    pub const TOTALS: u16 = 4;
    /// Exit.
    pub const STOP: u16 = 5;
}

/// Signalled when records were published or taken.
pub const SOME: u64 = 1;
/// Signalled when there will be no more.
pub const LAST: u64 = 2;

/// What a consumer saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records that were good.
    pub records: u64,
    /// Sum of their checksums.
    pub sum: u64,
    /// How often it was woken.
    pub wakes: u64,
    /// Most records it found after being woken once.
    pub most: u64,
    /// The [`crate::records::Refusal`] that ended it, or zero.
    pub refusal: u64,
}

impl Totals {
    /// As they are sent.
    pub fn to_bytes(self) -> [u8; 40] {
        let words = [self.records, self.sum, self.wakes, self.most, self.refusal];
        let mut bytes = [0; 40];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let word = |chunk: &[u8]| chunk.try_into().map_or(0, u64::from_le_bytes);
        let words: Vec<u64> = bytes.chunks_exact(8).map(word).collect();
        match words[..] {
            [records, sum, wakes, most, refusal] => Ok(Self {
                records,
                sum,
                wakes,
                most,
                refusal,
            }),
            _ => Err(Failure::new("an answer without totals")),
        }
    }
}

/// A running `zerocopy-consumer`, and what is shared with it.
pub struct Peer {
    child: Child,
    facet: u32,
    published: OwnedCapability<Notification>,
    consumed: OwnedCapability<Notification>,
}

impl Peer {
    /// Starts it. It may wait for what the parent publishes, and signal
    /// [`SOME`] when it consumed.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start(runtime: &mut Runtime) -> Result<Self, Failure> {
        let (published, consumed) = (create(runtime)?, create(runtime)?);
        let signaller = signaller(runtime, &consumed)?;
        let grants = [
            family::same(runtime, "console")?,
            family::fresh("endpoint", KernelCapSource::Endpoint),
            copy("published", published.capability().raw(), 0),
            copy("consumed", signaller.capability().raw(), SOME),
        ];
        let child = family::spawn(runtime, "zerocopy-consumer", &grants)?;
        let facet = child.endpoint(0)?.cap_id();
        Ok(Self {
            child,
            facet,
            published,
            consumed,
        })
    }

    /// The calling side of its endpoint.
    pub fn facet(&self) -> u32 {
        self.facet
    }

    /// The parent's side of the notifications.
    pub fn exchange(&self) -> Exchange {
        Exchange::new(self.published.cap_id(), self.consumed.cap_id())
    }

    /// Allocates a page, maps it here, and sends it to be mapped there.
    ///
    /// # Errors
    /// The system refuses.
    pub fn share(&self, process: &mut Process, frames: u32) -> Result<SharedPage, Failure> {
        let ring = &mut process.ring;
        let object = granted("alloc", Frames(frames).one(ring))?;
        let at = granted("map", object.map(ring, 0, (0, PAGE), READ_WRITE))?;
        let message = Message::new(&[], &[copied(object.0)]);
        let attach = call(self.facet, method::ATTACH).message(&message);
        ring.expect("ATTACH", attach, 0)?;
        // The mapping stays without the capability.
        object.release(ring)?;
        // SAFETY: the page was just mapped for reading and writing, stays for
        // good, and nothing of Rust's is in it.
        Ok(unsafe { SharedPage::new(at) })
    }

    /// Has it follow the ring.
    ///
    /// # Errors
    /// It does not answer.
    pub fn follow(&self, process: &mut Process) -> Proof {
        let entry = call(self.facet, method::FOLLOW);
        process.ring.expect("FOLLOW", entry, 0).map(drop)
    }

    /// What it saw since the last time it was asked.
    ///
    /// # Errors
    /// It does not answer.
    pub fn totals(&self, process: &mut Process) -> Result<Totals, Failure> {
        let mut answer = Mailbox::new(64);
        let entry = call(self.facet, method::TOTALS).result(answer.bytes_mut());
        let cqe = process.ring.perform(entry)?;
        Totals::parse(answer.written(&cqe)?)
    }

    /// Ends it.
    ///
    /// # Errors
    /// It ends badly.
    pub fn stop(self, runtime: &mut Runtime) -> Proof {
        let stop = call(self.facet, method::STOP);
        Process::new(runtime).ring.expect("STOP", stop, 0)?;
        equal("the consumer's exit code", self.child.wait(runtime)?, 0)
    }
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

fn signaller(
    runtime: &mut Runtime,
    of: &OwnedCapability<Notification>,
) -> Result<OwnedCapability<Signaller>, Failure> {
    let mut client = NotificationClient::from_capability(of.capability());
    let mut ring = runtime.ring_client().map_err(|_| Failure::new("ring"))?;
    client
        .signaller_wait(&mut ring, SOME, PATIENCE_NS)
        .map_err(|error| Failure::new(format!("signaller: {error:?}")))
}

const fn copy(name: &str, capability: CapabilityRef, badge: u64) -> SpawnGrant<'_> {
    SpawnGrant {
        name,
        source: SpawnGrantSource::Capability(capability),
        mode: SpawnGrantMode::Raw,
        badge,
    }
}
