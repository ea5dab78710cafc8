//! Reads the boot manifest and accepts or refuses it as a whole.

use alloc::format;
use alloc::vec::Vec;

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
    let bytes = read_bytes(ring, package)?;
    let plan = ManifestBootstrapPlan::from_capnp_bytes(&bytes);
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

fn read_bytes(
    ring: &mut RuntimeRingClient<'_>,
    package: Capability<BootPackage>,
) -> Result<Vec<u8>, Failure> {
    let unreadable = |error| Failure::Manifest(format!("cannot be read: {error:?}"));
    let mut package = BootPackageClient::from_capability(package);
    let size = package
        .manifest_size_wait(ring, FOREVER)
        .map_err(unreadable)?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > BOOT_MANIFEST_MAX_BYTES {
        return Err(Failure::Manifest(format!("{size} bytes are too many")));
    }
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        let offset = bytes.len() as u64;
        let chunk = package.read_manifest_chunk_wait(ring, offset, CHUNK_BYTES, FOREVER);
        let chunk = chunk.map_err(unreadable)?;
        if chunk.is_empty() {
            return Err(Failure::Manifest(format!("ends after {offset} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
