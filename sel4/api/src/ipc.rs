//! Messages and signals.
//!
//! The `_with_mrs` forms keep the first four words in registers and touch no
//! memory; words from the fifth on are in the IPC buffer either way. The plain
//! forms move the first four words through the buffer.

use core::sync::atomic::{AtomicU64, Ordering};

use sel4_raw::syscalls::{self, Received};

use crate::ipc_buffer::{with_ipc_buffer, with_ipc_buffer_mut};
use crate::{FAST_MESSAGE_REGISTERS, MessageInfo, Word, cap};

/// The number with which an endpoint or notification capability was minted:
/// what a receiver knows about the sender.
pub type Badge = Word;

type Registers = [Word; FAST_MESSAGE_REGISTERS];

/// The reply object of kernels with MCS.
static REPLY: AtomicU64 = AtomicU64::new(0);

/// Names the reply object that receiving and replying use on kernels with MCS.
/// On others replies are implicit, and nothing happens.
pub fn set_reply_object(reply: cap::Reply) {
    REPLY.store(reply.bits(), Ordering::Relaxed);
}

#[inline(always)]
fn reply_object() -> Word {
    reply_word(None)
}

/// The reply object named, or the program's.
#[inline(always)]
fn reply_word(reply: Option<cap::Reply>) -> Word {
    match reply {
        _ if !cfg!(sel4_config = "KERNEL_MCS") => 0,
        Some(reply) => reply.bits(),
        None => REPLY.load(Ordering::Relaxed),
    }
}

/// System calls whose number depends on the kernel.
mod number {
    /// Waiting without a reply object is receiving, until MCS tells them apart.
    #[cfg(sel4_has = "seL4_SysWait")]
    pub const WAIT: i64 = sel4_raw::seL4_SysWait;
    /// Waiting on a notification is receiving, until MCS tells them apart.
    #[cfg(not(sel4_has = "seL4_SysWait"))]
    pub const WAIT: i64 = sel4_raw::seL4_SysRecv;
    /// As [`WAIT`], returning at once.
    #[cfg(sel4_has = "seL4_SysWait")]
    pub const NB_WAIT: i64 = sel4_raw::seL4_SysNBWait;
    /// As [`WAIT`], returning at once.
    #[cfg(not(sel4_has = "seL4_SysWait"))]
    pub const NB_WAIT: i64 = sel4_raw::seL4_SysNBRecv;
}

impl cap::Endpoint {
    /// `seL4_Send`: blocks until a receiver takes the message. Without the
    /// right to send the message is lost silently.
    pub fn send(self, info: MessageInfo) {
        self.send_with_mrs(info, load_registers());
    }

    /// `seL4_SendWithMRs`.
    #[inline]
    pub fn send_with_mrs(self, info: MessageInfo, words: Registers) {
        // SAFETY: the number is a send; the buffer is B1's.
        unsafe {
            syscalls::send(sel4_raw::seL4_SysSend, self.bits(), info.into_word(), words);
        }
    }

    /// `seL4_NBSend`: as [`send`](Self::send), but the message is dropped
    /// where no receiver waits.
    pub fn nb_send(self, info: MessageInfo) {
        self.nb_send_with_mrs(info, load_registers());
    }

    /// `seL4_NBSendWithMRs`.
    #[inline]
    pub fn nb_send_with_mrs(self, info: MessageInfo, words: Registers) {
        // SAFETY: the number is a send; the buffer is B1's.
        unsafe {
            syscalls::send(
                sel4_raw::seL4_SysNBSend,
                self.bits(),
                info.into_word(),
                words,
            );
        }
    }

    /// `seL4_Call`: sends and waits for the answer, whose words are then in
    /// the IPC buffer.
    pub fn call(self, info: MessageInfo) -> MessageInfo {
        let (info, words) = self.call_with_mrs(info, load_registers());
        store_registers(words);
        info
    }

    /// `seL4_CallWithMRs`.
    #[inline]
    pub fn call_with_mrs(self, info: MessageInfo, words: Registers) -> (MessageInfo, Registers) {
        // SAFETY: the number is a call; the buffer is B1's.
        let reply = unsafe {
            syscalls::send_recv(
                sel4_raw::seL4_SysCall,
                self.bits(),
                info.into_word(),
                words,
                0,
            )
        };
        (MessageInfo::from_word(reply.info), reply.words)
    }

    /// `seL4_Recv`: blocks for a message, whose words are then in the IPC
    /// buffer. Where the thread has a bound notification, its signals arrive
    /// here too, with the notification's badge.
    pub fn recv(self) -> (MessageInfo, Badge) {
        let (info, badge, words) = self.recv_with_mrs();
        store_registers(words);
        (info, badge)
    }

    /// `seL4_RecvWithMRs`: words beyond the message's length are arbitrary.
    #[inline]
    pub fn recv_with_mrs(self) -> (MessageInfo, Badge, Registers) {
        // SAFETY: the number is a receive; the buffer is B1's.
        split(unsafe { syscalls::recv(sel4_raw::seL4_SysRecv, self.bits(), reply_object()) })
    }

    /// As [`recv_with_mrs`](Self::recv_with_mrs), with a reply object of this
    /// thread's own on kernels with MCS; `None` is the program's
    /// ([`set_reply_object`]).
    #[inline]
    pub fn recv_with_reply(self, reply: Option<cap::Reply>) -> (MessageInfo, Badge, Registers) {
        // SAFETY: the number is a receive; the buffer is B1's.
        split(unsafe { syscalls::recv(sel4_raw::seL4_SysRecv, self.bits(), reply_word(reply)) })
    }

    /// Receives what will never be answered, and so takes no reply object
    /// (`seL4_Wait` with MCS); words beyond the message's length are arbitrary.
    #[inline]
    pub fn wait_with_mrs(self) -> (MessageInfo, Badge, Registers) {
        // SAFETY: the number is a receive; the buffer is B1's.
        split(unsafe { syscalls::recv(number::WAIT, self.bits(), 0) })
    }

    /// `seL4_NBRecv`: as [`recv`](Self::recv), but returns at once; badge zero
    /// where nothing waits (so badges of senders should not be zero).
    pub fn nb_recv(self) -> (MessageInfo, Badge) {
        // SAFETY: the number is a receive; the buffer is B1's.
        let (info, badge, words) =
            split(unsafe { syscalls::recv(sel4_raw::seL4_SysNBRecv, self.bits(), reply_object()) });
        store_registers(words);
        (info, badge)
    }

    /// `seL4_ReplyRecv`: answers the last caller and waits for the next
    /// message, through the IPC buffer.
    pub fn reply_recv(self, info: MessageInfo) -> (MessageInfo, Badge) {
        let (info, badge, words) = self.reply_recv_with_mrs(info, load_registers());
        store_registers(words);
        (info, badge)
    }

    /// `seL4_ReplyRecvWithMRs`: the inner step of a server. Message words from
    /// the fifth on are sent from and received into the IPC buffer, in place.
    #[inline]
    pub fn reply_recv_with_mrs(
        self,
        info: MessageInfo,
        words: Registers,
    ) -> (MessageInfo, Badge, Registers) {
        self.reply_recv_with_reply(info, words, None)
    }

    /// As [`reply_recv_with_mrs`](Self::reply_recv_with_mrs), with the reply
    /// object of [`recv_with_reply`](Self::recv_with_reply).
    #[inline]
    pub fn reply_recv_with_reply(
        self,
        info: MessageInfo,
        words: Registers,
        reply: Option<cap::Reply>,
    ) -> (MessageInfo, Badge, Registers) {
        // SAFETY: the number is a reply and receive; the buffer is B1's.
        split(unsafe {
            syscalls::send_recv(
                sel4_raw::seL4_SysReplyRecv,
                self.bits(),
                info.into_word(),
                words,
                reply_word(reply),
            )
        })
    }
}

impl cap::Notification {
    /// `seL4_Signal`: sets the capability's badge in the notification's word.
    #[inline]
    pub fn signal(self) {
        // SAFETY: a send without words.
        unsafe {
            syscalls::send(
                sel4_raw::seL4_SysSend,
                self.bits(),
                MessageInfo::new(0, 0, 0).into_word(),
                [0; FAST_MESSAGE_REGISTERS],
            );
        }
    }

    /// `seL4_Wait`: blocks until the word is not zero, and takes it.
    #[inline]
    pub fn wait(self) -> Badge {
        // SAFETY: the number is a receive; the buffer is B1's.
        unsafe { syscalls::recv(number::WAIT, self.bits(), 0).badge }
    }

    /// `seL4_Poll`: takes the word without blocking; zero where nothing was
    /// signalled.
    #[inline]
    pub fn poll(self) -> Badge {
        // SAFETY: the number is a receive; the buffer is B1's.
        unsafe { syscalls::recv(number::NB_WAIT, self.bits(), 0).badge }
    }
}

/// `seL4_Reply`: answers the last caller, with words from the IPC buffer.
pub fn reply(info: MessageInfo) {
    reply_with_mrs(info, load_registers());
}

/// `seL4_ReplyWithMRs`: answers the last caller.
#[inline]
pub fn reply_with_mrs(info: MessageInfo, words: Registers) {
    #[cfg(sel4_config = "KERNEL_MCS")]
    let (number, dest) = (sel4_raw::seL4_SysSend, reply_object());
    #[cfg(not(sel4_config = "KERNEL_MCS"))]
    let (number, dest) = (sel4_raw::seL4_SysReply, 0);
    // SAFETY: the number is a send; the buffer is B1's.
    unsafe { syscalls::send(number, dest, info.into_word(), words) };
}

/// `seL4_Yield`: gives the rest of the time slice to threads of the same
/// priority.
#[inline]
pub fn yield_now() {
    // SAFETY: the number is `seL4_Yield`'s, which takes nothing.
    unsafe { syscalls::null(sel4_raw::seL4_SysYield) };
}

#[inline(always)]
fn split(received: Received) -> (MessageInfo, Badge, Registers) {
    (
        MessageInfo::from_word(received.info),
        received.badge,
        received.words,
    )
}

fn load_registers() -> Registers {
    with_ipc_buffer(|buffer| buffer.mrs::<0, FAST_MESSAGE_REGISTERS>())
}

fn store_registers(words: Registers) {
    with_ipc_buffer_mut(|buffer| buffer.set_mrs::<0, FAST_MESSAGE_REGISTERS>(&words));
}
