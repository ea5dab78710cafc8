//! Checks and tests that run on this machine, without a guest.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;

use cargo_metadata::MetadataCommand;

use crate::app::{self, Builder};
use crate::kernel::Prefix;
use crate::system::{Places, SystemError};

/// Workspaces of capOS applications.
const APPLICATIONS: [&str; 2] = ["tests/apps", "services"];

/// Lines of the report of a failure that are repeated at the end of a run.
const RECAP_LINES: usize = 10;

/// How many passed and failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Not run, for a reason that was printed.
    pub skipped: u64,
    /// What failed and why, each in a few lines.
    failures: Vec<String>,
}

impl Tally {
    /// Counts one result: it passed, or this is the report of its failure.
    pub fn count(&mut self, result: Result<(), &str>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(report) => {
                self.failed += 1;
                self.note(report);
            }
        }
    }

    /// Adds another tally.
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }

    /// The beginnings of the reports of what failed, one after the other: a run
    /// prints hundreds of lines between a failure and its end.
    pub fn recap(&self) -> String {
        self.failures.concat()
    }

    /// Says of each failure where it was: below a line with `label`.
    pub fn label(&mut self, label: &str) {
        for failure in &mut self.failures {
            failure.insert_str(0, &format!("on {label}\n"));
        }
    }

    fn note(&mut self, report: &str) {
        let lines = report.lines().take(RECAP_LINES);
        self.failures
            .push(lines.map(|line| format!("{line}\n")).collect());
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        match self.skipped {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} skipped"),
        }
    }
}

/// Format and lints, of everything; one count per check.
///
/// # Errors
/// [`SystemError`]: a check could not even be prepared.
pub fn lint(places: &Places, prefix: &Prefix) -> Result<Tally, SystemError> {
    let root = &places.root;
    let [apps, services] = APPLICATIONS.map(|workspace| root.join(workspace));
    let builder = Builder::new(root, &places.build);
    let checks = [
        ("format", cargo_in(root, &["fmt", "--all", "--check"])),
        ("format apps", cargo_in(&apps, &["fmt", "--all", "--check"])),
        (
            "format services",
            cargo_in(&services, &["fmt", "--all", "--check"]),
        ),
        (
            "lint host",
            cargo_in(root, &["clippy", "--all-targets", "--", "-D", "warnings"]),
        ),
        ("lint target", lint_target(places, prefix)),
        (
            "lint apps",
            builder.lint_command(&apps, &["--lib", "--bins"])?,
        ),
        (
            "lint services",
            builder.lint_command(&services, &["--bins"])?,
        ),
    ];
    let mut tally = Tally::default();
    for (name, mut command) in checks {
        let passed = command.status().is_ok_and(|status| status.success());
        let report = format!("check {name} {}", if passed { "ok" } else { "FAILED" });
        println!("{report}");
        tally.count(if passed { Ok(()) } else { Err(&report) });
    }
    Ok(tally)
}

/// Unit, integration and documentation tests of the host packages.
pub fn test(places: &Places) -> Tally {
    let root = &places.root;
    let nextest = Command::new("cargo-nextest").arg("--version").output();
    let mut tally = Tally::default();
    if nextest.is_ok_and(|output| output.status.success()) {
        tally.add(run_tests(cargo_in(
            root,
            &["nextest", "run", "--no-fail-fast"],
        )));
        tally.add(run_tests(cargo_in(
            root,
            &["test", "--doc", "--no-fail-fast"],
        )));
    } else {
        tally.add(run_tests(cargo_in(root, &["test", "--no-fail-fast"])));
    }
    tally
}

fn cargo_in(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = app::cargo();
    command
        .current_dir(directory)
        .args(arguments)
        .env("DOCS_RS", "1");
    command
}

/// Lints what only compiles for the target: the members that are not default.
fn lint_target(places: &Places, prefix: &Prefix) -> Command {
    let mut command = cargo_in(
        &places.root,
        &["clippy", "--release", "--target", app::TARGET],
    );
    command
        .arg("--target-dir")
        .arg(places.build.join("target"))
        .env("SEL4_PREFIX", prefix.directory());
    let metadata = MetadataCommand::new()
        .current_dir(&places.root)
        .no_deps()
        .exec();
    // If this fails, linting everything fails too, and says why.
    let packages = metadata.map_or_else(
        |_| Vec::new(),
        |metadata| {
            let target_only = metadata
                .workspace_members
                .iter()
                .filter(|member| !metadata.workspace_default_members.contains(member));
            target_only
                .map(|member| metadata[member].name.to_string())
                .collect()
        },
    );
    command.args(packages.iter().flat_map(|package| ["-p", package]));
    command.args(["--", "-D", "warnings"]);
    command
}

/// Runs a test command, shows its output as it comes, and reads the numbers
/// from it. A run that fails without naming a failed test counts as one.
fn run_tests(mut command: Command) -> Tally {
    command.env("CARGO_TERM_COLOR", "never");
    let (passed, output) = match run_shown(&mut command) {
        Ok(result) => result,
        Err(error) => {
            eprintln!("cannot run the tests: {error}");
            (false, String::new())
        }
    };
    let mut tally = read_tally(&output);
    if !passed && tally.failed == 0 {
        tally.failed = 1;
    }
    if tally.failed > 0 {
        tally.failures = why(&output);
    }
    tally
}

/// What a test run's output says of each failure: the results, all of them, and
/// what was panicked with; its last lines if it has neither.
fn why(output: &str) -> Vec<String> {
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    let is_result = |line: &str| {
        let marks = ["FAIL [", "TIMEOUT [", "SIG"];
        marks.iter().any(|mark| line.starts_with(mark)) || line.ends_with(" ... FAILED")
    };
    let mut results: Vec<&str> = Vec::new();
    for line in lines.iter().filter(|line| is_result(line)) {
        if !results.contains(line) {
            results.push(line);
        }
    }
    let panics = lines
        .windows(2)
        .filter(|pair| pair[0].contains(" panicked at "));
    let mut told: Vec<&str> = panics.flatten().copied().collect();
    if results.is_empty() && told.is_empty() {
        told = lines[lines.len().saturating_sub(RECAP_LINES / 2)..].to_vec();
    }
    let results = results
        .into_iter()
        .map(|line| format!("host test {line}\n"));
    let told = told.into_iter().take(RECAP_LINES);
    let told: String = told.map(|line| format!("    {line}\n")).collect();
    results
        .chain((!told.is_empty()).then(|| format!("host tests FAILED\n{told}")))
        .collect()
}

/// Runs `command`; returns whether it succeeded, and all that it printed.
fn run_shown(command: &mut Command) -> io::Result<(bool, String)> {
    let (reader, writer) = io::pipe()?;
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The command holds the writing ends; the reader would wait for them.
    command.stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null());
    let mut output = String::new();
    for line in BufReader::new(reader).lines() {
        let line = line?;
        writeln!(io::stderr(), "{line}")?;
        output.push_str(&line);
        output.push('\n');
    }
    Ok((child.wait()?.success(), output))
}

/// Reads the closing lines of `cargo test` and `cargo nextest run`.
fn read_tally(output: &str) -> Tally {
    let mut tally = Tally::default();
    for line in output.lines() {
        let results = line
            .strip_prefix("test result: ")
            .or_else(|| line.split_once(" tests run: ").map(|(_, results)| results))
            .or_else(|| line.split_once(" test run: ").map(|(_, results)| results));
        for part in results.into_iter().flat_map(|r| r.split([',', ';', '.'])) {
            match count_of(part) {
                Some((count, "passed")) => tally.passed += count,
                Some((count, "failed" | "exec failed" | "timed out")) => tally.failed += count,
                _ => {}
            }
        }
    }
    tally
}

/// Reads `3 passed`, also with a remark: `3 passed (1 slow)`.
fn count_of(part: &str) -> Option<(u64, &str)> {
    let (count, rest) = part.trim().split_once(' ')?;
    let word = rest.split(" (").next().unwrap_or(rest);
    Some((count.parse().ok()?, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_cargo_test_are_added_up() {
        let output = "test result: ok. 17 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      noise\n\
                      test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured\n";
        assert_eq!(
            read_tally(output),
            Tally {
                passed: 19,
                failed: 3,
                ..Tally::default()
            }
        );
    }

    #[test]
    fn results_of_nextest_are_read() {
        let output = "     Summary [   0.5s] 40 tests run: 36 passed (1 slow), 2 failed, \
                      1 timed out, 1 exec failed, 4 skipped\n";
        assert_eq!(
            read_tally(output),
            Tally {
                passed: 36,
                failed: 4,
                ..Tally::default()
            }
        );
        let single = "     Summary [   0.5s] 1 test run: 1 passed, 0 skipped\n";
        assert_eq!(
            read_tally(single),
            Tally {
                passed: 1,
                ..Tally::default()
            }
        );
    }

    #[test]
    fn a_run_that_dies_counts_as_a_failure_and_its_end_is_repeated() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo could not compile; exit 101"]);
        let tally = run_tests(command);
        assert_eq!((tally.passed, tally.failed), (0, 1));
        let recap = "host tests FAILED\n    could not compile\n";
        assert_eq!(tally.recap(), recap);
    }

    #[test]
    fn a_command_that_is_missing_counts_as_a_failure() {
        let tally = run_tests(Command::new("no-such-program-anywhere"));
        assert_eq!((tally.passed, tally.failed), (0, 1));
    }

    #[test]
    fn which_tests_failed_and_why_is_repeated_once() {
        let output = "        PASS [   0.1s] (1/3) a b::c\n\
                      \x20       FAIL [   0.2s] (2/3) a b::d\n\
                      thread 'b::d' (7) panicked at a/src/b.rs:7:9:\n\
                      assertion failed: odd\n\
                      note: run with more\n\
                      \x20    Summary [   0.5s] 3 tests run: 2 passed, 1 failed, 0 skipped\n\
                      \x20       FAIL [   0.2s] (2/3) a b::d\n\
                      test e::f ... FAILED\n";
        assert_eq!(
            why(output).concat(),
            "host test FAIL [   0.2s] (2/3) a b::d\n\
             host test test e::f ... FAILED\n\
             host tests FAILED\n\
             \x20   thread 'b::d' (7) panicked at a/src/b.rs:7:9:\n\
             \x20   assertion failed: odd\n"
        );
    }

    #[test]
    fn what_failed_is_repeated_in_a_few_lines_each() {
        let mut tally = Tally::default();
        tally.count(Ok(()));
        tally.count(Err("first FAILED"));
        let mut other = Tally::default();
        other.count(Err(&"line\n".repeat(2 * RECAP_LINES)));
        tally.add(other);
        assert_eq!(tally.to_string(), "1 passed, 2 failed");
        let second = "line\n".repeat(RECAP_LINES);
        assert_eq!(tally.recap(), format!("first FAILED\n{second}"));
        tally.label("16.0.0");
        let labelled = format!("on 16.0.0\nfirst FAILED\non 16.0.0\n{second}");
        assert_eq!(tally.recap(), labelled);
    }
}
