//! Computes Argon2id for those who keep credentials.
//!
//! A hash takes a large part of a second and megabytes. Here it holds up nobody
//! but the one who asked: whoever keeps credentials asks this program and goes
//! on serving, and this program leaves the class of services before it takes
//! its first call, so that it runs beside the applications and not before them.
//!
//! Holds: `hasher` (the endpoint it serves `PasswordHasher` at),
//! `virtual_memory`, and `thread_control`.
#![no_std]
#![no_main]

extern crate alloc;

use capos::prelude::*;
use capos::{Endpoint, ExceptionType, RuntimeRingClient, ThreadControl};
use policy::hashing::{self, HashingError};
use sel4_capos_schema::method;
use sel4_capos_schema::password_capnp::password_hasher;
use service::{Call, FOREVER, Refusal, Reply, Server, Service, empty_message, refuse, serve};

/// Calls that are taken at a time; the rest wait at the endpoint.
const RECEIVES: usize = 2;
/// A verifier, a password, and their framing.
const PARAMS_BYTES: usize = 1024;

const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;

struct Hasher {
    memory: VirtualMemoryClient,
}

impl From<ClientFailure> for Refusal {
    fn from(_: ClientFailure) -> Self {
        refuse(ExceptionType::Overloaded, "no memory for a hash")
    }
}

/// The system did not give or take back memory.
struct ClientFailure;

fn refused(error: HashingError) -> Refusal {
    let message = match error {
        HashingError::Verifier => "verifier is out of bounds",
        HashingError::Password => "password is empty or too long",
        HashingError::Salt => "salt is out of bounds",
        HashingError::Memory => "parameters are out of bounds",
    };
    refuse(ExceptionType::InvalidArgument, message)
}

impl Hasher {
    fn derive(&mut self, ring: &mut RuntimeRingClient<'_>, call: &Call) -> Result<Reply, Refusal> {
        let message = call.message()?;
        let params: password_hasher::derive_params::Reader<'_> = message.get_root()?;
        let (password, salt) = (params.get_password()?, params.get_salt()?);
        let count = hashing::blocks_for_new();
        let verifier = work_memory::with_blocks(&mut self.memory, ring, count, |blocks| {
            hashing::derive(password, salt, blocks)
        });
        let verifier = verifier.map_err(|_| ClientFailure)?.map_err(refused)?;
        let mut result = empty_message();
        let mut results: password_hasher::derive_results::Builder<'_> = result.init_root();
        results.set_verifier(&verifier);
        Ok(Reply::message(&result))
    }

    fn verify(&mut self, ring: &mut RuntimeRingClient<'_>, call: &Call) -> Result<Reply, Refusal> {
        let message = call.message()?;
        let params: password_hasher::verify_params::Reader<'_> = message.get_root()?;
        let (verifier, password) = (params.get_verifier()?.to_str()?, params.get_password()?);
        let count = hashing::blocks_for(verifier).map_err(refused)?;
        let matches = work_memory::with_blocks(&mut self.memory, ring, count, |blocks| {
            hashing::verify(verifier, password, blocks)
        });
        let matches = matches.map_err(|_| ClientFailure)?.map_err(refused)?;
        let mut result = empty_message();
        let mut results: password_hasher::verify_results::Builder<'_> = result.init_root();
        results.set_matches(matches);
        Ok(Reply::message(&result))
    }
}

impl Service for Hasher {
    fn has_method(&self, _endpoint: usize, method: u16) -> bool {
        matches!(method, method::DERIVE | method::VERIFY)
    }

    fn call(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &mut Call,
    ) -> Result<Reply, Refusal> {
        let answer = match call.method {
            method::DERIVE => self.derive(ring, call),
            _ => self.verify(ring, call),
        };
        call.erase_params();
        answer
    }
}

/// Stops outranking applications. A system without such classes has nothing to
/// leave.
fn step_back(ring: &mut RuntimeRingClient<'_>, control: capos::Capability<ThreadControl>) -> bool {
    match sel4_capos_client::leave_service_class_wait(control, ring, FOREVER) {
        Ok(()) => true,
        Err(ClientError::Application(exception)) => {
            exception.exception_type() == ExceptionType::Unimplemented
        }
        Err(_) => false,
    }
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let (Ok(endpoint), Ok(memory), Ok(control)) = (
        capset.get_typed::<Endpoint>(b"hasher"),
        capset.get_client::<VirtualMemoryClient>(b"virtual_memory"),
        capset.get_typed::<ThreadControl>(b"thread_control"),
    ) else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    if !step_back(&mut ring, control) {
        return EXIT_BUNDLE;
    }
    let Ok(server) = Server::new(&mut ring, &[endpoint], RECEIVES, PARAMS_BYTES) else {
        return EXIT_SERVING;
    };
    let Err(_) = serve(&mut ring, server, &mut Hasher { memory });
    EXIT_SERVING
}

entry_point!(main);
