//! Programs that are wrong in one place each, for tests of the loader.
//!
//! The first is a good program of a few hundred bytes: it exits with
//! [`EXIT_CODE`]. Every other one is that file with one field of the ELF header
//! or of a program header set to something else, or cut short. Some of them are
//! still programs, if not good ones; which, is for the loader to say.
//!
//! Field offsets: ELF-64 object file format, version 1.5, figures 2 and 6.

/// What the good program exits with.
pub const EXIT_CODE: u8 = 7;

/// Where the image begins.
const CODE_ADDRESS: u64 = 0x20_0000;
/// Where the writable segment's page begins.
const DATA_PAGE: u64 = 0x20_1000;
const PAGE_BYTES: u64 = 0x1000;
const DATA_BYTES: u64 = 16;
const MEMORY_BYTES: u64 = 0x2000;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const PROGRAM_HEADERS: usize = 3;
const CODE_OFFSET: usize = HEADER_BYTES + PROGRAM_HEADERS * PROGRAM_HEADER_BYTES;

const PT_LOAD: u32 = 1;
const PT_TLS: u32 = 7;
const READ_EXECUTE: u32 = 5;
const READ_WRITE: u32 = 6;
const READ: u32 = 4;

/// `mov edi, 7; mov eax, 1; int 0xa0; ud2`: exit through the gate.
const CODE: [u8; 14] = [
    0xbf, EXIT_CODE, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0xcd, 0xa0, 0x0f, 0x0b,
];

/// A field: offset and length in bytes.
type Field = (usize, usize);

/// Fields of the ELF header behind the identification.
const HEADER_FIELDS: [Field; 13] = [
    (16, 2),
    (18, 2),
    (20, 4),
    (24, 8),
    (32, 8),
    (40, 8),
    (48, 4),
    (52, 2),
    (54, 2),
    (56, 2),
    (58, 2),
    (60, 2),
    (62, 2),
];

/// Fields of a program header.
const PROGRAM_HEADER_FIELDS: [Field; 8] = [
    (0, 4),
    (4, 4),
    (8, 8),
    (16, 8),
    (24, 8),
    (32, 8),
    (40, 8),
    (48, 8),
];

/// Bytes of the identification.
const IDENTIFICATION_BYTES: usize = 16;

struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    alignment: u64,
}

impl Segment {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.kind.to_le_bytes());
        out.extend(self.flags.to_le_bytes());
        for word in [
            self.offset,
            self.address,
            self.address,
            self.file_bytes,
            self.memory_bytes,
            self.alignment,
        ] {
            out.extend(word.to_le_bytes());
        }
    }
}

/// The good program.
fn base() -> Vec<u8> {
    let data_offset = (CODE_OFFSET + CODE.len()).next_multiple_of(8) as u64;
    let length = data_offset + DATA_BYTES;
    let segments = [
        Segment {
            kind: PT_LOAD,
            flags: READ_EXECUTE,
            offset: 0,
            address: CODE_ADDRESS,
            file_bytes: data_offset,
            memory_bytes: data_offset,
            alignment: PAGE_BYTES,
        },
        Segment {
            kind: PT_LOAD,
            flags: READ_WRITE,
            offset: data_offset,
            address: DATA_PAGE + data_offset,
            file_bytes: DATA_BYTES,
            memory_bytes: MEMORY_BYTES,
            alignment: PAGE_BYTES,
        },
        Segment {
            kind: PT_TLS,
            flags: READ,
            offset: data_offset,
            address: DATA_PAGE + data_offset,
            file_bytes: DATA_BYTES / 2,
            memory_bytes: DATA_BYTES,
            alignment: 8,
        },
    ];
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(IDENTIFICATION_BYTES, 0);
    // Executable, x86-64, version 1.
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend((CODE_ADDRESS + CODE_OFFSET as u64).to_le_bytes());
    file.extend((HEADER_BYTES as u64).to_le_bytes());
    file.extend(0_u64.to_le_bytes());
    file.extend(0_u32.to_le_bytes());
    for half in [
        HEADER_BYTES,
        PROGRAM_HEADER_BYTES,
        PROGRAM_HEADERS,
        64,
        0,
        0,
    ] {
        file.extend((half as u16).to_le_bytes());
    }
    for segment in &segments {
        segment.write(&mut file);
    }
    file.extend(CODE);
    file.resize(data_offset as usize, 0);
    file.resize(length as usize, 0xda);
    file
}

/// What to put in a field that holds `value`.
fn wrong_values(value: u64, len: usize) -> Vec<u64> {
    let highest = 1 << (8 * len - 1);
    let mut values = vec![
        0,
        1,
        u64::MAX,
        value.wrapping_add(1),
        value.wrapping_sub(1),
        value ^ highest,
        value.wrapping_add(PAGE_BYTES),
        value.wrapping_mul(2),
        1 << 46,
        1 << 47,
    ];
    let mask = u64::MAX >> (64 - 8 * len);
    values.iter_mut().for_each(|wrong| *wrong &= mask);
    values.sort_unstable();
    values.dedup();
    values.retain(|&wrong| wrong != value);
    values
}

fn with_field(file: &[u8], (at, len): Field, value: u64) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    file
}

fn field(file: &[u8], (at, len): Field) -> u64 {
    let mut bytes = [0; 8];
    bytes[..len].copy_from_slice(&file[at..at + len]);
    u64::from_le_bytes(bytes)
}

/// The good program and all that are wrong in one place, in a fixed order.
pub fn elf() -> Vec<Vec<u8>> {
    let base = base();
    let identification = (0..IDENTIFICATION_BYTES).map(|at| (at, 1));
    let headers = (0..PROGRAM_HEADERS).flat_map(|header| {
        let start = HEADER_BYTES + header * PROGRAM_HEADER_BYTES;
        PROGRAM_HEADER_FIELDS.map(move |(at, len)| (start + at, len))
    });
    let mut files = vec![base.clone()];
    for place in identification.chain(HEADER_FIELDS).chain(headers) {
        let values = wrong_values(field(&base, place), place.1);
        files.extend(
            values
                .into_iter()
                .map(|value| with_field(&base, place, value)),
        );
    }
    let cuts = [0, 1, 4, 16, 63, 64, 119, 120, 231, 232, base.len() - 1];
    files.extend(cuts.map(|length| base[..length].to_vec()));
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use capos_loader::LoadPlan;

    #[test]
    fn the_first_is_good_and_most_are_not() {
        let files = elf();
        let loads = |file: &Vec<u8>| LoadPlan::parse(file).is_ok();
        assert!(loads(&files[0]), "{:?}", LoadPlan::parse(&files[0]).err());
        let good = files.iter().filter(|file| loads(file)).count();
        let bad = files.len() - good;
        assert!(bad > 150, "{bad} of {} are refused", files.len());
        assert!(good > 20, "{good} of {} load", files.len());
    }

    #[test]
    fn each_is_another_file() {
        let mut files = elf();
        let count = files.len();
        files.sort();
        files.dedup();
        assert_eq!(files.len(), count);
    }
}
