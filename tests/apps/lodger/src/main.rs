//! Takes a bit of everything, in an order that its seed decides, and lets go of
//! little of it: heap pages, calls and receives that wait, capabilities in
//! calls, timers. It ends by exiting, by a fault, or not at all: then its
//! parent ends it wherever it is.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::arch::asm;
use core::hint::black_box;

use capos::CapSqe;
use capos::prelude::*;
use capos::syscall::cap_enter;
use raw_ring::chance::Chance;
use raw_ring::proof::Failure;
use raw_ring::timer::sleep_params;
use raw_ring::{Loopback, Mailbox, Message, Process, Sqe, call, copied, nop, receive, release};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const LEFT: i64 = 7;
const SLEEP: u16 = 1;
const PAGE_BYTES: usize = 4096;
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

    fn nap(&mut self) -> Result<(), Failure> {
        let entered = cap_enter(1, self.chance.below(300_000));
        self.process.ring.drain();
        entered.map(drop).map_err(|_| Failure::new("cap_enter"))
    }

    fn step(&mut self) -> Result<(), Failure> {
        match self.chance.below(8) {
            0 | 1 => self.touch_heap(),
            2 => self.call()?,
            3 => self.receive()?,
            4 => self.pass()?,
            5 => self.let_go()?,
            6 => self.sleep()?,
            _ => self.nap()?,
        }
        Ok(())
    }
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
    let mut lodger = Lodger {
        own: Loopback::new(process, "endpoint")?,
        timer: process.cap("timer")?,
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
        Err(_) => 2,
    }
}

entry_point!(main);
