//! What stops this machine, or this kernel, from running a system, and what to
//! do about it.
//!
//! Nothing is built and nothing is changed. Each finding carries its repair.

use std::fmt;
use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSegment};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::kernel::{self, CONFIG_FILE, PaceError, Prefix, PrefixError};
use crate::qemu::CPU_MODEL;

/// Entries of the kernel's untyped list that devices of QEMU's `pc` machine
/// take before any memory is listed (docs/kernel.md).
const DEVICE_UNTYPEDS: u64 = 65;
/// The longest list seen on that machine.
const UNTYPEDS_SEEN: u64 = 139;
/// The emulator everything here was tried with.
const QEMU_TRIED: (u32, u32) = (7, 2);
/// Bytes of a page.
const PAGE_BYTES: u64 = 4096;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Good,
    /// It runs, with a reservation.
    Warning,
    /// Nothing runs until this is repaired.
    Stops,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do; empty where there is nothing to do.
    pub repair: String,
}

impl Finding {
    fn good(subject: &str, found: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            level: Level::Good,
            found: found.into(),
            repair: String::new(),
        }
    }

    fn bad(level: Level, subject: &str, found: impl Into<String>, repair: &str) -> Self {
        Self {
            subject: subject.into(),
            level,
            found: found.into(),
            repair: repair.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.level {
            Level::Good => "ok     ",
            Level::Warning => "warning",
            Level::Stops => "STOPS  ",
        };
        write!(f, "{word} {}: {}", self.subject, self.found)?;
        match self.repair.as_str() {
            "" => Ok(()),
            repair => write!(f, "\n        repair: {repair}"),
        }
    }
}

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct Patient<'a> {
    /// The prefix; none where the bundled kernel has not been built.
    pub prefix: Option<&'a Path>,
    /// The emulator.
    pub qemu: &'a Path,
    /// A built image, if there is one.
    pub image: Option<&'a Path>,
}

/// Looks at everything.
pub fn examine(patient: &Patient<'_>) -> Vec<Finding> {
    let mut findings = tools();
    findings.extend(emulator(patient.qemu));
    match patient.prefix {
        None => findings.push(Finding::bad(
            Level::Warning,
            "kernel",
            "the bundled kernel is not built yet",
            "make setup",
        )),
        Some(path) => findings.extend(prefix(path, patient.image)),
    }
    findings
}

/// Whether nothing stops a system from running.
pub fn is_healthy(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level != Level::Stops)
}

/// Programs and the Debian packages they are in.
const TOOLS: [(&str, &str); 6] = [
    ("cc", "gcc"),
    ("objcopy", "binutils"),
    ("cmake", "cmake"),
    ("ninja", "ninja-build"),
    ("xmllint", "libxml2-utils"),
    ("python3", "python3-venv"),
];

fn tools() -> Vec<Finding> {
    let check = |&(program, package): &(&str, &str)| match first_line(Path::new(program)) {
        Some(line) => Finding::good(program, line),
        None => Finding::bad(
            Level::Stops,
            program,
            "is not there, or does not run",
            &format!("apt-get install {package}"),
        ),
    };
    let mut findings: Vec<Finding> = TOOLS.iter().map(check).collect();
    findings.push(match first_line(Path::new("cargo")) {
        Some(line) => Finding::good("cargo", line),
        None => Finding::bad(
            Level::Stops,
            "cargo",
            "is not there, or does not run",
            "install rustup from https://rustup.rs; it fetches the release in rust-toolchain.toml",
        ),
    });
    findings
}

/// First line of what a program says about its version.
fn first_line(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    output.status.success().then(|| line.to_owned())
}

fn emulator(qemu: &Path) -> Vec<Finding> {
    const REPAIR: &str = "apt-get install qemu-system-x86";
    let name = qemu.display().to_string();
    let Some(line) = first_line(qemu) else {
        let found = format!("{name} is not there, or does not run");
        return vec![Finding::bad(Level::Stops, "QEMU", found, REPAIR)];
    };
    let version = version_of(&line);
    let mut findings = vec![match version {
        Some(version) if version >= QEMU_TRIED => Finding::good("QEMU", line),
        _ => Finding::bad(
            Level::Warning,
            "QEMU",
            line,
            &format!(
                "{REPAIR}; everything was tried with {}.{}",
                QEMU_TRIED.0, QEMU_TRIED.1
            ),
        ),
    }];
    let model = CPU_MODEL.split(',').next().unwrap_or(CPU_MODEL);
    let models = Command::new(qemu).args(["-cpu", "help"]).output();
    let models = models.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let has_model = models.is_ok_and(|text| text.split_whitespace().any(|word| word == model));
    findings.push(match has_model {
        true => Finding::good("processor model", CPU_MODEL),
        false => Finding::bad(
            Level::Stops,
            "processor model",
            format!("{name} does not offer `{model}`"),
            REPAIR,
        ),
    });
    findings
}

/// The first `major.minor` in a text.
fn version_of(line: &str) -> Option<(u32, u32)> {
    line.split(|c: char| !c.is_ascii_digit() && c != '.')
        .find_map(|word| {
            let mut numbers = word.split('.').map(str::parse);
            match (numbers.next(), numbers.next()) {
                (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
                _ => None,
            }
        })
}

fn prefix(path: &Path, image: Option<&Path>) -> Vec<Finding> {
    let prefix = match Prefix::open(path) {
        Ok(prefix) => prefix,
        Err(error) => return vec![refused(path, &error)],
    };
    let mut findings = vec![Finding::good(
        "prefix",
        format!("{}: every file is there, for x86_64", path.display()),
    )];
    let text = std::fs::read_to_string(prefix.directory().join(CONFIG_FILE));
    let config = text.ok().and_then(|text| serde_json::from_str(&text).ok());
    findings.extend(configuration(&config.unwrap_or_default()));
    findings.extend(image.map(|image| slots(&prefix, image)));
    findings
}

fn refused(path: &Path, error: &PrefixError) -> Finding {
    let repair = match error {
        PrefixError::Missing(_) => {
            "set SEL4_PREFIX to the install directory of an seL4 build, or unset it for the bundled kernel"
        }
        PrefixError::MissingFile { .. } => {
            "install the kernel's build again: ninja install, into an empty directory"
        }
        PrefixError::Architecture { .. } => {
            "build seL4 with KernelPlatform=pc99 and KernelSel4Arch=x86_64"
        }
        _ => "build and install the kernel again (docs/kernel.md)",
    };
    Finding::bad(
        Level::Stops,
        "prefix",
        format!("{}: {error}", path.display()),
        repair,
    )
}

/// What a configuration means on the machine that QEMU emulates.
pub fn configuration(config: &Map<String, Value>) -> Vec<Finding> {
    let on = |name: &str| kernel::is_on(config.get(name));
    let number = |name: &str| kernel::number_of(config.get(name));
    let mut findings = vec![version(config)];
    findings.push(untypeds(number("MAX_NUM_BOOTINFO_UNTYPED_CAPS")));
    let rules = [
        (
            on("SUPPORT_PCID"),
            Level::Stops,
            "SUPPORT_PCID",
            "QEMU emulates no PCIDs: the kernel stops at boot",
            "build it with -DKernelSupportPCID=OFF",
        ),
        (
            on("X2APIC"),
            Level::Stops,
            "KERNEL_LAPIC_MODE",
            "QEMU's emulation has no x2APIC",
            "build it with -DKernelLAPICMode=XAPIC",
        ),
        (
            on("IRQ_PIC"),
            Level::Stops,
            "KERNEL_IRQ_CONTROLLER",
            "interrupts are requested from the IOAPIC",
            "build it with -DKernelIRQController=IOAPIC",
        ),
        (
            on("DEBUG_BUILD"),
            Level::Warning,
            "DEBUG_BUILD",
            "any program can halt the machine with a debugging system call",
            "build it with -DKernelDebugBuild=OFF, or run nothing you do not trust",
        ),
        (
            on("PRINTING"),
            Level::Warning,
            "PRINTING",
            "kernel messages land on the console that programs own",
            "build it with -DKernelPrinting=OFF",
        ),
        (
            on("DANGEROUS_CODE_INJECTION"),
            Level::Warning,
            "DANGEROUS_CODE_INJECTION",
            "any program can run code in the kernel",
            "build it with -DKernelDangerousCodeInjection=OFF",
        ),
        (
            on("KERNEL_SKIM_WINDOW"),
            Level::Warning,
            "KERNEL_SKIM_WINDOW",
            "every kernel entry flushes the TLB twice, which emulation makes slow",
            "for emulation, build it with -DKernelSkimWindow=OFF; keep it on real processors",
        ),
    ];
    if let Err(error @ PaceError::Timer) = kernel::pace_of(config, true) {
        findings.push(Finding::bad(
            Level::Warning,
            "PC99_TSC_FREQUENCY",
            "where QEMU counts time in instructions, the timer of this kernel does not run",
            &error.repair(),
        ));
    }
    let broken = rules.into_iter().filter(|rule| rule.0);
    findings.extend(
        broken.map(|(_, level, name, found, repair)| Finding::bad(level, name, found, repair)),
    );
    findings
}

fn version(config: &Map<String, Value>) -> Finding {
    let mcs = match kernel::is_on(config.get("KERNEL_MCS")) {
        true => "with MCS",
        false => "without MCS",
    };
    let version = config.get("VERSION").and_then(Value::as_str);
    Finding::good(
        "kernel",
        match version {
            Some(version) => format!("seL4 {version}, {mcs}"),
            None => format!("seL4 {mcs}; the prefix does not say its version"),
        },
    )
}

fn untypeds(limit: Option<u64>) -> Finding {
    const NAME: &str = "MAX_NUM_BOOTINFO_UNTYPED_CAPS";
    const REPAIR: &str = "build it with -DKernelMaxNumBootinfoUntypedCaps=230";
    match limit {
        Some(limit) if limit <= DEVICE_UNTYPEDS => Finding::bad(
            Level::Stops,
            NAME,
            format!(
                "{limit}: device regions come first and take about {DEVICE_UNTYPEDS}, so no memory is left for programs"
            ),
            REPAIR,
        ),
        Some(limit) if limit < UNTYPEDS_SEEN => Finding::bad(
            Level::Warning,
            NAME,
            format!(
                "{limit}: lists of up to {UNTYPEDS_SEEN} were seen, and what does not fit is lost"
            ),
            REPAIR,
        ),
        Some(limit) => Finding::good(NAME, format!("{limit}")),
        None => Finding::bad(Level::Warning, NAME, "not stated", REPAIR),
    }
}

/// Whether the root CNode has a slot for each page of an image, and as many
/// again.
fn slots(prefix: &Prefix, image: &Path) -> Finding {
    const NAME: &str = "ROOT_CNODE_SIZE_BITS";
    let pages = std::fs::read(image).map_err(|error| error.to_string());
    let pages = pages.and_then(|bytes| pages_of(&bytes).map_err(|error| error.to_string()));
    let bits = prefix.root_cnode_bits();
    match pages {
        Ok(pages) if pages <= prefix.image_pages_max() => {
            Finding::good(NAME, format!("{bits}; the image takes {pages} slots"))
        }
        Ok(pages) => Finding::bad(
            Level::Stops,
            NAME,
            format!("{bits}: the image takes {pages} slots, more than half of them"),
            "build it with -DKernelRootCNodeSizeBits=18, or pack fewer programs",
        ),
        Err(reason) => Finding::bad(
            Level::Warning,
            "image",
            format!("{}: {reason}", image.display()),
            "make image",
        ),
    }
}

fn pages_of(image: &[u8]) -> Result<u64, object::Error> {
    let file = object::File::parse(image)?;
    let segments = file.segments();
    let sizes = segments.map(|segment| segment.size().div_ceil(PAGE_BYTES));
    Ok(sizes.sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn find<'a>(findings: &'a [Finding], subject: &str) -> Option<&'a Finding> {
        findings.iter().find(|finding| finding.subject == subject)
    }

    #[test]
    fn a_proved_configuration_does_not_run_in_the_emulator_and_says_why() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gen-config");
        let text = std::fs::read_to_string(path.join("x64-verified.json")).unwrap();
        let findings = configuration(&serde_json::from_str(&text).unwrap());
        assert!(!is_healthy(&findings));
        let untypeds = find(&findings, "MAX_NUM_BOOTINFO_UNTYPED_CAPS").unwrap();
        assert_eq!(untypeds.level, Level::Stops);
        assert!(untypeds.found.contains("no memory is left"));
        let pcid = find(&findings, "SUPPORT_PCID").unwrap();
        assert!(pcid.repair.contains("KernelSupportPCID=OFF"));
    }

    #[test]
    fn the_bundled_configuration_is_healthy() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gen-config");
        let text = std::fs::read_to_string(path.join("bundled.json")).unwrap();
        let findings = configuration(&serde_json::from_str(&text).unwrap());
        assert!(
            findings.iter().all(|f| f.level == Level::Good),
            "{findings:?}"
        );
        assert!(find(&findings, "kernel").unwrap().found.contains("5.0.0"));
    }

    #[test]
    fn each_dangerous_option_has_its_repair() {
        for name in ["DEBUG_BUILD", "PRINTING", "DANGEROUS_CODE_INJECTION"] {
            let findings = configuration(&options(json!({ name: true })));
            let finding = find(&findings, name).unwrap();
            assert_eq!(finding.level, Level::Warning);
            assert!(finding.to_string().contains("repair: build it with"));
        }
    }

    #[test]
    fn a_kernel_with_mcs_needs_to_be_told_its_frequency() {
        let measured = json!({ "KERNEL_MCS": true, "PC99_TSC_FREQUENCY": "0" });
        let findings = configuration(&options(measured));
        let finding = find(&findings, "PC99_TSC_FREQUENCY").unwrap();
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.repair.contains("KernelPC99TSCFrequency=1000000000"));
        let told = json!({ "KERNEL_MCS": true, "PC99_TSC_FREQUENCY": "1000000000" });
        let findings = configuration(&options(told));
        assert_eq!(find(&findings, "PC99_TSC_FREQUENCY"), None);
    }

    #[test]
    fn untyped_lists_are_judged_by_what_devices_leave() {
        assert_eq!(untypeds(Some(50)).level, Level::Stops);
        assert_eq!(untypeds(Some(100)).level, Level::Warning);
        assert_eq!(untypeds(Some(230)).level, Level::Good);
    }

    #[test]
    fn a_missing_emulator_and_a_broken_prefix_stop_it() {
        let patient = Patient {
            prefix: Some(Path::new("/no/such/prefix")),
            qemu: Path::new("/no/such/qemu"),
            image: None,
        };
        let findings = examine(&patient);
        assert!(!is_healthy(&findings));
        for subject in ["QEMU", "prefix"] {
            let finding = find(&findings, subject).unwrap();
            assert_eq!(finding.level, Level::Stops);
            assert!(!finding.repair.is_empty());
        }
    }

    #[test]
    fn versions_are_read_out_of_a_sentence() {
        let line = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)";
        assert_eq!(version_of(line), Some((7, 2)));
        assert_eq!(version_of("none"), None);
    }
}
