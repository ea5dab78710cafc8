//! Takes a bit of everything, in an order that its seed decides, and lets go of
//! little of it: heap pages, calls and receives that wait, capabilities in
//! calls, timers, pipes, threads, mapped memory and memory objects. It ends by
//! exiting, by a fault, or not at all: then its parent ends it wherever it is.
//!
//! Its threads use the one ring as they please, without a lock. Whatever that
//! does to this program is its own business; the system must not notice.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::arch::asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicU32, Ordering};

use capos::CapSqe;
use capos::capos_capnp::{pipe, process_spawner};
use capos::prelude::*;
use capos::syscall::cap_enter;
use capos_config::{VM_PROT_READ, VM_PROT_WRITE};
use raw_ring::chance::Chance;
use raw_ring::memory_entries as memory;
use raw_ring::proof::{Failure, no_params};
use raw_ring::threads::{self, Request, owned};
use raw_ring::timer::sleep_params;
use raw_ring::{
    Loopback, Mailbox, Message, Process, RawRing, Record, Sqe, call, copied, nop, receive, release,
};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const LEFT: i64 = 7;
const GAVE_UP: i64 = 8;
const SLEEP: u16 = 1;
const CREATE_PIPE: u16 = 1;
const PIPE_READ: u16 = 0;
const PIPE_WRITE: u16 = 1;
const PAGE_BYTES: usize = 4096;
const PAGE: u64 = PAGE_BYTES as u64;
const READ_WRITE: u32 = VM_PROT_READ | VM_PROT_WRITE;
const ROOM_BYTES: usize = 512;
/// Steps before it is done at the latest.
const STEPS_MAX: u64 = 60;

/// What is held on to: buffers of operations under way must stay where they
/// are.
#[derive(Default)]
struct Luggage {
    heap: Vec<Vec<u8>>,
    mailboxes: Vec<Mailbox>,
    messages: Vec<Message>,
    params: Vec<Vec<u8>>,
    caps: Vec<u32>,
}

struct Lodger<'a> {
    process: &'a mut Process,
    chance: Chance,
    luggage: Luggage,
    own: Loopback,
    timer: u32,
    spawner: u32,
    threads: u32,
    vm: u32,
    frames: u32,
    /// Params of methods that take none.
    none: Vec<u8>,
}

/// What threads are granted, for them to find.
static CONTROL: AtomicU32 = AtomicU32::new(0);
/// As [`CONTROL`].
static PARK: AtomicU32 = AtomicU32::new(0);
/// A word that threads park on; nobody wakes them.
static WORD: AtomicU32 = AtomicU32::new(0);

/// A thread: parks, exits, spins, waits or faults, as its argument says.
extern "C" fn idle(arg: u64, tid: u32, _pid: u64, ring: u64, _capset: u64) -> ! {
    // SAFETY: the ring page of this process; others use it at the same time,
    // and no memory but the page itself depends on what comes of that.
    let mut ring = unsafe { RawRing::new(ring as *mut u8) };
    match arg % 8 {
        0..=3 => {
            let timeout_ns = if arg.is_multiple_of(2) {
                FOREVER
            } else {
                arg % 1_000_000
            };
            let cap = PARK.load(Ordering::Relaxed);
            ring.submit(&[threads::park(cap, tid, &WORD, 0, timeout_ns)]);
            let _ = cap_enter(1, FOREVER);
        }
        4 | 5 => {
            let control = CONTROL.load(Ordering::Relaxed);
            ring.submit(&[owned(call(control, threads::method::EXIT_THREAD), tid)]);
            let _ = cap_enter(1, FOREVER);
        }
        6 => {
            let _ = cap_enter(32, FOREVER);
        }
        // SAFETY: the address is not mapped, so the read only faults.
        _ if arg.is_multiple_of(5) => unsafe {
            black_box(core::ptr::dangling::<u64>().wrapping_byte_sub(8)).read_volatile();
        },
        _ => {}
    }
    loop {
        core::hint::spin_loop();
    }
}

impl Lodger<'_> {
    /// Submits an operation whatever comes of it; refusals are part of life.
    fn submit(&mut self, entry: CapSqe) -> Result<(), Failure> {
        self.process.ring.start(entry)?;
        self.process.ring.drain();
        Ok(())
    }

    fn touch_heap(&mut self) {
        let pages = 1 + self.chance.below(24) as usize;
        let mut bytes = vec![0; pages * PAGE_BYTES];
        for page in bytes.chunks_mut(PAGE_BYTES) {
            page[0] = 1;
        }
        self.luggage.heap.push(black_box(bytes));
        if self.luggage.heap.len() > 8 {
            self.luggage.heap.clear();
        }
    }

    fn room(&mut self) -> &mut Mailbox {
        self.luggage.mailboxes.push(Mailbox::new(ROOM_BYTES));
        let last = self.luggage.mailboxes.len() - 1;
        &mut self.luggage.mailboxes[last]
    }

    /// A call to itself that nobody may ever take, with its endpoint in it
    /// perhaps.
    fn call(&mut self) -> Result<(), Failure> {
        let params = vec![0x5a; self.chance.below(64) as usize * 4];
        let transfer = [copied(self.own.endpoint)];
        let count = usize::from(self.chance.one_in(2));
        let message = Message::new(&params, &transfer[..count]);
        let own = self.own;
        let entry = own.call(&message, self.room());
        self.luggage.messages.push(message);
        self.submit(entry)
    }

    fn receive(&mut self) -> Result<(), Failure> {
        let endpoint = self.own.endpoint;
        let entry = receive(endpoint, self.room());
        self.submit(entry)
    }

    /// Takes a capability of its own and keeps it.
    fn pass(&mut self) -> Result<(), Failure> {
        let message = Message::new(&[], &[copied(self.own.endpoint)]);
        let records = self.own.pass(self.process, &message);
        let caps = records.unwrap_or_default();
        self.luggage.caps.extend(caps.iter().map(|cap| cap.cap_id));
        Ok(())
    }

    fn let_go(&mut self) -> Result<(), Failure> {
        match self.luggage.caps.pop() {
            Some(cap) => self.submit(release(cap)),
            None => self.submit(nop()),
        }
    }

    fn sleep(&mut self) -> Result<(), Failure> {
        let params = sleep_params(self.chance.below(20_000_000));
        let timer = self.timer;
        let entry = call(timer, SLEEP)
            .params(&params)
            .result(self.room().bytes_mut());
        self.luggage.params.push(params);
        self.submit(entry)
    }

    /// A pipe, perhaps with something in it, perhaps with a read that waits for
    /// more.
    fn pipe(&mut self) -> Result<(), Failure> {
        let bytes = self.chance.below(8192) as u32;
        let mut answer = Mailbox::new(ROOM_BYTES);
        let params = pipe_params(bytes);
        let create = call(self.spawner, CREATE_PIPE)
            .params(&params)
            .result(answer.bytes_mut());
        let made = self.process.ring.perform(create)?;
        let Ok([read, write]) = <[Record; 2]>::try_from(answer.records(&made).unwrap_or_default())
        else {
            return Ok(());
        };
        self.luggage.caps.extend([read.cap_id, write.cap_id]);
        if self.chance.one_in(2) {
            let params = write_params(&vec![7; self.chance.below(4096) as usize]);
            let entry = call(write.cap_id, PIPE_WRITE)
                .params(&params)
                .result(self.room().bytes_mut());
            self.luggage.params.push(params);
            self.submit(entry)?;
        }
        if self.chance.one_in(2) {
            let params = read_params(64);
            let entry = call(read.cap_id, PIPE_READ)
                .params(&params)
                .result(self.room().bytes_mut());
            self.luggage.params.push(params);
            self.submit(entry)?;
        }
        Ok(())
    }

    /// Anonymous memory: mapped and touched, and perhaps taken back in part.
    fn map(&mut self) -> Result<(), Failure> {
        let size = (1 + self.chance.below(40)) * PAGE;
        let mut answer = Mailbox::new(ROOM_BYTES);
        let params = memory::map_params(0, size, READ_WRITE);
        let ring = &mut self.process.ring;
        let made = memory::perform(ring, self.vm, memory::vm::MAP, &params, &mut answer)?;
        let Ok(addr) = memory::mapped_at(&answer, &made) else {
            return Ok(());
        };
        touch(addr, size);
        if self.chance.one_in(2) {
            let part = (1 + self.chance.below(size / PAGE)) * PAGE;
            let params = memory::unmap_params(addr, part);
            memory::perform(ring, self.vm, memory::vm::UNMAP, &params, &mut answer)?;
        }
        Ok(())
    }

    /// A memory object: mapped perhaps, released perhaps, on its way in a call
    /// perhaps.
    fn object(&mut self) -> Result<(), Failure> {
        let pages = 1 + self.chance.below(16);
        let mut answer = Mailbox::new(ROOM_BYTES);
        let count = memory::contiguous_params(pages as u32);
        let method = memory::frames::ALLOC_CONTIGUOUS;
        let ring = &mut self.process.ring;
        let made = memory::perform(ring, self.frames, method, &count, &mut answer)?;
        let Ok(object) = memory::allocated(&answer, &made) else {
            return Ok(());
        };
        if self.chance.one_in(2) {
            let params = memory::object_map_params(pages * PAGE, READ_WRITE);
            let method = memory::object::MAP;
            let mapped = memory::perform(ring, object, method, &params, &mut answer)?;
            if let Ok(addr) = memory::mapped_at(&answer, &mapped) {
                touch(addr, pages * PAGE);
            }
        }
        if self.chance.one_in(4) {
            let message = Message::new(&[], &[copied(object)]);
            let own = self.own;
            let entry = own.call(&message, self.room());
            self.luggage.messages.push(message);
            self.submit(entry)?;
        }
        if self.chance.one_in(3) {
            return self.submit(release(object));
        }
        self.luggage.caps.push(object);
        Ok(())
    }

    /// A thread, of which a handle is kept.
    fn thread(&mut self) -> Result<(), Failure> {
        let params = Request::new(idle, self.chance.number()).params();
        let mut answer = Mailbox::new(ROOM_BYTES);
        let create = call(self.threads, threads::method::CREATE)
            .params(&params)
            .result(answer.bytes_mut());
        let made = self.process.ring.perform(create)?;
        let records = answer.records(&made).unwrap_or_default();
        let handles = records.iter().map(|record| record.cap_id);
        self.luggage.caps.extend(handles.clone());
        for handle in handles {
            if self.chance.one_in(4) {
                let join = call(handle, threads::method::JOIN)
                    .params(&self.none)
                    .result(self.room().bytes_mut());
                self.submit(join)?;
            }
        }
        Ok(())
    }

    fn nap(&mut self) -> Result<(), Failure> {
        let entered = cap_enter(1, self.chance.below(300_000));
        self.process.ring.drain();
        entered.map(drop).map_err(|_| Failure::new("cap_enter"))
    }

    fn step(&mut self) -> Result<(), Failure> {
        match self.chance.below(14) {
            0 | 1 => self.touch_heap(),
            2 => self.call()?,
            3 => self.receive()?,
            4 => self.pass()?,
            5 => self.let_go()?,
            6 => self.sleep()?,
            7 => self.pipe()?,
            8 | 9 => self.thread()?,
            10 => self.map()?,
            11 | 12 => self.object()?,
            _ => self.nap()?,
        }
        Ok(())
    }
}

/// Writes to every page of a range this program has mapped.
fn touch(addr: u64, size: u64) {
    for at in (addr..addr + size).step_by(PAGE_BYTES) {
        // SAFETY: the range was just mapped for reading and writing; its bytes
        // mean nothing to anyone.
        unsafe { (at as *mut u8).write_volatile(1) };
    }
}

fn pipe_params(bytes: u32) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<process_spawner::create_pipe_params::Builder<'_>>()
        .set_buffer_bytes(bytes);
    capnp::serialize::write_message_to_words(&message)
}

fn write_params(data: &[u8]) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<pipe::write_params::Builder<'_>>()
        .set_data(data);
    capnp::serialize::write_message_to_words(&message)
}

fn read_params(max: u32) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    message
        .init_root::<pipe::read_params::Builder<'_>>()
        .set_max_len(max);
    capnp::serialize::write_message_to_words(&message)
}

/// How it ends, unless its parent was faster.
fn end(chance: &mut Chance) -> i64 {
    match chance.below(6) {
        0 => LEFT,
        // SAFETY: the address is not mapped, so the read only faults.
        1 => unsafe { *black_box(core::ptr::dangling::<i64>().wrapping_byte_sub(8)) },
        // SAFETY: the instruction is invalid and has no effect but a fault.
        2 => unsafe { asm!("ud2", options(noreturn)) },
        3 => loop {
            core::hint::spin_loop();
        },
        _ => loop {
            // Nothing is left to wait for.
            let _ = cap_enter(32, FOREVER);
        },
    }
}

fn live(process: &mut Process, chance: Chance) -> Result<Chance, Failure> {
    CONTROL.store(process.cap(threads::CONTROL)?, Ordering::Relaxed);
    PARK.store(process.cap(threads::PARK)?, Ordering::Relaxed);
    let mut lodger = Lodger {
        own: Loopback::new(process, "endpoint")?,
        timer: process.cap("timer")?,
        spawner: process.cap("spawner")?,
        threads: process.cap(threads::SPAWNER)?,
        vm: process.cap("vm")?,
        frames: process.cap("frames")?,
        none: no_params(),
        process,
        chance,
        luggage: Luggage::default(),
    };
    for _ in 0..lodger.chance.below(STEPS_MAX) {
        lodger.step()?;
    }
    let Lodger {
        chance, luggage, ..
    } = lodger;
    core::mem::forget(luggage);
    Ok(chance)
}

fn main(runtime: Runtime) -> i64 {
    let mut process = Process::new(&runtime);
    let Some(seed) = process.told("seed") else {
        return 1;
    };
    match live(&mut process, Chance::new(seed)) {
        Ok(mut chance) => end(&mut chance),
        Err(_) => GAVE_UP,
    }
}

entry_point!(main);
