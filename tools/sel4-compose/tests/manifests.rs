//! Descriptions that must be refused, each with the words it is refused with.
//!
//! `tests/fixtures/manifests/NAME.toml` (or `.json`) is refused with the
//! contents of `NAME.expected`. With `SEL4_COMPOSE_BLESS` in the environment
//! the expected texts are written instead; read them before committing.

use std::fs;
use std::path::{Path, PathBuf};

use sel4_compose::description::{self, Description, DescriptionError, located, sources};

/// Fixtures there are to be at least.
const FIXTURES_MIN: usize = 40;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/manifests")
}

/// Every bad description, by name.
fn fixtures() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_fixture = |path: &PathBuf| {
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        matches!(suffix, Some("toml" | "json"))
    };
    let mut fixtures: Vec<PathBuf> = paths.filter(is_fixture).collect();
    fixtures.sort();
    fixtures
}

/// The refusal of a description.
fn refusal(path: &Path) -> Option<String> {
    let error = Description::read(path, None).err()?;
    let DescriptionError::Refused(refusal) = error else {
        panic!("{}: {error}", path.display());
    };
    for complaint in &refusal.complaints {
        assert!(
            !complaint.what.is_empty() && !complaint.advice.is_empty(),
            "{complaint:?}"
        );
    }
    Some(stable(&refusal.to_string()) + "\n")
}

/// Without what may change: the folder the description lies in, the list of
/// kernel sources, how much memory is missing.
fn stable(text: &str) -> String {
    let folder = folder().display().to_string();
    let served = located::listed(&sources::served());
    let text = text.replace(&format!("{folder}/"), "");
    let text = text.replace(&folder, ".").replace(&served, "SERVED");
    match text.split_once("short of ") {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}short of SOME{rest}")
        }
        None => text,
    }
}

#[test]
fn every_bad_description_is_refused_with_its_place_and_advice() {
    let bless = std::env::var_os("SEL4_COMPOSE_BLESS").is_some();
    let fixtures = fixtures();
    assert!(
        fixtures.len() >= FIXTURES_MIN,
        "{} fixtures",
        fixtures.len()
    );
    let mut wrong = Vec::new();
    for path in &fixtures {
        let shown = refusal(path).unwrap_or_else(|| format!("{} is accepted", path.display()));
        let sidecar = path.with_extension("expected");
        if bless {
            fs::write(&sidecar, &shown).unwrap();
        }
        let expected = fs::read_to_string(&sidecar).unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !shown.starts_with(&format!("{name}:")) || shown != expected {
            wrong.push(format!(
                "{name}\n--- expected\n{expected}--- shown\n{shown}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_systems_of_the_repository_are_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let entries = fs::read_dir(root.join("tests/systems")).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let mut systems: Vec<PathBuf> = files.filter(|path| path.is_file()).collect();
    systems.push(root.join("system.toml"));
    for system in systems {
        let accepted = Description::read(&system, None);
        accepted
            .unwrap_or_else(|error| panic!("{error}"))
            .encode()
            .unwrap();
    }
}

/// The same system as upstream would write it and as this project does.
#[test]
fn a_manifest_and_a_system_that_say_the_same_are_the_same() {
    let toml = r#"
        [programs]
        server = "server"
        client = "client"

        [[services]]
        name = "server"
        caps = { console = "console", calls = "endpoint" }
        exports = ["calls"]

        [[services]]
        name = "client"
        restart = "never"

        [services.caps]
        server = { service = "server", export = "calls", badge = 7, interface = "StdIO" }

        [kernelParams]
        motd = "hello"
    "#;
    let json = r#"{
        "schemaVersion": 1,
        "binaries": [{"name": "server"}, {"name": "client"}],
        "initConfig": {
            "init": {"binary": "init", "caps": [
                {"name": "console", "source": {"kernel": "console"}},
                {"name": "boot_package", "source": {"kernel": "boot_package"}},
                {"name": "process_spawner", "source": {"kernel": "process_spawner"}}
            ]},
            "services": [
                {"name": "server", "binary": "server", "exports": ["calls"], "caps": [
                    {"name": "console", "source": {"kernel": "console"}},
                    {"name": "calls", "source": {"kernel": "endpoint"}}
                ]},
                {"name": "client", "binary": "client", "restart": "never", "caps": [
                    {"name": "server", "badge": 7, "expectedInterfaceId": STDIO, "source":
                        {"service": {"service": "server", "export": "calls"}}}
                ]}
            ]
        },
        "kernelParams": {"motd": "hello"}
    }"#;
    let json = json.replace("STDIO", &capos_config::STDIO_INTERFACE_ID.to_string());
    let toml = Description::parse(Path::new("a.toml"), toml).unwrap();
    let json = Description::parse(Path::new("a.json"), &json).unwrap();
    assert_eq!(toml.plan, json.plan);
    assert_eq!(toml.plan.services[1].caps[0].badge, 7);
}

#[test]
fn the_reference_is_not_stale() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/system.md");
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == description::tables(),
        "docs/reference/system.md is stale: run `make reference`"
    );
}

/// The examples of the guide are descriptions that are accepted.
#[test]
fn the_examples_of_the_guide_are_accepted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/system.md");
    let guide = fs::read_to_string(path).unwrap();
    let examples: Vec<&str> = guide
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!examples.is_empty());
    for example in examples {
        let accepted = Description::parse(Path::new("docs/system.toml"), example);
        accepted.unwrap_or_else(|refusal| panic!("{refusal}"));
    }
}
