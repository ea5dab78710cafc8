//! `make bench`: the measuring scenario twice, and what is made of it.
//!
//! Both runs must give the same counts to the instruction. What is written:
//! sel4bench's JSON, sel4test's XML, a report with plots, and one more line of
//! history, which the next run on the same kernel is compared with.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use bench_report::gate::Accepted;
use bench_report::{Run, history, json, report, xml};

use crate::prove::Prover;
use crate::scenario::Scenario;
use crate::system::Places;

/// The scenario that measures.
pub const SCENARIO: &str = "bench-suite";
/// Where results go, below the build directory.
const DIRECTORY: &str = "bench";
/// One line for each run on this machine.
const HISTORY: &str = "history.jsonl";
/// The table of goals in the book.
const TABLE: &str = "docs/reference/goals.md";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The guest did not do what it should.
    #[error("{SCENARIO}: {0}")]
    Guest(String),
    /// Two runs differ.
    #[error("two runs of the same image differ:\n{0}")]
    Differ(String),
    /// A file.
    #[error("{0}: {1}")]
    File(PathBuf, String),
    /// The report cannot be made.
    #[error("report: {0}")]
    Report(String),
}

/// Measures and writes the report; `accept` makes the counts what `make test`
/// compares with from now on.
///
/// # Errors
/// [`BenchError`]
pub fn bench(
    places: &Places,
    prover: &mut Prover<'_>,
    scenario: &Scenario,
    accept: bool,
) -> Result<(), BenchError> {
    let run = measure(prover, scenario)?;
    let again = measure(prover, scenario)?;
    if run.rows != again.rows {
        return Err(BenchError::Differ(history::differences(&run, &again)));
    }
    let directory = places.build.join(DIRECTORY);
    fs::create_dir_all(&directory).map_err(|error| file(&directory, &error))?;
    let record = directory.join(HISTORY);
    let recorded = fs::read_to_string(&record).unwrap_or_default();
    let changes = history::last(&recorded, &run.kernel)
        .map(|before| history::changes(&before, &run))
        .unwrap_or_default();
    let files = report::files(&run, &changes).map_err(BenchError::Report)?;
    for made in &files {
        write(&directory.join(made.name), &made.contents)?;
    }
    write(&directory.join("sel4bench.json"), &json::transcript(&run))?;
    let proofs = [(scenario.name.clone(), Vec::new())];
    write(&directory.join("sel4test.xml"), &xml::suite(&proofs))?;
    append(&record, &history::entry(&run, now(), &revision(places)))?;
    if accept {
        renew(places, scenario, &run)?;
    }
    print!("{}", report::goal_table(&run));
    for change in &changes {
        println!("changed: {change}");
    }
    println!("{} rows, the same in both runs", run.rows.len());
    println!("report: {}", directory.join("report.html").display());
    Ok(())
}

fn measure(prover: &mut Prover<'_>, scenario: &Scenario) -> Result<Run, BenchError> {
    prover
        .measure(scenario)
        .map_err(|complaints| BenchError::Guest(complaints.join("; ")))
}

/// Makes what was measured the accepted counts and the table in the book.
fn renew(places: &Places, scenario: &Scenario, run: &Run) -> Result<(), BenchError> {
    let Some(counts) = &scenario.counts else {
        return Err(BenchError::Guest("the scenario names no counts".into()));
    };
    let path = places.root.join(counts);
    let text = fs::read_to_string(&path).map_err(|error| file(&path, &error))?;
    let accepted = Accepted::parse(&text).map_err(|e| BenchError::File(path.clone(), e))?;
    write(&path, &accepted.renewed(run))?;
    let head = "# Goals\n\nWritten by `make bench ACCEPT=1`; instructions, counted as \
                [measurements](../measurements.md) says.\n\n";
    let table = report::goal_table(run);
    let rows = report::row_table(run);
    let text = format!("{head}{table}\n## All rows\n\n{rows}");
    write(&places.root.join(TABLE), &text)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The revision that was measured, as Git names it.
fn revision(places: &Places) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(&places.root)
        .args(["describe", "--always", "--dirty"])
        .output();
    let named = output.ok().filter(|output| output.status.success());
    named.map_or_else(
        || "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().into(),
    )
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    fs::write(path, text).map_err(|error| file(path, &error))
}

fn append(path: &Path, line: &str) -> Result<(), BenchError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened
        .and_then(|mut opened| writeln!(opened, "{line}"))
        .map_err(|error| file(path, &error))
}

fn file(path: &Path, error: &std::io::Error) -> BenchError {
    BenchError::File(path.into(), error.to_string())
}
