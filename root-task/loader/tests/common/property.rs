//! A property runner that prints the seed it runs under.

use std::time::{SystemTime, UNIX_EPOCH};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

/// Runs `property` on `cases` inputs. `PROPERTY_SEED` (hexadecimal) repeats a
/// run; without it every run is a new one.
pub fn check<S: Strategy>(
    name: &str,
    cases: u32,
    strategy: &S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) where
    S::Value: std::fmt::Debug,
{
    let seed = seed();
    println!("{name}: {cases} cases, PROPERTY_SEED={seed:x}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    if let Err(failure) = runner.run(strategy, property) {
        panic!("{name}: PROPERTY_SEED={seed:x}: {failure}");
    }
}

fn seed() -> u64 {
    match std::env::var("PROPERTY_SEED") {
        Ok(text) => u64::from_str_radix(&text, 16).expect("PROPERTY_SEED is hexadecimal"),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(1, |since| since.as_nanos() as u64)
        }
    }
}
