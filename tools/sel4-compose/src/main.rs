//! Command line of `sel4-compose`. The Makefile's verbs are thin wrappers
//! around these commands.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sel4_compose::app::SMOKE;
use sel4_compose::kernel::Prefix;
use sel4_compose::qemu::QemuError;
use sel4_compose::report::{self, Printer};
use sel4_compose::symbols::Symbols;
use sel4_compose::system::{self, Places, Plan, System, SystemError};
use sel4_compose::{gate, image};

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
    /// Count time in instructions (repeatable measurements, one processor).
    #[arg(long, global = true)]
    icount: bool,
    /// Show the root task's log on standard error.
    #[arg(long, global = true)]
    log: bool,
}

#[derive(Subcommand)]
enum Verb {
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
    Pack(AppOptions),
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
    /// Kernel capabilities: `name` or `name=source`, separated by blanks.
    #[arg(long, default_value = "")]
    caps: String,
    /// Seconds before the machine is stopped.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Qemu(#[from] QemuError),
    #[error("{0}: {1}")]
    Inspect(PathBuf, String),
}

impl From<image::ImageError> for Failure {
    fn from(error: image::ImageError) -> Self {
        Self::System(error.into())
    }
}

impl From<sel4_compose::kernel::PrefixError> for Failure {
    fn from(error: sel4_compose::kernel::PrefixError) -> Self {
        Self::System(error.into())
    }
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
        Verb::Simulate { timeout } => {
            let smoke = AppOptions {
                app: SMOKE.into(),
                bin: None,
                caps: "console".into(),
                timeout: *timeout,
            };
            run(options, &smoke, SMOKE)
        }
        Verb::App(app) => run(options, app, "app"),
        Verb::Gdb { app, port } => debug(options, app, *port),
        Verb::Pack(app) => {
            let system = prepare(options, app)?;
            println!("{}", system.machine.image.display());
            Ok(0)
        }
        Verb::Inspect { elf } => inspect(elf),
    }
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
    let kernel = open_prefix(options)?.kernel();
    let attach = system::debugger_command(&system, &kernel, port);
    println!("paused; attach with:\n  {}", shell_words(&attach));
    let mut printer = Printer::new(Symbols::of(&system.app.elf), true);
    let outcome = system
        .machine
        .run(None, &mut |output| printer.show(output))?;
    let closing = report::closing_line(&outcome.end, Duration::MAX);
    printer.line(&format!("app: {closing}"));
    Ok(0)
}

/// A command as one would type it.
fn shell_words(command: &std::process::Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| match word.to_string_lossy() {
            plain if !plain.contains(' ') => plain.into_owned(),
            spaced => format!("'{spaced}'"),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn prepare(options: &Options, app: &AppOptions) -> Result<System, Failure> {
    let places = Places::find()?;
    let grants = image::parse_grants(&app.caps)?;
    let plan = Plan {
        app: app.app.clone(),
        binary: app.bin.clone(),
        grants,
        root_task: options.root_task.clone(),
        qemu: system::emulator(options.qemu.clone()),
        icount: options.icount,
    };
    let prefix = open_prefix(options)?;
    let system = system::prepare(&places, &prefix, &plan)?;
    eprintln!("packed {}", system.summary);
    Ok(system)
}

fn open_prefix(options: &Options) -> Result<Prefix, Failure> {
    if let Some(directory) = &options.prefix {
        eprintln!("using the seL4 prefix {}", directory.display());
        return Ok(Prefix::open(directory)?);
    }
    let bundled = Places::find()?.build.join("sel4").join(&options.kernel);
    Ok(Prefix::open(&bundled)?)
}

fn inspect(elf: &PathBuf) -> Result<u8, Failure> {
    let refuse = |reason: String| Failure::Inspect(elf.clone(), reason);
    let bytes = std::fs::read(elf).map_err(|error| refuse(error.to_string()))?;
    let report = gate::inspect(&bytes).map_err(|error| refuse(error.to_string()))?;
    for site in &report.sites {
        println!("{site:#x} syscall");
    }
    for (pair, kept) in &report.kept {
        println!("{pair:#x} left alone: {kept:?}");
    }
    Ok(0)
}
