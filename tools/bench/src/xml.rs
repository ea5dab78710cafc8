//! sel4test's XML: a suite of cases, each with a failure or without.

use std::fmt::Write as _;

use quick_xml::escape::escape;

/// A suite with the result of each proof: its name, and what is wrong with it.
#[must_use]
pub fn suite(proofs: &[(String, Vec<String>)]) -> String {
    let mut text = String::from("<testsuite>\n");
    for (name, complaints) in proofs {
        let _ = write!(
            text,
            "\t<testcase classname=\"sel4-capos\" name=\"{}\">",
            escape(name.as_str())
        );
        for complaint in complaints {
            let _ = write!(text, "<failure>{}</failure>", escape(complaint.as_str()));
        }
        text.push_str("</testcase>\n");
    }
    text.push_str("</testsuite>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_inside_their_case_and_escaped() {
        let proofs = [
            ("good".into(), vec![]),
            ("bad".into(), vec!["a < b".into()]),
        ];
        let text = suite(&proofs);
        assert!(text.contains("name=\"good\"></testcase>"), "{text}");
        assert!(
            text.contains("<failure>a &lt; b</failure></testcase>"),
            "{text}"
        );
        assert!(text.ends_with("</testsuite>\n"));
    }
}
