//! The gate: committed medians that may not be exceeded by more than a percent.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use crate::Run;

/// What was accepted last.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The kernel it was measured on; on others nothing is said.
    pub kernel: String,
    /// Growth that fails, in percent.
    pub percent: u64,
    /// Medians in instructions.
    pub medians: BTreeMap<String, u64>,
}

impl Accepted {
    /// Reads the file of accepted medians.
    ///
    /// # Errors
    /// Where and why it is not one.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// What has grown too much, or is not measured any more; empty if the run
    /// is as good as what was accepted, or on another kernel.
    #[must_use]
    pub fn complaints(&self, run: &Run) -> Vec<String> {
        if run.kernel != self.kernel {
            return Vec::new();
        }
        let complaint = |(name, &accepted): (&String, &u64)| match run.median(name) {
            None => Some(format!("`{name}` is not measured any more")),
            Some(median) if median * 100 >= accepted * (100 + self.percent) => Some(format!(
                "`{name}` takes {median} instructions, {} more than the {accepted} accepted; \
                 if that is worth it, `make bench ACCEPT=1` and commit the file",
                median - accepted
            )),
            Some(_) => None,
        };
        self.medians.iter().filter_map(complaint).collect()
    }

    /// The same file with what `run` measured.
    #[must_use]
    pub fn renewed(&self, run: &Run) -> String {
        let mut text = format!(
            "# Medians in instructions that `make test` holds the suite to; written by\n\
             # `make bench ACCEPT=1`.\n\
             kernel = {:?}\npercent = {}\n\n[medians]\n",
            run.kernel, self.percent
        );
        for name in self.medians.keys() {
            if let Some(median) = run.median(name) {
                let _ = writeln!(text, "{name:?} = {median}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "kernel = \"k\"\npercent = 1\n[medians]\n\"nop batch=1\" = 1000\n";

    fn run(kernel: &str, median: u64) -> Run {
        let line = format!("bench nop batch=1 median=0 min=0 max=0 samples={median}*3");
        Run::new(kernel, "s", [line.as_str()])
    }

    #[test]
    fn one_percent_more_fails_and_less_does_not() {
        let accepted = Accepted::parse(FILE).expect("it is one");
        assert!(accepted.complaints(&run("k", 1009)).is_empty());
        assert!(accepted.complaints(&run("k", 10)).is_empty());
        let complaints = accepted.complaints(&run("k", 1010));
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains("ACCEPT=1"), "{complaints:?}");
    }

    #[test]
    fn a_row_that_vanished_fails() {
        let accepted = Accepted::parse(FILE).expect("it is one");
        let nothing = Run::new("k", "s", []);
        assert_eq!(accepted.complaints(&nothing).len(), 1);
    }

    #[test]
    fn another_kernel_is_not_judged() {
        let accepted = Accepted::parse(FILE).expect("it is one");
        assert!(accepted.complaints(&run("other", 5000)).is_empty());
    }

    #[test]
    fn what_is_renewed_is_accepted() {
        let accepted = Accepted::parse(FILE).expect("it is one");
        let slower = run("k", 2000);
        let renewed = Accepted::parse(&accepted.renewed(&slower)).expect("it is one");
        assert!(renewed.complaints(&slower).is_empty());
        assert_eq!(renewed.medians["nop batch=1"], 2000);
    }
}
