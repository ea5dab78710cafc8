//! The IPC buffer: message words beyond the registers, and capabilities sent
//! or received.
//!
//! The kernel writes it during system calls, and so does every invocation
//! with more than four words, a capability, or an error. Read a received
//! message before making invocations.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering};

use sel4_raw::seL4_IPCBuffer;

use crate::{AbsoluteCPtr, CPtr, MAX_MESSAGE_LENGTH, Word};

/// Stands in until [`set_ipc_buffer`] is called (B1).
static mut PLACEHOLDER: seL4_IPCBuffer = seL4_IPCBuffer {
    tag: 0,
    msg: [0; MAX_MESSAGE_LENGTH],
    userData: 0,
    caps_or_badges: [0; MAX_CAPS],
    receiveCNode: 0,
    receiveIndex: 0,
    receiveDepth: 0,
};

static BUFFER: AtomicPtr<seL4_IPCBuffer> = AtomicPtr::new(&raw mut PLACEHOLDER);

const MAX_CAPS: usize = sel4_raw::seL4_MsgMaxExtraCaps as usize;

/// The buffer of the thread that uses this crate.
#[inline(always)]
pub(crate) fn buffer() -> *mut seL4_IPCBuffer {
    // One thread sets and uses it (B3), so no ordering is needed.
    BUFFER.load(Ordering::Relaxed)
}

/// Names the IPC buffer of the thread that uses this crate. Runtimes call it
/// first thing.
///
/// # Safety
/// `buffer` is what the kernel knows as the calling thread's IPC buffer, stays
/// mapped and writable, and is used through this crate only.
pub unsafe fn set_ipc_buffer(buffer: NonNull<IpcBuffer>) {
    BUFFER.store(buffer.cast().as_ptr(), Ordering::Relaxed);
}

/// Reads the IPC buffer.
#[inline(always)]
pub fn with_ipc_buffer<T>(f: impl FnOnce(&IpcBuffer) -> T) -> T {
    f(&IpcBuffer { raw: buffer() })
}

/// Reads and writes the IPC buffer.
#[inline(always)]
pub fn with_ipc_buffer_mut<T>(f: impl FnOnce(&mut IpcBuffer) -> T) -> T {
    f(&mut IpcBuffer { raw: buffer() })
}

/// `seL4_IPCBuffer`, read and written word by word (B2).
pub struct IpcBuffer {
    raw: *mut seL4_IPCBuffer,
}

impl IpcBuffer {
    /// `seL4_GetMR`: message word `index`. Words 0 to 3 travel in registers
    /// and are here only where the function used says so.
    ///
    /// # Panics
    /// Where `index` is beyond [`MAX_MESSAGE_LENGTH`].
    #[inline]
    #[must_use]
    pub fn mr(&self, index: usize) -> Word {
        assert!(index < MAX_MESSAGE_LENGTH, "message word {index}");
        // SAFETY: B1 and B2; the index was checked.
        unsafe { sel4_raw::get_mr(self.raw, index) }
    }

    /// `seL4_SetMR`: sets message word `index`.
    ///
    /// # Panics
    /// Where `index` is beyond [`MAX_MESSAGE_LENGTH`].
    #[inline]
    pub fn set_mr(&mut self, index: usize, word: Word) {
        assert!(index < MAX_MESSAGE_LENGTH, "message word {index}");
        // SAFETY: B1 and B2; the index was checked.
        unsafe { sel4_raw::set_mr(self.raw, index, word) }
    }

    /// As [`mr`](Self::mr), with the index checked at compile time.
    #[inline(always)]
    #[must_use]
    pub fn mr_at<const INDEX: usize>(&self) -> Word {
        const { assert!(INDEX < MAX_MESSAGE_LENGTH) };
        // SAFETY: B1 and B2; the index was checked.
        unsafe { sel4_raw::get_mr(self.raw, INDEX) }
    }

    /// As [`set_mr`](Self::set_mr), with the index checked at compile time.
    #[inline(always)]
    pub fn set_mr_at<const INDEX: usize>(&mut self, word: Word) {
        const { assert!(INDEX < MAX_MESSAGE_LENGTH) };
        // SAFETY: B1 and B2; the index was checked.
        unsafe { sel4_raw::set_mr(self.raw, INDEX, word) }
    }

    /// Message words `FIRST` to `FIRST + N`.
    #[inline(always)]
    #[must_use]
    pub fn mrs<const FIRST: usize, const N: usize>(&self) -> [Word; N] {
        const { assert!(FIRST + N <= MAX_MESSAGE_LENGTH) };
        // SAFETY: B1 and B2; the range was checked.
        core::array::from_fn(|index| unsafe { sel4_raw::get_mr(self.raw, FIRST + index) })
    }

    /// Sets message words `FIRST` to `FIRST + N`.
    #[inline(always)]
    pub fn set_mrs<const FIRST: usize, const N: usize>(&mut self, words: &[Word; N]) {
        const { assert!(FIRST + N <= MAX_MESSAGE_LENGTH) };
        for (index, word) in words.iter().enumerate() {
            // SAFETY: B1 and B2; the range was checked.
            unsafe { sel4_raw::set_mr(self.raw, FIRST + index, *word) }
        }
    }

    /// `seL4_SetCap`: names capability `index` of the message to send.
    ///
    /// # Panics
    /// Where `index` is beyond `seL4_MsgMaxExtraCaps`.
    pub fn set_cap(&mut self, index: usize, cptr: CPtr) {
        assert!(index < MAX_CAPS, "capability {index} of a message");
        // SAFETY: B1 and B2; the index was checked.
        unsafe { sel4_raw::set_cap(self.raw, index, cptr.bits()) }
    }

    /// `seL4_GetBadge`: the badge delivered in place of capability `index`.
    ///
    /// # Panics
    /// Where `index` is beyond `seL4_MsgMaxExtraCaps`.
    #[must_use]
    pub fn badge(&self, index: usize) -> Word {
        assert!(index < MAX_CAPS, "capability {index} of a message");
        // SAFETY: B1 and B2; the index was checked, and no reference is made.
        unsafe {
            (&raw const (*self.raw).caps_or_badges)
                .cast::<Word>()
                .add(index)
                .read()
        }
    }

    /// `seL4_SetCapReceivePath`: where a received capability goes.
    pub fn set_recv_slot(&mut self, slot: &AbsoluteCPtr) {
        self.set_receive_path(
            slot.root().bits(),
            slot.path().bits(),
            slot.path().depth_word(),
        );
    }

    /// Declines capabilities: messages then arrive without theirs.
    pub fn clear_recv_slot(&mut self) {
        self.set_receive_path(0, 0, 0);
    }

    fn set_receive_path(&mut self, root: Word, index: Word, depth: Word) {
        // SAFETY: B1 and B2; the fields are written in place.
        unsafe {
            (&raw mut (*self.raw).receiveCNode).write(root);
            (&raw mut (*self.raw).receiveIndex).write(index);
            (&raw mut (*self.raw).receiveDepth).write(depth);
        }
    }
}
