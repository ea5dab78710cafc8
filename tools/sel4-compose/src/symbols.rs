//! Names for addresses: function, file and line, from a program's own symbols.

use std::borrow::Cow;
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
        let mut places: Vec<(Option<String>, Option<String>)> = frames
            .ok()
            .into_iter()
            .flat_map(|frames| frames.iterator().map_while(Result::ok))
            .map(|frame| {
                let function = frame.function.as_ref().and_then(|f| f.demangle().ok());
                let place = frame.location.as_ref().and_then(|l| self.place(l));
                (function.map(Cow::into_owned), place)
            })
            .collect();
        if places.is_empty() {
            places.push((None, None));
        }
        // Line tables name inlined functions only; the one around them all is
        // in the symbol table.
        if let Some((function @ None, _)) = places.last_mut() {
            *function = self.symbol(address);
        }
        places.into_iter().filter_map(describe).collect()
    }

    fn place(&self, location: &addr2line::Location<'_>) -> Option<String> {
        let file = shorten(location.file?);
        let file = Path::new(file);
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

fn describe(place: (Option<String>, Option<String>)) -> Option<String> {
    match place {
        (Some(function), Some(place)) => Some(format!("{function} at {place}")),
        (function, place) => function.or(place),
    }
}

/// The part of a source path that says something: below the registry folder for
/// a crate, below the compiler's own for its library.
fn shorten(path: &str) -> &str {
    let below = |folder: &str| {
        let (_, rest) = path.split_once(folder)?;
        rest.split_once('/').map(|(_, rest)| rest)
    };
    below("/registry/src/")
        .or_else(|| below("/rustc/"))
        .unwrap_or(path)
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
    fn paths_of_crates_and_of_the_library_are_short() {
        let crate_file = "/home/x/.cargo/registry/src/index-1/capos-rt-0.1.0/src/lib.rs";
        assert_eq!(shorten(crate_file), "capos-rt-0.1.0/src/lib.rs");
        assert_eq!(
            shorten("/rustc/59807/library/core/src/a.rs"),
            "library/core/src/a.rs"
        );
        assert_eq!(
            shorten("/home/x/app/src/main.rs"),
            "/home/x/app/src/main.rs"
        );
    }

    #[test]
    fn other_lines_have_no_address() {
        assert_eq!(fault_address("root-task: ip=0x10"), None);
        assert_eq!(fault_address("fault: pid=1 type=malformed"), None);
        assert_eq!(fault_address("fault: ip=0xzz"), None);
    }
}
