//! The report: goals, all rows, and plots; as Markdown and as one HTML page.

use std::fmt::Write as _;

use crate::goals::{GOALS, TASKS};
use crate::plot::{self, Line};
use crate::{Row, Run};

/// A file of the report.
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub contents: String,
}

/// The table of goals against what a run measured.
#[must_use]
pub fn goal_table(run: &Run) -> String {
    let mut text =
        String::from("| operation | goal | measured | | rows |\n|---|---|---|---|---|\n");
    for goal in &GOALS {
        let rows = goal.formula.rows().map(|row| format!("`{row}`")).join(", ");
        let (measured, verdict) = match goal.measured(run) {
            None => ("not measured".into(), "missing"),
            Some(figure) if goal.holds(figure) => (round(figure), "held"),
            Some(figure) => (round(figure), "**missed**"),
        };
        let most = round(goal.at_most);
        let operation = goal.operation;
        let _ = writeln!(
            text,
            "| {operation} | ≤ {most} | {measured} | {verdict} | {rows} |"
        );
    }
    text.push_str(&task_table(run));
    let scenario = &run.scenario;
    let _ = writeln!(
        text,
        "\nEvery row is of scenario `{scenario}`, on seL4 {}.\n",
        run.kernel
    );
    for goal in &GOALS {
        let missed = goal.measured(run).is_some_and(|figure| !goal.holds(figure));
        if missed && !goal.reason.is_empty() {
            let _ = writeln!(text, "- {}: {}.", goal.operation, goal.reason);
        }
    }
    for task in &TASKS {
        let missed = task
            .measured(run)
            .is_some_and(|figures| !task.holds(figures));
        if missed && !task.reason.is_empty() {
            let _ = writeln!(text, "- {}: {}.", task.operation, task.reason);
        }
    }
    text
}

/// The tasks of the bridge against what a run measured.
fn task_table(run: &Run) -> String {
    let mut text = String::from(
        "\nThe bridge between two domains, in instructions for nanoseconds, p50 / p95 / p99:\n\n\
         | task | target | measured | | row |\n|---|---|---|---|---|\n",
    );
    let joined = |figures: [u64; 3]| figures.map(|figure| figure.to_string()).join(" / ");
    for task in &TASKS {
        let (measured, verdict) = match task.measured(run) {
            None => ("not measured".into(), "missing"),
            Some(figures) if task.holds(figures) => (joined(figures), "held"),
            Some(figures) => (joined(figures), "**missed**"),
        };
        let (operation, most, row) = (task.operation, joined(task.at_most), task.row);
        let _ = writeln!(
            text,
            "| {operation} | ≤ {most} | {measured} | {verdict} | `{row}` |"
        );
    }
    text
}

fn round(figure: f64) -> String {
    if figure < 10.0 {
        format!("{figure:.2}")
    } else {
        format!("{figure:.0}")
    }
}

/// The table of all rows.
#[must_use]
pub fn row_table(run: &Run) -> String {
    let mut text = String::from(
        "| row | p50 | p95 | p99 | min | max | mean | samples |\n|---|---|---|---|---|---|---|---|\n",
    );
    for row in &run.rows {
        let all = row.statistics();
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} | {:.1} | {} |",
            row.name,
            row.median(),
            row.quantile(95, 100),
            row.quantile(99, 100),
            all.min,
            all.max,
            all.mean,
            all.count
        );
    }
    text
}

/// The whole report of a run; `changes` is what differs from the last one.
///
/// # Errors
/// A plot cannot be drawn.
pub fn files(run: &Run, changes: &[String]) -> Result<Vec<File>, String> {
    let plots = [
        ("batch-scaling.svg", batches(run)?),
        ("percentiles.svg", percentiles(run)?),
        ("revoke-linearity.svg", revocation(run)?),
    ];
    let text = markdown(run, changes);
    let html = page(&text);
    let mut files = vec![
        File {
            name: "report.md",
            contents: text,
        },
        File {
            name: "report.html",
            contents: html,
        },
    ];
    files.extend(plots.map(|(name, contents)| File { name, contents }));
    Ok(files)
}

fn markdown(run: &Run, changes: &[String]) -> String {
    let mut text = format!(
        "# Measurements\n\nInstructions, counted by QEMU with `-icount shift=0,sleep=off`, on seL4 {}.\n\n## Goals\n\n{}",
        run.kernel,
        goal_table(run)
    );
    text.push_str("\n## Since the last recorded run\n\n");
    if changes.is_empty() {
        text.push_str("No row changed.\n");
    }
    for change in changes {
        let _ = writeln!(text, "- {change}");
    }
    text.push_str("\n## Plots\n\n");
    for (name, what) in [
        ("batch-scaling.svg", "cost of an entry by batch"),
        ("percentiles.svg", "percentiles"),
        (
            "revoke-linearity.svg",
            "revocation by number of derived capabilities",
        ),
    ] {
        let _ = writeln!(text, "![{what}]({name})\n");
    }
    let _ = write!(text, "## All rows\n\n{}", row_table(run));
    text
}

fn page(markdown: &str) -> String {
    use pulldown_cmark::{Options, Parser, html};
    let mut body = String::new();
    html::push_html(&mut body, Parser::new_ext(markdown, Options::ENABLE_TABLES));
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Measurements</title>\n\
         <style>body{{font:16px sans-serif;max-width:72em;margin:2em auto;padding:0 1em}}\
         table{{border-collapse:collapse;margin:1em 0}}img{{max-width:100%}}\
         td,th{{padding:.2em .6em;border-bottom:1px solid #ccc;text-align:left}}</style>\n{body}"
    )
}

/// Rows `NAME KEY=N` as points (N, median).
fn scaling<'a>(run: &'a Run, name: &str, key: &str) -> impl Iterator<Item = (f64, f64)> + 'a {
    let prefix = format!("{name} {key}=");
    let point = move |row: &Row| {
        let number: f64 = row.name.strip_prefix(&prefix)?.parse().ok()?;
        Some((number, row.median() as f64))
    };
    run.rows.iter().filter_map(point)
}

fn batches(run: &Run) -> Result<String, String> {
    let lines: Vec<Line> = ["nop", "call-not-held", "console-write-empty"]
        .into_iter()
        .map(|name| Line {
            label: name.into(),
            points: scaling(run, name, "batch")
                .map(|(batch, total)| (batch, total / batch))
                .collect(),
        })
        .collect();
    let axes = ["entries submitted together", "instructions per entry"];
    plot::lines("Cost of an entry by batch", axes, 0.0, &lines)
}

fn percentiles(run: &Run) -> Result<String, String> {
    const SHOWN: [&str; 6] = [
        "raw-fault-round-trip",
        "cap_enter-empty",
        "nop batch=1",
        "endpoint-call",
        "notification-round-trip",
        "park-wake",
    ];
    let line = |name| {
        let row = run.row(name)?;
        let median = row.median();
        let beyond = |share| (row.quantile(share, 100) - median) as f64;
        let points = (50..=100).map(|share| (f64::from(share), beyond(share)));
        Some(Line {
            label: format!("{name} ({median})"),
            points: points.collect(),
        })
    };
    let lines: Vec<Line> = SHOWN.into_iter().filter_map(line).collect();
    let axes = ["percentile", "instructions beyond the median"];
    plot::lines("Percentiles (medians in brackets)", axes, 50.0, &lines)
}

fn revocation(run: &Run) -> Result<String, String> {
    let lines: Vec<Line> = [
        ("raw-revoke", "derived", "seL4: copies of a frame"),
        ("direct-revoke", "derived", "direct transport: a session"),
        ("revoke", "holds", "personality: holds of an object"),
    ]
    .into_iter()
    .map(|(name, key, label)| Line {
        label: label.into(),
        points: scaling(run, name, key).collect(),
    })
    .filter(|line| !line.points.is_empty())
    .collect();
    let axes = ["capabilities that end", "instructions"];
    plot::lines("Revocation", axes, 0.0, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let row =
            |name: &str, value: u64| format!("bench {name} median=0 min=0 max=0 samples={value}*9");
        let lines = [
            row("nop batch=1", 1400),
            row("nop batch=16", 3000),
            row("cap_enter-empty", 1000),
            row("raw-fault-round-trip", 1000),
            row("direct-register-queue", 5001),
            row("direct-open-session", 5000),
            row("raw-revoke derived=1", 10),
            row("raw-revoke derived=500", 5000),
        ];
        Run::new("test", "bench-suite", lines.iter().map(String::as_str))
    }

    #[test]
    fn goals_are_judged_by_the_rows_they_name() {
        let table = goal_table(&run());
        assert!(table.contains("≤ 1.30 | 1.40 | **missed**"), "{table}");
        assert!(table.contains("≤ 150 | 125 | held"), "{table}");
        assert!(table.contains("not measured | missing"), "{table}");
        assert!(table.contains("5001 / 5001 / 5001 | **missed**"), "{table}");
        assert!(table.contains("5000 / 5000 / 5000 | held"), "{table}");
    }

    #[test]
    fn a_report_has_its_pages_and_its_plots() {
        let files = files(&run(), &["nop batch=1: 5 -> 4 (-1)".into()]).expect("drawn");
        let file = |name| {
            let mut found = files.iter().filter(|file| file.name == name);
            &found.next().expect(name).contents
        };
        assert!(file("report.html").contains("<table>"));
        assert!(file("report.md").contains("5 -> 4"));
        for plot in [
            "batch-scaling.svg",
            "percentiles.svg",
            "revoke-linearity.svg",
        ] {
            assert!(file(plot).starts_with("<svg"), "{plot}");
        }
        assert!(file("revoke-linearity.svg").contains("polyline"));
    }
}
