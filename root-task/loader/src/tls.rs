//! Where the first thread's TLS block lies and what goes into it.
//!
//! x86-64 uses variant II of the TLS layout (ELF TLS specification, section
//! 3.4.6): the block of the executable ends at the thread pointer, and the
//! word the thread pointer points at holds the thread pointer itself.
//!
//! ```text
//!  region_base          image                    fs_base
//!  |  padding           | template  | zeroes ... | self | zeroes (TCB) |
//! ```
//!
//! # No two processes have the same FS base
//! A kernel that remembers which FS base it set last does not set an equal one
//! again, although a program can change the register itself. So that another
//! program's base is never equal, each process slot has a page of the TLS
//! region for itself, in which the block ends.
//!
//! - **L6** The last byte of the thread control block lies in the page of the
//!   slot ([`TlsSlot`]). Blocks of different slots therefore have different
//!   thread pointers, whatever the programs' sizes and alignments.

use crate::error::{LoadError, SegmentKind};
use crate::image::FileRange;
use crate::layout::{PAGE_BYTES, TLS_BASE, TLS_LIMIT, page_ceil};

/// Bytes kept at the thread pointer: the self pointer, and the words compilers
/// reach at fixed offsets from FS (0x28 is the stack protector's).
pub const TCB_BYTES: u64 = 64;

/// Places a TLS block can have; at least as many as processes can exist.
pub const TLS_SLOTS: u64 = 64;

/// Where the block of the first slot ends. The last slot's ends a page before
/// the region does: that page stays unmapped, so that running off the block
/// cannot reach the ring.
const FIRST_END: u64 = TLS_LIMIT - TLS_SLOTS * PAGE_BYTES;

/// What the block may use, in whichever slot: 768 KiB.
pub const TLS_AVAILABLE_BYTES: u64 = FIRST_END - TLS_BASE;

/// Where in the TLS region a process has its block; different for all live
/// processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsSlot(u64);

impl TlsSlot {
    /// The place of the process in this process slot. Of numbers from
    /// [`TLS_SLOTS`] on, several have the same place.
    pub const fn of(process_slot: usize) -> Self {
        Self(process_slot as u64 % TLS_SLOTS)
    }

    /// First address past the blocks of this slot.
    pub const fn end(self) -> u64 {
        FIRST_END + self.0 * PAGE_BYTES
    }
}

/// The initial TLS block, as plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsPlan {
    /// First page of the block.
    pub region_base: u64,
    /// Pages of the block; all of them are backed before the program starts.
    pub pages: u64,
    /// Address that receives the template's first byte.
    pub image: u64,
    /// The template's initialised part; the rest of the block is zero.
    pub template: FileRange,
    /// Thread pointer: the FS base, and also the value of the 8 bytes there.
    pub fs_base: u64,
}

impl TlsPlan {
    /// The block in a slot: whole pages away, so that every alignment stays.
    pub const fn placed(&self, slot: TlsSlot) -> Self {
        let region_base = slot.end() - self.pages * PAGE_BYTES;
        Self {
            region_base,
            image: region_base + (self.image - self.region_base),
            fs_base: region_base + (self.fs_base - self.region_base),
            ..*self
        }
    }

    /// First address past the block's last page.
    pub const fn region_end(&self) -> u64 {
        self.region_base + self.pages * PAGE_BYTES
    }
}

/// A `PT_TLS` header whose file range and sizes were checked.
pub(crate) struct TlsHeader {
    pub index: usize,
    pub vaddr: u64,
    pub template: FileRange,
    pub memory_bytes: u64,
    pub align: u64,
}

/// Lays out the block, in the first slot; `None` when the template is empty.
pub(crate) fn plan(header: &TlsHeader) -> Result<Option<TlsPlan>, LoadError> {
    if header.memory_bytes == 0 {
        return Ok(None);
    }
    let align = header.align.max(1);
    if align > PAGE_BYTES || !header.vaddr.is_multiple_of(align) {
        return Err(LoadError::TlsMisaligned {
            vaddr: header.vaddr,
            align,
        });
    }
    // With an aligned template the linkers agree: the block's size, rounded up
    // to its alignment, is the distance from the first byte to the thread
    // pointer.
    let wraps = LoadError::WrapsAround {
        index: header.index,
        kind: SegmentKind::Tls,
    };
    let offset = header
        .memory_bytes
        .checked_next_multiple_of(align)
        .ok_or(wraps)?;
    // A thread pointer this far above a page boundary honours the template's
    // alignment and the self pointer's own.
    let reach = offset
        .checked_next_multiple_of(align.max(16))
        .ok_or(wraps)?;
    let needed = reach
        .checked_add(TCB_BYTES)
        .and_then(page_ceil)
        .ok_or(wraps)?;
    if needed > TLS_AVAILABLE_BYTES {
        return Err(LoadError::TlsTooLarge {
            needed,
            available: TLS_AVAILABLE_BYTES,
        });
    }
    let region_base = FIRST_END - needed;
    let fs_base = region_base + reach;
    Ok(Some(TlsPlan {
        region_base,
        pages: needed / PAGE_BYTES,
        image: fs_base - offset,
        template: header.template,
        fs_base,
    }))
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    fn header(memory_bytes: u64, align: u64) -> TlsHeader {
        let template = FileRange {
            offset: 0x1000,
            length: memory_bytes.min(4),
        };
        TlsHeader {
            index: 3,
            vaddr: 0x30_0000,
            template,
            memory_bytes,
            align,
        }
    }

    #[test]
    fn an_empty_template_needs_no_block() {
        assert_eq!(plan(&header(0, 1)), Ok(None));
    }

    #[test]
    fn the_block_ends_at_the_thread_pointer() {
        for (size, align, offset) in [
            (1, 1, 1),
            (5, 8, 8),
            (8, 8, 8),
            (33, 32, 64),
            (7, 4096, 4096),
        ] {
            let tls = plan(&header(size, align)).unwrap().unwrap();
            assert_eq!(tls.fs_base - tls.image, offset, "size {size} align {align}");
            assert!(tls.fs_base.is_multiple_of(align.max(16)));
            assert!(tls.image.is_multiple_of(align));
            assert!(tls.image >= tls.region_base);
            assert!(tls.fs_base + TCB_BYTES <= tls.region_end());
            assert!(tls.region_end() < TLS_LIMIT);
        }
    }

    #[test]
    fn no_slots_share_a_thread_pointer() {
        let sizes = [1, 8, 64, 2000, 4016, 4017, 4032, 4033, 4080, 4096, 12_288];
        let most = TLS_AVAILABLE_BYTES - TCB_BYTES;
        let mut owner = BTreeMap::new();
        for size in sizes.into_iter().chain([most]) {
            for align in [1, 16, 64, 128, 1024, 4096] {
                let Ok(Some(tls)) = plan(&header(size, align)) else {
                    assert_eq!((size, align > 64), (most, true));
                    continue;
                };
                for slot in 0..TLS_SLOTS {
                    let placed = tls.placed(TlsSlot::of(slot as usize));
                    check_placed(&tls, &placed, align);
                    assert_eq!(*owner.entry(placed.fs_base).or_insert(slot), slot);
                }
            }
        }
    }

    fn check_placed(tls: &TlsPlan, placed: &TlsPlan, align: u64) {
        assert!(placed.region_base >= TLS_BASE && placed.region_end() < TLS_LIMIT);
        assert_eq!(placed.pages, tls.pages);
        assert_eq!(placed.fs_base - placed.image, tls.fs_base - tls.image);
        assert!(placed.image >= placed.region_base);
        assert!(placed.fs_base.is_multiple_of(align.max(16)));
        let last = placed.fs_base + TCB_BYTES - 1;
        assert_eq!(
            last / PAGE_BYTES,
            placed.region_end() / PAGE_BYTES - 1,
            "L6"
        );
    }

    #[test]
    fn sizes_around_the_limit() {
        let most = TLS_AVAILABLE_BYTES - TCB_BYTES;
        assert!(plan(&header(most, 16)).is_ok());
        let error = plan(&header(most + 1, 16)).unwrap_err();
        assert!(matches!(error, LoadError::TlsTooLarge { .. }), "{error}");
        let error = plan(&header(u64::MAX, 16)).unwrap_err();
        assert!(matches!(error, LoadError::WrapsAround { .. }), "{error}");
    }

    #[test]
    fn alignment_above_a_page_or_not_honoured_is_refused() {
        assert!(matches!(
            plan(&header(8, 8192)),
            Err(LoadError::TlsMisaligned { .. })
        ));
        let crooked = TlsHeader {
            vaddr: 0x30_0004,
            ..header(8, 8)
        };
        assert!(matches!(
            plan(&crooked),
            Err(LoadError::TlsMisaligned { .. })
        ));
    }
}
