//! `claims.toml`: what we say, how far it goes, and the command that shows it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::Failure;

/// The file, in the repository.
pub const PATH: &str = "claims.toml";

/// All claims.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    claim: Vec<Claim>,
}

/// One claim.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// A short name.
    pub id: String,
    /// The sentence.
    pub claim: String,
    /// How far it goes, and what it leaves open.
    pub scope: String,
    /// A shell command, run in the repository, that fails if it is not so.
    pub evidence: String,
    /// Takes minutes: run only when everything is asked for.
    #[serde(default)]
    pub slow: bool,
}

/// Reads and checks the file's contents.
pub fn parse(text: &str) -> Result<Vec<Claim>, Failure> {
    let claims: Claims = toml::from_str(text).map_err(|error| format!("{PATH}: {error}"))?;
    let mut ids = std::collections::BTreeSet::new();
    for claim in &claims.claim {
        if !ids.insert(&claim.id) {
            return Err(format!("{PATH}: two claims are called `{}`", claim.id));
        }
        let texts = [&claim.id, &claim.claim, &claim.scope, &claim.evidence];
        if texts.iter().any(|text| text.trim().is_empty()) {
            return Err(format!(
                "{PATH}: claim `{}` leaves something empty",
                claim.id
            ));
        }
    }
    Ok(claims.claim)
}

/// Reads the claims of a repository.
pub fn read(root: &Path) -> Result<Vec<Claim>, Failure> {
    let text = std::fs::read_to_string(root.join(PATH));
    parse(&text.map_err(|error| format!("{PATH}: {error}"))?)
}

/// Runs the evidence for the claims named, or for all; without `all`, what is
/// slow is left out and said to be.
pub fn run(root: &Path, all: bool, names: &[String]) -> Result<(), Failure> {
    let claims = read(root)?;
    if let Some(name) = names
        .iter()
        .find(|name| !claims.iter().any(|c| c.id == **name))
    {
        return Err(format!("{PATH} has no claim `{name}`"));
    }
    let wanted = |claim: &&Claim| names.is_empty() || names.contains(&claim.id);
    let (mut held, mut failed, mut left_out) = (0, 0, 0);
    for claim in claims.iter().filter(wanted) {
        if claim.slow && !all && names.is_empty() {
            left_out += 1;
            println!("claim {} not run (slow)", claim.id);
        } else if holds(root, claim) {
            held += 1;
            println!("claim {} ok: {}", claim.id, claim.claim);
        } else {
            failed += 1;
            println!("claim {} FAILED: {}", claim.id, claim.claim);
        }
    }
    println!("{held} claims shown, {failed} failed, {left_out} not run");
    match failed {
        0 => Ok(()),
        _ => Err("a claim has lost its evidence".into()),
    }
}

/// Runs the evidence; shows what it printed if it failed.
fn holds(root: &Path, claim: &Claim) -> bool {
    let mut command = Command::new("sh");
    command
        .args(["-c", &claim.evidence])
        .current_dir(root)
        .stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let shown = [output.stdout, output.stderr].concat();
            eprintln!("{}\n{}", claim.evidence, String::from_utf8_lossy(&shown));
            false
        }
        Err(error) => {
            eprintln!("{}: {error}", claim.evidence);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "[[claim]]\nid = 'a'\nclaim = 'b'\nscope = 'c'\nevidence = 'test -f claims.toml'\n";

    #[test]
    fn claims_need_every_part_and_a_name_of_their_own() {
        assert_eq!(parse(GOOD).unwrap().len(), 1);
        assert!(parse(&GOOD.repeat(2)).unwrap_err().contains("two claims"));
        assert!(
            parse(&GOOD.replace("'c'", "' '"))
                .unwrap_err()
                .contains("empty")
        );
        assert!(parse(&GOOD.replace("scope", "reach")).is_err());
    }

    #[test]
    fn evidence_that_fails_fails_the_run() {
        let folder = std::env::temp_dir().join(format!("claims-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(PATH), GOOD).unwrap();
        assert_eq!(run(&folder, false, &[]), Ok(()));
        assert!(run(&folder, false, &["z".into()]).is_err());
        let failing = GOOD.replace("test -f claims.toml", "test -f no-such-file");
        std::fs::write(folder.join(PATH), &failing).unwrap();
        assert!(run(&folder, false, &[]).is_err());
        std::fs::write(folder.join(PATH), failing + "slow = true\n").unwrap();
        assert_eq!(
            run(&folder, false, &[]),
            Ok(()),
            "slow evidence is left out"
        );
        assert!(run(&folder, true, &[]).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_claims_of_this_repository_can_be_read() {
        assert!(read(&crate::root()).unwrap().len() >= 10);
    }
}
