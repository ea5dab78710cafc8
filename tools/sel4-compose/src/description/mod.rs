//! Descriptions of systems: `system.toml`, and capOS manifests as `cue export`
//! prints them.
//!
//! Both become one tree with places ([`tree`]), `system.toml` through
//! [`lower`]; the tree is checked against the grammar ([`shape`]), then against
//! the [`rules`], then decoded and validated by capos-config itself. What comes
//! out is the standard boot manifest, name-only, and where each program is.
//!
//! # Invariants
//! - **D1** Every complaint names a place in the file the person wrote.
//! - **D2** What capos-config would refuse at boot is refused here.

pub mod interfaces;
pub mod located;
mod lower;
mod programs;
mod rules;
pub mod shape;
pub mod sources;
pub mod tree;

use std::path::{Path, PathBuf};

use capos_config::KernelCapSource;
use capos_config::manifest::{CapSource, NamedBlobInfo, SystemManifest};
use capos_config::manifest::{FromCueValue, KernelBootstrapManifest, ManifestBootstrapPlan};

pub use located::{Complaint, Refusal, Span};
use tree::{Field, Node, Value};

use crate::budget::BudgetError;

/// Memory of a machine in MiB where nothing is said.
pub const MEMORY_MIB: u32 = 512;

/// Why there is no description.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// The file cannot be read.
    #[error("{path}: {reason}; name a system.toml, or the output of `cue export`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// It is refused; each complaint has its place.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Where a program of the archive comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An ELF file or a package directory, as the file says it.
    Path {
        /// Relative to the file.
        path: PathBuf,
        /// Which program of the package.
        bin: Option<String>,
    },
    /// The program inside the published runtime crate.
    Published,
    /// The manifest carries the ELF file itself.
    Embedded(Vec<u8>),
    /// The manifest only names it.
    Named,
}

/// One program of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFile {
    /// Its name in the archive.
    pub name: String,
    /// Where the name is written.
    pub name_span: Span,
    /// Where it comes from.
    pub origin: Origin,
    /// Where that is written.
    pub span: Span,
}

/// A description that was checked.
#[derive(Clone, Debug)]
pub struct Description {
    /// The file.
    pub path: PathBuf,
    /// What the system is called.
    pub name: String,
    /// Memory of its machine in MiB.
    pub memory_mib: u32,
    /// Its programs, in the order of the manifest.
    pub programs: Vec<ProgramFile>,
    /// The manifest, programs by name only.
    pub manifest: SystemManifest,
    /// The same, as init sees it.
    pub plan: ManifestBootstrapPlan,
    text: String,
    memory_span: Span,
}

impl Description {
    /// Reads and checks a file: JSON if its name ends in `.json`, TOML
    /// otherwise. Programs that a manifest only names are looked for in
    /// `search`, or beside the manifest.
    ///
    /// # Errors
    /// [`DescriptionError`]
    pub fn read(path: &Path, search: Option<&Path>) -> Result<Self, DescriptionError> {
        let text = std::fs::read_to_string(path).map_err(|reason| DescriptionError::Read {
            path: path.into(),
            reason,
        })?;
        let mut description = Self::parse(path, &text)?;
        description.locate_programs(search)?;
        Ok(description)
    }

    /// Checks `text`, which is the contents of `path`, without looking for the
    /// programs it names.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn parse(path: &Path, text: &str) -> Result<Self, Refusal> {
        let is_json = path.extension().is_some_and(|suffix| suffix == "json");
        let parts = if is_json {
            from_json(text)
        } else {
            from_toml(text)
        };
        let described = parts.and_then(|parts| Self::of(path, text, parts));
        described.map_err(|complaints| Refusal::new(path, text, complaints))
    }

    fn of(path: &Path, text: &str, parts: Parts) -> Result<Self, Vec<Complaint>> {
        let complaints = rules::check(&parts.manifest);
        if !complaints.is_empty() {
            return Err(complaints);
        }
        let (manifest, plan) = validated(&parts.manifest)
            .map_err(|error| vec![complaint_of(&parts.manifest, &error)])?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self {
            path: path.into(),
            name: parts.name.unwrap_or_else(|| stem.into_owned()),
            memory_mib: parts.memory_mib,
            programs: parts.programs,
            manifest,
            plan,
            text: text.into(),
            memory_span: parts.memory_span,
        })
    }

    /// A refusal of the place `span`.
    pub fn refuse(
        &self,
        span: &Span,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Refusal {
        let complaint = Complaint::new(span, what, advice);
        Refusal::new(&self.path, &self.text, vec![complaint])
    }

    /// A refusal of a machine that is too small.
    pub fn refuse_budget(&self, error: &BudgetError) -> Refusal {
        let advice = "raise `memoryMiB` under `[system]`, or start less";
        self.refuse(&self.memory_span, error.to_string(), advice)
    }

    /// The manifest in the encoding that is booted.
    ///
    /// # Errors
    /// capos-config's, which a checked manifest does not cause.
    pub fn encode(&self) -> capos_config::Result<Vec<u8>> {
        let bytes = self.manifest.to_capnp_bytes()?;
        capos_config::validate_boot_manifest_size(bytes.len())?;
        KernelBootstrapManifest::from_capnp_bytes(&bytes)?.validate_bootstrap_name_only()?;
        Ok(bytes)
    }

    /// One sentence on what it describes.
    pub fn summary(&self) -> String {
        let (programs, services) = (self.programs.len(), self.plan.services.len());
        let init = &self.plan.init;
        let caps = self.plan.services.iter().map(|service| service.caps.len());
        let caps = caps.sum::<usize>() + init.caps.len();
        format!(
            "ok: {} starts first; programs {programs}, services {services}, capabilities {caps}",
            init.binary
        )
    }

    /// Whether the supplied init is the first program.
    pub fn has_supplied_init(&self) -> bool {
        self.plan.init.binary == lower::INIT
    }

    /// Whether a program is granted the machine's terminal.
    pub fn has_terminal(&self) -> bool {
        let of_init = self.plan.init.caps.iter().map(|cap| cap.source);
        let services = self.plan.services.iter();
        let of_services = services.flat_map(|service| service.caps.iter());
        let of_services = of_services.filter_map(|cap| match cap.source {
            CapSource::Kernel(source) => Some(source),
            CapSource::Service(_) => None,
        });
        // The supplied init holds what its services are granted, under any name.
        of_init
            .chain(of_services)
            .any(|source| source == KernelCapSource::TerminalSession)
    }

    /// What the machine runs at most at one time: init and every service.
    pub fn running(&self) -> impl Iterator<Item = &str> {
        let services = self
            .plan
            .services
            .iter()
            .map(|service| service.binary.as_str());
        std::iter::once(self.plan.init.binary.as_str()).chain(services)
    }
}

/// `docs/reference/system.md`: every key a description can have.
pub fn tables() -> String {
    let mut out = String::from(
        "# What a system description can say\n\n\
         Generated by `make reference` from the grammar the checker uses;\n\
         `cargo test -p sel4-compose` fails when this file is stale. [The guide](../system.md)\n\
         explains what is listed here. A *path* is relative to the file that says it.\n\n",
    );
    out += &shape::document(&[
        ("The file", &shape::SYSTEM),
        ("`[system]`", &shape::MACHINE),
        ("A program, as a table", &shape::PROGRAM),
        ("`[init]`", &shape::INIT),
        ("`[[services]]`", &shape::SERVICE),
        ("A capability, as a table in a list", &shape::GRANT),
        ("`[kernelParams]`", &shape::KERNEL_PARAMS),
        (
            "`[[kernelParams.resourceProfiles]]`",
            &shape::RESOURCE_PROFILE,
        ),
        ("`[extensionPoints]`", &shape::EXTENSION_POINTS),
    ]);
    out.push_str("### Kernel sources that are served\n\n| source | interface | can be exported |\n|---|---|---|\n");
    for source in sources::SOURCES
        .iter()
        .filter(|source| sources::is_served(source.source))
    {
        let interface = interfaces::name(source.source.default_interface_id());
        let exported = if sources::is_exportable(source.source) {
            "yes"
        } else {
            "no"
        };
        out.push_str(&format!(
            "| `{}` | {interface} | {exported} |\n",
            source.name
        ));
    }
    out
}

/// What a file says, in manifest shape.
struct Parts {
    manifest: Node,
    programs: Vec<ProgramFile>,
    name: Option<String>,
    memory_mib: u32,
    memory_span: Span,
}

fn from_toml(text: &str) -> Result<Parts, Vec<Complaint>> {
    let system = tree::parse_toml(text).map_err(|complaint| vec![complaint])?;
    shaped(&system, &shape::SYSTEM)?;
    let machine = system.get("system");
    let memory = machine.and_then(|machine| machine.get("memoryMiB"));
    let memory_mib = memory
        .and_then(Node::as_uint)
        .unwrap_or_else(|| MEMORY_MIB.into());
    if let Some(node) = memory
        && !shape::MEMORY_MIB.contains(&memory_mib)
    {
        let (least, most) = (shape::MEMORY_MIB.start(), shape::MEMORY_MIB.end());
        return Err(vec![Complaint::new(
            &node.span,
            format!("a machine of {memory_mib} MiB cannot be had"),
            format!("write {least} to {most}; the kernel itself needs {least} to start"),
        )]);
    }
    let lowered = lower::lower(&system)?;
    let name = machine.and_then(|machine| machine.get("name")?.as_text());
    Ok(Parts {
        manifest: lowered.manifest,
        programs: lowered.programs,
        name: name.map(str::to_owned),
        memory_mib: u32::try_from(memory_mib).unwrap_or(MEMORY_MIB),
        memory_span: memory.map_or(0..0, |memory| memory.span.clone()),
    })
}

fn from_json(text: &str) -> Result<Parts, Vec<Complaint>> {
    let mut manifest = tree::parse_json(text).map_err(|complaint| vec![complaint])?;
    shaped(&manifest, &shape::MANIFEST)?;
    let programs = take_programs(&mut manifest)?;
    Ok(Parts {
        manifest,
        programs,
        name: None,
        memory_mib: MEMORY_MIB,
        memory_span: 0..0,
    })
}

fn shaped(node: &Node, shape: &'static shape::Shape) -> Result<(), Vec<Complaint>> {
    let mut complaints = Vec::new();
    shape::check(node, shape, &mut complaints);
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(complaints)
    }
}

/// Takes out of a manifest where its programs are; their names stay.
fn take_programs(manifest: &mut Node) -> Result<Vec<ProgramFile>, Vec<Complaint>> {
    let mut programs = Vec::new();
    let Value::Table(fields) = &mut manifest.value else {
        return Ok(programs);
    };
    let binaries = fields.iter_mut().find(|field| field.key == "binaries");
    let Some(Value::List(items)) = binaries.map(|field| &mut field.node.value) else {
        return Ok(programs);
    };
    for item in items {
        programs.push(program_of(item).map_err(|complaint| vec![complaint])?);
        if let Value::Table(fields) = &mut item.value {
            fields.retain(|field: &Field| field.key == "name");
        }
    }
    Ok(programs)
}

fn program_of(binary: &Node) -> Result<ProgramFile, Complaint> {
    let name = binary.get("name").unwrap_or(binary);
    let (path, data) = (binary.get("path"), binary.get("data"));
    let (origin, span) = match (path.zip(path.and_then(Node::as_text)), data) {
        (Some((node, path)), None) => {
            let (path, bin) = (path.into(), None);
            (Origin::Path { path, bin }, node.span.clone())
        }
        (None, Some(data)) => match data.to_cue().expect_bytes("$") {
            Ok(bytes) if !bytes.is_empty() => (Origin::Embedded(bytes), data.span.clone()),
            _ => (Origin::Named, name.span.clone()),
        },
        (None, None) => (Origin::Named, name.span.clone()),
        (Some((node, _)), Some(_)) => {
            return Err(Complaint::new(
                &node.span,
                "a binary has both `path` and `data`",
                "take one of the two out",
            ));
        }
    };
    Ok(ProgramFile {
        name: name.as_text().unwrap_or_default().into(),
        name_span: name.span.clone(),
        origin,
        span,
    })
}

/// Decodes and validates with capos-config.
fn validated(manifest: &Node) -> capos_config::Result<(SystemManifest, ManifestBootstrapPlan)> {
    let manifest = SystemManifest::from_cue_value(&manifest.to_cue())?;
    let mut plan = ManifestBootstrapPlan::from_manifest(&manifest)?;
    // The validator wants programs inside the manifest; ours are beside it.
    let mut embedded = plan.clone();
    for NamedBlobInfo { data_len, .. } in &mut embedded.binaries {
        *data_len = 1;
    }
    embedded.validate_bootstrap()?;
    plan.binaries = embedded.binaries;
    Ok((manifest, plan))
}

/// What capos-config refuses, with the place its path names.
fn complaint_of(manifest: &Node, error: &capos_config::Error) -> Complaint {
    use capos_config::Error;
    let (path, what) = match error {
        Error::MissingField { path, field } => (path.as_str(), format!("`{field}` is missing")),
        Error::DuplicateField { path, field } => {
            (path.as_str(), format!("`{field}` appears twice"))
        }
        Error::UnknownField { path, field, .. } => {
            (path.as_str(), format!("there is no key `{field}`"))
        }
        Error::UnexpectedType {
            path,
            expected,
            found,
        } => (path.as_str(), format!("this is {found}, not {expected}")),
        Error::InvalidValue { path, message } => (path.as_str(), message.clone()),
        Error::LengthOverflow { path, len } => {
            (path.as_str(), format!("{len} elements are too many"))
        }
        Error::Capnp(message) => ("$", message.clone()),
    };
    let advice = format!("change it: capOS refuses a manifest with this at {path}");
    Complaint::new(&manifest.at(path).span, what, advice)
}
