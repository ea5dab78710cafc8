//! Builds capOS applications.
//!
//! An application is an ELF file, or a Cargo package that depends on crate
//! `capos` (or `capos-rt`) and knows nothing of how it is linked. The builder
//! supplies what such a package lacks on a hosted target: the runtime's own
//! linker script (found in the package's dependency graph, so it always fits
//! the runtime version), memory functions, and compiler flags. All applications
//! share one target directory: compiling the capOS schema takes far longer than
//! any of them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use cargo_metadata::{Message, Metadata, MetadataCommand, Package, PackageId, TargetKind};
use sha2::{Digest, Sha256};

/// The target every Rust installation has.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Selects the program that crate `capos-rt` itself publishes.
pub const SMOKE: &str = "capos-rt-smoke";
/// Crate that carries the linker script.
const RUNTIME_CRATE: &str = "capos-rt";
const LINKER_SCRIPT: &str = "linker.ld";
const SUPPORT_SOURCE: &str = "tools/sel4-compose/runtime/support.c";
/// Arguments of the C compiler for it: freestanding, and without turning a loop
/// of a memory function into a call of that function.
const SUPPORT_ARGUMENTS: [&str; 9] = [
    "-c",
    "-std=c11",
    "-O2",
    "-ffreestanding",
    "-fno-pic",
    "-fno-tree-loop-distribute-patterns",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
];
/// How much of a digest tells files apart.
const DIGEST_BYTES: usize = 6;
/// Where linker scripts and support objects are, in the build folder.
const RUNTIME_DIRECTORY: &str = "runtime";
/// Workspace whose lock file says which runtime is published.
const APPS_WORKSPACE: &str = "tests/apps";
/// Lock file for building the published runtime as a package of its own.
const SMOKE_LOCK: &str = "tests/apps/capos-rt-smoke.lock";

/// Why an application could not be built.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Nothing there.
    #[error("APP={0} is neither an ELF file nor a directory with a Cargo.toml")]
    NotFound(PathBuf),
    /// Cargo cannot read the package; its message says why.
    #[error("cannot read the package in {directory}: {reason}")]
    Metadata {
        /// Directory of the package.
        directory: PathBuf,
        /// Cargo's message.
        reason: String,
    },
    /// The directory holds a workspace without a package of its own.
    #[error("{directory} is a workspace; name the directory of one of its packages: {members}")]
    Workspace {
        /// Directory of the workspace.
        directory: PathBuf,
        /// Names of its packages.
        members: String,
    },
    /// No program, several, or not the one asked for.
    #[error("package `{package}` has {available}; {advice}")]
    Binary {
        /// Name of the package.
        package: String,
        /// The programs it has.
        available: String,
        /// What to do.
        advice: String,
    },
    /// The package is not a capOS application.
    #[error(
        "package `{0}` does not depend on crate `capos` or `capos-rt`: it has no capOS runtime; \
         add `capos = \"0.1\"`, or pass a linked ELF file"
    )]
    NoRuntime(String),
    /// Cargo ended with an error; its diagnostics were shown.
    #[error("cargo could not build `{0}` (see its messages above)")]
    Build(String),
    /// A program needed for building could not run.
    #[error("cannot run {program}: {reason}")]
    Tool {
        /// Name of the program.
        program: String,
        /// Why.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A linked application.
#[derive(Clone, Debug)]
pub struct App {
    /// Name: of the file, or of the package's program.
    pub name: String,
    /// The ELF file with symbols and line tables.
    pub elf: PathBuf,
}

/// Builds applications below one build directory. Sources are taken to stay as
/// they are while it exists: it builds each program once.
pub struct Builder {
    root: PathBuf,
    build: PathBuf,
    quiet: bool,
    /// What Cargo said of workspaces, which takes it a while to find out.
    known: RefCell<Vec<Arc<Metadata>>>,
    /// Programs it has built: directory of the package, name asked for.
    built: RefCell<HashMap<(PathBuf, Option<String>), App>>,
}

impl Builder {
    /// A builder for the repository at `root` that writes below `build` only.
    pub fn new(root: &Path, build: &Path) -> Self {
        Self {
            root: root.into(),
            build: build.into(),
            quiet: false,
            known: RefCell::default(),
            built: RefCell::default(),
        }
    }

    /// Lets Cargo show warnings and errors only.
    pub fn quiet(mut self, quiet: bool) -> Self {
        self.quiet = quiet;
        self
    }

    /// Resolves `app`: [`SMOKE`], an ELF file, or a package directory, of which
    /// `binary` selects the program where there are several.
    ///
    /// # Errors
    /// [`AppError`]
    pub fn resolve(&self, app: &str, binary: Option<&str>) -> Result<App, AppError> {
        let path = Path::new(app);
        if path.is_file() {
            return elf_file(path);
        }
        if path.join("Cargo.toml").is_file() {
            let directory = path.canonicalize().map_err(|e| file_error(path, &e))?;
            return self.once((directory, binary.map(str::to_owned)), |directory| {
                self.package(directory, binary, false)
            });
        }
        if app == SMOKE {
            return self.once((SMOKE.into(), None), |_| self.published_smoke());
        }
        Err(AppError::NotFound(path.into()))
    }

    /// What `build` makes of the package in the directory, or has made of it.
    fn once(
        &self,
        key: (PathBuf, Option<String>),
        build: impl FnOnce(&Path) -> Result<App, AppError>,
    ) -> Result<App, AppError> {
        if let Some(app) = self.built.borrow().get(&key) {
            return Ok(app.clone());
        }
        let app = build(&key.0)?;
        self.built.borrow_mut().insert(key, app.clone());
        Ok(app)
    }

    /// Builds the program inside the published runtime crate: the crate's files
    /// are copied out of Cargo's registry and built as a package.
    fn published_smoke(&self) -> Result<App, AppError> {
        let runtime = self.published_runtime()?;
        let copy = self.build.join(SMOKE);
        copy_tree(package_directory(&runtime), &copy)?;
        copy_file(&self.root.join(SMOKE_LOCK), &copy.join("Cargo.lock"))?;
        self.package(&copy, Some(SMOKE), true)
    }

    /// The runtime crate as Cargo unpacked it from the registry.
    fn published_runtime(&self) -> Result<Package, AppError> {
        let metadata = read_metadata(&self.root.join(APPS_WORKSPACE), true)?;
        metadata
            .packages
            .into_iter()
            .find(|package| package.name.as_str() == RUNTIME_CRATE)
            .ok_or_else(|| AppError::NoRuntime(APPS_WORKSPACE.into()))
    }

    fn package(
        &self,
        directory: &Path,
        binary: Option<&str>,
        locked: bool,
    ) -> Result<App, AppError> {
        let manifest = directory.join("Cargo.toml");
        let metadata = self.metadata_of(directory, &manifest, locked)?;
        let package = metadata
            .packages
            .iter()
            .find(|package| package.manifest_path == *manifest)
            .ok_or_else(|| workspace_error(directory, &metadata))?;
        let name = select_binary(package, binary)?;
        let runtime = runtime_of(&metadata, &package.id)
            .ok_or_else(|| AppError::NoRuntime(package.name.to_string()))?;
        let mut flags = self.rustflags(runtime)?;
        // Flags that differ would have the same dependencies compiled again for
        // each workspace.
        if !metadata.workspace_root.starts_with(&self.root) {
            flags.push(renamed(metadata.workspace_root.as_std_path(), ""));
        }
        let elf = self.cargo_build(directory, &name, &flags, locked)?;
        Ok(App { name, elf })
    }

    /// What Cargo knows of a package; it is asked once for all of a workspace.
    fn metadata_of(
        &self,
        directory: &Path,
        manifest: &Path,
        locked: bool,
    ) -> Result<Arc<Metadata>, AppError> {
        let is_member = |metadata: &&Arc<Metadata>| {
            let mut members = metadata.workspace_packages().into_iter();
            members.any(|package| package.manifest_path == *manifest)
        };
        if let Some(known) = self.known.borrow().iter().find(is_member) {
            return Ok(Arc::clone(known));
        }
        let metadata = Arc::new(read_metadata(directory, locked)?);
        self.known.borrow_mut().push(Arc::clone(&metadata));
        Ok(metadata)
    }

    /// Compiler flags for an application on `runtime`.
    ///
    /// Cargo sees the flags, not the files they name. So the names carry a
    /// digest of the contents: what changes is linked anew, what does not keeps
    /// its name and rebuilds nothing. They carry no folder, since flags become
    /// part of every symbol's name: the linker is told where to look
    /// (`LIBRARY_PATH`).
    fn rustflags(&self, runtime: &Package) -> Result<Vec<String>, AppError> {
        let directory = self.build.join(RUNTIME_DIRECTORY);
        fs::create_dir_all(&directory).map_err(|e| file_error(&directory, &e))?;
        let script = linker_script(runtime, &directory)?;
        let support = self.support_object(&directory)?;
        let link_arguments = [
            format!("-T{script}"),
            format!("-l:{support}"),
            "-nostartfiles".into(),
            "-nostdlib".into(),
            "-static".into(),
            "-no-pie".into(),
            "-Wl,-z,max-page-size=4096".into(),
            "-Wl,--build-id=none".into(),
        ];
        let mut flags = path_flags(&self.root);
        flags.push("-Crelocation-model=static".to_owned());
        flags.extend(link_arguments.map(|argument| format!("-Clink-arg={argument}")));
        Ok(flags)
    }

    /// Compiles what applications have in place of a C library.
    fn support_object(&self, directory: &Path) -> Result<String, AppError> {
        let source = self.root.join(SUPPORT_SOURCE);
        let mut input = fs::read(&source).map_err(|e| file_error(&source, &e))?;
        input.extend(SUPPORT_ARGUMENTS.concat().bytes());
        let name = format!("support-{}.o", digest(&input));
        let object = directory.join(&name);
        if object.exists() {
            return Ok(name);
        }
        let unfinished = directory.join(format!("support-{}.tmp", std::process::id()));
        run(Command::new("cc")
            .args(SUPPORT_ARGUMENTS)
            .arg(&source)
            .arg("-o")
            .arg(&unfinished))?;
        fs::rename(&unfinished, &object).map_err(|e| file_error(&object, &e))?;
        Ok(name)
    }

    /// Cargo with the settings every application is compiled with.
    fn cargo_for_apps(&self, verb: &str, flags: &[String]) -> Command {
        let mut command = cargo();
        command
            .env("LIBRARY_PATH", self.build.join(RUNTIME_DIRECTORY))
            .args([verb, "--release", "--target", TARGET])
            .arg("--target-dir")
            .arg(self.build.join("apps"))
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("DOCS_RS", "1")
            .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
            .env("CARGO_PROFILE_RELEASE_LTO", "thin")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only")
            .env("CARGO_PROFILE_RELEASE_STRIP", "none");
        command
    }

    /// A command that lints the applications of a workspace as they are
    /// compiled; `kinds` are Cargo's options for what to lint.
    ///
    /// # Errors
    /// [`AppError`]
    pub fn lint_command(&self, workspace: &Path, kinds: &[&str]) -> Result<Command, AppError> {
        let runtime = self.published_runtime()?;
        let flags = self.rustflags(&runtime)?;
        let mut command = self.cargo_for_apps("clippy", &flags);
        command
            .current_dir(workspace)
            .args(["--workspace", "--locked"])
            .args(kinds)
            .args(["--", "-D", "warnings"]);
        Ok(command)
    }

    fn cargo_build(
        &self,
        directory: &Path,
        binary: &str,
        flags: &[String],
        locked: bool,
    ) -> Result<PathBuf, AppError> {
        let mut command = self.cargo_for_apps("build", flags);
        command
            .current_dir(directory)
            .args(["--bin", binary])
            .args(locked.then_some("--locked"))
            .args(self.quiet.then_some("--quiet"))
            .arg("--message-format=json-render-diagnostics")
            .stdout(Stdio::piped());
        let executable = executable_of(&mut command, binary)?;
        executable.ok_or_else(|| AppError::Build(binary.into()))
    }
}

/// Runs a `cargo build` that reports in JSON; returns the program it made, or
/// nothing if the build failed.
fn executable_of(command: &mut Command, binary: &str) -> Result<Option<PathBuf>, AppError> {
    let mut child = command.spawn().map_err(|e| tool_error(command, &e))?;
    let output = child.stdout.take().expect("stdout was piped above");
    let mut executable = None;
    for message in Message::parse_stream(BufReader::new(output)).map_while(Result::ok) {
        if let Message::CompilerArtifact(artifact) = message
            && artifact.target.name == binary
            && let Some(path) = artifact.executable
        {
            executable = Some(path.into_std_path_buf());
        }
    }
    let status = child.wait().map_err(|e| tool_error(command, &e))?;
    Ok(executable.filter(|_| status.success()))
}

/// Compiler flags that keep the folders of this machine out of what is built:
/// panics and line tables name files relative to the repository at `root`, and
/// below `registry/src` for published crates.
pub fn path_flags(root: &Path) -> Vec<String> {
    let registry = home_of("CARGO_HOME", ".cargo").map(|home| home.join("registry/src"));
    let registry = registry.map(|folder| renamed(&folder, "registry/src"));
    std::iter::once(renamed(root, "")).chain(registry).collect()
}

/// The folders that what is built could name by mistake: the repository at
/// `root`, and those of Cargo and of the compilers.
pub fn folders_of_this_machine(root: &Path) -> Vec<PathBuf> {
    let homes = [
        home_of("CARGO_HOME", ".cargo"),
        home_of("RUSTUP_HOME", ".rustup"),
    ];
    homes.into_iter().flatten().chain([root.into()]).collect()
}

/// The folder that `variable` names, or else `usual` in the home folder.
fn home_of(variable: &str, usual: &str) -> Option<PathBuf> {
    let usual = || Some(PathBuf::from(std::env::var_os("HOME")?).join(usual));
    std::env::var_os(variable).map(PathBuf::from).or_else(usual)
}

fn renamed(folder: &Path, name: &str) -> String {
    format!("--remap-path-prefix={}={name}", folder.display())
}

/// The Cargo that runs us, or the one in the search path.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn elf_file(path: &Path) -> Result<App, AppError> {
    let stem = path.file_stem().unwrap_or(path.as_os_str());
    Ok(App {
        name: stem.to_string_lossy().into_owned(),
        elf: path.into(),
    })
}

/// What Cargo knows of the package in `directory`; `locked` where its lock file
/// says what may be downloaded.
fn read_metadata(directory: &Path, locked: bool) -> Result<Metadata, AppError> {
    let metadata_error = |reason: String| AppError::Metadata {
        directory: directory.into(),
        reason,
    };
    let mut options = vec!["--filter-platform".to_owned(), TARGET.to_owned()];
    options.extend(locked.then(|| "--locked".to_owned()));
    MetadataCommand::new()
        .current_dir(directory)
        .other_options(options)
        .exec()
        .map_err(|error| match error {
            cargo_metadata::Error::CargoMetadata { stderr } => metadata_error(stderr),
            other => metadata_error(other.to_string()),
        })
}

fn workspace_error(directory: &Path, metadata: &Metadata) -> AppError {
    let members: Vec<String> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    AppError::Workspace {
        directory: directory.into(),
        members: members.join(", "),
    }
}

fn package_directory(package: &Package) -> &Path {
    let manifest = package.manifest_path.as_std_path();
    manifest.parent().unwrap_or(manifest)
}

/// Chooses the program to build.
fn select_binary(package: &Package, wanted: Option<&str>) -> Result<String, AppError> {
    let names: Vec<&str> = package
        .targets
        .iter()
        .filter(|target| target.kind.contains(&TargetKind::Bin))
        .map(|target| target.name.as_str())
        .collect();
    let choice = match wanted {
        Some(wanted) => names.iter().find(|&&name| name == wanted).copied(),
        None if names.len() == 1 => Some(names[0]),
        None => package
            .default_run
            .as_deref()
            .filter(|run| names.contains(run)),
    };
    choice.map(str::to_owned).ok_or_else(|| AppError::Binary {
        package: package.name.to_string(),
        available: match names.as_slice() {
            [] => "no program (no [[bin]] target)".into(),
            names => format!("the programs {}", names.join(", ")),
        },
        advice: match (names.as_slice(), wanted) {
            ([], _) => "name a package that has one".into(),
            (_, Some(wanted)) => format!("`{wanted}` is not among them"),
            (_, None) => "choose one with BIN=".into(),
        },
    })
}

/// The capOS runtime among the dependencies of `start`.
fn runtime_of<'a>(metadata: &'a Metadata, start: &'a PackageId) -> Option<&'a Package> {
    let nodes: HashMap<&PackageId, &Vec<PackageId>> = metadata
        .resolve
        .iter()
        .flat_map(|resolve| &resolve.nodes)
        .map(|node| (&node.id, &node.dependencies))
        .collect();
    let (mut seen, mut pending) = (HashSet::new(), vec![start]);
    while let Some(id) = pending.pop() {
        if !seen.insert(id) {
            continue;
        }
        let package = &metadata[id];
        if package.name.as_str() == RUNTIME_CRATE {
            return Some(package);
        }
        pending.extend(nodes.get(id).into_iter().copied().flatten());
    }
    None
}

/// Copies the runtime's linker script to where its name is its digest.
fn linker_script(runtime: &Package, directory: &Path) -> Result<String, AppError> {
    let original = package_directory(runtime).join(LINKER_SCRIPT);
    let contents = fs::read(&original).map_err(|e| file_error(&original, &e))?;
    let name = format!("{RUNTIME_CRATE}-{}.ld", digest(&contents));
    copy_file(&original, &directory.join(&name))?;
    Ok(name)
}

/// The start of a digest of `contents`, in hexadecimal.
fn digest(contents: &[u8]) -> String {
    Sha256::digest(contents)
        .iter()
        .take(DIGEST_BYTES)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Copies a file only if its contents differ, so that time stamps stay put and
/// nothing is rebuilt for it.
fn copy_file(from: &Path, to: &Path) -> Result<(), AppError> {
    let contents = fs::read(from).map_err(|e| file_error(from, &e))?;
    if fs::read(to).is_ok_and(|present| present == contents) {
        return Ok(());
    }
    fs::write(to, contents).map_err(|e| file_error(to, &e))
}

/// Copies a source tree, without lock file, as [`copy_file`] does.
fn copy_tree(from: &Path, to: &Path) -> Result<(), AppError> {
    fs::create_dir_all(to).map_err(|e| file_error(to, &e))?;
    for entry in fs::read_dir(from).map_err(|e| file_error(from, &e))? {
        let entry = entry.map_err(|e| file_error(from, &e))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_tree(&source, &target)?;
        } else if entry.file_name() != "Cargo.lock" {
            copy_file(&source, &target)?;
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<(), AppError> {
    let status = command.status().map_err(|e| tool_error(command, &e))?;
    if status.success() {
        return Ok(());
    }
    Err(AppError::Tool {
        program: command.get_program().to_string_lossy().into_owned(),
        reason: status.to_string(),
    })
}

fn tool_error(command: &Command, error: &std::io::Error) -> AppError {
    AppError::Tool {
        program: command.get_program().to_string_lossy().into_owned(),
        reason: error.to_string(),
    }
}

fn file_error(path: &Path, error: &std::io::Error) -> AppError {
    AppError::File {
        path: path.into(),
        reason: error.to_string(),
    }
}
