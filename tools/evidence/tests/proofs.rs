//! `docs/proofs.md` names scenarios that exist, and leaves out no row.

use std::fs;
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The cells of each table row, heads and rules left out.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").collect())
        .collect()
}

/// The names between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_scenario_named_has_its_file() {
    let text = fs::read_to_string(root().join("docs/proofs.md")).expect("docs/proofs.md");
    let mut named = 0;
    for row in rows(&text) {
        let last = row.last().copied().unwrap_or_default();
        for name in quoted(last) {
            let file = root().join(format!("tests/qemu/{name}.toml"));
            assert!(file.is_file(), "row {}: no scenario `{name}`", row[0]);
            named += 1;
        }
    }
    assert!(named > 20, "the tables were not read: {named} names");
}

#[test]
fn no_row_is_missing_or_empty() {
    let text = fs::read_to_string(root().join("docs/proofs.md")).expect("docs/proofs.md");
    let rows = rows(&text);
    let children = (1..=17).map(|child| format!("C5.{child}"));
    let others = [
        "C2", "C5", "C7", "C8", "C9", "C10", "C11", "C12", "C14", "C15", "C16", "C17", "C24", "C29",
    ]
    .map(String::from);
    for wanted in children.chain(others) {
        let found: Vec<_> = rows.iter().filter(|row| row[0] == wanted).collect();
        assert_eq!(found.len(), 1, "rows for {wanted}");
        let last = found[0].last().copied().unwrap_or_default();
        assert!(quoted(last).next().is_some(), "{wanted} names no scenario");
    }
}
