//! Command line of `sel4-compose`. The Makefile's verbs are thin wrappers
//! around these commands.

use std::io::Write as _;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sel4_compose::answers::Answers;
use sel4_compose::bench::{self, BenchError};
use sel4_compose::description::{self, Description, DescriptionError};
use sel4_compose::host::{self, Tally};
use sel4_compose::inventory::{Inventory, InventoryError};
use sel4_compose::kernel::{self, Prefix, PrefixError};
use sel4_compose::proof_check::{self, ProofCheckError};
use sel4_compose::prove::{self, Prover};
use sel4_compose::qemu::{Outcome, QemuError};
use sel4_compose::recording::Recording;
use sel4_compose::report::{self, Printer};
use sel4_compose::scenario::{self, Scenario, ScenarioError};
use sel4_compose::simulation::{self, Files, Hands, SimulationError};
use sel4_compose::symbols::SymbolTables;
use sel4_compose::system::{self, Places, Plan, System, SystemError, Workshop};
use sel4_compose::terminal::Typist;
use sel4_compose::{audit, doctor, gate, image};

/// Where scenarios are, in the repository.
const SCENARIOS: &str = "tests/qemu";
/// The default system, in the repository.
const SYSTEM: &str = "system.toml";
/// Seconds before a machine is stopped, unless said otherwise.
const TIMEOUT_SECONDS: u64 = 60;

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
    /// Memory of the machine in MiB, whatever the system says; 512 if it says
    /// nothing.
    #[arg(long, global = true, value_name = "MIB",
          value_parser = clap::value_parser!(u32).range(32..=65536))]
    memory: Option<u32>,
    /// Count time in instructions (repeatable measurements, one processor).
    #[arg(long, global = true)]
    icount: bool,
    /// The description of protection domains; the repository's `system.xml`
    /// unless given.
    #[arg(long, global = true, value_name = "FILE")]
    domains: Option<PathBuf>,
    /// Show the root task's log on standard error.
    #[arg(long, global = true)]
    log: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Check a description of a system, and build nothing.
    Check {
        #[command(flatten)]
        system: SystemOptions,
    },
    /// Build the image of a described system.
    Build {
        #[command(flatten)]
        system: SystemOptions,
        /// Directory for `image.elf` and `kernel.elf32`.
        #[arg(long, value_name = "DIR", default_value = "build/image")]
        output: PathBuf,
    },
    /// Run a described system: its terminal on this one, if it has a terminal.
    Run {
        #[command(flatten)]
        system: SystemOptions,
        #[command(flatten)]
        how: RunOptions,
    },
    /// Show who holds what in an image, or in a described system.
    Inspect {
        #[command(flatten)]
        system: SystemOptions,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Build the kernel, the default system and the root task.
    Setup,
    /// Check format and lints of everything.
    Lint,
    /// Run all checks, host tests and guest scenarios, or the scenarios named.
    Test {
        /// Scenarios to run, and nothing else.
        scenarios: Vec<String>,
        /// Kernel capabilities their applications get as well: how a scenario
        /// that runs on demand is told a number.
        #[arg(long, default_value = "", requires = "scenarios")]
        caps: String,
        /// Kernels to run the scenarios on, one after the other: `bundled`, or
        /// the directory of an installed seL4. One that does not exist is
        /// skipped, which is said.
        #[arg(long = "on", value_name = "KERNEL", conflicts_with = "prefix")]
        kernels: Vec<String>,
        /// Machines that run at a time; as many as there are processors unless
        /// given.
        #[arg(long, value_name = "NUMBER")]
        jobs: Option<NonZero<usize>>,
    },
    /// Measure, compare with the last run, and write a report.
    Bench {
        /// Make the counts what `make test` compares with.
        #[arg(long)]
        accept: bool,
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
    Sites {
        /// The file.
        elf: PathBuf,
    },
    /// Say what stops this machine or the kernel from running systems, and how
    /// to repair it.
    Doctor {
        /// Image whose needs the kernel must meet, if it is built.
        #[arg(long, value_name = "FILE", default_value = "build/image/image.elf")]
        image: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a described system and compare what its processes really hold with
    /// the books.
    Audit {
        #[command(flatten)]
        system: SystemOptions,
        /// Milliseconds between audits, besides those at boot and at the end.
        #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
        every: Option<u64>,
        /// File of lines to type at the system's terminal.
        #[arg(long, value_name = "FILE")]
        script: Option<PathBuf>,
        /// Directory for the records, as `WHEN-N.json` and `WHEN-N.cdl`.
        #[arg(long, value_name = "DIR", default_value = "build/audit")]
        output: PathBuf,
        /// Seconds before the machine is stopped.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Say how far a kernel's configuration is from the proved one.
    ProofCheck {
        /// A prefix or a `gen_config.json`; the kernel in use if not given.
        kernel_config: Option<PathBuf>,
        /// End with status 1 unless the configuration is the proved one.
        #[arg(long)]
        require: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the tables of what a description can say.
    #[command(hide = true)]
    Tables {
        /// The file.
        #[arg(default_value = "docs/reference/system.md")]
        output: PathBuf,
    },
}

#[derive(Args)]
struct SystemOptions {
    /// A `system.toml`, or a manifest as `cue export` prints it (`*.json`).
    #[arg(default_value = "system.toml", value_name = "FILE")]
    file: PathBuf,
    /// Where the programs are that a manifest only names.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
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
    #[arg(long, default_value_t = TIMEOUT_SECONDS)]
    timeout: u64,
}

#[derive(Args)]
struct RunOptions {
    /// Seconds before the machine is stopped: 60, or as long as a person stays.
    #[arg(long)]
    timeout: Option<u64>,
    /// File of lines to type at the terminal, each at a prompt; see
    /// docs/terminal.md.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Need no terminal: show what the guest's shows.
    #[arg(long)]
    headless: bool,
    /// Where `console.log` and `root-task.log` go.
    #[arg(long, value_name = "DIR", default_value = "build/simulate")]
    output: PathBuf,
    /// Write what the terminal showed to FILE.svg and FILE.txt.
    #[arg(long, value_name = "FILE", requires = "script")]
    record: Option<PathBuf>,
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
    Description(#[from] DescriptionError),
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    #[error(transparent)]
    Audit(#[from] audit::AuditError),
    #[error(transparent)]
    ProofCheck(#[from] ProofCheckError),
    #[error(transparent)]
    Qemu(#[from] QemuError),
    #[error(transparent)]
    Simulation(#[from] SimulationError),
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error(transparent)]
    Bench(#[from] BenchError),
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
            match &failure {
                // These begin with their place.
                Failure::Description(refusal) => eprintln!("{refusal}"),
                Failure::System(SystemError::Refused(refusal)) => eprintln!("{refusal}"),
                Failure::System(SystemError::DomainsRefused(refusal)) => eprintln!("{refusal}"),
                other => eprintln!("error: {other}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn perform(options: &Options) -> Result<u8, Failure> {
    match &options.command {
        Verb::Check { system } => check(system),
        Verb::Build { system, output } => build(options, system, output),
        Verb::Run { system, how } => run_system(options, system, how),
        Verb::Inspect { system, json } => inspect(options, system, *json),
        Verb::Setup => setup(options),
        Verb::Lint => lint(options),
        Verb::Test {
            scenarios,
            caps,
            kernels,
            jobs,
        } => test(options, scenarios, caps, kernels, *jobs),
        Verb::Bench { accept } => measure(options, *accept),
        Verb::App(app) => run(options, &prepare(options, app)?, app.timeout, "app"),
        Verb::Gdb { app, port } => debug(options, app, *port),
        Verb::Pack { app, output } => keep(&prepare(options, app)?, output),
        Verb::Sites { elf } => sites(elf),
        Verb::Doctor { image, json } => examine(options, image, *json),
        Verb::Audit {
            system,
            every,
            script,
            output,
            timeout,
        } => {
            let hands = script.as_deref().map(answers).transpose()?;
            let timeout = Duration::from_secs(*timeout);
            let outcome = run_audited(options, system, *every, hands, timeout)?;
            conclude_audits(&outcome, output)
        }
        Verb::ProofCheck {
            kernel_config,
            require,
            json,
        } => check_proofs(options, kernel_config.as_deref(), *require, *json),
        Verb::Tables { output } => write_tables(output),
    }
}

fn write_tables(output: &Path) -> Result<u8, Failure> {
    let written = std::fs::write(output, description::tables());
    written.map_err(|error| Failure::File(output.into(), error.to_string()))?;
    println!("wrote {}", output.display());
    let domains = output.with_file_name("system-xml.md");
    let written = std::fs::write(&domains, system_description::grammar::reference());
    written.map_err(|error| Failure::File(domains.clone(), error.to_string()))?;
    println!("wrote {}", domains.display());
    Ok(0)
}

/// Prints `text`; a reader that has seen enough ends nothing.
fn show(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn read(system: &SystemOptions) -> Result<Description, DescriptionError> {
    Description::read(&system.file, system.programs.as_deref())
}

fn check(system: &SystemOptions) -> Result<u8, Failure> {
    let description = read(system)?;
    println!("{}: {}", system.file.display(), description.summary());
    Ok(0)
}

fn build(options: &Options, system: &SystemOptions, output: &Path) -> Result<u8, Failure> {
    let composed = compose(options, &read(system)?)?;
    let status = keep(&composed, output)?;
    show(&inventory(&composed)?.summary());
    Ok(status)
}

fn run_system(options: &Options, system: &SystemOptions, how: &RunOptions) -> Result<u8, Failure> {
    let description = read(system)?;
    let hands = match &how.script {
        Some(file) => Hands::File(answers(file)?),
        None if how.headless => Hands::Nobody,
        None => Hands::Person,
    };
    let composed = compose(options, &description)?;
    if !description.has_terminal() {
        let timeout = how.timeout.unwrap_or(TIMEOUT_SECONDS);
        return run(options, &composed, timeout, &description.name);
    }
    let patience = match (how.timeout, &hands) {
        (None, Hands::Person) => None,
        (given, _) => Some(Duration::from_secs(given.unwrap_or(TIMEOUT_SECONDS))),
    };
    let files = Files::inside(&how.output);
    let symbols = SymbolTables::of(&composed.programs);
    let (outcome, faults) = simulation::run(&composed.machine, symbols, &files, hands, patience)?;
    if let Some(base) = &how.record {
        record(&outcome, base, &description.name)?;
    }
    let closing = report::closing_line(&outcome.end, patience.unwrap_or(Duration::MAX));
    eprintln!("\n{}: {closing}", description.name);
    Ok(conclude_simulation(&outcome, faults, &files))
}

fn answers(file: &Path) -> Result<Answers, Failure> {
    let refuse = |reason: String| Failure::File(file.into(), reason);
    let text = std::fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
    Answers::parse(&text).map_err(|error| refuse(error.to_string()))
}

/// Says where the rest of the output is; returns the exit status.
fn conclude_simulation(outcome: &Outcome, faults: usize, files: &Files) -> u8 {
    eprintln!("console: {}", files.console.display());
    let faults = match faults {
        0 => String::new(),
        count => format!(" (programs that faulted: {count})"),
    };
    eprintln!("root task's log: {}{faults}", files.log.display());
    let status = report::status(&outcome.end);
    if status == report::STATUS_SYSTEM {
        for line in report::last_lines(outcome) {
            eprintln!("{line}");
        }
    }
    match &outcome.unfinished {
        Some(complaint) => {
            eprintln!("{complaint}");
            status.max(1)
        }
        None => status,
    }
}

/// Writes what the terminal showed as a picture and as text.
fn record(outcome: &Outcome, base: &Path, title: &str) -> Result<(), Failure> {
    let recording = Recording::of(&outcome.terminal);
    for (suffix, text) in [("svg", recording.svg(title)), ("txt", recording.text())] {
        let file = base.with_extension(suffix);
        std::fs::write(&file, text)
            .map_err(|error| Failure::File(file.clone(), error.to_string()))?;
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}

fn setup(options: &Options) -> Result<u8, Failure> {
    let system = SystemOptions {
        file: Places::find()?.root.join(SYSTEM),
        programs: None,
    };
    compose(options, &read(&system)?).map(|_| 0)
}

fn compose(options: &Options, description: &Description) -> Result<System, Failure> {
    let places = Places::find()?;
    let prefix = open_prefix(options, &places)?;
    let mut description = description.clone();
    if let Some(memory) = options.memory {
        description.memory_mib = memory;
    }
    let workshop = Workshop::new(&places, false);
    let composed = workshop.compose(&prefix, &description, &composing(options))?;
    eprintln!("packed {}", composed.summary);
    Ok(composed)
}

fn composing(options: &Options) -> system::Options {
    system::Options {
        root_task: options.root_task.clone(),
        qemu: system::emulator(options.qemu.clone()),
        icount: options.icount,
        files: Vec::new(),
        domains: options.domains.clone(),
        damage: None,
        audit: None,
    }
}

fn inspect(options: &Options, system: &SystemOptions, json: bool) -> Result<u8, Failure> {
    let file = match system.file.is_dir() {
        true => system.file.join("image.elf"),
        false => system.file.clone(),
    };
    let refuse = |reason: String| Failure::File(file.clone(), reason);
    let bytes = std::fs::read(&file).map_err(|error| refuse(error.to_string()))?;
    let inventory = if bytes.starts_with(b"\x7fELF") {
        Inventory::of_image(&bytes)?
    } else {
        inventory(&compose(options, &read(system)?)?)?
    };
    match json {
        true => show(&(inventory.to_json() + "\n")),
        false => show(&inventory.to_string()),
    }
    Ok(0)
}

/// What a packed system holds.
fn inventory(system: &System) -> Result<Inventory, Failure> {
    let path = &system.machine.image;
    let image = std::fs::read(path);
    let image = image.map_err(|error| Failure::File(path.clone(), error.to_string()))?;
    Ok(Inventory::of_image(&image)?)
}

fn lint(options: &Options) -> Result<u8, Failure> {
    let places = Places::find()?;
    let prefix = open_prefix(options, &places)?;
    Ok(conclude(&host::lint(&places, &prefix)?))
}

fn test(
    options: &Options,
    names: &[String],
    caps: &str,
    kernels: &[String],
    jobs: Option<NonZero<usize>>,
) -> Result<u8, Failure> {
    let places = Places::find()?;
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok());
    let jobs = jobs.unwrap_or(NonZero::<usize>::MIN);
    let all = scenario::read_all(&places.root.join(SCENARIOS))?;
    let mut scenarios = prove::select(all, names).map_err(Failure::Selection)?;
    for scenario in &mut scenarios {
        scenario.caps = format!("{} {caps}", scenario.caps);
    }
    let mut tally = Tally::default();
    if names.is_empty() {
        let prefix = open_prefix(options, &places)?;
        tally.add(host::lint(&places, &prefix)?);
        tally.add(host::test(&places));
    }
    if kernels.is_empty() {
        let installed = match &options.prefix {
            Some(_) => Some(open_prefix(options, &places)?),
            None => None,
        };
        tally.add(prove_on(options, &places, installed, &scenarios, jobs));
        return Ok(conclude(&tally));
    }
    let mut results = Vec::new();
    for kernel in kernels {
        let (label, outcome) = test_on(options, &places, kernel, &scenarios, jobs)?;
        let result = outcome.as_ref().map(Tally::to_string);
        let result = result.unwrap_or("skipped, there is no such prefix".into());
        results.push(format!("{label}: {result}"));
        tally.add(outcome.unwrap_or_default());
    }
    for result in &results {
        println!("{result}");
    }
    Ok(conclude(&tally))
}

/// The word for the bundled kernels among those to test on.
const BUNDLED: &str = "bundled";

/// Runs scenarios on one kernel. Returns how results are labelled, and nothing
/// if it is a prefix that does not exist.
fn test_on(
    options: &Options,
    places: &Places,
    kernel: &str,
    scenarios: &[Scenario],
    jobs: NonZero<usize>,
) -> Result<(String, Option<Tally>), Failure> {
    let (label, installed) = if kernel == BUNDLED {
        let prefix = kernel::bundled(&places.root, &places.build, &options.kernel)?;
        (format!("{} ({BUNDLED})", prefix.label()), None)
    } else {
        match Prefix::open(Path::new(kernel)) {
            Err(PrefixError::Missing(_)) => return Ok((kernel.into(), None)),
            opened => {
                let prefix = opened?;
                (format!("{} ({kernel})", prefix.label()), Some(prefix))
            }
        }
    };
    println!("on {label}");
    let mut tally = prove_on(options, places, installed, scenarios, jobs);
    tally.label(&label);
    Ok((label, Some(tally)))
}

fn prove_on(
    options: &Options,
    places: &Places,
    installed: Option<Prefix>,
    scenarios: &[Scenario],
    jobs: NonZero<usize>,
) -> Tally {
    let qemu = system::emulator(options.qemu.clone());
    Prover::new(places, qemu, installed, options.root_task.clone()).run(scenarios, jobs)
}

fn measure(options: &Options, accept: bool) -> Result<u8, Failure> {
    let places = Places::find()?;
    let all = scenario::read_all(&places.root.join(SCENARIOS))?;
    let chosen = prove::select(all, &[bench::SCENARIO.into()]);
    let mut chosen = chosen.map_err(Failure::Selection)?;
    let installed = options.prefix.is_some();
    let prefix = open_prefix(options, &places)?;
    let qemu = system::emulator(options.qemu.clone());
    let installed = installed.then_some(prefix);
    let mut prover = Prover::new(&places, qemu, installed, options.root_task.clone());
    for scenario in &mut chosen {
        scenario.kernel.clone_from(&options.kernel);
        bench::bench(&places, &mut prover, scenario, accept)?;
    }
    Ok(0)
}

/// Prints what failed once more, then the closing line; returns the exit status:
/// zero only for a run that showed something.
fn conclude(tally: &Tally) -> u8 {
    print!("{}", tally.recap());
    println!("{tally}");
    u8::from(tally.failed > 0 || tally.passed == 0)
}

/// Runs a system; the closing line begins with `label`.
fn run(options: &Options, system: &System, timeout: u64, label: &str) -> Result<u8, Failure> {
    let timeout = Duration::from_secs(timeout);
    let mut printer = Printer::new(SymbolTables::of(&system.programs), options.log);
    let outcome = system
        .machine
        .run(Some(timeout), None, &mut |output| printer.show(output))?;
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
    let mut printer = Printer::new(SymbolTables::of(&system.programs), true);
    let outcome = system
        .machine
        .run(None, None, &mut |output| printer.show(output))?;
    eprint!("{}", outcome.complaints);
    let closing = report::closing_line(&outcome.end, Duration::MAX);
    printer.line(&format!("app: {closing}"));
    Ok(report::status(&outcome.end))
}

/// Copies the files of a system to where they stay.
fn keep(system: &System, output: &Path) -> Result<u8, Failure> {
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
        memory_mib: options.memory.unwrap_or(system::MEMORY_MIB),
        debug: false,
        options: composing(options),
    };
    let prefix = open_prefix(options, &places)?;
    let system = Workshop::new(&places, false).prepare(&prefix, &plan)?;
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

fn examine(options: &Options, image: &Path, json: bool) -> Result<u8, Failure> {
    let prefix = match &options.prefix {
        Some(prefix) => Some(prefix.clone()),
        None => {
            let built = Places::find()?.build.join("sel4").join(&options.kernel);
            built.is_dir().then_some(built)
        }
    };
    let findings = doctor::examine(&doctor::Patient {
        prefix: prefix.as_deref(),
        qemu: &system::emulator(options.qemu.clone()),
        image: image.is_file().then_some(image),
    });
    if json {
        let text = serde_json::to_string_pretty(&findings);
        let text = text.map_err(|error| Failure::File(image.into(), error.to_string()))?;
        show(&(text + "\n"));
    } else {
        findings.iter().for_each(|finding| println!("{finding}"));
    }
    Ok(u8::from(!doctor::is_healthy(&findings)))
}

/// Runs a system with audits until it ends, or for `timeout`.
fn run_audited(
    options: &Options,
    system: &SystemOptions,
    every_ms: Option<u64>,
    mut hands: Option<Answers>,
    timeout: Duration,
) -> Result<Outcome, Failure> {
    let places = Places::find()?;
    let prefix = open_prefix(options, &places)?;
    let request = audit::Request {
        every_ms,
        plant: None,
    };
    let composing = system::Options {
        audit: Some(request),
        ..composing(options)
    };
    let workshop = Workshop::new(&places, false);
    let composed = workshop.compose(&prefix, &read(system)?, &composing)?;
    let typist = hands.as_mut().map(|hands| hands as &mut dyn Typist);
    Ok(composed.machine.run(Some(timeout), typist, &mut |_| {})?)
}

/// Writes what the audits found; fails unless each one passed.
fn conclude_audits(outcome: &Outcome, output: &Path) -> Result<u8, Failure> {
    let audits = audit::read(&outcome.log)?;
    std::fs::create_dir_all(output).map_err(|e| Failure::File(output.into(), e.to_string()))?;
    for (number, audit) in audits.iter().enumerate() {
        write_audit(output, number, audit)?;
        println!("{}", audit.summary());
        for deviation in &audit.deviations {
            println!("  {deviation}");
        }
    }
    println!("written to {}", output.display());
    Ok(u8::from(!audits.iter().all(|audit| audit.counts.ok)))
}

fn write_audit(output: &Path, number: usize, audit: &audit::Audit) -> Result<(), Failure> {
    let path = output.join(format!("{}-{number}.json", audit.when));
    let json = serde_json::to_string_pretty(audit);
    let json = json.map_err(|error| Failure::File(path.clone(), error.to_string()))?;
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| Failure::File(path.into(), error.to_string()))
    };
    write(&path, json + "\n")?;
    let path = path.with_extension("cdl");
    let capdl = audit.to_capdl();
    write(
        &path,
        capdl.map_err(|error| Failure::File(path.clone(), error))?,
    )
}

fn check_proofs(
    options: &Options,
    path: Option<&Path>,
    require: bool,
    json: bool,
) -> Result<u8, Failure> {
    let report = match path {
        Some(path) => proof_check::check(path)?,
        None => proof_check::check(open_prefix(options, &Places::find()?)?.directory())?,
    };
    match json {
        true => show(&(report.to_json() + "\n")),
        false => show(&report.to_string()),
    }
    Ok(u8::from(require && !report.inside))
}

fn sites(elf: &Path) -> Result<u8, Failure> {
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
