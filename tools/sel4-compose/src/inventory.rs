//! Who holds what in a packed image.
//!
//! Everything is read back out of the image: the manifest and the programs
//! from the boot archive, the hardware from the table the root task carries
//! (`root-task/src/hardware.rs`). Nothing is taken from the files the image
//! was made of, so that it says what will boot.

use std::fmt;

use capnp::Word;
use capos_config::manifest::{CapSource, ManifestBootstrapPlan, RestartPolicy};
use capos_config::{KernelCapSource, RESERVED_INIT_BINARY_NAME};
use capos_loader::{AddressMap, Backing, LoadPlan, RegionKind};
use object::Endianness;
use object::elf::PT_LOAD;
use object::read::elf::{ElfFile64, ProgramHeader};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::description::interfaces;
use crate::image::{self, INIT_ENTRY, MANIFEST_ENTRY, PROGRAM_DIRECTORY};

/// Bytes of a page.
const PAGE_BYTES: u64 = 4096;
/// First bytes of the table of hardware.
const HARDWARE_MAGIC: &[u8; 16] = b"capos-hardware-1";
/// Size of one entry: kind, first, last, and 40 bytes of text.
const RESOURCE_BYTES: usize = 64;
/// Resources one would believe.
const RESOURCES_MAX: usize = 256;

/// A file that is no image of this system.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// It has no boot archive.
    #[error("this is no packed image: it has no boot archive; name an image.elf of `build`")]
    NoArchive,
    /// The archive lacks an entry.
    #[error("the boot archive has no {0}; build the image again")]
    NoEntry(String),
    /// The manifest does not decode.
    #[error("the manifest does not decode: {0}; build the image again")]
    Manifest(capos_config::Error),
    /// The description of protection domains does not decode.
    #[error("the protection domains do not decode: {0}; build the image again")]
    Domains(capos_domains::Malformed),
    /// A program the loader would refuse.
    #[error("program {0} would be refused: {1}")]
    Program(String, String),
    /// The root task is of another version.
    #[error("the root task carries no table of hardware; build the image with this version")]
    NoHardware,
}

/// What an image holds.
#[derive(Debug, Serialize)]
pub struct Inventory {
    /// SHA-256 of the manifest.
    pub manifest_sha256: String,
    /// The root task.
    pub root_task: RootTask,
    /// The programs of the archive.
    pub programs: Vec<Program>,
    /// The protection domains.
    pub domains: Vec<Domain>,
    /// Init, then the services, in the order they start.
    pub processes: Vec<Process>,
}

/// What belongs to the root task.
#[derive(Debug, Serialize)]
pub struct RootTask {
    /// Pages of its own.
    pub pages: u64,
    /// Pages of the boot archive.
    pub archive_pages: u64,
    /// Its hardware.
    pub hardware: Vec<Hardware>,
}

/// A protection domain.
#[derive(Debug, Serialize)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: u8,
    /// Its parent, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// SHA-256 of its program as packed; none for the root task's stand-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What it holds, a line each.
    pub holds: Vec<String>,
}

/// What a piece of hardware is a range of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// I/O ports.
    #[serde(rename = "I/O ports")]
    Ports,
    /// Physical memory.
    #[serde(rename = "physical memory")]
    Memory,
    /// Inputs of the first I/O APIC.
    #[serde(rename = "I/O APIC pins")]
    Pins,
    /// I/O ports the root task drives where no domain does.
    #[serde(rename = "I/O ports, unless a domain has them")]
    SparePorts,
    /// Inputs the root task listens to where no domain does.
    #[serde(rename = "I/O APIC pins, unless a domain has them")]
    SparePins,
}

impl Kind {
    /// Of the number in the root task's table.
    const fn of(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Ports,
            2 => Self::Memory,
            3 => Self::Pins,
            4 => Self::SparePorts,
            5 => Self::SparePins,
            _ => return None,
        })
    }

    /// The words for it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Ports | Self::SparePorts => "I/O ports",
            Self::Memory => "physical memory",
            Self::Pins | Self::SparePins => "I/O APIC pins",
        }
    }

    /// Whether a range of this kind and one of `other` are numbered alike.
    pub fn is_of(self, other: Self) -> bool {
        self.words() == other.words()
    }

    /// Whether a domain may have it instead of the root task.
    pub fn can_be_given(self) -> bool {
        matches!(self, Self::SparePorts | Self::SparePins)
    }
}

/// One piece of hardware.
#[derive(Debug, Serialize)]
pub struct Hardware {
    /// What it is a range of.
    pub kind: Kind,
    /// First port, address or pin.
    pub first: u64,
    /// Last port, address or pin.
    pub last: u64,
    /// What for.
    pub purpose: String,
}

/// A program of the archive.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// SHA-256 of its file.
    pub sha256: String,
    /// Memory of a process that runs it.
    pub memory: Memory,
}

/// Pages of a process.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    /// Filled from the file.
    pub image_pages: u64,
    /// Zeroes: variables and heap.
    pub zero_pages: u64,
    /// The stack.
    pub stack_pages: u64,
    /// Thread-local storage, ring, CapSet.
    pub other_pages: u64,
    /// All of them: what is promised when it starts.
    pub promised_pages: u64,
}

/// Init or a service.
#[derive(Debug, Serialize)]
pub struct Process {
    /// Its name.
    pub name: String,
    /// Its program.
    pub program: String,
    /// What becomes of it when it ends.
    pub restart: &'static str,
    /// What it holds when it starts, in the order of its CapSet.
    pub capabilities: Vec<Capability>,
    /// Its memory.
    pub memory: Memory,
}

/// A capability a process starts with.
#[derive(Debug, Serialize)]
pub struct Capability {
    /// Its name in the CapSet.
    pub name: String,
    /// The interface the holder sees.
    pub interface: String,
    /// Where it comes from: `kernel:SOURCE` or `service:NAME.EXPORT`.
    pub source: String,
    /// Badge of its calls, if it has one.
    #[serde(skip_serializing_if = "is_zero")]
    pub badge: u64,
    /// Who may import it from its holder.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub importers: Vec<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Inventory {
    /// Reads a packed image.
    ///
    /// # Errors
    /// [`InventoryError`]
    pub fn of_image(image: &[u8]) -> Result<Self, InventoryError> {
        let entries = image::entries(image).ok_or(InventoryError::NoArchive)?;
        let entry = |name: &str| {
            let found = entries.iter().find(|(entry, _)| entry == name);
            found
                .map(|(_, data)| *data)
                .ok_or_else(|| InventoryError::NoEntry(name.into()))
        };
        let manifest = entry(MANIFEST_ENTRY)?;
        let words = aligned(manifest);
        let plan = ManifestBootstrapPlan::from_capnp_bytes(Word::words_to_bytes(&words));
        let plan = plan.map_err(InventoryError::Manifest)?;
        let programs = entries
            .iter()
            .filter_map(|(name, file)| Some((program_name(name)?, *file)))
            .map(|(name, file)| Program::of(name, file))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            manifest_sha256: hexadecimal(&Sha256::digest(manifest)),
            root_task: RootTask::of(image)?,
            processes: processes(&plan, &programs)?,
            domains: domains(&entries)?,
            programs,
        })
    }

    /// As JSON, for programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The short form: programs and sums.
    pub fn summary(&self) -> String {
        let mut out = String::new();
        for program in &self.programs {
            let Program {
                name,
                file_bytes,
                sha256,
                memory,
            } = program;
            let (kib, pages) = (file_bytes.div_ceil(1024), memory.promised_pages);
            out += &format!(
                "program {name}: {kib} KiB, {pages} pages, sha256 {}...\n",
                &sha256[..16]
            );
        }
        let promised: u64 = self
            .processes
            .iter()
            .map(|process| process.memory.promised_pages)
            .sum();
        let RootTask {
            pages,
            archive_pages,
            ..
        } = &self.root_task;
        out += &format!(
            "{} processes, {promised} pages promised; root task {pages} pages, archive {archive_pages}\n",
            self.processes.len()
        );
        out += &format!("manifest sha256 {}\n", self.manifest_sha256);
        out
    }
}

/// Archive entries are 4-aligned, Cap'n Proto words are 8-aligned.
fn aligned(bytes: &[u8]) -> Vec<Word> {
    let mut words = Word::allocate_zeroed_vec(bytes.len().div_ceil(size_of::<Word>()));
    Word::words_to_bytes_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    words
}

/// The name a process starts a program by.
fn program_name(entry: &str) -> Option<&str> {
    if entry == INIT_ENTRY {
        return Some(RESERVED_INIT_BINARY_NAME);
    }
    entry.strip_prefix(PROGRAM_DIRECTORY)?.strip_prefix('/')
}

impl Program {
    fn of(name: &str, file: &[u8]) -> Result<Self, InventoryError> {
        let refused = |error: capos_loader::LoadError| {
            InventoryError::Program(name.into(), error.to_string())
        };
        let plan = LoadPlan::parse(file).map_err(refused)?;
        Ok(Self {
            name: name.into(),
            file_bytes: file.len() as u64,
            sha256: hexadecimal(&Sha256::digest(file)),
            memory: Memory::of(&plan),
        })
    }
}

impl Memory {
    fn of(plan: &LoadPlan) -> Self {
        let mut memory = Self::default();
        for region in AddressMap::for_program(plan, true).regions() {
            let pages = region.pages();
            let kind = match (region.kind, region.backing) {
                (RegionKind::Image, Backing::Eager) => &mut memory.image_pages,
                (RegionKind::Image, _) => &mut memory.zero_pages,
                (RegionKind::Stack, _) => &mut memory.stack_pages,
                _ => &mut memory.other_pages,
            };
            *kind += pages;
            memory.promised_pages += pages;
        }
        memory
    }
}

fn processes(
    plan: &ManifestBootstrapPlan,
    programs: &[Program],
) -> Result<Vec<Process>, InventoryError> {
    let memory = |name: &str| {
        let program = programs.iter().find(|program| program.name == name);
        let missing = || InventoryError::NoEntry(format!("{PROGRAM_DIRECTORY}/{name}"));
        program.map(|program| program.memory).ok_or_else(missing)
    };
    let init = Process {
        name: "init".into(),
        program: plan.init.binary.clone(),
        restart: "never",
        capabilities: plan.init.caps.iter().map(init_capability).collect(),
        memory: memory(&plan.init.binary)?,
    };
    let mut processes = vec![init];
    for service in &plan.services {
        let capabilities = service.caps.iter();
        let capabilities = capabilities.map(|cap| capability(plan, &service.name, cap));
        processes.push(Process {
            name: service.name.clone(),
            program: service.binary.clone(),
            restart: restart(service.restart),
            capabilities: capabilities.collect(),
            memory: memory(&service.binary)?,
        });
    }
    Ok(processes)
}

const fn restart(policy: RestartPolicy) -> &'static str {
    match policy {
        RestartPolicy::Never => "never",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Always => "always",
    }
}

fn init_capability(cap: &capos_config::InitCapRef) -> Capability {
    Capability {
        name: cap.name.clone(),
        interface: interfaces::name(cap.expected_interface_id),
        source: kernel(cap.source),
        badge: cap.badge,
        importers: Vec::new(),
    }
}

fn kernel(source: KernelCapSource) -> String {
    format!("kernel:{source}")
}

fn capability(
    plan: &ManifestBootstrapPlan,
    holder: &str,
    cap: &capos_config::CapRef,
) -> Capability {
    let (source, interface) = match &cap.source {
        CapSource::Kernel(source) => (kernel(*source), cap.expected_interface_id),
        CapSource::Service(from) => {
            let source = format!("service:{}.{}", from.service, from.export);
            (source, imported_interface(plan, cap, from))
        }
    };
    Capability {
        name: cap.name.clone(),
        interface: interfaces::name(interface),
        source,
        badge: cap.badge,
        importers: importers(plan, holder, &cap.name),
    }
}

/// An import has the interface it asks for, or that of the export.
fn imported_interface(
    plan: &ManifestBootstrapPlan,
    cap: &capos_config::CapRef,
    from: &capos_config::ServiceCapSource,
) -> u64 {
    if cap.expected_interface_id != 0 {
        return cap.expected_interface_id;
    }
    let service = plan
        .services
        .iter()
        .find(|service| service.name == from.service);
    let exported =
        service.and_then(|service| service.caps.iter().find(|cap| cap.name == from.export));
    exported.map_or(0, |cap| cap.expected_interface_id)
}

/// The services that import `export` of `holder`.
fn importers(plan: &ManifestBootstrapPlan, holder: &str, export: &str) -> Vec<String> {
    let imports = |cap: &capos_config::CapRef| matches!(&cap.source, CapSource::Service(from) if from.service == holder && from.export == export);
    let services = plan
        .services
        .iter()
        .filter(|service| service.caps.iter().any(imports));
    services.map(|service| service.name.clone()).collect()
}

impl RootTask {
    fn of(image: &[u8]) -> Result<Self, InventoryError> {
        let file = ElfFile64::<Endianness>::parse(image).map_err(|_| InventoryError::NoArchive)?;
        let endian = file.endian();
        let loads = file.elf_program_headers().iter();
        let loads: Vec<_> = loads
            .filter(|header| header.p_type(endian) == PT_LOAD)
            .collect();
        let mut pages = loads
            .iter()
            .map(|header| header.p_memsz(endian).div_ceil(PAGE_BYTES));
        let archive_pages = pages.next_back().unwrap_or(0);
        Ok(Self {
            pages: pages.sum(),
            archive_pages,
            hardware: hardware(image).ok_or(InventoryError::NoHardware)?,
        })
    }
}

/// The protection domains an archive holds.
fn domains(entries: &[(String, &[u8])]) -> Result<Vec<Domain>, InventoryError> {
    let entry = |name: &str| entries.iter().find(|(entry, _)| entry == name);
    let (_, compiled) =
        entry(capos_domains::ENTRY).ok_or(InventoryError::NoEntry(capos_domains::ENTRY.into()))?;
    let system = capos_domains::decode(compiled).map_err(InventoryError::Domains)?;
    let of = |domain: &capos_domains::Domain| {
        let program = entry(&format!("{}/{}", capos_domains::DIRECTORY, domain.name));
        let parent = domain.parent.map(|parent| usize::from(parent.domain));
        Domain {
            name: domain.name.clone(),
            priority: domain.priority,
            parent: parent.map(|parent| system.domains[parent].name.clone()),
            sha256: program.map(|(_, file)| hexadecimal(&Sha256::digest(file))),
            holds: holds(&system, domain),
        }
    };
    Ok(system.domains.iter().map(of).collect())
}

/// What a domain holds, in words.
fn holds(system: &capos_domains::System, domain: &capos_domains::Domain) -> Vec<String> {
    use capos_domains::Source;
    let mut lines = Vec::new();
    for map in &domain.maps {
        let region = &system.regions[usize::from(map.region)];
        let access = if map.writable { "rw" } else { "r" };
        lines.push(format!(
            "region {} at {:#x}, {} pages, {access}",
            region.name, map.vaddr, region.pages
        ));
    }
    for irq in &domain.interrupts {
        let source = match irq.source {
            Source::Pin { ioapic, pin, .. } => format!("I/O APIC {ioapic} pin {pin}"),
            Source::Message {
                bus,
                device,
                function,
                handle,
            } => format!("message {handle} of {bus:02x}:{device:02x}.{function:x}"),
        };
        lines.push(format!(
            "interrupt {}: {source}, vector {}",
            irq.id, irq.vector
        ));
    }
    for ports in &domain.ports {
        lines.push(format!(
            "I/O ports {}: {:#x}-{:#x}",
            ports.id, ports.first, ports.last
        ));
    }
    for channel in &domain.channels {
        let peer = &system.domains[usize::from(channel.peer)].name;
        let can = match (channel.notify, channel.call) {
            (true, true) => "notify, call",
            (true, false) => "notify",
            (false, true) => "call",
            (false, false) => "nothing",
        };
        lines.push(format!("channel {} to {peer}: {can}", channel.id));
    }
    lines
}

/// Finds and reads the root task's table of hardware.
pub fn hardware(image: &[u8]) -> Option<Vec<Hardware>> {
    let windows = image.windows(HARDWARE_MAGIC.len());
    let mut places = windows
        .enumerate()
        .filter(|(_, window)| window == HARDWARE_MAGIC);
    places.find_map(|(at, _)| read_hardware(&image[at + HARDWARE_MAGIC.len()..]))
}

fn read_hardware(table: &[u8]) -> Option<Vec<Hardware>> {
    let word = |at: usize| Some(u64::from_le_bytes(table.get(at..at + 8)?.try_into().ok()?));
    let count = usize::try_from(word(0)?)
        .ok()
        .filter(|count| (1..=RESOURCES_MAX).contains(count))?;
    let resource = |index: usize| {
        let at = 8 + index * RESOURCE_BYTES;
        let text = table.get(at + 24..at + RESOURCE_BYTES)?;
        let text = std::str::from_utf8(text).ok()?.trim_end_matches('\0');
        Some(Hardware {
            kind: Kind::of(word(at)?)?,
            first: word(at + 8)?,
            last: word(at + 16)?,
            purpose: text.into(),
        })
    };
    (0..count).map(resource).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            image_pages,
            zero_pages,
            stack_pages,
            other_pages,
            promised_pages,
        } = self;
        write!(
            f,
            "{promised_pages} pages promised (image {image_pages}, variables and heap {zero_pages}, \
             stack {stack_pages}, ring, CapSet and TLS {other_pages})"
        )
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<20} {:<18} {}",
            self.name, self.interface, self.source
        )?;
        if self.badge != 0 {
            write!(f, " badge {:#x}", self.badge)?;
        }
        if !self.importers.is_empty() {
            write!(f, " -> {}", self.importers.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "manifest sha256 {}", self.manifest_sha256)?;
        let RootTask {
            pages,
            archive_pages,
            hardware,
        } = &self.root_task;
        writeln!(
            f,
            "\nroot task: {pages} pages, boot archive {archive_pages} pages"
        )?;
        for Hardware {
            kind,
            first,
            last,
            purpose,
        } in hardware
        {
            let unless = match kind.can_be_given() {
                true => ", unless a domain has them",
                false => "",
            };
            let kind = kind.words();
            writeln!(f, "  {kind:<16} {first:#x}-{last:#x}  {purpose}{unless}")?;
        }
        for Domain {
            name,
            priority,
            parent,
            sha256,
            holds,
        } in &self.domains
        {
            let child = parent.iter().map(|parent| format!(", child of {parent}"));
            let child: String = child.collect();
            let program = match sha256 {
                Some(digest) => format!("program sha256 {digest}"),
                None => "the root task itself".into(),
            };
            writeln!(
                f,
                "\nprotection domain {name}: priority {priority}{child}, {program}"
            )?;
            for line in holds {
                writeln!(f, "  {line}")?;
            }
        }
        for process in &self.processes {
            let Process {
                name,
                program,
                restart,
                capabilities,
                memory,
            } = process;
            writeln!(f, "\nprocess {name}: program {program}, restart {restart}")?;
            for capability in capabilities {
                writeln!(f, "  {capability}")?;
            }
            writeln!(f, "  {memory}")?;
        }
        writeln!(f)?;
        for Program {
            name,
            file_bytes,
            sha256,
            ..
        } in &self.programs
        {
            writeln!(f, "program {name}: {file_bytes} bytes, sha256 {sha256}")?;
        }
        Ok(())
    }
}
