//! The boot archive: the manifest and the programs it names.
//!
//! CPIO "newc", made by `sel4-compose` and mapped by the kernel with the root
//! task's own image. Its first entry, [`HASHES`], lists the SHA-256 digest of
//! every other one as sha256sum(1) prints them. An entry is compared with its
//! digest before its first use and never again: the archive is mapped
//! read-only and only this program maps it. This finds damage between packing
//! and booting; whoever can write the image can also write its digests.
//!
//! # Invariants
//! - **A1** Bytes of an entry leave this module only after their digest was
//!   found to be the listed one.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use capos_config::RESERVED_INIT_BINARY_NAME;
use capos_config::manifest::KernelBootstrapManifest;
use capos_loader::read_bootstrap_manifest;
use ring_server_core::PrepareError;
use sha2::{Digest, Sha256};

use crate::clock::rdtsc;
use crate::log;

/// Digests of all other entries.
const HASHES: &str = "hashes";
/// The manifest.
const MANIFEST: &str = "manifest.bin";
/// The init that is supplied with the system; not among the programs, so that
/// nobody can start it again.
const INIT: &str = "init";
/// Where programs are.
const PROGRAMS: &str = "bins/";

/// What is wrong with the boot archive. Rebuild the image.
#[derive(Debug)]
pub enum ArchiveError {
    /// The image carries no archive, or not exactly one such entry.
    Count(&'static str, usize),
    /// An entry of which no digest is listed.
    NoDigest(String),
    /// An entry that is not what was packed.
    Mismatch(String),
    /// The manifest does not decode or breaks a rule of the manifest format.
    Manifest(capos_config::Error),
    /// The manifest names a program that is not there.
    NoProgram,
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(name, count) => {
                write!(
                    f,
                    "{count} entries named {name} in the boot archive, want 1"
                )
            }
            Self::NoDigest(name) => write!(f, "{name}: no digest"),
            Self::Mismatch(name) => write!(f, "{name}: hash mismatch"),
            Self::Manifest(error) => write!(f, "{MANIFEST}: {error}"),
            Self::NoProgram => write!(f, "the first program is not under {PROGRAMS}"),
        }
    }
}

/// What the machine offers its processes: programs and the manifest.
pub struct Package {
    /// The programs.
    archive: Archive,
    /// The manifest's bytes.
    pub manifest: &'static [u8],
    /// Whether the first program is out, which may be the supplied init.
    started: bool,
    /// Whether to log what verifying takes.
    pub is_debugged: bool,
}

impl Package {
    /// What `archive` offers, and the decoded manifest.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn open(mut archive: Archive) -> Result<(Self, KernelBootstrapManifest), ArchiveError> {
        let manifest = archive.get(MANIFEST)?;
        let decoded = read_bootstrap_manifest(manifest).map_err(ArchiveError::Manifest)?;
        archive.verify_programs();
        let package = Self {
            archive,
            manifest,
            started: false,
            is_debugged: false,
        };
        Ok((package, decoded))
    }

    /// The ELF file of a program. The first one asked for may be the supplied
    /// init; after that the name means nothing.
    ///
    /// # Errors
    /// There is none, or it is not what was packed; the log says which.
    pub fn program(&mut self, name: &str) -> Result<&'static [u8], PrepareError> {
        let supplied = !self.started && name == RESERVED_INIT_BINARY_NAME;
        self.started = true;
        let before = rdtsc();
        let found = match supplied {
            true => self.archive.get(INIT),
            false => self.archive.program(name),
        };
        let ticks = rdtsc() - before;
        if let (true, Ok(file)) = (self.is_debugged, &found) {
            log!(
                "program {name}: {} bytes verified in {ticks} ticks",
                file.len()
            );
        }
        found.map_err(|error| match error {
            ArchiveError::NoProgram => PrepareError::NoSuchProgram,
            ArchiveError::Mismatch(_) => {
                log!("program {name}: hash mismatch");
                PrepareError::BadProgram
            }
            other => {
                log!("program {name}: {other}");
                PrepareError::BadProgram
            }
        })
    }
}

/// A file in the archive.
struct Entry {
    name: &'static str,
    bytes: &'static [u8],
    /// A1: the digest was compared.
    is_verified: bool,
}

/// A boot archive in memory.
pub struct Archive {
    entries: Vec<Entry>,
    hashes: &'static str,
}

impl Archive {
    /// The archive the image carries.
    ///
    /// # Errors
    /// [`ArchiveError::Count`]: it has no digests.
    pub fn new(bytes: &'static [u8]) -> Result<Self, ArchiveError> {
        let entries: Vec<Entry> = cpio_reader::iter_files(bytes)
            .map(|entry| Entry {
                name: entry.name(),
                bytes: entry.file(),
                is_verified: false,
            })
            .collect();
        let mut hashes = entries.iter().filter(|entry| entry.name == HASHES);
        let (first, rest) = (hashes.next(), hashes.count());
        let text = first.filter(|_| rest == 0);
        let text = text.and_then(|entry| core::str::from_utf8(entry.bytes).ok());
        let count = usize::from(first.is_some()) + rest;
        let hashes = text.ok_or(ArchiveError::Count(HASHES, count))?;
        Ok(Self { entries, hashes })
    }

    /// Compares the digests of all programs now: it takes longer than starting
    /// one. What does not match is refused when it is asked for.
    fn verify_programs(&mut self) {
        let programs = self.entries.iter_mut();
        for program in programs.filter(|entry| entry.name.starts_with(PROGRAMS)) {
            // The error comes again, with its reader, in `program`.
            let _ = program.verified(self.hashes);
        }
    }

    /// The contents of a program.
    fn program(&mut self, name: &str) -> Result<&'static [u8], ArchiveError> {
        let is_it = |entry: &Entry| entry.name.strip_prefix(PROGRAMS) == Some(name);
        let entry = self.entries.iter_mut().find(|entry| is_it(entry));
        entry.ok_or(ArchiveError::NoProgram)?.verified(self.hashes)
    }

    /// The contents of the one entry called `name`.
    fn get(&mut self, name: &'static str) -> Result<&'static [u8], ArchiveError> {
        let count = self
            .entries
            .iter()
            .filter(|entry| entry.name == name)
            .count();
        let entry = self.entries.iter_mut().find(|entry| entry.name == name);
        let entry = entry.filter(|_| count == 1);
        entry
            .ok_or(ArchiveError::Count(name, count))?
            .verified(self.hashes)
    }
}

impl Entry {
    /// Its bytes, once they are known to be the packed ones.
    fn verified(&mut self, hashes: &str) -> Result<&'static [u8], ArchiveError> {
        if self.is_verified {
            return Ok(self.bytes);
        }
        let listed = hashes.lines().filter_map(|line| line.split_once("  "));
        let mut listed = listed.filter(|(_, name)| *name == self.name);
        let digest = listed.next().and_then(|(digits, _)| parse_digest(digits));
        let digest = digest.ok_or_else(|| ArchiveError::NoDigest(self.name.into()))?;
        if Sha256::digest(self.bytes)[..] != digest {
            return Err(ArchiveError::Mismatch(self.name.into()));
        }
        self.is_verified = true;
        Ok(self.bytes)
    }
}

/// A digest of 64 hexadecimal digits.
fn parse_digest(digits: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if digits.len() != 2 * digest.len() || !digits.is_ascii() {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(digest)
}
