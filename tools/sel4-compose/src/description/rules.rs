//! What a manifest must keep to beyond its shape.
//!
//! Everything is checked on the tree, so that each complaint has its place.
//! capos-config's own validators run behind this (`super`); these rules come
//! first because they can say what to do, and because the system has bounds of
//! its own: what the personality serves, and how much of it.

use capos_config::capset::{CAPSET_MAX_ENTRIES, CAPSET_NAME_MAX};
use capos_config::ring::MAX_TRANSFER_DESCRIPTORS;
use capos_config::{
    ENDPOINT_INTERFACE_ID, KernelCapSource, PRESERVE_CLIENT_ENDPOINT_BADGE, ResourceProfile,
};
use ring_server_core::PROCESS_SLOTS;

use super::located::{Complaint, choose, listed};
use super::lower::{INIT, INIT_CAPS};
use super::tree::Node;
use super::{interfaces, shape, sources};

/// Programs of one manifest (capos-config, `MAX_LAUNCHER_LIST_BINARY_COUNT`).
const PROGRAMS_MAX: usize = 64;
/// Longest name of a program or service in bytes (the same,
/// `MAX_LAUNCHER_LIST_BINARY_NAME_BYTES`).
const NAME_BYTES_MAX: usize = 64;
/// Result capabilities of a spawn besides its endpoints: handle and manager.
const SPAWN_RESULT_CAPS: usize = 2;
/// Services there can be beside init.
const SERVICES_MAX: usize = PROCESS_SLOTS - 1;
/// The resource profile that sets the quotas of init (`root-task`).
const SYSTEM_PROFILE: &str = "system";
/// The manifest version there is.
const VERSION: u64 = capos_config::SYSTEM_MANIFEST_SCHEMA_VERSION as u64;

/// Complains about everything in a manifest that has the right shape.
pub fn check(manifest: &Node) -> Vec<Complaint> {
    let mut checker = Checker {
        manifest,
        complaints: Vec::new(),
    };
    checker.version();
    checker.programs();
    checker.init();
    checker.services();
    checker.end();
    checker.quotas();
    checker.complaints
}

struct Checker<'a> {
    manifest: &'a Node,
    complaints: Vec<Complaint>,
}

/// A service by the parts that others refer to.
#[derive(Clone, Copy)]
struct Service<'a> {
    node: &'a Node,
    name: &'a str,
}

impl<'a> Service<'a> {
    fn of(node: &'a Node) -> Self {
        Self {
            node,
            name: text(node, "name"),
        }
    }

    fn caps(&self) -> &'a [Node] {
        list(self.node, "caps")
    }

    fn exports(&self) -> Vec<&'a str> {
        let exports = list(self.node, "exports").iter();
        exports.filter_map(Node::as_text).collect()
    }

    fn cap(&self, name: &str) -> Option<&'a Node> {
        self.caps().iter().find(|cap| text(cap, "name") == name)
    }

    /// The services it imports from.
    fn imports(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.caps()
            .iter()
            .filter_map(|cap| Some(text(import(cap)?, "service")))
    }
}

fn text<'a>(node: &'a Node, key: &str) -> &'a str {
    node.get(key).and_then(Node::as_text).unwrap_or_default()
}

fn list<'a>(node: &'a Node, key: &str) -> &'a [Node] {
    node.get(key).map_or(&[], Node::items)
}

/// The service source of a capability, if it has one.
fn import(cap: &Node) -> Option<&Node> {
    cap.get("source")?.get("service")
}

/// The kernel source of a capability, if it has one.
fn kernel(cap: &Node) -> Option<&Node> {
    cap.get("source")?.get("kernel")
}

/// The kernel source of a capability, if it is one of capOS's.
fn kernel_source(cap: &Node) -> Option<KernelCapSource> {
    let name = kernel(cap)?.as_text()?;
    sources::find(name).map(|source| source.source)
}

impl<'a> Checker<'a> {
    fn complain(&mut self, at: &Node, what: impl Into<String>, advice: impl Into<String>) {
        self.complaints.push(Complaint::new(&at.span, what, advice));
    }

    fn init_config(&self) -> &'a Node {
        self.manifest.get("initConfig").unwrap_or(self.manifest)
    }

    fn program_names(&self) -> Vec<&'a str> {
        let binaries = list(self.manifest, "binaries").iter();
        binaries.map(|binary| text(binary, "name")).collect()
    }

    fn all_services(&self) -> Vec<Service<'a>> {
        list(self.init_config(), "services")
            .iter()
            .map(Service::of)
            .collect()
    }

    fn version(&mut self) {
        if let Some(version) = self.manifest.get("schemaVersion")
            && version.as_uint() != Some(VERSION)
        {
            let found = version.as_uint().unwrap_or_default();
            let what = format!("manifest version {found} is not known");
            self.complain(
                version,
                what,
                format!("write {VERSION}, the only one there is"),
            );
        }
    }

    fn programs(&mut self) {
        let binaries = list(self.manifest, "binaries");
        let names = self.program_names();
        for (index, binary) in binaries.iter().enumerate() {
            let node = binary.get("name").unwrap_or(binary);
            let name = names[index];
            self.name(node, "program", name);
            if name == INIT {
                self.complain(
                    node,
                    format!("the program name `{INIT}` is reserved for the init that is supplied"),
                    "give the program another name and put it into `init.binary`",
                );
            }
            if names[..index].contains(&name) {
                let what = format!("there are two programs called `{name}`");
                self.complain(node, what, "rename one, or take it out");
            }
        }
        if let Some(one_more) = binaries.get(PROGRAMS_MAX) {
            let what = format!("{} programs are more than {PROGRAMS_MAX}", binaries.len());
            self.complain(one_more, what, "take some out: a manifest cannot name more");
        }
    }

    /// A name of a program or a service.
    fn name(&mut self, at: &Node, what: &str, name: &str) {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() {
            self.complain(at, format!("a {what} without a name"), "give it one");
        } else if name.len() > NAME_BYTES_MAX {
            let complaint = format!("the {what} name `{name}` has {} bytes", name.len());
            self.complain(
                at,
                complaint,
                format!("shorten it to {NAME_BYTES_MAX} bytes"),
            );
        } else if !name.chars().all(good) || name.starts_with('.') {
            let complaint = format!("the {what} name `{name}` has characters it cannot have");
            let advice = "use letters, digits, `-`, `_` and, not at the start, `.`";
            self.complain(at, complaint, advice);
        }
    }

    fn init(&mut self) {
        let Some(init) = self.init_config().get("init") else {
            return;
        };
        self.binary(init);
        let caps = list(init, "caps");
        self.caps(init, "init", caps, &[]);
        for cap in caps {
            if let Some(import) = import(cap) {
                let advice = "grant it from a kernel source: nothing runs before init";
                self.complain(import, "init cannot import from a service", advice);
            }
        }
        if text(init, "binary") == INIT {
            self.init_bundle(init, caps);
        }
    }

    /// The supplied init cannot work without its three capabilities.
    fn init_bundle(&mut self, init: &Node, caps: &[Node]) {
        let held: Vec<&str> = caps
            .iter()
            .filter_map(|cap| kernel(cap)?.as_text())
            .collect();
        let lacks: Vec<&str> = INIT_CAPS
            .into_iter()
            .filter(|name| !held.contains(name))
            .collect();
        if !lacks.is_empty() {
            let at = init.get("caps").unwrap_or(init);
            let what = format!("`{INIT}` is not granted {}", listed(&lacks));
            self.complain(
                at,
                what,
                format!(
                    "grant it {}: it starts services with them",
                    listed(&INIT_CAPS)
                ),
            );
        }
    }

    fn binary(&mut self, user: &Node) {
        let Some(binary) = user.get("binary") else {
            return;
        };
        let name = binary.as_text().unwrap_or_default();
        let mut known = self.program_names();
        let is_init = self
            .init_config()
            .get("init")
            .is_some_and(|init| init == user);
        if known.contains(&name) || (is_init && name == INIT) {
            return;
        }
        if name == INIT {
            let advice = "init runs once; name another program";
            self.complain(
                binary,
                format!("`{INIT}` cannot be a service's program"),
                advice,
            );
            return;
        }
        known.sort_unstable();
        let what = format!("there is no program `{name}`");
        self.complain(
            binary,
            what,
            choose(name, &known, "declare it under `programs`"),
        );
    }

    /// What holds for the capabilities of init and services alike.
    fn caps(&mut self, holder: &Node, who: &str, caps: &[Node], providers: &[Service<'a>]) {
        if let Some(one_more) = caps.get(CAPSET_MAX_ENTRIES) {
            let what = format!("{who} has {} capabilities", caps.len());
            let advice = format!("grant {CAPSET_MAX_ENTRIES} at most: a CapSet page holds no more");
            self.complain(one_more, what, advice);
        }
        for (index, cap) in caps.iter().enumerate() {
            let name = text(cap, "name");
            let at = cap.get("name").unwrap_or(holder);
            if name.is_empty() {
                self.complain(at, "a capability without a name", "give it one");
            } else if name.len() > CAPSET_NAME_MAX {
                let what = format!("the capability name `{name}` has {} bytes", name.len());
                self.complain(at, what, format!("shorten it to {CAPSET_NAME_MAX} bytes"));
            }
            if caps[..index]
                .iter()
                .any(|prior| text(prior, "name") == name)
            {
                let what = format!("{who} has two capabilities called `{name}`");
                self.complain(at, what, "rename one: programs look them up by name");
            }
            if cap
                .get("source")
                .is_some_and(|source| source.fields().len() != 1)
            {
                let what =
                    format!("the source of `{name}` is not exactly one of `kernel` and `service`");
                self.complain(cap, what, "say one of the two");
            }
            self.kernel_source(cap, providers);
        }
    }

    fn kernel_source(&mut self, cap: &Node, providers: &[Service<'a>]) {
        let Some(node) = kernel(cap) else { return };
        let name = node.as_text().unwrap_or_default();
        let served = sources::served();
        let Some(source) = sources::find(name) else {
            let complaint = shape::unknown_source(&node.span, name);
            self.complaints.push(complaint);
            return;
        };
        if sources::is_for_measuring(source.source) {
            let what = format!("kernel source `{name}` is for measuring kernels only");
            self.complain(node, what, "take it out");
        } else if sources::is_provided(source.source) && provides(providers, name) {
            // A service is behind it.
        } else if sources::is_provided(source.source) && !sources::is_served(source.source) {
            let what = format!("kernel source `{name}` has no provider");
            let advice =
                format!("put a service before this one that exports an endpoint called `{name}`");
            self.complain(node, what, advice);
        } else if !sources::is_served(source.source) {
            let what = format!("kernel source `{name}` is not served");
            self.complain(
                node,
                what,
                format!("this system serves {}", listed(&served)),
            );
        }
        self.kernel_labels(cap, name, source.source);
    }

    fn kernel_labels(&mut self, cap: &Node, name: &str, source: KernelCapSource) {
        if let Some(badge) = cap.get("badge").filter(|badge| badge.as_uint() != Some(0)) {
            let what = format!("kernel source `{name}` cannot have a badge");
            self.complain(
                badge,
                what,
                "put the badge where a service imports an endpoint",
            );
        }
        let provides = source.default_interface_id();
        if let Some(node) = cap.get("expectedInterfaceId")
            && let Some(wanted) = node.as_uint()
            && wanted != provides
        {
            let what = format!(
                "`{}` is to be {}, but kernel source `{name}` gives {}",
                text(cap, "name"),
                interfaces::name(wanted),
                interfaces::name(provides)
            );
            self.complain(
                node,
                what,
                "name the other source, or take the interface out",
            );
        }
        if let Some(scope) = cap
            .get("disclosureScope")
            .filter(|scope| !scope.items().is_empty())
            && !sources::is_endpoint(source)
        {
            let what = format!("kernel source `{name}` discloses nothing");
            self.complain(
                scope,
                what,
                "take `disclosureScope` out: it is for endpoints",
            );
        }
    }

    fn services(&mut self) {
        let services = self.all_services();
        if let Some(one_more) = services.get(SERVICES_MAX) {
            let what = format!("{} services are more than {SERVICES_MAX}", services.len());
            let advice =
                format!("take some out: the system runs {PROCESS_SLOTS} processes, init included");
            self.complain(one_more.node, what, advice);
        }
        for (index, service) in services.iter().enumerate() {
            self.service(service, &services[..index]);
            for cap in service.caps() {
                self.import(service, index, cap, &services);
            }
        }
    }

    fn service(&mut self, service: &Service<'a>, earlier: &[Service<'a>]) {
        let Service { node, name } = *service;
        let at = node.get("name").unwrap_or(node);
        self.name(at, "service", name);
        if name == INIT {
            let what = format!("a service called `{INIT}`");
            self.complain(at, what, "give it another name: init is what starts it");
        }
        if earlier.iter().any(|prior| prior.name == name) {
            let what = format!("there are two services called `{name}`");
            self.complain(
                at,
                what,
                "rename one; two services can run the same `binary`",
            );
        }
        self.binary(node);
        let who = format!("service `{name}`");
        self.caps(node, &who, service.caps(), earlier);
        self.endpoints(service);
        self.exports(service);
        self.restart(service);
    }

    fn endpoints(&mut self, service: &Service<'a>) {
        const ENDPOINTS_MAX: usize = MAX_TRANSFER_DESCRIPTORS - SPAWN_RESULT_CAPS;
        let endpoints = service.caps().iter();
        let endpoints: Vec<&Node> = endpoints
            .filter(|cap| kernel_source(cap).is_some_and(sources::is_endpoint))
            .collect();
        if let Some(one_more) = endpoints.get(ENDPOINTS_MAX) {
            let what = format!(
                "service `{}` owns {} endpoints",
                service.name,
                endpoints.len()
            );
            let advice =
                format!("grant it {ENDPOINTS_MAX} at most: a spawn gives init no more facets");
            self.complain(one_more, what, advice);
        }
        for cap in endpoints {
            let scope = cap
                .get("disclosureScope")
                .filter(|scope| !scope.items().is_empty());
            if let Some(scope) = scope {
                let what = "a spawned service's endpoint has no disclosure scope";
                self.complain(scope, what, "take it out: ProcessSpawner cannot grant one");
            }
        }
    }

    fn exports(&mut self, service: &Service<'a>) {
        let exports = list(service.node, "exports");
        for (index, export) in exports.iter().enumerate() {
            let name = export.as_text().unwrap_or_default();
            if exports[..index]
                .iter()
                .any(|prior| prior.as_text() == Some(name))
            {
                let what = format!("service `{}` exports `{name}` twice", service.name);
                self.complain(export, what, "keep one of the two");
            }
            let Some(cap) = service.cap(name) else {
                let known: Vec<&str> = service.caps().iter().map(|cap| text(cap, "name")).collect();
                let what = format!(
                    "service `{}` exports `{name}`, which it does not have",
                    service.name
                );
                self.complain(export, what, choose(name, &known, "grant it under `caps`"));
                continue;
            };
            if let Some(from) = import(cap) {
                let what = format!("`{name}` is itself imported and cannot be exported again");
                let advice = format!("have importers import it from `{}`", text(from, "service"));
                self.complain(export, what, advice);
            }
            if let Some(source) = kernel_source(cap)
                && sources::is_served(source)
                && !sources::is_exportable(source)
            {
                let what = format!(
                    "`{name}` cannot be exported: kernel source `{source}` is for its holder alone"
                );
                let advice = format!("grant the others `{source}` of their own");
                self.complain(export, what, advice);
            }
        }
    }

    fn restart(&mut self, service: &Service<'a>) {
        let Some(restart) = service.node.get("restart") else {
            return;
        };
        let policy = restart.as_text().unwrap_or_default();
        if policy != "always" {
            return;
        }
        let exit = self.init_config().get("exitWhenServiceExits");
        if exit.and_then(Node::as_text) == Some(service.name) {
            let what = format!(
                "`{}` cannot always restart and end the system",
                service.name
            );
            self.complain(
                restart,
                what,
                "write `on-failure`, or take `exitWhenServiceExits` out",
            );
        }
    }

    /// One import of the service at `index`.
    fn import(&mut self, importer: &Service<'a>, index: usize, cap: &'a Node, all: &[Service<'a>]) {
        let Some(source) = import(cap) else { return };
        let at = source.get("service").unwrap_or(source);
        let wanted = text(source, "service");
        let Some(found) = all.iter().position(|service| service.name == wanted) else {
            let known: Vec<&str> = all.iter().map(|service| service.name).collect();
            let what = format!("there is no service `{wanted}`");
            self.complain(
                at,
                what,
                choose(wanted, &known, "declare it under `services`"),
            );
            return;
        };
        if found >= index {
            self.order(importer, at, found == index, &all[found], all);
        }
        self.export_of(cap, source, &all[found]);
    }

    fn order(
        &mut self,
        importer: &Service<'a>,
        at: &Node,
        itself: bool,
        from: &Service<'a>,
        all: &[Service<'a>],
    ) {
        let (name, wanted) = (importer.name, from.name);
        if itself {
            let advice = "use the capability it imports there directly";
            self.complain(at, format!("service `{name}` imports from itself"), advice);
        } else if let Some(way) = way(from, name, all) {
            let cycle = [&[name], way.as_slice()].concat().join(" -> ");
            let what = format!("services import from each other in a cycle: {cycle}");
            let advice = "break the cycle: a service can import only from those started before it";
            self.complain(at, what, advice);
        } else {
            let what = format!("service `{name}` imports from `{wanted}`, which starts after it");
            self.complain(at, what, format!("put `{wanted}` before `{name}`"));
        }
    }

    fn export_of(&mut self, cap: &Node, source: &Node, from: &Service<'a>) {
        let export = text(source, "export");
        let exports = from.exports();
        if !exports.contains(&export) {
            let at = source.get("export").unwrap_or(source);
            let what = format!("service `{}` does not export `{export}`", from.name);
            let otherwise = format!("write `exports = [\"{export}\"]` there");
            self.complain(at, what, choose(export, &exports, &otherwise));
            return;
        }
        let Some(provided) = from.cap(export).and_then(kernel_source) else {
            return;
        };
        self.import_labels(cap, provided);
    }

    fn import_labels(&mut self, cap: &Node, provided: KernelCapSource) {
        let endpoint = sources::is_endpoint(provided);
        let provides = provided.default_interface_id();
        if let Some(badge) = cap.get("badge") {
            match badge.as_uint() {
                Some(PRESERVE_CLIENT_ENDPOINT_BADGE) => self.complain(
                    badge,
                    "badge 2^64 - 1 has a meaning of its own",
                    "choose another: it means `keep the badge there is`",
                ),
                Some(1..) if !endpoint => self.complain(
                    badge,
                    "only an imported endpoint has a badge",
                    "take the badge out",
                ),
                _ => {}
            }
        }
        if let Some(node) = cap.get("expectedInterfaceId")
            && let Some(wanted) = node.as_uint()
            && wanted != provides
            && wanted != 0
            && !endpoint
        {
            let what = format!(
                "`{}` is to be {}, but what is exported is {}",
                text(cap, "name"),
                interfaces::name(wanted),
                interfaces::name(provides)
            );
            self.complain(
                node,
                what,
                "import something else, or take the interface out",
            );
        }
        debug_assert!(!endpoint || provides == ENDPOINT_INTERFACE_ID);
        let scope = cap
            .get("disclosureScope")
            .filter(|scope| !scope.items().is_empty());
        if let Some(scope) = scope {
            let what = "an imported capability has the disclosure scope of its export";
            self.complain(scope, what, "take `disclosureScope` out");
        }
    }

    /// The profile that sets the quotas of init must let it do its work.
    fn quotas(&mut self) {
        let params = self.manifest.get("kernelParams");
        let profiles = params.map_or(&[][..], |params| list(params, "resourceProfiles"));
        let system = profiles
            .iter()
            .find(|profile| text(profile, "name") == SYSTEM_PROFILE);
        let Some(system) = system else { return };
        for (key, usual) in quota_keys() {
            if system.get(key).is_none() {
                let what =
                    format!("resource profile `{SYSTEM_PROFILE}` lacks `{key}`, which then is 0");
                self.complain(
                    system,
                    what,
                    format!("write `{key} = {usual}`, as is usual, or another number"),
                );
            }
        }
        let services = self.all_services();
        self.quota(system, "processLimit", services.len(), "services");
        let endpoints = services.iter().flat_map(Service::caps);
        let endpoints =
            endpoints.filter(|cap| kernel_source(cap).is_some_and(sources::is_endpoint));
        let init = self
            .init_config()
            .get("init")
            .map_or(0, |init| list(init, "caps").len());
        let held = init + SPAWN_RESULT_CAPS * services.len() + endpoints.count();
        self.quota(system, "capLimit", held, "capabilities of init");
    }

    fn quota(&mut self, profile: &Node, key: &str, needed: usize, of: &str) {
        if let Some(node) = profile.get(key)
            && node.as_uint().is_some_and(|limit| limit < needed as u64)
        {
            let limit = node.as_uint().unwrap_or_default();
            let what = format!("`{key}` of resource profile `{SYSTEM_PROFILE}` is {limit}");
            self.complain(
                node,
                what,
                format!("write {needed} at least, for as many {of}"),
            );
        }
    }

    fn end(&mut self) {
        let Some(exit) = self.init_config().get("exitWhenServiceExits") else {
            return;
        };
        let wanted = exit.as_text().unwrap_or_default();
        let services = self.all_services();
        if !services.iter().any(|service| service.name == wanted) {
            let known: Vec<&str> = services.iter().map(|service| service.name).collect();
            let what = format!("the system cannot end with `{wanted}`: there is no such service");
            self.complain(
                exit,
                what,
                choose(wanted, &known, "declare it under `services`"),
            );
        }
    }
}

/// Whether one of these services provides the kernel source of this name.
fn provides(services: &[Service<'_>], name: &str) -> bool {
    services.iter().any(|service| {
        let endpoint = service.cap(name).and_then(kernel_source);
        service.exports().contains(&name) && endpoint.is_some_and(sources::is_endpoint)
    })
}

/// Keys of a resource profile that bound a process, with what capOS has where
/// no profile is named. A key that is left out counts as 0.
fn quota_keys() -> [(&'static str, u64); 10] {
    let usual = ResourceProfile::default();
    [
        ("processLimit", usual.process_limit.into()),
        ("threadLimit", usual.thread_limit.into()),
        ("capLimit", usual.cap_limit.into()),
        ("memoryCommitLimitBytes", usual.memory_commit_limit_bytes),
        ("frameGrantLimitPages", usual.frame_grant_limit_pages),
        ("endpointQueueLimit", usual.endpoint_queue_limit.into()),
        ("inFlightCallLimit", usual.in_flight_call_limit.into()),
        ("ringScratchLimitBytes", usual.ring_scratch_limit_bytes),
        ("replyScratchLimitBytes", usual.reply_scratch_limit_bytes),
        ("timerWaiterLimit", usual.timer_waiter_limit.into()),
    ]
}

/// The imports that lead from `from` to `to`, both ends included.
fn way<'a>(from: &Service<'a>, to: &str, all: &[Service<'a>]) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![from.name]];
    let mut seen = vec![from.name];
    while let Some(way) = ways.pop() {
        let last = way.last().copied().unwrap_or_default();
        if last == to {
            return Some(way);
        }
        let service = all.iter().find(|service| service.name == last);
        for next in service.into_iter().flat_map(Service::imports) {
            if !seen.contains(&next) {
                seen.push(next);
                ways.push([way.as_slice(), &[next]].concat());
            }
        }
    }
    None
}
