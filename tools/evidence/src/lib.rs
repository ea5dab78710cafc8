//! Evidence about the capability core: what the code does, as tables, and what
//! would notice if it did something else.
//!
//! | module | gives |
//! |---|---|
//! | [`reference`] | `docs/reference/abi.md`, from probes of the real dispatcher |
//! | [`invariants`] | the labelled invariants and what checks each |
//! | [`mutants`] | deliberate rule breaks and the tests that catch them |
//! | [`coverage`] | line coverage of the core under its tests |
//! | [`fuzzing`] | bounded runs of the fuzzers |
//! | [`claims`] | what we say, and the command that shows it |
//! | [`wording`] | sentences that say more than was shown |
//! | [`trusted_base`] | how much code a system trusts |

pub mod claims;
pub mod coverage;
pub mod fuzzing;
pub mod invariants;
pub mod mutants;
mod probes;
pub mod reference;
mod run;
pub mod trusted_base;
pub mod wording;

use std::path::{Path, PathBuf};

/// The repository this program was built from.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2);
    root.expect("tools/evidence is two folders deep").to_owned()
}

/// What stopped a command: a sentence that says what to do.
pub type Failure = String;
