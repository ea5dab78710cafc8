//! Starts the services, waits for them, stops them.
//!
//! Init holds a service's handle, and the endpoints it exports, until the service
//! ended for good. While it does, callers wait for the next instance: what an
//! instance was serving when it ended is answered `disconnected`, and the next
//! call reaches the one after it. When init gives an endpoint up, whoever calls
//! it is told that it is gone.

use alloc::format;
use alloc::vec::Vec;

use capos::{
    CallId, CapabilityRef, Client, ClientError, Endpoint, OwnedCapability, ProcessHandle,
    ProcessHandleClient, ProcessSpawnerClient, RuntimeRingClient, SpawnGrant, SpawnGrantMode,
    SpawnGrantSource,
};
use capos_config::{ManifestBootstrapPlan, RestartPolicy, ServiceEntry};

use sel4_capos_client::create_endpoint_wait;

use crate::graph::{Recipe, Source};
use crate::{EXIT_SERVICE, FOREVER, Failure, Herald};

/// How long to sleep on the completion queue at most. Looking at one service can
/// take a completion out of the queue that belongs to one looked at just before;
/// it is then found after this time.
const GLANCE_NS: u64 = 250_000_000;

/// How often a service is started again before it counts as failed.
const RESTARTS_MAX: u32 = 3;

/// What the services of a manifest come to.
pub(crate) struct Supervisor<'a> {
    herald: &'a mut Herald,
    spawner: ProcessSpawnerClient,
    plan: &'a ManifestBootstrapPlan,
    recipes: &'a [Recipe],
    services: Vec<Service>,
}

/// A service that was started.
struct Service {
    handle: ProcessHandleClient,
    /// Keeps the handle.
    owned: OwnedCapability<ProcessHandle>,
    /// The endpoints it exports; none once it ended for good.
    exports: Vec<OwnedCapability<Endpoint>>,
    wait: Option<CallId>,
    restarts: u32,
}

impl<'a> Supervisor<'a> {
    pub(crate) const fn new(
        herald: &'a mut Herald,
        spawner: ProcessSpawnerClient,
        plan: &'a ManifestBootstrapPlan,
        recipes: &'a [Recipe],
    ) -> Self {
        Self {
            herald,
            spawner,
            plan,
            recipes,
            services: Vec::new(),
        }
    }

    /// Starts everything and waits for the end; the exit code.
    pub(crate) fn run(mut self, ring: &mut RuntimeRingClient<'_>) -> Result<i64, Failure> {
        let ended = self.start(ring).and_then(|()| self.wait(ring));
        if ended.is_err() {
            self.stop(ring);
        }
        ended
    }

    fn start(&mut self, ring: &mut RuntimeRingClient<'_>) -> Result<(), Failure> {
        for index in 0..self.plan.services.len() {
            let exports = self.make_exports(ring, index)?;
            let (owned, handle) = self.spawn(ring, index, &exports)?;
            self.services.push(Service {
                handle,
                owned,
                exports,
                wait: None,
                restarts: 0,
            });
        }
        let name = |service: &ServiceEntry| service.name.clone();
        let names: Vec<_> = self.plan.services.iter().map(name).collect();
        self.herald
            .say(ring, format_args!("started {}", names.join(" ")));
        Ok(())
    }

    /// Makes the endpoints a service exports.
    fn make_exports(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        index: usize,
    ) -> Result<Vec<OwnedCapability<Endpoint>>, Failure> {
        let spawner = self.spawner.capability();
        let exports = 0..self.recipes[index].exports;
        exports
            .map(|_| create_endpoint_wait(spawner, ring, FOREVER))
            .collect::<Result<_, _>>()
            .map_err(|error| refused(&self.plan.services[index], &error))
    }

    fn spawn(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        index: usize,
        exports: &[OwnedCapability<Endpoint>],
    ) -> Result<(OwnedCapability<ProcessHandle>, ProcessHandleClient), Failure> {
        let entry = &self.plan.services[index];
        let grants = self.grants(index, exports)?;
        let spawned = self
            .spawner
            .spawn_wait_with_parent_endpoints(ring, &entry.name, &entry.binary, &grants, FOREVER)
            .map_err(|error| refused(entry, &error))?;
        let handle = ProcessHandleClient::from_capability(spawned.handle.capability());
        Ok((spawned.handle, handle))
    }

    fn grants(
        &self,
        index: usize,
        exports: &[OwnedCapability<Endpoint>],
    ) -> Result<Vec<SpawnGrant<'a>>, Failure> {
        let entry = &self.plan.services[index];
        let sources = self.recipes[index].grants.iter();
        let grants = entry.caps.iter().zip(sources);
        grants
            .map(|(cap, source)| {
                self.grant(&cap.name, *source, exports).ok_or_else(|| {
                    let (service, cap) = (&entry.name, &cap.name);
                    Failure::Service(format!("service {service}: {cap} is gone"))
                })
            })
            .collect()
    }

    fn grant(
        &self,
        name: &'a str,
        source: Source,
        exports: &[OwnedCapability<Endpoint>],
    ) -> Option<SpawnGrant<'a>> {
        let (source, mode, badge) = match source {
            Source::Fresh(source) => (SpawnGrantSource::Kernel(source), SpawnGrantMode::Raw, 0),
            Source::Forwarded(capability) => (
                SpawnGrantSource::Capability(capability),
                SpawnGrantMode::Raw,
                0,
            ),
            Source::Export(endpoint) => {
                let endpoint = exports.get(endpoint)?.capability().raw();
                let source = SpawnGrantSource::Capability(endpoint);
                (source, SpawnGrantMode::Raw, 0)
            }
            Source::Import {
                service,
                endpoint,
                interface_id,
                badge,
            } => {
                let owned = self.services.get(service)?.exports.get(endpoint)?;
                let capability: CapabilityRef = owned.capability().raw();
                let source = SpawnGrantSource::CapabilityAs {
                    capability,
                    interface_id,
                };
                (source, SpawnGrantMode::ClientEndpoint, badge)
            }
        };
        Some(SpawnGrant {
            name,
            source,
            mode,
            badge,
        })
    }

    /// Waits until all services ended, or the one that ends the system.
    fn wait(&mut self, ring: &mut RuntimeRingClient<'_>) -> Result<i64, Failure> {
        for index in 0..self.services.len() {
            self.watch(ring, index)?;
        }
        let mut exit_code = 0;
        while self.services.iter().any(|service| service.wait.is_some()) {
            let mut any_ended = false;
            for index in 0..self.services.len() {
                let Some(code) = self.ended(ring, index)? else {
                    continue;
                };
                any_ended = true;
                let entry = &self.plan.services[index];
                self.herald
                    .say(ring, format_args!("{}: exit {code}", entry.name));
                if self.plan.exit_when_service_exits.as_ref() == Some(&entry.name) {
                    self.stop(ring);
                    return Ok(code);
                }
                if self.restart(ring, index, code)? {
                    continue;
                }
                if code != 0 {
                    exit_code = EXIT_SERVICE;
                }
                self.give_up(ring, index)?;
            }
            // Saying and starting something takes completions out of the queue,
            // those of services that were looked at before among them: the
            // queue is slept on only after a look at which nothing happened.
            if !any_ended {
                let entered = ring.cap_enter(1, GLANCE_NS);
                entered.map_err(|error| Failure::Service(format!("waiting: {error:?}")))?;
            }
        }
        Ok(exit_code)
    }

    fn watch(&mut self, ring: &mut RuntimeRingClient<'_>, index: usize) -> Result<(), Failure> {
        let service = &mut self.services[index];
        let wait = service.handle.wait(ring);
        let taken = ring.cap_enter(0, 0).map_err(ClientError::Ring);
        match wait.and_then(|wait| taken.map(|_| wait)) {
            Ok(wait) => {
                service.wait = Some(wait);
                Ok(())
            }
            Err(error) => Err(lost(&self.plan.services[index], &error)),
        }
    }

    /// The exit code of a service that just ended.
    fn ended(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        index: usize,
    ) -> Result<Option<i64>, Failure> {
        let service = &mut self.services[index];
        let Some(wait) = service.wait else {
            return Ok(None);
        };
        let completion = ring.try_complete(wait).map_err(ClientError::Ring);
        let code = match completion {
            Ok(None) => return Ok(None),
            Ok(Some(completion)) => service.handle.finish_wait(completion),
            Err(error) => Err(error),
        };
        service.wait = None;
        code.map(Some)
            .map_err(|error| lost(&self.plan.services[index], &error))
    }

    /// Starts a service again if the manifest says so; whether it did.
    fn restart(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        index: usize,
        code: i64,
    ) -> Result<bool, Failure> {
        let entry = &self.plan.services[index];
        let wanted = match entry.restart {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Always => true,
        };
        let restarts = self.services[index].restarts + 1;
        if !wanted {
            return Ok(false);
        }
        if restarts > RESTARTS_MAX {
            let reason = "ended too often; not started again";
            self.herald
                .say(ring, format_args!("{}: {reason}", entry.name));
            return Ok(false);
        }
        let exports = core::mem::take(&mut self.services[index].exports);
        let spawned = self.spawn(ring, index, &exports);
        self.services[index].exports = exports;
        let (owned, handle) = match spawned {
            Ok(spawned) => spawned,
            Err(failure) => {
                self.herald.say(ring, format_args!("{failure}"));
                return Ok(false);
            }
        };
        let service = &mut self.services[index];
        (service.owned, service.handle) = (owned, handle);
        service.restarts = restarts;
        self.herald
            .say(ring, format_args!("{}: started again", entry.name));
        self.watch(ring, index)?;
        Ok(true)
    }

    /// Lets go of what a service exported that will not run again: calls that
    /// wait for it are answered, and so is every later one.
    fn give_up(&mut self, ring: &mut RuntimeRingClient<'_>, index: usize) -> Result<(), Failure> {
        self.services[index].exports.clear();
        ring.flush_releases()
            .map_err(|error| Failure::Service(format!("exports cannot be released: {error:?}")))
    }

    /// Ends whatever still runs, last started first.
    fn stop(&mut self, ring: &mut RuntimeRingClient<'_>) {
        for index in (0..self.services.len()).rev() {
            // One that ended by itself needs no stopping and takes none ill.
            if self.is_over(ring, index) {
                continue;
            }
            let stopped = self.services[index].handle.terminate_wait(ring, FOREVER);
            let name = &self.plan.services[index].name;
            match stopped {
                Ok(()) => self.herald.say(ring, format_args!("{name}: stopped")),
                Err(error) => {
                    self.herald
                        .say(ring, format_args!("{name}: cannot be stopped: {error:?}"));
                }
            }
        }
    }

    /// Whether a service that is watched has ended.
    fn is_over(&mut self, ring: &mut RuntimeRingClient<'_>, index: usize) -> bool {
        let watched = self.services.iter().any(|service| service.wait.is_some());
        watched && self.services[index].wait.is_none()
            || matches!(self.ended(ring, index), Ok(Some(_)))
    }
}

fn refused(service: &ServiceEntry, error: &ClientError) -> Failure {
    let (name, binary) = (&service.name, &service.binary);
    let reason = reason(error);
    Failure::Service(format!(
        "service {name}: program {binary} cannot be started: {reason}"
    ))
}

fn lost(service: &ServiceEntry, error: &ClientError) -> Failure {
    let reason = reason(error);
    Failure::Service(format!(
        "service {}: cannot be waited for: {reason}",
        service.name
    ))
}

/// The system's own words, where it has any.
fn reason(error: &ClientError) -> alloc::string::String {
    match error {
        ClientError::Application(exception) => exception.message().into(),
        other => format!("{other:?}"),
    }
}
