//! How much code a system trusts, counted: the table in `docs/assurance.md`.
//!
//! Cargo says which packages are linked into the root task. A line counts if a
//! token of the program begins or ends on it: comments, documentation, blank
//! lines and `#[cfg(test)]` items do not. `unsafe` counts as often as the word
//! is written in code. Packages are counted whole, used or not: an upper bound.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde_json::Value;

use crate::Failure;

/// The page with the table, in the repository.
pub const PAGE: &str = "docs/assurance.md";
const BEGIN: &str = "<!-- trusted base: written by `make assurance` -->\n";
const END: &str = "<!-- end of the trusted base -->\n";
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Package of the program that is trusted with everything.
const ROOT_TASK: &str = "root-task";
/// Package that carries the source of the bundled kernel.
const KERNEL: &str = "sel4-sys";

/// What one package adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    name: String,
    ours: bool,
    count: Count,
}

/// Lines of code, and how often `unsafe` is written in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Lines.
    pub lines: usize,
    /// The word.
    pub unsafes: usize,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.lines += other.lines;
        self.unsafes += other.unsafes;
    }
}

/// Writes the table into the page, or, to check, fails if it is another.
pub fn update(root: &Path, check: bool) -> Result<(), Failure> {
    let path = root.join(PAGE);
    let failed = |error: std::io::Error| format!("{PAGE}: {error}");
    let page = std::fs::read_to_string(&path).map_err(failed)?;
    let updated = replace(&page, &table(root)?)?;
    if check {
        return match updated == page {
            true => Ok(()),
            false => Err(format!("{PAGE} is not current; run `make assurance`")),
        };
    }
    std::fs::write(&path, updated).map_err(failed)?;
    println!("wrote {PAGE}");
    Ok(())
}

/// The page with another table.
fn replace(page: &str, table: &str) -> Result<String, Failure> {
    let missing = || format!("{PAGE} has no place for the table");
    let (before, rest) = page.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

fn table(root: &Path) -> Result<String, Failure> {
    let metadata = metadata(root)?;
    let mut rows = rows(&metadata)?;
    rows.sort_by(|a, b| (b.ours, &a.name).cmp(&(a.ours, &b.name)));
    let mut text = String::from("| code | lines | `unsafe` |\n|---|---:|---:|\n");
    for (ours, title) in [(true, "in this repository"), (false, "from crates.io")] {
        let mut sum = Count::default();
        for row in rows.iter().filter(|row| row.ours == ours) {
            sum += row.count;
            let Count { lines, unsafes } = row.count;
            text += &format!("| `{}` | {lines} | {unsafes} |\n", row.name);
        }
        text += &format!(
            "| **root task, {title}** | **{}** | **{}** |\n",
            sum.lines, sum.unsafes
        );
    }
    let kernel = kernel_lines(&metadata)?;
    text += &format!("| seL4 5.0.0 for x86_64: C, headers, assembly | {kernel} | all |\n");
    Ok(text)
}

fn metadata(root: &Path) -> Result<Value, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// Packages linked into the root task. What runs at build time is left out:
/// it is the compiler's company, not the image's.
fn rows(metadata: &Value) -> Result<Vec<Row>, Failure> {
    let packages: HashMap<&str, &Value> = list(metadata, "packages")
        .map(|package| (text(package, "id"), package))
        .collect();
    let nodes: HashMap<&str, &Value> = list(&metadata["resolve"], "nodes")
        .map(|node| (text(node, "id"), node))
        .collect();
    let is_root = |(_, package): &(&&str, &&Value)| text(package, "name") == ROOT_TASK;
    let (start, _) = packages
        .iter()
        .find(is_root)
        .ok_or("there is no root task")?;
    let (mut seen, mut pending) = (BTreeSet::new(), vec![*start]);
    while let Some(id) = pending.pop() {
        let is_macro = packages.get(id).is_some_and(|package| is_macro(package));
        if is_macro || !seen.insert(id) {
            continue;
        }
        let node = nodes.get(id).ok_or("cargo metadata is incomplete")?;
        let linked = list(node, "deps").filter(|dependency| is_linked(dependency));
        pending.extend(linked.map(|dependency| text(dependency, "pkg")));
    }
    seen.into_iter()
        .map(|id| row(packages[id]))
        .collect::<Result<Vec<_>, _>>()
}

fn is_macro(package: &Value) -> bool {
    list(package, "targets")
        .any(|target| list(target, "kind").any(|kind| kind.as_str() == Some("proc-macro")))
}

/// Whether a dependency is linked on our target: neither for builds nor tests,
/// nor for another system.
fn is_linked(dependency: &Value) -> bool {
    list(dependency, "dep_kinds").any(|kind| {
        let target = kind["target"].as_str();
        kind["kind"].is_null() && target.is_none_or(|target| target == TARGET)
    })
}

fn row(package: &Value) -> Result<Row, Failure> {
    let manifest = Path::new(text(package, "manifest_path"));
    let ours = package["source"].is_null();
    let (name, version) = (text(package, "name"), text(package, "version"));
    let source = manifest.parent().unwrap_or(manifest).join("src");
    let mut count = Count::default();
    for file in files(&source, &["rs"])? {
        let text = std::fs::read_to_string(&file);
        let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
        count += count_rust(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(Row {
        name: match ours {
            true => name.into(),
            false => format!("{name} {version}"),
        },
        ours,
        count,
    })
}

/// Files below a folder with one of these suffixes.
fn files(folder: &Path, suffixes: &[&str]) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        if path.is_dir() {
            found.extend(files(&path, suffixes)?);
        } else if suffix.is_some_and(|suffix| suffixes.contains(&suffix)) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Counts a Rust file.
pub fn count_rust(text: &str) -> Result<Count, Failure> {
    let tokens: TokenStream = text.parse().map_err(|error| format!("{error}"))?;
    let (mut lines, mut unsafes) = (BTreeSet::new(), 0);
    visit(tokens, &mut lines, &mut unsafes);
    Ok(Count {
        lines: lines.len(),
        unsafes,
    })
}

fn visit(tokens: TokenStream, lines: &mut BTreeSet<usize>, unsafes: &mut usize) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut index = 0;
    while index < tokens.len() {
        match attribute(&tokens[index..]) {
            Some((Attribute::Documentation, length)) => index += length,
            Some((Attribute::Test, length)) => index += length + item(&tokens[index + length..]),
            None => {
                token(&tokens[index], lines, unsafes);
                index += 1;
            }
        }
    }
}

enum Attribute {
    Documentation,
    Test,
}

/// An attribute at the start of `tokens` that matters here, and its length.
fn attribute(tokens: &[TokenTree]) -> Option<(Attribute, usize)> {
    let is = |token: &TokenTree, mark| matches!(token, TokenTree::Punct(p) if p.as_char() == mark);
    let inner = usize::from(tokens.get(1).is_some_and(|token| is(token, '!')));
    let (hash, group) = (tokens.first()?, tokens.get(1 + inner)?);
    let TokenTree::Group(group) = group else {
        return None;
    };
    if !is(hash, '#') || group.delimiter() != Delimiter::Bracket {
        return None;
    }
    let length = 2 + inner;
    let words = group.stream().to_string().replace(' ', "");
    match words.as_str() {
        "cfg(test)" | "test" => Some((Attribute::Test, length)),
        _ if words.starts_with("doc=") => Some((Attribute::Documentation, length)),
        _ => None,
    }
}

/// Tokens of the item at the start: up to its braces or semicolon.
fn item(tokens: &[TokenTree]) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        _ => false,
    };
    tokens
        .iter()
        .position(ends)
        .map_or(tokens.len(), |end| end + 1)
}

fn token(token: &TokenTree, lines: &mut BTreeSet<usize>, unsafes: &mut usize) {
    let span = token.span();
    lines.insert(span.start().line);
    lines.insert(span.end().line);
    match token {
        TokenTree::Group(group) => visit(group.stream(), lines, unsafes),
        TokenTree::Ident(word) if word == "unsafe" => *unsafes += 1,
        TokenTree::Literal(_) => lines.extend(span.start().line..=span.end().line),
        _ => {}
    }
}

/// Lines of the bundled kernel's source that its x86_64 build can read, with
/// comments, without blank lines.
fn kernel_lines(metadata: &Value) -> Result<usize, Failure> {
    const OTHERS: [&str; 6] = ["arm", "32", "ia32", "imx6", "benchmark", "user"];
    let is_kernel = |package: &&Value| text(package, "name") == KERNEL;
    let package = list(metadata, "packages").find(is_kernel);
    let package = package.ok_or("the kernel's package is missing")?;
    let manifest = Path::new(text(package, "manifest_path"));
    let kernel = manifest.parent().unwrap_or(manifest).join("seL4");
    let mut lines = 0;
    for folder in ["src", "include"] {
        for file in files(&kernel.join(folder), &["c", "h", "S", "bf"])? {
            let inside = file.strip_prefix(&kernel).unwrap_or(&file);
            let names: Vec<&str> = inside.iter().filter_map(|name| name.to_str()).collect();
            let platform = names.iter().position(|name| *name == "plat");
            let other_platform = platform.and_then(|at| names.get(at + 1));
            let is_other = other_platform
                .is_some_and(|name| *name != "pc99" && !name.contains('.'))
                || names.iter().any(|name| OTHERS.contains(name));
            if is_other {
                continue;
            }
            let text = std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            let text = String::from_utf8_lossy(&text);
            lines += text.lines().filter(|line| !line.trim().is_empty()).count();
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> (usize, usize) {
        let Count { lines, unsafes } = count_rust(text).unwrap();
        (lines, unsafes)
    }

    #[test]
    fn comments_documentation_and_blank_lines_do_not_count() {
        let text = "//! Head.\n\n/// Doc.\n// note\nfn f() {\n    /* unsafe */\n    g()\n}\n";
        assert_eq!(count(text), (3, 0));
    }

    #[test]
    fn unsafe_counts_in_code_only() {
        let text = "unsafe fn f() { unsafe { g(\"unsafe\") } }\n#![deny(unsafe_code)]\n";
        assert_eq!(count(text), (2, 2));
    }

    #[test]
    fn tests_do_not_count() {
        let text = "fn f() {}\n#[cfg(test)]\nmod tests {\n    unsafe fn g() {}\n}\nfn h() {}\n";
        assert_eq!(count(text), (2, 0));
    }

    #[test]
    fn every_line_of_a_long_literal_counts() {
        assert_eq!(count("const A: &str = \"a\nb\nc\";\n"), (3, 0));
    }

    #[test]
    fn a_page_keeps_what_is_around_the_table() {
        let page = format!("a\n{BEGIN}old\n{END}b\n");
        assert_eq!(
            replace(&page, "new\n").unwrap(),
            format!("a\n{BEGIN}new\n{END}b\n")
        );
        assert!(replace("a\n", "new\n").is_err());
    }
}
