//! Reads and checks a Microkit system description (`system.xml`).
//!
//! The file is Microkit 2.3's, as far as x86-64 without virtual machines needs
//! it. [`grammar`] says what each element and attribute may be, `document`
//! holds a document against it, `rules` checks what several values together
//! can break and lowers the result to [`capos_domains::System`]. Every refusal
//! names file, row, column and the offending value.

#![forbid(unsafe_code)]

mod document;
pub mod grammar;
mod rules;

use std::fmt;
use std::path::{Path, PathBuf};

use capos_domains::System;

/// Where in the file something is, counted from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Row.
    pub row: u32,
    /// Column, in characters.
    pub column: u32,
}

/// Why a description is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The file as it was named.
    pub file: PathBuf,
    /// The offending place.
    pub place: Place,
    /// Which kind of rule.
    pub kind: Rule,
    /// What is wrong, with the value.
    pub what: String,
}

/// Whether a description is wrong, or asks for what there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Microkit would refuse it as well, or the machine would.
    Broken,
    /// Microkit would accept it; it is not carried out here.
    NotSupported,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { row, column } = self.place;
        write!(f, "{}:{row}:{column}: ", self.file.display())?;
        if self.kind == Rule::NotSupported {
            f.write_str("not supported: ")?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for Refusal {}

/// Why there is no description.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A variable of a domain's program, and what it receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setvar {
    /// The symbol.
    pub symbol: String,
    /// The 8 bytes it receives, as a number.
    pub value: u64,
    /// Where it is asked for.
    pub place: Place,
}

/// What belongs to a domain but not to the compiled form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `path` of the program; empty for the root task's stand-in.
    pub path: String,
    /// Where it is named.
    pub place: Place,
    /// Variables to set.
    pub setvars: Vec<Setvar>,
}

/// A checked description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The file.
    pub file: PathBuf,
    /// The compiled form.
    pub system: System,
    /// Programs, in the order of the domains.
    pub images: Vec<Image>,
    /// Where claims on hardware are made: domain, and port range or pin.
    pub claims: Vec<Claim>,
    /// Remarks that are no refusals.
    pub notes: Vec<String>,
}

/// Hardware that a domain asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Index of the domain.
    pub domain: usize,
    /// What.
    pub what: Hardware,
    /// Where.
    pub place: Place,
}

/// A piece of hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardware {
    /// I/O ports, first and last.
    Ports(u16, u16),
    /// An input of the first I/O APIC.
    Pin(u8),
}

impl Description {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Error`]
    pub fn read(file: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(file).map_err(|e| Error::Read(file.into(), e))?;
        Ok(Self::parse(file, &text)?)
    }

    /// Checks `text`, which is from `file`.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Refusal> {
        let refuse = |complaint: Complaint| Refusal {
            file: file.into(),
            place: complaint.place,
            kind: complaint.kind,
            what: complaint.what,
        };
        let tree = document::parse(text).map_err(refuse)?;
        let mut description = rules::lower(&tree).map_err(refuse)?;
        description.file = file.into();
        Ok(description)
    }

    /// A refusal of something at `place` that the file alone does not show.
    pub fn refuse(&self, place: Place, what: String) -> Refusal {
        Refusal {
            file: self.file.clone(),
            place,
            kind: Rule::Broken,
            what,
        }
    }
}

/// A refusal before the file is known.
#[derive(Debug)]
struct Complaint {
    place: Place,
    kind: Rule,
    what: String,
}

impl Complaint {
    fn new(place: Place, what: impl Into<String>) -> Self {
        Self {
            place,
            kind: Rule::Broken,
            what: what.into(),
        }
    }

    fn not_supported(place: Place, what: impl Into<String>) -> Self {
        Self {
            kind: Rule::NotSupported,
            ..Self::new(place, what)
        }
    }
}
