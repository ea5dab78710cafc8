//! Last words of a root task that faults.
//!
//! A second thread, in the same address space and with the same capabilities,
//! waits for the initial thread's faults and reports them. It has no IPC
//! buffer, so it sees a fault's first four words only, and makes only
//! invocations that fit in registers, such as writing to I/O ports. It runs
//! while the initial thread is stopped, never beside it.

use core::fmt;
use core::sync::atomic::{AtomicPtr, Ordering};

use sel4::fault::{CapFault, UserException, VmFault};
use sel4::init_thread::slot;
use sel4::{
    BootInfo, Budget, CNodeCapData, Cap, Error, FaultKind, MessageInfo, ObjectBlueprint, Result,
    UserContext, Word, cap, with_ipc_buffer,
};

use crate::entry::{Stack, unmap_guard};
use crate::panic::EmergencyConsole;

/// Empty slots that [`watch_faults`] takes.
pub const WATCH_SLOTS: usize = if sel4::HAS_SCHED_CONTEXTS { 3 } else { 2 };

/// Memory that [`watch_faults`] takes, as a power of two.
pub const WATCH_UNTYPED_BITS: usize = ObjectBlueprint::Tcb.physical_size_bits() + 1;

/// The watching thread's stack in bytes.
const STACK_SIZE: usize = 16 * 1024;
/// The watching thread must run once the initial thread, which starts with the
/// highest priority, is stopped.
const PRIORITY: u8 = u8::MAX;
/// Interrupts enabled, and the bit that is always set.
const RFLAGS: Word = 0x202;

static STACK: Stack<{ Stack::<0>::pages(STACK_SIZE) }> = Stack::new();

type Hook = fn(&CrashReport);

/// The hook as a pointer; null until there is one.
static HOOK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// A fault of the initial thread: its message as far as it fits in registers.
#[derive(Clone, Copy, Debug)]
pub struct CrashReport {
    label: Word,
    words: [Word; 4],
}

impl fmt::Display for CrashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = &self.words;
        match FaultKind::by_label(self.label) {
            Some(FaultKind::VmFault) => {
                let fault = with_ipc_buffer(|buffer| VmFault::read(words, buffer));
                write!(
                    f,
                    "page fault: {:?} at {:#x}, ip {:#x}",
                    fault.access(),
                    fault.addr,
                    fault.ip
                )
            }
            Some(FaultKind::UserException) => write!(
                f,
                "processor exception {}, ip {:#x}",
                words[UserException::NUMBER],
                words[UserException::FAULT_IP]
            ),
            Some(FaultKind::CapFault) => write!(
                f,
                "no capability at {:#x}, ip {:#x}",
                words[CapFault::CPTR],
                words[CapFault::IP]
            ),
            _ => write!(f, "fault {} with {words:x?}", self.label),
        }
    }
}

// What is printed of each fault is in registers.
const _: () = assert!(VmFault::LENGTH <= 4 && UserException::NUMBER < 4 && CapFault::CPTR < 4);

/// Has the initial thread's faults reported by `hook`, or on the emergency
/// console where `hook` is `None`. The hook should end the machine; it runs
/// without an IPC buffer, so it may write to I/O ports and little else.
///
/// Takes the first [`WATCH_SLOTS`] slots of `slots`, which are empty slots of
/// the initial CNode, and `untyped` of at least 2^[`WATCH_UNTYPED_BITS`] bytes.
///
/// # Errors
/// What the kernel says where `untyped` is too small or a slot is taken.
///
/// # Panics
/// Where there are fewer slots.
pub fn watch_faults(
    bootinfo: &BootInfo,
    untyped: cap::Untyped,
    slots: impl IntoIterator<Item = usize>,
    hook: Option<Hook>,
) -> Result<()> {
    let mut slots = slots.into_iter();
    let mut take = |blueprint| -> Result<Word> {
        let index = slots.next().expect("there are WATCH_SLOTS slots");
        let root = slot::CNODE.cap().absolute_cptr_for_self();
        untyped.untyped_retype(&blueprint, &root, index, 1)?;
        Ok(index as Word)
    };
    let tcb: cap::Tcb = Cap::from_bits(take(ObjectBlueprint::Tcb)?);
    let endpoint: cap::Endpoint = Cap::from_bits(take(ObjectBlueprint::Endpoint)?);

    if let Some(hook) = hook {
        HOOK.store(hook as *mut (), Ordering::Release);
    }
    let (cspace, vspace) = (slot::CNODE.cap(), slot::VSPACE.cap());
    tcb.tcb_configure(
        slot::NULL.cptr(),
        cspace,
        CNodeCapData::KEEP,
        vspace,
        0,
        slot::NULL.cap().cast(),
    )?;
    tcb.tcb_set_sched_params(slot::TCB.cap(), PRIORITY, PRIORITY)?;
    if let Some(blueprint) = ObjectBlueprint::thread_time() {
        let context: cap::SchedContext = Cap::from_bits(take(blueprint)?);
        give_time(bootinfo, context, tcb)?;
    }
    unmap_guard(bootinfo, STACK.bounds().guard);
    tcb.tcb_write_all_registers(true, &start(endpoint))?;
    slot::TCB
        .cap()
        .tcb_set_space(endpoint.cptr(), cspace, CNodeCapData::KEEP, vspace)
}

/// Lets the watching thread run; once it does, nobody else has anything to do.
fn give_time(bootinfo: &BootInfo, context: cap::SchedContext, tcb: cap::Tcb) -> Result<()> {
    const SLICE_US: u64 = 10_000;
    let control = bootinfo.sched_control_of(0);
    let control = control.ok_or(Error::InvalidCapability)?;
    control.sched_control_configure(context, Budget::unlimited(SLICE_US), 0)?;
    context.sched_context_bind(tcb)
}

/// The watching thread's first registers.
fn start(endpoint: cap::Endpoint) -> UserContext {
    let mut context = UserContext::default();
    context.rip = watch as extern "C" fn(Word) -> ! as usize as Word;
    // As after a call: the ABI aligns the stack before the return address.
    context.rsp = STACK.bounds().top.addr() as Word - size_of::<Word>() as Word;
    context.rflags = RFLAGS;
    context.rdi = endpoint.bits();
    context
}

/// The watching thread.
extern "C" fn watch(endpoint: Word) -> ! {
    let endpoint: cap::Endpoint = Cap::from_bits(endpoint);
    loop {
        let (info, _, words): (MessageInfo, _, _) = endpoint.wait_with_mrs();
        report(&CrashReport {
            label: info.label(),
            words,
        });
    }
}

fn report(crash: &CrashReport) {
    use core::fmt::Write;

    let hook = HOOK.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: the pointer was made from a `Hook`.
        let hook = unsafe { core::mem::transmute::<*mut (), Hook>(hook) };
        hook(crash);
    } else if let Some(mut console) = EmergencyConsole::registered() {
        // There is nobody left to tell that this failed.
        let _ = writeln!(console, "\nroot-task: {crash}");
    }
}
