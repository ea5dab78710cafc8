//! Deliberate rule breaks in the core, and the tests that catch them.
//!
//! `mutants.toml` lists them as data: a file, the text to find in it (exactly
//! once) and its replacement. Each is applied alone to a scratch copy of the
//! tree under `build/mutants`, which keeps one target directory, and the fast
//! tests run. A mutant that no test notices fails the command, and so does one
//! whose text is not found any more.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::Failure;
use crate::run::{Ended, bounded};

const LIST: &str = include_str!("../mutants.toml");
/// Time one mutant may take; a test that hangs has noticed it.
const LIMIT: Duration = Duration::from_secs(240);
/// Time the unchanged tree may take: everything is built first.
const BASELINE_LIMIT: Duration = Duration::from_secs(3600);
/// What runs against each mutant, cheapest first.
const STAGES: [&[&str]; 2] = [
    &["--package", "ring-server-core", "--lib"],
    &[
        "--package",
        "ring-server-model",
        "--test",
        "endpoint",
        "--test",
        "ring",
        "--test",
        "rules",
        "--test",
        "spawn",
        "--test",
        "notification",
        "--test",
        "pipe",
        "--test",
        "revocation",
        "--test",
        "terminal",
        "--test",
        "editor",
    ],
];

/// One deliberate break.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// What is broken, as an identifier.
    pub name: String,
    /// The rule that does not hold any more.
    pub rule: String,
    /// File below `ring-server/core/src`.
    pub file: String,
    /// Text that occurs once in the file.
    pub find: String,
    /// What it becomes.
    pub replace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

/// The committed list.
///
/// # Errors
/// The list is not well-formed.
pub fn list() -> Result<Vec<Mutant>, Failure> {
    let list: List = toml::from_str(LIST).map_err(|error| format!("mutants.toml: {error}"))?;
    Ok(list.mutant)
}

/// The text of `mutant`'s file with the break in it.
///
/// # Errors
/// The text to find is not there, or more than once.
pub fn apply(mutant: &Mutant, source: &str) -> Result<String, Failure> {
    match source.matches(&mutant.find[..]).count() {
        1 => Ok(source.replacen(&mutant.find[..], &mutant.replace, 1)),
        count => Err(format!(
            "mutant {}: its text occurs {count} times in {}, want 1",
            mutant.name, mutant.file
        )),
    }
}

/// Runs the mutants of these names, or all.
///
/// # Errors
/// A mutant that no test catches, or that does not apply or build.
pub fn run(root: &Path, names: &[String]) -> Result<(), Failure> {
    let mut mutants = list()?;
    mutants.retain(|mutant| names.is_empty() || names.contains(&mutant.name));
    if mutants.is_empty() {
        return Err(format!("no mutant is called {names:?}"));
    }
    let tree = root.join("build/mutants/tree");
    copy_tree(root, &tree)?;
    println!("building and testing without any mutant");
    if let Some(failed) = test(&tree, BASELINE_LIMIT)? {
        return Err(format!("{failed} fails without any mutant"));
    }
    let start = Instant::now();
    let mut missed = Vec::new();
    for (index, mutant) in mutants.iter().enumerate() {
        let caught = try_mutant(&tree, mutant)?;
        let number = format!("[{}/{}]", index + 1, mutants.len());
        match caught {
            Some(test) => println!("{number} {} caught by {test}", mutant.name),
            None => {
                println!("{number} {} MISSED: {}", mutant.name, mutant.rule);
                missed.push(&mutant.name[..]);
            }
        }
    }
    let (total, seconds) = (mutants.len(), start.elapsed().as_secs());
    println!(
        "mutants: {} of {total} caught in {seconds} s",
        total - missed.len()
    );
    if missed.is_empty() {
        Ok(())
    } else {
        Err(format!("no test notices {}", missed.join(", ")))
    }
}

/// Applies one mutant, tests, and puts the file back.
fn try_mutant(tree: &Path, mutant: &Mutant) -> Result<Option<String>, Failure> {
    let path = tree.join("ring-server/core/src").join(&mutant.file);
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    let source = fs::read_to_string(&path).map_err(wrong)?;
    fs::write(&path, apply(mutant, &source)?).map_err(wrong)?;
    let caught = test(tree, LIMIT);
    fs::write(&path, source).map_err(wrong)?;
    caught.map_err(|failure| format!("mutant {}: {failure}", mutant.name))
}

/// The first test that fails, if one does.
fn test(tree: &Path, limit: Duration) -> Result<Option<String>, Failure> {
    for stage in STAGES {
        let mut command = Command::new("cargo");
        command
            .args(["test", "--quiet", "--no-fail-fast"])
            .args(stage)
            .current_dir(tree)
            .env("CARGO_TARGET_DIR", tree.with_file_name("target"))
            .env("RUST_BACKTRACE", "0");
        let ended = bounded(command, &tree.with_file_name("test.log"), limit)?;
        match ended {
            Ended {
                success: Some(true),
                ..
            } => {}
            Ended { success: None, .. } => return Ok(Some("the time limit".into())),
            Ended { output, .. } => return failed_test(&output).map(Some),
        }
    }
    Ok(None)
}

/// Name of the first failed test in Cargo's output.
fn failed_test(output: &str) -> Result<String, Failure> {
    if output.contains("error: could not compile") {
        return Err("it does not compile; see build/mutants/test.log".into());
    }
    let failed = output
        .lines()
        .filter_map(|line| line.strip_prefix("---- ")?.strip_suffix(" stdout ----"))
        .next();
    failed.map(str::to_owned).ok_or_else(|| {
        let last: Vec<&str> = output.lines().rev().take(5).collect();
        format!("tests failed without naming one: {last:?}")
    })
}

/// Copies what Git would commit; unchanged files keep their time, so that
/// Cargo rebuilds only what differs.
fn copy_tree(root: &Path, tree: &Path) -> Result<(), Failure> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .map_err(|error| format!("git ls-files: {error}"))?;
    let text = String::from_utf8(listed.stdout).map_err(|error| error.to_string())?;
    for name in text.split('\0').filter(|name| !name.is_empty()) {
        copy_file(&root.join(name), &tree.join(name))
            .map_err(|error| format!("copying {name}: {error}"))?;
    }
    Ok(())
}

fn copy_file(from: &PathBuf, to: &PathBuf) -> std::io::Result<()> {
    if !from.is_file() {
        return Ok(());
    }
    let content = fs::read(from)?;
    if fs::read(to).is_ok_and(|there| there == content) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(to, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_applies_to_the_sources_as_they_are() {
        let mutants = list().expect("a well-formed list");
        assert!(mutants.len() >= 15, "{} mutants", mutants.len());
        for mutant in &mutants {
            let path = crate::root()
                .join("ring-server/core/src")
                .join(&mutant.file);
            let source = fs::read_to_string(path).expect("the file is there");
            let mutated = apply(mutant, &source).expect("the text is there once");
            assert_ne!(mutated, source, "{} changes something", mutant.name);
        }
    }

    #[test]
    fn the_failed_test_is_found_in_cargos_output() {
        let output = "running 2 tests\n---- a_test stdout ----\nthread panicked\n";
        assert_eq!(failed_test(output).as_deref(), Ok("a_test"));
        assert!(failed_test("error: could not compile `x`").is_err());
    }
}
