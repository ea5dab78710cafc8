//! Keeps the console password: `CredentialStore` as a service.
//!
//! The password of the manifest is a verifier; one made while the system runs
//! is kept in memory and gone with it. Hashes are computed by another program
//! (`password-hash`), so this one answers everything else meanwhile.
//!
//! Attempts wait their turn, wrong ones make the next wait longer, and a
//! bounded number waits at all ([`policy::attempts`]). Every attempt that is
//! checked gets the same kind of answer after the same work: one that is too
//! long to be right is checked against the verifier as well.
//!
//! Holds: `credential_store` (the endpoint it serves), `boot_package`,
//! `entropy_source`, `timer`, and `hasher`.
#![no_std]
#![no_main]

extern crate alloc;

mod hasher;
mod store;

use capos::prelude::*;
use capos::{BootPackage, Endpoint};
use service::{Server, ServerError};
use store::Store;

/// Calls that are taken at a time.
const RECEIVES: usize = 4;
/// A password and its framing.
const PARAMS_BYTES: usize = 512;

const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;
const EXIT_MANIFEST: i64 = 4;

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
    let Ok(mut store) = Store::new(config.as_ref(), hasher.cap_id(), entropy, timer) else {
        return EXIT_MANIFEST;
    };
    drop(config);
    let served = Server::new(&mut ring, &[endpoint], RECEIVES, PARAMS_BYTES)
        .and_then(|mut server| store.serve(&mut ring, &mut server));
    match served {
        Ok(never) => match never {},
        Err(ServerError::Ring(_) | ServerError::Endpoint(..)) => EXIT_SERVING,
    }
}

entry_point!(main);
