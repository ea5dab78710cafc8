//! Runs that were recorded, one JSON object a line: sel4bench's history rows,
//! with our own names as keys.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::Run;

/// One line: when (`ts`, seconds since 1970), of which revision, and each row
/// as `[min, q1, median, mean, q3, max, stddev, n]`.
#[must_use]
pub fn entry(run: &Run, seconds: u64, revision: &str) -> String {
    let mut entry = Map::new();
    entry.insert("ts".into(), seconds.into());
    entry.insert("sha".into(), revision.into());
    entry.insert("kernel".into(), run.kernel.clone().into());
    for row in &run.rows {
        let all = row.statistics();
        entry.insert(
            row.name.clone(),
            json!([
                all.min,
                row.quantile(1, 4),
                row.median(),
                all.mean,
                row.quantile(3, 4),
                all.max,
                all.variance.sqrt(),
                all.count,
            ]),
        );
    }
    Value::Object(entry).to_string()
}

/// Medians of the last recorded run on the same kernel.
#[must_use]
pub fn last(history: &str, kernel: &str) -> Option<BTreeMap<String, u64>> {
    let entries = history.lines().rev();
    let mut entries = entries.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let entry = entries.find(|entry| entry["kernel"] == kernel)?;
    let medians = entry.as_object()?.iter();
    let medians = medians.filter_map(|(name, row)| Some((name.clone(), row.get(2)?.as_u64()?)));
    Some(medians.collect())
}

/// Every row whose median is not what it was, a line each; rows that came and
/// went as well.
#[must_use]
pub fn changes(before: &BTreeMap<String, u64>, run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    for row in &run.rows {
        let now = row.median();
        match before.get(&row.name) {
            None => lines.push(format!("{}: new, {now}", row.name)),
            Some(&then) if then != now => {
                let change = now as i64 - then as i64;
                lines.push(format!("{}: {then} -> {now} ({change:+})", row.name));
            }
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|name| run.row(name).is_none());
    lines.extend(gone.map(|name| format!("{name}: not measured any more")));
    lines
}

/// Every row that is not the same to the last sample, a line each.
#[must_use]
pub fn differences(one: &Run, other: &Run) -> String {
    let names: BTreeSet<&str> = [one, other]
        .into_iter()
        .flat_map(|run| run.rows.iter().map(|row| row.name.as_str()))
        .collect();
    let samples = |run: &Run, name: &str| run.row(name).map(|row| row.samples.clone());
    let line = |name: &str| {
        let (left, right) = (samples(one, name), samples(other, name));
        (left != right).then(|| format!("{name}: {left:?} and {right:?}\n"))
    };
    names.into_iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lines: &[&str]) -> Run {
        Run::new("k", "s", lines.iter().copied())
    }

    #[test]
    fn two_runs_differ_by_a_single_sample() {
        let one = run(&["bench a median=0 min=0 max=0 samples=5*3"]);
        let other = run(&["bench a median=0 min=0 max=0 samples=5*2,6*1"]);
        assert_eq!(differences(&one, &one), "");
        let found = differences(&one, &other);
        assert_eq!(found, "a: Some([(5, 3)]) and Some([(5, 2), (6, 1)])\n");
    }

    #[test]
    fn what_was_recorded_is_compared_to_the_instruction() {
        let first = run(&[
            "bench a median=0 min=0 max=0 samples=5*3",
            "bench b median=0 min=0 max=0 samples=5*3",
        ]);
        let second = run(&[
            "bench a median=0 min=0 max=0 samples=4*3",
            "bench c median=0 min=0 max=0 samples=1*1",
        ]);
        let other = Run {
            kernel: "other".into(),
            ..second.clone()
        };
        let history = [entry(&first, 1, "r"), entry(&other, 2, "r")].join("\n");
        let before = last(&history, "k").expect("recorded");
        assert_eq!(changes(&before, &first), Vec::<String>::new());
        assert_eq!(
            changes(&before, &second),
            ["a: 5 -> 4 (-1)", "c: new, 1", "b: not measured any more"]
        );
        assert!(last(&history, "none").is_none());
    }
}
