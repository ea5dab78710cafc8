//! Does the system fit the machine? Answered before it boots.
//!
//! The broker's own books run on paper against the memory and slots a boot on
//! this machine leaves to the root task (`cap_broker_core::sim`). Programs are
//! counted as if every page they can touch had been touched, so what passes
//! here does not run out of memory later for its image, stack and heap.

use cap_broker_core::sim::{Backing, Demand, MachineProfile, PageRun, Report, Shortfall, simulate};
use cap_broker_core::{ObjectKind, ObjectSizes};
use capos_loader::{AddressMap, LoadPlan};
use object::Endianness;
use object::elf::PT_LOAD;
use object::read::elf::{ElfFile64, ProgramHeader};

const MIB: u64 = 1 << 20;
const PAGE_BYTES: u64 = 4096;
/// Where multiboot kernels are loaded; memory below is the firmware's.
const KERNEL_BASE: u64 = MIB;
/// Firmware tables at the top of memory.
const FIRMWARE_BYTES: u64 = MIB;
/// Bits of a CNode slot on x86_64 (`seL4_SlotBits`).
const SLOT_BITS: u64 = 5;
/// Page tables, bootinfo, IPC buffer and idle thread of the root task.
const ROOT_SERVER_BYTES: u64 = 64 * 1024;
/// Slots the root task uses for ports, interrupts and badged capabilities.
const ROOT_SLOTS: u32 = 16;
/// Slots the kernel fills besides image frames and untypeds.
const KERNEL_SLOTS: u64 = 512;

/// The system does not fit, or its files cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// Not enough memory or slots; the figures say how much is missing.
    #[error(
        "the system does not fit a machine of {memory_mib} MiB: {shortfall}; give it more memory (MEMORY=...) or fewer programs"
    )]
    Shortfall {
        /// The machine.
        memory_mib: u64,
        /// What is missing.
        shortfall: Shortfall,
    },
    /// Kernel and image alone do not fit.
    #[error("kernel and image take {needed} bytes; a machine of {memory_mib} MiB is too small")]
    Image {
        /// The machine.
        memory_mib: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// Not an ELF file.
    #[error("{0}: {1}")]
    Unreadable(&'static str, String),
}

/// The machine and what is loaded before the root task runs.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// Memory of the machine in MiB.
    pub memory_mib: u64,
    /// The kernel's ELF file.
    pub kernel: &'a [u8],
    /// The root task with its archive.
    pub image: &'a [u8],
    /// `CONFIG_ROOT_CNODE_SIZE_BITS`.
    pub root_cnode_bits: u64,
}

impl Boot<'_> {
    /// What the kernel leaves, a little less than it really is.
    fn profile(&self) -> Result<MachineProfile, BudgetError> {
        let kernel = extent(self.kernel).map_err(|e| BudgetError::Unreadable("kernel", e))?;
        let image = extent(self.image).map_err(|e| BudgetError::Unreadable("image", e))?;
        let used = KERNEL_BASE
            + kernel
            + page_ceil(self.image.len() as u64)
            + image
            + (1 << (self.root_cnode_bits + SLOT_BITS))
            + ROOT_SERVER_BYTES;
        let end = (self.memory_mib * MIB).saturating_sub(FIRMWARE_BYTES);
        if used >= end {
            return Err(BudgetError::Image {
                memory_mib: self.memory_mib,
                needed: used + FIRMWARE_BYTES,
            });
        }
        let slots = (1_u64 << self.root_cnode_bits)
            .saturating_sub(image / PAGE_BYTES)
            .saturating_sub(KERNEL_SLOTS);
        let pages = (end - used) / PAGE_BYTES;
        let start = page_ceil(used);
        let window = u32::try_from(pages.min(slots / 2)).unwrap_or(u32::MAX);
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        Ok(MachineProfile::from_ranges(&[(start, end)], slots, window))
    }
}

/// Checks that `programs` (name and ELF file) fit, all at once and all touched.
///
/// # Errors
/// [`BudgetError`]
pub fn check(boot: &Boot<'_>, programs: &[(&str, &[u8])]) -> Result<Report, BudgetError> {
    let sizes = ObjectSizes::SEL4_5_X86_64;
    let own = [ObjectKind::Endpoint, ObjectKind::Notification];
    let demand = Demand {
        objects: own.map(|kind| sizes.object(kind)).to_vec(),
        slots: ROOT_SLOTS,
        programs: programs
            .iter()
            .map(|(name, file)| Demand::process(name, runs(file), &sizes))
            .collect(),
    };
    let report = simulate(&boot.profile()?, &demand, Backing::Everything);
    match report.shortfall {
        Some(shortfall) => Err(BudgetError::Shortfall {
            memory_mib: boot.memory_mib,
            shortfall,
        }),
        None => Ok(report),
    }
}

/// Every page a program starts with. A file the loader refuses has none; the
/// packer has refused it before.
fn runs(file: &[u8]) -> Vec<PageRun> {
    let Ok(plan) = LoadPlan::parse(file) else {
        return Vec::new();
    };
    let map = AddressMap::for_program(&plan, true);
    let run = |region: &capos_loader::Region| PageRun {
        start: region.start,
        pages: region.pages(),
        eager: region.backing == capos_loader::Backing::Eager,
    };
    map.regions().iter().map(run).collect()
}

/// Bytes of physical memory from an ELF file's first loaded page to its last.
fn extent(file: &[u8]) -> Result<u64, String> {
    let elf = ElfFile64::<Endianness>::parse(file).map_err(|e| e.to_string())?;
    let endian = elf.endian();
    let loaded = elf
        .elf_program_headers()
        .iter()
        .filter(|header| header.p_type(endian) == PT_LOAD);
    let ranges = loaded.map(|header| {
        let start = header.p_paddr(endian);
        (start, start.saturating_add(header.p_memsz(endian)))
    });
    let (start, end) = ranges.fold((u64::MAX, 0), |(start, end), range| {
        (start.min(range.0), end.max(range.1))
    });
    Ok(page_ceil(end.saturating_sub(start)))
}

const fn page_ceil(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE_BYTES)
}
