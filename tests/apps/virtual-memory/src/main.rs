//! Maps, protects, reserves, commits and takes back anonymous memory through
//! the published client, with and without its heap, and commits every error.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::ExceptionType;
use capos::prelude::*;
use capos::{ClientError, RuntimeRingClient, VirtualMemoryCallScratch};
use capos_config::capset::CAPSET_VADDR;
use capos_config::process_layout::{USER_IMAGE_BASE, USER_STACK_BASE};
use capos_config::ring::RING_VADDR;
use capos_config::{VM_PROT_EXEC, VM_PROT_READ, VM_PROT_WRITE};
use raw_ring::objects::{PAGE, load, store};
use raw_ring::proof::{self, Failure, Proof, equal};

const FOREVER: u64 = u64::MAX;
const RW: u32 = VM_PROT_READ | VM_PROT_WRITE;
/// Pages that may be committed, and that may be reserved.
const COMMIT_PAGES: u64 = 16_384;
const RESERVE_PAGES: u64 = 262_144;
const MIB: u64 = 1 << 20;

struct Memory<'a> {
    client: VirtualMemoryClient,
    ring: RuntimeRingClient<'a>,
}

type Answer<T> = Result<T, ClientError>;

impl Memory<'_> {
    fn map(&mut self, hint: u64, size: u64, prot: u32) -> Answer<u64> {
        self.client
            .map_wait(&mut self.ring, hint, size, prot, FOREVER)
    }

    fn unmap(&mut self, addr: u64, size: u64) -> Answer<()> {
        self.client.unmap_wait(&mut self.ring, addr, size, FOREVER)
    }

    fn protect(&mut self, addr: u64, size: u64, prot: u32) -> Answer<()> {
        self.client
            .protect_wait(&mut self.ring, addr, size, prot, FOREVER)
    }

    fn reserve(&mut self, hint: u64, size: u64) -> Answer<u64> {
        self.client
            .reserve_wait(&mut self.ring, hint, size, FOREVER)
    }

    fn commit(&mut self, addr: u64, size: u64, prot: u32) -> Answer<()> {
        self.client
            .commit_wait(&mut self.ring, addr, size, prot, FOREVER)
    }

    fn decommit(&mut self, addr: u64, size: u64) -> Answer<()> {
        self.client
            .decommit_wait(&mut self.ring, addr, size, FOREVER)
    }
}

fn done<T>(what: &str, answer: Answer<T>) -> Result<T, Failure> {
    answer.map_err(|error| Failure::new(format!("{what}: {error:?}")))
}

fn refused<T>(what: &str, answer: Answer<T>, kind: ExceptionType) -> Proof {
    match answer {
        Err(ClientError::Application(exception)) => equal(what, exception.exception_type(), kind),
        Err(error) => Err(Failure::new(format!("{what}: {error:?}"))),
        Ok(_) => Err(Failure::new(format!("{what}: not refused"))),
    }
}

fn read(addr: u64) -> u8 {
    // SAFETY: callers name memory they just mapped readable.
    unsafe { load(addr) }
}

fn write(addr: u64, value: u8) {
    // SAFETY: callers name memory they just mapped writable.
    unsafe { store(addr, value) }
}

fn maps_and_protects(memory: &mut Memory<'_>) -> Proof {
    let at = done("map", memory.map(0, 3 * PAGE, RW))?;
    for page in 0..3 {
        equal("fresh memory", read(at + page * PAGE), 0)?;
        write(at + page * PAGE, page as u8 + 1);
    }
    done("protect", memory.protect(at + PAGE, PAGE, VM_PROT_READ))?;
    equal("read-only memory", read(at + PAGE), 2)?;
    done("no access", memory.protect(at, 3 * PAGE, 0))?;
    done("access again", memory.protect(at, 3 * PAGE, RW))?;
    let kept = [read(at), read(at + PAGE), read(at + 2 * PAGE)];
    equal("what was kept without access", kept, [1, 2, 3])?;
    done("unmap the middle", memory.unmap(at + PAGE, PAGE))?;
    let again = done("map at a hint", memory.map(at + PAGE, PAGE, RW))?;
    equal("the hint", again, at + PAGE)?;
    equal("what was lost", read(at + PAGE), 0)?;
    done("unmap", memory.unmap(at, 3 * PAGE))
}

fn reserves_and_commits(memory: &mut Memory<'_>) -> Proof {
    let at = done("reserve", memory.reserve(0, 512 * MIB))?;
    let far = at + 300 * MIB;
    for addr in [at, far] {
        done("commit", memory.commit(addr, 2 * PAGE, RW))?;
        write(addr + PAGE, 9);
        done("decommit", memory.decommit(addr, 2 * PAGE))?;
        done("commit again", memory.commit(addr, 2 * PAGE, RW))?;
        equal("decommitted memory", read(addr + PAGE), 0)?;
    }
    let invalid = ExceptionType::InvalidArgument;
    refused("commit twice", memory.commit(at, PAGE, RW), invalid)?;
    let uncommitted = memory.protect(at + MIB, PAGE, RW);
    refused("protect without memory", uncommitted, invalid)?;
    done("unmap", memory.unmap(at, 512 * MIB))
}

fn errors(memory: &mut Memory<'_>) -> Proof {
    let invalid = ExceptionType::InvalidArgument;
    let at = done("map", memory.map(0, PAGE, RW))?;
    for prot in [VM_PROT_WRITE | VM_PROT_EXEC, 7, 8] {
        refused("map W+X", memory.map(0, PAGE, prot), invalid)?;
        refused("protect W+X", memory.protect(at, PAGE, prot), invalid)?;
    }
    let user_end = 0x7fff_ffff_f000;
    for (addr, size) in [
        (at + 1, PAGE),
        (at + MIB, 0),
        (at + MIB, 1),
        (u64::MAX - PAGE + 1, 2 * PAGE),
        (user_end, PAGE),
        (at, PAGE),
    ] {
        refused("map there", memory.map(addr, size, RW), invalid)?;
        refused("reserve there", memory.reserve(addr, size), invalid)?;
    }
    for addr in [RING_VADDR, CAPSET_VADDR, USER_IMAGE_BASE, USER_STACK_BASE] {
        refused("map over it", memory.map(addr, PAGE, RW), invalid)?;
        refused("reserve over it", memory.reserve(addr, PAGE), invalid)?;
        refused("unmap it", memory.unmap(addr, PAGE), invalid)?;
        refused("protect it", memory.protect(addr, PAGE, 0), invalid)?;
        refused("commit it", memory.commit(addr, PAGE, RW), invalid)?;
        refused("decommit it", memory.decommit(addr, PAGE), invalid)?;
    }
    for addr in [0, at + PAGE, user_end] {
        refused("unmap nothing", memory.unmap(addr, PAGE), invalid)?;
    }
    done("unmap", memory.unmap(at, PAGE))
}

fn quotas(memory: &mut Memory<'_>) -> Proof {
    let overloaded = ExceptionType::Overloaded;
    for _ in 0..2 {
        let all = done("all memory", memory.map(0, COMMIT_PAGES * PAGE, RW))?;
        write(all + COMMIT_PAGES * PAGE - 1, 1);
        refused("a page more", memory.map(0, PAGE, RW), overloaded)?;
        let most = (RESERVE_PAGES - COMMIT_PAGES) * PAGE;
        let space = done("all space", memory.reserve(0, most))?;
        refused("space more", memory.reserve(0, PAGE), overloaded)?;
        refused("commit more", memory.commit(space, PAGE, RW), overloaded)?;
        done("unmap memory", memory.unmap(all, COMMIT_PAGES * PAGE))?;
        done("unmap space", memory.unmap(space, most))?;
    }
    Ok(())
}

/// As an allocator does that cannot allocate while it asks for memory.
fn without_a_heap(memory: &mut Memory<'_>) -> Proof {
    let (mut message, mut params, mut result) = ([0; 256], [0; 256], [0; 256]);
    let mut scratch = VirtualMemoryCallScratch::new(&mut message, &mut params, &mut result);
    let (client, ring) = (&mut memory.client, &mut memory.ring);
    let mapped = client.map_with_scratch_wait(ring, &mut scratch, 0, PAGE, RW);
    let at = done("map", mapped)?;
    write(at, 5);
    let protected = client.protect_with_scratch_wait(ring, &mut scratch, at, PAGE, VM_PROT_READ);
    done("protect", protected)?;
    equal("read-only memory", read(at), 5)?;
    done(
        "unmap",
        client.unmap_with_scratch_wait(ring, &mut scratch, at, PAGE),
    )
}

fn prove(runtime: &mut Runtime) -> Proof {
    let client = runtime.capset().get_client(b"vm");
    let client = client.map_err(|_| Failure::new("no capability `vm`"))?;
    let ring = runtime.ring_client();
    let ring = ring.map_err(|_| Failure::new("no ring client"))?;
    let mut memory = Memory { client, ring };
    maps_and_protects(&mut memory).map_err(|f| f.within("map and protect"))?;
    reserves_and_commits(&mut memory).map_err(|f| f.within("reserve and commit"))?;
    errors(&mut memory).map_err(|f| f.within("errors"))?;
    quotas(&mut memory).map_err(|f| f.within("quotas"))?;
    without_a_heap(&mut memory).map_err(|f| f.within("without a heap"))
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "virtual-memory", prove)
}

entry_point!(main);
