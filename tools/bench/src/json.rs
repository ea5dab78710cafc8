//! sel4bench's output, which its scripts read: an array of benchmarks, each
//! with results, between the markers that they look for.

use serde_json::{Value, json};

use crate::{Row, Run};

/// What begins and ends the JSON in a transcript.
pub const MARKERS: [&str; 2] = ["JSON OUTPUT", "END JSON OUTPUT"];

/// The benchmarks of a run.
#[must_use]
pub fn benchmarks(run: &Run) -> Value {
    let benchmark = |(index, row): (usize, &Row)| {
        let mut words = row.name.split(' ');
        let name = words.next().unwrap_or_default();
        json!({
            "Benchmark": name,
            "Results": [result(run, row, words)],
            "Iteration": index + 1,
        })
    };
    run.rows.iter().enumerate().map(benchmark).collect()
}

fn result<'a>(run: &Run, row: &Row, parameters: impl Iterator<Item = &'a str>) -> Value {
    let all = row.statistics();
    let mut result = json!({
        "Kernel": run.kernel,
        "Scenario": run.scenario,
        "Min": all.min,
        "Max": all.max,
        "Mean": all.mean,
        "Stddev": all.variance.sqrt(),
        "Variance": all.variance,
        "Mode": all.mode,
        "Median": row.median(),
        "1st quantile": row.quantile(1, 4),
        "3rd quantile": row.quantile(3, 4),
        "Samples": all.count,
        "Raw results": row
            .samples
            .iter()
            .flat_map(|&(value, count)| std::iter::repeat_n(value, count as usize))
            .collect::<Vec<u64>>(),
    });
    for parameter in parameters {
        if let Some((key, value)) = parameter.split_once('=') {
            result[key] = value.into();
        }
    }
    result
}

/// As a guest of sel4bench would print it.
#[must_use]
pub fn transcript(run: &Run) -> String {
    let [begin, end] = MARKERS;
    format!("{begin}\n{:#}\n{end}\n", benchmarks(run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_array_has_the_keys_that_scripts_read() {
        let line = "bench nop batch=4 median=0 min=0 max=0 samples=5*2,7*2";
        let run = Run::new("5.0.0", "bench-suite", [line]);
        let text = transcript(&run);
        let body = text
            .strip_prefix("JSON OUTPUT\n")
            .and_then(|text| text.strip_suffix("END JSON OUTPUT\n"))
            .expect("the markers");
        let read: Value = serde_json::from_str(body).expect("JSON");
        let result = &read[0]["Results"][0];
        assert_eq!(read[0]["Benchmark"], "nop");
        assert_eq!(result["batch"], "4");
        assert_eq!(result["Mean"], 6.0);
        for key in [
            "Min", "Max", "Stddev", "Variance", "Mode", "Median", "Samples",
        ] {
            assert!(result[key].is_number(), "{key}");
        }
        assert_eq!(result["Raw results"], json!([5, 5, 7, 7]));
    }
}
