//! Putting messages together: the tag, the words in the IPC buffer, and the
//! call that every object invocation is.

use crate::generated as gen_;
use crate::generated::seL4_IPCBuffer;
#[cfg(test)]
use crate::marshalling::record as call;
#[cfg(not(test))]
use crate::syscalls::send_recv as call;

/// Message words that travel in machine registers.
const REGISTER_WORDS: usize = 4;

/// `seL4_MessageInfo_new`, without unwrapped capabilities. Values too wide for
/// their field are cut to it, as in C.
#[inline(always)]
#[must_use]
pub const fn message_info(label: u64, extra_caps: u64, length: u64) -> u64 {
    (label & gen_::seL4_MessageInfo_label_MASK) << gen_::seL4_MessageInfo_label_SHIFT
        | (extra_caps & gen_::seL4_MessageInfo_extraCaps_MASK)
            << gen_::seL4_MessageInfo_extraCaps_SHIFT
        | (length & gen_::seL4_MessageInfo_length_MASK) << gen_::seL4_MessageInfo_length_SHIFT
}

/// `seL4_MessageInfo_get_label`.
#[inline(always)]
#[must_use]
pub const fn message_label(info: u64) -> u64 {
    (info >> gen_::seL4_MessageInfo_label_SHIFT) & gen_::seL4_MessageInfo_label_MASK
}

/// `seL4_MessageInfo_get_length`.
#[inline(always)]
#[must_use]
pub const fn message_length(info: u64) -> u64 {
    (info >> gen_::seL4_MessageInfo_length_SHIFT) & gen_::seL4_MessageInfo_length_MASK
}

/// `seL4_SetMR`.
///
/// # Safety
/// `ipc` is a valid IPC buffer that nothing else refers to during the call,
/// and `index` is below `seL4_MsgMaxLength`.
#[inline(always)]
pub unsafe fn set_mr(ipc: *mut seL4_IPCBuffer, index: usize, word: u64) {
    // SAFETY: the caller vouches for the buffer and for the index.
    unsafe {
        (&raw mut (*ipc).msg).cast::<u64>().add(index).write(word);
    }
}

/// `seL4_GetMR`.
///
/// # Safety
/// As for [`set_mr`].
#[inline(always)]
#[must_use]
pub unsafe fn get_mr(ipc: *const seL4_IPCBuffer, index: usize) -> u64 {
    // SAFETY: the caller vouches for the buffer and for the index.
    unsafe { (&raw const (*ipc).msg).cast::<u64>().add(index).read() }
}

/// `seL4_SetCap`.
///
/// # Safety
/// As for [`set_mr`], with `index` below `seL4_MsgMaxExtraCaps`.
#[inline(always)]
pub unsafe fn set_cap(ipc: *mut seL4_IPCBuffer, index: usize, cap: u64) {
    // SAFETY: the caller vouches for the buffer and for the index.
    unsafe {
        (&raw mut (*ipc).caps_or_badges)
            .cast::<u64>()
            .add(index)
            .write(cap);
    }
}

/// Stores the first `count` of `words` in the message from word `first` on,
/// and returns the length of the message.
///
/// # Safety
/// As for [`set_mr`], for each of the words.
#[inline]
pub(crate) unsafe fn put_words(
    ipc: *mut seL4_IPCBuffer,
    registers: &mut [u64; REGISTER_WORDS],
    first: usize,
    words: &[u64],
    count: u64,
) -> u64 {
    let count = words
        .len()
        .min(usize::try_from(count).unwrap_or(usize::MAX));
    for (index, word) in (first..).zip(&words[..count]) {
        match registers.get_mut(index) {
            Some(register) => *register = *word,
            // SAFETY: the caller vouches for the buffer and for the range.
            None => unsafe { set_mr(ipc, index, *word) },
        }
    }
    (first + count) as u64
}

/// Reads the first `count` of `N` words of a reply from word `first` on; the
/// rest are zero.
///
/// # Safety
/// As for [`get_mr`], for each of the words.
#[inline]
pub(crate) unsafe fn get_words<const N: usize>(
    ipc: *const seL4_IPCBuffer,
    registers: &[u64; REGISTER_WORDS],
    first: usize,
    count: u64,
) -> [u64; N] {
    let count = N.min(usize::try_from(count).unwrap_or(usize::MAX));
    let mut words = [0; N];
    for (index, word) in (first..).zip(&mut words[..count]) {
        *word = match registers.get(index) {
            Some(register) => *register,
            // SAFETY: the caller vouches for the buffer and for the range.
            None => unsafe { get_mr(ipc, index) },
        };
    }
    words
}

/// Invokes an object: one `seL4_Call` whose label is the method. Returns the
/// first words of the reply.
///
/// # Errors
/// The label of the reply where it is not `seL4_NoError`. The words that
/// explain it are then in the IPC buffer, where libsel4 puts them.
///
/// # Safety
/// `ipc` is the calling thread's IPC buffer, nothing else refers to it during
/// the call, and it holds the message's words beyond the registers and its
/// `extra_caps` capabilities.
#[inline(always)]
pub unsafe fn invoke(
    ipc: *mut seL4_IPCBuffer,
    service: u64,
    label: u64,
    extra_caps: u64,
    length: u64,
    registers: [u64; REGISTER_WORDS],
) -> Result<[u64; REGISTER_WORDS], u64> {
    let info = message_info(label, extra_caps, length);
    // SAFETY: the buffer holds the message, as the caller vouches.
    let reply = unsafe { call(gen_::seL4_SysCall, service, info, registers, 0) };
    let error = message_label(reply.info);
    if error == gen_::seL4_NoError {
        return Ok(reply.words);
    }
    // SAFETY: the caller vouches for the buffer.
    unsafe { keep_details(ipc, &reply.words) };
    Err(error)
}

/// # Safety
/// As for [`set_mr`].
#[cold]
unsafe fn keep_details(ipc: *mut seL4_IPCBuffer, words: &[u64; REGISTER_WORDS]) {
    for (index, word) in words.iter().enumerate() {
        // SAFETY: the caller vouches for the buffer, and registers come first.
        unsafe { set_mr(ipc, index, *word) };
    }
}
