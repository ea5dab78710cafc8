//! Line coverage of the core under the core's and the model's tests.
//!
//! cargo-tarpaulin counts every line that looks like code, also those for
//! which the compiler made no instruction: fields of a literal, arms of an
//! or-pattern, a call chain's middle. No test can reach these, so the figure
//! that counts is over lines that have an address; both are printed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::Failure;
use crate::fuzzing::install;

/// Version of cargo-tarpaulin.
const CARGO_TARPAULIN: &str = "0.37.5";
/// Coverage below which the command fails, in percent.
const LEAST_PERCENT: f64 = 95.0;
const REPORT: &str = "build/coverage/tarpaulin-report.json";

#[derive(Deserialize)]
struct Report {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    path: Vec<String>,
    traces: Vec<Trace>,
}

/// One line of a file.
#[derive(Deserialize)]
struct Trace {
    line: u64,
    address: Vec<u64>,
    stats: Hits,
}

#[derive(Deserialize)]
struct Hits {
    #[serde(rename = "Line")]
    line: u64,
}

/// Lines of one kind.
#[derive(Debug, Default, PartialEq)]
struct Count {
    reached: u64,
    missed: Vec<u64>,
    without_code: u64,
}

/// Runs the tests under cargo-tarpaulin and prints what of `ring-server/core`
/// they reach.
///
/// # Errors
/// A failing test, or less than 95 % of the lines that have code.
pub fn run(root: &Path) -> Result<(), Failure> {
    let tarpaulin = install(root, "cargo-tarpaulin", CARGO_TARPAULIN)?;
    // Traced code runs many times slower; the long walks prove nothing more
    // about which lines are reached.
    let status = Command::new(tarpaulin)
        .args(["tarpaulin", "--engine", "ptrace", "--skip-clean"])
        .args(["--profile", "coverage"])
        .args(["--packages", "ring-server-core"])
        .args(["--packages", "ring-server-model"])
        .args(["--include-files", "ring-server/core/src/*"])
        .args(["--exclude-files", "ring-server/core/src/proofs.rs"])
        .args(["--target-dir", "build/coverage", "--timeout", "600"])
        .args(["--out", "Json", "--output-dir", "build/coverage"])
        .env("RING_STEPS", "20000")
        .env("RING_DEPTH", "3")
        .env("RING_CASES", "20")
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo-tarpaulin: {error}"))?;
    if !status.success() {
        return Err("a test failed under cargo-tarpaulin".into());
    }
    let text = std::fs::read_to_string(root.join(REPORT));
    let text = text.map_err(|error| format!("{REPORT}: {error}"))?;
    print(&count(&text)?)
}

fn count(report: &str) -> Result<BTreeMap<String, Count>, Failure> {
    let report: Report =
        serde_json::from_str(report).map_err(|error| format!("{REPORT}: {error}"))?;
    let mut files = BTreeMap::new();
    for file in report.files {
        let after_src = file.path.iter().rev().take_while(|part| *part != "src");
        let mut name: Vec<&str> = after_src.map(|part| &part[..]).collect();
        name.reverse();
        let count: &mut Count = files.entry(name.join("/")).or_default();
        for trace in file.traces {
            match (trace.stats.line, trace.address.is_empty()) {
                (1.., _) => count.reached += 1,
                (0, true) => count.without_code += 1,
                (0, false) => count.missed.push(trace.line),
            }
        }
    }
    Ok(files)
}

fn print(files: &BTreeMap<String, Count>) -> Result<(), Failure> {
    let (mut reached, mut missed, mut without_code) = (0, 0, 0);
    for (name, count) in files {
        let lines = count.reached + count.missed.len() as u64;
        print!("coverage {name} {} of {lines}", count.reached);
        if !count.missed.is_empty() {
            print!(", not {:?}", count.missed);
        }
        println!();
        reached += count.reached;
        missed += count.missed.len() as u64;
        without_code += count.without_code;
    }
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    let with_code = percent(reached, reached + missed);
    println!(
        "coverage of ring-server-core: {with_code:.1} %, {reached} of {} lines that have code \
         ({:.1} % with the {without_code} lines counted that have none)",
        reached + missed,
        percent(reached, reached + missed + without_code)
    );
    if with_code < LEAST_PERCENT {
        return Err(format!("coverage is below {LEAST_PERCENT} %"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_code_are_counted_apart() {
        let report = r#"{"files":[{"path":["/","a","src","kernel","b.rs"],"traces":[
            {"line":1,"address":[16],"length":1,"stats":{"Line":3}},
            {"line":2,"address":[],"length":1,"stats":{"Line":0}},
            {"line":3,"address":[32],"length":1,"stats":{"Line":0}}]}]}"#;
        let counted = count(report).expect("a report");
        let expected = Count {
            reached: 1,
            missed: vec![3],
            without_code: 1,
        };
        assert_eq!(counted["kernel/b.rs"], expected);
    }
}
