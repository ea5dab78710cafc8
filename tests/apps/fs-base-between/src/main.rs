//! Thread-local variables beside programs that change the FS base themselves.
//!
//! A program may load the FS selector and, where the processor has the
//! instruction, the FS base without telling anyone. If the kernel then switches
//! to another program in the belief that the base in the register is that
//! program's, its thread-local variables are elsewhere.
//!
//! All children are this program. Victims look at their variables for some
//! seconds; villains change the base and keep the processor until its time is
//! over, or give it up with a bare seL4 call, which nobody stops.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::arch::x86_64::__cpuid_count;
use core::arch::{asm, global_asm};
use core::hint::black_box;

use capos::prelude::*;
use raw_ring::family::{self, Child};
use raw_ring::proof::{self, Failure, Proof, equal, that};

const NAME: &str = "fs-base-between";
const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const INITIAL: u64 = 0x7154_0000_3333_4444;
/// How long a victim looks.
const WATCH_NS: u64 = 3_000_000_000;
/// Looks between two questions for the time. Few: each question sets the base
/// right.
const LOOKS: u32 = 5_000_000;
/// `seL4_Yield` on a kernel without MCS, and with.
const YIELD: u64 = -7_i64 as u64;
const YIELD_MCS: u64 = -11_i64 as u64;
/// Held where the kernel has MCS.
const MCS: &[u8] = b"mcs";

global_asm!(
    ".pushsection .tdata, \"awT\", @progbits",
    ".balign 64",
    ".globl tls_initial",
    ".type tls_initial, @object",
    "tls_initial: .quad {initial}",
    ".popsection",
    initial = const INITIAL,
);

/// `push rbx; mov rbx, rsp; syscall; mov rsp, rbx; pop rbx; ret` as data, where
/// no packer looks.
static RAW_SYSCALL: [u8; 11] = [
    0x53, 0x48, 0x89, 0xe3, 0x0f, 0x05, 0x48, 0x89, 0xdc, 0x5b, 0xc3,
];

/// Where a villain would like the variables of others to be.
static DECOY: [u64; 64] = [0xdec0; 64];

fn initial() -> u64 {
    let value;
    // SAFETY: the FS base is that of a block with this variable in it, or the
    // system is at fault and this program may die of it.
    unsafe { asm!("mov {}, fs:[tls_initial@TPOFF]", out(reg) value, options(nostack)) };
    value
}

fn set_initial(value: u64) {
    // SAFETY: as in `initial`; no reference to the variable exists.
    unsafe { asm!("mov fs:[tls_initial@TPOFF], {}", in(reg) value, options(nostack)) };
}

/// The thread pointer, which is where it points.
fn base() -> u64 {
    let value;
    // SAFETY: a block begins with its own address.
    unsafe { asm!("mov {}, fs:[0]", out(reg) value, options(nostack)) };
    value
}

/// Loads the FS selector with zero, which takes the base along.
fn load_selector() {
    // SAFETY: nothing of a villain looks at thread-local variables.
    unsafe { asm!("mov fs, {:x}", in(reg) 0_u64, options(nomem, nostack)) };
}

/// Whether the processor has WRFSBASE (Intel SDM volume 2, CPUID leaf 7).
fn has_wrfsbase() -> bool {
    __cpuid_count(7, 0).ebx & 1 != 0
}

fn write_base() {
    let decoy = black_box(&raw const DECOY[32]) as u64;
    // SAFETY: as in `load_selector`; if the kernel does not allow it, this
    // villain ends here.
    unsafe { asm!("wrfsbase {}", in(reg) decoy, options(nomem, nostack)) };
}

fn yield_processor(number: u64) {
    // SAFETY: the code keeps the stack, and what a system call changes is named.
    unsafe {
        asm!("call {code}", code = in(reg) black_box(RAW_SYSCALL.as_ptr()),
             inout("rdx") number => _, inout("rdi") 0_u64 => _, inout("rsi") 0_u64 => _,
             out("rax") _, out("rcx") _, out("r8") _, out("r9") _, out("r10") _,
             out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _);
    }
}

const YIELDS: &str = "yields";
const YIELDS_MCS: &str = "yields-mcs";

type Villain = (&'static str, fn());

const VILLAINS: [Villain; 4] = [
    ("selector", load_selector),
    ("base", write_base),
    (YIELDS, || {
        load_selector();
        yield_processor(YIELD);
    }),
    (YIELDS_MCS, || {
        load_selector();
        yield_processor(YIELD_MCS);
    }),
];
const VICTIMS: [&str; 2] = ["victim-1", "victim-2"];

fn now(runtime: &mut Runtime) -> Result<u64, Failure> {
    let timer = runtime.capset().get_client::<TimerClient>(b"timer");
    let mut timer = timer.map_err(|_| Failure::new("no timer"))?;
    let ring = runtime.ring_client();
    let mut ring = ring.map_err(|error| Failure::new(format!("ring client: {error:?}")))?;
    timer
        .now_wait(&mut ring, FOREVER)
        .map(|now| now.monotonic_ns)
        .map_err(|error| Failure::new(format!("Timer.now: {error:?}")))
}

/// Looks at this program's variable and thread pointer for a while.
fn watch(runtime: &mut Runtime) -> Proof {
    equal("the variable at first", initial(), INITIAL)?;
    let own = base();
    let secret = INITIAL ^ runtime.pid();
    set_initial(secret);
    let end = now(runtime)? + WATCH_NS;
    while now(runtime)? < end {
        for _ in 0..LOOKS {
            let (variable, pointer) = (initial(), base());
            if variable != secret || pointer != own {
                let text = format!("variable {variable:#x}, thread pointer {pointer:#x}");
                return Err(Failure::new(text));
            }
        }
    }
    Ok(())
}

fn start(runtime: &mut Runtime, role: &str) -> Result<Child, Failure> {
    let grants = [
        family::fresh(role, capos::KernelCapSource::Timer),
        family::fresh("timer", capos::KernelCapSource::Timer),
        family::same(runtime, "console")?,
    ];
    family::spawn(runtime, NAME, &grants)
}

fn prove(runtime: &mut Runtime) -> Proof {
    let mut villains = Vec::new();
    let is_mcs = runtime.capset().get(MCS).is_ok();
    for (role, _) in VILLAINS {
        let applies = match role {
            "base" => has_wrfsbase(),
            YIELDS => !is_mcs,
            YIELDS_MCS => is_mcs,
            _ => true,
        };
        if applies {
            villains.push(start(runtime, role)?);
        }
    }
    let victims = VICTIMS.map(|role| start(runtime, role));
    let mut outcomes = Vec::new();
    for (role, victim) in VICTIMS.into_iter().zip(victims) {
        outcomes.push(victim?.succeeds(runtime, role));
    }
    for villain in &villains {
        // Without the kernel's consent `wrfsbase` has ended one already.
        let _ = villain.terminate(runtime);
        that(
            villain.wait(runtime)? != 0,
            "a villain that ended by itself",
        )?;
    }
    outcomes.into_iter().collect()
}

fn main(mut runtime: Runtime) -> i64 {
    let is = |role: &str| runtime.capset().get(role.as_bytes()).is_ok();
    if let Some((_, commit)) = VILLAINS.iter().find(|(role, _)| is(role)) {
        loop {
            commit();
        }
    }
    if let Some(role) = VICTIMS.into_iter().find(|role| is(role)) {
        let outcome = watch(&mut runtime);
        return proof::run(&runtime, role, |_| outcome);
    }
    proof::run_parent(runtime, NAME, prove)
}

entry_point!(main);
