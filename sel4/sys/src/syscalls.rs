//! Entering the kernel.
//!
//! Two instructions exist; the kernel is built for one of them, and
//! `gen_config.json` says which.
//!
//! - `syscall`: number in RDX. The kernel loses RCX, R11 **and RSP**, so the
//!   stack pointer waits in R14 meanwhile.
//! - `sysenter`: number in RAX, return stack pointer in RCX, address of the
//!   instruction in RDX.
//!
//! On both, RDI is the capability (then the badge), RSI the message info, and
//! R10, R8, R9, R15 the first four message words; kernels with MCS take the
//! reply capability in R12. All other registers are preserved. The statements
//! declare that they may change any memory, because the kernel reads and
//! writes the IPC buffer.

use core::arch::asm;

/// What a receiving call brings back in registers.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Badge of the capability that was used, or of the notification.
    pub badge: u64,
    /// The message's `seL4_MessageInfo`.
    pub info: u64,
    /// The first four message words; those beyond the length are arbitrary.
    pub words: [u64; 4],
}

/// Wraps one kernel entry around the operands of the call.
#[cfg(sel4_entry = "syscall")]
macro_rules! enter {
    ($number:expr, $($operands:tt)*) => {
        asm!(
            "mov r14, rsp",
            "syscall",
            "mov rsp, r14",
            in("rdx") $number,
            out("r14") _,
            lateout("rcx") _,
            lateout("r11") _,
            $($operands)*
        )
    };
}

/// Wraps one kernel entry around the operands of the call.
#[cfg(sel4_entry = "sysenter")]
macro_rules! enter {
    ($number:expr, $($operands:tt)*) => {
        asm!(
            "mov rcx, rsp",
            "lea rdx, [rip + 2f]",
            "2:",
            "sysenter",
            in("rax") $number,
            out("rcx") _,
            out("rdx") _,
            lateout("r11") _,
            $($operands)*
        )
    };
}

/// As `enter`, for calls that take the reply capability where kernels have one.
#[cfg(sel4_config = "KERNEL_MCS")]
macro_rules! enter_with_reply {
    ($reply:expr, $number:expr, $($operands:tt)*) => {
        enter!($number, in("r12") $reply, $($operands)*)
    };
}

/// As `enter`, for calls that take the reply capability where kernels have one.
#[cfg(not(sel4_config = "KERNEL_MCS"))]
macro_rules! enter_with_reply {
    ($reply:expr, $number:expr, $($operands:tt)*) => {{
        let _ = $reply;
        enter!($number, $($operands)*)
    }};
}

/// Sends without receiving (`seL4_Send`, `seL4_NBSend`, `seL4_Reply`).
///
/// # Safety
/// `number` is such a call, and the IPC buffer holds what `info` announces.
#[inline(always)]
pub unsafe fn send(number: i64, dest: u64, info: u64, words: [u64; 4]) {
    // SAFETY: all registers the kernel changes are declared; what it does to
    // memory is the caller's to answer for.
    unsafe {
        enter!(
            number,
            in("rdi") dest,
            in("rsi") info,
            in("r10") words[0],
            in("r8") words[1],
            in("r9") words[2],
            in("r15") words[3],
        );
    }
}

/// Receives without sending (`seL4_Recv`, `seL4_NBRecv`, `seL4_Wait`).
/// `reply` is the reply capability on MCS kernels and ignored on others.
///
/// # Safety
/// `number` is such a call, and nothing refers to the IPC buffer's words.
#[inline(always)]
pub unsafe fn recv(number: i64, src: u64, reply: u64) -> Received {
    let (badge, info, w0, w1, w2, w3);
    // SAFETY: as in `send`.
    unsafe {
        enter_with_reply!(
            reply,
            number,
            inlateout("rdi") src => badge,
            lateout("rsi") info,
            lateout("r10") w0,
            lateout("r8") w1,
            lateout("r9") w2,
            lateout("r15") w3,
        );
    }
    Received {
        badge,
        info,
        words: [w0, w1, w2, w3],
    }
}

/// Sends and receives in one entry (`seL4_Call`, `seL4_ReplyRecv`). `reply` is
/// the reply capability on MCS kernels and ignored on others.
///
/// # Safety
/// `number` is such a call, the IPC buffer holds what `info` announces, and
/// nothing refers to its words.
#[inline(always)]
pub unsafe fn send_recv(
    number: i64,
    dest: u64,
    info: u64,
    words: [u64; 4],
    reply: u64,
) -> Received {
    let (badge, out_info, w0, w1, w2, w3);
    // SAFETY: as in `send`.
    unsafe {
        enter_with_reply!(
            reply,
            number,
            inlateout("rdi") dest => badge,
            inlateout("rsi") info => out_info,
            inlateout("r10") words[0] => w0,
            inlateout("r8") words[1] => w1,
            inlateout("r9") words[2] => w2,
            inlateout("r15") words[3] => w3,
        );
    }
    Received {
        badge,
        info: out_info,
        words: [w0, w1, w2, w3],
    }
}

/// A call without message (`seL4_Yield`).
///
/// # Safety
/// `number` is such a call.
#[inline(always)]
pub unsafe fn null(number: i64) {
    // SAFETY: as in `send`; nothing is sent.
    unsafe {
        enter!(
            number,
            lateout("rdi") _,
            lateout("rsi") _,
        );
    }
}
