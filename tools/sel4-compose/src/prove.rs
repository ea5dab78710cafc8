//! Runs scenarios and reports each as `proof NAME ok` or `proof NAME FAILED`.

use std::any::Any;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

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
use crate::qemu::{Machine, Outcome, Output};
use crate::recording::Recording;
use crate::report;
use crate::scenario::{self, Scenario};
use crate::symbols::{SymbolTables, is_fault};
use crate::system::{self, Options, Places, Plan, System, SystemError, Workshop};
use crate::terminal::{Script, Typist};

/// How many bytes of a digest are shown.
const DIGEST_BYTES_SHOWN: usize = 8;

/// Results of the last run, below the build directory.
const RESULTS: &str = "sel4test.xml";

/// Runs scenarios in one repository.
pub struct Prover<'a> {
    places: &'a Places,
    workshop: Workshop<'a>,
    qemu: PathBuf,
    /// An installed seL4 that stands in for every bundled one.
    installed: Option<Prefix>,
    /// A root task that is built already.
    root_task: Option<PathBuf>,
    /// The last kernel and what was built for it; the next one's takes its
    /// place, so only the last is good.
    current: Option<Current>,
}

/// A kernel and the root tasks built for it.
struct Current {
    name: String,
    prefix: Prefix,
    root_task: PathBuf,
    /// Those with a Cargo feature, by its name.
    variants: BTreeMap<&'static str, PathBuf>,
}

/// A scenario whose machine is ready to run.
struct Ready {
    machine: Machine,
    typist: Option<Box<dyn Typist>>,
    symbols: SymbolTables,
    /// What the terminal must show.
    recorded: Option<String>,
    /// Counts that the guest's may exceed by little.
    accepted: Option<Accepted>,
    kernel: String,
    complaints: Vec<String>,
    remarks: Vec<String>,
    /// What keeps the machine's files.
    _files: Box<dyn Any>,
}

/// A scenario that was run.
#[derive(Default)]
struct Proof {
    complaints: Vec<String>,
    remarks: Vec<String>,
    outcome: Option<Outcome>,
    faults: Vec<String>,
    /// How long the machine ran, if it did.
    took: Option<Duration>,
}

/// What the threads that run scenarios share.
struct Desk<'p, 'a, 's> {
    prover: &'p mut Prover<'a>,
    waiting: std::iter::Enumerate<std::slice::Iter<'s, Scenario>>,
    tally: Tally,
    proofs: BTreeMap<usize, (String, Vec<String>)>,
}

impl Desk<'_, '_, '_> {
    fn note(&mut self, index: usize, scenario: &Scenario, proof: Proof) {
        let report = report_of(scenario, &proof);
        print!("{report}");
        self.tally.count(match proof.complaints.is_empty() {
            true => Ok(()),
            false => Err(&report),
        });
        let result = (scenario.name.clone(), proof.complaints);
        self.proofs.insert(index, result);
    }
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
            workshop: Workshop::new(places, true),
            qemu,
            installed,
            root_task,
            current: None,
        }
    }

    /// Runs `scenarios`, at most `jobs` at a time, and prints each result as it
    /// comes. Systems are built one at a time, beside the machines that run.
    pub fn run(&mut self, scenarios: &[Scenario], jobs: NonZero<usize>) -> Tally {
        let desk = Mutex::new(Desk {
            prover: self,
            waiting: scenarios.iter().enumerate(),
            tally: Tally::default(),
            proofs: BTreeMap::new(),
        });
        thread::scope(|scope| {
            for _ in 0..jobs.get() {
                scope.spawn(|| work(&desk));
            }
        });
        let desk = desk.into_inner().expect("no thread panicked");
        let proofs: Vec<_> = desk.proofs.into_values().collect();
        desk.prover.record(&proofs);
        desk.tally
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
        if let Some(reason) = &scenario.bundled_only {
            return Some(format!("bundled kernels only: {reason}"));
        }
        let pace = prefix.pace(scenario.icount);
        pace.err().map(|error| error.to_string())
    }

    /// Builds what a scenario needs.
    fn ready(&mut self, scenario: &Scenario) -> Result<Ready, String> {
        if let Some(package) = &scenario.root_task {
            return self.ready_bare(scenario, package);
        }
        let mut system = self.prepare(scenario)?;
        system.machine.clock = scenario.clock.clone();
        let recorded = scenario.recorded.as_ref().map(|file| self.read(file));
        let accepted = scenario.counts.as_ref().map(|file| self.accepted(file));
        let mut ready = Ready {
            machine: system.machine.clone(),
            typist: Some(self.typist(scenario)?),
            symbols: SymbolTables::of(&system.programs),
            recorded: recorded.transpose()?,
            accepted: accepted.transpose()?,
            kernel: self.label(),
            complaints: folder_named(self.places, &system).into_iter().collect(),
            remarks: Vec::new(),
            _files: Box::new(()),
        };
        if scenario.unchanged {
            match unchanged(&system) {
                Ok(remark) => ready.remarks.push(remark),
                Err(complaint) => ready.complaints.push(complaint),
            }
        }
        ready._files = Box::new(system);
        Ok(ready)
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
        let ready = self.ready(&unjudged).map_err(|error| vec![error])?;
        let kernel = ready.kernel.clone();
        let proof = ready.conduct(&unjudged).unwrap_or_else(failed);
        match proof.outcome {
            Some(outcome) if proof.complaints.is_empty() => Ok(rows(&kernel, scenario, &outcome)),
            _ => Err(proof.complaints),
        }
    }

    /// How results on the present kernel are labelled.
    fn label(&self) -> String {
        let current = self.current.as_ref();
        current.map_or_else(String::new, |current| current.prefix.label())
    }

    fn accepted(&self, counts: &str) -> Result<Accepted, String> {
        let path = self.places.root.join(counts);
        let refuse = |reason: String| format!("{}: {reason}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| refuse(error.to_string()))?;
        Accepted::parse(&text).map_err(refuse)
    }

    /// Builds a test that is the root task itself.
    fn ready_bare(&mut self, scenario: &Scenario, package: &str) -> Result<Ready, String> {
        let prefix = match &self.installed {
            Some(prefix) => prefix.clone(),
            None => bundled(self.places, &scenario.kernel).map_err(|error| error.to_string())?,
        };
        let program = (package, scenario.bin.as_deref().unwrap_or(package));
        let system =
            system::prepare_bare(self.places, &prefix, program, &self.qemu, scenario.icount)
                .map_err(|error| error.to_string())?;
        Ok(Ready {
            machine: system.machine.clone(),
            typist: None,
            symbols: SymbolTables::of(&[]),
            recorded: None,
            accepted: None,
            kernel: prefix.label(),
            complaints: Vec::new(),
            remarks: Vec::new(),
            _files: Box::new(system),
        })
    }

    fn prepare(&mut self, scenario: &Scenario) -> Result<System, String> {
        let feature = [
            scenario.baseline.then_some(system::BASELINE),
            scenario.plant.as_ref().map(|_| system::PLANT),
        ];
        let feature = feature.into_iter().flatten().next();
        let (prefix, root_task) = self
            .kernel(&scenario.kernel, feature)
            .map_err(|error| error.to_string())?;
        let options = Options {
            root_task: Some(root_task),
            qemu: self.qemu.clone(),
            icount: scenario.icount,
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
            let composed = self.workshop.compose(&prefix, &description, &options);
            return composed.map_err(|error| error.to_string());
        }
        let plan = plan_of(&self.places.root, scenario, options)?;
        let prepared = self.workshop.prepare(&prefix, &plan);
        prepared.map_err(|error| error.to_string())
    }

    /// The kernel called `name` and the root task for it, with a Cargo feature
    /// if one is named.
    fn kernel(
        &mut self,
        name: &str,
        feature: Option<&'static str>,
    ) -> Result<(Prefix, PathBuf), SystemError> {
        let current = match self.current.take() {
            Some(current) if current.name == name => self.current.insert(current),
            _ => {
                let made = self.make_kernel(name)?;
                self.current.insert(made)
            }
        };
        let prefix = current.prefix.clone();
        let Some(feature) = feature.filter(|_| self.root_task.is_none()) else {
            return Ok((prefix, current.root_task.clone()));
        };
        if let Some(variant) = current.variants.get(feature) {
            return Ok((prefix, variant.clone()));
        }
        let built = system::build_root_task_with(self.places, &prefix, feature)?;
        current.variants.insert(feature, built.clone());
        Ok((prefix, built))
    }

    fn make_kernel(&self, name: &str) -> Result<Current, SystemError> {
        let prefix = match &self.installed {
            Some(prefix) => prefix.clone(),
            None => bundled(self.places, name)?,
        };
        let root_task = match &self.root_task {
            Some(path) => path.clone(),
            None => system::build_root_task(self.places, &prefix)?,
        };
        Ok(Current {
            name: name.into(),
            prefix,
            root_task,
            variants: BTreeMap::new(),
        })
    }
}

/// Runs what waits at the desk until nothing does.
fn work(desk: &Mutex<Desk<'_, '_, '_>>) {
    let desk = || desk.lock().expect("no thread panicked");
    loop {
        let mut at_desk = desk();
        let Some((index, scenario)) = at_desk.waiting.next() else {
            return;
        };
        if let Some(reason) = at_desk.prover.does_not_apply(scenario) {
            println!("proof {} skipped ({reason})", scenario.name);
            at_desk.tally.skipped += 1;
            continue;
        }
        let ready = at_desk.prover.ready(scenario);
        drop(at_desk);
        let proof = ready.and_then(|ready| ready.conduct(scenario));
        desk().note(index, scenario, proof.unwrap_or_else(failed));
    }
}

impl Ready {
    /// Runs the machine and judges.
    fn conduct(mut self, scenario: &Scenario) -> Result<Proof, String> {
        let timeout = Some(Duration::from_secs(scenario.timeout));
        let typist = self.typist.as_mut();
        let typist = typist.map(|typist| &mut **typist as &mut dyn Typist);
        let mut faults = Vec::new();
        let mut observe = |output: Output<'_>| {
            if let Output::Log(line) = output
                && is_fault(line)
            {
                faults.push(line.to_owned());
                let places = self.symbols.explain(line).into_iter();
                faults.extend(places.map(|place| format!("  in {place}")));
            }
        };
        let started = Instant::now();
        let outcome = self.machine.run(timeout, typist, &mut observe);
        let took = Some(started.elapsed());
        let outcome = outcome.map_err(|error| error.to_string())?;
        let mut complaints = scenario.complaints(&outcome);
        if let Some(recorded) = &self.recorded {
            let shown = Recording::of(&outcome.terminal).text();
            complaints.extend(scenario::departure(recorded, &shown));
        }
        if let Some(accepted) = &self.accepted {
            let run = rows(&self.kernel, scenario, &outcome);
            complaints.extend(accepted.complaints(&run));
        }
        complaints.extend(self.complaints);
        let mut remarks = scenario.lines_to_show(&outcome);
        remarks.extend(self.remarks);
        Ok(Proof {
            complaints,
            remarks,
            outcome: Some(outcome),
            faults,
            took,
        })
    }
}

fn failed(error: String) -> Proof {
    Proof {
        complaints: vec![error],
        ..Proof::default()
    }
}

/// What a guest measured, of its log first: that is the kernel's.
fn rows(kernel: &str, scenario: &Scenario, outcome: &Outcome) -> Run {
    let console = String::from_utf8_lossy(&outcome.console);
    let log = outcome.log.iter().map(String::as_str);
    Run::new(kernel, &scenario.name, log.chain(console.lines()))
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

/// What is printed of a proof: lines with their ends.
fn report_of(scenario: &Scenario, proof: &Proof) -> String {
    let name = &scenario.name;
    let took = proof
        .took
        .map(|took| format!(" [{:.1} s]", took.as_secs_f64()));
    let took = took.unwrap_or_default();
    let (headline, details) = if proof.complaints.is_empty() {
        (format!("proof {name} ok{took}"), proof.remarks.clone())
    } else {
        let last = proof.outcome.as_ref().map(report::last_lines);
        let details = [&proof.complaints, &proof.faults].into_iter().flatten();
        let details = details.cloned().chain(last.into_iter().flatten()).collect();
        (
            format!("proof {name} FAILED{took} ({})", scenario.proves),
            details,
        )
    };
    let details = details.iter().map(|line| format!("    {line}\n"));
    std::iter::once(headline + "\n").chain(details).collect()
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

    /// The storm of 10 MB is about the system people boot.
    #[test]
    fn the_system_of_the_storm_is_the_default_one_with_longer_sessions() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let lines = |file: &str| -> Vec<String> {
            let text = std::fs::read_to_string(root.join(file)).expect("the file is there");
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let lines = lines.map(|line| line.replace("\"../../services/", "\"services/"));
            lines.filter(|line| !line.is_empty()).collect()
        };
        let mut storm = lines("tests/systems/login-storm-10mb.toml");
        let longer = storm.pop().expect("a last line");
        assert!(longer.starts_with("sessionLifetimes"), "{longer}");
        assert_eq!(storm, lines("system.toml"));
    }
}
