//! The ELF reader: untrusted bytes in, [`LoadPlan`] out.
//!
//! Headers are decoded by the `elf` crate; this file decides what they may
//! say. Section headers are never read: a program loads from its segments
//! alone. The rules are at least as strict as those of capOS's own parser
//! (`capos_lib::elf`), which the property tests hold us to.

use core::fmt;

use elf::abi;
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader};
use elf::parse::ParsingTable;
use elf::segment::ProgramHeader;

use crate::error::{LoadError, SegmentKind};
use crate::layout::{
    EntryState, IMAGE_BASE, IMAGE_LIMIT, PAGE_BYTES, PAGE_MASK, Protection, USER_LIMIT, page_ceil,
    page_floor,
};
use crate::tls::{self, TlsHeader, TlsPlan, TlsSlot};

/// Most program headers a file may have.
pub const MAX_PROGRAM_HEADERS: u16 = 32;
/// Most load segments a file may have.
pub const MAX_SEGMENTS: usize = 16;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: u16 = 56;

/// A range of bytes inside the program file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileRange {
    /// Offset of the first byte.
    pub offset: u64,
    /// Number of bytes; may be zero.
    pub length: u64,
}

impl FileRange {
    /// The bytes themselves; `None` when `file` is not the file the range was
    /// checked against and is too short.
    pub fn of(self, file: &[u8]) -> Option<&[u8]> {
        let start = usize::try_from(self.offset).ok()?;
        let length = usize::try_from(self.length).ok()?;
        file.get(start..start.checked_add(length)?)
    }
}

/// What one page holds when it is first backed: zeroes, with `bytes` of the
/// file copied to `offset_in_page`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageContent {
    /// Where in the page the file's bytes go.
    pub offset_in_page: u64,
    /// Which bytes; an empty range for a page of zeroes.
    pub bytes: FileRange,
}

/// One load segment, rounded to pages. No two segments share a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// First page.
    pub start: u64,
    /// First address past the last page that holds bytes of the file; equal to
    /// `start` when none does.
    pub file_end: u64,
    /// First address past the last page.
    pub end: u64,
    /// Permissions; never writable and executable.
    pub protection: Protection,
    /// Address of the first byte, in the first page.
    pub vaddr: u64,
    /// Bytes copied from the file to `vaddr`.
    pub data: FileRange,
    /// Size in memory from `vaddr`; what is past `data` is zero.
    pub memory_bytes: u64,
}

impl Segment {
    /// Number of pages that hold bytes of the file.
    pub const fn file_pages(&self) -> u64 {
        (self.file_end - self.start) / PAGE_BYTES
    }

    /// Number of pages in all.
    pub const fn pages(&self) -> u64 {
        (self.end - self.start) / PAGE_BYTES
    }

    /// Content of the page that contains `address`; `None` outside the segment.
    pub fn page_content(&self, address: u64) -> Option<PageContent> {
        let page = page_floor(address);
        if page < self.start || page >= self.end {
            return None;
        }
        let data_end = self.vaddr + self.data.length;
        let from = page.max(self.vaddr);
        let to = (page + PAGE_BYTES).min(data_end);
        if from >= to {
            return Some(PageContent::default());
        }
        let bytes = FileRange {
            offset: self.data.offset + (from - self.vaddr),
            length: to - from,
        };
        Some(PageContent {
            offset_in_page: from - page,
            bytes,
        })
    }
}

/// A checked program: what to map where, and how to start it.
///
/// Holds offsets into the file it was parsed from (L2), not its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct LoadPlan {
    entry: u64,
    segments: [Segment; MAX_SEGMENTS],
    segment_count: usize,
    tls: Option<TlsPlan>,
}

impl fmt::Debug for LoadPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadPlan")
            .field("entry", &self.entry)
            .field("segments", &self.segments())
            .field("tls", &self.tls)
            .finish()
    }
}

impl LoadPlan {
    /// Checks `file` and plans its address space.
    ///
    /// # Errors
    /// The first broken rule met, in the order: file header, program header
    /// table, each program header, the segments together, the entry point.
    pub fn parse(file: &[u8]) -> Result<Self, LoadError> {
        let header = file_header(file)?;
        let table = program_headers(&header, file)?;
        let file_bytes = file.len() as u64;
        let mut plan = Self {
            entry: header.e_entry,
            segments: [Segment::default(); MAX_SEGMENTS],
            segment_count: 0,
            tls: None,
        };
        let mut tls_seen = false;
        for (index, program_header) in table.iter().enumerate() {
            match program_header.p_type {
                abi::PT_LOAD => plan.push(index, &program_header, file_bytes)?,
                abi::PT_TLS if tls_seen => return Err(LoadError::SecondTls { index }),
                abi::PT_TLS => {
                    tls_seen = true;
                    plan.tls = tls::plan(&tls_header(index, &program_header, file_bytes)?)?;
                }
                abi::PT_INTERP | abi::PT_DYNAMIC => {
                    return Err(LoadError::NeedsDynamicLinker { index });
                }
                _ => {}
            }
        }
        plan.settle()?;
        Ok(plan)
    }

    /// Address of the first instruction.
    pub const fn entry(&self) -> u64 {
        self.entry
    }

    /// The segments, by rising address.
    pub fn segments(&self) -> &[Segment] {
        &self.segments[..self.segment_count]
    }

    /// The first thread's TLS block in the first slot, if the program has
    /// thread-locals.
    pub const fn tls(&self) -> Option<&TlsPlan> {
        self.tls.as_ref()
    }

    /// The first thread's TLS block in a slot, if the program has thread-locals.
    pub fn tls_in(&self, slot: TlsSlot) -> Option<TlsPlan> {
        self.tls.as_ref().map(|tls| tls.placed(slot))
    }

    /// Content of the image page that contains `address`; `None` when no
    /// segment has that page.
    pub fn page_content(&self, address: u64) -> Option<PageContent> {
        self.segments()
            .iter()
            .find_map(|segment| segment.page_content(address))
    }

    /// Registers of the program's first thread.
    pub fn entry_state(&self, pid: u64, has_capset: bool, slot: TlsSlot) -> EntryState {
        let fs_base = self.tls_in(slot).map_or(0, |tls| tls.fs_base);
        EntryState::process(self.entry, pid, has_capset, fs_base)
    }

    /// Pages that must be backed before the program starts: those with bytes
    /// of the file, and the TLS block. Ring and CapSet come on top.
    pub fn eager_pages(&self) -> u64 {
        let image: u64 = self.segments().iter().map(Segment::file_pages).sum();
        image + self.tls.as_ref().map_or(0, |tls| tls.pages)
    }

    /// Image pages of zeroes, backed on first touch. The stack comes on top.
    pub fn demand_pages(&self) -> u64 {
        self.segments()
            .iter()
            .map(|segment| segment.pages() - segment.file_pages())
            .sum()
    }

    fn push(
        &mut self,
        index: usize,
        header: &ProgramHeader,
        file_bytes: u64,
    ) -> Result<(), LoadError> {
        let segment = load_segment(index, header, file_bytes)?;
        let free = self
            .segments
            .get_mut(self.segment_count)
            .ok_or(LoadError::TooManySegments)?;
        *free = segment;
        self.segment_count += 1;
        Ok(())
    }

    /// Checks the segments against one another and the entry against them.
    fn settle(&mut self) -> Result<(), LoadError> {
        let segments = &mut self.segments[..self.segment_count];
        if segments.is_empty() {
            return Err(LoadError::NoSegments);
        }
        // Stable, as in capOS's parser: an empty segment takes part in the
        // overlap check exactly where it stands there.
        sort_by_address(segments);
        for pair in segments.windows(2) {
            let end = pair[0].vaddr + pair[0].memory_bytes;
            if page_ceil(end).is_none_or(|end| end > page_floor(pair[1].vaddr)) {
                return Err(LoadError::Overlap {
                    page: page_floor(pair[1].vaddr),
                });
            }
        }
        let entry = self.entry;
        let runs = |segment: &Segment| {
            segment.protection.execute
                && entry >= segment.vaddr
                && entry - segment.vaddr < segment.memory_bytes
        };
        if !segments.iter().any(runs) {
            return Err(LoadError::EntryNotExecutable { entry });
        }
        self.drop_empty();
        Ok(())
    }

    /// Removes segments without a byte; they need no page.
    fn drop_empty(&mut self) {
        let mut kept = 0;
        for index in 0..self.segment_count {
            if self.segments[index].memory_bytes != 0 {
                self.segments[kept] = self.segments[index];
                kept += 1;
            }
        }
        self.segments[kept..].fill(Segment::default());
        self.segment_count = kept;
    }
}

/// Insertion sort: stable, without an allocator, and the input is short.
fn sort_by_address(segments: &mut [Segment]) {
    for sorted in 1..segments.len() {
        let mut at = sorted;
        while at > 0 && segments[at - 1].vaddr > segments[at].vaddr {
            segments.swap(at - 1, at);
            at -= 1;
        }
    }
}

fn file_header(file: &[u8]) -> Result<FileHeader<LittleEndian>, LoadError> {
    let truncated = LoadError::TruncatedHeader { length: file.len() };
    let header = file.get(..HEADER_BYTES).ok_or(truncated)?;
    let (ident, tail) = header.split_at(abi::EI_NIDENT);
    check_ident(ident)?;
    let ident = (
        LittleEndian,
        Class::ELF64,
        ident[abi::EI_OSABI],
        ident[abi::EI_ABIVERSION],
    );
    let header = FileHeader::parse_tail(ident, tail).map_err(|_| truncated)?;
    if header.version != u32::from(abi::EV_CURRENT) {
        return Err(LoadError::WrongVersion(header.version));
    }
    if header.e_machine != abi::EM_X86_64 {
        return Err(LoadError::WrongMachine(header.e_machine));
    }
    match header.e_type {
        abi::ET_EXEC => Ok(header),
        abi::ET_DYN => Err(LoadError::NotStatic),
        other => Err(LoadError::WrongType(other)),
    }
}

fn check_ident(ident: &[u8]) -> Result<(), LoadError> {
    if !ident.starts_with(&abi::ELFMAGIC) {
        return Err(LoadError::NotElf);
    }
    if ident[abi::EI_CLASS] != abi::ELFCLASS64 {
        return Err(LoadError::WrongClass(ident[abi::EI_CLASS]));
    }
    if ident[abi::EI_DATA] != abi::ELFDATA2LSB {
        return Err(LoadError::WrongByteOrder(ident[abi::EI_DATA]));
    }
    if ident[abi::EI_VERSION] != abi::EV_CURRENT {
        return Err(LoadError::WrongVersion(u32::from(ident[abi::EI_VERSION])));
    }
    Ok(())
}

type ProgramHeaders<'a> = ParsingTable<'a, LittleEndian, ProgramHeader>;

fn program_headers<'a>(
    header: &FileHeader<LittleEndian>,
    file: &'a [u8],
) -> Result<ProgramHeaders<'a>, LoadError> {
    if header.e_phnum == 0 {
        return Err(LoadError::NoSegments);
    }
    if header.e_phentsize != PROGRAM_HEADER_BYTES {
        return Err(LoadError::WrongHeaderSize(header.e_phentsize));
    }
    if header.e_phnum > MAX_PROGRAM_HEADERS {
        return Err(LoadError::TooManyHeaders(header.e_phnum));
    }
    let length = u64::from(header.e_phnum) * u64::from(PROGRAM_HEADER_BYTES);
    let range = FileRange {
        offset: header.e_phoff,
        length,
    };
    let bytes = range.of(file).ok_or(LoadError::HeadersOutsideFile)?;
    Ok(ParsingTable::new(LittleEndian, Class::ELF64, bytes))
}

fn load_segment(
    index: usize,
    header: &ProgramHeader,
    file_bytes: u64,
) -> Result<Segment, LoadError> {
    let (vaddr, offset) = (header.p_vaddr, header.p_offset);
    if vaddr & PAGE_MASK != offset & PAGE_MASK {
        return Err(LoadError::Misaligned {
            index,
            vaddr,
            offset,
        });
    }
    let (data, end) = checked_ranges(index, SegmentKind::Load, header, file_bytes)?;
    let protection = protection(index, header.p_flags)?;
    let start = page_floor(vaddr);
    let end = page_ceil(end).unwrap_or(u64::MAX);
    if start < IMAGE_BASE || end > IMAGE_LIMIT {
        return Err(LoadError::OutsideImageWindow { index, start, end });
    }
    let file_end = match header.p_filesz {
        0 => start,
        bytes => page_ceil(vaddr + bytes).unwrap_or(end),
    };
    let memory_bytes = header.p_memsz;
    Ok(Segment {
        start,
        file_end,
        end,
        protection,
        vaddr,
        data,
        memory_bytes,
    })
}

fn tls_header(
    index: usize,
    header: &ProgramHeader,
    file_bytes: u64,
) -> Result<TlsHeader, LoadError> {
    let (template, _) = checked_ranges(index, SegmentKind::Tls, header, file_bytes)?;
    Ok(TlsHeader {
        index,
        vaddr: header.p_vaddr,
        template,
        memory_bytes: header.p_memsz,
        align: header.p_align,
    })
}

/// Checks what load and TLS segments have in common: alignment, memory range,
/// file range. Returns the file range and the first address past the segment.
fn checked_ranges(
    index: usize,
    kind: SegmentKind,
    header: &ProgramHeader,
    file_bytes: u64,
) -> Result<(FileRange, u64), LoadError> {
    let align = header.p_align;
    if align != 0 && !align.is_power_of_two() {
        return Err(LoadError::BadAlignment { index, align });
    }
    let wraps = LoadError::WrapsAround { index, kind };
    let end = header.p_vaddr.checked_add(header.p_memsz).ok_or(wraps)?;
    if header.p_vaddr >= USER_LIMIT || end > USER_LIMIT {
        return Err(wraps);
    }
    if header.p_filesz > header.p_memsz {
        return Err(LoadError::FileLargerThanMemory { index, kind });
    }
    let data_end = header.p_offset.checked_add(header.p_filesz);
    if data_end.is_none_or(|data_end| data_end > file_bytes) {
        return Err(LoadError::DataOutsideFile { index, kind });
    }
    Ok((
        FileRange {
            offset: header.p_offset,
            length: header.p_filesz,
        },
        end,
    ))
}

fn protection(index: usize, flags: u32) -> Result<Protection, LoadError> {
    let protection = Protection::new(
        flags & abi::PF_R != 0,
        flags & abi::PF_W != 0,
        flags & abi::PF_X != 0,
    );
    if protection.is_writable_and_executable() {
        return Err(LoadError::WritableAndExecutable { index });
    }
    if protection.is_none() {
        return Err(LoadError::NoAccess { index });
    }
    Ok(protection)
}
