//! Gate packer: turns every `syscall` instruction of a program into `int 0xA0`.
//!
//! On a kernel entered with `syscall`, a bare `syscall` executed by an
//! application loses its stack pointer. `int 0xA0` has the same length and
//! reaches the same server with every register exact, so the two bytes
//! `0F 05` are replaced by `CD A0`, where they are an *instruction*. The same
//! two bytes inside an immediate, a displacement or a table stay.
//!
//! # How instructions are found
//! 1. **Code** is the file bytes of executable sections inside executable
//!    segments; without a section table, all file bytes of such segments.
//! 2. **Sweep**: code is cut at every symbol and at the entry point; each chunk
//!    is decoded one instruction after the other. A chunk that stops decoding
//!    is unknown from there to its end.
//! 3. **Flow**: independently, control flow is followed from functions and the
//!    entry point through direct branches, calls and fall-through.
//!
//! # Invariants
//! - **G1** A pair is rewritten only where a reading sees a `syscall`
//!   instruction and the other, if it came by, sees the same instruction.
//! - **G2** A pair neither reading knows, or one they disagree about, is an
//!   error: nothing is guessed. Unknown code without such a pair is harmless and
//!   accepted.
//! - **G3** Nothing but the two bytes of each site changes.
//!
//! A `syscall` this cannot see (made at run time, or hidden by a false section
//! table) is not a hole: the kernel reports it as a fault and the program dies.

use iced_x86::{Code as Mnemonic, Decoder, DecoderOptions, FlowControl, Instruction};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind, elf};

/// Encoding of `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Encoding of `int 0xA0`, a vector every seL4 x86_64 build leaves to user code.
const INT_GATE: [u8; 2] = [0xcd, 0xa0];
/// Longest x86 instruction (Intel SDM volume 2, section 2.3.11).
const INSTRUCTION_BYTES_MAX: usize = 15;

/// Why a program could not be given the gate.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GateError {
    /// The file is not a 64-bit little-endian ELF file that can be read.
    #[error("not a readable ELF64 file: {0}")]
    NotElf(String),
    /// A candidate lies in bytes that do not decode (G2).
    #[error(
        "bytes 0f 05 at {pair:#x} may or may not be a `syscall`: the code around them does not \
         decode from {since:#x} on; keep data out of executable sections, or keep the symbols"
    )]
    Undecodable {
        /// Address of the two bytes.
        pair: u64,
        /// Where decoding stopped.
        since: u64,
    },
    /// Two ways of reading the code disagree about a candidate (G2).
    #[error(
        "bytes 0f 05 at {pair:#x} are a `syscall` on one path and part of the instruction at \
         {other:#x} on another; such code cannot be given the gate"
    )]
    Ambiguous {
        /// Address of the two bytes.
        pair: u64,
        /// The other instruction that claims them.
        other: u64,
    },
}

/// Why a pair `0F 05` was not rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is part of the instruction at this address.
    InsideInstruction(u64),
    /// It lies in an executable segment, outside every executable section.
    OutsideCode,
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InsideInstruction(at) => write!(f, "part of the instruction at {at:#x}"),
            Self::OutsideCode => f.write_str("outside every executable section"),
        }
    }
}

/// What was found in one program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Addresses of the `0F 05` bytes of every `syscall` instruction, ascending.
    pub sites: Vec<u64>,
    /// Pairs that are not instructions, with the reason.
    pub kept: Vec<(u64, Kept)>,
}

/// A run of bytes that may execute, at its link address.
#[derive(Clone, Copy)]
struct Code<'a> {
    address: u64,
    bytes: &'a [u8],
}

impl Code<'_> {
    fn end(&self) -> u64 {
        self.address + self.bytes.len() as u64
    }

    fn offset_of(&self, address: u64) -> Option<usize> {
        (self.address..self.end())
            .contains(&address)
            .then(|| (address - self.address) as usize)
    }

    fn decode(&self, offset: usize, end: usize) -> Option<Instruction> {
        let ip = self.address + offset as u64;
        let mut decoder = Decoder::with_ip(64, &self.bytes[offset..end], ip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        (!instruction.is_invalid()).then_some(instruction)
    }
}

/// Instructions recognised in one run of code: at each offset where one
/// starts, its length; elsewhere zero.
struct Reading {
    lengths: Vec<u8>,
    syscalls: Vec<bool>,
}

impl Reading {
    fn new(code: &Code<'_>) -> Self {
        Self {
            lengths: vec![0; code.bytes.len()],
            syscalls: vec![false; code.bytes.len()],
        }
    }

    fn record(&mut self, offset: usize, instruction: &Instruction) {
        self.lengths[offset] = instruction.len() as u8;
        if instruction.code() == Mnemonic::Syscall {
            // Prefixes come first, so the opcode is the last two bytes.
            self.syscalls[offset + instruction.len() - SYSCALL.len()] = true;
        }
    }

    /// The first of the instructions that include the byte at `offset`.
    fn owner(&self, offset: usize) -> Option<usize> {
        self.covering(offset).next()
    }

    /// End of the last instruction that starts before `offset`.
    fn decoded_until(&self, offset: usize) -> usize {
        let last = self.lengths[..offset]
            .iter()
            .rposition(|&length| length != 0);
        last.map_or(0, |start| start + usize::from(self.lengths[start]))
    }

    /// Offsets of the instructions that include the byte at `offset`.
    fn covering(&self, offset: usize) -> impl Iterator<Item = usize> + '_ {
        let first = offset.saturating_sub(INSTRUCTION_BYTES_MAX - 1);
        (first..=offset).filter(move |&start| {
            let length = usize::from(self.lengths[start]);
            length > 0 && start + length > offset
        })
    }
}

/// Decodes chunk by chunk; the chunks begin at `starts` (sorted).
fn sweep(code: &Code<'_>, starts: &[u64]) -> Reading {
    let mut reading = Reading::new(code);
    let mut cuts: Vec<usize> = starts.iter().filter_map(|&a| code.offset_of(a)).collect();
    cuts.push(0);
    cuts.push(code.bytes.len());
    cuts.sort_unstable();
    cuts.dedup();
    for chunk in cuts.windows(2) {
        let (mut offset, end) = (chunk[0], chunk[1]);
        while offset < end {
            let Some(instruction) = code.decode(offset, end) else {
                break;
            };
            reading.record(offset, &instruction);
            offset += instruction.len();
        }
    }
    reading
}

/// Follows control flow from `roots` through all of `code`.
fn follow(code: &[Code<'_>], roots: &[u64]) -> Vec<Reading> {
    let mut readings: Vec<Reading> = code.iter().map(Reading::new).collect();
    let mut pending: Vec<u64> = roots.to_vec();
    while let Some(address) = pending.pop() {
        let located = code
            .iter()
            .enumerate()
            .find_map(|(index, run)| Some((index, run.offset_of(address)?)));
        let Some((index, offset)) = located else {
            continue;
        };
        if readings[index].lengths[offset] != 0 {
            continue;
        }
        let run = &code[index];
        if let Some(instruction) = run.decode(offset, run.bytes.len()) {
            readings[index].record(offset, &instruction);
            push_successors(&instruction, &mut pending);
        }
    }
    readings
}

/// Pushes the addresses that may execute after `instruction`.
fn push_successors(instruction: &Instruction, pending: &mut Vec<u64>) {
    let (falls_through, jumps) = match instruction.flow_control() {
        FlowControl::Next | FlowControl::IndirectCall | FlowControl::Interrupt => (true, false),
        FlowControl::Call => (true, instruction.is_call_near()),
        FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend => (true, true),
        FlowControl::UnconditionalBranch => (false, instruction.is_jmp_short_or_near()),
        FlowControl::Return | FlowControl::IndirectBranch | FlowControl::Exception => {
            (false, false)
        }
    };
    if jumps && instruction.near_branch_target() != 0 {
        pending.push(instruction.near_branch_target());
    }
    if falls_through {
        pending.push(instruction.next_ip());
    }
}

/// Offsets of the byte pair `0F 05`.
fn pairs(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    bytes
        .windows(SYSCALL.len())
        .enumerate()
        .filter_map(|(offset, window)| (window == SYSCALL).then_some(offset))
}

/// Judges every pair in `code` (G1, G2). `functions` are addresses known to
/// begin instructions, `labels` further places to start the sweep at.
fn scan(code: &[Code<'_>], functions: &[u64], labels: &[u64]) -> Result<Report, GateError> {
    let starts: Vec<u64> = functions.iter().chain(labels).copied().collect();
    let flows = follow(code, functions);
    let mut report = Report::default();
    for (run, flow) in code.iter().zip(&flows) {
        let swept = sweep(run, &starts);
        for offset in pairs(run.bytes) {
            judge(run, &swept, flow, offset, &mut report)?;
        }
    }
    report.sites.sort_unstable();
    Ok(report)
}

/// Judges one pair of `run` at `offset`. Where the sweep stopped decoding, flow
/// decides if it came by.
fn judge(
    run: &Code<'_>,
    swept: &Reading,
    flow: &Reading,
    offset: usize,
    report: &mut Report,
) -> Result<(), GateError> {
    let address_of = |offset: usize| run.address + offset as u64;
    let pair = address_of(offset);
    let readers = [swept, flow];
    let reader = readers.into_iter().find(|r| r.owner(offset).is_some());
    let Some((reader, owner)) = reader.and_then(|r| Some((r, r.owner(offset)?))) else {
        return Err(GateError::Undecodable {
            pair,
            since: address_of(swept.decoded_until(offset)),
        });
    };
    let is_site = reader.syscalls[offset];
    let dissent = flow.covering(offset).find(|&start| start != owner);
    if let Some(other) = dissent.filter(|_| is_site || flow.syscalls[offset]) {
        return Err(GateError::Ambiguous {
            pair,
            other: address_of(if is_site { other } else { owner }),
        });
    }
    if is_site {
        report.sites.push(pair);
    } else {
        let kept = Kept::InsideInstruction(address_of(owner));
        report.kept.push((pair, kept));
    }
    Ok(())
}

/// The file bytes of one executable segment.
struct Segment<'a> {
    code: Code<'a>,
    file_offset: usize,
}

fn executable_segments<'a>(file: &ElfFile64<'a>) -> Result<Vec<Segment<'a>>, GateError> {
    let endian = file.endian();
    let mut segments = Vec::new();
    for header in file.elf_program_headers() {
        let executable = header.p_flags(endian).0 & elf::PF_X.0 != 0;
        if header.p_type(endian) != elf::PT_LOAD || !executable {
            continue;
        }
        let bytes = header.data(endian, file.data()).map_err(|()| {
            GateError::NotElf("an executable segment lies outside the file".into())
        })?;
        let address = header.p_vaddr(endian);
        if address.checked_add(bytes.len() as u64).is_none() {
            return Err(GateError::NotElf(
                "a segment wraps the address space".into(),
            ));
        }
        segments.push(Segment {
            code: Code { address, bytes },
            file_offset: header.p_offset(endian) as usize,
        });
    }
    Ok(segments)
}

/// The runs of `segment` that hold code according to the section table; the
/// whole segment if the table names none.
fn code_in<'a>(segment: &Segment<'a>, file: &ElfFile64<'a>) -> Vec<Code<'a>> {
    let span = &segment.code;
    let mut runs: Vec<Code<'a>> = file
        .sections()
        .filter(|section| {
            matches!(section.flags(), SectionFlags::Elf { sh_flags, .. }
                if sh_flags.0 & elf::SHF_EXECINSTR.0 != 0)
        })
        .filter_map(|section| {
            let first = section.address().max(span.address);
            let end = section
                .address()
                .checked_add(section.size())?
                .min(span.end());
            let bytes = (first < end).then(|| {
                &span.bytes[(first - span.address) as usize..(end - span.address) as usize]
            })?;
            Some(Code {
                address: first,
                bytes,
            })
        })
        .collect();
    if runs.is_empty() {
        runs.push(*span);
    }
    runs
}

/// Finds every `syscall` instruction of a program.
///
/// # Errors
/// [`GateError`]: the file is not ELF64, or a candidate cannot be judged.
pub fn inspect(file_bytes: &[u8]) -> Result<Report, GateError> {
    let file = parse(file_bytes)?;
    let segments = executable_segments(&file)?;
    let code: Vec<Code<'_>> = segments.iter().flat_map(|s| code_in(s, &file)).collect();
    let mut functions = vec![file.entry()];
    let mut labels = Vec::new();
    for symbol in file.symbols().filter(|s| s.is_definition()) {
        match symbol.kind() {
            SymbolKind::Text => functions.push(symbol.address()),
            SymbolKind::Label | SymbolKind::Unknown => labels.push(symbol.address()),
            _ => {}
        }
    }
    let mut report = scan(&code, &functions, &labels)?;
    report.kept.extend(
        segments
            .iter()
            .flat_map(|s| pairs(s.code.bytes).map(|offset| s.code.address + offset as u64))
            .filter(|&pair| !code.iter().any(|run| run.offset_of(pair).is_some()))
            .map(|pair| (pair, Kept::OutsideCode)),
    );
    report.kept.sort_unstable_by_key(|(pair, _)| *pair);
    Ok(report)
}

/// Rewrites every `syscall` instruction of `file_bytes` in place.
///
/// # Errors
/// As [`inspect`]; the bytes are untouched then.
pub fn rewrite(file_bytes: &mut [u8]) -> Result<Report, GateError> {
    let report = inspect(file_bytes)?;
    let offsets = {
        let file = parse(file_bytes)?;
        let segments = executable_segments(&file)?;
        report
            .sites
            .iter()
            .flat_map(|&site| {
                segments
                    .iter()
                    .filter_map(move |s| Some(s.file_offset + s.code.offset_of(site)?))
            })
            .collect::<Vec<usize>>()
    };
    for offset in offsets {
        file_bytes[offset..offset + INT_GATE.len()].copy_from_slice(&INT_GATE);
    }
    Ok(report)
}

fn parse(file_bytes: &[u8]) -> Result<ElfFile64<'_>, GateError> {
    let not_elf = |error: object::Error| GateError::NotElf(error.to_string());
    let header = elf::FileHeader64::<object::Endianness>::parse(file_bytes).map_err(not_elf)?;
    header.endian().map_err(not_elf)?;
    ElfFile64::parse(file_bytes).map_err(not_elf)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x20_0000;

    fn scan_bytes(bytes: &[u8]) -> Result<Report, GateError> {
        scan_with(bytes, &[BASE], &[])
    }

    fn scan_with(bytes: &[u8], functions: &[u64], labels: &[u64]) -> Result<Report, GateError> {
        let code = Code {
            address: BASE,
            bytes,
        };
        scan(&[code], functions, labels)
    }

    #[test]
    fn a_plain_syscall_is_a_site() {
        // mov eax, 2; syscall; ret
        let report = scan_bytes(&[0xb8, 2, 0, 0, 0, 0x0f, 0x05, 0xc3]).unwrap();
        assert_eq!(report.sites, [BASE + 5]);
        assert!(report.kept.is_empty());
    }

    #[test]
    fn a_prefixed_syscall_is_rewritten_at_its_opcode() {
        // rex.w syscall; ret
        let report = scan_bytes(&[0x48, 0x0f, 0x05, 0xc3]).unwrap();
        assert_eq!(report.sites, [BASE + 1]);
    }

    #[test]
    fn the_pair_inside_an_immediate_stays() {
        // mov eax, 0x0000050f; syscall; ret
        let report = scan_bytes(&[0xb8, 0x0f, 0x05, 0, 0, 0x0f, 0x05, 0xc3]).unwrap();
        assert_eq!(report.sites, [BASE + 5]);
        assert_eq!(report.kept, [(BASE + 1, Kept::InsideInstruction(BASE))]);
    }

    #[test]
    fn the_pair_inside_a_displacement_stays() {
        // mov eax, [rip + 0x050f]; ret
        let report = scan_bytes(&[0x8b, 0x05, 0x0f, 0x05, 0, 0, 0xc3]).unwrap();
        assert!(report.sites.is_empty());
        assert_eq!(report.kept, [(BASE + 2, Kept::InsideInstruction(BASE))]);
    }

    #[test]
    fn the_pair_across_two_instructions_stays() {
        // mov al, 0x0f; add eax, 1; ret
        let report = scan_bytes(&[0xb0, 0x0f, 0x05, 1, 0, 0, 0, 0xc3]).unwrap();
        assert!(report.sites.is_empty());
        assert_eq!(report.kept, [(BASE + 1, Kept::InsideInstruction(BASE))]);
    }

    #[test]
    fn a_syscall_behind_an_indirect_jump_is_found_by_the_sweep() {
        // jmp rax; syscall; ret
        let report = scan_bytes(&[0xff, 0xe0, 0x0f, 0x05, 0xc3]).unwrap();
        assert_eq!(report.sites, [BASE + 2]);
    }

    #[test]
    fn a_symbol_resynchronises_after_data() {
        // ret; one byte that swallows what follows; then a function: syscall; ret
        let bytes = [0xc3, 0xe8, 0x0f, 0x05, 0xc3];
        let functions = [BASE, BASE + 2];
        assert_eq!(
            scan_with(&bytes, &functions, &[]).unwrap().sites,
            [BASE + 2]
        );
    }

    #[test]
    fn undecodable_bytes_without_a_pair_are_accepted() {
        // ret; 06 is not an instruction in 64-bit mode
        let report = scan_bytes(&[0xc3, 0x06, 0x06, 0x06]).unwrap();
        assert_eq!(report, Report::default());
    }

    #[test]
    fn undecodable_bytes_with_a_pair_are_refused_with_the_address() {
        let refusal = scan_bytes(&[0xc3, 0x06, 0x0f, 0x05, 0xc3]).unwrap_err();
        let expected = GateError::Undecodable {
            pair: BASE + 2,
            since: BASE + 1,
        };
        assert_eq!(refusal, expected);
        assert!(refusal.to_string().contains("0x200002"), "{refusal}");
    }

    #[test]
    fn flow_decides_where_the_sweep_stopped() {
        // jmp +1; 06 is not an instruction; syscall; ret
        let report = scan_bytes(&[0xeb, 0x01, 0x06, 0x0f, 0x05, 0xc3]).unwrap();
        assert_eq!(report.sites, [BASE + 3]);
    }

    #[test]
    fn a_jump_into_an_immediate_that_is_a_syscall_is_refused() {
        // jmp +1; mov eax, 0x00c3050f: the jump lands on 0f 05 c3
        let refusal = scan_bytes(&[0xeb, 0x01, 0xb8, 0x0f, 0x05, 0xc3, 0x00]).unwrap_err();
        let expected = GateError::Ambiguous {
            pair: BASE + 3,
            other: BASE + 2,
        };
        assert_eq!(refusal, expected);
    }

    #[test]
    fn flow_that_reads_a_swept_site_as_an_operand_is_refused() {
        // jmp +2; a label splits the immediate so that the sweep sees a syscall
        let bytes = [0xeb, 0x00, 0xb8, 0x0f, 0x05, 0xc3, 0x00, 0xc3];
        let refusal = scan_with(&bytes, &[BASE], &[BASE + 3]).unwrap_err();
        let expected = GateError::Ambiguous {
            pair: BASE + 3,
            other: BASE + 2,
        };
        assert_eq!(refusal, expected);
    }

    #[test]
    fn a_conditional_branch_follows_both_ways() {
        // jz +2; syscall; ret; syscall; ret
        let bytes = [0x74, 0x03, 0x0f, 0x05, 0xc3, 0x0f, 0x05, 0xc3];
        assert_eq!(scan_bytes(&bytes).unwrap().sites, [BASE + 2, BASE + 5]);
    }

    #[test]
    fn text_that_is_not_elf_is_refused() {
        assert!(matches!(inspect(b"#!/bin/sh\n"), Err(GateError::NotElf(_))));
    }
}
