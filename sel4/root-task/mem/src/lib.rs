//! `memcpy`, `memmove`, `memset`, `memcmp`, `bcmp` and `strlen` for x86_64
//! programs that have no C library.
//!
//! The prebuilt `core` for `x86_64-unknown-linux-gnu` expects them from libc.
//! A program that links this crate has them.
//!
//! - No SSE: a server that never touches vector registers spares the kernel
//!   from switching them.
//! - From 32 bytes on, the string instructions move eight bytes per step.
//!   Shorter blocks are moved by loads and stores that may overlap.
//! - The crate is `no_builtins`: otherwise the compiler would recognise these
//!   loops and replace them by calls to themselves.
#![no_std]
#![no_builtins]

use core::arch::asm;
use core::ffi::{c_char, c_int};

/// Below this, blocks are moved without string instructions.
const SHORT: usize = 32;
const WORD: usize = size_of::<u64>();

/// C `memcpy`: copies `len` bytes between blocks that do not overlap.
///
/// # Safety
/// `src` is readable and `dest` writable for `len` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memcpy(dest: *mut u8, src: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both blocks.
    unsafe {
        if len < SHORT {
            copy_short(dest, src, len);
        } else {
            copy_forward(dest, src, len);
        }
    }
    dest
}

/// C `memmove`: copies `len` bytes between blocks that may overlap.
///
/// # Safety
/// `src` is readable and `dest` writable for `len` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memmove(dest: *mut u8, src: *const u8, len: usize) -> *mut u8 {
    // Copying upwards is right unless `dest` starts inside `src`.
    let distance = (dest as usize).wrapping_sub(src as usize);
    // SAFETY: the caller vouches for both blocks.
    unsafe {
        if len < SHORT {
            copy_short(dest, src, len);
        } else if distance >= len {
            copy_forward(dest, src, len);
        } else {
            copy_backward(dest, src, len);
        }
    }
    dest
}

/// C `memset`: fills `len` bytes with the low byte of `value`.
///
/// # Safety
/// `dest` is writable for `len` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memset(dest: *mut u8, value: c_int, len: usize) -> *mut u8 {
    let byte = value.to_le_bytes()[0];
    let pattern = u64::from_ne_bytes([byte; WORD]);
    // SAFETY: the caller vouches for the block; each store below is inside it
    // because of the comparison before it.
    unsafe {
        if len >= WORD {
            store(dest.add(len - WORD), pattern);
            asm!(
                "rep stosq",
                inout("rcx") len / WORD => _,
                inout("rdi") dest => _,
                in("rax") pattern,
                options(nostack, preserves_flags),
            );
        } else if len >= 4 {
            store(dest, pattern as u32);
            store(dest.add(len - 4), pattern as u32);
        } else {
            for index in 0..len {
                dest.add(index).write(byte);
            }
        }
    }
    dest
}

/// C `memcmp`: compares `len` bytes as unsigned numbers.
///
/// # Safety
/// Both blocks are readable for `len` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    let mut at = 0;
    // SAFETY: the caller vouches for both blocks, and every offset read is
    // below `len`.
    unsafe {
        while at + WORD <= len {
            let (x, y): (u64, u64) = (load(a.add(at)), load(b.add(at)));
            if x != y {
                // The first byte that differs decides: make it the highest.
                return if x.to_be() < y.to_be() { -1 } else { 1 };
            }
            at += WORD;
        }
        while at < len {
            let (x, y) = (a.add(at).read(), b.add(at).read());
            if x != y {
                return c_int::from(x) - c_int::from(y);
            }
            at += 1;
        }
    }
    0
}

/// BSD `bcmp`: zero where `len` bytes are equal.
///
/// # Safety
/// Both blocks are readable for `len` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    // SAFETY: the caller vouches for both blocks.
    unsafe { memcmp(a, b, len) }
}

/// C `strlen`: bytes before the terminating zero.
///
/// # Safety
/// `text` is readable up to and including a zero byte.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    let mut len = 0;
    // SAFETY: no byte before this one was zero, so the caller vouches for it.
    while unsafe { text.add(len).read() } != 0 {
        len += 1;
    }
    len
}

/// Copies fewer than [`SHORT`] bytes. All loads come before all stores, so the
/// blocks may overlap.
///
/// # Safety
/// As for [`memmove`], with `len < SHORT`.
#[inline(always)]
unsafe fn copy_short(dest: *mut u8, src: *const u8, len: usize) {
    // SAFETY: as the caller vouches; the two halves of each case cover `len`
    // bytes and stay inside because of the comparison before them.
    unsafe {
        if len >= 2 * WORD {
            let (a, b): (u64, u64) = (load(src), load(src.add(WORD)));
            let tail = len - 2 * WORD;
            let (c, d): (u64, u64) = (load(src.add(tail)), load(src.add(tail + WORD)));
            store(dest, a);
            store(dest.add(WORD), b);
            store(dest.add(tail), c);
            store(dest.add(tail + WORD), d);
        } else if len >= WORD {
            copy_ends::<u64>(dest, src, len);
        } else if len >= 4 {
            copy_ends::<u32>(dest, src, len);
        } else if len >= 2 {
            copy_ends::<u16>(dest, src, len);
        } else if len == 1 {
            dest.write(src.read());
        }
    }
}

/// Copies a block by its first and its last `T`.
///
/// # Safety
/// As for [`memmove`], with `len` between one and two sizes of `T`.
#[inline(always)]
unsafe fn copy_ends<T: Copy>(dest: *mut u8, src: *const u8, len: usize) {
    let tail = len - size_of::<T>();
    // SAFETY: as the caller vouches.
    unsafe {
        let (first, last): (T, T) = (load(src), load(src.add(tail)));
        store(dest, first);
        store(dest.add(tail), last);
    }
}

/// Copies upwards. The last word is loaded first: copying may overwrite it.
///
/// # Safety
/// As for [`memmove`], with `len >= WORD` and `dest` not inside `src`.
#[inline(always)]
unsafe fn copy_forward(dest: *mut u8, src: *const u8, len: usize) {
    // SAFETY: as the caller vouches; the direction flag is clear by the ABI.
    unsafe {
        let last: u64 = load(src.add(len - WORD));
        asm!(
            "rep movsq",
            inout("rcx") len / WORD => _,
            inout("rdi") dest => _,
            inout("rsi") src => _,
            options(nostack, preserves_flags),
        );
        store(dest.add(len - WORD), last);
    }
}

/// Copies downwards. The first word is loaded first: copying may overwrite it.
///
/// # Safety
/// As for [`memmove`], with `len >= WORD`.
#[inline(always)]
unsafe fn copy_backward(dest: *mut u8, src: *const u8, len: usize) {
    // SAFETY: as the caller vouches; the direction flag is clear again after.
    unsafe {
        let first: u64 = load(src);
        asm!(
            "std",
            "rep movsq",
            "cld",
            inout("rcx") len / WORD => _,
            inout("rdi") dest.add(len - WORD) => _,
            inout("rsi") src.add(len - WORD) => _,
            options(nostack),
        );
        store(dest, first);
    }
}

/// # Safety
/// `src` is readable for a `T`, at any alignment.
#[inline(always)]
unsafe fn load<T: Copy>(src: *const u8) -> T {
    // SAFETY: as the caller vouches.
    unsafe { src.cast::<T>().read_unaligned() }
}

/// # Safety
/// `dest` is writable for a `T`, at any alignment.
#[inline(always)]
unsafe fn store<T: Copy>(dest: *mut u8, value: T) {
    // SAFETY: as the caller vouches.
    unsafe { dest.cast::<T>().write_unaligned(value) }
}

#[cfg(test)]
mod tests {
    //! Every length around the thresholds, at every distance, against the
    //! slices of `core`.
    extern crate std;

    use std::vec::Vec;

    use super::*;

    const LENGTHS: core::ops::Range<usize> = 0..100;
    const MARGIN: usize = 16;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|index| (index * 7 + 1) as u8).collect()
    }

    #[test]
    fn copies_exactly_the_block() {
        for len in LENGTHS {
            for shift in 0..WORD {
                let src = pattern(len + WORD);
                let mut dest = std::vec![0xEE; len + 2 * MARGIN];
                // SAFETY: both blocks have `len` bytes there.
                unsafe { memcpy(dest.as_mut_ptr().add(MARGIN), src.as_ptr().add(shift), len) };
                assert_eq!(
                    dest[MARGIN..MARGIN + len],
                    src[shift..shift + len],
                    "len {len}"
                );
                assert!(
                    dest[..MARGIN].iter().all(|byte| *byte == 0xEE),
                    "below, len {len}"
                );
                assert!(
                    dest[MARGIN + len..].iter().all(|byte| *byte == 0xEE),
                    "above, len {len}"
                );
            }
        }
    }

    #[test]
    fn moves_between_overlapping_blocks() {
        for len in LENGTHS {
            for from in 0..2 * MARGIN {
                for to in 0..2 * MARGIN {
                    let mut bytes = pattern(len + 2 * MARGIN);
                    let mut expected = bytes.clone();
                    expected.copy_within(from..from + len, to);
                    let base = bytes.as_mut_ptr();
                    // SAFETY: both blocks are inside `bytes`.
                    unsafe { memmove(base.add(to), base.add(from), len) };
                    assert_eq!(bytes, expected, "len {len} from {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn fills_exactly_the_block() {
        for len in LENGTHS {
            let mut bytes = std::vec![0xEE; len + 2 * MARGIN];
            // SAFETY: the block is inside `bytes`.
            unsafe { memset(bytes.as_mut_ptr().add(MARGIN), 0x1_5A, len) };
            for (index, byte) in bytes.iter().enumerate() {
                let inside = (MARGIN..MARGIN + len).contains(&index);
                assert_eq!(
                    *byte,
                    if inside { 0x5A } else { 0xEE },
                    "len {len} at {index}"
                );
            }
        }
    }

    #[test]
    fn compares_like_slices() {
        for len in LENGTHS {
            let a = pattern(len);
            // SAFETY: both blocks have `len` bytes.
            assert_eq!(unsafe { memcmp(a.as_ptr(), a.as_ptr(), len) }, 0);
            for at in 0..len {
                for value in [0, 1, 127, 128, 255] {
                    let mut b = a.clone();
                    b[at] = value;
                    // SAFETY: both blocks have `len` bytes.
                    let order = unsafe { memcmp(a.as_ptr(), b.as_ptr(), len) };
                    assert_eq!(order.cmp(&0), a.cmp(&b), "len {len} at {at} value {value}");
                    // SAFETY: both blocks have `len` bytes.
                    let different = unsafe { bcmp(a.as_ptr(), b.as_ptr(), len) } != 0;
                    assert_eq!(different, a != b);
                }
            }
        }
    }

    #[test]
    fn counts_to_the_zero() {
        for len in LENGTHS {
            let mut text = std::vec![1u8; len];
            text.push(0);
            // SAFETY: the text ends with a zero.
            assert_eq!(unsafe { strlen(text.as_ptr().cast()) }, len);
        }
    }
}
