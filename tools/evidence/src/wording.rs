//! What our documents may not say without saying of what.
//!
//! "Verified" and "secure" invite a reader to believe more than was shown. A
//! sentence may use them only qualified: denied (`not`, `never`, `no`,
//! `nothing`, `neither`), or with what was compared or fended off (`against`).
//! What is in code spans and quotation marks is mentioned, not claimed.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::Failure;

/// Words that claim.
const CLAIMS: [&str; 8] = [
    "verified",
    "secure",
    "securely",
    "secured",
    "provably",
    "unbreakable",
    "unhackable",
    "foolproof",
];
/// Words that qualify a claim in the same sentence.
const QUALIFIERS: [&str; 8] = [
    "not", "never", "no", "nothing", "neither", "cannot", "against", "without",
];
/// Folders and files that are checked.
const DOCUMENTS: [&str; 2] = ["README.md", "docs"];

/// A claim without its qualification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The document.
    pub file: PathBuf,
    /// The line its sentence begins on.
    pub line: usize,
    /// The word.
    pub word: &'static str,
    /// The sentence.
    pub sentence: String,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line, word) = (self.file.display(), self.line, self.word);
        write!(
            f,
            "{file}:{line}: unqualified `{word}` in: {}; say what was shown, against what, or what was not",
            self.sentence
        )
    }
}

/// Checks every document below `root`.
pub fn check(root: &Path) -> Result<(), Failure> {
    let mut claims = Vec::new();
    for name in DOCUMENTS {
        for file in markdown(&root.join(name))? {
            let text = std::fs::read_to_string(&file);
            let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
            let shown = file.strip_prefix(root).unwrap_or(&file);
            claims.extend(unqualified(shown, &text));
        }
    }
    if claims.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = claims.iter().map(Claim::to_string).collect();
    Err(lines.join("\n"))
}

fn markdown(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            files.extend(markdown(&path)?);
        } else if path.extension().is_some_and(|suffix| suffix == "md") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The claims of a document that are not qualified.
pub fn unqualified(file: &Path, text: &str) -> Vec<Claim> {
    let sentences = sentences(text);
    let found = sentences.iter().flat_map(|(line, sentence)| {
        let words = words(sentence);
        let has = |word: &str| words.iter().any(|found| found == word);
        let qualified = QUALIFIERS.iter().any(|word| has(word));
        let claims = CLAIMS.iter().filter(move |word| has(word) && !qualified);
        claims
            .map(|word| (*line, *word, sentence))
            .collect::<Vec<_>>()
    });
    found
        .map(|(line, word, sentence)| Claim {
            file: file.into(),
            line,
            word,
            sentence: sentence.split_whitespace().collect::<Vec<_>>().join(" "),
        })
        .collect()
}

fn words(sentence: &str) -> Vec<String> {
    let words = sentence.split(|c: char| !c.is_alphanumeric());
    words.map(str::to_lowercase).collect()
}

/// The sentences of a document with the line each begins on, without code and
/// quotations. A blank line, a table cell and a list item end a sentence, too.
fn sentences(text: &str) -> Vec<(usize, String)> {
    let mut sentences = Vec::new();
    let mut current = (1, String::new());
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let starts_new = trimmed.is_empty() || trimmed.starts_with(['-', '*', '#', '|']);
        if fenced || starts_new {
            sentences.push(std::mem::replace(&mut current, (index + 1, String::new())));
        }
        if fenced {
            continue;
        }
        for character in format!("{line} ").chars() {
            if matches!(character, '|' | '.' | ';' | '!' | '?') {
                sentences.push(std::mem::replace(&mut current, (index + 1, String::new())));
            } else {
                current.1.push(character);
            }
        }
    }
    sentences.push(current);
    let mentions = sentences
        .into_iter()
        .map(|(line, text)| (line, unmentioned(&text)));
    mentions.collect()
}

/// A sentence without code spans and quotations. One that is never closed
/// hides nothing.
fn unmentioned(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some(start) = rest.find(['`', '"']) {
        let mark = &rest[start..=start];
        kept.push_str(&rest[..start]);
        let inside = &rest[start + 1..];
        match inside.find(mark) {
            Some(end) => rest = &inside[end + 1..],
            None => rest = inside,
        }
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_in(text: &str) -> Vec<&'static str> {
        let claims = unqualified(Path::new("x.md"), text);
        claims.into_iter().map(|claim| claim.word).collect()
    }

    #[test]
    fn a_bare_claim_is_refused() {
        for (text, word) in [
            ("sel4-capos runs on a verified kernel.", "verified"),
            ("A Secure operating system", "secure"),
            ("It starts securely.", "securely"),
            ("Isolation is provably strong", "provably"),
            ("| kernel | Verified |", "verified"),
            ("- secure by design\n- not slow", "secure"),
            ("It is not fast. It is verified.", "verified"),
            ("The kernel is\nverified and\nfast.", "verified"),
            ("An unclosed ` mark, and it is secure", "secure"),
        ] {
            assert_eq!(words_in(text), [word], "{text}");
        }
    }

    #[test]
    fn a_qualified_claim_a_mention_and_code_pass() {
        for text in [
            "The kernel is not verified.",
            "Nothing here is secure until it was tried",
            "Every entry is verified against its SHA-256 digest.",
            "We never say \"verified\" alone.",
            "The option set `X64_verified` is a file",
            "```\nverified secure\n```",
            "unverified and insecure are other words",
        ] {
            assert_eq!(words_in(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn the_place_is_told() {
        let claims = unqualified(Path::new("docs/x.md"), "# Title\n\nGood.\nIt is secure.\n");
        let text = claims[0].to_string();
        assert!(text.starts_with("docs/x.md:"), "{text}");
        assert!(
            text.contains("unqualified `secure` in: It is secure"),
            "{text}"
        );
    }
}
