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

use crate::error::{LoadError, SegmentKind};
use crate::image::FileRange;
use crate::layout::{PAGE_BYTES, TLS_BASE, TLS_LIMIT, page_ceil};

/// Bytes kept at the thread pointer: the self pointer, and the words compilers
/// reach at fixed offsets from FS (0x28 is the stack protector's).
pub const TCB_BYTES: u64 = 64;

/// What the block may use: the region less one unmapped page at its end, so
/// that running off the block cannot reach the ring.
pub const TLS_AVAILABLE_BYTES: u64 = TLS_LIMIT - TLS_BASE - PAGE_BYTES;

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

/// Lays out the block; `None` when the template is empty.
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
    // TLS_BASE is page-aligned, so a thread pointer this far above it honours
    // the template's alignment and the self pointer's own.
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
    let fs_base = TLS_BASE + reach;
    Ok(Some(TlsPlan {
        region_base: TLS_BASE,
        pages: needed / PAGE_BYTES,
        image: fs_base - offset,
        template: header.template,
        fs_base,
    }))
}

#[cfg(test)]
mod tests {
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
