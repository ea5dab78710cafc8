//! One bad file per rule, and what a good one becomes.

mod common;

use capos_loader::{
    AddressMap, Backing, Denied, FaultVerdict, LoadError, LoadPlan, RegionKind, SegmentKind,
    TlsSlot,
};
use common::{Elf, Header, PT_DYNAMIC, PT_INTERP, R, W, X};

fn refusal(elf: &Elf) -> LoadError {
    LoadPlan::parse(&elf.build()).expect_err("must be refused")
}

/// The typical file with some bytes changed.
fn patched(offset: usize, bytes: &[u8]) -> LoadError {
    let mut file = Elf::typical().build();
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
    LoadPlan::parse(&file).expect_err("must be refused")
}

/// The typical file with one load segment replaced.
fn segment(header: Header) -> LoadError {
    let mut elf = Elf::typical();
    elf.headers[1] = header;
    refusal(&elf)
}

#[test]
fn a_typical_program_is_planned() {
    let elf = Elf::typical();
    let file = elf.build();
    let plan = LoadPlan::parse(&file).unwrap();
    assert_eq!(plan.entry(), 0x20_0040);
    let pages: Vec<_> = plan
        .segments()
        .iter()
        .map(|segment| (segment.file_pages(), segment.pages()))
        .collect();
    assert_eq!(pages, [(2, 2), (1, 1), (1, 0x301)]);
    assert_eq!(plan.eager_pages(), 4 + 1, "one page of TLS");
    assert_eq!(plan.demand_pages(), 0x300);
    let state = plan.entry_state(9, true, TlsSlot::default());
    assert_eq!(
        (state.rdi, state.rsi, state.rdx),
        (0x120_0000, 9, 0x130_0000)
    );
    let tls = plan.tls().unwrap();
    assert_eq!(state.fs_base, tls.fs_base);
    assert_eq!(tls.fs_base - tls.image, 0x18);
    assert_eq!(tls.template.of(&file).unwrap(), &file[0x4010..0x4020]);
}

#[test]
fn pages_hold_the_bytes_of_the_file_and_zeroes_around_them() {
    let file = Elf::typical().build();
    let plan = LoadPlan::parse(&file).unwrap();
    let text = plan.page_content(0x20_1abc).unwrap();
    assert_eq!(
        (text.offset_in_page, text.bytes.offset, text.bytes.length),
        (0, 0x2000, 0x800)
    );
    let data = plan.page_content(0x20_3000).unwrap();
    assert_eq!(
        (data.offset_in_page, data.bytes.offset, data.bytes.length),
        (0x10, 0x4010, 0x120)
    );
    assert_eq!(data.bytes.of(&file).unwrap(), &file[0x4010..0x4130]);
    let bss = plan.page_content(0x20_4000).unwrap();
    assert_eq!(bss.bytes.length, 0);
    assert_eq!(plan.page_content(0x1f_ffff), None);
    assert_eq!(plan.page_content(0x50_4000), None, "one page past .bss");
}

#[test]
fn the_map_of_a_program_has_its_regions() {
    let plan = LoadPlan::parse(&Elf::typical().build()).unwrap();
    let map = AddressMap::for_program(&plan, true);
    let deny = |address, write, fetch| match map.classify_fault(address, write, fetch) {
        FaultVerdict::Deny(denied) => denied,
        FaultVerdict::Back(page) => panic!("{address:#x} would be backed: {page:x?}"),
    };
    let back = |address, write, fetch| match map.classify_fault(address, write, fetch) {
        FaultVerdict::Back(page) => (page.address, page.backing, page.kind),
        FaultVerdict::Deny(denied) => panic!("{address:#x} denied: {denied:?}"),
    };
    assert_eq!(deny(0, false, false), Denied::Unmapped);
    assert_eq!(deny(0x20_0000, true, false), Denied::NotWritable);
    assert_eq!(deny(0x20_2000, false, true), Denied::NotExecutable);
    assert_eq!(
        deny(0xff_ffff, true, false),
        Denied::Unmapped,
        "below the stack"
    );
    assert_eq!(
        deny(0x101_0000, true, false),
        Denied::Unmapped,
        "above the stack"
    );
    assert_eq!(
        deny(0x11c_0000, true, false),
        Denied::Unmapped,
        "past the TLS block"
    );
    assert_eq!(deny(0x130_0000, true, false), Denied::NotWritable);
    assert_eq!(deny(u64::MAX, true, false), Denied::Unmapped);
    let zeroes = (0x20_4000, Backing::DemandZero, RegionKind::Image);
    assert_eq!(back(0x20_4fff, true, false), zeroes);
    assert_eq!(
        back(0x100_fff8, true, false),
        (0x100_f000, Backing::DemandZero, RegionKind::Stack)
    );
    assert_eq!(
        back(0x120_0000, true, false),
        (0x120_0000, Backing::Eager, RegionKind::Ring)
    );
    assert!(
        map.is_writable(0x20_3000, 0x30_1000),
        "data and .bss are two regions side by side"
    );
    assert!(!map.is_writable(0x20_3000, 0x30_1001));
    assert!(!map.is_writable(0x20_2fff, 2));
    assert!(map.is_readable(0x20_2fff, 2));
    assert!(!map.is_readable(u64::MAX, 2), "wraps around");
    assert!(map.is_readable(0, 0), "nothing is always readable");
    let none = AddressMap::for_program(&plan, false);
    assert_eq!(none.region_at(0x130_0000), None, "no CapSet page");
}

#[test]
fn files_that_are_no_program() {
    assert_eq!(
        LoadPlan::parse(&[]),
        Err(LoadError::TruncatedHeader { length: 0 })
    );
    assert_eq!(
        LoadPlan::parse(&[0; 63]),
        Err(LoadError::TruncatedHeader { length: 63 })
    );
    assert_eq!(patched(0, b"\x7fELG"), LoadError::NotElf);
    assert_eq!(patched(4, &[1]), LoadError::WrongClass(1));
    assert_eq!(patched(5, &[2]), LoadError::WrongByteOrder(2));
    assert_eq!(patched(6, &[0]), LoadError::WrongVersion(0));
    assert_eq!(
        patched(20, &2_u32.to_le_bytes()),
        LoadError::WrongVersion(2)
    );
    assert_eq!(
        patched(18, &0xb7_u16.to_le_bytes()),
        LoadError::WrongMachine(0xb7)
    );
    assert_eq!(patched(16, &3_u16.to_le_bytes()), LoadError::NotStatic);
    assert_eq!(patched(16, &1_u16.to_le_bytes()), LoadError::WrongType(1));
    assert_eq!(
        patched(54, &64_u16.to_le_bytes()),
        LoadError::WrongHeaderSize(64)
    );
    assert_eq!(
        patched(56, &33_u16.to_le_bytes()),
        LoadError::TooManyHeaders(33)
    );
    assert_eq!(
        patched(56, &0xffff_u16.to_le_bytes()),
        LoadError::TooManyHeaders(0xffff)
    );
    assert_eq!(patched(56, &0_u16.to_le_bytes()), LoadError::NoSegments);
    assert_eq!(
        patched(32, &u64::MAX.to_le_bytes()),
        LoadError::HeadersOutsideFile
    );
    assert_eq!(
        patched(32, &0x4f00_u64.to_le_bytes()),
        LoadError::HeadersOutsideFile
    );
}

#[test]
fn this_test_program_is_not_static_and_says_so() {
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let error = LoadPlan::parse(&own).unwrap_err();
    assert_eq!(error, LoadError::NotStatic);
    assert!(error.to_string().contains("static only"));
}

#[test]
fn dynamic_programs() {
    for kind in [PT_INTERP, PT_DYNAMIC] {
        let elf = Elf::typical().with(Header::of_kind(kind));
        assert_eq!(refusal(&elf), LoadError::NeedsDynamicLinker { index: 6 });
    }
}

#[test]
fn segments_outside_the_file() {
    let outside = LoadError::DataOutsideFile {
        index: 1,
        kind: SegmentKind::Load,
    };
    assert_eq!(segment(Header::load(R, 0x5000, 0x20_2000, 1, 1)), outside);
    assert_eq!(
        segment(Header::load(R, 0x3000, 0x20_2000, 0x2001, 0x2001)),
        outside
    );
    assert_eq!(
        segment(Header::load(R, !0xfff, 0x20_2000, 0x1000, 0x1000)),
        outside
    );
    let larger = LoadError::FileLargerThanMemory {
        index: 1,
        kind: SegmentKind::Load,
    };
    assert_eq!(segment(Header::load(R, 0x3000, 0x20_2000, 2, 1)), larger);
}

#[test]
fn segments_outside_the_image_window() {
    let outside = |error| matches!(error, LoadError::OutsideImageWindow { index: 1, .. });
    for vaddr in [0, 0x1f_f000, 0xff_0000, 0x100_0000, 0x120_0000, 0x130_0000] {
        assert!(
            outside(segment(Header::load(R, 0x3000, vaddr, 4, 4))),
            "{vaddr:#x}"
        );
    }
    // One byte into the gap below the stack.
    assert!(outside(segment(Header::load(
        R, 0x3000, 0xfe_f000, 4, 0x1001
    ))));
    let fits = Elf::typical().with(Header::load(R | W, 0x3000, 0xfe_f000, 4, 0x1000));
    assert!(
        LoadPlan::parse(&fits.build()).is_ok(),
        "up to the limit is fine"
    );
}

#[test]
fn segments_that_wrap() {
    let wraps = LoadError::WrapsAround {
        index: 1,
        kind: SegmentKind::Load,
    };
    for (vaddr, memsz) in [
        (0x20_2000, u64::MAX),
        (0xffff_ffff_ffff_f000, 0x1000),
        (0xffff_8000_0000_0000, 0x1000),
        (0x7fff_ffff_f000, 0x1000),
        (0x7fff_ffff_e000, 0x1001),
    ] {
        assert_eq!(
            segment(Header::load(R, 0x3000, vaddr, 0, memsz)),
            wraps,
            "{vaddr:#x}"
        );
    }
}

#[test]
fn segments_that_share_a_page() {
    let mut elf = Elf::typical();
    elf.headers[1] = Header::load(R, 0x2800, 0x20_1800, 0x10, 0x10);
    assert_eq!(refusal(&elf), LoadError::Overlap { page: 0x20_1000 });
    elf.headers[1] = Header::load(R, 0x3000, 0x20_0000, 0x10, 0x10);
    assert!(matches!(refusal(&elf), LoadError::Overlap { .. }));
    // The order of headers does not matter.
    elf.headers.swap(0, 1);
    assert!(matches!(refusal(&elf), LoadError::Overlap { .. }));
}

#[test]
fn permissions_that_make_no_sense() {
    let both = LoadError::WritableAndExecutable { index: 1 };
    assert_eq!(
        segment(Header::load(R | W | X, 0x3000, 0x20_2000, 4, 4)),
        both
    );
    assert_eq!(segment(Header::load(W | X, 0x3000, 0x20_2000, 4, 4)), both);
    assert_eq!(
        segment(Header::load(0, 0x3000, 0x20_2000, 4, 4)),
        LoadError::NoAccess { index: 1 }
    );
}

#[test]
fn alignment() {
    let crooked = LoadError::Misaligned {
        index: 1,
        vaddr: 0x20_2000,
        offset: 0x3004,
    };
    assert_eq!(segment(Header::load(R, 0x3004, 0x20_2000, 4, 4)), crooked);
    let odd = Header {
        align: 12,
        ..Header::load(R, 0x3000, 0x20_2000, 4, 4)
    };
    assert_eq!(
        segment(odd),
        LoadError::BadAlignment {
            index: 1,
            align: 12
        }
    );
    let large = Header {
        align: 0x20_0000,
        ..Header::load(R, 0x3000, 0x20_2000, 4, 4)
    };
    let mut elf = Elf::typical();
    elf.headers[1] = large;
    assert!(
        LoadPlan::parse(&elf.build()).is_ok(),
        "huge-page alignment is only a wish"
    );
}

#[test]
fn entry_points() {
    for entry in [0, 0x1f_ffff, 0x20_1800, 0x20_2000, 0x20_3010, u64::MAX] {
        let elf = Elf {
            entry,
            ..Elf::typical()
        };
        assert_eq!(refusal(&elf), LoadError::EntryNotExecutable { entry });
    }
    let last = Elf {
        entry: 0x20_17ff,
        ..Elf::typical()
    };
    assert!(LoadPlan::parse(&last.build()).is_ok());
}

#[test]
fn thread_locals() {
    let tls = |header| {
        let mut elf = Elf::typical();
        elf.headers[3] = header;
        refusal(&elf)
    };
    let second = Elf::typical().with(Header::tls(0x4010, 0x20_3010, 1, 1, 1));
    assert_eq!(refusal(&second), LoadError::SecondTls { index: 6 });
    let kind = SegmentKind::Tls;
    let outside = LoadError::DataOutsideFile { index: 3, kind };
    assert_eq!(tls(Header::tls(0x4ff8, 0x20_3010, 9, 9, 1)), outside);
    let larger = LoadError::FileLargerThanMemory { index: 3, kind };
    assert_eq!(tls(Header::tls(0x4010, 0x20_3010, 9, 8, 8)), larger);
    let wraps = LoadError::WrapsAround { index: 3, kind };
    assert_eq!(tls(Header::tls(0x4010, 0x20_3010, 8, u64::MAX, 8)), wraps);
    assert_eq!(
        tls(Header::tls(0x4010, 0x20_3010, 8, 8, 24)),
        LoadError::BadAlignment {
            index: 3,
            align: 24
        }
    );
    let crooked = tls(Header::tls(0x4010, 0x20_3010, 8, 8, 32));
    assert!(matches!(crooked, LoadError::TlsMisaligned { .. }));
    let large = tls(Header::tls(0x4010, 0x20_3010, 8, 0x10_0000, 8));
    assert!(matches!(large, LoadError::TlsTooLarge { .. }));
    let mut none = Elf::typical();
    none.headers[3] = Header::tls(0x4010, 0x20_3010, 0, 0, 8);
    let plan = LoadPlan::parse(&none.build()).unwrap();
    assert_eq!(plan.tls(), None, "an empty template needs no block");
    assert_eq!(plan.entry_state(1, true, TlsSlot::of(3)).fs_base, 0);
}

#[test]
fn too_many_segments() {
    let mut elf = Elf::typical();
    for index in 0..14 {
        let vaddr = 0x60_0000 + index * 0x1000;
        elf = elf.with(Header::load(R, 0x1000, vaddr, 1, 1));
    }
    assert_eq!(refusal(&elf), LoadError::TooManySegments);
    elf.headers.retain(|header| header.kind != common::PT_LOAD);
    assert_eq!(refusal(&elf), LoadError::NoSegments);
}

#[test]
fn empty_segments_take_no_page() {
    let elf = Elf::typical().with(Header::load(R | W, 0x1000, 0x60_0000, 0, 0));
    let plan = LoadPlan::parse(&elf.build()).unwrap();
    assert_eq!(plan.segments().len(), 3);
}

#[test]
fn every_message_says_something_to_act_on() {
    let some = [
        LoadError::NotElf,
        LoadError::NotStatic,
        LoadError::WritableAndExecutable { index: 2 },
        LoadError::OutsideImageWindow {
            index: 0,
            start: 0x1000,
            end: 0x2000,
        },
        LoadError::EntryNotExecutable { entry: 0x1000 },
    ];
    for error in some {
        let text = error.to_string();
        assert!(text.len() > 10 && !text.contains("Error"), "{text}");
    }
}
