//! The command behind `make reference`, `fuzz-smoke`, `mutants`, `coverage`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use evidence::{
    Failure, claims, coverage, fuzzing, mutants, reference, root, trusted_base, wording,
};

/// Evidence about the capability core.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes docs/reference/abi.md.
    Reference,
    /// Runs each fuzzer for a bounded time; needs a nightly toolchain.
    FuzzSmoke {
        /// Seconds for each fuzzer.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
        /// Only these fuzzers.
        targets: Vec<String>,
    },
    /// Breaks rules of the core on purpose; every break must be caught.
    Mutants {
        /// Only the mutants of these names.
        names: Vec<String>,
    },
    /// Prints the line coverage of ring-server-core.
    Coverage,
    /// Runs the evidence for what claims.toml says.
    Claims {
        /// Also what takes minutes.
        #[arg(long)]
        all: bool,
        /// Only these claims.
        names: Vec<String>,
    },
    /// Refuses sentences of our documents that claim without saying of what.
    Wording,
    /// Counts the trusted code and writes the table of docs/assurance.md.
    Assurance {
        /// Only say whether the table is current.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Reference => write_reference(),
        Command::FuzzSmoke { seconds, targets } => fuzzing::smoke(&root(), seconds, &targets),
        Command::Mutants { names } => mutants::run(&root(), &names),
        Command::Coverage => coverage::run(&root()),
        Command::Claims { all, names } => claims::run(&root(), all, &names),
        Command::Wording => wording::check(&root()),
        Command::Assurance { check } => trusted_base::update(&root(), check),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("evidence: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn write_reference() -> Result<(), Failure> {
    let path = root().join(reference::PATH);
    let text = reference::generate(&root())?;
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("wrote {}", reference::PATH);
    Ok(())
}
