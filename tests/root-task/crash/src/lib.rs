//! What the crashing root tasks share: reporting, and an end that leaves no
//! doubt how they ended.
//!
//! Each must print one line that begins `root-task: ` and says what happened,
//! then `verdict: killed crash`. A root task that outlives its crime prints
//! `verdict: exit 0`.
#![no_std]

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use core::sync::atomic::{AtomicU64, Ordering};

use sel4::init_thread::{slot, suspend_self};
use sel4::{BootInfoPtr, CPtr, Cap, IoPortAuthority};
use sel4_root_task::{
    CrashReport, EmergencyConsole, WATCH_SLOTS, WATCH_UNTYPED_BITS, set_panic_hook, watch_faults,
};

/// QEMU's `isa-debug-exit` device.
const EXIT_PORT: u16 = 0x501;
const EXIT_VALUE: u16 = 1;

/// Slots of the ports that the last words need.
static CONSOLE: AtomicU64 = AtomicU64::new(0);
static EXIT: AtomicU64 = AtomicU64::new(0);

/// Has panics and faults reported.
///
/// # Panics
/// Where the kernel hands out no memory.
pub fn prepare(bootinfo: &BootInfoPtr) {
    set_panic_hook(on_panic);
    let (untyped, _) = bootinfo
        .untypeds()
        .find(|(_, desc)| !desc.is_device() && desc.size_bits() >= WATCH_UNTYPED_BITS)
        .expect("the kernel hands out memory");
    let mut slots = bootinfo.empty();
    let console = slots.next().expect("there are slots");
    issue(EmergencyConsole::COM1, EmergencyConsole::COM1 + 7, console);
    CONSOLE.store(console as u64, Ordering::Relaxed);
    let exit = slots.next().expect("there are slots");
    issue(EXIT_PORT, EXIT_PORT + 1, exit);
    EXIT.store(exit as u64, Ordering::Relaxed);
    assert!(slots.len() >= WATCH_SLOTS, "there are slots");
    watch_faults(bootinfo, untyped, slots, Some(on_fault)).expect("memory suffices");
}

fn issue(first: u16, last: u16, slot: usize) {
    let dst = slot::CNODE
        .cap()
        .absolute_cptr(CPtr::from_bits(slot as u64));
    IoPortAuthority::of_init_thread()
        .issue(first, last, &dst)
        .expect("ports can be issued");
}

/// Says that the crime had no consequences.
pub fn survived() -> ! {
    end(format_args!("verdict: exit 0"))
}

fn on_panic(info: &PanicInfo<'_>) {
    let place = info.location().expect("panics have a place");
    end(format_args!(
        "root-task: panic at {place}: {}\nverdict: killed crash",
        info.message()
    ))
}

fn on_fault(crash: &CrashReport) {
    end(format_args!("root-task: {crash}\nverdict: killed crash"))
}

fn end(last_words: fmt::Arguments<'_>) -> ! {
    let ports = |slot: &AtomicU64| Cap::from_bits(slot.load(Ordering::Relaxed));
    let mut console = EmergencyConsole::new(ports(&CONSOLE), EmergencyConsole::COM1);
    // There is nobody left to tell that these failed.
    let _ = writeln!(console, "{last_words}");
    let _ = ports(&EXIT).ioport_out16(EXIT_PORT, EXIT_VALUE);
    suspend_self()
}
