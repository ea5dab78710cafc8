//! Line coverage of the core under the core's and the model's tests.

use std::path::Path;
use std::process::Command;

use crate::Failure;
use crate::fuzzing::install;

/// Version of cargo-tarpaulin.
const CARGO_TARPAULIN: &str = "0.37.5";
/// Coverage below which the command fails, in percent.
const LEAST_PERCENT: &str = "95";

/// Runs the tests under cargo-tarpaulin and prints covered and missed lines of
/// `ring-server/core`.
///
/// # Errors
/// A failing test, or less than 95 %.
pub fn run(root: &Path) -> Result<(), Failure> {
    let tarpaulin = install(root, "cargo-tarpaulin", CARGO_TARPAULIN)?;
    // Traced code runs many times slower; the long walks prove nothing more
    // about which lines are reached.
    let status = Command::new(tarpaulin)
        .args([
            "tarpaulin",
            "--engine",
            "ptrace",
            "--skip-clean",
            "--out",
            "Stdout",
        ])
        .args([
            "--packages",
            "ring-server-core",
            "--packages",
            "ring-server-model",
        ])
        .args(["--include-files", "ring-server/core/src/*"])
        .args(["--exclude-files", "ring-server/core/src/proofs.rs"])
        .args(["--target-dir", "build/coverage", "--timeout", "600"])
        .args(["--fail-under", LEAST_PERCENT])
        .env("RING_STEPS", "20000")
        .env("RING_DEPTH", "3")
        .env("RING_CASES", "20")
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo-tarpaulin: {error}"))?;
    status.success().then_some(()).ok_or(format!(
        "tests failed, or less than {LEAST_PERCENT} % of the core's lines were reached"
    ))
}
