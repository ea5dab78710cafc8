//! The whole broker against a naive model and a kernel that enforces seL4's
//! rules, under random requests and refusals.

mod common;

use std::collections::BTreeMap;

use cap_broker_core::devices::{Pin, PortRange, Trigger};
use cap_broker_core::operation::BootUntyped;
use cap_broker_core::sim::{Refusal, SimKernel};
use cap_broker_core::{
    Broker, BrokerConfig, BrokerError, FrameId, Hold, ObjectKind, OwnedObject, PAGE_BYTES, Rights,
    Slot, SpaceId, Usage,
};
use proptest::collection::vec;
use proptest::prelude::*;

const ROOT_SPACE: Slot = Slot(3);
const FIRST: u32 = 64;
const HPET: u64 = 0xfed0_0000;

fn boot(ram: &[(u64, u8)]) -> Vec<BootUntyped> {
    let ram = ram
        .iter()
        .map(|(paddr, size_bits)| (*paddr, *size_bits, false));
    let all = ram.chain([(HPET, 20, true)]).enumerate();
    all.map(|(index, (paddr, size_bits, is_device))| BootUntyped {
        slot: Slot(10 + index as u32),
        paddr,
        size_bits,
        is_device,
    })
    .collect()
}

/// 3 MiB and some crumbs.
const SMALL: [(u64, u8); 4] = [
    (0x10_1000, 12),
    (0x10_2000, 13),
    (0x20_0000, 21),
    (0x40_0000, 20),
];

struct Machine {
    kernel: SimKernel,
    broker: Broker,
    fresh: Usage,
    kernel_slots: usize,
}

impl Machine {
    fn new(ram: &[(u64, u8)], slots: u32, window_pages: u32, chunk_bits: u8) -> Self {
        let boot = boot(ram);
        let mut config =
            BrokerConfig::new(Slot(FIRST), Slot(FIRST + slots), ROOT_SPACE, window_pages);
        config.chunk_bits = chunk_bits;
        let broker = Broker::new(&boot, &config);
        let kernel = SimKernel::new(&boot, ROOT_SPACE);
        let (fresh, kernel_slots) = (broker.usage(), kernel.used_slots());
        Self {
            kernel,
            broker,
            fresh,
            kernel_slots,
        }
    }

    fn roomy() -> Self {
        Self::new(
            &[(0x200_0000, 25)],
            60_000,
            1 << 16,
            BrokerConfig::CHUNK_BITS,
        )
    }

    /// A1: after everything is given back, nothing is missing.
    fn assert_fresh(&mut self) {
        self.broker.trim(&mut self.kernel).expect("trim");
        self.broker.check();
        assert_eq!(self.broker.usage(), self.fresh, "something leaked");
        assert_eq!(
            self.kernel.used_slots(),
            self.kernel_slots,
            "a kernel slot leaked"
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    NewSpace,
    DropSpace(usize),
    Back {
        space: usize,
        page: u64,
        write: bool,
    },
    Share {
        space: usize,
        page: u64,
        frame: usize,
    },
    Unmap {
        space: usize,
        page: usize,
    },
    Protect {
        space: usize,
        page: usize,
        write: Option<bool>,
    },
    UnmapRange {
        space: usize,
        start: u64,
        pages: u64,
    },
    ProtectRange {
        space: usize,
        start: u64,
        pages: u64,
        write: Option<bool>,
    },
    Tables {
        space: usize,
        start: u64,
        pages: u64,
        keep: bool,
    },
    NewFrame,
    NewRun(u8),
    DropFrame(usize),
    NewObject(u8),
    DropObject(usize),
    Device(u32, u32),
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    let page = prop_oneof![0x200_u64..0x240, 0x1000_u64..0x1010, 0x4_0000_u64..0x4_0008];
    let at = any::<usize>;
    prop_oneof![
        2 => Just(Step::NewSpace),
        1 => at().prop_map(Step::DropSpace),
        12 => (at(), page.clone(), any::<bool>())
            .prop_map(|(space, page, write)| Step::Back { space, page, write }),
        4 => (at(), page.clone(), at()).prop_map(|(space, page, frame)| Step::Share { space, page, frame }),
        4 => (at(), at()).prop_map(|(space, page)| Step::Unmap { space, page }),
        3 => (at(), at(), any::<Option<bool>>())
            .prop_map(|(space, page, write)| Step::Protect { space, page, write }),
        2 => (at(), page.clone(), 1_u64..2000)
            .prop_map(|(space, start, pages)| Step::UnmapRange { space, start, pages }),
        2 => (at(), page.clone(), 1_u64..2000, any::<Option<bool>>())
            .prop_map(|(space, start, pages, write)| Step::ProtectRange { space, start, pages, write }),
        3 => (at(), page.clone(), 1_u64..2000, any::<bool>())
            .prop_map(|(space, start, pages, keep)| Step::Tables { space, start, pages, keep }),
        3 => Just(Step::NewFrame),
        1 => (0_u8..5).prop_map(Step::NewRun),
        2 => at().prop_map(Step::DropFrame),
        3 => (0_u8..5).prop_map(Step::NewObject),
        2 => at().prop_map(Step::DropObject),
        1 => (0_u32..260, 1_u32..4).prop_map(|(page, pages)| Step::Device(page, pages)),
        1 => Just(Step::Trim),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct ModelPage {
    frame: FrameId,
    hold: Hold,
    rights: Option<Rights>,
}

#[derive(Default)]
struct Model {
    spaces: Vec<(SpaceId, BTreeMap<u64, ModelPage>)>,
    frames: Vec<FrameId>,
    objects: Vec<OwnedObject>,
}

impl Model {
    /// Frames in use, each once.
    fn live_frames(&self) -> Vec<FrameId> {
        let pages = self.spaces.iter().flat_map(|(_, pages)| pages.values());
        let owned = pages
            .filter(|page| page.hold == Hold::Owned)
            .map(|page| page.frame);
        let mut live: Vec<_> = owned.chain(self.frames.iter().copied()).collect();
        live.sort();
        live
    }

    fn is_shared(&self, frame: FrameId) -> bool {
        let mut pages = self.spaces.iter().flat_map(|(_, pages)| pages.values());
        pages.any(|page| page.hold == Hold::Shared && page.frame == frame)
    }
}

fn rights(write: bool) -> Rights {
    if write {
        Rights::ReadWrite
    } else {
        Rights::Read
    }
}

/// True for the failures a small machine may have.
fn is_expected(error: &BrokerError, refused: bool) -> bool {
    match error {
        BrokerError::Kernel(_) => refused,
        BrokerError::OutOfMemory { .. }
        | BrokerError::OutOfSlots { .. }
        | BrokerError::OutOfWindow { .. } => true,
        _ => false,
    }
}

struct Run {
    machine: Machine,
    model: Model,
}

impl Run {
    /// A frame just handed out holds zeroes (F2), then someone writes to it.
    fn receive(&mut self, frame: FrameId) -> Result<(), TestCaseError> {
        let paddr = self.machine.broker.paddr(frame).expect("allocated");
        prop_assert!(
            !self.machine.kernel.is_dirty(paddr),
            "F2 broken: old data in {paddr:#x}"
        );
        let window = self
            .machine
            .broker
            .window_address(frame)
            .expect("in the window");
        let shown = self.machine.kernel.translate(ROOT_SPACE, window);
        prop_assert_eq!(
            shown,
            Some((paddr, Rights::ReadWrite)),
            "window shows another frame"
        );
        self.machine.kernel.scribble(paddr);
        Ok(())
    }

    /// Carries out one step; the error, if any, for the caller to judge.
    fn run(&mut self, step: &Step) -> Result<Result<(), BrokerError>, TestCaseError> {
        let Machine { kernel, broker, .. } = &mut self.machine;
        let spaces = self.model.spaces.len();
        match *step {
            Step::NewSpace => match broker.create_space(kernel) {
                Ok(space) => self.model.spaces.push((space, BTreeMap::new())),
                Err(error) => return Ok(Err(error)),
            },
            Step::DropSpace(which) if spaces > 0 => {
                let (space, _) = self.model.spaces.swap_remove(which % spaces);
                let root = broker.space_root(space).expect("alive");
                broker.destroy_space(kernel, space).expect("destroy");
                prop_assert_eq!(kernel.page_count(root), 0);
                prop_assert_eq!(broker.space_root(space), Err(BrokerError::BadSpace));
            }
            Step::Back { space, page, write } if spaces > 0 => {
                let (id, pages) = &mut self.model.spaces[space % spaces];
                let vaddr = page * PAGE_BYTES;
                match broker.back_page(kernel, *id, vaddr, rights(write)) {
                    Ok(frame) => {
                        let page = ModelPage {
                            frame,
                            hold: Hold::Owned,
                            rights: Some(rights(write)),
                        };
                        prop_assert_eq!(pages.insert(vaddr, page), None);
                        return self.receive(frame).map(Ok);
                    }
                    Err(BrokerError::AlreadyMapped { .. }) => {
                        prop_assert!(pages.contains_key(&vaddr));
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
            Step::Share { space, page, frame } if spaces > 0 && !self.model.frames.is_empty() => {
                let frame = self.model.frames[frame % self.model.frames.len()];
                let (id, pages) = &mut self.model.spaces[space % spaces];
                let vaddr = page * PAGE_BYTES;
                match broker.map_frame(kernel, *id, vaddr, frame, Rights::Read, Hold::Shared) {
                    Ok(()) => {
                        let page = ModelPage {
                            frame,
                            hold: Hold::Shared,
                            rights: Some(Rights::Read),
                        };
                        prop_assert_eq!(pages.insert(vaddr, page), None);
                    }
                    Err(BrokerError::AlreadyMapped { .. }) => {
                        prop_assert!(pages.contains_key(&vaddr));
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
            Step::Unmap { space, page } if spaces > 0 => {
                let (id, pages) = &mut self.model.spaces[space % spaces];
                if let Some(vaddr) = pages.keys().nth(page % pages.len().max(1)).copied() {
                    let page = broker.unmap_page(kernel, *id, vaddr).expect("unmap");
                    prop_assert_eq!(
                        Some(page.frame),
                        pages.remove(&vaddr).map(|page| page.frame)
                    );
                }
            }
            Step::Protect { space, page, write } if spaces > 0 => {
                let (id, pages) = &mut self.model.spaces[space % spaces];
                let which = page % pages.len().max(1);
                let rights = write.map(rights);
                if let Some((vaddr, page)) = pages.iter_mut().nth(which) {
                    match broker.protect_page(kernel, *id, *vaddr, rights) {
                        Ok(()) => page.rights = rights,
                        Err(error) => return Ok(Err(error)),
                    }
                }
            }
            Step::UnmapRange {
                space,
                start,
                pages: count,
            } if spaces > 0 => {
                let (id, pages) = &mut self.model.spaces[space % spaces];
                let range = start * PAGE_BYTES..(start + count) * PAGE_BYTES;
                let unmapped = broker.unmap_pages(kernel, *id, range.start, range.end);
                let before = pages.len();
                pages.retain(|vaddr, _| !range.contains(vaddr));
                prop_assert_eq!(unmapped, Ok((before - pages.len()) as u32));
            }
            Step::ProtectRange {
                space,
                start,
                pages: count,
                write,
            } if spaces > 0 => {
                let (id, pages) = &mut self.model.spaces[space % spaces];
                let rights = write.map(rights);
                let range = start * PAGE_BYTES..(start + count) * PAGE_BYTES;
                let outcome = broker.protect_pages(kernel, *id, range.start, range.end, rights);
                let mut left = 0;
                for (vaddr, page) in pages.range_mut(range) {
                    let now = broker.page(*id, *vaddr).expect("recorded").rights;
                    left += u32::from(now != rights);
                    prop_assert!(now == rights || now == page.rights, "neither old nor new");
                    page.rights = now;
                }
                // A step fails once: the other pages are changed all the same.
                prop_assert!(left <= u32::from(outcome.is_err()), "{left} pages left");
                if let Err(error) = outcome {
                    return Ok(Err(error));
                }
            }
            Step::Tables {
                space,
                start,
                pages: count,
                keep,
            } if spaces > 0 => {
                let (id, pages) = &self.model.spaces[space % spaces];
                let (start, end) = (start * PAGE_BYTES, (start + count) * PAGE_BYTES);
                if keep {
                    return Ok(broker.prepare_tables(kernel, *id, start, end));
                }
                broker
                    .release_tables(kernel, *id, start, end)
                    .expect("release");
                if pages.is_empty() {
                    broker
                        .release_tables(kernel, *id, 0, 1 << 39)
                        .expect("release");
                    let size = broker.spaces().size(*id).expect("alive");
                    prop_assert_eq!(size, (0, 0), "tables without a page stay");
                }
            }
            Step::NewFrame => match broker.allocate_frame(kernel) {
                Ok(frame) => {
                    self.model.frames.push(frame);
                    return self.receive(frame).map(Ok);
                }
                Err(error) => return Ok(Err(error)),
            },
            Step::NewRun(count_bits) => match broker.allocate_frame_run(kernel, count_bits) {
                Ok(first) => {
                    let base = broker.paddr(first).expect("allocated");
                    for index in 0..1 << count_bits {
                        let paddr = base + u64::from(index) * PAGE_BYTES;
                        prop_assert_eq!(self.machine.broker.paddr(first.at(index)), Some(paddr));
                        self.model.frames.push(first.at(index));
                        self.receive(first.at(index))?;
                    }
                }
                Err(error) => return Ok(Err(error)),
            },
            Step::DropFrame(which) if !self.model.frames.is_empty() => {
                let which = which % self.model.frames.len();
                if !self.model.is_shared(self.model.frames[which]) {
                    let frame = self.model.frames.swap_remove(which);
                    broker.free_frame(frame).expect("free");
                    prop_assert_eq!(broker.free_frame(frame), Err(BrokerError::BadFrame));
                    prop_assert_eq!(broker.window_address(frame), None);
                }
            }
            Step::NewObject(kind) => {
                let sizes = *broker.sizes();
                let object = match kind {
                    0 => sizes.object(ObjectKind::Tcb),
                    1 => sizes.object(ObjectKind::Endpoint),
                    2 => sizes.object(ObjectKind::Notification),
                    radix => sizes.cnode(radix),
                };
                match broker.create_object(kernel, object) {
                    Ok(object) => self.model.objects.push(object),
                    Err(error) => return Ok(Err(error)),
                }
            }
            Step::DropObject(which) if !self.model.objects.is_empty() => {
                let object = self
                    .model
                    .objects
                    .swap_remove(which % self.model.objects.len());
                broker.destroy_object(kernel, object).expect("destroy");
            }
            Step::Device(page, pages) => {
                let paddr = HPET + u64::from(page) * PAGE_BYTES;
                match broker.map_device(kernel, paddr, pages) {
                    Ok(mapping) => {
                        prop_assert!(page + pages <= 256);
                        let shown = kernel.translate(ROOT_SPACE, mapping.window());
                        prop_assert_eq!(shown.map(|(paddr, _)| paddr), Some(paddr));
                        broker.unmap_device(kernel, mapping).expect("unmap");
                    }
                    Err(BrokerError::NoSuchDevice { .. }) => prop_assert!(page + pages > 256),
                    Err(error) => return Ok(Err(error)),
                }
            }
            Step::Trim => broker.trim(kernel).expect("trim"),
            _ => {}
        }
        Ok(Ok(()))
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let Machine { kernel, broker, .. } = &self.machine;
        broker.check();
        let live = self.model.live_frames();
        prop_assert!(
            live.windows(2).all(|pair| pair[0] != pair[1]),
            "a frame has two owners"
        );
        prop_assert_eq!(
            broker.usage().frames as usize,
            live.len(),
            "frames accounted"
        );
        for (space, pages) in &self.model.spaces {
            let root = broker.space_root(*space).expect("alive");
            let shown = pages.values().filter(|page| page.rights.is_some());
            prop_assert_eq!(kernel.page_count(root), shown.count(), "V1 broken");
            for (vaddr, page) in pages {
                let mapped = broker.page(*space, *vaddr).expect("recorded");
                let recorded = ModelPage {
                    frame: mapped.frame,
                    hold: mapped.hold,
                    rights: mapped.rights,
                };
                prop_assert_eq!(recorded, *page);
                let paddr = broker.paddr(page.frame).expect("allocated");
                let shown = page.rights.map(|rights| (paddr, rights));
                prop_assert_eq!(kernel.translate(root, *vaddr), shown);
                let window = broker.client_byte(*space, vaddr + 5).expect("mapped");
                let shown = kernel.translate(ROOT_SPACE, window);
                prop_assert_eq!(shown.map(|(paddr, _)| paddr), Some(paddr));
            }
        }
        Ok(())
    }

    /// Gives everything back.
    fn finish(mut self) {
        let Machine { kernel, broker, .. } = &mut self.machine;
        for (space, _) in self.model.spaces.drain(..) {
            broker.destroy_space(kernel, space).expect("destroy");
        }
        for frame in self.model.frames.drain(..) {
            broker.free_frame(frame).expect("free");
        }
        for object in self.model.objects.drain(..) {
            broker.destroy_object(kernel, object).expect("destroy");
        }
        self.machine.assert_fresh();
    }
}

#[test]
fn the_broker_agrees_with_its_model_and_leaks_nothing() {
    let scarce = (200_u32..3000, 40_u32..1200, 12_u8..=20);
    let refuse = prop::option::weighted(0.15, 0_u64..8);
    let strategy = (scarce, vec((step(), refuse), 1..140));
    common::check(
        "broker",
        600,
        &strategy,
        |((slots, window, chunk_bits), steps)| {
            let machine = Machine::new(&SMALL, slots, window, chunk_bits);
            let mut run = Run {
                machine,
                model: Model::default(),
            };
            for (step, refuse) in steps {
                if let Some(skip) = refuse {
                    run.machine.kernel.refuse_after(skip, Refusal::Constructive);
                }
                let outcome = run.run(&step)?;
                let refused = refuse.is_some() && !run.machine.kernel.clear_refusal();
                if let Err(error) = outcome {
                    prop_assert!(is_expected(&error, refused), "{:?}: {}", step, error);
                }
                run.check()?;
            }
            run.finish();
            Ok(())
        },
    );
}

#[test]
fn refused_clean_up_loses_memory_but_never_hands_it_out_twice() {
    let strategy = (vec(step(), 20..80), 0_u64..400);
    common::check("quarantine", 300, &strategy, |(steps, skip)| {
        let machine = Machine::new(&SMALL, 3000, 1200, 16);
        let mut run = Run {
            machine,
            model: Model::default(),
        };
        for step in steps
            .iter()
            .filter(|step| !matches!(step, Step::Trim | Step::Device(..)))
        {
            let _ = run.run(step)?;
        }
        let Machine { kernel, broker, .. } = &mut run.machine;
        kernel.refuse_after(skip, Refusal::Any);
        for (space, _) in run.model.spaces.drain(..) {
            let _ = broker.destroy_space(kernel, space);
        }
        kernel.clear_refusal();
        broker.check();
        // The model kernel panics if anything is handed out twice from here on.
        let space = broker
            .create_space(kernel)
            .expect("one refusal cannot take all memory");
        for page in 0..64 {
            broker
                .back_page(kernel, space, page << 12, Rights::Read)
                .expect("memory is left");
        }
        broker.destroy_space(kernel, space).expect("destroy");
        broker.check();
        Ok(())
    });
}

/// Pages of a capOS process as the loader plans them: image, stack, ring,
/// CapSet.
fn process_pages() -> impl Iterator<Item = u64> {
    let image = (0..32).map(|page| 0x20_0000 + page * PAGE_BYTES);
    image.chain([0x100_f000, 0x120_0000, 0x130_0000])
}

#[test]
fn a_process_comes_and_goes_and_everything_is_back() {
    let mut machine = Machine::roomy();
    for _ in 0..3 {
        let Machine { kernel, broker, .. } = &mut machine;
        let space = broker.create_space(kernel).unwrap();
        for vaddr in process_pages() {
            broker
                .back_page(kernel, space, vaddr, Rights::ReadWrite)
                .unwrap();
        }
        assert_eq!(broker.usage().frames, 35);
        // Tables: PDPT, directory, page tables at 2, 16 and 18 MiB.
        assert_eq!(broker.spaces().size(space), Ok((35, 5)));
        broker.destroy_space(kernel, space).unwrap();
        assert_eq!(broker.usage().frames, 0);
    }
    machine.assert_fresh();
}

#[test]
fn demand_paging_in_steady_state_is_one_kernel_operation() {
    let mut machine = Machine::roomy();
    let Machine { kernel, broker, .. } = &mut machine;
    let space = broker.create_space(kernel).unwrap();
    for vaddr in process_pages() {
        broker
            .back_page(kernel, space, vaddr, Rights::ReadWrite)
            .unwrap();
    }
    broker.destroy_space(kernel, space).unwrap();
    let space = broker.create_space(kernel).unwrap();
    broker
        .back_page(kernel, space, 0x20_0000, Rights::ReadWrite)
        .unwrap();
    let before = kernel.counts();
    broker
        .back_page(kernel, space, 0x20_1000, Rights::ReadWrite)
        .unwrap();
    let after = kernel.counts();
    assert_eq!(after.kernel_entries() - before.kernel_entries(), 1);
    assert_eq!(after.maps - before.maps, 1);
    assert_eq!(after.zeroed_pages - before.zeroed_pages, 1);
    broker.destroy_space(kernel, space).unwrap();
    machine.assert_fresh();
}

#[test]
fn fresh_frames_cost_three_kernel_operations_and_a_share_of_a_retype() {
    let mut machine = Machine::roomy();
    let Machine { kernel, broker, .. } = &mut machine;
    let space = broker.create_space(kernel).unwrap();
    broker
        .back_page(kernel, space, 0x20_0000, Rights::ReadWrite)
        .unwrap();
    let before = kernel.counts();
    for page in 1..=63 {
        broker
            .back_page(kernel, space, 0x20_0000 + page * 4096, Rights::ReadWrite)
            .unwrap();
    }
    let entries = kernel.counts().kernel_entries() - before.kernel_entries();
    assert_eq!(
        entries,
        3 * 63,
        "copy, map in the window, map in the client"
    );
}

#[test]
fn a_frame_shared_by_two_spaces_outlives_both() {
    let mut machine = Machine::roomy();
    let Machine { kernel, broker, .. } = &mut machine;
    let frame = broker.allocate_frame(kernel).unwrap();
    let spaces = [
        broker.create_space(kernel).unwrap(),
        broker.create_space(kernel).unwrap(),
    ];
    for space in spaces {
        broker
            .map_frame(kernel, space, 0x1000, frame, Rights::Read, Hold::Shared)
            .unwrap();
    }
    broker.destroy_space(kernel, spaces[0]).unwrap();
    assert_eq!(
        broker.page(spaces[1], 0x1000).map(|page| page.frame),
        Some(frame)
    );
    broker.destroy_space(kernel, spaces[1]).unwrap();
    assert!(
        broker.window_address(frame).is_some(),
        "the frame is still ours"
    );
    broker.free_frame(frame).unwrap();
    machine.assert_fresh();
}

#[test]
fn an_owned_frame_has_one_owner() {
    let mut machine = Machine::roomy();
    let Machine { kernel, broker, .. } = &mut machine;
    let space = broker.create_space(kernel).unwrap();
    let frame = broker
        .back_page(kernel, space, 0x1000, Rights::Read)
        .unwrap();
    let again = broker.map_frame(kernel, space, 0x2000, frame, Rights::Read, Hold::Owned);
    assert_eq!(again, Err(BrokerError::BadFrame));
    assert_eq!(
        broker.free_frame(frame),
        Err(BrokerError::BadFrame),
        "it is mapped"
    );
    let unaligned = broker.back_page(kernel, space, 0x2001, Rights::Read);
    assert_eq!(unaligned, Err(BrokerError::BadAddress { vaddr: 0x2001 }));
    let kernel_half = broker.back_page(kernel, space, 0x0000_7fff_ffff_f000, Rights::Read);
    assert!(matches!(kernel_half, Err(BrokerError::BadAddress { .. })));
    broker.destroy_space(kernel, space).unwrap();
    machine.assert_fresh();
}

#[test]
fn caches_give_way_to_large_objects() {
    let mut machine = Machine::new(&[(0x20_0000, 21)], 3000, 1200, 18);
    let Machine { kernel, broker, .. } = &mut machine;
    let frames: Vec<_> = (0..400)
        .map(|_| broker.allocate_frame(kernel).unwrap())
        .collect();
    frames
        .iter()
        .for_each(|frame| broker.free_frame(*frame).unwrap());
    assert!(broker.usage().cached_bytes >= 400 * PAGE_BYTES);
    let cnode = broker.sizes().cnode(15);
    let object = broker
        .create_object(kernel, cnode)
        .expect("1 MiB of the 2 are free");
    broker.destroy_object(kernel, object).unwrap();
    machine.assert_fresh();
}

#[test]
fn all_memory_but_the_books_can_become_frames() {
    let mut machine = Machine::new(&SMALL, 60_000, 4096, 18);
    let Machine { kernel, broker, .. } = &mut machine;
    let frames: Vec<_> = core::iter::from_fn(|| broker.allocate_frame(kernel).ok()).collect();
    let usage = broker.usage();
    let tables = u64::from(usage.window_tables) * PAGE_BYTES;
    let total = frames.len() as u64 * PAGE_BYTES + tables + usage.cached_bytes;
    assert_eq!(usage.free_bytes, 0, "not a page is left over");
    assert_eq!(
        total, usage.total_bytes,
        "every byte is a frame or a window table"
    );
    frames
        .iter()
        .for_each(|frame| broker.free_frame(*frame).unwrap());
    machine.assert_fresh();
}

#[test]
fn devices_ports_and_lines_are_exclusive() {
    let mut machine = Machine::roomy();
    let Machine { kernel, broker, .. } = &mut machine;
    let hpet = broker.map_device(kernel, HPET, 1).unwrap();
    let again = broker.map_device(kernel, HPET, 1).map(|_| ());
    assert_eq!(again, Err(BrokerError::DeviceBusy { paddr: HPET }));
    let ram = broker.map_device(kernel, 0x200_0000, 1).map(|_| ());
    assert_eq!(ram, Err(BrokerError::NoSuchDevice { paddr: 0x200_0000 }));
    broker.unmap_device(kernel, hpet).unwrap();
    let com1 = PortRange {
        first: 0x3f8,
        last: 0x3ff,
    };
    broker.acquire_ports(com1).unwrap();
    assert!(broker.acquire_ports(com1).is_err());
    let pin = Pin { ioapic: 0, pin: 4 };
    broker.acquire_irq(pin, Trigger::Edge).unwrap();
    assert!(broker.acquire_irq(pin, Trigger::Edge).is_err());
    broker.release_irq(pin).unwrap();
    broker.release_ports(com1).unwrap();
    machine.assert_fresh();
}

#[test]
fn address_spaces_outgrow_one_asid_pool() {
    let mut machine = Machine::roomy();
    let Machine { kernel, broker, .. } = &mut machine;
    let mut spaces: Vec<_> = (0..511)
        .map(|_| broker.create_space(kernel).unwrap())
        .collect();
    assert!(matches!(
        broker.create_space(kernel),
        Err(BrokerError::Kernel(_))
    ));
    let pool = broker.create_asid_pool(kernel).unwrap();
    spaces.push(broker.create_space(kernel).unwrap());
    spaces
        .into_iter()
        .for_each(|space| broker.destroy_space(kernel, space).unwrap());
    broker.destroy_object(kernel, pool).unwrap();
    machine.assert_fresh();
}

#[test]
fn scarce_slots_leave_no_cached_frame_out_of_reach() {
    for slots in 20..600 {
        let mut machine = Machine::new(&[(0x200_0000, 25)], slots, 4096, BrokerConfig::CHUNK_BITS);
        let Machine { kernel, broker, .. } = &mut machine;
        let frames: Vec<_> = core::iter::from_fn(|| broker.allocate_frame(kernel).ok()).collect();
        assert_eq!(
            broker.usage().cached_bytes,
            0,
            "{slots} slots, {} frames",
            frames.len()
        );
        frames
            .iter()
            .for_each(|frame| broker.free_frame(*frame).unwrap());
        machine.assert_fresh();
    }
}

#[test]
fn the_name_of_a_destroyed_space_names_nothing_ever_after() {
    let mut machine = Machine::roomy();
    let Machine { kernel, broker, .. } = &mut machine;
    let old = broker.create_space(kernel).unwrap();
    broker.destroy_space(kernel, old).unwrap();
    let new = broker.create_space(kernel).unwrap();
    broker.back_page(kernel, new, 0x1000, Rights::Read).unwrap();
    assert_eq!(broker.page(old, 0x1000), None);
    assert_eq!(
        broker.destroy_space(kernel, old),
        Err(BrokerError::BadSpace)
    );
    let stale = broker.back_page(kernel, old, 0x2000, Rights::Read);
    assert_eq!(stale, Err(BrokerError::BadSpace));
    broker.destroy_space(kernel, new).unwrap();
    machine.assert_fresh();
}

#[test]
fn window_tables_that_show_nothing_go_while_others_stay() {
    let mut machine = Machine::roomy();
    let Machine { kernel, broker, .. } = &mut machine;
    let kept = broker.allocate_frame(kernel).unwrap();
    broker.trim(kernel).unwrap();
    let before = broker.usage();
    // More than one table shows.
    let many: Vec<_> = (0..1500)
        .map(|_| broker.allocate_frame(kernel).unwrap())
        .collect();
    assert!(broker.usage().window_tables > before.window_tables + 1);
    many.into_iter()
        .for_each(|frame| broker.free_frame(frame).unwrap());
    broker.trim(kernel).unwrap();
    broker.check();
    assert_eq!(broker.usage(), before, "with one frame in use throughout");
    broker.free_frame(kept).unwrap();
    machine.assert_fresh();
}
