//! Faults: what a thread's fault handler receives and may answer.
//!
//! A fault arrives as a message whose label says which fault it is. On kernels
//! without MCS a thread holds the endpoint its faults go to, so it can send
//! messages that look like faults; [`FaultKind::of`] therefore checks label
//! **and** length, and a handler must not conclude that the thread is stopped.
//!
//! Each kind's struct also has the positions of its words as constants, for
//! handlers that read or change single words: words 0 to 3 are in registers,
//! the rest in the IPC buffer, where invocations overwrite them.
//!
//! Answering a fault resumes the thread: with the words of an
//! [`UnknownSyscall`] or a [`UserException`] as its registers, as many as the
//! answer is long; a [`VmFault`] and a [`CapFault`] retry whatever is said.

use crate::ipc_buffer::with_ipc_buffer;
use crate::{FAST_MESSAGE_REGISTERS, IpcBuffer, MessageInfo, Word};

/// Which fault a message reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// No fault: an ordinary message with label zero, or a signal.
    NullFault,
    /// A capability could not be found.
    CapFault,
    /// A trap that is no seL4 system call.
    UnknownSyscall,
    /// A processor exception other than a page fault.
    UserException,
    /// A page fault.
    VmFault,
    /// A budget was used up; kernels with MCS only.
    Timeout,
}

/// A message that is no fault of this kernel: an ordinary message, or a forgery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedFault {
    /// The label it carries.
    pub label: Word,
    /// How many words it has.
    pub length: usize,
}

impl FaultKind {
    /// Tells the kind by label alone: for messages that are known to be
    /// faults, where not all words could be received.
    #[must_use]
    pub const fn by_label(label: Word) -> Option<Self> {
        match label {
            sel4_raw::seL4_Fault_NullFault => Some(Self::NullFault),
            sel4_raw::seL4_Fault_CapFault => Some(Self::CapFault),
            sel4_raw::seL4_Fault_UnknownSyscall => Some(Self::UnknownSyscall),
            sel4_raw::seL4_Fault_UserException => Some(Self::UserException),
            sel4_raw::seL4_Fault_VMFault => Some(Self::VmFault),
            #[cfg(sel4_has = "seL4_Fault_Timeout")]
            sel4_raw::seL4_Fault_Timeout => Some(Self::Timeout),
            _ => None,
        }
    }

    /// Tells the kind by label, and refuses what has not the kind's length.
    ///
    /// # Errors
    /// [`MalformedFault`] where the kernel sends no such fault.
    #[inline]
    pub const fn of(info: MessageInfo) -> Result<Self, MalformedFault> {
        let length = info.length();
        match info.label() {
            sel4_raw::seL4_Fault_UnknownSyscall if length == UnknownSyscall::LENGTH => {
                Ok(Self::UnknownSyscall)
            }
            sel4_raw::seL4_Fault_UserException if length == UserException::LENGTH => {
                Ok(Self::UserException)
            }
            sel4_raw::seL4_Fault_VMFault if length == VmFault::LENGTH => Ok(Self::VmFault),
            #[cfg(sel4_has = "seL4_Fault_Timeout")]
            sel4_raw::seL4_Fault_Timeout if length == TIMEOUT_LENGTH => Ok(Self::Timeout),
            sel4_raw::seL4_Fault_CapFault
                if CapFault::LENGTH_MIN <= length && length <= CapFault::LENGTH_MAX =>
            {
                Ok(Self::CapFault)
            }
            sel4_raw::seL4_Fault_NullFault => Ok(Self::NullFault),
            label => Err(MalformedFault { label, length }),
        }
    }
}

/// A decoded fault (`seL4_Fault_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// No fault: an ordinary message with label zero, or a signal.
    NullFault,
    /// A capability could not be found.
    CapFault(CapFault),
    /// A trap that is no seL4 system call.
    UnknownSyscall(UnknownSyscall),
    /// A processor exception other than a page fault.
    UserException(UserException),
    /// A page fault.
    VmFault(VmFault),
    /// A budget was used up. An answer of no words lets the thread go on when
    /// its next period begins.
    Timeout,
}

/// Words of a timeout's message: the context's badge and what it consumed.
#[cfg(sel4_has = "seL4_Fault_Timeout")]
const TIMEOUT_LENGTH: usize = sel4_raw::seL4_Timeout_Length as usize;
/// Word of a timeout's message with the microseconds the context consumed since
/// it was last told; the kernel does not tell them again.
pub const TIMEOUT_CONSUMED: usize = 1;
#[cfg(sel4_has = "seL4_Fault_Timeout")]
const _: () = assert!(TIMEOUT_CONSUMED == sel4_raw::seL4_Timeout_Consumed as usize);

impl Fault {
    /// `seL4_getFault`: decodes the message just received. `words` are the
    /// first four words; the rest are taken from the IPC buffer, so nothing
    /// may have been invoked since.
    ///
    /// # Errors
    /// [`MalformedFault`] where the kernel sends no such fault.
    pub fn decode(
        info: MessageInfo,
        words: &[Word; FAST_MESSAGE_REGISTERS],
    ) -> Result<Self, MalformedFault> {
        let kind = FaultKind::of(info)?;
        Ok(with_ipc_buffer(|buffer| match kind {
            FaultKind::NullFault => Self::NullFault,
            FaultKind::CapFault => Self::CapFault(CapFault::read(words, buffer, info.length())),
            FaultKind::UnknownSyscall => Self::UnknownSyscall(UnknownSyscall::read(words, buffer)),
            FaultKind::UserException => Self::UserException(UserException::read(words, buffer)),
            FaultKind::VmFault => Self::VmFault(VmFault::read(words, buffer)),
            FaultKind::Timeout => Self::Timeout,
        }))
    }
}

/// Message word `INDEX`, from a register or from the buffer.
#[inline(always)]
fn word<const INDEX: usize>(words: &[Word; FAST_MESSAGE_REGISTERS], buffer: &IpcBuffer) -> Word {
    if INDEX < FAST_MESSAGE_REGISTERS {
        words[INDEX]
    } else {
        buffer.mr_at::<INDEX>()
    }
}

/// Declares a fault by its fields and the positions of their words.
macro_rules! fault {
    (
        $(#[$doc:meta])*
        $name:ident, $length:ident,
        $($(#[$field_doc:meta])* $field:ident $index:ident = $raw:ident,)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Word,)*
        }

        impl $name {
            /// Words in the message.
            pub const LENGTH: usize = sel4_raw::$length as usize;
            $(
                #[doc = concat!("Position of `", stringify!($field), "` in the message.")]
                pub const $index: usize = sel4_raw::$raw as usize;
            )*

            /// Takes the fault from a message that [`FaultKind::of`] found to
            /// be one, before anything is invoked.
            #[inline]
            #[must_use]
            pub fn read(words: &[Word; FAST_MESSAGE_REGISTERS], buffer: &IpcBuffer) -> Self {
                Self {
                    $($field: word::<{ Self::$index }>(words, buffer),)*
                }
            }
        }
    };
}

fault! {
    /// `seL4_UnknownSyscall_Msg`: a trap that is no seL4 system call, with the
    /// thread's registers.
    ///
    /// Where the trap was the `syscall` instruction, the kernel has lost the
    /// stack pointer, RCX and R11; by `int` everything is exact.
    UnknownSyscall, seL4_UnknownSyscall_Length,
    /// RAX.
    rax RAX = seL4_UnknownSyscall_RAX,
    /// RBX.
    rbx RBX = seL4_UnknownSyscall_RBX,
    /// RCX.
    rcx RCX = seL4_UnknownSyscall_RCX,
    /// RDX.
    rdx RDX = seL4_UnknownSyscall_RDX,
    /// RSI.
    rsi RSI = seL4_UnknownSyscall_RSI,
    /// RDI.
    rdi RDI = seL4_UnknownSyscall_RDI,
    /// RBP.
    rbp RBP = seL4_UnknownSyscall_RBP,
    /// R8.
    r8 R8 = seL4_UnknownSyscall_R8,
    /// R9.
    r9 R9 = seL4_UnknownSyscall_R9,
    /// R10.
    r10 R10 = seL4_UnknownSyscall_R10,
    /// R11.
    r11 R11 = seL4_UnknownSyscall_R11,
    /// R12.
    r12 R12 = seL4_UnknownSyscall_R12,
    /// R13.
    r13 R13 = seL4_UnknownSyscall_R13,
    /// R14.
    r14 R14 = seL4_UnknownSyscall_R14,
    /// R15.
    r15 R15 = seL4_UnknownSyscall_R15,
    /// Address of the trapping instruction; the answer's word is where the
    /// thread goes on, so it has to be moved past the instruction.
    fault_ip FAULT_IP = seL4_UnknownSyscall_FaultIP,
    /// RSP.
    sp SP = seL4_UnknownSyscall_SP,
    /// RFLAGS.
    flags FLAGS = seL4_UnknownSyscall_FLAGS,
    /// What the kernel took for a system call number. For `int N`, `N` is in
    /// its bits 24 to 31.
    syscall SYSCALL = seL4_UnknownSyscall_Syscall,
}

impl UnknownSyscall {
    /// Length of an answer that sets everything up to where the thread goes
    /// on, and leaves its stack pointer and flags alone.
    pub const REPLY_LENGTH: usize = Self::FAULT_IP + 1;
}

fault! {
    /// `seL4_UserException_Msg`: a processor exception. The answer can change
    /// the first three fields; other registers by
    /// [`tcb_write_registers`](crate::cap::Tcb::tcb_write_registers).
    UserException, seL4_UserException_Length,
    /// Address of the instruction, for faults.
    fault_ip FAULT_IP = seL4_UserException_FaultIP,
    /// RSP.
    sp SP = seL4_UserException_SP,
    /// RFLAGS.
    flags FLAGS = seL4_UserException_FLAGS,
    /// The processor's vector: 6 for an invalid instruction.
    number NUMBER = seL4_UserException_Number,
    /// The processor's error code; zero for vectors without.
    code CODE = seL4_UserException_Code,
}

impl UserException {
    /// Length of an answer that sets instruction pointer, stack and flags.
    pub const REPLY_LENGTH: usize = Self::FLAGS + 1;
}

fault! {
    /// `seL4_VMFault_Msg`: a page fault.
    VmFault, seL4_VMFault_Length,
    /// Address of the instruction.
    ip IP = seL4_VMFault_IP,
    /// The address it accessed.
    addr ADDR = seL4_VMFault_Addr,
    /// Not zero where it was fetching an instruction; kernels up to 5 never
    /// say so.
    prefetch_fault PREFETCH_FAULT = seL4_VMFault_PrefetchFault,
    /// The processor's page-fault error code.
    fsr FSR = seL4_VMFault_FSR,
}

/// What a page fault was trying to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

impl VmFault {
    /// Error code bit: the page is mapped, and rights were missing.
    const PRESENT: Word = 1 << 0;
    /// Error code bit: the access was a write.
    const WRITE: Word = 1 << 1;
    /// Error code bit: the access was an instruction fetch.
    const FETCH: Word = 1 << 4;

    /// What was tried. A fetch is recognised by its address where neither
    /// kernel nor processor reports it.
    #[must_use]
    pub const fn access(&self) -> Access {
        if self.fsr & Self::WRITE != 0 {
            Access::Write
        } else if self.fsr & Self::FETCH != 0 || self.prefetch_fault != 0 || self.ip == self.addr {
            Access::Execute
        } else {
            Access::Read
        }
    }

    /// Whether something is mapped there.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        self.fsr & Self::PRESENT != 0
    }
}

/// `seL4_CapFault_Msg`: a capability could not be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapFault {
    /// Where the thread goes on.
    pub ip: Word,
    /// The CPtr that was looked up.
    pub cptr: Word,
    /// Whether it was for receiving rather than sending.
    pub in_recv_phase: bool,
    /// `seL4_LookupFailureType`.
    pub lookup_failure: Word,
    /// Details, as many as this type of failure has; the rest are zero.
    pub details: [Word; CapFault::LENGTH_MAX - CapFault::LENGTH_MIN],
}

impl CapFault {
    /// Position of `ip` in the message.
    pub const IP: usize = sel4_raw::seL4_CapFault_IP as usize;
    /// Position of `cptr` in the message.
    pub const CPTR: usize = sel4_raw::seL4_CapFault_Addr as usize;
    /// Words in the message without details.
    pub const LENGTH_MIN: usize = sel4_raw::seL4_CapFault_LookupFailureType as usize + 1;
    /// Words in the message with all details.
    pub const LENGTH_MAX: usize = sel4_raw::seL4_CapFault_GuardMismatch_BitsFound as usize + 1;

    fn read(words: &[Word; FAST_MESSAGE_REGISTERS], buffer: &IpcBuffer, length: usize) -> Self {
        const IN_RECV_PHASE: usize = sel4_raw::seL4_CapFault_InRecvPhase as usize;
        const LOOKUP_FAILURE: usize = sel4_raw::seL4_CapFault_LookupFailureType as usize;
        let detail = |index| {
            let position = Self::LENGTH_MIN + index;
            if position < length {
                buffer.mr(position)
            } else {
                0
            }
        };
        Self {
            ip: word::<{ Self::IP }>(words, buffer),
            cptr: word::<{ Self::CPTR }>(words, buffer),
            in_recv_phase: word::<IN_RECV_PHASE>(words, buffer) != 0,
            lookup_failure: word::<LOOKUP_FAILURE>(words, buffer),
            details: core::array::from_fn(detail),
        }
    }
}

// Details are read from the buffer only.
const _: () = assert!(CapFault::LENGTH_MIN >= FAST_MESSAGE_REGISTERS);
