//! Secrets from the processor's random number generator, or none at all.

use rand_core::TryRng;
use rdrand::RdRand;
use ring_server_core::BootSecret;

/// The processor has no random number generator, or it failed: endpoints need
/// a secret nobody can guess, so the system does not start without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

/// A fresh secret (RDRAND).
///
/// # Errors
/// [`NoEntropy`].
pub fn boot_secret() -> Result<BootSecret, NoEntropy> {
    let mut generator = RdRand::new().map_err(|_| NoEntropy)?;
    let mut bytes = [0; 32];
    generator
        .try_fill_bytes(&mut bytes)
        .map_err(|_| NoEntropy)?;
    Ok(BootSecret::new(bytes))
}
