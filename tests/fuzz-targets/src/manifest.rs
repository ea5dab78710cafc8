//! The boot archive and the manifest in it, as the root task reads them.

use capos_config::manifest::SystemManifest;
use capos_loader::manifest::{read_bootstrap_manifest, reader_options};

/// Largest archive that is tried.
const BYTES_MAX: usize = 1 << 16;

/// Reads `data` as an archive, its entries and itself as manifests.
pub(crate) fn run(data: &[u8]) {
    let data = &data[..data.len().min(BYTES_MAX)];
    manifest(data);
    for entry in cpio_reader::iter_files(data) {
        assert!(entry.name().len() + entry.file().len() <= data.len());
        if entry.name() == "manifest.bin" {
            manifest(entry.file());
        }
    }
}

fn manifest(bytes: &[u8]) {
    // Any verdict is fine; reaching one, in memory in proportion to the
    // message, is the property.
    let _ = read_bootstrap_manifest(bytes);
    let mut words = capnp::Word::allocate_zeroed_vec(bytes.len().div_ceil(8));
    capnp::Word::words_to_bytes_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    let aligned = capnp::Word::words_to_bytes(&words);
    let _ = SystemManifest::from_capnp_bytes_with_options(aligned, reader_options(bytes.len()));
}
