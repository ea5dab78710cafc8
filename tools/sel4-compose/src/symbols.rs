//! Names for addresses: function, file and line, from a program's own symbols.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use addr2line::Loader;
use addr2line::fallible_iterator::FallibleIterator;
use object::{Object, ObjectSection, SectionFlags};

use crate::app::App;

/// Prefix of a log line that reports a fault.
const FAULT: &str = "fault: ";
/// Key of the instruction pointer in such a line.
const INSTRUCTION_POINTER: &str = "ip=0x";

/// Key of the program's name in such a line.
const PROGRAM: &str = "program=";

/// The symbols of all programs of a system.
pub struct SymbolTables(Vec<(String, Symbols)>);

impl SymbolTables {
    /// Reads the symbols of `programs`, of those that have any.
    pub fn of(programs: &[App]) -> Self {
        let read = |app: &App| Some((app.name.clone(), Symbols::of(&app.elf)?));
        Self(programs.iter().filter_map(read).collect())
    }

    /// What to print below a fault report: where the program it names was.
    /// Nothing for other lines.
    pub fn explain(&self, line: &str) -> Vec<String> {
        let mut words = line.split(' ');
        let named = words.find_map(|word| word.strip_prefix(PROGRAM));
        let found = match self.0.as_slice() {
            [only] => Some(only),
            all => all.iter().find(|(name, _)| Some(name.as_str()) == named),
        };
        found.map_or_else(Vec::new, |(_, symbols)| symbols.explain(line))
    }
}

/// The symbols of one program.
pub struct Symbols {
    loader: Loader,
    /// Where its code is. Functions the linker dropped keep debug information
    /// at address zero, which must not explain a jump to zero.
    code: Vec<Range<u64>>,
    directory: PathBuf,
}

impl Symbols {
    /// Reads the symbols of `elf`, if it has any that can be read.
    pub fn of(elf: &Path) -> Option<Self> {
        Some(Self {
            loader: Loader::new(elf).ok()?,
            code: code_of(&std::fs::read(elf).ok()?)?,
            directory: std::env::current_dir().unwrap_or_default(),
        })
    }

    /// The places `address` belongs to, innermost inlined function first, each
    /// as `function at file:line`.
    /// Nothing for an address outside its code.
    pub fn places(&self, address: u64) -> Vec<String> {
        if !self.code.iter().any(|range| range.contains(&address)) {
            return Vec::new();
        }
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

/// The address ranges of executable sections.
fn code_of(elf: &[u8]) -> Option<Vec<Range<u64>>> {
    let file = object::File::parse(elf).ok()?;
    let sections = file.sections().filter(|section| {
        matches!(section.flags(), SectionFlags::Elf { sh_flags, .. }
            if sh_flags.0 & object::elf::SHF_EXECINSTR.0 != 0)
    });
    let ranges = sections.map(|s| s.address()..s.address().saturating_add(s.size()));
    Some(ranges.collect())
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

    /// This very program has debug information of functions the linker dropped.
    #[test]
    fn only_code_is_explained() {
        let program = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&program).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let symbols = Symbols::of(&program).unwrap();
        assert!(!symbols.places(file.entry()).is_empty());
        assert_eq!(symbols.places(0), Vec::<String>::new());
        assert_eq!(symbols.places(u64::MAX), Vec::<String>::new());
    }

    #[test]
    fn other_lines_have_no_address() {
        assert_eq!(fault_address("root-task: ip=0x10"), None);
        assert_eq!(fault_address("fault: pid=1 type=malformed"), None);
        assert_eq!(fault_address("fault: ip=0xzz"), None);
    }
}
