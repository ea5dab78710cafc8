//! Reads the boot manifest and accepts or refuses it as a whole.

use alloc::format;
use alloc::vec::Vec;

use capnp::Word;
use capnp::message::ReaderOptions;
use capos::{BootPackage, BootPackageClient, Capability, Client, RuntimeRingClient};
use capos_config::{BOOT_MANIFEST_MAX_BYTES, ManifestBootstrapPlan};

use crate::{FOREVER, Failure};

/// Most that `BootPackage.readManifest` gives at one time.
const CHUNK_BYTES: u32 = 4096;

/// The manifest, decoded and validated the way capOS does it.
pub(crate) fn read(
    ring: &mut RuntimeRingClient<'_>,
    package: Capability<BootPackage>,
) -> Result<ManifestBootstrapPlan, Failure> {
    let words = read_words(ring, package)?;
    let options = reader_options(words.len());
    let bytes = Word::words_to_bytes(&words);
    let plan = ManifestBootstrapPlan::from_capnp_bytes_with_options(bytes, options);
    let mut plan = plan.map_err(|error| Failure::Manifest(format!("{error}")))?;
    // The validator wants programs inside the manifest. Here they are beside
    // it, and a spawn says which one is not.
    for binary in plan
        .binaries
        .iter_mut()
        .filter(|binary| binary.data_len == 0)
    {
        binary.data_len = 1;
    }
    plan.validate_bootstrap()
        .map_err(|error| Failure::Manifest(format!("{error}")))?;
    Ok(plan)
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
) -> Result<Vec<Word>, Failure> {
    let unreadable = |error| Failure::Manifest(format!("cannot be read: {error:?}"));
    let mut package = BootPackageClient::from_capability(package);
    let size = package
        .manifest_size_wait(ring, FOREVER)
        .map_err(unreadable)?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > BOOT_MANIFEST_MAX_BYTES {
        return Err(Failure::Manifest(format!("{size} bytes are too many")));
    }
    let mut words = Word::allocate_zeroed_vec(size.div_ceil(size_of::<Word>()));
    let mut rest = &mut Word::words_to_bytes_mut(&mut words)[..size];
    while !rest.is_empty() {
        let offset = (size - rest.len()) as u64;
        let chunk = package
            .read_manifest_chunk_wait(ring, offset, CHUNK_BYTES, FOREVER)
            .map_err(unreadable)?;
        if chunk.is_empty() || chunk.len() > rest.len() {
            return Err(Failure::Manifest(format!("cannot be read at {offset}")));
        }
        let (filled, unfilled) = rest.split_at_mut(chunk.len());
        filled.copy_from_slice(&chunk);
        rest = unfilled;
    }
    Ok(words)
}
