//! Parents and children: starting a program with what it is to have, through
//! the published clients, and waiting for it.
//!
//! The ring client of the runtime lives only inside these functions, so that a
//! parent can use the raw ring in between.

use alloc::format;
use alloc::vec::Vec;

use capos::{
    CapabilityManager, CapabilityManagerClient, CapabilityRef, CapabilityType, Client, Endpoint,
    KernelCapSource, OwnedCapability, ProcessHandle, ProcessHandleClient, ProcessSpawnerClient,
    Runtime, RuntimeRingClient, SpawnGrant, SpawnGrantMode, SpawnGrantSource,
};
use capos_config::PRESERVE_CLIENT_ENDPOINT_BADGE;

use crate::PATIENCE_NS;
use crate::proof::{Failure, Proof, equal};

/// Name of the spawner in a parent's CapSet.
const SPAWNER: &[u8] = b"spawner";

/// A program that was started.
pub struct Child {
    handle: OwnedCapability<ProcessHandle>,
    manager: OwnedCapability<CapabilityManager>,
    endpoints: Vec<OwnedCapability<Endpoint>>,
}

impl Child {
    /// The calling side of the child's own endpoint, in the order granted.
    ///
    /// # Errors
    /// The child got no such endpoint.
    pub fn endpoint(&self, index: usize) -> Result<CapabilityRef, Failure> {
        let endpoint = self.endpoints.get(index);
        let endpoint = endpoint.ok_or_else(|| Failure::new("no endpoint of the child"))?;
        Ok(endpoint.capability().raw())
    }

    /// The numbers of its handle and its manager in this process.
    pub fn result_ids(&self) -> [u32; 2] {
        [self.handle.cap_id(), self.manager.cap_id()]
    }

    /// Waits for its end; its exit code.
    ///
    /// # Errors
    /// It does not end in time, or cannot be waited for.
    pub fn wait(&self, runtime: &mut Runtime) -> Result<i64, Failure> {
        let mut handle = ProcessHandleClient::from_capability(self.handle.capability());
        let mut ring = client(runtime)?;
        handle
            .wait_wait(&mut ring, PATIENCE_NS)
            .map_err(|error| Failure::new(format!("ProcessHandle.wait: {error:?}")))
    }

    /// Waits for its end, which must be a success.
    ///
    /// # Errors
    /// As [`Child::wait`], or another exit code than 0.
    pub fn succeeds(&self, runtime: &mut Runtime, what: &str) -> Proof {
        equal(what, self.wait(runtime)?, 0)
    }

    /// Ends it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn terminate(&self, runtime: &mut Runtime) -> Proof {
        let mut handle = ProcessHandleClient::from_capability(self.handle.capability());
        let mut ring = client(runtime)?;
        handle
            .terminate_wait(&mut ring, PATIENCE_NS)
            .map_err(|error| Failure::new(format!("ProcessHandle.terminate: {error:?}")))
    }

    /// The child's number for what it holds of `interface_id`, as its manager
    /// lists it.
    ///
    /// # Errors
    /// It holds nothing of the kind.
    pub fn find(&self, runtime: &mut Runtime, interface_id: u64) -> Result<u32, Failure> {
        let mut manager = CapabilityManagerClient::from_capability(self.manager.capability());
        let mut ring = client(runtime)?;
        let list = manager
            .list_wait(&mut ring, PATIENCE_NS)
            .map_err(|error| Failure::new(format!("CapabilityManager.list: {error:?}")))?;
        let found = list.iter().find(|info| info.interface_id == interface_id);
        let found = found.ok_or_else(|| Failure::new("the manager lists no such capability"))?;
        Ok(found.id)
    }

    /// Revokes what the child holds of `T`.
    ///
    /// # Errors
    /// It holds nothing of the kind, or the system refuses.
    pub fn revoke<T: CapabilityType>(&self, runtime: &mut Runtime) -> Proof {
        let cap_id = self.find(runtime, T::INTERFACE_ID)?;
        let mut manager = CapabilityManagerClient::from_capability(self.manager.capability());
        let mut ring = client(runtime)?;
        manager
            .revoke_wait(&mut ring, cap_id, PATIENCE_NS)
            .map_err(|error| Failure::new(format!("CapabilityManager.revoke: {error:?}")))
    }
}

fn client(runtime: &mut Runtime) -> Result<RuntimeRingClient<'_>, Failure> {
    runtime
        .ring_client()
        .map_err(|error| Failure::new(format!("ring client: {error:?}")))
}

/// Starts `program` with `grants`.
///
/// # Errors
/// The system refuses.
pub fn spawn(
    runtime: &mut Runtime,
    program: &str,
    grants: &[SpawnGrant<'_>],
) -> Result<Child, Failure> {
    let spawner = runtime.capset().get_client::<ProcessSpawnerClient>(SPAWNER);
    let mut spawner = spawner.map_err(|_| Failure::new("no capability `spawner`"))?;
    let mut ring = client(runtime)?;
    let spawned = spawner
        .spawn_wait_with_parent_endpoints(&mut ring, program, program, grants, PATIENCE_NS)
        .map_err(|error| Failure::new(format!("spawn of {program}: {error:?}")))?;
    Ok(Child {
        handle: spawned.handle,
        manager: spawned.capability_manager,
        endpoints: spawned.parent_endpoints,
    })
}

/// Repeats what this process holds as `name`, under the same name.
///
/// # Errors
/// It holds nothing of that name.
pub fn same<'a>(runtime: &Runtime, name: &'a str) -> Result<SpawnGrant<'a>, Failure> {
    let capability = held(runtime, name)?;
    Ok(SpawnGrant {
        name,
        source: SpawnGrantSource::Capability(capability),
        mode: SpawnGrantMode::Raw,
        badge: 0,
    })
}

/// The calling side of an endpoint that this process owns or may call.
pub const fn facet(name: &str, endpoint: CapabilityRef) -> SpawnGrant<'_> {
    labelled(name, endpoint, PRESERVE_CLIENT_ENDPOINT_BADGE)
}

/// As [`facet`], with a badge.
pub const fn labelled(name: &str, endpoint: CapabilityRef, badge: u64) -> SpawnGrant<'_> {
    SpawnGrant {
        name,
        source: SpawnGrantSource::Capability(endpoint),
        mode: SpawnGrantMode::ClientEndpoint,
        badge,
    }
}

/// A capability made for the child.
pub const fn fresh(name: &str, source: KernelCapSource) -> SpawnGrant<'_> {
    SpawnGrant {
        name,
        source: SpawnGrantSource::Kernel(source),
        mode: SpawnGrantMode::Raw,
        badge: 0,
    }
}

/// What this process holds as `name`.
///
/// # Errors
/// Nothing.
pub fn held(runtime: &Runtime, name: &str) -> Result<CapabilityRef, Failure> {
    let found = runtime.capset().get(name.as_bytes());
    found.map_err(|_| Failure::new(format!("no capability `{name}`")))
}
