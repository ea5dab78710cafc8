//! Boot archive, boot manifest and bootable image.
//!
//! The kernel loads one program, the root task. Everything else travels inside
//! it: a CPIO archive ("newc" format) that holds the standard capOS boot
//! manifest and the program files is appended to the root-task ELF file as one
//! more read-only segment. The root task's linker script prepares the place: a
//! spare `PT_NULL` program header, the symbol `__boot_archive` at the first
//! page boundary behind everything else, and the 8-byte variable
//! `__boot_archive_len`.
//!
//! Output depends on the input alone: entries come in the order given, with all
//! times, owners and device numbers zero.

use std::path::{Path, PathBuf};

use capos_config::manifest::{
    FromCueValue, SYSTEM_MANIFEST_SCHEMA_VERSION, SystemConfig, SystemManifest,
};
use capos_config::manifest::{KernelBootstrapManifest, KernelCapSource, NamedBlob};
use capos_config::{CueField, CueValue, capset};
use capos_loader::LoadPlan;
use memchr::memmem;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Object, ObjectSymbol, elf};
use sha2::{Digest, Sha256};

/// Archive entry that holds the boot manifest.
pub const MANIFEST_ENTRY: &str = "manifest.bin";
/// Directory of the archive that holds the program files.
pub const PROGRAM_DIRECTORY: &str = "bins";
/// Archive entry that holds the supplied init, where programs cannot find it.
pub const INIT_ENTRY: &str = "init";
/// Archive entry that holds the digest of every other one, as sha256sum(1)
/// prints them.
pub const HASHES_ENTRY: &str = "hashes";
/// Symbol: address at which the archive is mapped.
const ARCHIVE_SYMBOL: &str = "__boot_archive";
/// Symbol: u64 that receives the archive's length in bytes.
const ARCHIVE_LENGTH_SYMBOL: &str = "__boot_archive_len";
/// Size of that variable.
const LENGTH_BYTES: u64 = 8;
/// x86_64 base page.
const PAGE_BYTES: u64 = 4096;
/// Size of an ELF64 file header (ELF-64 object file format, table 1).
const FILE_HEADER_BYTES: u64 = 64;
/// Size of an ELF64 program header (ELF-64 object file format, table 7).
const PROGRAM_HEADER_BYTES: usize = 56;

/// Components of the path of a folder such as `/src`.
const TOP_LEVEL_COMPONENTS: usize = 2;

/// Why an image could not be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImageError {
    /// A capability request is not `name` or `name=source`.
    #[error("capability `{0}`: write `name`, or `name=source` to grant a source under a name")]
    GrantSyntax(String),
    /// The source is not one capOS has; the text lists those it has.
    #[error("capability `{name}`: {reason}")]
    GrantSource {
        /// Name under which it was asked for.
        name: String,
        /// What capos-config says, naming the source and the known ones.
        reason: String,
    },
    /// The CapSet page cannot hold the name.
    #[error("capability name `{0}` is longer than {max} bytes", max = capset::CAPSET_NAME_MAX)]
    GrantNameLength(String),
    /// The CapSet page cannot hold that many.
    #[error("{0} capabilities are more than a CapSet holds ({max})", max = capset::CAPSET_MAX_ENTRIES)]
    GrantCount(usize),
    /// capos-config refuses the manifest.
    #[error("boot manifest refused: {0}")]
    Manifest(String),
    /// The loader would refuse the program.
    #[error("program `{name}` would be refused at boot: {reason}")]
    Program {
        /// Name in the archive.
        name: String,
        /// The loader's reason.
        reason: String,
    },
    /// The root task is not an x86_64 ELF executable.
    #[error("root task is not an x86_64 ELF executable: {0}")]
    RootTask(String),
    /// The root task was linked without its linker script.
    #[error("root task has no {0}; was it linked with its own linker script?")]
    RootTaskLayout(&'static str),
    /// More memory than the configuration can map at boot.
    #[error(
        "image too large: root task {root_task_pages} pages + boot archive {archive_pages} pages \
         of 4096 bytes, but this kernel configuration leaves room for {limit_pages}; give fewer \
         or smaller programs, or build the kernel with a larger root CNode"
    )]
    TooLarge {
        /// Pages of the root task itself.
        root_task_pages: u64,
        /// Pages of the archive.
        archive_pages: u64,
        /// Pages available to both.
        limit_pages: u64,
    },
}

/// A capability from the kernel, as `initConfig.init.caps` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Name in the program's CapSet.
    pub name: String,
    /// What stands behind it.
    pub source: KernelCapSource,
    /// Session fields of callers that may be disclosed through it.
    pub disclosure: Vec<String>,
}

/// Reads a list of grants, `name` or `name=source`, separated by blanks or
/// commas; `+field` behind a source lets it disclose a session field of its
/// callers. An empty text is an empty list.
///
/// # Errors
/// [`ImageError`]: wrong syntax, unknown source, or more than a CapSet holds.
pub fn parse_grants(text: &str) -> Result<Vec<Grant>, ImageError> {
    let words = text.split([' ', ',', '\t', '\n']).filter(|w| !w.is_empty());
    let grants = words.map(parse_grant).collect::<Result<Vec<_>, _>>()?;
    if grants.len() > capset::CAPSET_MAX_ENTRIES {
        return Err(ImageError::GrantCount(grants.len()));
    }
    Ok(grants)
}

fn parse_grant(word: &str) -> Result<Grant, ImageError> {
    let mut parts = word.split('+');
    let grant = parts.next().unwrap_or_default();
    let (name, source) = grant.split_once('=').unwrap_or((grant, grant));
    if name.is_empty() || source.is_empty() || source.contains('=') {
        return Err(ImageError::GrantSyntax(word.into()));
    }
    if name.len() > capset::CAPSET_NAME_MAX {
        return Err(ImageError::GrantNameLength(name.into()));
    }
    let source = KernelCapSource::from_cue_value(&CueValue::text(source)).map_err(|error| {
        let reason = match error {
            capos_config::Error::InvalidValue { message, .. } => message,
            other => other.to_string(),
        };
        ImageError::GrantSource {
            name: name.into(),
            reason,
        }
    })?;
    Ok(Grant {
        name: name.into(),
        source,
        disclosure: parts.map(str::to_owned).collect(),
    })
}

/// Builds the boot manifest: `programs` by name only, `init` as PID 1 with
/// `grants`. With `debug` the root task logs more, and compares what is in use
/// whenever only PID 1 is left.
///
/// # Errors
/// [`ImageError::Manifest`] with capos-config's reason.
pub fn manifest(
    init: &str,
    programs: &[&str],
    grants: &[Grant],
    debug: bool,
) -> Result<Vec<u8>, ImageError> {
    let binaries = programs.iter().map(|&name| NamedBlob {
        name: name.into(),
        data: Vec::new(),
    });
    let caps: Vec<CueValue> = grants.iter().map(grant_value).collect();
    let init_value = CueValue::struct_([
        CueField::new("binary", CueValue::text(init)),
        CueField::new("caps", CueValue::list(caps)),
    ]);
    let params = debug.then(debug_params).transpose();
    let params = params.map_err(|error| ImageError::Manifest(error.to_string()))?;
    let system = SystemManifest {
        schema_version: SYSTEM_MANIFEST_SCHEMA_VERSION,
        binaries: binaries.collect(),
        init_config: CueValue::struct_([CueField::new("init", init_value)]),
        kernel_params: params,
        extension_points: None,
    };
    encode_validated(&system).map_err(|error| ImageError::Manifest(error.to_string()))
}

/// Defaults, but for the log.
fn debug_params() -> capos_config::Result<SystemConfig> {
    let level = CueField::new("logLevel", CueValue::text("debug"));
    SystemConfig::from_cue_value(&CueValue::struct_([level]))
}

fn grant_value(grant: &Grant) -> CueValue {
    let source = CueField::new("kernel", CueValue::text(grant.source.to_string()));
    let disclosure = grant
        .disclosure
        .iter()
        .map(|field| CueValue::text(field.as_str()));
    let disclosure: Vec<CueValue> = disclosure.collect();
    CueValue::struct_([
        CueField::new("name", CueValue::text(grant.name.as_str())),
        CueField::new(
            "expectedInterfaceId",
            CueValue::UInt(grant.source.default_interface_id()),
        ),
        CueField::new("source", CueValue::struct_([source])),
        CueField::new("disclosureScope", CueValue::list(disclosure)),
    ])
}

/// Encodes `system` and validates the bytes the way the boot path will.
fn encode_validated(system: &SystemManifest) -> capos_config::Result<Vec<u8>> {
    system.validate_manifest_graph()?;
    system.validate_bootstrap_cap_sources()?;
    let bytes = system.to_capnp_bytes()?;
    KernelBootstrapManifest::from_capnp_bytes(&bytes)?.validate_bootstrap_name_only()?;
    Ok(bytes)
}

/// Checks that the program loader will accept `program`.
///
/// # Errors
/// [`ImageError::Program`] with the loader's reason.
pub fn check_program(name: &str, program: &[u8]) -> Result<(), ImageError> {
    LoadPlan::parse(program)
        .map(|_| ())
        .map_err(|error| ImageError::Program {
            name: name.into(),
            reason: error.to_string(),
        })
}

/// Writes a CPIO "newc" archive of regular files.
pub fn archive(entries: &[(String, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, (name, data)) in entries.iter().enumerate() {
        let inode = index as u32 + 1;
        archive_entry(&mut out, inode, REGULAR_FILE_MODE, name, data);
    }
    archive_entry(&mut out, 0, 0, TRAILER, &[]);
    out
}

/// The contents of [`HASHES_ENTRY`] for an archive of `entries`.
pub fn hashes(entries: &[(String, &[u8])]) -> String {
    let line = |(name, data): &(String, &[u8])| {
        let digits: String = Sha256::digest(data)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        format!("{digits}  {name}\n")
    };
    entries.iter().map(line).collect()
}

/// Regular file, read-only for everyone (cpio(5)).
const REGULAR_FILE_MODE: u32 = 0o100_444;

/// Name of the entry behind the last one (cpio(5)).
const TRAILER: &str = "TRAILER!!!";

/// Size of an entry's header: a magic of six characters and thirteen numbers of
/// eight hexadecimal digits (cpio(5), "New ASCII Format").
const ARCHIVE_HEADER_BYTES: usize = 6 + 13 * 8;

fn archive_entry(out: &mut Vec<u8>, inode: u32, mode: u32, name: &str, data: &[u8]) {
    let links = 1;
    let (owner, group, time, device) = (0, 0, 0, [0; 4]);
    let (file_bytes, name_bytes) = (data.len() as u32, name.len() as u32 + 1);
    let fields = [inode, mode, owner, group, links, time, file_bytes]
        .into_iter()
        .chain(device)
        .chain([name_bytes, 0]);
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out, 4);
    out.extend_from_slice(data);
    pad(out, 4);
}

/// Finds the contents of an entry of the boot archive in a packed image.
pub fn find_entry<'a>(image: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let entries = entries(image)?;
    entries
        .into_iter()
        .find(|(found, _)| found == name)
        .map(|(_, data)| data)
}

/// The entries of the boot archive in a packed image, in their order; nothing
/// if the file is no such image.
pub fn entries(image: &[u8]) -> Option<Vec<(String, &[u8])>> {
    let file = ElfFile64::<object::Endianness>::parse(image).ok()?;
    let archive = file.elf_program_headers().last()?;
    let mut rest = archive.data(file.endian(), image).ok()?;
    let mut entries = Vec::new();
    loop {
        let (name, data, next) = first_entry(rest)?;
        if name == TRAILER {
            return Some(entries);
        }
        entries.push((name, data));
        rest = next;
    }
}

/// The first entry of an archive, and what follows it.
fn first_entry(archive: &[u8]) -> Option<(String, &[u8], &[u8])> {
    let field = |index: usize| {
        let digits = archive.get(6 + 8 * index..14 + 8 * index)?;
        usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (data_bytes, name_bytes) = (field(6)?, field(11)?);
    let name_end = (ARCHIVE_HEADER_BYTES + name_bytes).checked_sub(1)?;
    let name = std::str::from_utf8(archive.get(ARCHIVE_HEADER_BYTES..name_end)?).ok()?;
    let data_at = (ARCHIVE_HEADER_BYTES + name_bytes).next_multiple_of(4);
    let data_end = data_at.checked_add(data_bytes)?;
    let data = archive.get(data_at..data_end)?;
    let next = archive
        .get(data_end.next_multiple_of(4)..)
        .unwrap_or_default();
    Some((name.to_owned(), data, next))
}

fn pad(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment), 0);
}

/// The first of `folders` that the bytes of an image name. One that was built
/// here and names one was built with something of this machine in it.
///
/// The name of a folder at the root of the file system, such as `/src`, is part
/// of too many other names to tell anything; it is never found.
pub fn names_folder<'a>(image: &[u8], folders: &'a [PathBuf]) -> Option<&'a Path> {
    let is_named = |folder: &&PathBuf| {
        let name = folder.as_os_str().as_encoded_bytes();
        folder.components().count() > TOP_LEVEL_COMPONENTS
            && memmem::find(image, &[name, b"/"].concat()).is_some()
    };
    folders.iter().find(is_named).map(PathBuf::as_path)
}

/// Drops everything the loader does not read: section table, symbols, debug
/// information. What is left maps exactly as before.
///
/// # Errors
/// The text of the parser's refusal.
pub fn strip(program: &[u8]) -> Result<Vec<u8>, String> {
    let file = ElfFile64::<object::Endianness>::parse(program).map_err(|e| e.to_string())?;
    let endian = file.endian();
    let headers_end = header_table_end(program);
    let loaded_end = file
        .elf_program_headers()
        .iter()
        .filter(|header| header.p_type(endian) != elf::PT_NULL)
        .map(|header| {
            header
                .p_offset(endian)
                .saturating_add(header.p_filesz(endian))
        })
        .max()
        .unwrap_or(0);
    let end = headers_end
        .max(loaded_end)
        .clamp(FILE_HEADER_BYTES, program.len() as u64);
    let mut out = program[..end as usize].to_vec();
    put(&mut out, field::SECTION_TABLE, &0u64.to_le_bytes());
    put(&mut out, field::SECTION_COUNT, &0u16.to_le_bytes());
    put(&mut out, field::SECTION_NAMES, &0u16.to_le_bytes());
    Ok(out)
}

/// Offsets in the ELF64 file header (ELF-64 object file format, table 1) and,
/// `P_`, in a program header (table 7).
mod field {
    pub const PROGRAM_TABLE: usize = 0x20;
    pub const SECTION_TABLE: usize = 0x28;
    pub const PROGRAM_ENTRY_BYTES: usize = 0x36;
    pub const PROGRAM_COUNT: usize = 0x38;
    pub const SECTION_COUNT: usize = 0x3c;
    pub const SECTION_NAMES: usize = 0x3e;
}

fn put(out: &mut [u8], offset: usize, value: &[u8]) {
    out[offset..offset + value.len()].copy_from_slice(value);
}

/// End of the program header table of a file whose header was parsed.
fn header_table_end(file: &[u8]) -> u64 {
    let half = |at: usize| u64::from(u16::from_le_bytes([file[at], file[at + 1]]));
    program_table_offset(file) + half(field::PROGRAM_ENTRY_BYTES) * half(field::PROGRAM_COUNT)
}

fn program_table_offset(file: &[u8]) -> u64 {
    let bytes = &file[field::PROGRAM_TABLE..field::PROGRAM_TABLE + 8];
    u64::from_le_bytes(bytes.try_into().expect("eight bytes were sliced"))
}

/// Where the archive goes in one root task.
struct Place {
    spare_header: usize,
    address: u64,
    length_offset: usize,
    root_task_pages: u64,
}

fn place(root_task: &[u8]) -> Result<Place, ImageError> {
    let refuse = |reason: String| ImageError::RootTask(reason);
    let file = ElfFile64::<object::Endianness>::parse(root_task)
        .map_err(|error| refuse(error.to_string()))?;
    if file.architecture() != object::Architecture::X86_64 {
        return Err(refuse(format!("machine is {:?}", file.architecture())));
    }
    let endian = file.endian();
    let headers = file.elf_program_headers();
    let spare_header = headers
        .iter()
        .position(|header| header.p_type(endian) == elf::PT_NULL)
        .ok_or(ImageError::RootTaskLayout("spare (PT_NULL) program header"))?;
    let symbol = |name: &'static str| {
        file.symbols()
            .find(|s| s.is_definition() && s.name() == Ok(name))
            .map(|s| s.address())
            .ok_or(ImageError::RootTaskLayout(name))
    };
    let address = symbol(ARCHIVE_SYMBOL)?;
    let length_address = symbol(ARCHIVE_LENGTH_SYMBOL)?;
    let loads = || headers.iter().filter(|h| h.p_type(endian) == elf::PT_LOAD);
    let occupied = loads()
        .map(|h| h.p_vaddr(endian).saturating_add(h.p_memsz(endian)))
        .max()
        .unwrap_or(0);
    if address % PAGE_BYTES != 0 || address < occupied {
        return Err(ImageError::RootTaskLayout(
            "page-aligned `__boot_archive` behind its last segment",
        ));
    }
    let length_offset = loads()
        .find_map(|h| {
            let within = length_address.checked_sub(h.p_vaddr(endian))?;
            let end = within.checked_add(LENGTH_BYTES)?;
            (end <= h.p_filesz(endian)).then(|| h.p_offset(endian).checked_add(within))?
        })
        .filter(|&offset| offset.saturating_add(LENGTH_BYTES) <= root_task.len() as u64)
        .ok_or(ImageError::RootTaskLayout("`__boot_archive_len` in .data"))?;
    let root_task_pages = loads()
        .map(|h| pages(h.p_memsz(endian)))
        .fold(0, u64::saturating_add);
    Ok(Place {
        spare_header,
        address,
        length_offset: length_offset as usize,
        root_task_pages,
    })
}

fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_BYTES)
}

/// Appends `archive` to `root_task` as its last segment. `limit_pages` is what
/// the kernel configuration can map for root task and archive together.
///
/// # Errors
/// [`ImageError`]: not a root task, or too large.
pub fn append(root_task: &[u8], archive: &[u8], limit_pages: u64) -> Result<Vec<u8>, ImageError> {
    let place = place(root_task)?;
    let mut segment = archive.to_vec();
    pad(&mut segment, 8);
    let archive_pages = pages(segment.len() as u64);
    if place.root_task_pages.saturating_add(archive_pages) > limit_pages {
        return Err(ImageError::TooLarge {
            root_task_pages: place.root_task_pages,
            archive_pages,
            limit_pages,
        });
    }
    let mut image = strip(root_task).map_err(ImageError::RootTask)?;
    put(
        &mut image,
        place.length_offset,
        &(archive.len() as u64).to_le_bytes(),
    );
    pad(&mut image, PAGE_BYTES as usize);
    let offset = image.len() as u64;
    let header = load_header(offset, place.address, segment.len() as u64);
    let at = program_table_offset(&image) as usize + place.spare_header * PROGRAM_HEADER_BYTES;
    put(&mut image, at, &header);
    image.extend_from_slice(&segment);
    Ok(image)
}

/// A readable `PT_LOAD` program header.
fn load_header(offset: u64, address: u64, length: u64) -> [u8; PROGRAM_HEADER_BYTES] {
    let mut header = [0; PROGRAM_HEADER_BYTES];
    put(&mut header, 0, &elf::PT_LOAD.0.to_le_bytes());
    put(&mut header, 4, &elf::PF_R.0.to_le_bytes());
    let words = [offset, address, address, length, length, PAGE_BYTES];
    for (index, word) in words.iter().enumerate() {
        put(&mut header, 8 + index * 8, &word.to_le_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_names_its_source_and_what_it_may_disclose() {
        let grants = parse_grants("console, own=endpoint+auth_strength+profile_class").unwrap();
        let shown: Vec<_> = grants
            .iter()
            .map(|grant| {
                (
                    grant.name.as_str(),
                    grant.source,
                    grant.disclosure.join(" "),
                )
            })
            .collect();
        let (console, endpoint) = (KernelCapSource::Console, KernelCapSource::Endpoint);
        let fields = "auth_strength profile_class";
        assert_eq!(
            shown,
            [
                ("console", console, String::new()),
                ("own", endpoint, fields.into())
            ]
        );
    }

    #[test]
    fn an_unknown_field_is_refused_with_the_manifest() {
        let grants = parse_grants("own=endpoint+shoe_size").unwrap();
        let error = manifest("a", &["a"], &grants, false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("shoe_size"), "{error}");
    }

    #[test]
    fn a_folder_is_found_where_a_path_into_it_is_named() {
        let folders = [PathBuf::from("/src"), PathBuf::from("/home/me/work")];
        let found = |image: &[u8]| names_folder(image, &folders).is_some();
        assert!(found(b"panicked at/home/me/work/lib.rs:1"));
        assert!(!found(b"/home/me/workshop/lib.rs"));
        assert!(!found(b"/home/me/work"));
        assert!(!found(b"registry/src/lib.rs"));
        assert!(!found(b""));
    }
}
