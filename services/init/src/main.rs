//! The first program: starts the services of the boot manifest, and ends with
//! what they came to.
//!
//! It holds a console, the boot package and a process spawner, and goes through
//! four steps: read the manifest ([`manifest`]), settle where every capability
//! of every service comes from ([`graph`]), start the services in the order of
//! the manifest, wait for them ([`supervisor`]). Nothing is started before the
//! whole graph is known to be startable. While it waits it answers calls at the
//! endpoints it serves itself ([`office`]), if the manifest has any.
//!
//! Exit codes: 0 when every service ended with 0; the code of the service that
//! `exitWhenServiceExits` names, if it names one; else the codes below.
#![no_std]
#![no_main]

extern crate alloc;

mod graph;
mod manifest;
mod office;
mod supervisor;

use alloc::string::String;

use capos::prelude::*;
use capos::{
    BootPackage, CapabilityRef, CapabilityType, ProcessSpawner, ProcessSpawnerClient,
    RuntimeRingClient,
};

/// A service ended with another code than 0.
const EXIT_SERVICE: i64 = 1;
/// A service could not be started.
const EXIT_SPAWN: i64 = 2;
/// The manifest cannot be carried out.
const EXIT_MANIFEST: i64 = 3;
/// Init was not granted what it works with.
const EXIT_BUNDLE: i64 = 4;

/// Waits that end when what is waited for happens.
const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;

/// Why init ends early.
pub(crate) enum Failure {
    /// It was not granted a capability of this interface.
    Bundle(&'static str),
    /// The manifest, in words.
    Manifest(String),
    /// A service that was to run does not, in words.
    Service(String),
}

impl Failure {
    const fn exit_code(&self) -> i64 {
        match self {
            Self::Bundle(_) => EXIT_BUNDLE,
            Self::Manifest(_) => EXIT_MANIFEST,
            Self::Service(_) => EXIT_SPAWN,
        }
    }
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Bundle(interface) => write!(f, "init was granted no {interface}"),
            Self::Manifest(text) => write!(f, "manifest: {text}"),
            Self::Service(text) => f.write_str(text),
        }
    }
}

/// Speaks for init on the console.
pub(crate) struct Herald(ConsoleClient);

impl Herald {
    /// Prints a line. One that cannot be printed is lost: the exit code tells.
    pub(crate) fn say(&mut self, ring: &mut RuntimeRingClient<'_>, text: core::fmt::Arguments<'_>) {
        let line = alloc::format!("[init] {text}");
        let _ = self.0.write_line_wait(ring, &line, FOREVER);
    }
}

/// What a process holds of an interface: by the usual name, or under any.
fn held(runtime: &Runtime, name: &[u8], interface_id: u64) -> Option<CapabilityRef> {
    let capset = runtime.capset();
    let named = capset
        .get(name)
        .ok()
        .filter(|found| found.interface_id() == interface_id);
    named.or_else(|| {
        let mut entries = capset.iter();
        let entry = entries.find(|entry| entry.interface_id == interface_id)?;
        Some(CapabilityRef::new(entry.cap_id, entry.interface_id))
    })
}

fn main(mut runtime: Runtime) -> i64 {
    let Some(mut herald) = held(&runtime, b"console", Console::INTERFACE_ID)
        .and_then(|console| console.typed::<Console>())
        .map(|console| Herald(ConsoleClient::from_capability(console)))
    else {
        return EXIT_BUNDLE;
    };
    let outcome = run(&mut runtime, &mut herald);
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    match outcome {
        Ok(code) => {
            herald.say(&mut ring, format_args!("done; exit {code}"));
            code
        }
        Err(failure) => {
            let code = failure.exit_code();
            herald.say(&mut ring, format_args!("{failure}; exit {code}"));
            code
        }
    }
}

fn run(runtime: &mut Runtime, herald: &mut Herald) -> Result<i64, Failure> {
    let package = held(runtime, b"boot_package", BootPackage::INTERFACE_ID)
        .and_then(|package| package.typed::<BootPackage>())
        .ok_or(Failure::Bundle("BootPackage"))?;
    let spawner = held(runtime, b"process_spawner", ProcessSpawner::INTERFACE_ID)
        .and_then(|spawner| spawner.typed::<ProcessSpawner>())
        .ok_or(Failure::Bundle("ProcessSpawner"))?;
    let capset = runtime.capset();
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::Bundle("capability ring"))?;
    let plan = manifest::read(&mut ring, package)?;
    herald.say(
        &mut ring,
        format_args!(
            "manifest accepted: programs {}, services {}",
            plan.binaries.len(),
            plan.services.len()
        ),
    );
    let recipes = graph::recipes(&plan, &capset)?;
    let spawner = ProcessSpawnerClient::from_capability(spawner);
    supervisor::Supervisor::new(herald, spawner, &plan, &recipes).run(&mut ring)
}

entry_point!(main);
