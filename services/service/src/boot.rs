//! What the boot manifest says, for services that work by it.

use alloc::vec::Vec;

use capnp::Word;
use capnp::message::ReaderOptions;
use capos::{BootPackage, BootPackageClient, Capability, Client, ClientError, RuntimeRingClient};
use capos_config::{BOOT_MANIFEST_MAX_BYTES, ManifestBootstrapPlan, SystemConfig};

use crate::FOREVER;

/// Most that `BootPackage.readManifest` gives at one time.
const CHUNK_BYTES: u32 = 4096;

/// Why the manifest is not known.
#[derive(Debug)]
pub enum BootError {
    /// The boot package does not give it.
    Package(ClientError),
    /// The boot package gives something else than it says it has.
    Size,
    /// It is no manifest.
    Manifest(capos_config::Error),
}

impl From<ClientError> for BootError {
    fn from(error: ClientError) -> Self {
        Self::Package(error)
    }
}

/// The manifest. It was accepted by whoever started this program; here it is
/// decoded only.
///
/// # Errors
/// [`BootError`]
pub fn read_manifest(
    ring: &mut RuntimeRingClient<'_>,
    package: Capability<BootPackage>,
) -> Result<ManifestBootstrapPlan, BootError> {
    let words = read_words(ring, package)?;
    let options = reader_options(words.len());
    let bytes = Word::words_to_bytes(&words);
    let plan = ManifestBootstrapPlan::from_capnp_bytes_with_options(bytes, options);
    plan.map_err(BootError::Manifest)
}

/// The manifest's parameters, if it has some.
///
/// # Errors
/// [`BootError`]
pub fn read_config(
    ring: &mut RuntimeRingClient<'_>,
    package: Capability<BootPackage>,
) -> Result<Option<SystemConfig>, BootError> {
    Ok(read_manifest(ring, package)?.kernel_params)
}

/// A manifest is visited a few times its size; a list of elements without
/// content could name millions in a word.
fn reader_options(words: usize) -> ReaderOptions {
    const VISITS: usize = 4;
    let mut options = capos_config::default_reader_options();
    options.traversal_limit_in_words(Some(words.saturating_mul(VISITS)));
    options
}

/// The manifest where Cap'n Proto wants it: at the start of a word.
fn read_words(
    ring: &mut RuntimeRingClient<'_>,
    package: Capability<BootPackage>,
) -> Result<Vec<Word>, BootError> {
    let mut package = BootPackageClient::from_capability(package);
    let size = package.manifest_size_wait(ring, FOREVER)?;
    let size = usize::try_from(size).map_err(|_| BootError::Size)?;
    if size > BOOT_MANIFEST_MAX_BYTES {
        return Err(BootError::Size);
    }
    let mut words = Word::allocate_zeroed_vec(size.div_ceil(size_of::<Word>()));
    let mut rest = &mut Word::words_to_bytes_mut(&mut words)[..size];
    while !rest.is_empty() {
        let offset = (size - rest.len()) as u64;
        let chunk = package.read_manifest_chunk_wait(ring, offset, CHUNK_BYTES, FOREVER)?;
        if chunk.is_empty() || chunk.len() > rest.len() {
            return Err(BootError::Size);
        }
        let (filled, unfilled) = rest.split_at_mut(chunk.len());
        filled.copy_from_slice(&chunk);
        rest = unfilled;
    }
    Ok(words)
}
