//! Entry and panic.

use core::arch::naked_asm;
use core::panic::PanicInfo;
use core::ptr::NonNull;

use sel4::IpcBuffer;

use crate::symbols::Symbols;

unsafe extern "Rust" {
    /// Defined by `#[protection_domain]`.
    safe fn __sel4_microkit_main() -> !;
}

/// Where a domain starts, on the stack it was given.
///
/// # Safety
/// Only the start of the domain's thread gets here: RSP is 16-aligned.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text._start")]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        // The outermost frame.
        "xor ebp, ebp",
        "call {entry}",
        "ud2",
        entry = sym entry,
    )
}

extern "C" fn entry() -> ! {
    let address = Symbols::ipc_buffer() as usize;
    let buffer = core::ptr::with_exposed_provenance_mut::<IpcBuffer>(address);
    if let Some(buffer) = NonNull::new(buffer) {
        // SAFETY: whoever packed the system maps the buffer there, for the
        // domain's one thread (M1).
        unsafe { sel4::set_ipc_buffer(buffer) };
    }
    __sel4_microkit_main()
}

/// A panic is a fault: an invalid instruction, which is reported with its
/// address. The domain has no other way to speak.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: the instruction has no effect but the fault, and does not return.
    unsafe { core::arch::asm!("ud2", options(noreturn, nomem, nostack)) }
}
