//! How far a kernel's configuration is from the one the proofs are about.
//!
//! `data/x64-verified.toml` is the proved option set, with what each option
//! changes. A `gen_config.json` is compared with it option by option. An option
//! that is not stated cannot be shown to be inside; one that the set does not
//! know is outside unless it is off.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kernel::CONFIG_FILE;

/// The proved option set.
const SET: &str = include_str!("../data/x64-verified.toml");
/// Where a prefix or a note may say which kernel this is.
const VERSION: &str = "VERSION";
/// The first release that came with an X64_verified configuration; no earlier
/// kernel has an x86_64 proof in any.
const FIRST_PROVED_MAJOR: u32 = 10;

/// Why a configuration cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum ProofCheckError {
    /// It cannot be read.
    #[error("{0}: {1}; name a gen_config.json, or a prefix that has one as {CONFIG_FILE}")]
    Unreadable(PathBuf, String),
    /// It is no object of options.
    #[error("{0}: {1}; a gen_config.json is one JSON object of options")]
    NotOptions(PathBuf, String),
}

/// What a different value of an option changes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// C code the functional-correctness proof is about.
    Proved,
    /// As `Proved`, and refused by the kernel's build in a verification build.
    Excluded,
    /// A number in that code.
    Constant,
    /// A number the proofs do not depend on.
    Robust,
    /// Code that runs before the first user thread.
    Boot,
    /// Code in the set that the x64 proofs leave out.
    Unproved,
    /// How C becomes machine code.
    Compiler,
    /// A declaration that changes no code itself.
    Statement,
}

impl Class {
    /// The consequence, as a clause.
    pub const fn consequence(self) -> &'static str {
        match self {
            Self::Proved => "changes C code that the proof is about",
            Self::Excluded => {
                "changes C code that the proof is about; no verification build allows it"
            }
            Self::Constant => {
                "changes a number in the proved code: the proofs must be run with this value"
            }
            Self::Robust => "the proofs are set up not to depend on it",
            Self::Boot => "changes boot code only, which no proof covers",
            Self::Unproved => "concerns code that the x64 proof leaves out",
            Self::Compiler => "changes how C is compiled, which no x64 proof covers",
            Self::Statement => "changes no code itself",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    set: Origin,
    coverage: Vec<Coverage>,
    option: Vec<Entry>,
}

/// Where the option set is from.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Its name.
    pub name: String,
    /// The kernel's file.
    pub file: String,
    /// The kernel's repository.
    pub source: String,
    /// What its VERSION file says.
    pub version: String,
    /// The commit that was read.
    pub commit: String,
    #[serde(skip_serializing)]
    foreign: Vec<String>,
    #[serde(skip_serializing)]
    notes: Vec<String>,
}

/// One property, and whether the x64 proofs give it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// The property.
    pub property: String,
    /// Whether it is proved for the option set.
    pub covered: bool,
    /// What that means.
    pub detail: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    expect: String,
    class: Class,
    stated: Stated,
    reason: String,
    #[serde(default)]
    alternatives: BTreeMap<String, String>,
}

/// Where a value of the set is stated.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stated {
    /// In the set's own file.
    File,
    /// In the kernel's CMake files, as a default.
    Default,
}

/// How an option compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "status", content = "found")]
pub enum Status {
    /// As in the set.
    Inside,
    /// Another value.
    Differs(String),
    /// Not stated, so not known.
    Absent,
    /// Its booleans say something else than its name: the alternative that
    /// disagrees.
    Contradicts(String),
    /// The set has no such option.
    Unknown(String),
}

/// One option of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The option, without `CONFIG_`.
    pub option: String,
    /// The value in the set; none for an option the set does not know.
    pub expected: Option<String>,
    /// What was found.
    #[serde(flatten)]
    pub status: Status,
    /// What another value changes.
    pub class: Class,
    /// Where the set's value is stated.
    pub stated: Option<Stated>,
    /// Why the option matters.
    pub reason: String,
}

impl Finding {
    /// Whether the option is as in the set.
    pub fn is_inside(&self) -> bool {
        self.status == Status::Inside
    }
}

/// A configuration compared with the proved set.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The set.
    pub set: Origin,
    /// The kernel's version, where the configuration says it.
    pub version: Option<String>,
    /// Whether that version had a proof on this architecture in any
    /// configuration; true where no version is stated.
    pub version_has_proofs: bool,
    /// Whether every option is as in the set, and the version had proofs.
    pub inside: bool,
    /// Options outside, by class.
    pub distance: BTreeMap<Class, usize>,
    /// Every option: those of the set in its order, then unknown ones.
    pub options: Vec<Finding>,
    /// What the proofs of the set cover.
    pub coverage: Vec<Coverage>,
}

/// Reads the configuration of a prefix, or a `gen_config.json`, and compares.
///
/// # Errors
/// [`ProofCheckError`]
pub fn check(path: &Path) -> Result<Report, ProofCheckError> {
    let file = match path.is_dir() {
        true => path.join(CONFIG_FILE),
        false => path.to_owned(),
    };
    let unreadable = |reason: String| ProofCheckError::Unreadable(file.clone(), reason);
    let text = std::fs::read_to_string(&file).map_err(|error| unreadable(error.to_string()))?;
    let options: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| ProofCheckError::NotOptions(file.clone(), error.to_string()))?;
    Ok(compare(&options))
}

/// Compares the options of a kernel with the proved set.
pub fn compare(config: &Map<String, Value>) -> Report {
    let set = proved_set();
    let mut options: Vec<Finding> = set.option.iter().map(|e| judge(e, config)).collect();
    options.extend(unknown(&set, config));
    let mut distance = BTreeMap::new();
    for finding in options.iter().filter(|finding| !finding.is_inside()) {
        *distance.entry(finding.class).or_default() += 1;
    }
    let version = config.get(VERSION).map(text);
    let version_has_proofs = version.as_deref().is_none_or(has_proofs);
    Report {
        inside: distance.is_empty() && version_has_proofs,
        set: set.set,
        version,
        version_has_proofs,
        distance,
        options,
        coverage: set.coverage,
    }
}

fn proved_set() -> Set {
    toml::from_str(SET).expect("data/x64-verified.toml is checked by the tests")
}

fn has_proofs(version: &str) -> bool {
    let major = version.split('.').next().and_then(|part| part.parse().ok());
    major.is_some_and(|major: u32| major >= FIRST_PROVED_MAJOR)
}

fn judge(entry: &Entry, config: &Map<String, Value>) -> Finding {
    Finding {
        option: entry.name.clone(),
        expected: Some(entry.expect.clone()),
        status: status(entry, config),
        class: entry.class,
        stated: Some(entry.stated),
        reason: entry.reason.clone(),
    }
}

fn status(entry: &Entry, config: &Map<String, Value>) -> Status {
    let Some(found) = config.get(&entry.name).map(text) else {
        return Status::Absent;
    };
    // The C code sees the booleans, people see the name: they must agree.
    let disagrees = entry.alternatives.iter().find(|(value, boolean)| {
        let stated = config.get(*boolean).map(text);
        stated.is_some_and(|stated| (stated == "true") != (**value == found))
    });
    match disagrees {
        Some((_, boolean)) => Status::Contradicts(boolean.clone()),
        None if found == entry.expect => Status::Inside,
        None => Status::Differs(found),
    }
}

/// Options that are on and that the set does not know: nothing was proved
/// about them.
fn unknown(set: &Set, config: &Map<String, Value>) -> Vec<Finding> {
    let is_known = |name: &String| {
        set.set.notes.contains(name)
            || set.set.foreign.iter().any(|p| name.starts_with(p.as_str()))
            || set
                .option
                .iter()
                .any(|entry| entry.name == *name || entry.alternatives.values().any(|b| b == name))
    };
    let on = |value: &Value| !matches!(text(value).as_str(), "false" | "0");
    let found = config
        .iter()
        .filter(|(name, value)| on(value) && !is_known(name));
    found
        .map(|(name, value)| Finding {
            option: name.clone(),
            expected: None,
            status: Status::Unknown(text(value)),
            class: Class::Proved,
            stated: None,
            reason: "the proved set has no such option, so nothing is known about it".into(),
        })
        .collect()
}

/// A value as the kernel's CMake files write it: both generations of the file,
/// with `ON` or `1` for true in the older one.
fn text(value: &Value) -> String {
    match value {
        Value::Bool(on) => on.to_string(),
        Value::String(text) => match text.as_str() {
            "ON" | "y" => "true".into(),
            "OFF" | "n" | "" => "false".into(),
            other => other.into(),
        },
        other => other.to_string(),
    }
}

impl Report {
    /// As JSON, indented.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings, numbers and lists have a JSON form")
    }

    fn outside(&self) -> impl Iterator<Item = &Finding> {
        self.options.iter().filter(|finding| !finding.is_inside())
    }

    /// The last line: what may be said about this kernel.
    pub fn verdict(&self) -> String {
        let name = &self.set.name;
        if self.inside {
            return format!(
                "inside: exactly the {name} option set; what is proved for it is listed above"
            );
        }
        let (outside, total) = (self.outside().count(), self.options.len());
        let touches = |class: &Class| !matches!(class, Class::Boot | Class::Robust);
        let mild = self.version_has_proofs && !self.distance.keys().any(touches);
        match mild {
            true => format!(
                "outside: {outside} of {total} options differ from {name}, none in proved C code; \
                 still no proof was run on this configuration"
            ),
            false => format!(
                "outside: {outside} of {total} options differ from {name}; no proof covers this kernel"
            ),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inside => f.write_str("as proved"),
            Self::Differs(found) | Self::Unknown(found) => f.write_str(found),
            Self::Absent => f.write_str("not stated"),
            Self::Contradicts(boolean) => write!(f, "contradicted by {boolean}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = &self.set;
        writeln!(
            f,
            "compared with {} of seL4 {} ({}, commit {})",
            origin.name,
            origin.version,
            origin.file,
            &origin.commit[..12.min(origin.commit.len())],
        )?;
        match &self.version {
            Some(version) if !self.version_has_proofs => {
                writeln!(f, "kernel {version}: predates the x86_64 proofs altogether")?;
            }
            Some(version) => writeln!(f, "kernel {version}")?,
            None => writeln!(
                f,
                "kernel version not stated: the proofs hold for the revision they were run on"
            )?,
        }
        self.write_options(f)?;
        self.write_coverage(f)?;
        writeln!(f, "\n{}", self.verdict())
    }
}

impl Report {
    fn write_options(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inside = self.options.iter().filter(|finding| finding.is_inside());
        let (mut line, mut count) = (String::new(), 0);
        for finding in inside {
            count += 1;
            let expected = finding.expected.as_deref().unwrap_or_default();
            line += &format!(" {}={expected}", finding.option);
        }
        writeln!(f, "\ninside ({count}):{line}")?;
        writeln!(f, "\noutside ({}):", self.outside().count())?;
        for finding in self.outside() {
            let expected = finding.expected.as_deref().unwrap_or("no such option");
            writeln!(
                f,
                "  {}: {} (set: {expected})\n    {}; {}",
                finding.option,
                finding.status,
                finding.reason,
                finding.class.consequence()
            )?;
        }
        if !self.distance.is_empty() {
            let parts: Vec<String> = self
                .distance
                .iter()
                .map(|(class, count)| format!("{count} {}", format!("{class:?}").to_lowercase()))
                .collect();
            writeln!(f, "distance: {}", parts.join(", "))?;
        }
        Ok(())
    }

    fn write_coverage(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nproved for {} on x86_64:", self.set.name)?;
        for coverage in &self.coverage {
            let mark = if coverage.covered { "yes" } else { "no " };
            writeln!(f, "  {mark} {}: {}", coverage.property, coverage.detail)?;
        }
        Ok(())
    }
}
