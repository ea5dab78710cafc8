//! Secrets from the processor's random number generator, or none at all.

use rand_core::TryRng;
use rdrand::RdRand;
use ring_server_core::BootSecret;

/// The processor has no random number generator, or it failed: endpoints need
/// a secret nobody can guess, so the system does not start without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

/// A fresh secret.
///
/// # Errors
/// [`NoEntropy`].
pub fn boot_secret() -> Result<BootSecret, NoEntropy> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(BootSecret::new(bytes))
}

/// Fills `out` from the processor's generator (RDRAND).
///
/// # Errors
/// [`NoEntropy`]; `out` is then unspecified and must not be used.
pub fn fill(out: &mut [u8]) -> Result<(), NoEntropy> {
    let mut generator = RdRand::new().map_err(|_| NoEntropy)?;
    generator.try_fill_bytes(out).map_err(|_| NoEntropy)
}
