//! Sends a stream through a child and back, through pipes smaller than what is
//! sent, so that either side waits for the other; then ends it in each of the
//! ways it can end.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;

use capos::{
    CapabilityRef, ClientError, OwnedCapability, Pipe, PipeClient, ProcessSpawnerClient,
    RingClientError, SpawnGrant, SpawnGrantMode, SpawnGrantSource,
};
use capos::{CreatePipeResult, prelude::*};
use raw_ring::PATIENCE_NS;
use raw_ring::family::{self, Child};
use raw_ring::proof::{self, Failure, Proof, equal, that};

const BYTES: usize = 100_000;
/// Less than a chunk each way.
const THERE_BYTES: u32 = 4096;
const BACK_BYTES: u32 = 1000;
const CHUNK_BYTES: usize = 6000;

fn failed(what: &str, error: &ClientError) -> Failure {
    Failure::new(format!("{what}: {error:?}"))
}

fn create(runtime: &mut Runtime, bytes: u32) -> Result<CreatePipeResult, Failure> {
    let spawner = runtime
        .capset()
        .get_client::<ProcessSpawnerClient>(b"spawner");
    let mut spawner = spawner.map_err(|_| Failure::new("no spawner"))?;
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))?;
    spawner
        .create_pipe_wait(&mut ring, bytes, PATIENCE_NS)
        .map_err(|error| failed("createPipe", &error))
}

const fn grant(name: &str, end: CapabilityRef, mode: SpawnGrantMode) -> SpawnGrant<'_> {
    SpawnGrant {
        name,
        source: SpawnGrantSource::Capability(end),
        mode,
        badge: 0,
    }
}

/// This process's ends of two pipes to a child that echoes, and the child.
struct Echo {
    child: Child,
    there: OwnedCapability<Pipe>,
    back: OwnedCapability<Pipe>,
}

impl Echo {
    fn start(runtime: &mut Runtime) -> Result<Self, Failure> {
        let there = create(runtime, THERE_BYTES)?;
        let back = create(runtime, BACK_BYTES)?;
        let input = there.read_end.capability().raw();
        let output = back.write_end.capability().raw();
        // One end is shared and then dropped here, the other moves.
        let grants = [
            grant("input", input, SpawnGrantMode::Raw),
            grant("output", output, SpawnGrantMode::Move),
        ];
        let child = family::spawn(runtime, "pipe-echo", &grants)?;
        drop(there.read_end);
        // The number of what moved is not ours to release.
        core::mem::forget(back.write_end);
        runtime
            .flush_releases()
            .map_err(|error| Failure::new(format!("releases: {error:?}")))?;
        Ok(Self {
            child,
            there: there.write_end,
            back: back.read_end,
        })
    }

    /// Writes all of `data`, reads all of it back.
    fn send(&self, runtime: &mut Runtime, data: &[u8]) -> Proof {
        let mut ring = runtime
            .ring_client()
            .map_err(|_| Failure::new("no ring client"))?;
        let mut there = PipeClient::from_capability(self.there.capability());
        let mut back = PipeClient::from_capability(self.back.capability());
        let (mut sent, mut received) = (0, Vec::new());
        let mut writing = None;
        // A write waits for the child to read, which waits for us to read:
        // both are under way at one time.
        while received.len() < data.len() {
            if writing.is_none() && sent < data.len() {
                let piece = &data[sent..data.len().min(sent + CHUNK_BYTES)];
                let call = there.write(&mut *ring, piece);
                writing = Some(call.map_err(|error| failed("write", &error))?);
            }
            let reading = back
                .read(&mut *ring, CHUNK_BYTES as u32)
                .map_err(|error| failed("read", &error))?;
            // The wait also ends with the write.
            let read = loop {
                match ring.wait(reading, PATIENCE_NS) {
                    Err(RingClientError::TargetStillPending) => {}
                    other => break other.map_err(ClientError::Ring),
                }
            };
            let read = read
                .and_then(|read| back.finish_read(read))
                .map_err(|error| failed("read", &error))?;
            that(!read.eof && !read.data.is_empty(), "an early end")?;
            received.extend_from_slice(&read.data);
            let Some(call) = writing else { continue };
            let written = ring
                .try_complete(call)
                .map_err(|error| failed("write", &ClientError::Ring(error)))?;
            if let Some(written) = written {
                let count = there
                    .finish_write(written)
                    .map_err(|error| failed("write", &error))?;
                that(count > 0, "a write of nothing")?;
                sent += count as usize;
                writing = None;
            }
        }
        equal("bytes taken", sent, data.len())?;
        that(received == data, "what came back is not what was sent")
    }

    /// Closes the way there: the child ends, and so does the way back.
    fn finish(&self, runtime: &mut Runtime) -> Proof {
        {
            let mut ring = runtime
                .ring_client()
                .map_err(|_| Failure::new("no ring client"))?;
            let mut there = PipeClient::from_capability(self.there.capability());
            let mut back = PipeClient::from_capability(self.back.capability());
            there
                .close_wait(&mut *ring, PATIENCE_NS)
                .map_err(|error| failed("close", &error))?;
            let closed = there
                .is_closed_wait(&mut *ring, PATIENCE_NS)
                .map_err(|error| failed("isClosed", &error))?;
            that(closed, "an end that was closed is not")?;
            let read = back
                .read_wait(&mut *ring, 1, PATIENCE_NS)
                .map_err(|error| failed("the last read", &error))?;
            that(read.eof && read.data.is_empty(), "no end of file")?;
        }
        self.child.succeeds(runtime, "the echo's exit code")
    }
}

/// A child that is ended leaves nobody to read.
fn reader_goes(runtime: &mut Runtime) -> Proof {
    let echo = Echo::start(runtime)?;
    echo.send(runtime, b"once")?;
    echo.child.terminate(runtime)?;
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))?;
    let mut there = PipeClient::from_capability(echo.there.capability());
    let mut back = PipeClient::from_capability(echo.back.capability());
    let count = there
        .write_wait(&mut *ring, b"again", PATIENCE_NS)
        .map_err(|error| failed("a write to nobody", &error))?;
    equal("bytes written to nobody", count, 0)?;
    let read = back
        .read_wait(&mut *ring, 1, PATIENCE_NS)
        .map_err(|error| failed("a read from nobody", &error))?;
    that(read.eof, "no end of file from nobody")
}

fn prove(runtime: &mut Runtime) -> Proof {
    let data: Vec<u8> = (0..BYTES).map(|n| (n * n / 7) as u8).collect();
    let echo = Echo::start(runtime)?;
    echo.send(runtime, &data)?;
    echo.finish(runtime)?;
    reader_goes(runtime)
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "pipe", prove)
}

entry_point!(main);
