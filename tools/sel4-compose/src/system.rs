//! From options to a machine that is ready to run: finds the prefix, builds
//! root task and application, packs the image.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::app::{self, App, AppError, Builder};
use crate::audit;
use crate::budget::{self, BudgetError};
use crate::description::{self, Description, Origin, ProgramFile, Refusal};
use crate::domains::{self, Packed};
use crate::gate::{self, GateError};
use crate::image::PROGRAM_DIRECTORY;
use crate::image::{self, Grant, HASHES_ENTRY, INIT_ENTRY, ImageError, MANIFEST_ENTRY};
use crate::kernel::{PaceError, Prefix, PrefixError};
use crate::qemu::{self, Machine};

/// Guest memory in MiB, where nothing else is said.
pub const MEMORY_MIB: u32 = description::MEMORY_MIB;
/// Package of the supplied init, in the repository.
const INIT_PACKAGE: &str = "services/init";
/// The description of protection domains where none is named.
const DOMAINS: &str = "system.xml";
/// The root task's package and program.
const ROOT_TASK: &str = "root-task";
/// Its feature that measures seL4's own primitives.
pub const BASELINE: &str = "baseline";
/// The feature with which it plants what the audit must find.
pub const PLANT: &str = "plant";
/// A program of this name cannot be in a manifest: capOS reserves it.
const RESERVED_NAME: &str = capos_config::manifest::RESERVED_INIT_BINARY_NAME;

/// Why there is no machine to run.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// See [`PrefixError`].
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// See [`AppError`].
    #[error(transparent)]
    App(#[from] AppError),
    /// See [`ImageError`].
    #[error(transparent)]
    Image(#[from] ImageError),
    /// See [`BudgetError`].
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The gate packer refused a program.
    #[error("program `{name}`: {source}")]
    Gate {
        /// The program.
        name: String,
        /// Its reason.
        source: GateError,
    },
    /// Cargo could not build a root task; its messages were shown.
    #[error("`{0}` could not be built (see cargo's messages above)")]
    RootTask(String),
    /// The kernel does not run where time is counted so.
    #[error(transparent)]
    Pace(#[from] PaceError),
    /// See [`Refusal`].
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The description of protection domains is refused.
    #[error(transparent)]
    DomainsRefused(#[from] system_description::Refusal),
    /// The description of protection domains cannot be used.
    #[error("protection domains: {0}")]
    Domains(String),
    /// A test wants an entry damaged that the archive does not have.
    #[error("the boot archive has no entry `{0}` to damage")]
    NoEntry(String),
    /// Not inside the repository.
    #[error("run this inside the repository: no directory above {0} holds tools/sel4-compose")]
    NoRepository(PathBuf),
    /// A file could not be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What to put together.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Application: see [`Builder::resolve`].
    pub app: String,
    /// Which program of a package with several.
    pub binary: Option<String>,
    /// Applications beside it, which it can start by name.
    pub programs: Vec<String>,
    /// Capabilities of the application.
    pub grants: Vec<Grant>,
    /// Memory of the machine in MiB.
    pub memory_mib: u32,
    /// Have the root task log more, see [`image::manifest`].
    pub debug: bool,
    /// How.
    pub options: Options,
}

/// How to put it together.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A root task that is built already.
    pub root_task: Option<PathBuf>,
    /// The emulator.
    pub qemu: PathBuf,
    /// Count time in instructions, repeatably.
    pub icount: bool,
    /// Files packed as they are under the programs, for tests: names and
    /// contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// The description of protection domains; the repository's unless given.
    pub domains: Option<PathBuf>,
    /// Archive entry that is damaged once its digest is taken, for tests.
    pub damage: Option<String>,
    /// Have the root task compare what processes hold with its books.
    pub audit: Option<audit::Request>,
}

/// A packed system. Its files go when it does.
#[derive(Debug)]
pub struct System {
    /// The machine, not started.
    pub machine: Machine,
    /// The programs, with symbols; the one that starts comes first.
    pub programs: Vec<App>,
    /// The root task, with symbols.
    pub root_task: PathBuf,
    /// The kernel, with symbols.
    pub kernel: PathBuf,
    /// What the packer did, as a sentence.
    pub summary: String,
    _files: RunDirectory,
}

/// A directory for the files of one run, named after this process and removed
/// when dropped. What processes that were killed left behind goes when the next
/// one is created.
#[derive(Debug)]
struct RunDirectory(PathBuf);

impl RunDirectory {
    fn create(build: &Path) -> Result<Self, SystemError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parent = build.join("run");
        fs::create_dir_all(&parent).map_err(|e| file_error(&parent, &e))?;
        remove_abandoned(&parent);
        let (process, run) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = parent.join(format!("{process}-{run}"));
        fs::create_dir(&directory).map_err(|e| file_error(&directory, &e))?;
        Ok(Self(directory))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // Only disk space is lost if this fails.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes directories of processes that no longer run.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.split_once('-'));
        let abandoned = process.is_some_and(|(id, _)| !Path::new("/proc").join(id).exists());
        if abandoned {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The repository.
    pub root: PathBuf,
    /// Everything made goes here.
    pub build: PathBuf,
}

impl Places {
    /// Finds the repository around the current directory.
    ///
    /// # Errors
    /// [`SystemError::NoRepository`]
    pub fn find() -> Result<Self, SystemError> {
        let here = std::env::current_dir().unwrap_or_default();
        let root = here
            .ancestors()
            .find(|directory| directory.join("tools/sel4-compose").is_dir())
            .ok_or_else(|| SystemError::NoRepository(here.clone()))?;
        Ok(Self {
            build: root.join("build"),
            root: root.into(),
        })
    }

    /// Where Cargo builds what runs on the kernel in `prefix`. Installed
    /// kernels have a directory each, named as theirs, so that going from one
    /// to another compiles nothing again.
    pub fn target_directory(&self, prefix: &Prefix) -> PathBuf {
        if prefix.directory().starts_with(&self.build) {
            return self.build.join("target");
        }
        let name = prefix.directory().file_name().unwrap_or_default();
        self.build.join("targets").join(name)
    }
}

/// Builds and packs systems. Sources are taken to stay as they are while it
/// exists: what several systems share is built once.
pub struct Workshop<'a> {
    places: &'a Places,
    builder: Builder,
    domains: RefCell<HashMap<DomainsKey, Packed>>,
}

/// What the packed form of a description of protection domains depends on:
/// directory of the kernel, root task, and description.
type DomainsKey = (PathBuf, PathBuf, PathBuf);

impl<'a> Workshop<'a> {
    /// A workshop for the repository at `places`; `quiet` lets Cargo show
    /// warnings and errors only.
    pub fn new(places: &'a Places, quiet: bool) -> Self {
        Self {
            places,
            builder: Builder::new(&places.root, &places.build).quiet(quiet),
            domains: RefCell::default(),
        }
    }

    /// Builds and packs what `plan` asks for on the kernel in `prefix`.
    ///
    /// # Errors
    /// [`SystemError`]
    pub fn prepare(&self, prefix: &Prefix, plan: &Plan) -> Result<System, SystemError> {
        let mut app = self.builder.resolve(&plan.app, plan.binary.as_deref())?;
        if app.name == RESERVED_NAME {
            app.name = format!("{RESERVED_NAME}-program");
        }
        let mut programs = vec![app];
        for program in &plan.programs {
            programs.push(self.builder.resolve(program, None)?);
        }
        let names: Vec<&str> = programs.iter().map(|app| app.name.as_str()).collect();
        let contents = Contents {
            manifest: image::manifest(names[0], &names, &plan.grants, plan.debug)?,
            running: names.iter().map(|&name| name.to_owned()).collect(),
            init: None,
            programs,
            memory_mib: plan.memory_mib,
        };
        self.assemble(prefix, contents, &plan.options)
    }

    /// Builds and packs a described system on the kernel in `prefix`.
    ///
    /// # Errors
    /// [`SystemError`]
    pub fn compose(
        &self,
        prefix: &Prefix,
        description: &Description,
        options: &Options,
    ) -> Result<System, SystemError> {
        let embedded = RunDirectory::create(&self.places.build)?;
        let programs = description
            .programs
            .iter()
            .map(|program| described(&self.builder, description, program, &embedded))
            .collect::<Result<Vec<_>, _>>()?;
        let init = match description.has_supplied_init() {
            true => Some(supplied_init(self.places, &self.builder)?),
            false => None,
        };
        let manifest = description.encode();
        let contents = Contents {
            manifest: manifest.map_err(|error| ImageError::Manifest(error.to_string()))?,
            running: description.running().map(str::to_owned).collect(),
            init,
            programs,
            memory_mib: description.memory_mib,
        };
        self.assemble(prefix, contents, options)
            .map_err(|error| match error {
                SystemError::Budget(budget) => description.refuse_budget(&budget).into(),
                other => other,
            })
    }

    /// The protection domains that `file` describes, which `root_task` starts.
    fn domains(
        &self,
        prefix: &Prefix,
        file: &Path,
        root_task: &Path,
        root_task_file: &[u8],
    ) -> Result<Packed, SystemError> {
        let key = (prefix.directory().into(), root_task.into(), file.into());
        if let Some(packed) = self.domains.borrow().get(&key) {
            return Ok(packed.clone());
        }
        let packed = domains::pack(self.places, prefix, file, root_task_file)?;
        self.domains.borrow_mut().insert(key, packed.clone());
        Ok(packed)
    }

    /// Packs `contents`.
    fn assemble(
        &self,
        prefix: &Prefix,
        contents: Contents,
        options: &Options,
    ) -> Result<System, SystemError> {
        let pace = prefix.pace(options.icount)?;
        let root_task = match &options.root_task {
            Some(path) => path.clone(),
            None => build_root_task(self.places, prefix)?,
        };
        let pack = |app: &App| pack_program(app, prefix);
        let init = contents.init.as_ref().map(pack).transpose()?;
        let programs = contents
            .programs
            .iter()
            .map(pack)
            .collect::<Result<Vec<_>, _>>()?;
        let root_task_file = read(&root_task)?;
        let file = self.places.root.join(DOMAINS);
        let file = options.domains.as_ref().unwrap_or(&file);
        let domains = self.domains(prefix, file, &root_task, &root_task_file)?;
        let archive = boot_archive(
            &contents.manifest,
            init.as_ref(),
            &programs,
            &domains,
            options,
        )?;
        let packed: Vec<&PackedProgram> = init.iter().chain(&programs).collect();
        let summaries: Vec<&str> = packed
            .iter()
            .map(|packed| packed.summary.as_str())
            .collect();
        let summary = summaries.join("; ");
        let image = image::append(&root_task_file, &archive, prefix.image_pages_max())?;
        let boot = budget::Boot {
            memory_mib: contents.memory_mib,
            image: &image,
            root_cnode_bits: prefix.root_cnode_bits() as u8,
        };
        let file_of = |name: &String| {
            let program = packed.iter().find(|packed| packed.name == *name);
            program.map(|program| (program.name.as_str(), program.file.as_slice()))
        };
        let running: Vec<(&str, &[u8])> = contents.running.iter().filter_map(file_of).collect();
        budget::check(&boot, &running, &domains)?;
        let files = RunDirectory::create(&self.places.build)?;
        let machine = Machine {
            program: options.qemu.clone(),
            kernel: files.0.join("kernel.elf32"),
            image: files.0.join("image.elf"),
            memory_mib: contents.memory_mib,
            processors: prefix.node_count(),
            pace,
            clock: None,
            log_on_com1: false,
            debugger_port: None,
        };
        prefix.write_multiboot(&machine.kernel)?;
        fs::write(&machine.image, image).map_err(|e| file_error(&machine.image, &e))?;
        Ok(System {
            machine,
            programs: contents.init.into_iter().chain(contents.programs).collect(),
            root_task,
            kernel: prefix.kernel(),
            summary,
            _files: files,
        })
    }
}

fn supplied_init(places: &Places, builder: &Builder) -> Result<App, SystemError> {
    let package = places.root.join(INIT_PACKAGE);
    Ok(builder.resolve(&package.display().to_string(), None)?)
}

/// Builds one program of a description; what fails is told with its place.
fn described(
    builder: &Builder,
    description: &Description,
    program: &ProgramFile,
    embedded: &RunDirectory,
) -> Result<App, SystemError> {
    let resolved = match &program.origin {
        Origin::Path { path, bin } => builder.resolve(&path.display().to_string(), bin.as_deref()),
        Origin::Published | Origin::Named => builder.resolve(app::SMOKE, None),
        Origin::Embedded(file) => {
            let path = embedded.0.join(&program.name);
            fs::write(&path, file).map_err(|e| file_error(&path, &e))?;
            builder.resolve(&path.display().to_string(), None)
        }
    };
    let app = resolved.map_err(|error| {
        let what = format!("program `{}`: {error}", program.name);
        description.refuse(&program.span, what, "correct the package, or name another")
    })?;
    Ok(App {
        name: program.name.clone(),
        ..app
    })
}

/// What goes into an image beside the root task.
struct Contents {
    manifest: Vec<u8>,
    /// Programs that run at one time, by name, as often as they do.
    running: Vec<String>,
    init: Option<App>,
    programs: Vec<App>,
    memory_mib: u32,
}

/// A machine without applications. Its files go when it does.
#[derive(Debug)]
pub struct BareSystem {
    /// The machine, not started.
    pub machine: Machine,
    _files: RunDirectory,
}

/// Puts a machine together in which a test runs as the root task: program
/// `binary` of package `package`.
///
/// # Errors
/// [`SystemError`]
pub fn prepare_bare(
    places: &Places,
    prefix: &Prefix,
    (package, binary): (&str, &str),
    qemu: &Path,
    icount: bool,
) -> Result<BareSystem, SystemError> {
    let pace = prefix.pace(icount)?;
    let built = build_for_target(places, prefix, (package, binary), &[])?;
    let files = RunDirectory::create(&places.build)?;
    let image = files.0.join("image.elf");
    fs::copy(&built, &image).map_err(|error| file_error(&built, &error))?;
    let machine = Machine {
        program: qemu.into(),
        kernel: files.0.join("kernel.elf32"),
        image,
        memory_mib: MEMORY_MIB,
        processors: prefix.node_count(),
        pace,
        clock: None,
        log_on_com1: true,
        debugger_port: None,
    };
    prefix.write_multiboot(&machine.kernel)?;
    Ok(BareSystem {
        machine,
        _files: files,
    })
}

/// A program as it goes into the archive, and what was done to it.
struct PackedProgram {
    name: String,
    file: Vec<u8>,
    summary: String,
}

/// Packs a program. Without a gate it stays as built, to the byte.
fn pack_program(app: &App, prefix: &Prefix) -> Result<PackedProgram, SystemError> {
    let (file, summary) = rewrite_program(app, prefix)?;
    Ok(PackedProgram {
        name: app.name.clone(),
        file,
        summary,
    })
}

fn rewrite_program(app: &App, prefix: &Prefix) -> Result<(Vec<u8>, String), SystemError> {
    let mut program = read(&app.elf)?;
    image::check_program(&app.name, &program)?;
    if !prefix.needs_gate() {
        return Ok((program, format!("{}: unchanged", app.name)));
    }
    let report = gate::rewrite(&mut program).map_err(|source| SystemError::Gate {
        name: app.name.clone(),
        source,
    })?;
    let program = image::strip(&program).map_err(|reason| ImageError::Program {
        name: app.name.clone(),
        reason,
    })?;
    let summary = format!(
        "{}: {} system call sites rewritten, {} look-alikes left alone",
        app.name,
        report.sites.len(),
        report.kept.len()
    );
    Ok((program, summary))
}

/// The archive: digests, manifest, the supplied init, programs.
fn boot_archive(
    manifest: &[u8],
    init: Option<&PackedProgram>,
    programs: &[PackedProgram],
    domains: &Packed,
    options: &Options,
) -> Result<Vec<u8>, SystemError> {
    let mut entries = vec![(MANIFEST_ENTRY.to_owned(), manifest)];
    entries.extend(init.map(|init| (INIT_ENTRY.to_owned(), init.file.as_slice())));
    for program in programs {
        let name = format!("{PROGRAM_DIRECTORY}/{}", program.name);
        entries.push((name, program.file.as_slice()));
    }
    for (name, file) in &domains.entries {
        entries.push((name.clone(), file.as_slice()));
    }
    for (name, file) in &options.files {
        entries.push((format!("{PROGRAM_DIRECTORY}/{name}"), file.as_slice()));
    }
    let request = options.audit.as_ref().map(audit::Request::encode);
    let request = request
        .as_deref()
        .map(|bytes| (audit::ENTRY.to_owned(), bytes));
    entries.extend(request);
    let hashes = image::hashes(&entries);
    let damaged;
    if let Some(name) = &options.damage {
        let entry = entries.iter_mut().find(|(entry, _)| entry == name);
        let (_, data) = entry.ok_or_else(|| SystemError::NoEntry(name.clone()))?;
        damaged = with_one_bit_turned(data);
        *data = &damaged;
    }
    entries.insert(0, (HASHES_ENTRY.to_owned(), hashes.as_bytes()));
    Ok(image::archive(&entries))
}

/// The middle byte is another.
fn with_one_bit_turned(data: &[u8]) -> Vec<u8> {
    let mut damaged = data.to_vec();
    let middle = damaged.len() / 2;
    if let Some(byte) = damaged.get_mut(middle) {
        *byte ^= 1;
    }
    damaged
}

/// How the root task moves memory: by general registers. A kernel that switches
/// the FPU lazily has nothing to switch for a server that leaves vector
/// registers alone, and its clients keep theirs. No flag says so as such; on the
/// first processor of the architecture, unaligned vector moves are slow, and the
/// compiler avoids them.
const WITHOUT_VECTORS: [&str; 3] = [
    "-Ctarget-cpu=nocona",
    "-Cno-vectorize-loops",
    "-Cno-vectorize-slp",
];

/// Builds the root task for the kernel in `prefix`. The file stays until the
/// next call with another prefix.
///
/// # Errors
/// [`SystemError::RootTask`]
pub fn build_root_task(places: &Places, prefix: &Prefix) -> Result<PathBuf, SystemError> {
    build_for_target(places, prefix, (ROOT_TASK, ROOT_TASK), &[])
}

/// Builds a root task with a Cargo feature, for tests and measurements. It has a
/// place of its own, so that the usual one stays.
///
/// # Errors
/// [`SystemError`]
pub fn build_root_task_with(
    places: &Places,
    prefix: &Prefix,
    feature: &str,
) -> Result<PathBuf, SystemError> {
    let flags = ["--features", feature];
    let built = build_for_target(places, prefix, (ROOT_TASK, ROOT_TASK), &flags)?;
    let kept = built.with_file_name(format!("{ROOT_TASK}-{feature}"));
    fs::copy(&built, &kept).map_err(|error| file_error(&kept, &error))?;
    build_root_task(places, prefix)?;
    Ok(kept)
}

/// Builds a program that runs as the root task.
fn build_for_target(
    places: &Places,
    prefix: &Prefix,
    (package, binary): (&str, &str),
    flags: &[&str],
) -> Result<PathBuf, SystemError> {
    let status = cargo_for_target(places, prefix)
        .args(["-p", package, "--bin", binary])
        .args(flags)
        .status()
        .map_err(|error| file_error(Path::new("cargo"), &error))?;
    if !status.success() {
        return Err(SystemError::RootTask(binary.into()));
    }
    let built = places.target_directory(prefix);
    Ok(built.join(app::TARGET).join("release").join(binary))
}

/// Cargo with the settings every program of this workspace is built with that
/// speaks with the kernel in `prefix` directly.
pub fn cargo_for_target(places: &Places, prefix: &Prefix) -> Command {
    let mut flags = app::path_flags(&places.root);
    flags.extend(WITHOUT_VECTORS.map(String::from));
    let mut command = app::cargo();
    command
        .current_dir(&places.root)
        .args(["build", "--release", "--target", app::TARGET])
        .arg("--target-dir")
        .arg(places.target_directory(prefix))
        .env("SEL4_PREFIX", prefix.directory())
        .env("DOCS_RS", "1")
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    command
}

/// The command that attaches a debugger to a machine waiting on `port`, as one
/// would type it. The symbols of kernel, root task and application are loaded
/// together; which address space an address belongs to, the debugger cannot
/// know.
pub fn debugger_command(system: &System, port: u16) -> String {
    let symbols = |file: &Path| format!("-ex 'add-symbol-file {}'", file.display());
    [
        "gdb -ex 'set confirm off'".to_owned(),
        symbols(&system.kernel),
        symbols(&system.root_task),
        symbols(&system.programs[0].elf),
        format!("-ex 'target remote 127.0.0.1:{port}'"),
    ]
    .join(" ")
}

/// The emulator named by the caller, or the usual one.
pub fn emulator(named: Option<PathBuf>) -> PathBuf {
    named.unwrap_or_else(|| qemu::QEMU.into())
}

fn read(path: &Path) -> Result<Vec<u8>, SystemError> {
    fs::read(path).map_err(|e| file_error(path, &e))
}

fn file_error(path: &Path, error: &std::io::Error) -> SystemError {
    SystemError::File {
        path: path.into(),
        reason: error.to_string(),
    }
}
