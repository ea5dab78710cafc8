//! Command line of `sel4-compose`. The Makefile's verbs are thin wrappers
//! around these commands.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sel4_compose::app::SMOKE;
use sel4_compose::host::{self, Tally};
use sel4_compose::kernel::{self, Prefix, PrefixError};
use sel4_compose::prove::{self, Prover};
use sel4_compose::qemu::QemuError;
use sel4_compose::report::{self, Printer};
use sel4_compose::scenario::{self, ScenarioError};
use sel4_compose::symbols::Symbols;
use sel4_compose::system::{self, Places, Plan, System, SystemError};
use sel4_compose::{gate, image};

/// Where scenarios are, in the repository.
const SCENARIOS: &str = "tests/qemu";
/// Capabilities of the default system.
const SMOKE_CAPS: &str = "console";

/// Builds, packs and runs capOS-on-seL4 systems.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    command: Verb,
    /// Bundled kernel configuration: release, debug, sysenter or smp.
    #[arg(long, global = true, default_value = "release", value_name = "NAME")]
    kernel: String,
    /// Installed seL4 to use instead of a bundled one.
    #[arg(long, global = true, value_name = "DIR")]
    prefix: Option<PathBuf>,
    /// Root-task ELF file to use instead of building it.
    #[arg(long, global = true, value_name = "FILE")]
    root_task: Option<PathBuf>,
    /// Emulator to use.
    #[arg(long, global = true, value_name = "FILE")]
    qemu: Option<PathBuf>,
    /// Memory of the machine in MiB; the kernel itself needs 32 to start.
    #[arg(long, global = true, default_value_t = system::MEMORY_MIB, value_name = "MIB",
          value_parser = clap::value_parser!(u32).range(32..=65536))]
    memory: u32,
    /// Count time in instructions (repeatable measurements, one processor).
    #[arg(long, global = true)]
    icount: bool,
    /// Show the root task's log on standard error.
    #[arg(long, global = true)]
    log: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the kernel, the default system and the root task.
    Setup,
    /// Check format and lints of everything.
    Check,
    /// Run all checks, host tests and guest scenarios, or the scenarios named.
    Test {
        /// Scenarios to run, and nothing else.
        scenarios: Vec<String>,
        /// Kernel capabilities their applications get as well: how a scenario
        /// that runs on demand is told a number.
        #[arg(long, default_value = "", requires = "scenarios")]
        caps: String,
    },
    /// Run the default system.
    Simulate {
        /// Seconds before the machine is stopped.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Run one application as the only program of a system.
    App(AppOptions),
    /// Start an application paused for a debugger.
    Gdb {
        #[command(flatten)]
        app: AppOptions,
        /// Local port the debugger connects to.
        #[arg(long, default_value_t = 1234)]
        port: u16,
    },
    /// Build the image of an application without running it.
    Pack {
        #[command(flatten)]
        app: AppOptions,
        /// Directory for `image.elf` and `kernel.elf32`.
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
    },
    /// Show the system call sites of an ELF file.
    Inspect {
        /// The file.
        elf: PathBuf,
    },
}

#[derive(Args)]
struct AppOptions {
    /// ELF file, Cargo package directory, or `capos-rt-smoke`.
    app: String,
    /// Program to build, if the package has several.
    #[arg(long)]
    bin: Option<String>,
    /// Applications beside it, which it can start by name; separated by blanks.
    #[arg(long, default_value = "")]
    with: String,
    /// Kernel capabilities: `name` or `name=source`, separated by blanks.
    #[arg(long, default_value = "")]
    caps: String,
    /// Seconds before the machine is stopped.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

impl AppOptions {
    fn smoke(timeout: u64) -> Self {
        Self {
            app: SMOKE.into(),
            bin: None,
            with: String::new(),
            caps: SMOKE_CAPS.into(),
            timeout,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    #[error(transparent)]
    Image(#[from] image::ImageError),
    #[error(transparent)]
    Qemu(#[from] QemuError),
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error("{0}")]
    Selection(String),
    #[error("{0}: {1}")]
    File(PathBuf, String),
}

fn main() -> ExitCode {
    let options = Options::parse();
    match perform(&options) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn perform(options: &Options) -> Result<u8, Failure> {
    match &options.command {
        Verb::Setup => prepare(options, &AppOptions::smoke(0)).map(|_| 0),
        Verb::Check => check(options),
        Verb::Test { scenarios, caps } => test(options, scenarios, caps),
        Verb::Simulate { timeout } => run(options, &AppOptions::smoke(*timeout), SMOKE),
        Verb::App(app) => run(options, app, "app"),
        Verb::Gdb { app, port } => debug(options, app, *port),
        Verb::Pack { app, output } => pack(options, app, output),
        Verb::Inspect { elf } => inspect(elf),
    }
}

fn check(options: &Options) -> Result<u8, Failure> {
    let places = Places::find()?;
    let prefix = open_prefix(options, &places)?;
    Ok(conclude(host::check(&places, &prefix)?))
}

fn test(options: &Options, names: &[String], caps: &str) -> Result<u8, Failure> {
    let places = Places::find()?;
    let all = scenario::read_all(&places.root.join(SCENARIOS))?;
    let mut scenarios = prove::select(all, names).map_err(Failure::Selection)?;
    for scenario in &mut scenarios {
        scenario.caps = format!("{} {caps}", scenario.caps);
    }
    let installed = options.prefix.is_some();
    let mut tally = Tally::default();
    let prefix = open_prefix(options, &places)?;
    if names.is_empty() {
        tally.add(host::check(&places, &prefix)?);
        tally.add(host::test(&places));
    }
    let qemu = system::emulator(options.qemu.clone());
    let installed = installed.then_some(prefix);
    let mut prover = Prover::new(&places, qemu, installed, options.root_task.clone());
    tally.add(prover.run(&scenarios));
    Ok(conclude(tally))
}

/// Prints the closing line; returns the exit status.
fn conclude(tally: Tally) -> u8 {
    println!("{} passed, {} failed", tally.passed, tally.failed);
    u8::from(tally.failed > 0)
}

/// Runs an application; the closing line begins with `label`.
fn run(options: &Options, app: &AppOptions, label: &str) -> Result<u8, Failure> {
    let system = prepare(options, app)?;
    let timeout = Duration::from_secs(app.timeout);
    let mut printer = Printer::new(Symbols::of(&system.app.elf), options.log);
    let outcome = system
        .machine
        .run(Some(timeout), &mut |output| printer.show(output))?;
    let status = report::status(&outcome.end);
    if matches!(status, report::STATUS_TIMED_OUT | report::STATUS_SYSTEM) {
        printer.finish_line();
        for line in report::last_lines(&outcome) {
            eprintln!("{line}");
        }
    }
    let closing = report::closing_line(&outcome.end, timeout);
    printer.line(&format!("{label}: {closing}"));
    Ok(status)
}

fn debug(options: &Options, app: &AppOptions, port: u16) -> Result<u8, Failure> {
    let mut system = prepare(options, app)?;
    system.machine.debugger_port = Some(port);
    let attach = system::debugger_command(&system, port);
    println!("paused; attach from another terminal with:\n  {attach}");
    let mut printer = Printer::new(Symbols::of(&system.app.elf), true);
    let outcome = system
        .machine
        .run(None, &mut |output| printer.show(output))?;
    eprint!("{}", outcome.complaints);
    let closing = report::closing_line(&outcome.end, Duration::MAX);
    printer.line(&format!("app: {closing}"));
    Ok(report::status(&outcome.end))
}

fn pack(options: &Options, app: &AppOptions, output: &Path) -> Result<u8, Failure> {
    let system = prepare(options, app)?;
    let failed = |path: &Path, error: std::io::Error| Failure::File(path.into(), error.to_string());
    std::fs::create_dir_all(output).map_err(|e| failed(output, e))?;
    for file in [&system.machine.kernel, &system.machine.image] {
        let target = output.join(file.file_name().unwrap_or_default());
        std::fs::copy(file, &target).map_err(|e| failed(&target, e))?;
        println!("{}", target.display());
    }
    Ok(0)
}

fn prepare(options: &Options, app: &AppOptions) -> Result<System, Failure> {
    let places = Places::find()?;
    let grants = image::parse_grants(&app.caps)?;
    let plan = Plan {
        app: app.app.clone(),
        binary: app.bin.clone(),
        programs: app.with.split_whitespace().map(str::to_owned).collect(),
        grants,
        root_task: options.root_task.clone(),
        qemu: system::emulator(options.qemu.clone()),
        icount: options.icount,
        memory_mib: options.memory,
        debug: false,
        quiet: false,
    };
    let prefix = open_prefix(options, &places)?;
    let system = system::prepare(&places, &prefix, &plan)?;
    eprintln!("packed {}", system.summary);
    Ok(system)
}

fn open_prefix(options: &Options, places: &Places) -> Result<Prefix, PrefixError> {
    let Some(directory) = &options.prefix else {
        return kernel::bundled(&places.root, &places.build, &options.kernel);
    };
    let prefix = Prefix::open(directory)?;
    eprintln!(
        "using the installed seL4 in {}",
        prefix.directory().display()
    );
    Ok(prefix)
}

fn inspect(elf: &Path) -> Result<u8, Failure> {
    let refuse = |reason: String| Failure::File(elf.into(), reason);
    let bytes = std::fs::read(elf).map_err(|error| refuse(error.to_string()))?;
    let report = gate::inspect(&bytes).map_err(|error| refuse(error.to_string()))?;
    for site in &report.sites {
        println!("{site:#x} syscall");
    }
    for (pair, kept) in &report.kept {
        println!("{pair:#x} not an instruction: {kept}");
    }
    Ok(0)
}
