//! Stand-ins for the unwinder.
//!
//! The prebuilt `alloc` is compiled for unwinding and refers to it. Root tasks
//! are built with `panic = "abort"`, so nothing ever unwinds and neither
//! function is called.

/// Would continue unwinding.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    panic!("a root task does not unwind")
}

/// Would decide where unwinding goes on; only its address is used.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() -> ! {
    panic!("a root task does not unwind")
}
