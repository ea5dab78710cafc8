//! Bounded runs of the fuzzers in `tests/fuzz`.
//!
//! cargo-fuzz is installed into `build/tools` at a pinned version; everything
//! it builds goes to `build/fuzz`. New inputs go there too: the committed
//! corpus does not change.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::run::bounded;

/// Version of cargo-fuzz.
const CARGO_FUZZ: &str = "0.13.2";
const TOOLCHAIN: &str = "nightly";
/// Targets, in the order of `fuzz_targets::TARGETS`.
pub const TARGETS: [&str; 6] = ["ring", "transfer", "params", "elf", "manifest", "gate"];
/// Longest input in bytes.
const INPUT_BYTES_MAX: u32 = 4096;
/// Time beyond its own limit that a fuzzer gets to load and finish, in seconds.
const GRACE_SECONDS: u32 = 60;

/// Runs each target for `seconds`; prints executions.
///
/// # Errors
/// No nightly toolchain, a target that does not build, or a crash.
pub fn smoke(root: &Path, seconds: u32, only: &[String]) -> Result<(), Failure> {
    if let Some(unknown) = only.iter().find(|name| !TARGETS.contains(&&name[..])) {
        return Err(format!(
            "no fuzzer is called {unknown}; there are {TARGETS:?}"
        ));
    }
    require_nightly()?;
    let fuzz = install(root, "cargo-fuzz", CARGO_FUZZ)?;
    build(root, &fuzz)?;
    let chosen = |name: &&str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    let (mut total, mut crashed) = (0, Vec::new());
    for target in TARGETS.into_iter().filter(chosen) {
        let (executions, clean) = run_target(root, target, seconds)?;
        println!(
            "fuzz {target} {} {executions} executions in {seconds} s",
            if clean { "ok" } else { "FAILED" }
        );
        total += executions;
        if !clean {
            crashed.push(target);
        }
    }
    println!("fuzz total: {total} executions");
    if crashed.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "{crashed:?} crashed; see build/fuzz/artifacts and build/fuzz/*.log"
        ))
    }
}

fn require_nightly() -> Result<(), Failure> {
    let found = Command::new("rustc")
        .arg(format!("+{TOOLCHAIN}"))
        .arg("-V")
        .output();
    if found.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    Err(format!(
        "libFuzzer needs a {TOOLCHAIN} compiler and there is none. Install it with `rustup \
         toolchain install {TOOLCHAIN} --profile minimal`, or run the same targets on the \
         stable toolchain with `cargo test -p fuzz-targets`"
    ))
}

/// Installs a Cargo tool at one version; returns its path.
pub(crate) fn install(
    root: &Path,
    tool: &str,
    version: &str,
) -> Result<std::path::PathBuf, Failure> {
    let tools = root.join("build/tools");
    let installed = Command::new("cargo")
        .args([
            "install",
            tool,
            "--locked",
            "--quiet",
            "--version",
            version,
            "--root",
        ])
        .arg(&tools)
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo install {tool}: {error}"))?;
    if installed.success() {
        Ok(tools.join("bin").join(tool))
    } else {
        Err(format!("cargo install {tool} {version} failed"))
    }
}

fn build(root: &Path, fuzz: &Path) -> Result<(), Failure> {
    println!("building the fuzzers (several minutes the first time)");
    let status = Command::new(fuzz)
        .args([
            "build",
            "--fuzz-dir",
            "tests/fuzz",
            "--target-dir",
            "build/fuzz",
        ])
        .env("RUSTUP_TOOLCHAIN", TOOLCHAIN)
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo-fuzz: {error}"))?;
    status
        .success()
        .then_some(())
        .ok_or("the fuzzers do not build".into())
}

/// Executions, and whether there was no crash.
fn run_target(root: &Path, target: &str, seconds: u32) -> Result<(u64, bool), Failure> {
    let out = root.join("build/fuzz");
    let found = out.join("found").join(target);
    let artifacts = out.join("artifacts");
    for directory in [&found, &artifacts] {
        std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    }
    let mut command = Command::new(out.join("x86_64-unknown-linux-gnu/release").join(target));
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!(
            "-artifact_prefix={}/{target}-",
            artifacts.display()
        ))
        .arg("-print_final_stats=1")
        .arg(&found)
        .arg(root.join("tests/fuzz/corpus").join(target))
        .env("RUST_BACKTRACE", "1");
    let limit = Duration::from_secs(u64::from(seconds + GRACE_SECONDS));
    let ended = bounded(command, &out.join(format!("{target}.log")), limit)?;
    Ok((executions(&ended.output), ended.success == Some(true)))
}

fn executions(output: &str) -> u64 {
    output
        .lines()
        .filter_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .filter_map(|count| count.trim().parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_from_the_final_statistics() {
        let output = "noise\nstat::number_of_executed_units: 9784\nstat::peak_rss_mb: 3\n";
        assert_eq!(executions(output), 9784);
    }

    #[test]
    fn every_fuzzer_has_a_program_and_a_corpus() {
        let fuzz = crate::root().join("tests/fuzz");
        for target in TARGETS {
            assert!(
                fuzz.join(format!("fuzz_targets/{target}.rs")).exists(),
                "{target}"
            );
            assert!(fuzz.join("corpus").join(target).exists(), "{target}");
        }
    }
}
