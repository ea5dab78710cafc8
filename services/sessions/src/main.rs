//! Decides who may open a session, what a session gets, and how a shell starts
//! in it: `SessionManager`, `AuthorityBroker` and `RestrictedShellLauncher` as
//! one service.
//!
//! They are three endpoints of one program, since all three rest on the same
//! `SessionMint` and the same accounts; each is exported by itself, so that who
//! may ask the broker cannot log anybody in. The decisions are
//! [`policy::sessions`] and [`policy::launch`]; the mint does what was decided.
//!
//! A decision is told once the audit log, if there is one, has written it down, or
//! has had its time for that. A password is checked by the credential store; other
//! calls are answered meanwhile.
//!
//! Holds: `session_manager`, `authority_broker` and `restricted_shell_launcher`
//! (the endpoints it serves), `mint`, `boot_package`, `entropy_source`,
//! `system_info`; perhaps `credential_store` and `audit_log`; and the calling
//! sides of service endpoints, which go into operators' bundles under the names
//! they have here.
#![no_std]
#![no_main]

extern crate alloc;

mod broker;
mod desk;
mod launcher;
mod manager;
mod record;

use alloc::string::String;
use alloc::vec::Vec;

use capos::prelude::*;
use capos::{
    AuditLog, BootPackage, CapSet, CapabilityRef, CapabilityType, CredentialStore, Endpoint,
    SystemInfo,
};
use desk::Desk;
use policy::sessions::Accounts;
use sel4_capos_client::SessionMintClient;
use service::Server;

/// Calls that are taken at a time from each endpoint.
const RECEIVES: usize = 3;
/// A login with its metadata, or a launch with its grants.
const PARAMS_BYTES: usize = 2048;

const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;
const EXIT_MANIFEST: i64 = 4;

/// Service endpoints of a bundle: with the launcher, the session and the system
/// info they are as many capabilities as one result can have.
const ENDPOINTS_MAX: usize = 13;

/// The endpoints it serves, in the server's order.
const SERVED: [&[u8]; 3] = [
    b"session_manager",
    b"authority_broker",
    b"restricted_shell_launcher",
];

/// Endpoints that were granted to be handed out, under their names.
fn service_endpoints(capset: &CapSet) -> Vec<(String, CapabilityRef)> {
    capset
        .iter()
        .filter(|entry| entry.interface_id == Endpoint::INTERFACE_ID)
        .filter_map(|entry| {
            let name = entry.name.get(..usize::try_from(entry.name_len).ok()?)?;
            let name = (!SERVED.contains(&name)).then_some(name)?;
            let name = core::str::from_utf8(name).ok()?;
            let capability = CapabilityRef::new(entry.cap_id, entry.interface_id);
            Some((String::from(name), capability))
        })
        .collect()
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let endpoints = SERVED.map(|name| capset.get_typed::<Endpoint>(name));
    let ([Ok(manager), Ok(broker), Ok(launcher)], Ok(mint), Ok(package), Ok(entropy), Ok(info)) = (
        endpoints,
        capset.get_client::<SessionMintClient>(b"mint"),
        capset.get_typed::<BootPackage>(b"boot_package"),
        capset.get_client::<EntropySourceClient>(b"entropy_source"),
        capset.get_typed::<SystemInfo>(b"system_info"),
    ) else {
        return EXIT_BUNDLE;
    };
    let endpoints = service_endpoints(&capset);
    if endpoints.len() > ENDPOINTS_MAX {
        return EXIT_BUNDLE;
    }
    let credentials = capset.get_typed::<CredentialStore>(b"credential_store");
    let audit = capset.get_typed::<AuditLog>(b"audit_log");
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let plan = service::boot::read_manifest(&mut ring, package);
    let Some(accounts) = plan.ok().and_then(|plan| Accounts::new(&plan).ok()) else {
        return EXIT_MANIFEST;
    };
    let mut desk = Desk {
        mint,
        entropy,
        system_info: info,
        credentials: credentials.ok(),
        audit: audit.ok(),
        accounts,
        endpoints,
        logins: Vec::new(),
        decided: Vec::new(),
        shells: Vec::new(),
    };
    let served = Server::new(
        &mut ring,
        &[manager, broker, launcher],
        RECEIVES,
        PARAMS_BYTES,
    )
    .and_then(|mut server| desk.serve(&mut ring, &mut server));
    match served {
        Ok(never) => match never {},
        Err(_) => EXIT_SERVING,
    }
}

entry_point!(main);
