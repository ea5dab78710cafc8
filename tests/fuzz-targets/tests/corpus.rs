//! Replays the committed corpus of every fuzz target, and mutations of it.
//!
//! `FUZZ_SEED` replays a run, `FUZZ_MUTATIONS` changes its length.

use std::fs;
use std::path::{Path, PathBuf};

use fuzz_targets::TARGETS;

const SEED: u64 = 0x00f0_55ed_c0de_0001;
const MUTATIONS: u64 = 150;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(name);
    let entries = fs::read_dir(&directory).expect("every target has a corpus");
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).expect("readable")))
        .collect()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a decimal number"))
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

/// Overwrites, cuts, repeats or splices.
fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len());
        match random.below(5) {
            0 if !out.is_empty() => out[at] ^= 1 << random.below(8),
            1 if !out.is_empty() => out[at] = random.below(256) as u8,
            2 => out.truncate(at + 1),
            3 => {
                let from = random.below(other.len());
                out.truncate(at);
                out.extend_from_slice(&other[from.min(other.len())..]);
            }
            _ => {
                let byte = [0, 1, 0x7f, 0xff][random.below(4)];
                out.insert(at.min(out.len()), byte);
            }
        }
    }
    out.truncate(1 << 14);
    out
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let run = target.expect("a target of that name").run;
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name}: the corpus is empty");
    for (path, input) in &corpus {
        println!("{}", path.display());
        run(input);
    }
    let seed = setting("FUZZ_SEED", SEED);
    let mutations = setting("FUZZ_MUTATIONS", MUTATIONS);
    println!("{name}: FUZZ_SEED={seed} FUZZ_MUTATIONS={mutations}");
    let mut random = Random(seed | 1);
    for number in 0..mutations {
        let (_, input) = &corpus[random.below(corpus.len())];
        let (_, other) = &corpus[random.below(corpus.len())];
        let mutated = mutate(&mut random, input, other);
        println!("mutation {number}");
        run(&mutated);
    }
    println!("{name}: {} executions", corpus.len() as u64 + mutations);
}

#[test]
fn ring() {
    replay("ring");
}

#[test]
fn transfer() {
    replay("transfer");
}

#[test]
fn params() {
    replay("params");
}

#[test]
fn elf() {
    replay("elf");
}

#[test]
fn manifest() {
    replay("manifest");
}

#[test]
fn gate() {
    replay("gate");
}
