//! Does the system fit the machine? Answered before it boots.
//!
//! The broker's own books run on paper against the memory and slots a boot on
//! this machine leaves to the root task (`cap_broker_core::sim`). Programs are
//! counted as if every page they can touch had been touched, so what passes
//! here does not run out of memory later for its image, stack and heap.

use crate::domains::{self, Packed};
use cap_broker_core::sim::{Backing, Demand, MachineProfile, PageRun, Report, Shortfall, simulate};
use cap_broker_core::{ObjectKind, ObjectSizes};
use capos_loader::{self as loader, AddressMap, LoadPlan, Region};
use object::Endianness;
use object::elf::PT_LOAD;
use object::read::elf::{ElfFile64, ProgramHeader};

/// Slots the root task uses for ports, interrupts and badged capabilities.
const ROOT_SLOTS: u32 = 16;

/// The system does not fit, or its files cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// Not enough memory or slots; the figures say how much is missing.
    #[error(
        "the system does not fit a machine of {memory_mib} MiB: {shortfall}; give it more memory (MEMORY=...) or fewer programs"
    )]
    Shortfall {
        /// The machine.
        memory_mib: u32,
        /// What is missing.
        shortfall: Shortfall,
    },
    /// Not an ELF file.
    #[error("the image cannot be understood: {0}")]
    Unreadable(String),
}

/// The machine and what is loaded before the root task runs.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// Memory of the machine in MiB.
    pub memory_mib: u32,
    /// The root task with its archive.
    pub image: &'a [u8],
    /// `CONFIG_ROOT_CNODE_SIZE_BITS`.
    pub root_cnode_bits: u8,
}

impl Boot<'_> {
    /// What the kernel leaves: the file is kept while its image is unpacked.
    fn profile(&self) -> Result<MachineProfile, BudgetError> {
        let loaded = extent(self.image).map_err(BudgetError::Unreadable)?;
        let image = loaded + self.image.len() as u64;
        let memory = self.memory_mib.into();
        Ok(MachineProfile::pc99(memory, image, self.root_cnode_bits))
    }
}

/// As [`check`], before there is an image: what does not fit beside an image
/// of no size fits beside none.
///
/// # Errors
/// [`BudgetError`]
pub fn check_programs(memory_mib: u32, programs: &[(&str, &[u8])]) -> Result<Report, BudgetError> {
    /// Slots do not run out before memory: as many as any kernel has.
    const ROOT_CNODE_BITS: u8 = 18;
    let profile = MachineProfile::pc99(memory_mib.into(), 0, ROOT_CNODE_BITS);
    check_on(&profile, memory_mib, programs, &Packed::default())
}

/// Checks that `programs` (name and ELF file) fit beside the protection
/// domains, all at once and all touched.
///
/// # Errors
/// [`BudgetError`]
pub fn check(
    boot: &Boot<'_>,
    programs: &[(&str, &[u8])],
    domains: &Packed,
) -> Result<Report, BudgetError> {
    check_on(&boot.profile()?, boot.memory_mib, programs, domains)
}

fn check_on(
    profile: &MachineProfile,
    memory_mib: u32,
    programs: &[(&str, &[u8])],
    domains: &Packed,
) -> Result<Report, BudgetError> {
    let sizes = ObjectSizes::SEL4_5_X86_64;
    let own = [ObjectKind::Endpoint, ObjectKind::Notification];
    let processes = programs.iter();
    let processes = processes.map(|(name, file)| Demand::process(name, runs(file), &sizes));
    let demand = Demand {
        objects: own.map(|kind| sizes.object(kind)).to_vec(),
        slots: ROOT_SLOTS,
        programs: domains::demands(domains, &sizes)
            .into_iter()
            .chain(processes)
            .collect(),
    };
    let report = simulate(profile, &demand, Backing::Everything);
    match report.shortfall {
        Some(shortfall) => Err(BudgetError::Shortfall {
            memory_mib,
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
    let run = |region: &Region| PageRun {
        start: region.start,
        pages: region.pages(),
        eager: region.backing == loader::Backing::Eager,
    };
    map.regions().iter().map(run).collect()
}

/// Bytes of memory from an ELF file's first loaded page to its last.
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
    Ok(end.saturating_sub(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file that is a header and nothing else.
    fn empty_image() -> Vec<u8> {
        const HEADER_BYTES: usize = 64;
        let mut file = vec![0; HEADER_BYTES];
        // Magic, 64-bit, little-endian, version 1; ET_EXEC, x86-64, version 1.
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..24].copy_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
        file[52] = HEADER_BYTES as u8;
        file
    }

    fn check_with(memory_mib: u32, root_cnode_bits: u8) -> Result<Report, BudgetError> {
        let image = empty_image();
        let boot = Boot {
            memory_mib,
            image: &image,
            root_cnode_bits,
        };
        check(&boot, &[], &Packed::default())
    }

    #[test]
    fn an_empty_system_fits_and_a_tiny_machine_is_refused_with_a_figure() {
        assert!(check_with(64, 16).is_ok());
        let error = check_with(4, 16).expect_err("4 MiB hold no root CNode");
        let text = error.to_string();
        assert!(text.contains("machine of 4 MiB"), "{text}");
        assert!(text.contains("bytes of memory"), "{text}");
    }

    #[test]
    fn a_file_that_is_no_image_is_refused() {
        let boot = Boot {
            memory_mib: 512,
            image: b"no ELF file",
            root_cnode_bits: 16,
        };
        let error = check(&boot, &[], &Packed::default()).expect_err("not an image");
        assert!(error.to_string().contains("image"));
    }
}
