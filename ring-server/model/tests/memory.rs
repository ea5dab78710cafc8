//! Memory: the map against a slow model, every refusal, quotas and promises,
//! objects that are shared and freed once, words that are parked on.

use std::collections::BTreeMap;

use capnp::message::Builder;
use capnp::serialize::write_message_to_words;
use capos_config::capos_capnp::{frame_allocator, memory_object, virtual_memory};
use capos_config::ring::*;
use capos_config::{
    KernelCapSource, MEMORY_OBJECT_INTERFACE_ID, SHARED_PARK_SPACE_INTERFACE_ID, VM_PROT_EXEC,
    VM_PROT_READ, VM_PROT_WRITE,
};
use ring_server_core::{
    Access, Backed, COMMIT_PAGES_MAX, CapId, Denied, Entry, Grant, LEAF_TABLES_MAX, Limits,
    MemoryCapacity, OBJECT_PAGES_MAX, PageFault, Passing, RESERVED_PAGES_MAX, Tid, WAIT_FOREVER,
};
use ring_server_model::{Client, System, call, cap_records, sqe};

const PAGE: u64 = 4096;
const RW: u32 = VM_PROT_READ | VM_PROT_WRITE;
const PARAMS: u64 = Client::DATA;
const RESULT: u64 = Client::DATA + 0x8000;
/// An arena of pages the tests map in.
const ARENA: u64 = 0x2000_0000;

/// Methods of `VirtualMemory`.
mod vm {
    pub const MAP: u16 = 0;
    pub const UNMAP: u16 = 1;
    pub const PROTECT: u16 = 2;
    pub const RESERVE: u16 = 3;
    pub const COMMIT: u16 = 4;
    pub const DECOMMIT: u16 = 5;
}

/// Methods of `MemoryObject`.
mod object {
    pub const INFO: u16 = 0;
    pub const MAP: u16 = 1;
    pub const UNMAP: u16 = 2;
    pub const PROTECT: u16 = 3;
}

fn vm_params(method: u16, addr: u64, size: u64, prot: u32) -> Vec<u8> {
    let mut message = Builder::new_default();
    match method {
        vm::MAP => {
            let mut root: virtual_memory::map_params::Builder<'_> = message.init_root();
            root.set_hint(addr);
            root.set_size(size);
            root.set_prot(prot);
        }
        vm::RESERVE => {
            let mut root: virtual_memory::reserve_params::Builder<'_> = message.init_root();
            root.set_hint(addr);
            root.set_size(size);
        }
        // The others share a shape: address, size, protection.
        _ => {
            let mut root: virtual_memory::commit_params::Builder<'_> = message.init_root();
            root.set_addr(addr);
            root.set_size(size);
            root.set_prot(prot);
        }
    }
    write_message_to_words(&message)
}

fn object_params(method: u16, addr: u64, offset: u64, size: u64, prot: u32) -> Vec<u8> {
    if method != object::MAP {
        return vm_params(vm::COMMIT, addr, size, prot);
    }
    let mut message = Builder::new_default();
    let mut root: memory_object::map_params::Builder<'_> = message.init_root();
    root.set_hint(addr);
    root.set_offset(offset);
    root.set_size(size);
    root.set_prot(prot);
    write_message_to_words(&message)
}

fn request(system: &mut System, client: &mut Client, entry: CapSqe, params: &[u8]) -> CapCqe {
    system.poke(client, PARAMS, params);
    let entry = CapSqe {
        addr: PARAMS,
        len: params.len() as u32,
        result_addr: RESULT,
        result_len: 256,
        ..entry
    };
    system.run(client, &entry).expect("completes at once")
}

/// What a call came to: the first result word, or the kind of exception.
fn outcome(system: &System, client: &Client, cqe: &CapCqe) -> Result<u64, u16> {
    let word = |at: u64| {
        let bytes = system.peek(client, RESULT + at, 8);
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    };
    match cqe.result {
        0 => Ok(0),
        bytes if bytes > 0 => Ok(word(16)),
        CAP_ERR_APPLICATION_EXCEPTION => Err(word(16) as u16),
        code => panic!("transport error {code}"),
    }
}

const FAILED: u16 = 0;
const OVERLOADED: u16 = 1;
const INVALID: u16 = 4;

struct Rig {
    system: System,
    client: Client,
}

impl Rig {
    fn new() -> Self {
        Self::limited(Limits::CEILING)
    }

    fn limited(limits: Limits) -> Self {
        let mut system = System::new();
        let client = system.spawn_limited(&GRANTS, limits);
        Self { system, client }
    }

    fn vm(&mut self, method: u16, addr: u64, size: u64, prot: u32) -> Result<u64, u16> {
        vm_call(
            &mut self.system,
            &mut self.client,
            method,
            (addr, size),
            prot,
        )
    }

    fn touch(&mut self, addr: u64, value: Option<u8>) -> Result<u8, PageFault> {
        touch(&mut self.system, &self.client, addr, value)
    }

    fn alloc(&mut self, pages: u32) -> Result<u32, u16> {
        alloc(&mut self.system, &mut self.client, pages)
    }

    fn object(&mut self, cap: u32, method: u16, at: (u64, u64), size: u64) -> Result<u64, u16> {
        object_call(
            &mut self.system,
            &mut self.client,
            cap,
            method,
            at,
            size,
            RW,
        )
    }

    fn release(&mut self, cap: u32) {
        let entry = System::release_sqe(cap, 1);
        assert_eq!(self.system.result(&mut self.client, &entry), 0);
    }
}

const GRANTS: [Grant<'static>; 4] = [
    Grant::kernel("vm", KernelCapSource::VirtualMemory),
    Grant::kernel("frames", KernelCapSource::FrameAllocator),
    Grant::kernel("park", KernelCapSource::ParkSpace),
    Grant::kernel("own", KernelCapSource::Endpoint),
];

fn vm_call(
    system: &mut System,
    client: &mut Client,
    method: u16,
    (addr, size): (u64, u64),
    prot: u32,
) -> Result<u64, u16> {
    let entry = call(1, client.cap("vm"), method);
    let cqe = request(system, client, entry, &vm_params(method, addr, size, prot));
    outcome(system, client, &cqe)
}

fn object_call(
    system: &mut System,
    client: &mut Client,
    cap: u32,
    method: u16,
    (addr, offset): (u64, u64),
    size: u64,
    prot: u32,
) -> Result<u64, u16> {
    let params = object_params(method, addr, offset, size, prot);
    let cqe = request(system, client, call(1, cap, method), &params);
    outcome(system, client, &cqe)
}

fn alloc(system: &mut System, client: &mut Client, pages: u32) -> Result<u32, u16> {
    let mut message = Builder::new_default();
    let mut root: frame_allocator::alloc_contiguous_params::Builder<'_> = message.init_root();
    root.set_count(pages);
    let entry = call(1, client.cap("frames"), u16::from(pages != 1));
    let cqe = request(system, client, entry, &write_message_to_words(&message));
    assert_eq!(outcome(system, client, &cqe)?, 0, "index of the capability");
    assert_eq!(cqe.cap_count, 1);
    let bytes = system.peek(client, RESULT + cqe.result as u64, 16);
    let (cap, interface) = cap_records(&bytes)[0];
    assert_eq!(interface, MEMORY_OBJECT_INTERFACE_ID);
    Ok(cap)
}

/// A load or store by the program, faulting like a processor.
fn touch(
    system: &mut System,
    client: &Client,
    addr: u64,
    value: Option<u8>,
) -> Result<u8, PageFault> {
    let access = value.map_or(Access::Read, |_| Access::Write);
    let memory = |system: &mut System| {
        let memory = system.machine.memory.get_mut(&client.pid);
        memory.expect("the process lives").access(addr, value)
    };
    if let Some(byte) = memory(system) {
        return Ok(byte);
    }
    let backed = system
        .server
        .page_fault(&mut system.machine, client.pid, addr, access)?;
    assert_eq!(backed, Backed::Now, "the page was not there");
    Ok(memory(system).expect("the page is there now"))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Reserved,
    Committed { prot: u32, byte: u8 },
}

/// The slow model: one entry for each page.
#[derive(Default)]
struct Slow(BTreeMap<u64, State>);

impl Slow {
    fn pages(addr: u64, size: u64) -> impl Iterator<Item = u64> + Clone {
        (addr..addr + size).step_by(PAGE as usize)
    }

    fn apply(&mut self, method: u16, addr: u64, size: u64, prot: u32) -> bool {
        let pages = Self::pages(addr, size);
        let sound = (addr | size).is_multiple_of(PAGE) && size > 0;
        let writes_code = prot & VM_PROT_WRITE != 0 && prot & VM_PROT_EXEC != 0;
        let takes_prot = matches!(method, vm::MAP | vm::PROTECT | vm::COMMIT);
        if !sound || takes_prot && (writes_code || prot > 7) {
            return false;
        }
        let states = pages.clone().map(|page| self.0.get(&page).copied());
        let allowed = match method {
            vm::MAP | vm::RESERVE => states.clone().all(|state| state.is_none()),
            vm::COMMIT => states.clone().all(|state| state == Some(State::Reserved)),
            vm::PROTECT => states
                .clone()
                .all(|state| matches!(state, Some(State::Committed { .. }))),
            _ => states.clone().all(|state| state.is_some()),
        };
        if allowed {
            pages.for_each(|page| self.change(page, method, prot));
        }
        allowed
    }

    fn change(&mut self, page: u64, method: u16, prot: u32) {
        let fresh = State::Committed { prot, byte: 0 };
        let state = match (method, self.0.get(&page)) {
            (vm::MAP | vm::COMMIT, _) => Some(fresh),
            (vm::RESERVE | vm::DECOMMIT, _) => Some(State::Reserved),
            (vm::PROTECT, Some(&State::Committed { byte, .. })) => {
                Some(State::Committed { prot, byte })
            }
            _ => None,
        };
        match state {
            Some(state) => self.0.insert(page, state),
            None => self.0.remove(&page),
        };
    }

    fn touch(&mut self, addr: u64, value: Option<u8>) -> Result<u8, ()> {
        match self.0.get_mut(&(addr & !(PAGE - 1))) {
            Some(State::Committed { prot, byte }) => match value {
                Some(value) if *prot & VM_PROT_WRITE != 0 => {
                    *byte = value;
                    Ok(value)
                }
                None if *prot != 0 => Ok(*byte),
                _ => Err(()),
            },
            _ => Err(()),
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn anonymous_memory_agrees_with_a_page_by_page_model() {
    for seed in 1..9 {
        println!("seed {seed}");
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let (mut rig, mut slow) = (Rig::new(), Slow::default());
        for step in 0..3_000 {
            // Around a border of page tables.
            let addr = ARENA - 24 * PAGE + random.below(48) * PAGE;
            if random.below(2) == 0 {
                let value = [None, Some(step as u8)][random.below(2) as usize];
                let touched = rig.touch(addr + 5, value).map_err(|_| ());
                let expected = slow.touch(addr, value);
                assert_eq!(touched, expected, "step {step}: {addr:#x} {value:?}");
                continue;
            }
            let addr = addr + [0, 0, 0, 0, 8][random.below(5) as usize];
            let size = random.below(9) * PAGE + [0, 0, 0, 0, 1][random.below(5) as usize];
            let (method, prot) = (random.below(6) as u16, random.below(9) as u32);
            let done = rig.vm(method, addr, size, prot);
            let expected = slow.apply(method, addr, size, prot);
            assert_eq!(
                done.is_ok(),
                expected,
                "step {step}: {method} {addr:#x} {size:#x} {prot}"
            );
            assert!(done.is_ok() || done == Err(INVALID), "{done:?}");
        }
        let footprint = rig.system.server.footprint(rig.client.pid).unwrap();
        let initial = System::new_process_pages();
        assert_eq!(footprint.reserved - initial, slow.0.len() as u64);
        assert_eq!(
            rig.system.machine.faults, 0,
            "M4: only allowed ranges are touched"
        );
        let Rig { mut system, client } = rig;
        system
            .server
            .exit(&mut system.machine, client.pid, Tid::MAIN, 0);
        assert_eq!(system.server.memory_use(), Default::default());
    }
}

#[test]
fn ranges_that_are_not_the_callers_are_refused() {
    let mut rig = Rig::new();
    let user_end = 0x7fff_ffff_f000;
    rig.vm(vm::MAP, ARENA, 4 * PAGE, RW).unwrap();
    for (addr, size) in [
        (ARENA + 1, PAGE),
        (ARENA + 0x10_0000, 1),
        (ARENA + 0x10_0000, 0),
        (u64::MAX - PAGE + 1, PAGE),
        (u64::MAX - PAGE + 1, 2 * PAGE),
        (user_end, PAGE),
        (user_end - PAGE, 2 * PAGE),
        (0xffff_8000_0000_0000, PAGE),
        (ARENA + PAGE, PAGE),
        (ARENA - PAGE, 2 * PAGE),
        (ARENA + 3 * PAGE, 2 * PAGE),
    ] {
        for method in [vm::MAP, vm::RESERVE] {
            let refused = rig.vm(method, addr, size, RW);
            assert_eq!(refused, Err(INVALID), "{method} {addr:#x} {size:#x}");
        }
    }
    for method in [vm::UNMAP, vm::PROTECT, vm::COMMIT, vm::DECOMMIT] {
        for (addr, size) in [
            (0, PAGE),
            (ARENA, 0),
            (ARENA + 8, PAGE),
            (ARENA, 8),
            (ARENA - PAGE, 2 * PAGE),
            (ARENA + 3 * PAGE, 2 * PAGE),
            (u64::MAX - PAGE + 1, 2 * PAGE),
            (user_end, PAGE),
        ] {
            let refused = rig.vm(method, addr, size, VM_PROT_READ);
            assert_eq!(refused, Err(INVALID), "{method} {addr:#x} {size:#x}");
        }
    }
    for prot in [VM_PROT_WRITE | VM_PROT_EXEC, 7, 8, u32::MAX] {
        for method in [vm::MAP, vm::PROTECT, vm::COMMIT] {
            assert_eq!(rig.vm(method, ARENA, PAGE, prot), Err(INVALID), "{prot}");
        }
    }
    assert_eq!(rig.vm(vm::COMMIT, ARENA, PAGE, RW), Err(INVALID), "twice");
    assert_eq!(rig.vm(6, ARENA, PAGE, RW), Err(3), "no such method");
    assert_ne!(FAILED, INVALID);
}

#[test]
fn what_the_system_mapped_stays() {
    use ring_server_core::{Backing, Protection, Region, RegionKind};
    let mut rig = Rig::new();
    let kinds = [
        RegionKind::Image,
        RegionKind::Stack,
        RegionKind::Tls,
        RegionKind::Ring,
        RegionKind::CapSet,
    ];
    for (index, kind) in kinds.into_iter().enumerate() {
        let start = ARENA + index as u64 * 2 * PAGE;
        let region = Region {
            start,
            end: start + PAGE,
            protection: Protection::READ_WRITE,
            backing: Backing::Eager,
            kind,
        };
        let inserted = rig
            .system
            .server
            .change_address_space(rig.client.pid, |space| space.insert(region));
        assert_eq!(inserted, Some(Ok(())));
        for method in 0..6 {
            let refused = rig.vm(method, start, PAGE, VM_PROT_READ);
            assert_eq!(refused, Err(INVALID), "{method} on {kind:?}");
        }
    }
}

#[test]
fn quotas_are_the_callers_own_and_given_back() {
    let limits = Limits {
        commit_pages: 100,
        ..Limits::CEILING
    };
    let initial = System::new_process_pages();
    let mut rig = Rig::limited(limits);
    let free = 100 - initial.min(100);
    // The model's own memory is anonymous and counts.
    assert_eq!(rig.vm(vm::MAP, 0, (free + 1) * PAGE, RW), Err(OVERLOADED));
    let mut rig = Rig::new();
    let free = u64::from(COMMIT_PAGES_MAX) - initial;
    let at = rig.vm(vm::MAP, 0, free * PAGE, RW).unwrap();
    assert_eq!(rig.vm(vm::MAP, 0, PAGE, RW), Err(OVERLOADED));
    rig.vm(vm::DECOMMIT, at, PAGE, 0).unwrap();
    assert_eq!(rig.vm(vm::MAP, 0, 2 * PAGE, RW), Err(OVERLOADED));
    rig.vm(vm::MAP, 0, PAGE, RW).unwrap();
    assert_eq!(rig.vm(vm::COMMIT, at, PAGE, RW), Err(OVERLOADED));
    rig.vm(vm::UNMAP, at, free * PAGE, 0).unwrap();
    let most = RESERVED_PAGES_MAX - initial - 1;
    let reserved = rig.vm(vm::RESERVE, 0, most * PAGE, 0).unwrap();
    assert_eq!(rig.vm(vm::RESERVE, 0, PAGE, 0), Err(OVERLOADED));
    rig.vm(vm::UNMAP, reserved, PAGE, 0).unwrap();
    rig.vm(vm::RESERVE, 0, PAGE, 0).unwrap();
}

#[test]
fn page_tables_are_bounded_and_released() {
    let mut rig = Rig::new();
    let table = 1_u64 << 21;
    let at = |index: u64| 0x40_0000_0000 + index * table;
    let (before, _) = rig.system.machine.memory[&rig.client.pid].size();
    let mut made = 0;
    while rig.vm(vm::MAP, at(made), PAGE, RW).is_ok() {
        made += 1;
    }
    assert_eq!(made + before as u64, LEAF_TABLES_MAX);
    assert_eq!(rig.vm(vm::MAP, at(made), PAGE, RW), Err(OVERLOADED));
    rig.vm(vm::MAP, at(0) + PAGE, PAGE, RW)
        .expect("no table more");
    rig.vm(vm::UNMAP, at(1), PAGE, 0).unwrap();
    rig.vm(vm::UNMAP, at(0), PAGE, 0).unwrap();
    rig.vm(vm::MAP, at(made), PAGE, RW).expect("one went");
    rig.touch(at(0) + PAGE, Some(7)).expect("its table stayed");
}

#[test]
fn promises_never_exceed_what_there_is() {
    let mut rig = Rig::new();
    let used = rig.system.server.memory_use();
    let capacity = MemoryCapacity {
        pages: used.pages + 20,
        tables: u64::MAX,
    };
    rig.system.server.set_memory_capacity(capacity);
    // 17 pages and three tables.
    let at = 1 << 39;
    assert_eq!(rig.vm(vm::MAP, at, 18 * PAGE, RW), Err(OVERLOADED));
    rig.vm(vm::RESERVE, at, 1000 * PAGE, 0)
        .expect("address space is no memory");
    rig.vm(vm::COMMIT, at, 17 * PAGE, RW).unwrap();
    assert_eq!(
        rig.vm(vm::COMMIT, at + 17 * PAGE, PAGE, RW),
        Err(OVERLOADED)
    );
    assert_eq!(rig.alloc(1), Err(OVERLOADED));
    rig.vm(vm::DECOMMIT, at, PAGE, 0).unwrap();
    let cap = rig.alloc(1).unwrap();
    assert_eq!(rig.object(cap, object::MAP, (0, 0), PAGE), Err(OVERLOADED));
    let refused = rig.system.try_spawn(&[], Limits::CEILING, None);
    assert!(
        refused.is_err(),
        "no process starts on memory that is not there"
    );
    rig.release(cap);
    rig.vm(vm::COMMIT, at, PAGE, RW).expect("given back");
    rig.system.machine.no_tables = true;
    rig.vm(vm::UNMAP, at, 1000 * PAGE, 0).unwrap();
    assert_eq!(rig.vm(vm::MAP, at, PAGE, RW), Err(OVERLOADED));
    assert_eq!(rig.system.server.memory_use(), used, "undone");
}

#[test]
fn memory_without_access_keeps_its_content() {
    let mut rig = Rig::new();
    let at = rig.vm(vm::MAP, 0, 2 * PAGE, RW).unwrap();
    rig.touch(at, Some(42)).unwrap();
    rig.vm(vm::PROTECT, at, 2 * PAGE, 0).unwrap();
    let denied = PageFault::Denied(Denied::NotReadable);
    assert_eq!(rig.touch(at, None), Err(denied));
    let entry = CapSqe {
        result_addr: at,
        result_len: 64,
        ..call(1, rig.client.cap("vm"), 9)
    };
    let result = rig.system.result(&mut rig.client, &entry);
    assert_eq!(result, CAP_ERR_INVALID_RESULT_BUFFER, "no buffer either");
    rig.vm(vm::PROTECT, at, PAGE, VM_PROT_READ).unwrap();
    assert_eq!(rig.touch(at, None), Ok(42), "kept");
    assert_eq!(
        rig.touch(at, Some(1)),
        Err(PageFault::Denied(Denied::NotWritable))
    );
    rig.vm(vm::DECOMMIT, at, PAGE, 0).unwrap();
    rig.vm(vm::COMMIT, at, PAGE, RW).unwrap();
    assert_eq!(rig.touch(at, None), Ok(0), "lost");
}

/// Moves or copies `cap` from one client to the next over an endpoint call.
fn pass(system: &mut System, from: &mut Client, to: &mut Client, cap: u32, mode: u16) -> i32 {
    let recv = System::recv_sqe(to.cap("own"), 5);
    to.submit(&recv);
    system.enter(to, 0, 0);
    system.put_descriptors(from, 0, &[(cap, mode)]);
    let entry = CapSqe {
        addr: Client::DATA,
        xfer_cap_count: 1,
        ..call(6, from.cap("peer"), 0)
    };
    from.submit(&entry);
    system.enter(from, 0, 0);
    let Some(cqe) = to.completion() else {
        let refused = from.completion().expect("delivered or refused");
        return refused.result;
    };
    let message = system.message(to, &recv, &cqe);
    let ret = System::return_sqe(to.cap("own"), 7, message.call_id, 0);
    assert_eq!(system.result(to, &ret), 0);
    from.completions();
    message.caps[0].0 as i32
}

fn pair(system: &mut System, limits: Limits) -> (Client, Client) {
    let to = system.spawn_limited(&GRANTS, limits);
    let facet = Grant::client("peer", to.pid, to.cap_id("own"));
    let grants: Vec<_> = GRANTS.iter().copied().chain([facet]).collect();
    (system.spawn(&grants), to)
}

#[test]
fn a_shared_object_is_one_memory_and_freed_once() {
    let mut system = System::new();
    let (mut a, mut b) = pair(&mut system, Limits::CEILING);
    for mode in [CAP_TRANSFER_MODE_COPY, CAP_TRANSFER_MODE_MOVE] {
        for place in 0..2 {
            let cap = alloc(&mut system, &mut a, 4).unwrap();
            let size = 2 * PAGE;
            let map = object::MAP;
            let at_a = object_call(&mut system, &mut a, cap, map, (0, PAGE), size, RW).unwrap();
            let theirs = pass(&mut system, &mut a, &mut b, cap, mode) as u32;
            let hint = ARENA + 0x77_000 + (place + 2 * u64::from(mode)) * 16 * PAGE;
            let at_b =
                object_call(&mut system, &mut b, theirs, map, (hint, 0), 4 * PAGE, RW).unwrap();
            assert_eq!(at_b, hint);
            touch(&mut system, &a, at_a + 9, Some(99)).unwrap();
            assert_eq!(touch(&mut system, &b, at_b + PAGE + 9, None), Ok(99));
            let live = system.machine.objects.live();
            if mode == CAP_TRANSFER_MODE_COPY {
                system.result(&mut a, &System::release_sqe(cap, 1));
            }
            system.result(&mut b, &System::release_sqe(theirs, 1));
            assert_eq!(touch(&mut system, &b, at_b, Some(1)), Ok(1), "still mapped");
            assert_eq!(system.machine.objects.live(), live, "still mapped");
        }
    }
    assert_eq!(system.machine.objects.live(), 4);
    system.kill(a);
    assert_eq!(system.machine.objects.live(), 4, "the other maps them");
    system.kill(b);
    assert_eq!(system.machine.objects.counts, (4, 4), "each freed once");
    assert_eq!(system.server.memory_use(), Default::default());
}

#[test]
fn an_object_goes_with_its_last_hold_and_its_last_mapping() {
    let mut rig = Rig::new();
    let (first, second) = (rig.alloc(3).unwrap(), rig.alloc(1).unwrap());
    assert_eq!(
        rig.object(first, object::INFO, (0, 0), PAGE)
            .map(|w| w as u32),
        Ok(3)
    );
    let at = rig.object(first, object::MAP, (0, 0), 3 * PAGE).unwrap();
    rig.release(second);
    assert_eq!(rig.system.machine.objects.counts, (2, 1), "held by nobody");
    for (addr, size) in [(at + 8, PAGE), (at, 4 * PAGE), (at - PAGE, PAGE), (at, 0)] {
        for method in [object::UNMAP, object::PROTECT] {
            let refused = rig.object(first, method, (addr, 0), size);
            assert_eq!(refused, Err(INVALID), "{method} {addr:#x} {size:#x}");
        }
    }
    for (hint, offset, size) in [
        (0, 0, 4 * PAGE),
        (0, PAGE, 3 * PAGE),
        (0, 8, PAGE),
        (0, 0, 0),
        (0, 0, 8),
        (at, 0, PAGE),
        (0, u64::MAX - PAGE + 1, 2 * PAGE),
        (ARENA + 1, 0, PAGE),
    ] {
        let refused = rig.object(first, object::MAP, (hint, offset), size);
        assert_eq!(refused, Err(INVALID), "{hint:#x} {offset:#x} {size:#x}");
    }
    for method in [vm::UNMAP, vm::PROTECT, vm::DECOMMIT, vm::COMMIT] {
        assert_eq!(rig.vm(method, at, PAGE, 1), Err(INVALID), "not anonymous");
    }
    let other = rig.alloc(1).unwrap();
    assert_eq!(
        rig.object(other, object::UNMAP, (at, 0), PAGE),
        Err(INVALID)
    );
    let anonymous = rig.vm(vm::MAP, 0, PAGE, RW).unwrap();
    let refused = rig.object(first, object::UNMAP, (anonymous, 0), PAGE);
    assert_eq!(refused, Err(INVALID), "another object's, or nobody's");
    rig.object(first, object::UNMAP, (at + PAGE, 0), PAGE)
        .expect("the middle");
    rig.touch(at + 2 * PAGE, Some(3)).unwrap();
    rig.object(first, object::UNMAP, (at, 0), PAGE).unwrap();
    rig.object(first, object::UNMAP, (at + 2 * PAGE, 0), PAGE)
        .unwrap();
    let again = rig.object(first, object::MAP, (0, 2 * PAGE), PAGE).unwrap();
    assert_eq!(rig.touch(again, None), Ok(3), "an object keeps its content");
    rig.release(first);
    assert_eq!(rig.system.machine.objects.counts, (3, 1), "mapped still");
}

#[test]
fn holds_and_mappings_are_charged_to_whoever_has_them() {
    let limits = Limits {
        frame_grant_pages: 10,
        ..Limits::CEILING
    };
    let mut rig = Rig::limited(limits);
    assert_eq!(rig.alloc(0), Err(INVALID));
    assert_eq!(rig.alloc(11), Err(OVERLOADED));
    let six = rig.alloc(6).unwrap();
    assert_eq!(rig.alloc(5), Err(OVERLOADED));
    let map = object::MAP;
    assert_eq!(rig.object(six, map, (0, 0), 5 * PAGE), Err(OVERLOADED));
    let at = rig.object(six, map, (0, 0), 4 * PAGE).unwrap();
    assert_eq!(rig.alloc(1), Err(OVERLOADED));
    rig.object(six, object::UNMAP, (at, 0), 2 * PAGE).unwrap();
    let two = rig.alloc(2).unwrap();
    rig.release(two);
    rig.alloc(2).expect("given back");
    let Rig { mut system, client } = rig;
    system.kill(client);
    assert_eq!(system.server.memory_use(), Default::default());
    let (mut a, mut b) = pair(&mut system, limits);
    let cap = alloc(&mut system, &mut a, 11).unwrap();
    let refused = pass(&mut system, &mut a, &mut b, cap, CAP_TRANSFER_MODE_COPY);
    assert!(
        refused < 0,
        "the receiver pays for what it holds: {refused}"
    );
    let cap = alloc(&mut system, &mut a, 10).unwrap();
    pass(&mut system, &mut a, &mut b, cap, CAP_TRANSFER_MODE_COPY);
    assert_eq!(alloc(&mut system, &mut b, 1), Err(OVERLOADED));
    let mut rig = Rig::new();
    assert_eq!(
        rig.alloc(OBJECT_PAGES_MAX + 1),
        Err(OVERLOADED),
        "no such run"
    );
    rig.system.machine.objects.room = Some(3);
    assert_eq!(rig.alloc(4), Err(OVERLOADED), "the machine has no more");
    rig.alloc(3).unwrap();
}

fn park(cap: u32, data: u64, addr: u64, expected: u32, timeout: u64) -> CapSqe {
    CapSqe {
        cap_id: cap,
        addr,
        len: expected,
        pipeline_dep: timeout,
        flags: CAP_SQE_THREAD_OWNED,
        call_id: Tid::MAIN.raw(),
        ..sqe(CAP_OP_PARK, data)
    }
}

fn unpark(cap: u32, addr: u64, most: u32) -> CapSqe {
    CapSqe {
        cap_id: cap,
        addr,
        len: most,
        ..sqe(CAP_OP_UNPARK, 77)
    }
}

#[test]
fn a_thread_parked_on_memory_that_goes_is_interrupted() {
    for method in [vm::UNMAP, vm::DECOMMIT] {
        let mut rig = Rig::new();
        let at = rig.vm(vm::MAP, 0, 2 * PAGE, RW).unwrap();
        let second = rig.system.server.create_thread(rig.client.pid).unwrap();
        let entry = CapSqe {
            call_id: second.raw(),
            ..park(rig.client.cap("park"), 31, at + PAGE + 4, 0, WAIT_FOREVER)
        };
        rig.client.submit(&entry);
        let entered = rig.system.enter_as(&rig.client, second, 0, 0);
        assert_eq!(entered, Entry::Block);
        rig.vm(vm::PROTECT, at, 2 * PAGE, 0).expect("stays parked");
        assert!(rig.client.completion().is_none());
        rig.vm(method, at, PAGE, 0).expect("another page");
        rig.system
            .poke(&rig.client, PARAMS, &vm_params(method, at + PAGE, PAGE, 0));
        rig.client.submit(&CapSqe {
            addr: PARAMS,
            len: 48,
            ..call(32, rig.client.cap("vm"), method)
        });
        rig.system.enter(&rig.client, 0, 0);
        let done = rig.client.completions();
        let results: Vec<_> = done.iter().map(|cqe| (cqe.user_data, cqe.result)).collect();
        assert_eq!(
            results,
            [(31, PARK_INTERRUPTED), (32, 0)],
            "exactly one each"
        );
        assert_eq!(rig.system.machine.resumed.len(), 1);
    }
}

#[test]
fn parking_on_an_object_meets_across_processes() {
    let mut system = System::new();
    let (mut a, mut b) = pair(&mut system, Limits::CEILING);
    let cap = alloc(&mut system, &mut a, 2).unwrap();
    let map = object::MAP;
    let at_a = object_call(&mut system, &mut a, cap, map, (0, 0), 2 * PAGE, RW).unwrap();
    let theirs = pass(&mut system, &mut a, &mut b, cap, CAP_TRANSFER_MODE_COPY) as u32;
    let hint = ARENA + 0x55_000;
    let at_b = object_call(&mut system, &mut b, theirs, map, (hint, PAGE), PAGE, RW).unwrap();
    // The narrower authority, as a spawn grant makes it.
    let grants = [
        Grant::held(
            "word",
            a.pid,
            CapId::from_raw(cap),
            Passing::SharedParkSpace,
        ),
        Grant::held("memory", a.pid, CapId::from_raw(cap), Passing::Raw),
    ];
    let mut c = system.spawn(&grants);
    assert_eq!(c.interface("word"), SHARED_PARK_SPACE_INTERFACE_ID);
    let memory = c.cap("memory");
    let at_c = object_call(&mut system, &mut c, memory, map, (0, PAGE), PAGE, RW).unwrap();
    let word = 0x40;
    for (client, cap, at) in [(&mut b, theirs, at_b), (&mut c, 0, at_c)] {
        let wrong = park(cap, 1, at + word, 5, WAIT_FOREVER);
        assert_eq!(system.result(client, &wrong), PARK_VALUE_MISMATCH);
        let nowhere = park(cap, 1, Client::DATA, 0, WAIT_FOREVER);
        assert_eq!(
            system.result(client, &nowhere),
            CAP_ERR_INVALID_PARAMS_BUFFER
        );
        client.submit(&park(cap, 2, at + word, 0, WAIT_FOREVER));
        assert_eq!(system.enter(client, 0, 0), Entry::Block);
    }
    let woken = system.result(&mut a, &unpark(cap, at_a + word, 9));
    assert_eq!(woken, 0, "another page of the object");
    let own = a.cap("park");
    let woken = system.result(&mut a, &unpark(own, at_a + PAGE + word, 9));
    assert_eq!(woken, 0, "private and shared words differ");
    assert_eq!(
        system.result(&mut a, &unpark(cap, at_a + PAGE + word, 1)),
        1
    );
    assert_eq!(
        b.completion().map(|cqe| cqe.result),
        Some(PARK_WOKEN),
        "first come"
    );
    assert!(c.completion().is_none());
    assert_eq!(
        system.result(&mut a, &unpark(cap, at_a + PAGE + word, 9)),
        1
    );
    assert_eq!(c.completion().map(|cqe| cqe.result), Some(PARK_WOKEN));
    // A timeout, and a process that goes while it is parked.
    b.submit(&park(theirs, 3, at_b + word, 0, 1_000));
    assert_eq!(system.enter(&b, 0, 0), Entry::Block);
    system.pass(1_000);
    assert_eq!(b.completion().map(|cqe| cqe.result), Some(PARK_TIMED_OUT));
    b.submit(&park(theirs, 4, at_b + word, 0, WAIT_FOREVER));
    assert_eq!(system.enter(&b, 0, 0), Entry::Block);
    system.kill(b);
    assert_eq!(
        system.result(&mut a, &unpark(cap, at_a + PAGE + word, 9)),
        0
    );
    // The park space outlives the memory and means nothing then.
    let memory = c.cap("memory");
    object_call(
        &mut system,
        &mut c,
        memory,
        object::UNMAP,
        (at_c, 0),
        PAGE,
        0,
    )
    .unwrap();
    system.result(&mut c, &System::release_sqe(memory, 1));
    system.kill(a);
    assert_eq!(system.machine.objects.counts, (1, 1));
    assert_eq!(system.server.memory_use().objects, 1, "the record stays");
    let gone = park(c.cap("word"), 5, at_c, 0, WAIT_FOREVER);
    assert_eq!(system.result(&mut c, &gone), CAP_ERR_INVALID_PARAMS_BUFFER);
    system.kill(c);
    assert_eq!(system.server.memory_use(), Default::default());
}
