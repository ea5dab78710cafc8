//! The fault message being handled, while other calls are made.
//!
//! Words 0 to 3 of a fault message are in registers; the rest stay in the IPC
//! buffer, where the answer is built in place. Invocations of more than four
//! words write there too, so whoever makes one in the middle of a fault wraps
//! it in [`preserve`].

use sel4::fault::UnknownSyscall;
use sel4::{FAST_MESSAGE_REGISTERS, with_ipc_buffer, with_ipc_buffer_mut};

const KEPT: usize = UnknownSyscall::LENGTH - FAST_MESSAGE_REGISTERS;

/// As [`preserve`], for resuming one thread, which sends six words: two
/// arguments and the four registers of `Client::continue_at`.
#[inline]
pub fn preserve_resume<T>(invoke: impl FnOnce() -> T) -> T {
    const WORDS: usize = 2;
    let words = with_ipc_buffer(|buffer| buffer.mrs::<FAST_MESSAGE_REGISTERS, WORDS>());
    let outcome = invoke();
    with_ipc_buffer_mut(|buffer| buffer.set_mrs::<FAST_MESSAGE_REGISTERS, WORDS>(&words));
    outcome
}

/// Runs `invoke` and puts the words of the message behind the fourth back.
#[inline(never)]
pub fn preserve<T>(invoke: impl FnOnce() -> T) -> T {
    let words = with_ipc_buffer(|buffer| buffer.mrs::<FAST_MESSAGE_REGISTERS, KEPT>());
    let outcome = invoke();
    with_ipc_buffer_mut(|buffer| buffer.set_mrs::<FAST_MESSAGE_REGISTERS, KEPT>(&words));
    outcome
}
