//! The boot archive: the manifest and the programs it names.
//!
//! CPIO "newc", made by `sel4-compose` and mapped by the kernel with the root
//! task's own image. The archive is as trustworthy as the image it is part of;
//! a damaged one is still refused with a reason rather than believed.

use core::fmt;

use capos_config::manifest::KernelBootstrapManifest;
use capos_loader::read_bootstrap_manifest;

/// The one entry that is not a program.
const MANIFEST: &str = "manifest.bin";
/// Where programs are.
const PROGRAMS: &str = "bins/";

/// What is wrong with the boot archive. Rebuild the image.
#[derive(Debug)]
pub enum ArchiveError {
    /// The image carries no archive, or not exactly one manifest.
    ManifestCount(usize),
    /// The manifest does not decode or breaks a rule of the manifest format.
    Manifest(capos_config::Error),
    /// The manifest names a program that is not there.
    NoProgram,
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ManifestCount(count) => {
                write!(
                    f,
                    "{count} entries named {MANIFEST} in the boot archive, want 1"
                )
            }
            Self::Manifest(error) => write!(f, "{MANIFEST}: {error}"),
            Self::NoProgram => write!(f, "the first program is not under {PROGRAMS}"),
        }
    }
}

/// What the machine offers its processes: programs and the manifest.
#[derive(Clone, Copy)]
pub struct Package {
    /// The programs.
    pub archive: Archive,
    /// The manifest's bytes.
    pub manifest: &'static [u8],
}

/// A boot archive in memory.
#[derive(Clone, Copy)]
pub struct Archive {
    bytes: &'static [u8],
}

impl Archive {
    /// The archive the image carries.
    pub const fn new(bytes: &'static [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes of the manifest.
    ///
    /// # Errors
    /// [`ArchiveError::ManifestCount`].
    pub fn manifest_bytes(&self) -> Result<&'static [u8], ArchiveError> {
        let manifests = || self.entries().filter(|(name, _)| *name == MANIFEST);
        match (manifests().next(), manifests().count()) {
            (Some((_, bytes)), 1) => Ok(bytes),
            (_, count) => Err(ArchiveError::ManifestCount(count)),
        }
    }

    /// Decodes and validates the manifest.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn manifest(&self) -> Result<KernelBootstrapManifest, ArchiveError> {
        read_bootstrap_manifest(self.manifest_bytes()?).map_err(ArchiveError::Manifest)
    }

    /// The ELF file of a program.
    ///
    /// # Errors
    /// [`ArchiveError::NoProgram`].
    pub fn program(&self, name: &str) -> Result<&'static [u8], ArchiveError> {
        self.entries()
            .find(|(path, _)| path.strip_prefix(PROGRAMS) == Some(name))
            .map(|(_, bytes)| bytes)
            .ok_or(ArchiveError::NoProgram)
    }

    fn entries(&self) -> impl Iterator<Item = (&'static str, &'static [u8])> + use<> {
        cpio_reader::iter_files(self.bytes).map(|entry| (entry.name(), entry.file()))
    }
}
