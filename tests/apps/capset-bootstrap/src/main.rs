//! The CapSet page says exactly what was granted, in order, to this program and
//! to one it starts; and nobody can write to it: the system refuses to put a
//! result there, the processor refuses the program itself.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capos::prelude::*;
use capos::{
    BootPackage, CapabilityType, Console, Endpoint, KernelCapSource, ParkSpace, ProcessSpawner,
    Timer,
};
use capos_config::capset::{CAPSET_MAGIC, CAPSET_VADDR, CAPSET_VERSION, CapSetEntry, CapSetHeader};
use capos_config::ring::CAP_ERR_INVALID_RESULT_BUFFER;
use raw_ring::proof::{self, Failure, equal, that};
use raw_ring::{Process, Proof, Sqe, call, family};

/// What the scenario grants, in the manifest's order.
const GRANTED: [(&str, u64); 6] = [
    ("console", Console::INTERFACE_ID),
    ("a", Timer::INTERFACE_ID),
    ("b", ParkSpace::INTERFACE_ID),
    ("spawner", ProcessSpawner::INTERFACE_ID),
    ("endpoint", Endpoint::INTERFACE_ID),
    (
        "thirty-two-bytes-are-the-longest",
        BootPackage::INTERFACE_ID,
    ),
];
const PAGE_BYTES: usize = 4096;
const TIMER_NOW: u16 = 0;
const FAULTED: i64 = 139;

/// The page, as bytes.
fn page(process: &Process) -> Result<[u8; PAGE_BYTES], Failure> {
    let base = process.capset().base();
    let base = base.ok_or_else(|| Failure::new("no CapSet page"))?;
    equal("its address", base as usize, CAPSET_VADDR as usize)?;
    // SAFETY: the runtime checked that a CapSet page is mapped there, and
    // nobody writes to it.
    Ok(unsafe { base.cast::<[u8; PAGE_BYTES]>().read() })
}

fn header(page: &[u8; PAGE_BYTES]) -> Proof {
    let word = |at: usize| u64::from_le_bytes(core::array::from_fn(|i| page[at + i]));
    equal("magic", word(0), CAPSET_MAGIC)?;
    equal("version", word(8) as u32, CAPSET_VERSION)?;
    equal("count", (word(8) >> 32) as usize, GRANTED.len())
}

fn entries(process: &Process) -> Proof {
    let capset = process.capset();
    for (index, (name, interface_id)) in GRANTED.into_iter().enumerate() {
        let entry = capset.entry(index);
        let entry = entry.ok_or_else(|| Failure::new("an entry is missing"))?;
        equal("name", entry.name_bytes(), name.as_bytes())?;
        equal(name, entry.interface_id, interface_id)?;
        let found = process.cap(name)?;
        equal("found by name", found, entry.cap_id)?;
        let earlier = (0..index).filter_map(|other| capset.entry(other));
        let mut ids = earlier.map(|other| other.cap_id);
        that(!ids.any(|id| id == entry.cap_id), "a number twice")?;
    }
    that(capset.entry(GRANTED.len()).is_none(), "an entry too many")
}

/// What is behind the entries says nothing of anybody.
fn rest_is_empty(page: &[u8; PAGE_BYTES]) -> Proof {
    let used = size_of::<CapSetHeader>() + GRANTED.len() * size_of::<CapSetEntry>();
    that(page[used..].iter().all(|&byte| byte == 0), "bytes behind")
}

/// The system can write there, and must not.
fn refuses_results(process: &mut Process) -> Proof {
    let before = page(process)?;
    let timer = process.cap("a")?;
    let base = CAPSET_VADDR;
    for (at, len) in [
        (base, 64),
        (base + 4000, 64),
        (base - 32, 64),
        (base + 4095, 1),
    ] {
        let params = proof::no_params();
        let entry = capos::CapSqe {
            result_addr: at,
            result_len: len,
            ..call(timer, TIMER_NOW).params(&params)
        };
        let what = format!("a result at {at:#x}");
        process
            .ring
            .expect(&what, entry, CAP_ERR_INVALID_RESULT_BUFFER)?;
    }
    that(page(process)? == before, "the page changed")
}

fn prove(runtime: &mut Runtime) -> Proof {
    let mut process = Process::new(runtime);
    let bytes = page(&process)?;
    header(&bytes)?;
    entries(&process)?;
    rest_is_empty(&bytes)?;
    refuses_results(&mut process)?;
    drop(process);
    let grants = [family::fresh("timer", KernelCapSource::Timer)];
    let writer = family::spawn(runtime, "capset-writer", &grants)?;
    equal("the writer's end", writer.wait(runtime)?, FAULTED)?;
    that(page(&Process::new(runtime))? == bytes, "the page changed")
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "capset-bootstrap", prove)
}

entry_point!(main);
