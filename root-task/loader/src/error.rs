//! Why a program image or a change to an address space was refused.

use core::fmt;

/// Which program header an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// A `PT_LOAD` segment.
    Load,
    /// The `PT_TLS` segment.
    Tls,
}

impl fmt::Display for SegmentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "load segment",
            Self::Tls => "TLS segment",
        })
    }
}

/// Why a file is not a capOS program this loader accepts.
///
/// Each variant names one broken rule; the remedy is always to relink the
/// program (the `Display` text says how). `index` counts program headers from
/// zero, as `readelf -l` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file ends before the 64-byte ELF header does.
    TruncatedHeader {
        /// Length of the file in bytes.
        length: usize,
    },
    /// The first four bytes are not `\x7fELF`.
    NotElf,
    /// Not a 64-bit file.
    WrongClass(u8),
    /// Not little-endian.
    WrongByteOrder(u8),
    /// An ELF version other than 1.
    WrongVersion(u32),
    /// Not for x86-64.
    WrongMachine(u16),
    /// A shared object or position-independent executable.
    NotStatic,
    /// Neither executable nor shared object.
    WrongType(u16),
    /// Program headers of a size other than 56 bytes.
    WrongHeaderSize(u16),
    /// More program headers than [`MAX_PROGRAM_HEADERS`](crate::image::MAX_PROGRAM_HEADERS).
    TooManyHeaders(u16),
    /// The program header table does not lie inside the file.
    HeadersOutsideFile,
    /// The program asks for a dynamic linker (`PT_INTERP` or `PT_DYNAMIC`).
    NeedsDynamicLinker {
        /// The program header.
        index: usize,
    },
    /// Nothing to load.
    NoSegments,
    /// More load segments than [`MAX_SEGMENTS`](crate::image::MAX_SEGMENTS).
    TooManySegments,
    /// Address and file offset differ modulo the page size.
    Misaligned {
        /// The program header.
        index: usize,
        /// Address of the segment.
        vaddr: u64,
        /// Its offset in the file.
        offset: u64,
    },
    /// An alignment that is not a power of two.
    BadAlignment {
        /// The program header.
        index: usize,
        /// What it asks for.
        align: u64,
    },
    /// Address plus size does not fit the user half of the address space.
    WrapsAround {
        /// The program header.
        index: usize,
        /// Which kind of segment.
        kind: SegmentKind,
    },
    /// The segment's bytes are not all inside the file.
    DataOutsideFile {
        /// The program header.
        index: usize,
        /// Which kind of segment.
        kind: SegmentKind,
    },
    /// More bytes in the file than in memory.
    FileLargerThanMemory {
        /// The program header.
        index: usize,
        /// Which kind of segment.
        kind: SegmentKind,
    },
    /// Writable and executable at once.
    WritableAndExecutable {
        /// The program header.
        index: usize,
    },
    /// Neither readable, writable nor executable.
    NoAccess {
        /// The program header.
        index: usize,
    },
    /// Not wholly inside the image window.
    OutsideImageWindow {
        /// The program header.
        index: usize,
        /// First page the segment needs.
        start: u64,
        /// First address past its last page.
        end: u64,
    },
    /// Two segments need the same page.
    Overlap {
        /// An address in the page both claim.
        page: u64,
    },
    /// A second TLS segment.
    SecondTls {
        /// The program header.
        index: usize,
    },
    /// The TLS template, rounded up, does not fit the TLS region.
    TlsTooLarge {
        /// Bytes the block needs.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
    /// The TLS segment's address does not honour its own alignment, or asks
    /// for more than a page.
    TlsMisaligned {
        /// Address of the template.
        vaddr: u64,
        /// Alignment it asks for.
        align: u64,
    },
    /// The entry point lies in no executable segment.
    EntryNotExecutable {
        /// The entry point.
        entry: u64,
    },
}

const RELINK: &str = "link with capOS's linker.ld, -static -no-pie";

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TruncatedHeader { length } => {
                write!(f, "file of {length} bytes ends inside the ELF header")
            }
            Self::NotElf => f.write_str("not an ELF file"),
            Self::WrongClass(class) => write!(f, "ELF class {class}, need 2 (64-bit)"),
            Self::WrongByteOrder(order) => {
                write!(f, "ELF data encoding {order}, need 1 (little-endian)")
            }
            Self::WrongVersion(version) => write!(f, "ELF version {version}, need 1"),
            Self::WrongMachine(machine) => {
                write!(f, "ELF machine {machine:#x}, need 0x3e (x86-64)")
            }
            Self::NotStatic => {
                write!(
                    f,
                    "shared object or position-independent executable: static only; {RELINK}"
                )
            }
            Self::WrongType(kind) => write!(f, "ELF type {kind}, need 2 (executable)"),
            Self::WrongHeaderSize(size) => {
                write!(f, "program headers of {size} bytes, need 56")
            }
            Self::TooManyHeaders(count) => {
                let most = crate::image::MAX_PROGRAM_HEADERS;
                write!(f, "{count} program headers, at most {most}")
            }
            Self::HeadersOutsideFile => {
                f.write_str("program header table lies outside the file (truncated?)")
            }
            Self::NeedsDynamicLinker { index } => {
                write!(
                    f,
                    "program header {index} asks for a dynamic linker: static only; {RELINK}"
                )
            }
            Self::NoSegments => f.write_str("no load segment"),
            Self::TooManySegments => {
                write!(f, "more than {} load segments", crate::image::MAX_SEGMENTS)
            }
            Self::Misaligned {
                index,
                vaddr,
                offset,
            } => write!(
                f,
                "program header {index}: address {vaddr:#x} and file offset {offset:#x} \
                 differ within the page; {RELINK}"
            ),
            Self::BadAlignment { index, align } => {
                write!(
                    f,
                    "program header {index}: alignment {align:#x} is not a power of two"
                )
            }
            Self::WrapsAround { index, kind } => {
                write!(
                    f,
                    "program header {index}: {kind} leaves the user address space"
                )
            }
            Self::DataOutsideFile { index, kind } => write!(
                f,
                "program header {index}: bytes of the {kind} lie outside the file (truncated?)"
            ),
            Self::FileLargerThanMemory { index, kind } => {
                write!(
                    f,
                    "program header {index}: {kind} has more bytes in the file than in memory"
                )
            }
            Self::WritableAndExecutable { index } => {
                write!(
                    f,
                    "program header {index}: segment is writable and executable; {RELINK}"
                )
            }
            Self::NoAccess { index } => {
                write!(f, "program header {index}: segment allows no access")
            }
            Self::OutsideImageWindow { index, start, end } => write!(
                f,
                "program header {index}: pages {start:#x}..{end:#x} lie outside the image window \
                 {:#x}..{:#x}; {RELINK}",
                crate::layout::IMAGE_BASE,
                crate::layout::IMAGE_LIMIT
            ),
            Self::Overlap { page } => {
                write!(f, "two load segments share the page at {page:#x}; {RELINK}")
            }
            Self::SecondTls { index } => {
                write!(f, "program header {index}: a second TLS segment")
            }
            Self::TlsTooLarge { needed, available } => {
                write!(
                    f,
                    "TLS block needs {needed} bytes, {available} are available"
                )
            }
            Self::TlsMisaligned { vaddr, align } => {
                write!(
                    f,
                    "TLS segment at {vaddr:#x} asks for alignment {align:#x}, at most a page"
                )
            }
            Self::EntryNotExecutable { entry } => {
                write!(f, "entry point {entry:#x} lies in no executable segment")
            }
        }
    }
}

impl core::error::Error for LoadError {}

/// Why a change to an [`AddressMap`](crate::AddressMap) was refused. The map
/// is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The range is empty, not page-aligned, wraps, or leaves user space: the
    /// caller's arguments are wrong.
    BadRange,
    /// Something is mapped there already: unmap it or choose another address.
    Overlaps {
        /// First address of the region in the way.
        start: u64,
    },
    /// Writable and executable at once: ask for one of the two.
    WritableAndExecutable,
    /// Part of the range belongs to no region: only mapped ranges can be
    /// unmapped or protected.
    NotMapped {
        /// First address without a region.
        address: u64,
    },
    /// The range touches a fixed region (image, stack, TLS, ring, CapSet)
    /// that lives as long as the process.
    Fixed {
        /// First address of that region.
        start: u64,
    },
    /// Part of the range belongs to someone else: anonymous memory and memory
    /// objects are changed through the capability they came from.
    Foreign {
        /// First address of that region.
        start: u64,
    },
    /// Part of the range has memory already: only reserved ranges are
    /// committed.
    Committed {
        /// First address of that region.
        start: u64,
    },
    /// Part of the range is reserved without memory: commit it first.
    Uncommitted {
        /// First address of that region.
        start: u64,
    },
    /// No free range of that length.
    NoSpace,
    /// The map holds as many regions as it was made for: unmap something.
    TooManyRegions,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadRange => f.write_str("range is empty, unaligned or outside user space"),
            Self::Overlaps { start } => write!(f, "range overlaps the region at {start:#x}"),
            Self::WritableAndExecutable => f.write_str("writable and executable at once"),
            Self::NotMapped { address } => write!(f, "nothing is mapped at {address:#x}"),
            Self::Fixed { start } => write!(f, "the region at {start:#x} is fixed"),
            Self::Foreign { start } => write!(f, "the region at {start:#x} is someone else's"),
            Self::Committed { start } => write!(f, "the region at {start:#x} has memory"),
            Self::Uncommitted { start } => write!(f, "the region at {start:#x} has no memory"),
            Self::NoSpace => f.write_str("no free range of that length"),
            Self::TooManyRegions => f.write_str("too many regions"),
        }
    }
}

impl core::error::Error for MapError {}
