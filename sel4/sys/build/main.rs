//! Generates the raw bindings from the kernel prefix named by `SEL4_PREFIX`.
//!
//! Nothing here knows a number. Three sources are read, and each answers one
//! kind of question:
//!
//! - `gen_config.json`: how the kernel was configured (becomes `config` and
//!   the `sel4_config` cfgs).
//! - the interface XML: which methods exist and in which order their
//!   arguments travel (becomes one function per method).
//! - the C headers, asked through the C compiler: every value, size and
//!   offset (becomes `constants`, layouts and bitfields).
//!
//! The XML states conditions as C preprocessor expressions or as elements;
//! both are handed to the C compiler too, so there is one judge of what this
//! kernel has.
//!
//! Dependents receive the cfgs through `DEP_SEL4_RAW_CFGS`, a file with one
//! `cfg` specification per line.

mod config;
mod emit;
mod headers;
mod interfaces;
mod marshalling;
mod prefix;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::{env, fs, process};

/// What makes generation impossible, phrased for the person who runs Cargo.
pub struct Failure(String);

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

fn main() {
    if let Err(Failure(message)) = run() {
        // Cargo shows one `error:` per line and nothing of a panic.
        for line in message.lines() {
            println!("cargo::error={line}");
        }
        process::exit(1);
    }
}

fn run() -> Result<(), Failure> {
    println!("cargo::rerun-if-env-changed=SEL4_PREFIX");
    println!("cargo::rerun-if-env-changed=CC_x86_64_unknown_linux_gnu");
    println!("cargo::rerun-if-changed=build");

    let prefix = prefix::Prefix::locate()?;
    println!("cargo::rerun-if-changed={}", prefix.include.display());
    let config = config::Config::read(&prefix)?;
    let interfaces = interfaces::Interfaces::read(&prefix)?;
    let headers = headers::Headers::read(&prefix)?;
    let facts = headers.ask(&interfaces)?;

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR"));
    write(&out.join("config.rs"), &emit::config(&config))?;
    write(&out.join("constants.rs"), &emit::constants(&facts))?;
    write(&out.join("types.rs"), &emit::types(&facts, &interfaces)?)?;
    write(
        &out.join("invocations.rs"),
        &emit::invocations(&facts, &interfaces)?,
    )?;
    write(
        &out.join("marshalling.rs"),
        &marshalling::rust(&facts, &interfaces),
    )?;
    write(
        &out.join("marshalling.c"),
        &marshalling::c(&facts, &interfaces),
    )?;
    println!(
        "cargo::rustc-env=SEL4_RAW_INCLUDE={}",
        prefix.include.display()
    );

    let cfgs = cfgs(&config, &facts, &interfaces)?;
    let cfg_file = out.join("cfgs");
    write(&cfg_file, &cfgs.join("\n"))?;
    println!("cargo::metadata=cfgs={}", cfg_file.display());
    println!("cargo::metadata=prefix={}", prefix.root.display());
    for cfg in &cfgs {
        println!("cargo::rustc-cfg={cfg}");
    }
    println!("cargo::rustc-check-cfg=cfg(sel4_config, values(any()))");
    println!("cargo::rustc-check-cfg=cfg(sel4_has, values(any()))");
    println!("cargo::rustc-check-cfg=cfg(sel4_entry, values(\"syscall\", \"sysenter\"))");
    Ok(())
}

/// The cfgs: configuration options that are on, how the kernel is entered, and
/// which of the names in [`emit::FEATURES`] this kernel has.
fn cfgs(
    config: &config::Config,
    facts: &headers::Facts,
    interfaces: &interfaces::Interfaces,
) -> Result<Vec<String>, Failure> {
    let mut cfgs = BTreeSet::new();
    for option in config.enabled() {
        cfgs.insert(format!("sel4_config=\"{option}\""));
    }
    cfgs.insert(format!("sel4_entry=\"{}\"", config.entry()?));
    for feature in emit::features(facts, interfaces) {
        cfgs.insert(format!("sel4_has=\"{feature}\""));
    }
    Ok(cfgs.into_iter().collect())
}

fn write(path: &std::path::Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}
