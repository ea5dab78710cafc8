//! Keeps the console password: `CredentialStore` as a service.
//!
//! The password of the manifest is a verifier; one made while the system runs
//! is kept in memory and gone with it. Its verifier is with init as well, so that
//! the next instance of this program knows it: a password that was forgotten
//! could be made anew, by whoever comes first. Hashes are computed by another program
//! (`password-hash`), so this one answers everything else meanwhile.
//!
//! Attempts wait their turn, wrong ones make the next wait longer, and a
//! bounded number waits at all ([`policy::attempts`]). Every attempt that is
//! checked gets the same kind of answer after the same work: one that is too
//! long to be right is checked against the verifier as well.
//!
//! Holds: `credential_store` (the endpoint it serves), `boot_package`,
//! `entropy_source`, `timer`, and `hasher`; perhaps `keepsake`, without which it
//! must not be started again.
#![no_std]
#![no_main]

extern crate alloc;

mod hasher;
mod keepsake;
mod store;

use capos::prelude::*;
use capos::{BootPackage, Endpoint};
use capos_config::SystemConfig;
use capos_lib::credential::ConsolePasswordVerifierError;
use hasher::Hasher;
use keepsake::Keepsake;
use policy::passwords::Passwords;
use service::{Server, ServerError};
use store::Store;

/// Calls that are taken at a time.
const RECEIVES: usize = 4;
/// A password and its framing.
const PARAMS_BYTES: usize = 512;

const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;
const EXIT_MANIFEST: i64 = 4;
/// What an earlier instance kept cannot be learned.
const EXIT_KEEPSAKE: i64 = 5;

/// The passwords there are: the manifest's, or one made earlier.
fn passwords(
    config: Option<&SystemConfig>,
    kept: Option<&str>,
) -> Result<Passwords, ConsolePasswordVerifierError> {
    let verifier = config.map_or("", |config| config.console_password_verifier_phc.as_str());
    let passwords = Passwords::new(verifier)?;
    match kept {
        Some(kept) => passwords.restored(kept),
        None => Ok(passwords),
    }
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let (Ok(endpoint), Ok(package), Ok(entropy), Ok(timer), Ok(hasher)) = (
        capset.get_typed::<Endpoint>(b"credential_store"),
        capset.get_typed::<BootPackage>(b"boot_package"),
        capset.get_client::<EntropySourceClient>(b"entropy_source"),
        capset.get_client::<TimerClient>(b"timer"),
        capset.get(b"hasher"),
    ) else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let Ok(config) = service::boot::read_config(&mut ring, package) else {
        return EXIT_MANIFEST;
    };
    let keepsake = capset.get(b"keepsake").ok().map(|keepsake| Keepsake {
        cap_id: keepsake.cap_id(),
    });
    let kept = keepsake.as_ref().map(|keepsake| keepsake.kept(&mut ring));
    let Ok(kept) = kept.transpose() else {
        return EXIT_KEEPSAKE;
    };
    let passwords = passwords(
        config.as_ref(),
        kept.flatten().as_ref().map(|text| &***text),
    );
    let Ok(passwords) = passwords else {
        return EXIT_MANIFEST;
    };
    let mut store = Store::new(
        passwords,
        config.as_ref(),
        (
            Hasher {
                cap_id: hasher.cap_id(),
            },
            keepsake,
        ),
        (entropy, timer),
    );
    drop(config);
    let served = Server::new(&mut ring, &[endpoint], RECEIVES, PARAMS_BYTES)
        .and_then(|mut server| store.serve(&mut ring, &mut server));
    match served {
        Ok(never) => match never {},
        Err(ServerError::Ring(_) | ServerError::Endpoint(..)) => EXIT_SERVING,
    }
}

entry_point!(main);
