//! Thread-local variables: a program starts with the block its file describes,
//! another program with its own, and a thread with the block it was given.
//!
//! The compiler of this program has no thread-local variables to offer, so two
//! are laid out by hand, the way it would.
#![no_std]
#![no_main]

extern crate alloc;

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicPtr, Ordering};

use capos::prelude::*;
use raw_ring::family;
use raw_ring::proof::{self, Failure, Process, Proof, equal, that};
use raw_ring::threads::{CONTROL, PARK, Request, SPAWNER, Team, method};

const NAME: &str = "tls-smoke";
/// The child is told by a capability of this name.
const CHILD: &str = "child";
const INITIAL: u64 = 0x7154_0000_1111_2222;
const CHILDS: u64 = 0xc41d;

global_asm!(
    ".pushsection .tdata, \"awT\", @progbits",
    ".balign 64",
    ".globl tls_initial",
    ".type tls_initial, @object",
    "tls_initial: .quad {initial}",
    ".popsection",
    ".pushsection .tbss, \"awT\", @nobits",
    ".balign 8",
    ".globl tls_zero",
    ".type tls_zero, @object",
    "tls_zero: .zero 8",
    ".popsection",
    initial = const INITIAL,
);

fn initial() -> u64 {
    let value;
    // SAFETY: the FS base is that of a block with this variable in it.
    unsafe { asm!("mov {}, fs:[tls_initial@TPOFF]", out(reg) value, options(nostack)) };
    value
}

fn set_initial(value: u64) {
    // SAFETY: as in `initial`; the block is this thread's alone.
    unsafe { asm!("mov fs:[tls_initial@TPOFF], {}", in(reg) value, options(nostack)) };
}

fn zero() -> u64 {
    let value;
    // SAFETY: as in `initial`.
    unsafe { asm!("mov {}, fs:[tls_zero@TPOFF]", out(reg) value, options(nostack)) };
    value
}

fn set_zero(value: u64) {
    // SAFETY: as in `set_initial`.
    unsafe { asm!("mov fs:[tls_zero@TPOFF], {}", in(reg) value, options(nostack)) };
}

/// The thread pointer, which is where it points.
fn base() -> u64 {
    let value;
    // SAFETY: a block begins with its own address.
    unsafe { asm!("mov {}, fs:[0]", out(reg) value, options(nostack)) };
    value
}

static TEAM: AtomicPtr<Team> = AtomicPtr::new(core::ptr::null_mut());

fn team() -> &'static Team {
    // SAFETY: set once, before any other thread exists, to a value that stays.
    unsafe { &*TEAM.load(Ordering::Acquire) }
}

/// Bytes below the thread pointer that a block has, and words of it.
const BLOCK_BYTES: usize = 64;
const BLOCK_WORDS: usize = BLOCK_BYTES / size_of::<u64>();

/// A copy of this thread's block, as it is now.
fn copy_of_block() -> u64 {
    let block = alloc::vec![0_u128; BLOCK_BYTES / size_of::<u128>() + 1].leak();
    let block = block.as_mut_ptr().cast::<u64>();
    // SAFETY: the TLS region is larger than a block, and mapped; the copy has
    // one word more than the block, for the thread pointer.
    unsafe {
        let pointer = block.add(BLOCK_WORDS);
        let from = (base() as *const u64).sub(BLOCK_WORDS);
        block.copy_from_nonoverlapping(from, BLOCK_WORDS);
        pointer.write(pointer as u64);
        pointer as u64
    }
}

extern "C" fn second(own: u64, tid: u32, _: u64, _: u64, _: u64) -> ! {
    let mut wrong = 0;
    wrong |= i64::from(base() != own);
    wrong |= i64::from(initial() != INITIAL) << 1;
    wrong |= i64::from(zero() != 0) << 2;
    set_initial(own);
    set_zero(tid.into());
    wrong |= i64::from(initial() != own) << 3;
    wrong |= i64::from(zero() != u64::from(tid)) << 4;
    team().exit_thread(tid, wrong)
}

fn child() -> Proof {
    equal("the child's variable", initial(), INITIAL)?;
    equal("its other", zero(), 0)?;
    set_initial(CHILDS);
    set_zero(CHILDS);
    equal("the child's variable then", initial(), CHILDS)
}

fn threads(process: &mut Process) -> Proof {
    let team = Team::new(process)?;
    TEAM.store((&raw const *team).cast_mut(), Ordering::Release);
    equal("the variable", initial(), INITIAL)?;
    equal("the other", zero(), 0)?;
    let own = copy_of_block();
    set_initial(1);
    set_zero(2);
    let request = Request {
        fs_base: own,
        ..Request::new(second, own)
    };
    let handle = team.create(&request)?;
    equal("what the thread found wrong", team.join(handle)?, 0)?;
    equal("the first thread's variable", initial(), 1)?;
    equal("the first thread's other", zero(), 2)?;
    that(base() != own, "the first thread's block")?;
    bases(team)
}

/// The base is changed and changed back; another program's is refused.
fn bases(team: &Team) -> Proof {
    let first = base();
    for (chosen, accepted) in [
        (copy_of_block(), true),
        (first, true),
        (first + 0x1000, false),
    ] {
        let mut message = capnp::message::Builder::new_default();
        message
            .init_root::<capos_config::capos_capnp::thread_control::set_fs_base_params::Builder<'_>>()
            .set_fs_base(chosen);
        let params = capnp::serialize::write_message_to_words(&message);
        let (cqe, _) = team.call(team.control, method::SET_FS_BASE, &params)?;
        equal("setFsBase", cqe.result == 0, accepted)?;
        equal(
            "the base then",
            base(),
            if accepted { chosen } else { first },
        )?;
    }
    Ok(())
}

fn parent(runtime: &mut Runtime) -> Proof {
    equal("the variable at first", initial(), INITIAL)?;
    let told = family::fresh(CHILD, capos::KernelCapSource::Console);
    let console = family::fresh("console", capos::KernelCapSource::Console);
    let child = family::spawn(runtime, NAME, &[told, console])?;
    child.succeeds(runtime, "the child")?;
    equal("the variable after the child's", initial(), INITIAL)
}

fn main(mut runtime: Runtime) -> i64 {
    if runtime.capset().get(CHILD.as_bytes()).is_ok() {
        return proof::run(&runtime, "tls-smoke child", |_| child());
    }
    let outcome = parent(&mut runtime);
    proof::run(&runtime, NAME, |process| {
        outcome?;
        for name in [CONTROL, SPAWNER, PARK] {
            process
                .cap(name)
                .map_err(|failure: Failure| failure.within("grants"))?;
        }
        threads(process)
    })
}

entry_point!(main);
