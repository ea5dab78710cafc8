//! Says to seL4 what a capOS program never says: kernel calls on the one
//! capability in its CSpace, the endpoint its own faults go to.
//!
//! Which crime is committed, a capability's name selects. `harmless` makes every
//! call that has to come back, then checks that the system still serves; each
//! other crime has to end the program, which otherwise exits with
//! [`UNPUNISHED`].
//!
//! `sibling` and `sibling-cap-fault` need two threads: the CSpace holds the
//! endpoint of each, and either can speak in the other's name.
#![no_std]
#![no_main]

use core::arch::asm;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use capos::prelude::*;
use raw_ring::proof::{self, Process, Proof, equal, that};
use raw_ring::threads::{MAIN, Team};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const UNPUNISHED: i64 = 99;

/// Numbers of the kernel's calls (RDX), as seL4 without MCS has them.
mod number {
    pub const CALL: i64 = -1;
    pub const REPLY_RECV: i64 = -2;
    pub const SEND: i64 = -3;
    pub const NB_SEND: i64 = -4;
    pub const RECV: i64 = -5;
    pub const REPLY: i64 = -6;
    pub const YIELD: i64 = -7;
    pub const NB_RECV: i64 = -8;
}

/// Labels of fault messages.
mod label {
    pub const NULL: u64 = 0;
    pub const CAP_FAULT: u64 = 1;
    pub const UNKNOWN_SYSCALL: u64 = 2;
    pub const VM_FAULT: u64 = 5;
    pub const NO_FAULT: u64 = 0xf_ffff;
}

/// The endpoint for faults: the guard of the CSpace, then its first slot of
/// sixteen. A hostile author reads this in the source of the root task.
const FAULT_ENDPOINT: u64 = 0x2_9a5b << 4;
/// The slot beside it, which is a second thread's and empty without one.
const EMPTY_SLOT: u64 = FAULT_ENDPOINT | 1;
/// What a program without that source would try.
const GUESSES: u64 = 64;

const PAGE: usize = 4096;
const PAGES: usize = 48;
/// Page fault error code: a write by user code to a page that is not there.
const USER_WRITE: u64 = 6;

/// Zeroed memory nobody has touched: its pages are not there yet.
static mut UNTOUCHED: [u8; PAGE * PAGES] = [0; PAGE * PAGES];

/// A kernel call as data, where no packer looks:
/// `mov r12, rsp; syscall; mov rsp, r12; ret`. The kernel loses RSP.
static KERNEL_CALL: [u8; 9] = [0x49, 0x89, 0xe4, 0x0f, 0x05, 0x4c, 0x89, 0xe4, 0xc3];

const fn info(label: u64, length: u64) -> u64 {
    label << 12 | length
}

/// Makes kernel call `number` and returns what RSI holds afterwards.
fn kernel_call(number: i64, cptr: u64, info: u64, words: [u64; 4]) -> u64 {
    let mut info = info;
    // SAFETY: the code saves what the kernel destroys and returns; every
    // register a kernel call may change is an output. The calls made here
    // touch no memory of this program but what the root task backs.
    unsafe {
        asm!("call {code}", code = in(reg) KERNEL_CALL.as_ptr(),
             inout("rdx") number => _, inout("rdi") cptr => _, inout("rsi") info,
             inout("r10") words[0] => _, inout("r8") words[1] => _,
             inout("r9") words[2] => _, inout("r15") words[3] => _,
             out("rax") _, out("rcx") _, out("r11") _, out("r12") _,
             out("r13") _, out("r14") _);
    }
    info
}

fn send(number: i64, label: u64, words: [u64; 4]) -> u64 {
    kernel_call(number, FAULT_ENDPOINT, info(label, 4), words)
}

/// A page fault that did not happen, at `address`.
fn page_fault(number: i64, address: u64) -> u64 {
    let somewhere = KERNEL_CALL.as_ptr() as u64;
    send(number, label::VM_FAULT, [somewhere, address, 0, USER_WRITE])
}

fn page(index: usize) -> *mut u8 {
    // SAFETY: callers pass indices below `PAGES`.
    unsafe { ptr::addr_of_mut!(UNTOUCHED).cast::<u8>().add(index * PAGE) }
}

/// Calls that change nothing, and forged faults the root task cannot tell from
/// real ones: it backs a page the program may have anyway.
fn harmless() -> bool {
    for cptr in (0..GUESSES).chain([EMPTY_SLOT, u64::MAX]) {
        kernel_call(number::NB_SEND, cptr, info(label::VM_FAULT, 4), [0; 4]);
    }
    kernel_call(number::CALL, EMPTY_SLOT, info(label::VM_FAULT, 4), [0; 4]);
    for _ in 0..100 {
        kernel_call(number::REPLY, 0, info(label::NULL, 4), [0; 4]);
        kernel_call(number::YIELD, 0, 0, [0; 4]);
    }
    let ways = [number::CALL, number::SEND, number::NB_SEND];
    // The first and the last page may be shared with other variables.
    for index in 1..PAGES - 1 {
        page_fault(ways[index % ways.len()], page(index) as u64 + 8);
    }
    (1..PAGES - 1).all(|index| {
        // SAFETY: the page is this program's.
        unsafe {
            let zero = page(index).read_volatile() == 0;
            page(index).write_volatile(index as u8);
            let kept = page(index).read_volatile() == index as u8;
            // As if another thread had been faster: that is no crime.
            page_fault(number::CALL, page(index) as u64);
            zero && kept && page(index).read_volatile() == index as u8
        }
    })
}

static TEAM: AtomicPtr<Team> = AtomicPtr::new(ptr::null_mut());
static WORD: AtomicU32 = AtomicU32::new(0);

extern "C" fn parks(_: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    // SAFETY: set before this thread was made, to a value that stays.
    let team = unsafe { &*TEAM.load(Ordering::Acquire) };
    let status = team.park(tid, &WORD, 0, FOREVER);
    team.exit_thread(tid, status.map_or(-1, i64::from))
}

/// A message in a sibling's name, on the endpoint of the second thread.
fn as_sibling(number: i64, label: u64, words: [u64; 4]) {
    kernel_call(number, FAULT_ENDPOINT | 1, info(label, 4), words);
}

/// Page faults in the name of a thread that waits, and of one that has ended:
/// they back what any thread may touch, and the sibling waits on.
fn sibling(process: &mut Process) -> Proof {
    let team = Team::new(process)?;
    TEAM.store(ptr::from_ref(team).cast_mut(), Ordering::Release);
    let handle = team.start(parks, 0)?;
    team.park(MAIN, &WORD, 0, 1_000_000)?;
    let ways = [number::CALL, number::SEND, number::NB_SEND];
    let forge = |index: usize| {
        let words = [0, page(index) as u64, 0, USER_WRITE];
        as_sibling(ways[index % ways.len()], label::VM_FAULT, words);
    };
    (1..PAGES / 2).for_each(forge);
    equal("its code so far", team.exit_code(handle)?, None)?;
    equal("wake", team.unpark(&WORD, 1)?, 1)?;
    equal("the sibling was woken", team.join(handle)?, 0)?;
    (PAGES / 2..PAGES - 1).for_each(forge);
    for index in 1..PAGES - 1 {
        // SAFETY: the page is this program's.
        unsafe {
            that(page(index).read_volatile() == 0, "a page of zeroes")?;
            page(index).write_volatile(index as u8);
        }
    }
    let again = team.start(parks, 0)?;
    WORD.store(1, Ordering::Release);
    team.unpark(&WORD, 1)?;
    that(team.join(again)? >= 0, "another in the same place")
}

/// A capability fault in the name of a thread that waits.
fn sibling_cap_fault(process: &mut Process) -> Proof {
    let team = Team::new(process)?;
    TEAM.store(ptr::from_ref(team).cast_mut(), Ordering::Release);
    team.start(parks, 0)?;
    team.park(MAIN, &WORD, 0, 1_000_000)?;
    as_sibling(number::SEND, label::CAP_FAULT, [1, 2, 0, u64::MAX]);
    that(false, "unpunished")
}

type Crime = (&'static [u8], fn());

const CRIMES: [Crime; 12] = [
    (b"receive", || {
        kernel_call(number::RECV, FAULT_ENDPOINT, 0, [0; 4]);
    }),
    (b"poll", || {
        kernel_call(number::NB_RECV, FAULT_ENDPOINT, 0, [0; 4]);
    }),
    (b"reply-receive", || {
        kernel_call(number::REPLY_RECV, FAULT_ENDPOINT, 0, [0; 4]);
    }),
    (b"stray-call", || {
        kernel_call(number::CALL, 1, info(1, 4), [0; 4]);
    }),
    (b"trap", || {
        // RAX = 1 would be `exit`, with whatever code follows.
        send(number::CALL, label::UNKNOWN_SYSCALL, [1, 0, 0, 0]);
    }),
    (b"null-fault", || {
        send(number::SEND, label::NULL, [0; 4]);
    }),
    (b"unknown-label", || {
        send(number::NB_SEND, label::NO_FAULT, [0; 4]);
    }),
    (b"capabilities", || {
        // Three capabilities and 120 words, from a thread without a buffer.
        let claim = info(label::VM_FAULT, 127) | 3 << 7;
        kernel_call(number::CALL, FAULT_ENDPOINT, claim, [0; 4]);
    }),
    (b"cap-fault", || {
        send(number::SEND, label::CAP_FAULT, [1, 2, 0, u64::MAX]);
    }),
    (b"foreign-page", || {
        page_fault(number::SEND, 0xffff_8000_0000_0000);
    }),
    (b"backed-page", || {
        // SAFETY: the page is this program's.
        unsafe { page(1).write_volatile(1) };
        // A thread that lost a race for the page would fault like this once;
        // nothing faults like this for ever.
        for _ in 0..1000 {
            page_fault(number::CALL, page(1) as u64);
        }
    }),
    (b"read-only-page", || {
        page_fault(number::CALL, KERNEL_CALL.as_ptr() as u64);
    }),
];

fn say(runtime: &mut Runtime, text: &str) -> Result<(), i64> {
    let mut console: ConsoleClient = runtime.capset().get_client(b"console").map_err(|_| 2)?;
    let mut ring = runtime.ring_client().map_err(|_| 3)?;
    console
        .write_line_wait(&mut ring, text, FOREVER)
        .map_err(|_| 4)
}

fn run(runtime: &mut Runtime) -> Result<i64, i64> {
    let is_named = |runtime: &Runtime, name: &[u8]| {
        let client = runtime.capset().get_client::<ConsoleClient>(name);
        client.is_ok()
    };
    if is_named(runtime, b"harmless") {
        if !harmless() {
            return Err(1);
        }
        return say(runtime, "still served").map(|()| 0);
    }
    let crime = CRIMES.iter().find(|(name, _)| is_named(runtime, name));
    let (_, commit) = crime.ok_or(5)?;
    say(runtime, "about to")?;
    commit();
    say(runtime, "unpunished")?;
    Ok(UNPUNISHED)
}

fn main(mut runtime: Runtime) -> i64 {
    let is_named = |name: &[u8]| runtime.capset().get(name).is_ok();
    if is_named(b"sibling") {
        return proof::run(&runtime, "forge", sibling);
    }
    if is_named(b"sibling-cap-fault") {
        return proof::run(&runtime, "forge", sibling_cap_fault);
    }
    run(&mut runtime).unwrap_or_else(|code| code)
}

entry_point!(main);
