//! Names for addresses: function, file and line, from a program's own symbols.

use std::path::{Path, PathBuf};

use addr2line::Loader;
use addr2line::fallible_iterator::FallibleIterator;

/// Prefix of a log line that reports a fault.
const FAULT: &str = "fault: ";
/// Key of the instruction pointer in such a line.
const INSTRUCTION_POINTER: &str = "ip=0x";

/// The symbols of one program.
pub struct Symbols {
    loader: Loader,
    directory: PathBuf,
}

impl Symbols {
    /// Reads the symbols of `elf`, if it has any that can be read.
    pub fn of(elf: &Path) -> Option<Self> {
        Some(Self {
            loader: Loader::new(elf).ok()?,
            directory: std::env::current_dir().unwrap_or_default(),
        })
    }

    /// The places `address` belongs to, innermost inlined function first, each
    /// as `function at file:line`.
    pub fn places(&self, address: u64) -> Vec<String> {
        let frames = self.loader.find_frames(address);
        let places: Vec<String> = frames
            .ok()
            .into_iter()
            .flat_map(|frames| frames.iterator().map_while(Result::ok))
            .filter_map(|frame| {
                let function = frame.function.as_ref().and_then(|name| {
                    let name = name.demangle().ok()?;
                    Some(name.into_owned())
                });
                let place = frame.location.as_ref().and_then(|l| self.place(l));
                match (function, place) {
                    (Some(function), Some(place)) => Some(format!("{function} at {place}")),
                    (function, place) => function.or(place),
                }
            })
            .collect();
        if places.is_empty() {
            return self.symbol(address).into_iter().collect();
        }
        places
    }

    fn place(&self, location: &addr2line::Location<'_>) -> Option<String> {
        let file = Path::new(location.file?);
        let file = file.strip_prefix(&self.directory).unwrap_or(file);
        Some(match location.line {
            Some(line) => format!("{}:{line}", file.display()),
            None => file.display().to_string(),
        })
    }

    fn symbol(&self, address: u64) -> Option<String> {
        let name = self.loader.find_symbol(address)?;
        Some(addr2line::demangle_auto(name.into(), None).into_owned())
    }

    /// What to print below a fault report: where its instruction pointer is.
    /// Nothing for other lines.
    pub fn explain(&self, line: &str) -> Vec<String> {
        let address = fault_address(line);
        address.map_or_else(Vec::new, |address| self.places(address))
    }
}

/// The instruction pointer of a fault report.
fn fault_address(line: &str) -> Option<u64> {
    let keys = line.strip_prefix(FAULT)?;
    let digits = keys
        .split_whitespace()
        .find_map(|key| key.strip_prefix(INSTRUCTION_POINTER))?;
    u64::from_str_radix(digits, 16).ok()
}

/// Whether a log line reports a fault.
pub fn is_fault(line: &str) -> bool {
    line.starts_with(FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instruction_pointer_is_read_from_a_fault_report() {
        let line = "fault: pid=1 program=x type=page-fault access=read addr=0x0 ip=0x2011fe";
        assert_eq!(fault_address(line), Some(0x20_11fe));
    }

    #[test]
    fn other_lines_have_no_address() {
        assert_eq!(fault_address("root-task: ip=0x10"), None);
        assert_eq!(fault_address("fault: pid=1 type=malformed"), None);
        assert_eq!(fault_address("fault: ip=0xzz"), None);
    }
}
