//! ELF files made by hand, and a property runner.

// Not every test program uses all of it.
#![allow(dead_code)]

pub mod property;

pub const PT_LOAD: u32 = 1;
pub const PT_DYNAMIC: u32 = 2;
pub const PT_INTERP: u32 = 3;
pub const PT_NOTE: u32 = 4;
pub const PT_TLS: u32 = 7;
pub const PT_GNU_STACK: u32 = 0x6474_e551;
pub const X: u32 = 1;
pub const W: u32 = 2;
pub const R: u32 = 4;

/// A program header.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub vaddr: u64,
    pub filesz: u64,
    pub memsz: u64,
    pub align: u64,
}

impl Header {
    pub const fn load(flags: u32, offset: u64, vaddr: u64, filesz: u64, memsz: u64) -> Self {
        Self {
            kind: PT_LOAD,
            flags,
            offset,
            vaddr,
            filesz,
            memsz,
            align: 0x1000,
        }
    }

    pub const fn tls(offset: u64, vaddr: u64, filesz: u64, memsz: u64, align: u64) -> Self {
        Self {
            kind: PT_TLS,
            flags: R,
            offset,
            vaddr,
            filesz,
            memsz,
            align,
        }
    }

    pub const fn of_kind(kind: u32) -> Self {
        Self {
            kind,
            flags: R,
            offset: 0,
            vaddr: 0,
            filesz: 0,
            memsz: 0,
            align: 1,
        }
    }
}

/// A file: what its headers say, and how long it is.
#[derive(Clone, Debug)]
pub struct Elf {
    pub entry: u64,
    pub headers: Vec<Header>,
    pub length: usize,
}

impl Elf {
    /// What a linker makes of a capOS program: text, read-only data, data with
    /// .bss, thread-locals.
    pub fn typical() -> Self {
        Self {
            entry: 0x20_0040,
            headers: vec![
                Header::load(R | X, 0x1000, 0x20_0000, 0x1800, 0x1800),
                Header::load(R, 0x3000, 0x20_2000, 0x234, 0x234),
                Header::load(R | W, 0x4010, 0x20_3010, 0x120, 0x30_0051),
                Header::tls(0x4010, 0x20_3010, 0x10, 0x18, 8),
                Header::of_kind(PT_GNU_STACK),
                Header::of_kind(PT_NOTE),
            ],
            length: 0x5000,
        }
    }

    pub fn with(mut self, header: Header) -> Self {
        self.headers.push(header);
        self
    }

    /// The bytes. Each byte past the headers is the low byte of its offset.
    pub fn build(&self) -> Vec<u8> {
        let mut file: Vec<u8> = Vec::new();
        file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        file.extend(2_u16.to_le_bytes());
        file.extend(0x3e_u16.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(self.entry.to_le_bytes());
        file.extend(64_u64.to_le_bytes());
        file.extend(0_u64.to_le_bytes());
        file.extend(0_u32.to_le_bytes());
        for half in [64, 56, self.headers.len() as u16, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        for header in &self.headers {
            file.extend(header.kind.to_le_bytes());
            file.extend(header.flags.to_le_bytes());
            let words = [
                header.offset,
                header.vaddr,
                0,
                header.filesz,
                header.memsz,
                header.align,
            ];
            words
                .iter()
                .for_each(|word| file.extend(word.to_le_bytes()));
        }
        let headers_end = file.len();
        file.extend((headers_end..self.length.max(headers_end)).map(|at| at as u8));
        file
    }
}
