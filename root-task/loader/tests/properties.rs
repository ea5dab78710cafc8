//! Mutated programs against capOS's own parser, and address maps against a
//! table of pages.

mod common;

use std::collections::BTreeMap;

use capos_lib::elf as upstream;
use capos_loader::layout::{
    DYNAMIC_BASE, IMAGE_BASE, IMAGE_LIMIT, PAGE_BYTES, TLS_BASE, TLS_LIMIT, USER_LIMIT,
};
use capos_loader::tls::{TCB_BYTES, TLS_SLOTS};
use capos_loader::{
    Access, AddressMap, Backing, Denied, FaultVerdict, LoadPlan, MapError, Protection, Region,
    RegionKind, TlsSlot,
};
use common::property;
use common::{Elf, Header, PT_DYNAMIC, PT_LOAD, PT_NOTE, PT_TLS};
use proptest::collection::vec;
use proptest::prelude::*;

/// Numbers that break things more often than others do.
fn awkward() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0_u64..0x6000,
        4 => 0x1f_0000_u64..0x24_0000,
        2 => 0xfe_0000_u64..0x140_0000,
        1 => 0x7fff_ffff_0000_u64..0x8000_0001_0000,
        1 => u64::MAX - 0x2000..=u64::MAX,
        1 => any::<u64>(),
    ]
}

fn paged() -> impl Strategy<Value = u64> {
    awkward().prop_map(|number| number & !0xfff)
}

fn header() -> impl Strategy<Value = Header> {
    let kind = prop_oneof![
        8 => Just(PT_LOAD),
        2 => Just(PT_TLS),
        1 => Just(PT_NOTE),
        1 => Just(PT_DYNAMIC),
    ];
    let sizes = prop_oneof![
        3 => (0_u64..0x3000, 0_u64..0x3000).prop_map(|(file, more)| (file, file + more)),
        1 => (awkward(), awkward()),
    ];
    let align = prop_oneof![4 => Just(0x1000_u64), 1 => Just(0), 1 => Just(8), 1 => any::<u64>()];
    let place = prop_oneof![
        4 => (0_u64..5, 0_u64..0x40, 0_u64..0x1000)
            .prop_map(|(o, v, low)| (o * 0x1000 + low, 0x20_0000 + v * 0x1000 + low)),
        1 => (paged(), paged()),
        1 => (awkward(), awkward()),
    ];
    (kind, 0_u32..8, place, sizes, align).prop_map(|(kind, flags, place, sizes, align)| Header {
        kind,
        flags,
        offset: place.0,
        vaddr: place.1,
        filesz: sizes.0,
        memsz: sizes.1,
        align,
    })
}

/// Programs from plausible to nonsense, and a handful of changed bytes.
fn files() -> impl Strategy<Value = Vec<u8>> {
    let from_scratch = (awkward(), vec(header(), 0..7), 0x1000_usize..0x8000).prop_map(
        |(entry, headers, length)| Elf {
            entry,
            headers,
            length,
        },
    );
    let altered = (vec(header(), 0..3), any::<prop::sample::Index>()).prop_map(|(new, at)| {
        let mut elf = Elf::typical();
        for header in new {
            let at = at.index(elf.headers.len());
            elf.headers[at] = header;
        }
        elf
    });
    let elf = prop_oneof![1 => Just(Elf::typical()), 3 => altered, 2 => from_scratch];
    let patches = vec((0_usize..0x200, any::<u8>()), 0..6);
    let cut = prop::option::weighted(0.1, 0_usize..0x5000);
    (elf, patches, cut).prop_map(|(elf, patches, cut)| {
        let mut file = elf.build();
        for (at, byte) in patches {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
        }
        file.truncate(cut.unwrap_or(usize::MAX));
        file
    })
}

/// What every plan promises, checked with arithmetic of its own.
fn check_plan(plan: &LoadPlan, file: &[u8]) -> Result<(), TestCaseError> {
    let mut end = IMAGE_BASE;
    for segment in plan.segments() {
        prop_assert!(segment.start >= end, "L1 broken");
        prop_assert!(segment.start % PAGE_BYTES == 0 && segment.end % PAGE_BYTES == 0);
        prop_assert!(segment.start <= segment.file_end && segment.file_end <= segment.end);
        prop_assert!(
            !(segment.protection.write && segment.protection.execute),
            "L3 broken"
        );
        prop_assert!(segment.data.of(file).is_some(), "L2 broken");
        let mut copied = 0;
        for page in (segment.start..segment.end)
            .step_by(PAGE_BYTES as usize)
            .take(64)
        {
            let content = plan.page_content(page).expect("a page of the image");
            let bytes = content.bytes.of(file).expect("L2 broken");
            prop_assert!(content.offset_in_page + bytes.len() as u64 <= PAGE_BYTES);
            prop_assert!(
                bytes.is_empty() || page < segment.file_end,
                "bytes past file_end"
            );
            copied += content.bytes.length;
        }
        if segment.pages() <= 64 {
            prop_assert_eq!(copied, segment.data.length, "bytes lost");
        }
        end = segment.end;
    }
    prop_assert!(end <= IMAGE_LIMIT);
    for number in 0..TLS_SLOTS as usize {
        check_tls(plan, file, number)?;
    }
    let map = AddressMap::for_program(plan, true);
    let entry = map.classify_fault(plan.entry(), false, true);
    prop_assert!(
        matches!(entry, FaultVerdict::Back(_)),
        "the entry can be fetched"
    );
    prop_assert!(
        map.is_writable(plan.entry_state(1, true, TlsSlot::default()).rsp, 8),
        "the stack is there"
    );
    Ok(())
}

/// The TLS block in one slot: inside the region, aligned, and its thread pointer
/// no other slot's, whatever the other program (L6).
fn check_tls(plan: &LoadPlan, file: &[u8], number: usize) -> Result<(), TestCaseError> {
    let slot = TlsSlot::of(number);
    let mut map = AddressMap::for_program(plan, true);
    let before = map.footprint();
    map.place_tls(slot);
    map.check();
    prop_assert_eq!(map.footprint(), before, "a slot costs nothing");
    let fs_base = plan.entry_state(1, true, slot).fs_base;
    let Some(tls) = plan.tls_in(slot) else {
        prop_assert_eq!((fs_base, map.tls_fs_base()), (0, None));
        return Ok(());
    };
    prop_assert_eq!(
        (fs_base, map.tls_fs_base()),
        (tls.fs_base, Some(tls.fs_base))
    );
    prop_assert!(tls.template.of(file).is_some(), "L2 broken");
    prop_assert!(TLS_BASE <= tls.region_base && tls.region_base <= tls.image);
    prop_assert!(tls.image + tls.template.length <= tls.fs_base);
    prop_assert!(fs_base + TCB_BYTES <= tls.region_end() && tls.region_end() < TLS_LIMIT);
    prop_assert!(map.is_writable(tls.region_base, tls.region_end() - tls.region_base));
    prop_assert!(!map.is_readable(tls.region_end(), 1), "past the block");
    // No program asks for an alignment that the first slot's would not show.
    let first = plan.tls().map_or(0, |tls| tls.fs_base);
    prop_assert_eq!(fs_base % PAGE_BYTES, first % PAGE_BYTES, "alignment lost");
    let page = (fs_base + TCB_BYTES - 1) / PAGE_BYTES;
    let of_first_slot = (TLS_LIMIT / PAGE_BYTES) - TLS_SLOTS - 1;
    prop_assert_eq!(page, of_first_slot + number as u64, "L6 broken");
    Ok(())
}

#[test]
fn whatever_capos_refuses_is_refused_and_nothing_panics() {
    let accepted = std::cell::Cell::new((0_u32, 0_u32));
    property::check("programs", 8_000, &files(), |file| {
        let ours = LoadPlan::parse(&file);
        let theirs = upstream::parse(&file);
        let (mut both, mut stricter) = accepted.get();
        match (&ours, &theirs) {
            (Ok(plan), Ok(info)) => {
                both += 1;
                prop_assert_eq!(plan.entry(), info.entry);
                let segments = info.segments.iter().filter(|segment| segment.memsz > 0);
                let theirs = segments.map(|s| (s.vaddr, s.offset, s.filesz, s.memsz));
                let ours = plan.segments().iter();
                let ours = ours.map(|s| (s.vaddr, s.data.offset, s.data.length, s.memory_bytes));
                prop_assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
                let template = info.tls.as_ref().filter(|tls| tls.memsz > 0);
                prop_assert_eq!(plan.tls().is_some(), template.is_some());
                check_plan(plan, &file)?;
            }
            (Ok(_), Err(reason)) => prop_assert!(false, "capOS refuses: {}", reason),
            (Err(_), Ok(_)) => stricter += 1,
            (Err(_), Err(_)) => {}
        }
        accepted.set((both, stricter));
        Ok(())
    });
    let (both, stricter) = accepted.get();
    println!("accepted by both: {both}; accepted by capOS alone: {stricter}");
    assert!(
        both > 300,
        "the generator makes programs worth loading: {both}"
    );
}

#[test]
fn random_bytes_do_not_panic() {
    let bytes = vec(any::<u8>(), 0..300).prop_map(|mut bytes| {
        if let Some(magic) = bytes.get_mut(..7) {
            magic.copy_from_slice(b"\x7fELF\x02\x01\x01");
        }
        bytes
    });
    property::check("bytes", 2000, &bytes, |bytes| {
        let _ = LoadPlan::parse(&bytes);
        Ok(())
    });
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        page: u64,
        pages: u64,
        prot: u8,
        object: bool,
        reserved: bool,
    },
    Remove {
        page: u64,
        pages: u64,
    },
    Protect {
        page: u64,
        pages: u64,
        prot: u8,
    },
    Find(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let page = 0_u64..40;
    let pages = 0_u64..12;
    let step = prop_oneof![
        4 => (page.clone(), pages.clone(), 0_u8..8, any::<bool>(), any::<bool>()).prop_map(
            |(page, pages, prot, object, reserved)| Step::Insert {
                page,
                pages,
                prot,
                object,
                reserved
            }
        ),
        3 => (page.clone(), pages.clone()).prop_map(|(page, pages)| Step::Remove { page, pages }),
        2 => (page, pages.clone(), 0_u8..8)
            .prop_map(|(page, pages, prot)| Step::Protect { page, pages, prot }),
        1 => pages.prop_map(Step::Find),
    ];
    vec(step, 1..60)
}

const fn protection(bits: u8) -> Protection {
    Protection::new(bits & 1 != 0, bits & 2 != 0, bits & 4 != 0)
}

/// One page of the naive model.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    protection: Protection,
    backing: Backing,
    /// Object and page of it; `None` for anonymous memory.
    shows: Option<(u32, u32)>,
}

type Pages = BTreeMap<u64, Cell>;

fn address(page: u64) -> u64 {
    DYNAMIC_BASE + page * PAGE_BYTES
}

fn allowed(cell: &Cell, access: Access) -> bool {
    cell.backing != Backing::Reserved
        && match access {
            Access::Read => cell.protection != Protection::NONE,
            Access::Write => cell.protection.write,
            Access::Execute => cell.protection.execute,
        }
}

fn apply(map: &mut AddressMap, pages: &mut Pages, step: &Step, id: u32) -> TestCaseResult {
    match *step {
        Step::Insert {
            page,
            pages: count,
            prot,
            object,
            reserved,
        } => {
            let kind = if object {
                RegionKind::Object { id, first_page: 7 }
            } else {
                RegionKind::Anonymous
            };
            let backing = if reserved {
                Backing::Reserved
            } else {
                Backing::DemandZero
            };
            let protection = protection(prot);
            let (start, end) = (address(page), address(page + count));
            let got = map.insert(Region {
                start,
                end,
                protection,
                backing,
                kind,
            });
            let taken = (page..page + count).any(|page| pages.contains_key(&page));
            let expected = match got {
                Err(MapError::BadRange) => count == 0,
                Err(MapError::WritableAndExecutable) => prot & 6 == 6,
                Err(MapError::Overlaps { start }) => {
                    taken && pages.contains_key(&((start - DYNAMIC_BASE) / PAGE_BYTES))
                }
                Err(_) => false,
                Ok(()) => count > 0 && prot & 6 != 6 && !taken,
            };
            prop_assert!(expected, "{:?}", got);
            if got.is_ok() {
                for index in 0..count {
                    let shows = object.then_some((id, 7 + index as u32));
                    pages.insert(
                        page + index,
                        Cell {
                            protection,
                            backing,
                            shows,
                        },
                    );
                }
            }
        }
        Step::Remove { page, pages: count } => {
            let mut removed = 0;
            let got = map.remove(address(page), address(page + count), |part| {
                removed += part.pages()
            });
            let covered = (page..page + count).all(|page| pages.contains_key(&page));
            prop_assert_eq!(got.is_ok(), count > 0 && covered);
            if got.is_ok() {
                prop_assert_eq!(removed, count);
                pages.retain(|at, _| !(page..page + count).contains(at));
            }
        }
        Step::Protect {
            page,
            pages: count,
            prot,
        } => {
            let got = map.protect(address(page), address(page + count), protection(prot));
            let covered = (page..page + count).all(|page| pages.contains_key(&page));
            prop_assert_eq!(got.is_ok(), count > 0 && covered && prot & 6 != 6);
            if got.is_ok() {
                for page in page..page + count {
                    pages
                        .entry(page)
                        .and_modify(|cell| cell.protection = protection(prot));
                }
            }
        }
        Step::Find(count) => match map.find_free(count) {
            Ok(start) => {
                let first = (start - DYNAMIC_BASE) / PAGE_BYTES;
                let free = |first: u64| (first..first + count).all(|p| !pages.contains_key(&p));
                prop_assert!(free(first));
                prop_assert!(
                    (0..first).all(|first| !free(first)),
                    "not the first that fits"
                );
            }
            Err(error) => prop_assert_eq!((error, count), (MapError::BadRange, 0)),
        },
    }
    Ok(())
}

type TestCaseResult = Result<(), TestCaseError>;

fn compare(map: &AddressMap, pages: &Pages) -> TestCaseResult {
    map.check();
    let regions = map.regions();
    let total: u64 = regions.iter().map(Region::pages).sum();
    prop_assert_eq!(total, pages.len() as u64);
    for page in 0..60 {
        let cell = pages.get(&page);
        for access in [Access::Read, Access::Write, Access::Execute] {
            let at = address(page) + 0x123;
            let got = map.page_for(at, access);
            prop_assert_eq!(got.is_ok(), cell.is_some_and(|cell| allowed(cell, access)));
            prop_assert_eq!(got == Err(Denied::Unmapped), cell.is_none());
            for length in [1, PAGE_BYTES, 3 * PAGE_BYTES] {
                let last = page + (0x123 + length - 1) / PAGE_BYTES;
                let all = (page..=last)
                    .all(|page| pages.get(&page).is_some_and(|cell| allowed(cell, access)));
                prop_assert_eq!(map.check_range(at, length, access).is_ok(), all);
            }
        }
        if let Some(cell) = cell {
            let region = map.region_at(address(page)).expect("checked above");
            let into = ((address(page) - region.start) / PAGE_BYTES) as u32;
            let shows = match region.kind {
                RegionKind::Object { id, first_page } => Some((id, first_page + into)),
                _ => None,
            };
            let got = Cell {
                protection: region.protection,
                backing: region.backing,
                shows,
            };
            prop_assert_eq!(got, *cell);
        }
    }
    Ok(())
}

#[test]
fn address_maps_agree_with_a_table_of_pages() {
    property::check("maps", 500, &steps(), |steps| {
        let mut map = AddressMap::new(1000);
        let mut pages = Pages::new();
        for (id, step) in steps.iter().enumerate() {
            apply(&mut map, &mut pages, step, id as u32)?;
            compare(&map, &pages)?;
        }
        Ok(())
    });
}

#[test]
fn fixed_regions_cannot_be_changed_and_bad_ranges_are_refused() {
    let plan = LoadPlan::parse(&Elf::typical().build()).unwrap();
    let mut map = AddressMap::for_program(&plan, true);
    let ring = 0x120_0000;
    let fixed = Err(MapError::Fixed { start: ring });
    assert_eq!(map.remove(ring, ring + PAGE_BYTES, |_| {}), fixed);
    assert_eq!(
        map.protect(ring, ring + PAGE_BYTES, Protection::READ),
        fixed
    );
    let region = |start: u64, end: u64| Region {
        start,
        end,
        protection: Protection::READ,
        backing: Backing::DemandZero,
        kind: RegionKind::Anonymous,
    };
    let over_ring = map.insert(region(ring - PAGE_BYTES, ring + PAGE_BYTES));
    assert_eq!(over_ring, Err(MapError::Overlaps { start: ring }));
    let unaligned = map.insert(region(DYNAMIC_BASE + 1, DYNAMIC_BASE + PAGE_BYTES));
    assert_eq!(unaligned, Err(MapError::BadRange));
    let backwards = map.insert(region(DYNAMIC_BASE + PAGE_BYTES, DYNAMIC_BASE));
    assert_eq!(backwards, Err(MapError::BadRange));
    let above = map.insert(region(USER_LIMIT - PAGE_BYTES, USER_LIMIT + PAGE_BYTES));
    assert_eq!(above, Err(MapError::BadRange));
    map.insert(region(USER_LIMIT - PAGE_BYTES, USER_LIMIT))
        .unwrap();
    assert_eq!(map.find_free(u64::MAX / PAGE_BYTES), Err(MapError::NoSpace));
    assert_eq!(map.find_free(u64::MAX), Err(MapError::BadRange));
}

#[test]
fn a_full_map_refuses_and_keeps_its_state() {
    let mut map = AddressMap::new(3);
    let region = |page, pages, prot| Region {
        start: address(page),
        end: address(page + pages),
        protection: prot,
        backing: Backing::DemandZero,
        kind: RegionKind::Anonymous,
    };
    map.insert(region(0, 9, Protection::READ)).unwrap();
    map.protect(address(0), address(9), Protection::READ_WRITE)
        .unwrap();
    map.insert(region(20, 1, Protection::READ)).unwrap();
    map.insert(region(30, 1, Protection::READ)).unwrap();
    assert_eq!(
        map.insert(region(40, 1, Protection::READ)),
        Err(MapError::TooManyRegions)
    );
    let before = map.regions().to_vec();
    let got = map.remove(address(3), address(4), |_| {});
    assert_eq!(got, Err(MapError::TooManyRegions));
    assert_eq!(map.regions(), before);
}
