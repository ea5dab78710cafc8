//! The boot archive that packing appends to the image.

use core::slice;

unsafe extern "C" {
    /// First byte after the image, and of the archive.
    static __boot_archive: u8;
    /// Length of the archive in bytes; zero in an image that was not packed.
    static __boot_archive_len: u64;
}

/// The archive packed behind the image; empty where there is none.
#[must_use]
pub fn boot_archive() -> &'static [u8] {
    // SAFETY: the linker script defines both symbols. Whoever wrote the length
    // into the image also made the bytes a segment, which the kernel has
    // loaded and mapped, and which nothing writes.
    unsafe { slice::from_raw_parts(&raw const __boot_archive, __boot_archive_len as usize) }
}
