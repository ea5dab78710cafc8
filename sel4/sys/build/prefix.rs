//! Finds the kernel prefix and refuses what is not one.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::Failure;

/// An installed kernel in the standard layout of an seL4 install.
pub struct Prefix {
    pub root: PathBuf,
    pub include: PathBuf,
}

/// Relative to `libsel4/include`; a directory without them is not a prefix.
const NEEDED: &[&str] = &[
    "kernel/gen_config.json",
    "interfaces/object-api.xml",
    "interfaces/object-api-arch.xml",
    "interfaces/object-api-sel4-arch.xml",
    "sel4/sel4.h",
];

const ADVICE: &str = "SEL4_PREFIX must name an installed seL4 x86_64 kernel \
    (with bin/kernel.elf and libsel4/include); the `make` targets build one under \
    build/sel4 and set the variable";

impl Prefix {
    pub fn locate() -> Result<Self, Failure> {
        let value = env::var_os("SEL4_PREFIX")
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Failure::new(format!("SEL4_PREFIX is not set: {ADVICE}")))?;
        let root = PathBuf::from(value);
        if !root.is_absolute() {
            return Err(Failure::new(format!(
                "SEL4_PREFIX={} is not an absolute path: {ADVICE}",
                root.display()
            )));
        }
        let include = root.join("libsel4/include");
        for needed in NEEDED {
            if !include.join(needed).is_file() {
                return Err(Failure::new(format!(
                    "SEL4_PREFIX={} has no libsel4/include/{needed}: {ADVICE}",
                    root.display()
                )));
            }
        }
        Ok(Self { root, include })
    }

    /// Reads a file below `libsel4/include`.
    pub fn read(&self, relative: impl AsRef<Path>) -> Result<String, Failure> {
        let path = self.include.join(relative);
        fs::read_to_string(&path)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
    }
}
