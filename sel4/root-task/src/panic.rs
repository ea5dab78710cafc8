//! What a panic does: report where, then stop.
//!
//! The program may install a hook that reports in its own way. Without one, a
//! line goes to the emergency console, if one was registered. In the end the
//! thread suspends itself.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use sel4::{Cap, cap};

type Hook = fn(&PanicInfo<'_>);

/// The hook as a pointer; null where there is none.
static HOOK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static PANICKING: AtomicBool = AtomicBool::new(false);
/// Slot of the emergency console's ports; zero where there is none.
static CONSOLE_CAP: AtomicU64 = AtomicU64::new(0);
static CONSOLE_BASE: AtomicU64 = AtomicU64::new(0);

/// Installs what reports a panic. The hook should not return, but end the
/// machine; where it does, the thread suspends itself. A panic inside the
/// hook ends there.
pub fn set_panic_hook(hook: Hook) {
    HOOK.store(hook as *mut (), Ordering::Release);
}

/// Registers the serial port that reports panics while there is no hook.
pub fn set_emergency_console(console: EmergencyConsole) {
    CONSOLE_CAP.store(console.ports.bits(), Ordering::Relaxed);
    CONSOLE_BASE.store(console.base.into(), Ordering::Release);
}

/// A 16550 serial port that is written without asking whether it is ready,
/// which QEMU's always is. For last words, not for logs.
#[derive(Clone, Copy, Debug)]
pub struct EmergencyConsole {
    ports: cap::IoPort,
    base: u16,
}

impl EmergencyConsole {
    /// The standard address of COM1.
    pub const COM1: u16 = 0x3f8;

    /// The port at `base`, reached through `ports`.
    #[must_use]
    pub const fn new(ports: cap::IoPort, base: u16) -> Self {
        Self { ports, base }
    }

    pub(crate) fn registered() -> Option<Self> {
        let base = CONSOLE_BASE.load(Ordering::Acquire);
        let ports = CONSOLE_CAP.load(Ordering::Relaxed);
        (ports != 0).then(|| Self::new(Cap::from_bits(ports), base as u16))
    }
}

impl Write for EmergencyConsole {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.ports
                .ioport_out8(self.base, byte)
                .map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}

fn hook() -> Option<Hook> {
    let hook = HOOK.load(Ordering::Acquire);
    // SAFETY: the pointer is null or was made from a `Hook`.
    (!hook.is_null()).then(|| unsafe { core::mem::transmute::<*mut (), Hook>(hook) })
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if !PANICKING.swap(true, Ordering::AcqRel) {
        if let Some(hook) = hook() {
            hook(info);
        } else if let Some(mut console) = EmergencyConsole::registered() {
            // There is nobody left to tell that this failed.
            let _ = writeln!(console, "\nroot-task: {info}");
        }
    }
    sel4::init_thread::suspend_self()
}
