//! The installed seL4 prefix: where it is, whether it is usable, and what its
//! configuration says.
//!
//! Every prefix has the layout an seL4 build installs; nothing here depends on
//! which kernel version made it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::{Architecture, Object};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::qemu::Pace;

/// Files a prefix must have, relative to it.
const REQUIRED_FILES: [&str; 6] = [
    KERNEL_FILE,
    CONFIG_FILE,
    "libsel4/include/interfaces/object-api.xml",
    "libsel4/include/interfaces/object-api-arch.xml",
    "libsel4/include/interfaces/object-api-sel4-arch.xml",
    "libsel4/include/api/syscall.xml",
];
const KERNEL_FILE: &str = "bin/kernel.elf";
/// Configuration of a prefix, relative to it.
pub const CONFIG_FILE: &str = "libsel4/include/kernel/gen_config.json";
/// The version of the bundled kernel source.
const BUNDLED_VERSION: &str = "5.0.0";
/// Names the version of an installed kernel.
const VERSION_VARIABLE: &str = "SEL4_VERSION";
/// File of an installed kernel that names its version, where there is one.
const VERSION_FILE: &str = "VERSION";
/// What `SEL4_ARCH` of the configuration must say.
const SEL4_ARCH: &str = "x86_64";
/// Root CNode size when the configuration does not tell (seL4's default).
const ROOT_CNODE_SIZE_BITS_DEFAULT: u64 = 12;

/// Builds a bundled kernel; prints the prefix.
const KERNEL_SCRIPT: &str = "tools/setup/kernel.sh";

/// Why a prefix cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrefixError {
    /// Not a directory.
    #[error(
        "seL4 prefix {0} does not exist; set SEL4_PREFIX to an installed seL4, or unset it to build the bundled one"
    )]
    Missing(PathBuf),
    /// A file the layout promises is not there.
    #[error(
        "seL4 prefix {prefix} has no {file}; it must be the install directory of an seL4 build"
    )]
    MissingFile {
        /// The prefix.
        prefix: PathBuf,
        /// The file, relative to it.
        file: &'static str,
    },
    /// A file cannot be read or understood.
    #[error("{file} of the seL4 prefix cannot be used: {reason}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// Built for something else.
    #[error("seL4 prefix {prefix} is for {found}; only {SEL4_ARCH} is supported")]
    Architecture {
        /// The prefix.
        prefix: PathBuf,
        /// What it is for.
        found: String,
    },
    /// The bundled kernel could not be built; the script's messages were shown.
    #[error("the bundled seL4 kernel `{0}` could not be built (see the messages above)")]
    Bundled(String),
    /// The multiboot conversion failed.
    #[error("cannot make a bootable kernel with objcopy (Debian package binutils): {0}")]
    Convert(String),
}

/// Builds the bundled kernel in configuration `name` below `build` unless it is
/// there and current, and opens its prefix.
///
/// # Errors
/// [`PrefixError`]
pub fn bundled(root: &Path, build: &Path, name: &str) -> Result<Prefix, PrefixError> {
    let failed = || PrefixError::Bundled(name.into());
    let output = Command::new("sh")
        .arg(root.join(KERNEL_SCRIPT))
        .arg(name)
        .arg(build)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|_| failed())?;
    if !output.status.success() {
        return Err(failed());
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut prefix = Prefix::open(Path::new(printed.trim_end()))?;
    prefix.version = Some(format!("{BUNDLED_VERSION} `{name}`"));
    Ok(prefix)
}

/// What whoever installed the prefix at `directory` says its version is.
fn version_file(directory: &Path) -> Option<String> {
    let text = fs::read_to_string(directory.join(VERSION_FILE)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Cycles per second of the processor QEMU emulates while it counts time in
/// instructions.
const COUNTED_TSC_HZ: u64 = 1_000_000_000;

/// Why a kernel does not run where time is counted as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaceError {
    /// The second processor starves.
    #[error(
        "time cannot be counted in instructions on a kernel for several processors; use another KERNEL, or no ICOUNT"
    )]
    Processors,
    /// The kernel measures its clock and rounds the ratio of TSC to APIC timer
    /// down to zero, which is its name for deadlines the emulator does not know.
    #[error(
        "where time is counted in instructions, the timer of this kernel with MCS does not run; {}",
        self.repair()
    )]
    Timer,
}

impl PaceError {
    /// What to do about it.
    pub fn repair(self) -> String {
        match self {
            Self::Processors => "build it with -DKernelMaxNumNodes=1".into(),
            Self::Timer => format!("build it with -DKernelPC99TSCFrequency={COUNTED_TSC_HZ}"),
        }
    }
}

/// A usable prefix.
#[derive(Clone, Debug)]
pub struct Prefix {
    directory: PathBuf,
    /// Version and configuration, where they have names.
    version: Option<String>,
    config: Map<String, Value>,
}

impl Prefix {
    /// Opens and checks the prefix at `directory`.
    ///
    /// # Errors
    /// [`PrefixError`] names the first thing that is wrong.
    pub fn open(directory: &Path) -> Result<Self, PrefixError> {
        if !directory.is_dir() {
            return Err(PrefixError::Missing(directory.into()));
        }
        let prefix = directory.canonicalize().unwrap_or(directory.into());
        let missing = REQUIRED_FILES.iter().find(|f| !prefix.join(f).is_file());
        if let Some(&file) = missing {
            return Err(PrefixError::MissingFile { prefix, file });
        }
        check_kernel(&prefix)?;
        let config = read_config(&prefix)?;
        let found = config.get("SEL4_ARCH").and_then(Value::as_str);
        match found {
            Some(SEL4_ARCH) | None => Ok(Self {
                version: std::env::var(VERSION_VARIABLE)
                    .ok()
                    .or_else(|| version_file(&prefix)),
                directory: prefix,
                config,
            }),
            Some(other) => Err(PrefixError::Architecture {
                found: other.into(),
                prefix,
            }),
        }
    }

    /// Absolute path of the prefix.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The kernel as built, with symbols.
    pub fn kernel(&self) -> PathBuf {
        self.directory.join(KERNEL_FILE)
    }

    /// Version and configuration in one line, for results. An installed kernel
    /// does not say which version it is: `SEL4_VERSION` or a file of the prefix
    /// does, or the start of its digest stands for it.
    pub fn label(&self) -> String {
        const SHOWN: usize = 6;
        let version = self.version.clone().unwrap_or_else(|| {
            let file = fs::read(self.kernel()).unwrap_or_default();
            let digest = Sha256::digest(&file);
            let digits = digest.iter().take(SHOWN).map(|byte| format!("{byte:02x}"));
            format!("sha256:{}", digits.collect::<String>())
        });
        let named = [
            ("KERNEL_MCS", "MCS"),
            ("FASTPATH", "fastpath"),
            ("SYSENTER", "sysenter"),
            ("KERNEL_SKIM_WINDOW", "skim window"),
            ("DEBUG_BUILD", "debug"),
        ];
        let enabled = named.into_iter().filter(|(option, _)| self.enabled(option));
        let enabled: Vec<&str> = enabled.map(|(_, name)| name).collect();
        format!("{version} ({})", enabled.join(", "))
    }

    /// Whether applications enter through a rewritten gate: true unless the
    /// kernel itself is entered with `sysenter`, where an application's
    /// `syscall` is an ordinary exception and the program stays as built.
    pub fn needs_gate(&self) -> bool {
        !self.enabled("SYSENTER")
    }

    /// Whether threads run on scheduling contexts, which can limit them.
    pub fn is_mcs(&self) -> bool {
        self.enabled("KERNEL_MCS")
    }

    /// See [`pace_of`].
    ///
    /// # Errors
    /// [`PaceError`]
    pub fn pace(&self, icount: bool) -> Result<Pace, PaceError> {
        pace_of(&self.config, icount)
    }

    /// Number of processors the kernel can use.
    pub fn node_count(&self) -> u64 {
        self.number("MAX_NUM_NODES").unwrap_or(1)
    }

    /// Slots of the root CNode, as a power of two.
    pub fn root_cnode_bits(&self) -> u64 {
        self.number("ROOT_CNODE_SIZE_BITS")
            .unwrap_or(ROOT_CNODE_SIZE_BITS_DEFAULT)
    }

    /// Pages root task and boot archive may take: half of the root CNode's
    /// slots, each page of an initial image takes one.
    pub fn image_pages_max(&self) -> u64 {
        1u64.checked_shl(self.root_cnode_bits().saturating_sub(1) as u32)
            .unwrap_or(u64::MAX)
    }

    /// Writes the 32-bit form a multiboot loader takes.
    ///
    /// # Errors
    /// [`PrefixError::Convert`]
    pub fn write_multiboot(&self, output: &Path) -> Result<(), PrefixError> {
        let convert = |reason: String| PrefixError::Convert(reason);
        let result = Command::new("objcopy")
            .args(["-O", "elf32-i386"])
            .arg(self.kernel())
            .arg(output)
            .output()
            .map_err(|error| convert(error.to_string()))?;
        if result.status.success() {
            return Ok(());
        }
        Err(convert(
            String::from_utf8_lossy(&result.stderr).trim().into(),
        ))
    }

    fn enabled(&self, option: &str) -> bool {
        is_on(self.config.get(option))
    }

    fn number(&self, option: &str) -> Option<u64> {
        number_of(self.config.get(option))
    }
}

/// What a machine's clocks count for a kernel configured so: `icount` asks for
/// instructions, and some kernels leave no choice.
///
/// # Errors
/// [`PaceError`]
pub fn pace_of(config: &Map<String, Value>, icount: bool) -> Result<Pace, PaceError> {
    let number = |name: &str| number_of(config.get(name));
    let is_mcs = is_on(config.get("KERNEL_MCS"));
    let is_single = number("MAX_NUM_NODES").unwrap_or(1) == 1;
    let for_counted = is_mcs && number("PC99_TSC_FREQUENCY") == Some(COUNTED_TSC_HZ);
    match icount {
        true if !is_single => Err(PaceError::Processors),
        true if is_mcs && !for_counted => Err(PaceError::Timer),
        true => Ok(Pace::Repeatable),
        // It would take the cycles of any other processor for these.
        false if for_counted && is_single => Ok(Pace::Instructions),
        false => Ok(Pace::Host),
    }
}

/// Whether an option is on, as either generation of the file says it.
pub fn is_on(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => matches!(text.as_str(), "1" | "y" | "ON" | "true"),
        _ => false,
    }
}

/// An option that is a number, as either generation of the file says it.
pub fn number_of(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    }
}

fn check_kernel(prefix: &Path) -> Result<(), PrefixError> {
    let path = prefix.join(KERNEL_FILE);
    let unreadable = |reason: String| PrefixError::Unreadable {
        file: path.clone(),
        reason,
    };
    let bytes = fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
    let file = object::File::parse(&*bytes).map_err(|error| unreadable(error.to_string()))?;
    match file.architecture() {
        Architecture::X86_64 => Ok(()),
        other => Err(PrefixError::Architecture {
            prefix: prefix.into(),
            found: format!("{other:?}"),
        }),
    }
}

fn read_config(prefix: &Path) -> Result<Map<String, Value>, PrefixError> {
    let path = prefix.join(CONFIG_FILE);
    let unreadable = |reason: String| PrefixError::Unreadable {
        file: path.clone(),
        reason,
    };
    let text = fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pace(config: &Value, icount: bool) -> Result<Pace, PaceError> {
        pace_of(config.as_object().unwrap(), icount)
    }

    #[test]
    fn time_is_counted_as_the_kernel_can_follow() {
        let plain = json!({});
        assert_eq!(pace(&plain, false), Ok(Pace::Host));
        assert_eq!(pace(&plain, true), Ok(Pace::Repeatable));
        let smp = json!({ "MAX_NUM_NODES": "2" });
        assert_eq!(pace(&smp, false), Ok(Pace::Host));
        assert_eq!(pace(&smp, true), Err(PaceError::Processors));
        let measures = json!({ "KERNEL_MCS": true, "PC99_TSC_FREQUENCY": "0" });
        assert_eq!(pace(&measures, false), Ok(Pace::Host));
        assert_eq!(pace(&measures, true), Err(PaceError::Timer));
        let told = json!({ "KERNEL_MCS": true, "PC99_TSC_FREQUENCY": "1000000000" });
        assert_eq!(pace(&told, false), Ok(Pace::Instructions));
        assert_eq!(pace(&told, true), Ok(Pace::Repeatable));
        let other = json!({ "KERNEL_MCS": true, "PC99_TSC_FREQUENCY": "2400000000" });
        assert_eq!(pace(&other, true), Err(PaceError::Timer));
    }
}
