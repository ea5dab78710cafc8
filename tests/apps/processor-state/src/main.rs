//! Enters the system with processor flags and instructions no compiler uses.
//!
//! What is tried, a capability's name selects. `flags` comes back from every
//! trap with the flags it had; everything else has to end the program, which
//! otherwise exits with [`UNPUNISHED`].
#![no_std]
#![no_main]

use core::arch::asm;
use core::hint::black_box;

use capos::prelude::*;

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const UNPUNISHED: i64 = 99;
/// A trap number that is refused.
const NO_TRAP: u64 = 77;
const REFUSED: u64 = u64::MAX;

/// Bits of RFLAGS (Intel SDM volume 1, section 3.4.3).
mod flag {
    pub const CARRY: u64 = 1;
    pub const ALWAYS: u64 = 1 << 1;
    pub const TRAP: u64 = 1 << 8;
    pub const INTERRUPTS: u64 = 1 << 9;
    pub const DIRECTION: u64 = 1 << 10;
    pub const NESTED_TASK: u64 = 1 << 14;
    pub const ALIGNMENT_CHECK: u64 = 1 << 18;
    pub const ID: u64 = 1 << 21;
}

const KEPT: [u64; 6] = [
    flag::CARRY,
    flag::DIRECTION,
    flag::NESTED_TASK,
    flag::ALIGNMENT_CHECK,
    flag::ID,
    flag::DIRECTION | flag::NESTED_TASK | flag::ALIGNMENT_CHECK,
];

/// `push rdi; popfq; syscall; ret` as data, where no packer looks. Nothing is
/// between the flags and the system call: a trap flag would strike there.
static RAW_SYSCALL: [u8; 5] = [0x57, 0x9d, 0x0f, 0x05, 0xc3];

/// Traps with `flags` set; returns RAX and the flags after the trap.
fn trap_with(flags: u64) -> (u64, u64) {
    let (mut rax, mut after) = (NO_TRAP, flags);
    // SAFETY: the trap is refused and touches no memory; the flags are as
    // before when the block ends, and the stack is used below the red zone
    // only by pushes that the compiler is told about.
    unsafe {
        asm!("pushfq", "pop {old}", "mov {new}, {old}", "or {new}, {flags}",
             "push {new}", "popfq", "syscall", "pushfq", "pop {flags}",
             "push {old}", "popfq",
             old = out(reg) _, new = out(reg) _, flags = inout(reg) after,
             inout("rax") rax, out("rcx") _, out("r11") _);
    }
    (rax, after)
}

fn flags_survive() -> bool {
    KEPT.into_iter().all(|flags| {
        let (result, after) = trap_with(flags);
        result == REFUSED && after & flags == flags
    })
}

/// Executes `syscall` itself with `flags` set and `number` in RDX.
fn raw_with(flags: u64, number: u64) {
    // SAFETY: there is none: this must end the program.
    unsafe {
        asm!("call {code}", code = in(reg) black_box(RAW_SYSCALL.as_ptr()),
             inout("rdi") flags | flag::ALWAYS | flag::INTERRUPTS => _,
             inout("rax") NO_TRAP => _, inout("rdx") number => _,
             out("rcx") _, out("r11") _);
    }
}

/// Executes one instruction that must end the program.
macro_rules! one {
    ($($code:tt)*) => {
        || {
            // SAFETY: there is none: this must end the program.
            unsafe { asm!($($code)*) }
        }
    };
}

type Crime = (&'static [u8], fn());

const CRIMES: [Crime; 10] = [
    (b"single-step", || {
        trap_with(flag::TRAP);
    }),
    (b"raw-trap-flag", || raw_with(flag::TRAP, 0x1234)),
    (b"raw-nested-task", || raw_with(flag::NESTED_TASK, 0x1234)),
    (b"raw-yield-trap-flag", || {
        raw_with(flag::TRAP, -7_i64 as u64)
    }),
    (b"raw-yield-trap-flag-mcs", || {
        raw_with(flag::TRAP, -11_i64 as u64)
    }),
    (b"halt", one!("hlt")),
    (
        b"port",
        one!("out dx, al", in("dx") 0x501_u16, in("al") 1_u8),
    ),
    (b"other-gate", one!("int 0xa1", inout("rax") 2_u64 => _)),
    (b"sysenter", one!("sysenter", inout("rax") 1_u64 => _)),
    (
        b"far-jump",
        one!("mov rax, 0x8000000000000000", "jmp rax", out("rax") _),
    ),
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
    if is_named(runtime, b"flags") {
        if !flags_survive() {
            return Err(1);
        }
        return say(runtime, "flags ok").map(|()| 0);
    }
    let crime = CRIMES.iter().find(|(name, _)| is_named(runtime, name));
    let (_, commit) = crime.ok_or(5)?;
    say(runtime, "about to")?;
    commit();
    say(runtime, "unpunished")?;
    Ok(UNPUNISHED)
}

fn main(mut runtime: Runtime) -> i64 {
    run(&mut runtime).unwrap_or_else(|code| code)
}

entry_point!(main);
