//! Guest scenarios: what to run, and what proves that it went well.
//!
//! A scenario is a TOML file of `tests/qemu`; its name is the file's. It passes
//! only if the guest's verdict is the expected one, so that silence fails. The
//! single exception, `verdict = "timeout"`, is for programs that must be ended
//! from outside, and should be paired with console output that proves that they
//! ran.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::audit;
use crate::qemu::{End, Outcome};
use crate::secrets;
use crate::terminal::Step;

/// A scenario file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It, or the directory, cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a scenario; the text gives line and column.
    #[error("{path}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
}

/// One scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// File name without suffix.
    #[serde(skip)]
    pub name: String,
    /// What a pass shows, in one sentence.
    pub proves: String,
    /// Application: an ELF file or package directory relative to the
    /// repository, or `capos-rt-smoke`.
    #[serde(default)]
    pub app: String,
    /// Instead of an application: package of a test that runs as the root
    /// task. All it prints on COM1 is log.
    #[serde(rename = "root-task")]
    pub root_task: Option<String>,
    /// Instead of an application: a description of a system, relative to the
    /// repository.
    pub system: Option<String>,
    /// Build the root task so that it measures seL4's own primitives first, in
    /// its log.
    #[serde(default)]
    pub baseline: bool,
    /// Counts that were accepted, relative to the repository: rows that the
    /// guest prints may exceed them by little.
    pub counts: Option<String>,
    /// The description of protection domains, relative to the repository; its
    /// `system.xml` unless given.
    pub domains: Option<String>,
    /// Archive entry to damage after its digest was taken.
    pub damage: Option<String>,
    /// Pack programs that are wrong in one place each, as `mutant-000` and so
    /// on; the first is good. See [`mutants`](crate::mutants).
    #[serde(default)]
    pub mutants: bool,
    /// Program of that package; the one with its name unless given.
    pub bin: Option<String>,
    /// Applications beside it, which it can start by name; named as `app` is.
    #[serde(default)]
    pub programs: Vec<String>,
    /// Capabilities, as `CAPS=` takes them.
    #[serde(default)]
    pub caps: String,
    /// Kernel configuration.
    #[serde(default = "default_kernel")]
    pub kernel: String,
    /// Why it says nothing about an installed kernel, if so; it then runs on
    /// bundled ones only.
    #[serde(rename = "bundled-only")]
    pub bundled_only: Option<String>,
    /// Run only on kernels with MCS.
    #[serde(default)]
    pub mcs: bool,
    /// Why it says nothing about kernels with MCS, if so.
    #[serde(rename = "not-on-mcs")]
    pub not_on_mcs: Option<String>,
    /// Count time in instructions.
    #[serde(default)]
    pub icount: bool,
    /// What the machine's clock shows at power-on, as QEMU takes it
    /// (`2031-05-06T19:08:09`); the host's time otherwise.
    pub clock: Option<String>,
    /// Log what is in use whenever only the application is left.
    #[serde(default)]
    pub debug: bool,
    /// Have the root task compare what processes hold with its books.
    #[serde(default)]
    pub audit: bool,
    /// Milliseconds between audits, besides those at boot and at the end.
    #[serde(rename = "audit-every")]
    pub audit_every: Option<u64>,
    /// What to plant before the first audit; needs a root task made for that.
    pub plant: Option<String>,
    /// Run only when asked for by name.
    #[serde(rename = "on-demand", default)]
    pub on_demand: bool,
    /// Seconds before the machine is stopped.
    #[serde(default = "default_timeout")]
    pub timeout: u64,
    /// Texts the console must show, in this order.
    #[serde(default)]
    pub console: Vec<String>,
    /// Texts the console must show, in any order.
    #[serde(default)]
    pub anywhere: Vec<String>,
    /// Texts the console must not show.
    #[serde(default)]
    pub forbidden: Vec<String>,
    /// What is typed at the terminal and awaited there, in this order; all of it
    /// must have happened before the end.
    #[serde(default)]
    pub terminal: Vec<Step>,
    /// Instead of steps: a file of lines to type, relative to the repository;
    /// see [`answers`](crate::answers).
    pub script: Option<String>,
    /// What the terminal must show from the first row to the last, as `make
    /// recording` writes it: a file relative to the repository. Any number
    /// stands for any other.
    pub recorded: Option<String>,
    /// Texts the terminal must show, in this order.
    #[serde(default)]
    pub transcript: Vec<String>,
    /// Texts the terminal must not show.
    #[serde(rename = "transcript-forbidden", default)]
    pub transcript_forbidden: Vec<String>,
    /// Texts that must appear nowhere, as they are or encoded: not on console,
    /// terminal or log.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Texts the root task's log must show, in this order.
    #[serde(default)]
    pub log: Vec<String>,
    /// `exit N`, `killed WORD` (`killed boot` if it does not start) or
    /// `timeout`.
    #[serde(deserialize_with = "deserialize_verdict")]
    pub verdict: End,
    /// Repeat lines that begin so below the result: of the console, or of the
    /// log where a test runs as the root task.
    pub show: Option<String>,
    /// Repeat lines of the log that begin so, too.
    #[serde(rename = "show-log")]
    pub show_log: Option<String>,
    /// Repeat lines of the terminal that begin so, too.
    #[serde(rename = "show-terminal")]
    pub show_terminal: Option<String>,
    /// The program in the boot archive must be the built file, to the byte.
    #[serde(default)]
    pub unchanged: bool,
}

fn default_kernel() -> String {
    "release".into()
}

fn default_timeout() -> u64 {
    60
}

fn deserialize_verdict<'de, D: serde::Deserializer<'de>>(from: D) -> Result<End, D::Error> {
    let text = String::deserialize(from)?;
    let verdict = match text.split_once(' ') {
        None if text == "timeout" => Some(End::TimedOut),
        Some(("exit", code)) => code.parse().ok().map(End::Exit),
        Some(("killed", "boot")) => Some(End::BootFailed),
        Some(("killed", word)) => Some(End::Killed(word.into())),
        _ => None,
    };
    verdict.ok_or_else(|| {
        serde::de::Error::custom(format!(
            "verdict `{text}` is none of `exit N`, `killed WORD`, `timeout`"
        ))
    })
}

/// Reads all scenarios of `directory`: by kernel, then by name.
///
/// # Errors
/// [`ScenarioError`]: the first file that is not a scenario.
pub fn read_all(directory: &Path) -> Result<Vec<Scenario>, ScenarioError> {
    let read_error = |path: &Path, source| ScenarioError::Read {
        path: path.into(),
        source,
    };
    let entries = fs::read_dir(directory).map_err(|e| read_error(directory, e))?;
    let mut scenarios = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| read_error(directory, e))?.path();
        if path.extension().is_some_and(|suffix| suffix == "toml") {
            let text = fs::read_to_string(&path).map_err(|e| read_error(&path, e))?;
            scenarios.push(parse(&path, &text)?);
        }
    }
    scenarios.sort_by(|a, b| (&a.kernel, &a.name).cmp(&(&b.kernel, &b.name)));
    Ok(scenarios)
}

fn parse(path: &Path, text: &str) -> Result<Scenario, ScenarioError> {
    let mut scenario: Scenario = toml::from_str(text).map_err(|error| ScenarioError::Parse {
        path: path.into(),
        reason: error.to_string(),
    })?;
    let subjects = [
        !scenario.app.is_empty(),
        scenario.root_task.is_some(),
        scenario.system.is_some(),
    ];
    if subjects.into_iter().filter(|&given| given).count() != 1 {
        return Err(ScenarioError::Parse {
            path: path.into(),
            reason: "give one of `app`, `system` and `root-task`".into(),
        });
    }
    if scenario.script.is_some() && !scenario.terminal.is_empty() {
        return Err(ScenarioError::Parse {
            path: path.into(),
            reason: "give one of `terminal` and `script`".into(),
        });
    }
    scenario.name = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into();
    Ok(scenario)
}

impl Scenario {
    /// What is wrong with `outcome`; empty if the scenario passed.
    pub fn complaints(&self, outcome: &Outcome) -> Vec<String> {
        let console = String::from_utf8_lossy(&outcome.console);
        let log = outcome.log.join("\n");
        let mut complaints = Vec::new();
        if outcome.end != self.verdict {
            complaints.push(format!(
                "ended with `{}`, not `{}`",
                outcome.end, self.verdict
            ));
        }
        let missing = first_missing(&console, &self.console);
        complaints.extend(missing.map(|text| format!("the console lacks {text:?}")));
        let missing = self.anywhere.iter().filter(|text| !console.contains(*text));
        complaints.extend(missing.map(|text| format!("the console lacks {text:?}")));
        let missing = first_missing(&log, &self.log);
        complaints.extend(missing.map(|text| format!("the log lacks {text:?}")));
        let shown = self.forbidden.iter().filter(|text| console.contains(*text));
        complaints.extend(shown.map(|text| format!("the console shows {text:?}")));
        let terminal = String::from_utf8_lossy(&outcome.terminal);
        complaints.extend(outcome.unfinished.clone());
        let missing = first_missing(&terminal, &self.transcript);
        complaints.extend(missing.map(|text| format!("the terminal lacks {text:?}")));
        let forbidden = self.transcript_forbidden.iter();
        let shown = forbidden.filter(|text| terminal.contains(*text));
        complaints.extend(shown.map(|text| format!("the terminal shows {text:?}")));
        for (place, output) in [
            ("console", &*console),
            ("terminal", &*terminal),
            ("log", &log),
        ] {
            let leaked = self.secrets.iter().filter(|text| {
                let mut forms = secrets::forms(text).into_iter();
                forms.any(|form| output.contains(&form))
            });
            complaints.extend(leaked.map(|text| format!("the {place} shows the secret {text:?}")));
        }
        if self.audit {
            complaints.extend(self.audit_complaints(&outcome.log));
        }
        complaints
    }

    /// Without something planted every audit must pass. With it the first must
    /// find that and nothing else, and so must the later ones for as long as it
    /// is there.
    fn audit_complaints(&self, log: &[String]) -> Vec<String> {
        let audits = match audit::read(log) {
            Ok(audits) => audits,
            Err(error) => return vec![error.to_string()],
        };
        let planted = usize::from(self.plant.is_some());
        let is_wrong = |number: usize, found: usize| match number {
            0 => found != planted,
            _ => found > planted,
        };
        let audits = audits.iter().enumerate();
        let wrong = audits.filter(|(number, audit)| is_wrong(*number, audit.deviations.len()));
        wrong
            .map(|(_, audit)| format!("{}: {:?}", audit.summary(), audit.deviations))
            .collect()
    }

    /// What to ask the root task for.
    pub fn audit_request(&self) -> Option<audit::Request> {
        self.audit.then(|| audit::Request {
            every_ms: self.audit_every,
            plant: self.plant.clone(),
        })
    }

    /// The lines to repeat below the result.
    pub fn lines_to_show(&self, outcome: &Outcome) -> Vec<String> {
        let log = outcome.log.join("\n");
        let console = String::from_utf8_lossy(&outcome.console);
        if self.root_task.is_some() {
            return lines_from(&log, &self.show);
        }
        let terminal = String::from_utf8_lossy(&outcome.terminal);
        [
            lines_from(&console, &self.show),
            lines_from(&terminal, &self.show_terminal),
            lines_from(&log, &self.show_log),
        ]
        .concat()
    }
}

/// The lines of `text` that begin with `start`, if there is one.
fn lines_from(text: &str, start: &Option<String>) -> Vec<String> {
    let Some(start) = start else {
        return Vec::new();
    };
    let wanted = text.lines().filter(|line| line.starts_with(start.as_str()));
    wanted.map(str::to_owned).collect()
}

/// The first row in which the terminal does not show what was `recorded`,
/// numbers aside.
pub fn departure(recorded: &str, shown: &str) -> Option<String> {
    let mut shown = shown.lines();
    for (index, row) in recorded.lines().enumerate() {
        let other = shown.next();
        if other.map(without_numbers) != Some(without_numbers(row)) {
            let other = other.map_or("nothing".into(), |other| format!("{other:?}"));
            return Some(format!(
                "row {}: {row:?} was recorded, {other} shown",
                index + 1
            ));
        }
    }
    let more = shown.next()?;
    Some(format!("{more:?} was shown after the last row recorded"))
}

/// `row` with `#` for each number.
fn without_numbers(row: &str) -> String {
    let mut plain = String::new();
    for letter in row.chars() {
        match letter.is_ascii_digit() {
            true if plain.ends_with('#') => {}
            true => plain.push('#'),
            false => plain.push(letter),
        }
    }
    plain
}

/// The first of `texts` that does not appear behind the ones before it.
fn first_missing<'a>(output: &str, texts: &'a [String]) -> Option<&'a String> {
    let mut rest = output;
    texts.iter().find(|text| match rest.find(text.as_str()) {
        Some(at) => {
            rest = &rest[at + text.len()..];
            false
        }
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(text: &str) -> Result<Scenario, ScenarioError> {
        parse(Path::new("tests/qemu/sample.toml"), text)
    }

    #[test]
    fn a_recording_is_compared_row_by_row_and_numbers_are_not() {
        let recorded = "login: me\nup 12 s\n";
        assert_eq!(departure(recorded, "login: me\nup 9 s\n"), None);
        for (shown, wrong) in [
            ("login: me\nup x s\n", "row 2"),
            ("login: me\nup s\n", "row 2"),
            ("login: me\n", "row 2"),
            ("login: me\nup 1 s\n$ \n", "after the last"),
            ("", "row 1"),
        ] {
            let complaint = departure(recorded, shown).expect(shown);
            assert!(complaint.contains(wrong), "{complaint}");
        }
    }

    #[test]
    fn a_scenario_has_steps_or_a_script() {
        let text = "proves = 'x'\napp = 'a'\nverdict = 'exit 0'\nscript = 's'\n";
        assert!(scenario(text).is_ok());
        let both = format!("{text}terminal = [{{ send = 'x' }}]\n");
        assert!(scenario(&both).is_err());
    }

    fn sample() -> Scenario {
        scenario(
            "proves = 'x'\napp = 'a'\nverdict = 'exit 0'\n\
             console = ['one', 'two']\nforbidden = ['three']\nlog = ['up']\n",
        )
        .unwrap()
    }

    fn outcome(end: End, console: &str) -> Outcome {
        Outcome {
            end,
            console: console.into(),
            terminal: b"$ secret".to_vec(),
            unfinished: None,
            log: vec!["root-task: up".into()],
            complaints: String::new(),
        }
    }

    #[test]
    fn the_expected_output_and_verdict_pass() {
        let good = outcome(End::Exit(0), "one\ntwo\n");
        assert_eq!(sample().complaints(&good), Vec::<String>::new());
        assert_eq!(sample().name, "sample");
    }

    #[test]
    fn the_terminal_is_held_to_what_is_said_of_it() {
        let complaints = |change: fn(&mut Scenario)| {
            let mut scenario = sample();
            change(&mut scenario);
            scenario.complaints(&outcome(End::Exit(0), "one\ntwo\n"))
        };
        assert_eq!(complaints(|s| s.transcript = vec!["$ ".into()]).len(), 0);
        assert_eq!(complaints(|s| s.transcript = vec!["# ".into()]).len(), 1);
        let forbidden = complaints(|s| s.transcript_forbidden = vec!["$ ".into()]);
        assert_eq!(forbidden.len(), 1);
        assert_eq!(complaints(|s| s.secrets = vec!["secret".into()]).len(), 1);
        assert_eq!(complaints(|s| s.secrets = vec!["t".into()]).len(), 3);
        let mut encoded = outcome(End::Exit(0), "one\ntwo\n");
        encoded.log.push("key 736563726574".into());
        let mut scenario = sample();
        scenario.secrets = vec!["secret".into()];
        let leaks = scenario.complaints(&encoded);
        assert_eq!(leaks.len(), 2, "terminal and log: {leaks:?}");
        let mut unfinished = outcome(End::Exit(0), "one\ntwo\n");
        unfinished.unfinished = Some("step 1".into());
        assert_eq!(sample().complaints(&unfinished), ["step 1"]);
    }

    #[test]
    fn right_output_without_a_verdict_fails() {
        for end in [End::TimedOut, End::Vanished("0".into()), End::Exit(1)] {
            let bad = outcome(end, "one\ntwo\n");
            assert_eq!(sample().complaints(&bad).len(), 1);
        }
    }

    #[test]
    fn missing_disordered_and_forbidden_output_fails() {
        for console in ["one\n", "two\none\n", "one\ntwo\nthree\n"] {
            let bad = outcome(End::Exit(0), console);
            assert_eq!(sample().complaints(&bad).len(), 1, "{console}");
        }
    }

    #[test]
    fn either_an_application_or_a_root_task_is_named() {
        let rest = "proves = 'x'\nverdict = 'exit 0'\n";
        assert!(scenario(rest).is_err());
        assert!(scenario(&format!("{rest}app = 'a'\nroot-task = 'b'\n")).is_err());
        let mut bare = scenario(&format!("{rest}root-task = 'b'\n")).unwrap();
        bare.show = Some("root-task:".into());
        let good = outcome(End::Exit(0), "");
        assert_eq!(bare.complaints(&good), Vec::<String>::new());
        assert_eq!(bare.lines_to_show(&good), ["root-task: up"]);
    }

    #[test]
    fn lines_of_the_log_are_shown_behind_those_of_the_console() {
        let mut both = sample();
        both.show = Some("t".into());
        both.show_log = Some("root-task: u".into());
        both.show_terminal = Some("$ s".into());
        let good = outcome(End::Exit(0), "one\ntwo\n");
        assert_eq!(
            both.lines_to_show(&good),
            ["two", "$ secret", "root-task: up"]
        );
    }

    #[test]
    fn an_unknown_field_and_a_strange_verdict_are_refused() {
        let common = "proves = 'x'\napp = 'a'\n";
        let unknown = scenario(&format!("{common}verdict = 'exit 0'\nconsol = []\n"));
        assert!(unknown.unwrap_err().to_string().contains("consol"));
        let strange = scenario(&format!("{common}verdict = 'fine'\n"));
        assert!(strange.unwrap_err().to_string().contains("`fine`"));
        assert!(scenario(common).is_err(), "a verdict is required");
    }
}
