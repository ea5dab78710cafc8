//! What is fuzzed, as plain functions of bytes.
//!
//! Each target interprets any input, never refuses one for its form, and
//! panics when a property is broken. Two drivers run them: libFuzzer
//! (`tests/fuzz`, `make fuzz-smoke`), and the test `corpus` of this crate,
//! which replays the committed corpus and mutations of it on the stable
//! toolchain.

mod elf;
mod gate;
mod input;
mod manifest;
mod params;
mod ring;
mod transfer;
mod world;

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of the libFuzzer program and of the corpus directory.
    pub name: &'static str,
    /// Runs it on one input.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "ring",
        run: ring::run,
    },
    Target {
        name: "transfer",
        run: transfer::run,
    },
    Target {
        name: "params",
        run: params::run,
    },
    Target {
        name: "elf",
        run: elf::run,
    },
    Target {
        name: "manifest",
        run: manifest::run,
    },
    Target {
        name: "gate",
        run: gate::run,
    },
];

/// Runs the target called `name`.
///
/// # Panics
/// If there is none, or the input breaks a property.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of that name").run)(data);
}
