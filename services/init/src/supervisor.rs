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
    CallId, CapabilityRef, Client, ClientError, CompletedCall, Endpoint, ExceptionType,
    OwnedCapability, ProcessHandle, ProcessHandleClient, ProcessSpawnerClient, RuntimeRingClient,
    SpawnGrant, SpawnGrantMode, SpawnGrantSource,
};
use capos_config::{ManifestBootstrapPlan, RestartPolicy, ServiceEntry};

use sel4_capos_client::create_endpoint_wait;
use service::{Call, Event, Refusal, Reply, Server, ServerError, refuse};
use zeroize::Zeroizing;

use crate::graph::{self, Office, Recipe, Source};
use crate::office::{self, Request};
use crate::{EXIT_SERVICE, FOREVER, Failure, Herald};

/// How often a service is started again before it counts as failed.
const RESTARTS_MAX: u32 = 3;

/// Calls that are taken at a time from each of init's endpoints.
const RECEIVES: usize = 1;

/// What the services of a manifest come to.
pub(crate) struct Supervisor<'a> {
    herald: &'a mut Herald,
    spawner: ProcessSpawnerClient,
    plan: &'a ManifestBootstrapPlan,
    recipes: &'a [Recipe],
    services: Vec<Service>,
    offices: Vec<Desk>,
}

/// An endpoint that init serves.
struct Desk {
    office: Office,
    endpoint: OwnedCapability<Endpoint>,
    /// What a keepsake's service keeps.
    note: Zeroizing<Vec<u8>>,
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
            offices: Vec::new(),
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
        for office in graph::offices(&self.plan.services) {
            let endpoint = create_endpoint_wait(self.spawner.capability(), ring, FOREVER);
            self.offices.push(Desk {
                office,
                endpoint: endpoint.map_err(|error| Failure::Service(reason(&error)))?,
                note: Zeroizing::default(),
            });
        }
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
            Source::Office {
                office,
                interface_id,
                badge,
            } => calling_side(&self.offices.get(office)?.endpoint, interface_id, badge),
            Source::Import {
                service,
                endpoint,
                interface_id,
                badge,
            } => {
                let owned = self.services.get(service)?.exports.get(endpoint)?;
                calling_side(owned, interface_id, badge)
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
        let endpoints = self.offices.iter();
        let endpoints = endpoints.map(|desk| desk.endpoint.capability());
        let endpoints: Vec<_> = endpoints.collect();
        let server = Server::new(ring, &endpoints, RECEIVES, office::PARAMS_BYTES);
        let mut server = server.map_err(broken)?;
        let mut exit_code = 0;
        loop {
            let waits = self.services.iter().filter_map(|service| service.wait);
            let waits: Vec<CallId> = waits.collect();
            if waits.is_empty() {
                return Ok(exit_code);
            }
            match server.next(ring, &waits).map_err(broken)? {
                Event::Call(call) => {
                    let answer = self.serve(ring, &call);
                    server.answer(ring, call, answer).map_err(broken)?;
                }
                Event::Completed(wait, completion) => {
                    let Some(index) = self.waited_for(wait) else {
                        continue;
                    };
                    let code = self.ended(index, completion.0)?;
                    if let Some(code) = self.over(ring, index, code, &mut exit_code)? {
                        return Ok(code);
                    }
                }
            }
        }
    }

    /// Which service's end this call waits for.
    fn waited_for(&self, wait: CallId) -> Option<usize> {
        let mut services = self.services.iter();
        services.position(|service| service.wait == Some(wait))
    }

    /// Takes in the end of a service; the system's exit code if this ends it.
    fn over(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        index: usize,
        code: i64,
        exit_code: &mut i64,
    ) -> Result<Option<i64>, Failure> {
        let entry = &self.plan.services[index];
        self.herald
            .say(ring, format_args!("{}: exit {code}", entry.name));
        if self.restart(ring, index, code)? {
            return Ok(None);
        }
        if self.plan.exit_when_service_exits.as_ref() == Some(&entry.name) {
            self.stop(ring);
            return Ok(Some(code));
        }
        if code != 0 {
            *exit_code = EXIT_SERVICE;
        }
        self.give_up(ring, index)?;
        Ok(None)
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
    fn ended(&mut self, index: usize, completion: CompletedCall) -> Result<i64, Failure> {
        let service = &mut self.services[index];
        service.wait = None;
        let code = service.handle.finish_wait(completion);
        code.map_err(|error| lost(&self.plan.services[index], &error))
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
        if !wanted {
            return Ok(false);
        }
        if self.services[index].restarts == RESTARTS_MAX {
            let reason = "ended too often; not started again";
            self.herald
                .say(ring, format_args!("{}: {reason}", entry.name));
            return Ok(false);
        }
        self.services[index].restarts += 1;
        self.start_again(ring, index)
    }

    /// Starts a service that ended; whether it runs.
    fn start_again(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        index: usize,
    ) -> Result<bool, Failure> {
        let entry = &self.plan.services[index];
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
        self.herald
            .say(ring, format_args!("{}: started again", entry.name));
        self.watch(ring, index)?;
        Ok(true)
    }

    /// Answers a call at one of init's endpoints.
    fn serve(&mut self, ring: &mut RuntimeRingClient<'_>, call: &Call) -> Result<Reply, Refusal> {
        let desk = &mut self.offices[call.endpoint];
        match Request::of(desk.office, call)? {
            Request::Keep(note) => {
                desk.note = note;
                Ok(Reply::void())
            }
            Request::Kept => Ok(office::kept(&desk.note)),
            Request::Restart(name) => self.restart_on_request(ring, &name),
        }
    }

    fn restart_on_request(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        name: &str,
    ) -> Result<Reply, Refusal> {
        let failed = |message: &str| refuse(ExceptionType::Failed, message);
        let mut services = self.plan.services.iter();
        let index = services
            .position(|service| service.name == name)
            .ok_or_else(|| refuse(ExceptionType::InvalidArgument, "no such service"))?;
        let service = &mut self.services[index];
        let wait = service.wait;
        let wait = wait.ok_or_else(|| failed("it ended for good"))?;
        service
            .handle
            .terminate_wait(ring, FOREVER)
            .map_err(|_| failed("it cannot be ended"))?;
        let completion = ring.wait(wait, FOREVER);
        let completion = completion.map_err(|_| failed("its end cannot be waited for"))?;
        let code = self.ended(index, completion);
        let code = code.map_err(|failure| failed(&format!("{failure}")))?;
        self.herald
            .say(ring, format_args!("{name}: restart requested; exit {code}"));
        self.services[index].restarts = 0;
        if let Ok(true) = self.start_again(ring, index) {
            return Ok(Reply::void());
        }
        let given_up = self.give_up(ring, index);
        given_up.map_err(|failure| failed(&format!("{failure}")))?;
        Err(failed("it cannot be started, and is given up"))
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
        let Some(wait) = self.services[index].wait else {
            return watched;
        };
        let ended = matches!(ring.try_complete(wait), Ok(Some(_)));
        if ended {
            self.services[index].wait = None;
        }
        ended
    }
}

/// The grant of an endpoint's calling side.
fn calling_side(
    endpoint: &OwnedCapability<Endpoint>,
    interface_id: u64,
    badge: u64,
) -> (SpawnGrantSource, SpawnGrantMode, u64) {
    let capability: CapabilityRef = endpoint.capability().raw();
    let source = SpawnGrantSource::CapabilityAs {
        capability,
        interface_id,
    };
    (source, SpawnGrantMode::ClientEndpoint, badge)
}

fn broken(error: ServerError) -> Failure {
    Failure::Service(format!("waiting: {error:?}"))
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
