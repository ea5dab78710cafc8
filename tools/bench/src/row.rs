//! One measured action, and what can be said of its samples.

use std::collections::BTreeMap;

/// The samples of one action, in instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What was measured: `NAME KEY=VALUE...`.
    pub name: String,
    /// Values and how often each was seen, in ascending order.
    pub samples: Vec<(u64, u32)>,
}

/// Figures of one row. Quantiles are samples that were seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// The least.
    pub min: u64,
    /// The largest.
    pub max: u64,
    /// The mean.
    pub mean: f64,
    /// The variance of the samples, with Bessel's correction.
    pub variance: f64,
    /// The value seen most often; the least of several.
    pub mode: u64,
    /// The number of samples.
    pub count: u32,
}

impl Row {
    /// Reads one line of a guest; nothing if it is not one, or holds no samples.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (name, figures) = line
            .trim_end()
            .strip_prefix("bench ")?
            .split_once(" median=")?;
        let (_, samples) = figures.split_once(" samples=")?;
        let mut values = BTreeMap::new();
        for run in samples.split(',') {
            let (value, count) = run.split_once('*')?;
            *values.entry(value.parse().ok()?).or_insert(0) += count.parse::<u32>().ok()?;
        }
        if values.values().all(|&count| count == 0) {
            return None;
        }
        Some(Self {
            name: name.into(),
            samples: values.into_iter().filter(|&(_, count)| count > 0).collect(),
        })
    }

    /// The least sample that a share of `numerator / denominator` of all
    /// samples does not exceed.
    #[must_use]
    pub fn quantile(&self, numerator: u32, denominator: u32) -> u64 {
        let count: u64 = self.samples.iter().map(|&(_, n)| u64::from(n)).sum();
        let wanted = (count * u64::from(numerator)).div_ceil(u64::from(denominator));
        let mut seen = 0;
        let reached = self.samples.iter().find(|&&(_, n)| {
            seen += u64::from(n);
            seen >= wanted
        });
        reached.map_or(0, |&(value, _)| value)
    }

    /// The middle sample.
    #[must_use]
    pub fn median(&self) -> u64 {
        self.quantile(1, 2)
    }

    /// All other figures.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let count: u32 = self.samples.iter().map(|&(_, n)| n).sum();
        let weighted = |f: &dyn Fn(f64) -> f64| -> f64 {
            let terms = self.samples.iter();
            terms
                .map(|&(value, n)| f(value as f64) * f64::from(n))
                .sum()
        };
        let mean = weighted(&|value| value) / f64::from(count);
        let squares = weighted(&|value| (value - mean).powi(2));
        let ends = (self.samples.first(), self.samples.last());
        let mode = self.samples.iter().rev().max_by_key(|&&(_, n)| n);
        Statistics {
            min: ends.0.map_or(0, |&(value, _)| value),
            max: ends.1.map_or(0, |&(value, _)| value),
            mean,
            variance: squares / f64::from(count.saturating_sub(1).max(1)),
            mode: mode.map_or(0, |&(value, _)| value),
            count,
        }
    }
}

/// All rows of one boot, and on what they were measured.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Kernel version and configuration.
    pub kernel: String,
    /// The scenario that printed the rows.
    pub scenario: String,
    /// The rows, in the order printed.
    pub rows: Vec<Row>,
}

impl Run {
    /// Takes the rows out of what a guest printed.
    pub fn new<'a>(kernel: &str, scenario: &str, lines: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            kernel: kernel.into(),
            scenario: scenario.into(),
            rows: lines.into_iter().filter_map(Row::parse).collect(),
        }
    }

    /// The row of that name.
    #[must_use]
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The median of the row of that name.
    #[must_use]
    pub fn median(&self, name: &str) -> Option<u64> {
        self.row(name).map(Row::median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_every_sample_back() {
        let line = "bench nop batch=16 median=5 min=1 max=9 samples=1*2,5*3,9*1\r";
        let row = Row::parse(line).expect("a row");
        assert_eq!(row.name, "nop batch=16");
        assert_eq!(row.samples, [(1, 2), (5, 3), (9, 1)]);
        assert_eq!(row.quantile(1, 3), 1);
        assert_eq!(row.median(), 5);
        assert_eq!(row.quantile(99, 100), 9);
        let all = row.statistics();
        assert_eq!((all.min, all.max, all.mode, all.count), (1, 9, 5, 6));
        // By hand: 26/6, and the sum of squared distances over 5.
        assert!((all.mean - 4.333_333).abs() < 1e-5, "{}", all.mean);
        assert!((all.variance - 9.066_666).abs() < 1e-5, "{}", all.variance);
    }

    #[test]
    fn what_is_no_row_is_none() {
        for line in [
            "",
            "bench first-instruction at=5",
            "bench x median=1 min=1 max=1",
            "bench x median=1 min=1 max=1 samples=",
            "bench x median=1 min=1 max=1 samples=1*0",
            "bench x median=1 min=1 max=1 samples=1*-1",
            "suite bench-ring",
        ] {
            assert_eq!(Row::parse(line), None, "{line:?}");
        }
    }
}
