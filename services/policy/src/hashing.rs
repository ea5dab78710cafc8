//! Argon2id with memory from elsewhere.
//!
//! Verifiers are PHC strings within the bounds that `capos-lib` accepts;
//! hashing is that of crate `argon2`.

use alloc::string::{String, ToString};

use argon2::password_hash::{Output, ParamsString, PasswordHash, Salt, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use capos_lib::credential::{ConsolePasswordVerifier, MAX_CONSOLE_PASSWORD_BYTES};
use zeroize::Zeroizing;

/// Memory of new verifiers, in KiB. Together with [`PASSES`] one of the
/// settings of equal strength that OWASP recommends.
pub const MEMORY_KIB: u32 = 9 * 1024;
/// Passes over the memory for new verifiers.
pub const PASSES: u32 = 4;
/// Bytes of the hash in new verifiers.
const HASH_BYTES: usize = 32;
/// Most bytes of a hash in a verifier.
const HASH_BYTES_MAX: usize = 64;

/// Why there is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashingError {
    /// The verifier is no PHC string of Argon2id within bounds.
    Verifier,
    /// The password is empty or too long.
    Password,
    /// The salt is too short or too long.
    Salt,
    /// Too few blocks were lent.
    Memory,
}

impl From<argon2::Error> for HashingError {
    fn from(error: argon2::Error) -> Self {
        match error {
            argon2::Error::SaltTooShort | argon2::Error::SaltTooLong => Self::Salt,
            argon2::Error::PwdTooLong => Self::Password,
            _ => Self::Memory,
        }
    }
}

/// Blocks of memory that checking `verifier` takes.
///
/// # Errors
/// [`HashingError::Verifier`].
pub fn blocks_for(verifier: &str) -> Result<usize, HashingError> {
    let params = Prepared::new(verifier)?.params;
    Ok(params.block_count())
}

/// Blocks of memory that making a verifier takes.
#[must_use]
pub fn blocks_for_new() -> usize {
    new_params().map_or(0, |params| params.block_count())
}

fn new_params() -> Result<Params, HashingError> {
    Params::new(MEMORY_KIB, PASSES, 1, Some(HASH_BYTES)).map_err(|_| HashingError::Memory)
}

/// A verifier taken apart.
struct Prepared {
    params: Params,
    version: Version,
    salt: SaltString,
    hash: Output,
}

impl Prepared {
    fn new(verifier: &str) -> Result<Self, HashingError> {
        let bad = |_| HashingError::Verifier;
        ConsolePasswordVerifier::parse(verifier).map_err(|_| HashingError::Verifier)?;
        let parsed = PasswordHash::new(verifier).map_err(bad)?;
        let params = Params::try_from(&parsed).map_err(bad)?;
        let version = parsed.version.map_or(Ok(Version::V0x13), Version::try_from);
        let version = version.map_err(|_| HashingError::Verifier)?;
        let salt: Salt<'_> = parsed.salt.ok_or(HashingError::Verifier)?;
        let salt = SaltString::from_b64(salt.as_str()).map_err(bad)?;
        let hash = parsed.hash.ok_or(HashingError::Verifier)?;
        if hash.len() > HASH_BYTES_MAX {
            return Err(HashingError::Verifier);
        }
        Ok(Self {
            params,
            version,
            salt,
            hash,
        })
    }
}

/// Whether `verifier` is of `password`, in time that depends on the verifier
/// alone.
///
/// # Errors
/// [`HashingError`]
pub fn verify(verifier: &str, password: &[u8], blocks: &mut [Block]) -> Result<bool, HashingError> {
    if password.len() > MAX_CONSOLE_PASSWORD_BYTES {
        return Err(HashingError::Password);
    }
    let prepared = Prepared::new(verifier)?;
    let mut salt = [0; Salt::MAX_LENGTH];
    let salt = prepared
        .salt
        .as_salt()
        .decode_b64(&mut salt)
        .map_err(|_| HashingError::Salt)?;
    let mut hash = Zeroizing::new([0; HASH_BYTES_MAX]);
    let hash = &mut hash[..prepared.hash.len()];
    Argon2::new(Algorithm::Argon2id, prepared.version, prepared.params)
        .hash_password_into_with_memory(password, salt, hash, blocks)?;
    // Compares in constant time.
    let hash = Output::new(hash).map_err(|_| HashingError::Verifier)?;
    Ok(hash == prepared.hash)
}

/// A verifier of `password`.
///
/// # Errors
/// [`HashingError`]
pub fn derive(password: &[u8], salt: &[u8], blocks: &mut [Block]) -> Result<String, HashingError> {
    if password.is_empty() || password.len() > MAX_CONSOLE_PASSWORD_BYTES {
        return Err(HashingError::Password);
    }
    let params = new_params()?;
    let encoded = SaltString::encode_b64(salt).map_err(|_| HashingError::Salt)?;
    let mut hash = Zeroizing::new([0; HASH_BYTES]);
    let phc_params = ParamsString::try_from(&params).map_err(|_| HashingError::Memory)?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
        password,
        salt,
        &mut hash[..],
        blocks,
    )?;
    let phc = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: phc_params,
        salt: Some(encoded.as_salt()),
        hash: Some(Output::new(&hash[..]).map_err(|_| HashingError::Memory)?),
    };
    Ok(phc.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use capos_lib::credential::ConsolePasswordVerifyStatus;

    const SALT: &[u8] = b"sixteen bytes ok";

    fn blocks(count: usize) -> alloc::vec::Vec<Block> {
        vec![Block::new(); count]
    }

    #[test]
    fn upstream_accepts_what_is_derived_here() {
        let mut memory = blocks(blocks_for_new());
        let phc = derive(b"correct horse", SALT, &mut memory).expect("derived");
        let upstream = ConsolePasswordVerifier::parse(&phc).expect("within bounds");
        let status = |password: &[u8]| upstream.verify(password);
        assert_eq!(
            status(b"correct horse"),
            ConsolePasswordVerifyStatus::Success
        );
        assert_eq!(status(b"battery"), ConsolePasswordVerifyStatus::Denied);
    }

    #[test]
    fn verifiers_of_upstream_are_checked_here() {
        let upstream = ConsolePasswordVerifier::derive(b"staple", SALT).expect("derived");
        let mut memory = blocks(blocks_for(upstream.phc()).expect("within bounds"));
        assert_eq!(memory.len(), 19 * 1024, "upstream's default");
        assert_eq!(verify(upstream.phc(), b"staple", &mut memory), Ok(true));
        assert_eq!(verify(upstream.phc(), b"stapl", &mut memory), Ok(false));
        assert_eq!(verify(upstream.phc(), b"", &mut memory), Ok(false));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let mut memory = blocks(8);
        let long = [b'x'; MAX_CONSOLE_PASSWORD_BYTES + 1];
        let phc = "$argon2id$v=19$m=8,t=1,p=1$c2l4dGVlbiBieXRlcyBvaw$\
                   MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";
        assert_eq!(verify(phc, b"x", &mut memory), Ok(false));
        assert_eq!(
            verify(phc, b"x", &mut memory[..7]),
            Err(HashingError::Memory)
        );
        assert_eq!(verify(phc, &long, &mut memory), Err(HashingError::Password));
        assert_eq!(verify("", b"x", &mut memory), Err(HashingError::Verifier));
        let costly = phc.replace("m=8", "m=19457");
        assert_eq!(blocks_for(&costly), Err(HashingError::Verifier));
        let endless = phc.replace("t=1", "t=5");
        assert_eq!(blocks_for(&endless), Err(HashingError::Verifier));
        let other = phc.replace("argon2id", "argon2i");
        assert_eq!(blocks_for(&other), Err(HashingError::Verifier));
        let bare = &phc[..phc.rfind('$').expect("a hash")];
        assert_eq!(blocks_for(bare), Err(HashingError::Verifier));
        assert_eq!(derive(b"", SALT, &mut memory), Err(HashingError::Password));
        assert_eq!(derive(b"x", b"", &mut memory), Err(HashingError::Salt));
    }
}
