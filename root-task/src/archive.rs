//! The boot archive: the manifest and the programs it names.
//!
//! CPIO "newc", made by `sel4-compose` and mapped by the kernel with the root
//! task's own image. Its first entry, [`HASHES`], lists the SHA-256 digest of
//! every other one as sha256sum(1) prints them. Every entry is compared with
//! its digest once, before the first process: that takes longer than starting
//! a process, and what is started later should not pay for it. The archive is
//! mapped read-only and only this program maps it, so the answer stays true.
//! This finds damage between packing and booting; whoever can write the image
//! can also write its digests.
//!
//! # Invariants
//! - **A1** Bytes of an entry leave this module only after their digest was
//!   found to be the listed one.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use capos_config::RESERVED_INIT_BINARY_NAME;
use capos_config::manifest::KernelBootstrapManifest;
use capos_domains::System;
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
    /// The compiled system description is malformed.
    Domains(capos_domains::Malformed),
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
            Self::Domains(error) => write!(f, "{}: {error}", capos_domains::ENTRY),
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
}

impl Package {
    /// What `archive` offers, and the decoded manifest.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn open(archive: Archive) -> Result<(Self, KernelBootstrapManifest), ArchiveError> {
        let manifest = archive.get(MANIFEST)?;
        let decoded = read_bootstrap_manifest(manifest).map_err(ArchiveError::Manifest)?;
        let package = Self {
            archive,
            manifest,
            started: false,
        };
        Ok((package, decoded))
    }

    /// The program of a protection domain; the log says why there is none.
    pub fn domain(&self, name: &str) -> Option<&'static [u8]> {
        let is_it = |entry: &&Entry| {
            let path = entry.name.strip_prefix(capos_domains::DIRECTORY);
            path.and_then(|path| path.strip_prefix('/')) == Some(name)
        };
        let entry = self.archive.entries.iter().find(is_it)?;
        match entry.contents() {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                log!("domain {name}: {error}");
                None
            }
        }
    }

    /// The compiled system description.
    ///
    /// # Errors
    /// [`ArchiveError`]
    pub fn domains(&self) -> Result<System, ArchiveError> {
        let bytes = self.archive.get(capos_domains::ENTRY)?;
        capos_domains::decode(bytes).map_err(ArchiveError::Domains)
    }

    /// The ELF file of a program. The first one asked for may be the supplied
    /// init; after that the name means nothing.
    ///
    /// # Errors
    /// There is none, or it is not what was packed; the log says which.
    pub fn program(&mut self, name: &str) -> Result<&'static [u8], PrepareError> {
        let supplied = !self.started && name == RESERVED_INIT_BINARY_NAME;
        self.started = true;
        let found = match supplied {
            true => self.archive.get(INIT),
            false => self.archive.program(name),
        };
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
    state: State,
}

/// What became of comparing an entry with its digest (A1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Verified,
    Mismatch,
    NoDigest,
}

/// What comparing all digests took.
pub struct Verification {
    /// Bytes compared.
    pub bytes: usize,
    /// Ticks of the time-stamp counter.
    pub ticks: u64,
}

/// A boot archive in memory.
pub struct Archive {
    entries: Vec<Entry>,
    /// What it took to make sure of them.
    pub verification: Verification,
}

impl Archive {
    /// The archive the image carries.
    ///
    /// # Errors
    /// [`ArchiveError::Count`]: it has no digests.
    pub fn new(bytes: &'static [u8]) -> Result<Self, ArchiveError> {
        let before = rdtsc();
        let hashes = digests(bytes)?;
        let entries: Vec<Entry> = cpio_reader::iter_files(bytes)
            .filter(|entry| entry.name() != HASHES)
            .map(|entry| Entry::new(entry.name(), entry.file(), hashes))
            .collect();
        let verification = Verification {
            bytes: entries.iter().map(|entry| entry.bytes.len()).sum(),
            ticks: rdtsc() - before,
        };
        Ok(Self {
            entries,
            verification,
        })
    }

    /// The contents of a program.
    fn program(&self, name: &str) -> Result<&'static [u8], ArchiveError> {
        let is_it = |entry: &&Entry| entry.name.strip_prefix(PROGRAMS) == Some(name);
        let entry = self.entries.iter().find(is_it);
        entry.ok_or(ArchiveError::NoProgram)?.contents()
    }

    /// The contents of the entry called `name`, if there is one.
    ///
    /// # Errors
    /// There are several, or it is not what was packed.
    pub fn optional(&self, name: &'static str) -> Result<Option<&'static [u8]>, ArchiveError> {
        match self.entries.iter().any(|entry| entry.name == name) {
            true => self.get(name).map(Some),
            false => Ok(None),
        }
    }

    /// The contents of the one entry called `name`.
    fn get(&self, name: &'static str) -> Result<&'static [u8], ArchiveError> {
        let mut named = self.entries.iter().filter(|entry| entry.name == name);
        match (named.next(), named.count()) {
            (Some(entry), 0) => entry.contents(),
            (first, rest) => {
                let count = usize::from(first.is_some()) + rest;
                Err(ArchiveError::Count(name, count))
            }
        }
    }
}

/// The listed digests.
fn digests(archive: &'static [u8]) -> Result<&'static str, ArchiveError> {
    let mut lists = cpio_reader::iter_files(archive).filter(|entry| entry.name() == HASHES);
    let (first, rest) = (lists.next(), lists.count());
    let count = usize::from(first.is_some()) + rest;
    let text = first.filter(|_| rest == 0);
    text.and_then(|entry| core::str::from_utf8(entry.file()).ok())
        .ok_or(ArchiveError::Count(HASHES, count))
}

impl Entry {
    /// An entry, compared with its digest in `hashes`.
    fn new(name: &'static str, bytes: &'static [u8], hashes: &str) -> Self {
        let listed = hashes.lines().filter_map(|line| line.split_once("  "));
        let mut listed = listed.filter(|(_, listed)| *listed == name);
        let digest = listed.next().and_then(|(digits, _)| parse_digest(digits));
        let state = match digest {
            None => State::NoDigest,
            Some(digest) if Sha256::digest(bytes)[..] == digest => State::Verified,
            Some(_) => State::Mismatch,
        };
        Self { name, bytes, state }
    }

    /// Its bytes, if they are the packed ones.
    fn contents(&self) -> Result<&'static [u8], ArchiveError> {
        match self.state {
            State::Verified => Ok(self.bytes),
            State::Mismatch => Err(ArchiveError::Mismatch(self.name.into())),
            State::NoDigest => Err(ArchiveError::NoDigest(self.name.into())),
        }
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
