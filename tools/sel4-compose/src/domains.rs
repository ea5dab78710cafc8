//! The protection domains of a system: from `system.xml` to archive entries.
//!
//! `system-description` checks the file and lowers it. Here its programs are
//! built and given the values they are patched with, its claims are held
//! against the root task's own hardware, and everything is packed.

use std::fs;
use std::path::{Path, PathBuf};

use cap_broker_core::sim::{Demand, PageRun, ProgramDemand};
use cap_broker_core::{Object, ObjectKind, ObjectSizes};
use capos_domains::{
    DIRECTORY, Domain, ENTRY, IPC_BUFFER, NAME_BYTES, PAGE_BYTES, STACK_TOP, System, slot,
};
use capos_loader::LoadPlan;
use cargo_metadata::MetadataCommand;
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection, ObjectSymbol};
use system_description::{Description, Hardware, Refusal};

use crate::app;
use crate::image;
use crate::inventory::{self, Kind};
use crate::kernel::Prefix;
use crate::system::{self, Places, SystemError};

/// What a `program_image` is called beside the workspace's program.
const SUFFIX: &str = ".elf";

/// The domains of a system, ready to be packed.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    /// Archive entries: the compiled form, then each domain's program.
    pub entries: Vec<(String, Vec<u8>)>,
    /// The compiled form.
    pub system: System,
}

/// Reads, checks, builds and patches. `root_task` is the built root task, whose
/// table of hardware the claims are held against.
///
/// # Errors
/// [`SystemError`]
pub fn pack(
    places: &Places,
    prefix: &Prefix,
    file: &Path,
    root_task: &[u8],
) -> Result<Packed, SystemError> {
    let description = read(file)?;
    check_claims(&description, root_task)?;
    let programs = programs(places, prefix, &description)?;
    let compiled = capos_domains::encode(&description.system)
        .map_err(|error| SystemError::Domains(error.to_string()))?;
    let mut entries = vec![(ENTRY.to_owned(), compiled)];
    for (index, program) in programs.into_iter().enumerate() {
        let Some(program) = program else { continue };
        let patched = patched(&description, index, program)?;
        let name = &description.system.domains[index].name;
        entries.push((format!("{DIRECTORY}/{name}"), patched));
    }
    Ok(Packed {
        entries,
        system: description.system,
    })
}

/// Reads and checks a description.
///
/// # Errors
/// [`SystemError`]
pub fn read(file: &Path) -> Result<Description, SystemError> {
    Description::read(file).map_err(|error| match error {
        system_description::Error::Refused(refusal) => SystemError::DomainsRefused(refusal),
        error => SystemError::Domains(error.to_string()),
    })
}

/// A domain may have what the root task only drives where no domain does, and
/// nothing else of the root task's.
fn check_claims(description: &Description, root_task: &[u8]) -> Result<(), Refusal> {
    let own = inventory::hardware(root_task).unwrap_or_default();
    for claim in &description.claims {
        let (kind, first, last) = match claim.what {
            Hardware::Ports(first, last) => (Kind::Ports, first.into(), last.into()),
            Hardware::Pin(pin) => (Kind::Pins, pin.into(), pin.into()),
        };
        let taken = own.iter().find(|own| {
            let same = (own.first, own.last) == (first, last);
            let overlap = own.first <= last && first <= own.last;
            let exact = own.first == own.last || kind != Kind::Pins;
            own.kind.is_of(kind) && overlap && exact && !(same && own.kind.can_be_given())
        });
        if let Some(own) = taken {
            let name = &description.system.domains[claim.domain].name;
            let what = format!(
                "`{name}` asks for {} {first:#x}-{last:#x}, and the root task has {:#x}-{:#x} ({})",
                own.kind.words(),
                own.first,
                own.last,
                own.purpose
            );
            return Err(description.refuse(claim.place, what));
        }
    }
    Ok(())
}

/// The ELF file of each domain; none for the root task's stand-in.
fn programs(
    places: &Places,
    prefix: &Prefix,
    description: &Description,
) -> Result<Vec<Option<Vec<u8>>>, SystemError> {
    let folder = description.file.parent().unwrap_or(Path::new("."));
    let mut found: Vec<Option<PathBuf>> = Vec::new();
    let mut built: Vec<&str> = Vec::new();
    for (domain, image) in description.system.domains.iter().zip(&description.images) {
        let beside = folder.join(&image.path);
        let path = match (domain.is_root_task, beside.is_file()) {
            (true, _) => None,
            (false, true) => Some(beside),
            (false, false) => {
                let name = image.path.strip_suffix(SUFFIX).unwrap_or(&image.path);
                built.push(name);
                Some(
                    places
                        .target_directory(prefix)
                        .join(app::TARGET)
                        .join("release")
                        .join(name),
                )
            }
        };
        found.push(path);
    }
    build(places, prefix, description, &built)?;
    let read = |path: PathBuf| {
        fs::read(&path).map_err(|error| SystemError::File {
            path,
            reason: error.to_string(),
        })
    };
    found
        .into_iter()
        .map(|path| path.map(read).transpose())
        .collect()
}

/// Builds programs of the workspace, all at once.
fn build(
    places: &Places,
    prefix: &Prefix,
    description: &Description,
    names: &[&str],
) -> Result<(), SystemError> {
    if names.is_empty() {
        return Ok(());
    }
    let metadata = MetadataCommand::new()
        .current_dir(&places.root)
        .no_deps()
        .exec()
        .map_err(|error| SystemError::Domains(error.to_string()))?;
    let mut command = system::cargo_for_target(places, prefix);
    command.arg("--quiet");
    for name in names {
        let has_it = |package: &&cargo_metadata::Package| {
            package
                .targets
                .iter()
                .any(|target| target.is_bin() && target.name == *name)
        };
        let package = metadata.packages.iter().find(has_it);
        let package = package.ok_or_else(|| {
            let mut images = description.images.iter();
            let image = images.find(|image| image.path.strip_suffix(SUFFIX).unwrap_or(&image.path) == *name);
            let place = image.map(|image| image.place).unwrap_or_default();
            let what = format!(
                "`path` is \"{name}{SUFFIX}\": no such file here, and no program `{name}` in the workspace"
            );
            description.refuse(place, what)
        })?;
        command.args(["-p", package.name.as_str(), "--bin", name]);
    }
    let status = command.status().map_err(|error| SystemError::File {
        path: "cargo".into(),
        reason: error.to_string(),
    })?;
    match status.success() {
        true => Ok(()),
        false => Err(SystemError::RootTask(names.join(", "))),
    }
}

/// A program with the values of its domain, without what is not loaded.
fn patched(
    description: &Description,
    index: usize,
    mut program: Vec<u8>,
) -> Result<Vec<u8>, SystemError> {
    let (domain, image) = (
        &description.system.domains[index],
        &description.images[index],
    );
    let refuse = |place, what: String| SystemError::DomainsRefused(description.refuse(place, what));
    check_program(&description.system, domain, &program)
        .map_err(|what| refuse(image.place, format!("`{}`: {what}", image.path)))?;
    for (symbol, bytes) in own_symbols(&description.system, domain) {
        patch(&mut program, symbol, &bytes)
            .map_err(|what| refuse(image.place, format!("`{}`: {what}", image.path)))?;
    }
    for setvar in &image.setvars {
        patch(&mut program, &setvar.symbol, &setvar.value.to_le_bytes())
            .map_err(|what| refuse(setvar.place, what))?;
    }
    image::strip(&program).map_err(|what| refuse(image.place, what))
}

/// What the runtime has variables for.
fn own_symbols(system: &System, domain: &Domain) -> [(&'static str, Vec<u8>); 8] {
    let word = |value: u64| value.to_le_bytes().to_vec();
    let mut name = domain.name.clone().into_bytes();
    name.resize(NAME_BYTES, 0);
    [
        ("microkit_name", name),
        ("microkit_passive", vec![0]),
        ("microkit_irqs", word(domain.interrupt_mask())),
        ("microkit_notifications", word(domain.notify_mask())),
        ("microkit_pps", word(domain.call_mask())),
        ("microkit_ioports", word(domain.port_mask())),
        ("microkit_incoming", word(system.incoming_mask(domain))),
        ("microkit_ipc_buffer", word(IPC_BUFFER)),
    ]
}

/// Whether the loader takes the program, and its maps leave it alone.
fn check_program(system: &System, domain: &Domain, program: &[u8]) -> Result<(), String> {
    let plan = LoadPlan::parse(program).map_err(|error| error.to_string())?;
    for map in &domain.maps {
        let region = &system.regions[usize::from(map.region)];
        let end = map.vaddr + u64::from(region.pages) * PAGE_BYTES;
        let mut segments = plan.segments().iter();
        if let Some(segment) = segments.find(|s| s.start < end && map.vaddr < s.end) {
            return Err(format!(
                "its segment {:#x}..{:#x} overlaps `{}` at {:#x}..{end:#x}",
                segment.start, segment.end, region.name, map.vaddr
            ));
        }
    }
    Ok(())
}

/// Writes `bytes` to the variable `symbol`, which must have that size and
/// bytes in the file.
fn patch(program: &mut [u8], symbol: &str, bytes: &[u8]) -> Result<(), String> {
    let offset = place_of(program, symbol, bytes.len() as u64)?;
    program[offset..offset + bytes.len()].copy_from_slice(bytes);
    Ok(())
}

fn place_of(program: &[u8], symbol: &str, bytes: u64) -> Result<usize, String> {
    let file = ElfFile64::<Endianness>::parse(program).map_err(|error| error.to_string())?;
    let mut symbols = file.symbols();
    let found = symbols.find(|known| known.name() == Ok(symbol) && known.is_definition());
    let found = found.ok_or_else(|| format!("the program has no symbol `{symbol}`"))?;
    if found.size() != bytes {
        return Err(format!(
            "the symbol `{symbol}` has {} bytes, not {bytes}",
            found.size()
        ));
    }
    let address = found.address();
    let place = file.sections().find_map(|section| {
        let (offset, size) = section.file_range()?;
        let within = address.checked_sub(section.address())?;
        let fits = section.address() != 0 && within.checked_add(bytes)? <= size;
        fits.then(|| offset + within)
    });
    let place = place.and_then(|place| usize::try_from(place).ok());
    place
        .filter(|&place| place + bytes as usize <= program.len())
        .ok_or_else(|| format!("the symbol `{symbol}` has no bytes in the file"))
}

/// What the domains take from the machine: each program, and all that is
/// shared under one name.
pub fn demands(packed: &Packed, sizes: &ObjectSizes) -> Vec<ProgramDemand> {
    let mut demands = Vec::new();
    for domain in packed
        .system
        .domains
        .iter()
        .filter(|domain| !domain.is_root_task)
    {
        let path = format!("{DIRECTORY}/{}", domain.name);
        let file = packed.entries.iter().find(|(name, _)| *name == path);
        let runs = file.map(|(_, file)| runs(&packed.system, domain, file));
        let mut demand = Demand::process(&domain.name, runs.unwrap_or_default(), sizes);
        demand.objects = objects(domain, sizes);
        demands.push(demand);
    }
    demands
}

fn objects(domain: &Domain, sizes: &ObjectSizes) -> Vec<Object> {
    let mut objects = vec![
        sizes.object(ObjectKind::Tcb),
        sizes.object(ObjectKind::Notification),
        sizes.object(ObjectKind::Endpoint),
        sizes.cnode(slot::BITS),
    ];
    // A handler, its badged notification and a range of ports take a slot each,
    // as an endpoint would.
    let slots = 2 * domain.interrupts.len() + domain.ports.len();
    objects.extend((0..slots).map(|_| sizes.object(ObjectKind::Endpoint)));
    objects
}

/// Every page of a domain. A region counts for each domain that maps it, which
/// is more than it takes.
fn runs(system: &System, domain: &Domain, file: &[u8]) -> Vec<PageRun> {
    let eager = |start: u64, pages: u64| PageRun {
        start,
        pages,
        eager: true,
    };
    let plan = LoadPlan::parse(file).ok();
    let segments = plan.iter().flat_map(LoadPlan::segments);
    let segments = segments.map(|segment| eager(segment.start, segment.pages()));
    let maps = domain.maps.iter().map(|map| {
        let region = &system.regions[usize::from(map.region)];
        eager(map.vaddr, region.pages.into())
    });
    let stack = u64::from(domain.stack_pages);
    let own = [
        eager(STACK_TOP - stack * PAGE_BYTES, stack),
        eager(IPC_BUFFER, 1),
    ];
    segments.chain(maps).chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table as the root task carries it: kind, first, last, purpose.
    fn table(resources: &[(u64, u64, u64)]) -> Vec<u8> {
        let mut table = b"capos-hardware-1".to_vec();
        table.extend((resources.len() as u64).to_le_bytes());
        for (kind, first, last) in resources {
            for word in [kind, first, last] {
                table.extend(word.to_le_bytes());
            }
            table.extend([b'x'; 40]);
        }
        table
    }

    fn claims(inside: &str, resources: &[(u64, u64, u64)]) -> Result<(), String> {
        let text = format!(
            "<system><protection_domain name=\"one\"><program_image path=\"one.elf\" />{inside}</protection_domain></system>"
        );
        let description = Description::parse(Path::new("a.xml"), &text).expect("it is good");
        check_claims(&description, &table(resources)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn what_the_root_task_has_no_domain_gets() {
        let ports = r#"<ioport id="0" addr="0x3f8" size="8" />"#;
        let pin = r#"<irq id="0" pin="3" vector="3" />"#;
        let refusal = claims(ports, &[(1, 0x3ff, 0x400)]).expect_err("one port is taken");
        assert!(refusal.starts_with("a.xml:1:"), "{refusal}");
        assert!(refusal.contains("0x3f8-0x3ff"), "{refusal}");
        assert!(claims(pin, &[(3, 3, 3)]).is_err());
        // Numbers of another kind, and what lies beside, are nobody's business.
        assert_eq!(
            claims(ports, &[(2, 0x3f8, 0x3ff), (1, 0x3f0, 0x3f7)]),
            Ok(())
        );
        // The timer's pin is one of a range and known at boot only.
        assert_eq!(claims(pin, &[(3, 0, 23)]), Ok(()));
    }

    #[test]
    fn spare_ports_are_given_whole_or_not_at_all() {
        let whole = r#"<ioport id="0" addr="0x3f8" size="8" />"#;
        let part = r#"<ioport id="0" addr="0x3f8" size="4" />"#;
        assert_eq!(claims(whole, &[(4, 0x3f8, 0x3ff)]), Ok(()));
        assert!(claims(part, &[(4, 0x3f8, 0x3ff)]).is_err());
    }

    #[test]
    fn a_file_without_symbols_cannot_be_patched() {
        let error = patch(&mut b"no ELF file".to_vec(), "microkit_name", &[0]);
        assert!(error.is_err());
    }
}
