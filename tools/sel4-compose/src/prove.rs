//! Runs scenarios and reports each as `proof NAME ok` or `proof NAME FAILED`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bench_report::Run;
use bench_report::gate::Accepted;
use sha2::{Digest, Sha256};

use crate::answers::Answers;
use crate::app::{self, SMOKE};
use crate::description::Description;
use crate::host::Tally;
use crate::image::{self, PROGRAM_DIRECTORY};
use crate::kernel::{self, Prefix, PrefixError};
use crate::mutants;
use crate::qemu::{Outcome, Output};
use crate::recording::Recording;
use crate::report;
use crate::scenario::{self, Scenario};
use crate::symbols::{SymbolTables, is_fault};
use crate::system::{self, Options, Places, Plan, System, SystemError};
use crate::terminal::{Script, Typist};

/// How many bytes of a digest are shown.
const DIGEST_BYTES_SHOWN: usize = 8;

/// Results of the last run, below the build directory.
const RESULTS: &str = "sel4test.xml";

/// Runs scenarios in one repository.
pub struct Prover<'a> {
    places: &'a Places,
    qemu: PathBuf,
    /// An installed seL4 that stands in for every bundled one.
    installed: Option<Prefix>,
    /// A root task that is built already.
    root_task: Option<PathBuf>,
    /// Prefix and root task of the last kernel; a root task is overwritten by
    /// the next one, so only the last is good.
    current: Option<(String, Prefix, PathBuf)>,
}

/// A scenario that was run.
struct Proof {
    complaints: Vec<String>,
    remarks: Vec<String>,
    outcome: Option<Outcome>,
    faults: Vec<String>,
}

impl<'a> Prover<'a> {
    /// A prover that runs guests with `qemu`, all of them on `installed` if
    /// there is one, under `root_task` if there is one.
    pub fn new(
        places: &'a Places,
        qemu: PathBuf,
        installed: Option<Prefix>,
        root_task: Option<PathBuf>,
    ) -> Self {
        Self {
            places,
            qemu,
            installed,
            root_task,
            current: None,
        }
    }

    /// Runs `scenarios` one after the other and prints the results.
    pub fn run(&mut self, scenarios: &[Scenario]) -> Tally {
        let mut tally = Tally::default();
        let mut proofs = Vec::new();
        for scenario in scenarios {
            if let Some(reason) = self.does_not_apply(scenario) {
                println!("proof {} skipped ({reason})", scenario.name);
                tally.skipped += 1;
                continue;
            }
            let proof = self.prove(scenario).unwrap_or_else(|error| Proof {
                complaints: vec![error],
                remarks: Vec::new(),
                outcome: None,
                faults: Vec::new(),
            });
            print(scenario, &proof);
            tally.count(proof.complaints.is_empty());
            proofs.push((scenario.name.clone(), proof.complaints));
        }
        self.record(&proofs);
        tally
    }

    /// Leaves the results for programs that read sel4test's.
    fn record(&self, proofs: &[(String, Vec<String>)]) {
        let path = self.places.build.join(RESULTS);
        if let Err(error) = std::fs::write(&path, bench_report::xml::suite(proofs)) {
            eprintln!("{}: {error}", path.display());
        }
    }

    /// Why a scenario would say nothing about this kernel, if so. Bundled
    /// kernels have no MCS.
    fn does_not_apply(&self, scenario: &Scenario) -> Option<String> {
        let installed = self.installed.as_ref();
        if scenario.mcs && !installed.is_some_and(Prefix::is_mcs) {
            return Some("needs a kernel with MCS".into());
        }
        let prefix = installed?;
        if scenario.unchanged && prefix.needs_gate() {
            return Some(format!("needs KERNEL={}", scenario.kernel));
        }
        if let Some(reason) = scenario.not_on_mcs.as_ref().filter(|_| prefix.is_mcs()) {
            return Some(format!("not with MCS: {reason}"));
        }
        let reason = scenario.bundled_only.as_ref()?;
        Some(format!("bundled kernels only: {reason}"))
    }

    fn prove(&mut self, scenario: &Scenario) -> Result<Proof, String> {
        if let Some(package) = &scenario.root_task {
            return self.prove_bare(scenario, package);
        }
        let mut system = self.prepare(scenario)?;
        system.machine.clock = scenario.clock.clone();
        let symbols = SymbolTables::of(&system.programs);
        let mut faults = Vec::new();
        let timeout = Duration::from_secs(scenario.timeout);
        let mut typist = self.typist(scenario)?;
        let outcome = system
            .machine
            .run(Some(timeout), Some(&mut *typist), &mut |output| {
                if let Output::Log(line) = output
                    && is_fault(line)
                {
                    faults.push(line.to_owned());
                    let places = symbols.explain(line);
                    let places = places.into_iter();
                    faults.extend(places.map(|place| format!("  in {place}")));
                }
            })
            .map_err(|error| error.to_string())?;
        let mut complaints = scenario.complaints(&outcome);
        if let Some(file) = &scenario.recorded {
            let shown = Recording::of(&outcome.terminal).text();
            complaints.extend(scenario::departure(&self.read(file)?, &shown));
        }
        if let Some(counts) = &scenario.counts {
            let run = self.rows(scenario, &outcome);
            complaints.extend(self.accepted(counts)?.complaints(&run));
        }
        let mut remarks = scenario.lines_to_show(&outcome);
        complaints.extend(folder_named(self.places, &system));
        if scenario.unchanged {
            match unchanged(&system) {
                Ok(remark) => remarks.push(remark),
                Err(complaint) => complaints.push(complaint),
            }
        }
        Ok(Proof {
            complaints,
            remarks,
            outcome: Some(outcome),
            faults,
        })
    }

    /// Who types at the terminal.
    fn typist(&self, scenario: &Scenario) -> Result<Box<dyn Typist>, String> {
        let Some(file) = &scenario.script else {
            return Ok(Box::new(Script::new(&scenario.terminal)));
        };
        let answers = Answers::parse(&self.read(file)?);
        Ok(Box::new(
            answers.map_err(|error| format!("{file}: {error}"))?,
        ))
    }

    /// A text file of the repository.
    fn read(&self, file: &str) -> Result<String, String> {
        let text = std::fs::read_to_string(self.places.root.join(file));
        text.map_err(|error| format!("{file}: {error}"))
    }

    /// Runs a measuring scenario; its rows, or what went wrong.
    ///
    /// # Errors
    /// The complaints; growth of counts is none of them.
    pub fn measure(&mut self, scenario: &Scenario) -> Result<Run, Vec<String>> {
        let unjudged = Scenario {
            counts: None,
            ..scenario.clone()
        };
        let proof = self.prove(&unjudged).map_err(|error| vec![error])?;
        match proof.outcome {
            Some(outcome) if proof.complaints.is_empty() => Ok(self.rows(scenario, &outcome)),
            _ => Err(proof.complaints),
        }
    }

    /// What a guest measured, of its log first: that is the kernel's.
    fn rows(&self, scenario: &Scenario, outcome: &Outcome) -> Run {
        let console = String::from_utf8_lossy(&outcome.console);
        let log = outcome.log.iter().map(String::as_str);
        let current = self.current.as_ref();
        let kernel = current.map_or_else(String::new, |(_, prefix, _)| prefix.label());
        Run::new(&kernel, &scenario.name, log.chain(console.lines()))
    }

    fn accepted(&self, counts: &str) -> Result<Accepted, String> {
        let path = self.places.root.join(counts);
        let refuse = |reason: String| format!("{}: {reason}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| refuse(error.to_string()))?;
        Accepted::parse(&text).map_err(refuse)
    }

    /// Runs a test that is the root task itself.
    fn prove_bare(&mut self, scenario: &Scenario, package: &str) -> Result<Proof, String> {
        let prefix = match &self.installed {
            Some(prefix) => prefix.clone(),
            None => bundled(self.places, &scenario.kernel).map_err(|error| error.to_string())?,
        };
        let program = (package, scenario.bin.as_deref().unwrap_or(package));
        let timeout = Duration::from_secs(scenario.timeout);
        let outcome =
            system::prepare_bare(self.places, &prefix, program, &self.qemu, scenario.icount)
                .map_err(|error| error.to_string())
                .and_then(|system| {
                    let outcome = system.machine.run(Some(timeout), None, &mut |_| {});
                    outcome.map_err(|error| error.to_string())
                })?;
        Ok(Proof {
            complaints: scenario.complaints(&outcome),
            remarks: scenario.lines_to_show(&outcome),
            outcome: Some(outcome),
            faults: Vec::new(),
        })
    }

    fn prepare(&mut self, scenario: &Scenario) -> Result<System, String> {
        let (_, prefix, root_task) = match self.current.take() {
            Some(current) if current.0 == scenario.kernel => self.current.insert(current),
            _ => {
                let made = self
                    .make_kernel(&scenario.kernel)
                    .map_err(|e| e.to_string())?;
                self.current.insert(made)
            }
        };
        let feature = [
            scenario.baseline.then_some(system::BASELINE),
            scenario.plant.as_ref().map(|_| system::PLANT),
        ];
        let feature = feature.into_iter().flatten().next();
        let root_task = match feature.filter(|_| self.root_task.is_none()) {
            Some(feature) => system::build_root_task_with(self.places, prefix, feature)
                .map_err(|error| error.to_string())?,
            None => root_task.clone(),
        };
        let options = Options {
            root_task: Some(root_task),
            qemu: self.qemu.clone(),
            icount: scenario.icount,
            quiet: true,
            files: mutants_of(scenario),
            damage: scenario.damage.clone(),
            domains: scenario
                .domains
                .as_ref()
                .map(|file| self.places.root.join(file)),
            audit: scenario.audit_request(),
        };
        if let Some(file) = &scenario.system {
            let file = self.places.root.join(file);
            let description = Description::read(&file, None).map_err(|e| e.to_string())?;
            let composed = system::compose(self.places, prefix, &description, &options);
            return composed.map_err(|error| error.to_string());
        }
        let plan = plan_of(&self.places.root, scenario, options)?;
        system::prepare(self.places, prefix, &plan).map_err(|error| error.to_string())
    }

    fn make_kernel(&self, name: &str) -> Result<(String, Prefix, PathBuf), SystemError> {
        let prefix = match &self.installed {
            Some(prefix) => prefix.clone(),
            None => bundled(self.places, name)?,
        };
        let root_task = match &self.root_task {
            Some(path) => path.clone(),
            None => system::build_root_task(self.places, &prefix)?,
        };
        Ok((name.into(), prefix, root_task))
    }
}

/// What a scenario that names an application asks for.
fn plan_of(root: &Path, scenario: &Scenario, options: Options) -> Result<Plan, String> {
    let locate = |app: &String| match app.as_str() {
        SMOKE => SMOKE.to_owned(),
        path => root.join(path).display().to_string(),
    };
    Ok(Plan {
        app: locate(&scenario.app),
        binary: None,
        programs: scenario.programs.iter().map(locate).collect(),
        grants: image::parse_grants(&scenario.caps).map_err(|error| error.to_string())?,
        memory_mib: system::MEMORY_MIB,
        debug: scenario.debug,
        options,
    })
}

/// The wrong programs a scenario asks for.
fn mutants_of(scenario: &Scenario) -> Vec<(String, Vec<u8>)> {
    if !scenario.mutants {
        return Vec::new();
    }
    let files = mutants::elf().into_iter().enumerate();
    files
        .map(|(index, file)| (format!("mutant-{index:03}"), file))
        .collect()
}

fn bundled(places: &Places, name: &str) -> Result<Prefix, PrefixError> {
    kernel::bundled(&places.root, &places.build, name)
}

/// A complaint if image or kernel name a folder of this machine.
fn folder_named(places: &Places, system: &System) -> Option<String> {
    let folders = app::folders_of_this_machine(&places.root);
    [&system.machine.image, &system.machine.kernel]
        .into_iter()
        .find_map(|path| {
            let bytes = std::fs::read(path).ok()?;
            let folder = image::names_folder(&bytes, &folders)?;
            let file = path.file_name().unwrap_or_default().display();
            Some(format!("{file} names {}", folder.display()))
        })
}

/// Whether the archive of the image that ran holds the built program.
fn unchanged(system: &System) -> Result<String, String> {
    let digest = |bytes: &[u8]| Sha256::digest(bytes).to_vec();
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let image = read(&system.machine.image)?;
    let name = format!("{PROGRAM_DIRECTORY}/{}", system.programs[0].name);
    let packed = image::find_entry(&image, &name).ok_or(format!("the image has no {name}"))?;
    let (built, packed) = (digest(&read(&system.programs[0].elf)?), digest(packed));
    if built != packed {
        return Err(format!(
            "the program in the image is not the built one: sha256 {} against {}",
            hexadecimal(&packed),
            hexadecimal(&built)
        ));
    }
    let start = hexadecimal(&built[..DIGEST_BYTES_SHOWN]);
    Ok(format!("program unchanged, sha256 {start}..."))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn print(scenario: &Scenario, proof: &Proof) {
    if proof.complaints.is_empty() {
        println!("proof {} ok", scenario.name);
        for remark in &proof.remarks {
            println!("    {remark}");
        }
        return;
    }
    println!("proof {} FAILED ({})", scenario.name, scenario.proves);
    for complaint in &proof.complaints {
        println!("    {complaint}");
    }
    let last = proof.outcome.as_ref().map(report::last_lines);
    for line in proof.faults.iter().chain(last.iter().flatten()) {
        println!("    {line}");
    }
}

/// Those of `scenarios` that `names` asks for; all but those that want to be
/// asked for if it asks for none.
///
/// # Errors
/// The first name there is no scenario for.
pub fn select(scenarios: Vec<Scenario>, names: &[String]) -> Result<Vec<Scenario>, String> {
    let known: BTreeMap<&str, &Scenario> = scenarios.iter().map(|s| (s.name.as_str(), s)).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains_key(name.as_str())) {
        let all: Vec<&str> = known.into_keys().collect();
        return Err(format!(
            "there is no scenario `{unknown}`; there are {}",
            all.join(", ")
        ));
    }
    let wanted = |scenario: &Scenario| match names {
        [] => !scenario.on_demand,
        names => names.contains(&scenario.name),
    };
    Ok(scenarios.into_iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_on_demand_runs_only_when_named() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/qemu");
        let all = scenario::read_all(&directory).expect("the scenarios can be read");
        let names = |chosen: Vec<Scenario>| -> Vec<String> {
            chosen.into_iter().map(|scenario| scenario.name).collect()
        };
        let usual = names(select(all.clone(), &[]).expect("all"));
        assert!(usual.contains(&"soak-bounded".into()));
        assert!(!usual.contains(&"soak".into()));
        let named = names(select(all, &["soak".into()]).expect("it exists"));
        assert_eq!(named, ["soak"]);
    }
}
