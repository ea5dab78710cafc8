//! Does a system fit a machine? Answered on the host, before the boot.
//!
//! The real broker runs against operations that always succeed. When the
//! machine is too small, the same demand is run once more on a machine with
//! one block of memory and slots without end; the difference is the shortfall.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::PAGE_BYTES;
use crate::broker::{Broker, BrokerConfig, Usage};
use crate::error::{BrokerError, Refused};
use crate::operation::{BootUntyped, Kernel, Object, ObjectSizes, Operation, Rights, Slot};

/// Memory below 1 MiB, which the kernel does not hand out.
const LOW_BYTES: u64 = 1 << 20;
/// Code, data and boot objects of the kernel, rounded up.
pub const KERNEL_BYTES: u64 = 3 << 20;
/// What firmware keeps at the end of memory: ACPI tables.
const FIRMWARE_BYTES: u64 = 128 << 10;
/// Slots the kernel fills at boot besides the image's: its fixed ones, page
/// tables, untypeds.
const BOOT_SLOTS: u64 = 256;
/// Bytes of a slot.
const SLOT_BYTES: u64 = 32;

/// Memory and slots a boot gives the root task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineProfile {
    /// Untypeds of RAM, as physical address and size in bits.
    pub untypeds: Vec<(u64, u8)>,
    /// Empty slots of the root CNode.
    pub slots: u32,
    /// Pages of the root task's window.
    pub window_pages: u32,
    /// Bytes of a chunk of frames, as a power of two.
    pub chunk_bits: u8,
}

impl MachineProfile {
    /// From ranges of free RAM, cut the way the kernel cuts them at boot
    /// (`create_untypeds_for_region`).
    pub fn from_ranges(ranges: &[(u64, u64)], slots: u32, window_pages: u32) -> Self {
        let untypeds = ranges
            .iter()
            .flat_map(|(start, end)| aligned_blocks(*start, *end));
        Self {
            untypeds: untypeds.collect(),
            slots,
            window_pages,
            chunk_bits: BrokerConfig::CHUNK_BITS,
        }
    }

    /// What a PC with `memory_mib` MiB gives a root task whose image takes
    /// `image_bytes` of memory, under a kernel with a root CNode of
    /// 2^`cnode_bits` slots. An estimate on the safe side: at most
    /// [`KERNEL_BYTES`] less than the truth.
    pub fn pc99(memory_mib: u64, image_bytes: u64, cnode_bits: u8) -> Self {
        let image_pages = image_bytes.div_ceil(PAGE_BYTES);
        let cnode_bytes = SLOT_BYTES << cnode_bits;
        let start = LOW_BYTES + KERNEL_BYTES + cnode_bytes + image_pages * PAGE_BYTES;
        let end = (memory_mib << 20).saturating_sub(FIRMWARE_BYTES).max(start);
        let slots = (1_u64 << cnode_bits).saturating_sub(image_pages + BOOT_SLOTS);
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        let by_memory = u32::try_from((end - start) / PAGE_BYTES).unwrap_or(u32::MAX);
        let window_pages = by_memory
            .min(slots / 2)
            .saturating_add(BrokerConfig::DEVICE_PAGES);
        Self::from_ranges(&[(start, end)], slots, window_pages)
    }

    /// One block of memory and slots without end.
    fn boundless() -> Self {
        Self {
            untypeds: vec![(0, 46)],
            slots: 1 << 24,
            window_pages: 1 << 24,
            chunk_bits: BrokerConfig::CHUNK_BITS,
        }
    }

    fn boot(&self) -> Vec<BootUntyped> {
        let untypeds = self.untypeds.iter().enumerate();
        untypeds
            .map(|(index, (paddr, size_bits))| BootUntyped {
                slot: Slot(1 + index as u32),
                paddr: *paddr,
                size_bits: *size_bits,
                is_device: false,
            })
            .collect()
    }

    fn broker(&self) -> Broker {
        let boot = self.boot();
        let first = Slot(1 + boot.len() as u32);
        let end = first.at(self.slots);
        let mut config = BrokerConfig::new(first, end, Slot(0), self.window_pages);
        config.chunk_bits = self.chunk_bits;
        config.block_capacity = usize::MAX;
        Broker::new(&boot, &config)
    }
}

fn aligned_blocks(start: u64, end: u64) -> impl Iterator<Item = (u64, u8)> {
    let mut at = start;
    core::iter::from_fn(move || {
        let rest = end.checked_sub(at).filter(|rest| *rest > 0)?;
        let by_size = rest.ilog2();
        let size_bits = if at == 0 {
            by_size
        } else {
            by_size.min(at.trailing_zeros())
        };
        let block = (at, size_bits as u8);
        at += 1 << size_bits;
        Some(block)
    })
}

/// Whether pages backed on first touch count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Only what must be there before a program's first instruction.
    EagerOnly,
    /// Everything, as if every page had been touched.
    Everything,
}

/// A run of pages of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// First address.
    pub start: u64,
    /// Pages.
    pub pages: u64,
    /// Backed before the program starts.
    pub eager: bool,
}

/// What one program needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramDemand {
    /// For the report.
    pub name: String,
    /// Its pages.
    pub runs: Vec<PageRun>,
    /// Its kernel objects besides the address space: threads, CNode.
    pub objects: Vec<Object>,
}

/// What a system needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Kernel objects of the root task itself.
    pub objects: Vec<Object>,
    /// Slots the root task uses for copies and badged capabilities.
    pub slots: u32,
    /// Programs that run at the same time.
    pub programs: Vec<ProgramDemand>,
}

impl Demand {
    /// A program with one thread and a CNode of four slots, the least a capOS
    /// process has.
    pub fn process(name: &str, runs: Vec<PageRun>, sizes: &ObjectSizes) -> ProgramDemand {
        let thread = sizes.object(crate::operation::ObjectKind::Tcb);
        ProgramDemand {
            name: name.into(),
            runs,
            objects: vec![thread, sizes.cnode(2)],
        }
    }
}

/// What one program takes, in bytes and slots. Frames that are made but not
/// used yet count as slots only; tables of the window count for the program
/// that first needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramShare {
    /// The program.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Slots, cached ones included.
    pub slots: u32,
}

/// How much is missing. At least one of the figures is not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The first request that could not be met.
    pub first: BrokerError,
    /// For which program; `None` for the root task's own objects.
    pub program: Option<String>,
    /// Bytes of RAM missing for all programs together; when enough are there
    /// but in pieces too small, the size of the first request.
    pub bytes: u64,
    /// Slots missing for all programs together.
    pub slots: u32,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program.as_deref().unwrap_or("root-task");
        write!(f, "{program}: {}; ", self.first)?;
        let (bytes, slots) = (self.bytes, self.slots);
        write!(
            f,
            "short of {bytes} bytes of memory and {slots} capability slots"
        )
    }
}

/// The outcome of a simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What each program takes, as far as the simulation came.
    pub shares: Vec<ProgramShare>,
    /// The books at the end.
    pub usage: Usage,
    /// What is missing, if anything.
    pub shortfall: Option<Shortfall>,
}

/// Boots `demand` on `machine`, on paper.
pub fn simulate(machine: &MachineProfile, demand: &Demand, backing: Backing) -> Report {
    let mut broker = machine.broker();
    let mut shares = Vec::new();
    let outcome = populate(&mut broker, demand, backing, &mut shares);
    let usage = broker.usage();
    let shortfall = outcome
        .err()
        .map(|(program, first)| shortfall(machine, demand, backing, program, first));
    Report {
        shares,
        usage,
        shortfall,
    }
}

type Failure = (Option<String>, BrokerError);

fn populate(
    broker: &mut Broker,
    demand: &Demand,
    backing: Backing,
    shares: &mut Vec<ProgramShare>,
) -> Result<(), Failure> {
    let own = |error| (None, error);
    for _ in 0..demand.slots {
        broker.allocate_slot(&mut Paper).map_err(own)?;
    }
    for object in &demand.objects {
        keep(broker.create_object(&mut Paper, *object)).map_err(own)?;
    }
    for program in &demand.programs {
        let before = broker.usage();
        let named = |error| (Some(program.name.clone()), error);
        start(broker, program, backing).map_err(named)?;
        let after = broker.usage();
        shares.push(ProgramShare {
            name: program.name.clone(),
            bytes: after.used_bytes() - before.used_bytes(),
            slots: after.used_slots.saturating_sub(before.used_slots),
        });
    }
    Ok(())
}

fn start(
    broker: &mut Broker,
    program: &ProgramDemand,
    backing: Backing,
) -> Result<(), BrokerError> {
    for object in &program.objects {
        keep(broker.create_object(&mut Paper, *object))?;
    }
    let space = broker.create_space(&mut Paper)?;
    for run in &program.runs {
        if run.eager || backing == Backing::Everything {
            for page in 0..run.pages {
                let vaddr = run.start + page * PAGE_BYTES;
                broker.back_page(&mut Paper, space, vaddr, Rights::ReadWrite)?;
            }
        }
    }
    Ok(())
}

/// On paper objects live for as long as the broker does.
fn keep(made: Result<crate::OwnedObject, BrokerError>) -> Result<(), BrokerError> {
    made.map(core::mem::forget)
}

fn shortfall(
    machine: &MachineProfile,
    demand: &Demand,
    backing: Backing,
    program: Option<String>,
    first: BrokerError,
) -> Shortfall {
    let mut boundless = MachineProfile::boundless().broker();
    // The only failure left is a demand that fits no machine; its figure is
    // what was reached.
    let _ = populate(&mut boundless, demand, backing, &mut Vec::new());
    let needed = boundless.usage();
    let present: u64 = machine
        .untypeds
        .iter()
        .map(|(_, size_bits)| 1_u64 << size_bits)
        .sum();
    let missing = (needed.total_bytes - needed.free_bytes).saturating_sub(present);
    let bytes = match first {
        BrokerError::OutOfMemory { size_bits } => missing.max(1 << size_bits),
        _ => missing,
    };
    let missing = needed.used_slots.saturating_sub(machine.slots);
    let slots = match first {
        BrokerError::OutOfSlots { count } => missing.max(count),
        _ => missing,
    };
    Shortfall {
        first,
        program,
        bytes,
        slots,
    }
}

/// A kernel that agrees to everything.
struct Paper;

impl Kernel for Paper {
    fn execute(&mut self, _: &Operation) -> Result<(), Refused> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn hello() -> ProgramDemand {
        let runs = vec![
            PageRun {
                start: 0x20_0000,
                pages: 27,
                eager: true,
            },
            PageRun {
                start: 0x22_0000,
                pages: 770,
                eager: false,
            },
            PageRun {
                start: 0x100_0000,
                pages: 16,
                eager: false,
            },
            PageRun {
                start: 0x120_0000,
                pages: 1,
                eager: true,
            },
            PageRun {
                start: 0x130_0000,
                pages: 1,
                eager: true,
            },
        ];
        Demand::process("hello", runs, &ObjectSizes::SEL4_5_X86_64)
    }

    fn system(count: usize) -> Demand {
        Demand {
            programs: vec![hello(); count],
            ..Demand::default()
        }
    }

    fn machine(mib: u64, slots: u32) -> MachineProfile {
        MachineProfile::from_ranges(&[(2 * MIB, (2 + mib) * MIB)], slots, 1 << 17)
    }

    #[test]
    fn ranges_are_cut_like_the_kernel_does() {
        let profile = MachineProfile::from_ranges(&[(0x3000, 0x9000)], 1, 1);
        assert_eq!(profile.untypeds, [(0x3000, 12), (0x4000, 14), (0x8000, 12)]);
    }

    /// Free bytes and slots that seL4 5.0.0 gave a root task of 0x244 pages
    /// under QEMU with 64, 128, 512 and 2048 MiB.
    const MEASURED: [(u64, u64, u32); 4] = [
        (64, 59_187_200, 64_847),
        (128, 126_296_064, 64_846),
        (512, 528_949_248, 64_844),
        (2048, 2_139_561_984, 64_842),
    ];

    #[test]
    fn the_estimate_is_below_what_boots_gave_and_not_far() {
        for (mib, bytes, slots) in MEASURED {
            let profile = MachineProfile::pc99(mib, 0x244 * PAGE_BYTES, 16);
            let blocks = profile.untypeds.iter();
            let estimate: u64 = blocks.map(|(_, size_bits)| 1 << size_bits).sum();
            assert!(
                estimate <= bytes && bytes - estimate < KERNEL_BYTES,
                "{mib} MiB"
            );
            assert!(
                profile.slots <= slots && slots - profile.slots < 256,
                "{mib} MiB"
            );
        }
        let tiny = MachineProfile::pc99(2, 1 << 20, 16);
        assert!(tiny.untypeds.is_empty(), "nothing is left of 2 MiB");
    }

    #[test]
    fn a_system_that_fits_reports_shares() {
        let report = simulate(&machine(64, 60000), &system(10), Backing::EagerOnly);
        assert_eq!(report.shortfall, None);
        assert_eq!(report.shares.len(), 10);
        // 29 frames; top table, PDPT, directory, page tables at 2, 18 MiB; TCB, CNode.
        assert_eq!(report.shares[9].bytes, (29 + 5) * 4096 + 2048 + 128);
    }

    #[test]
    fn too_little_memory_is_a_figure() {
        let report = simulate(&machine(16, 60000), &system(10), Backing::Everything);
        let shortfall = report.shortfall.expect("10 * 3.2 MiB do not fit 16 MiB");
        let missing = shortfall.bytes / MIB;
        assert!(
            (15..20).contains(&missing),
            "about 33 - 16 MiB: {shortfall}"
        );
        assert!(matches!(shortfall.first, BrokerError::OutOfMemory { .. }));
        let more = simulate(
            &machine(16 + missing + 4, 60000),
            &system(10),
            Backing::Everything,
        );
        assert_eq!(more.shortfall, None, "the figure, rounded up, is enough");
    }

    #[test]
    fn too_few_slots_are_a_figure() {
        let report = simulate(&machine(64, 4000), &system(10), Backing::Everything);
        let shortfall = report.shortfall.expect("8150 frames do not fit 4000 slots");
        assert!(shortfall.slots > 12_000, "{shortfall}");
        assert_eq!(shortfall.bytes, 0);
        assert!(matches!(shortfall.first, BrokerError::OutOfSlots { .. }));
    }
}
