//! The labelled invariants of the core, and what names each.
//!
//! A label is declared in a `//!` or `///` comment as `- **X1** text`. It is
//! held by a `check` if a function of the core that `Server::check` reaches
//! asserts it by name, and by a test if a test's comment or message names it.
//! A label that nothing names is an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Failure;

const CORE: &str = "ring-server/core/src";
const TESTS: [&str; 2] = ["ring-server/core/src", "ring-server/model/tests"];

/// One labelled invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invariant {
    /// Its label.
    pub label: String,
    /// What it says.
    pub text: String,
    /// The module that declares it.
    pub module: String,
    /// `check` functions and tests that name it.
    pub holders: Vec<String>,
}

/// Collects all invariants of the core.
///
/// # Errors
/// A label declared twice, or named by no check and no test.
pub fn collect(root: &Path) -> Result<Vec<Invariant>, Failure> {
    let mut all: BTreeMap<String, Invariant> = BTreeMap::new();
    for (module, source) in sources(&root.join(CORE))? {
        for (label, text) in declared(&source) {
            let invariant = Invariant {
                label: label.clone(),
                text,
                module: module.clone(),
                holders: Vec::new(),
            };
            if let Some(other) = all.insert(label.clone(), invariant) {
                return Err(format!(
                    "{label} is declared in {} and {module}",
                    other.module
                ));
            }
        }
    }
    for directory in TESTS {
        for (module, source) in sources(&root.join(directory))? {
            for (function, named) in named_by_functions(&source) {
                for label in named {
                    if let Some(invariant) = all.get_mut(&label) {
                        let holder = format!("`{module}::{function}`");
                        if !invariant.holders.contains(&holder) {
                            invariant.holders.push(holder);
                        }
                    }
                }
            }
        }
    }
    let unheld: Vec<&str> = all
        .values()
        .filter(|invariant| invariant.holders.is_empty())
        .map(|invariant| &invariant.label[..])
        .collect();
    if unheld.is_empty() {
        Ok(all.into_values().collect())
    } else {
        Err(format!("no check and no test names {}", unheld.join(", ")))
    }
}

/// Rust files below `directory` by module name, in order.
fn sources(directory: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut files = Vec::new();
    rust_files(directory, &mut files)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path);
            let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
            let name = path
                .strip_prefix(directory)
                .unwrap_or(&path)
                .with_extension("");
            Ok((name.to_string_lossy().replace('/', "::"), text))
        })
        .collect()
}

fn rust_files(directory: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, out)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
    Ok(())
}

/// The text of a doc comment line.
fn doc(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("//!")
        .or_else(|| line.strip_prefix("///"))
}

/// Labels a file declares, with their text joined to one line.
fn declared(source: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in source.lines() {
        let Some(comment) = doc(line) else {
            open = false;
            continue;
        };
        if let Some((label, text)) = comment
            .strip_prefix(" - **")
            .and_then(|rest| rest.split_once("** "))
            .filter(|(label, _)| is_label(label))
        {
            all.push((label.to_owned(), text.to_owned()));
            open = true;
        } else if open && let Some(more) = comment.strip_prefix("   ") {
            if let Some((_, text)) = all.last_mut() {
                text.push(' ');
                text.push_str(more.trim());
            }
        } else {
            open = false;
        }
    }
    all
}

fn is_label(word: &str) -> bool {
    let mut letters = word.chars();
    letters
        .next()
        .is_some_and(|first| first.is_ascii_uppercase())
        && letters.clone().count() > 0
        && letters.all(|digit| digit.is_ascii_digit())
}

/// Functions whose assertions or own comment name labels: tests, and `check*`.
fn named_by_functions(source: &str) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    let mut comment = Vec::new();
    let mut is_test = false;
    let mut inside: Option<usize> = None;
    for line in source.lines() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        if let Some(text) = code.strip_prefix("///") {
            comment.extend(labels(text));
        } else if code.starts_with("#[test]") {
            is_test = true;
        } else if let Some(name) = function_name(code)
            && inside.is_none()
        {
            if is_test || name.starts_with("check") {
                all.push((name.to_owned(), std::mem::take(&mut comment)));
                inside = Some(indent);
            }
            comment.clear();
            is_test = false;
        } else if inside == Some(indent) && code == "}" {
            inside = None;
        } else if let (Some(_), Some((_, named))) = (inside, all.last_mut()) {
            // Strings and comments, not identifiers: `T1` alone is a word of both.
            if code.contains('"') || code.starts_with("//") {
                named.extend(labels(code));
            }
        }
    }
    all
}

fn function_name(code: &str) -> Option<&str> {
    let rest = ["fn ", "pub fn ", "pub(crate) fn "]
        .iter()
        .find_map(|prefix| code.strip_prefix(prefix))?;
    rest.split(['(', '<']).next()
}

fn labels(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| is_label(word))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "//! - **T1** A thing\n//!   holds.\n//!\n//! - **T2** Another.\n\n\
        fn check(&self) {\n    assert!(true, \"T1: broken\");\n}\n\n\
        /// T2, as it were.\n#[test]\nfn two_holds() {\n    let x = 1;\n}\n\
        fn helper() {\n    assert!(true, \"T9\");\n}\n";

    #[test]
    fn declarations_are_joined_to_one_line() {
        let expected = [("T1", "A thing holds."), ("T2", "Another.")];
        let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(declared(SOURCE), expected);
    }

    #[test]
    fn checks_and_tests_are_holders_and_helpers_are_not() {
        let named = named_by_functions(SOURCE);
        let expected = [("check", "T1"), ("two_holds", "T2")];
        let expected = expected.map(|(name, label)| (name.to_owned(), vec![label.to_owned()]));
        assert_eq!(named, expected);
    }
}
