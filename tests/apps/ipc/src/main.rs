//! Starts a server and a client that may call it, and waits for both. With a
//! timer it also starts a program that only burns time, and the client holds
//! the system to answering at once all the same.
#![no_std]
#![no_main]

use capos::KernelCapSource;
use capos::prelude::*;
use raw_ring::family::{self, Child};
use raw_ring::proof::{self, Proof, equal};

/// Exit code of a process that was ended through its handle.
const TERMINATED: i64 = 137;

fn bystander(runtime: &mut Runtime) -> Result<Option<Child>, proof::Failure> {
    if runtime.capset().get(b"timer").is_err() {
        return Ok(None);
    }
    family::spawn(runtime, "bystander", &[]).map(Some)
}

fn prove(runtime: &mut Runtime) -> Proof {
    let console = family::same(runtime, "console")?;
    let endpoint = family::fresh("endpoint", KernelCapSource::Endpoint);
    let server = family::spawn(runtime, "ipc-server", &[console, endpoint])?;
    let bystander = bystander(runtime)?;
    let service = family::facet("server", server.endpoint(0)?);
    let client = match family::same(runtime, "timer") {
        Ok(timer) => family::spawn(runtime, "ipc-client", &[console, service, timer])?,
        Err(_) => family::spawn(runtime, "ipc-client", &[console, service])?,
    };
    client.succeeds(runtime, "the client")?;
    server.succeeds(runtime, "the server")?;
    if let Some(bystander) = bystander {
        bystander.terminate(runtime)?;
        equal("the bystander", bystander.wait(runtime)?, TERMINATED)?;
    }
    Ok(())
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "ipc", prove)
}

entry_point!(main);
