//! The service graph: where each capability of each service comes from.
//!
//! The manifest is valid as data when it gets here. What is left to check is
//! what only init can: that every import is of an *earlier* service, since
//! services start in the order of the manifest, and that init has what it is
//! to pass on.
//!
//! A service that exports an endpoint under the name of a kernel source provides
//! that source: later services that ask for it get the calling side.
//!
//! An endpoint exported as `supervisor` or `keepsake` is an [`Office`]: init
//! serves it, and the exporter gets the calling side.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use capos::{CapSet, CapabilityRef, KernelCapSource, PRESERVE_CLIENT_ENDPOINT_BADGE};
use capos_config::{
    CapRef, CapSource, ENDPOINT_INTERFACE_ID, ManifestBootstrapPlan, RestartPolicy, ServiceEntry,
};

use crate::Failure;

/// How a service gets one of its capabilities.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    /// Made for it by the system.
    Fresh(KernelCapSource),
    /// The same that init holds.
    Forwarded(CapabilityRef),
    /// An endpoint that it exports: init makes it, so that it outlives the
    /// service. Which of its exports this is.
    Export(usize),
    /// The calling side of an endpoint that init serves.
    Office {
        /// Which of all offices.
        office: usize,
        /// Interface the holder sees.
        interface_id: u64,
        /// Badge its calls arrive with.
        badge: u64,
    },
    /// The calling side of an endpoint that an earlier service exports.
    Import {
        /// The exporter, as its place among the services.
        service: usize,
        /// Which of its exports.
        endpoint: usize,
        /// Interface the importer sees.
        interface_id: u64,
        /// Badge its calls arrive with.
        badge: u64,
    },
}

/// What init serves at an endpoint, by the name under which it is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Office {
    /// `supervisor`: ends services and starts them again.
    Supervisor,
    /// `keepsake`: keeps a note for the next instance of the exporter.
    Keepsake,
}

impl Office {
    fn named(name: &str) -> Option<Self> {
        match name {
            "supervisor" => Some(Self::Supervisor),
            "keepsake" => Some(Self::Keepsake),
            _ => None,
        }
    }
}

/// All offices, in the order of services and their capabilities.
pub(crate) fn offices(services: &[ServiceEntry]) -> impl Iterator<Item = Office> {
    services
        .iter()
        .flat_map(|service| named_offices(service).map(|(_, office)| office))
}

/// The offices of a service, with their names.
fn named_offices(service: &ServiceEntry) -> impl Iterator<Item = (&str, Office)> {
    let caps = own_endpoints(service).map(|cap| cap.name.as_str());
    caps.filter_map(|name| Some((name, Office::named(name)?)))
}

/// Which of all offices is the one that the service at `index` exports as `name`.
fn office(services: &[ServiceEntry], index: usize, name: &str) -> Option<usize> {
    let own = named_offices(&services[index]).position(|(own, _)| own == name)?;
    Some(offices(&services[..index]).count() + own)
}

/// What a service is granted, in the order of the manifest.
pub(crate) struct Recipe {
    pub(crate) grants: Vec<Source>,
    /// Endpoints it exports.
    pub(crate) exports: usize,
}

/// Recipes for all services, or why there cannot be any.
pub(crate) fn recipes(plan: &ManifestBootstrapPlan, held: &CapSet) -> Result<Vec<Recipe>, Failure> {
    let mut recipes: Vec<Recipe> = Vec::with_capacity(plan.services.len());
    for (index, service) in plan.services.iter().enumerate() {
        let earlier = &plan.services[..index];
        let grants = service
            .caps
            .iter()
            .map(|cap| {
                let is_it = |own: &CapRef| own.name == cap.name;
                if let Some(office) = office(&plan.services, index, &cap.name) {
                    return Ok(calling_office(office, cap));
                }
                match exported_endpoints(service).position(is_it) {
                    Some(export) => Ok(Source::Export(export)),
                    None => source(plan, held, earlier, cap),
                }
            })
            .collect::<Result<Vec<Source>, String>>()
            .map_err(|reason| Failure::Manifest(format!("service {}: {reason}", service.name)))?;
        check_restart(plan, service)?;
        recipes.push(Recipe {
            grants,
            exports: exported_endpoints(service).count(),
        });
    }
    Ok(recipes)
}

/// The service that ends the system does so with 0, or when it failed for good.
fn check_restart(plan: &ManifestBootstrapPlan, service: &ServiceEntry) -> Result<(), Failure> {
    let ends_the_system = plan.exit_when_service_exits.as_ref() == Some(&service.name);
    if service.restart != RestartPolicy::Always || !ends_the_system {
        return Ok(());
    }
    Err(Failure::Manifest(format!(
        "service {}: cannot always restart and end the system",
        service.name
    )))
}

/// The endpoints a service exports and serves, in the order it is granted them.
fn exported_endpoints(service: &ServiceEntry) -> impl Iterator<Item = &CapRef> {
    own_endpoints(service).filter(|cap| Office::named(&cap.name).is_none())
}

/// The endpoints a service exports, whoever serves them.
fn own_endpoints(service: &ServiceEntry) -> impl Iterator<Item = &CapRef> {
    service.caps.iter().filter(|cap| {
        let own = matches!(cap.source, CapSource::Kernel(source) if is_endpoint(source));
        own && service.exports.contains(&cap.name)
    })
}

/// Whether a kernel source is something that services provide.
const fn is_provided(source: KernelCapSource) -> bool {
    matches!(
        source,
        KernelCapSource::SessionManager
            | KernelCapSource::AuthorityBroker
            | KernelCapSource::CredentialStore
            | KernelCapSource::AuditLog
            | KernelCapSource::SystemInfo
            | KernelCapSource::Manual
            | KernelCapSource::LogSink
            | KernelCapSource::LogReader
            | KernelCapSource::RestrictedShellLauncher
    )
}

/// The calling side of what provides a kernel source.
fn provided(earlier: &[ServiceEntry], source: KernelCapSource) -> Option<Source> {
    let name = format!("{source}");
    let found = earlier.iter().enumerate().find_map(|(service, entry)| {
        let endpoint = exported_endpoints(entry).position(|cap| cap.name == name)?;
        Some((service, endpoint))
    });
    found.map(|(service, endpoint)| Source::Import {
        service,
        endpoint,
        interface_id: source.default_interface_id(),
        badge: PRESERVE_CLIENT_ENDPOINT_BADGE,
    })
}

const fn is_endpoint(source: KernelCapSource) -> bool {
    matches!(
        source,
        KernelCapSource::Endpoint | KernelCapSource::ChatEndpoint
    )
}

fn source(
    plan: &ManifestBootstrapPlan,
    held: &CapSet,
    earlier: &[ServiceEntry],
    cap: &CapRef,
) -> Result<Source, String> {
    match &cap.source {
        CapSource::Kernel(source) if is_provided(*source) => match provided(earlier, *source) {
            Some(facet) => Ok(facet),
            // What opens sessions is there without a service that has policy.
            None if *source == KernelCapSource::SessionManager => Ok(Source::Fresh(*source)),
            None => Err(format!(
                "asks for {source}, which no earlier service provides"
            )),
        },
        CapSource::Kernel(source) => Ok(kernel(plan, held, *source, &cap.name)),
        CapSource::Service(import) => {
            let (from, export) = (import.service.as_str(), import.export.as_str());
            let service = earlier.iter().position(|service| service.name == from);
            let service =
                service.ok_or_else(|| format!("imports from {from}, which starts later"))?;
            if let Some(office) = office(earlier, service, export) {
                return match Office::named(export) {
                    Some(Office::Keepsake) => {
                        Err(format!("imports {from}.{export}, which is its own"))
                    }
                    _ => Ok(calling_office(office, cap)),
                };
            }
            let exported = earlier[service].caps.iter().find(|cap| cap.name == export);
            match exported.map(|cap| &cap.source) {
                Some(CapSource::Kernel(source)) if is_endpoint(*source) => {
                    let mut exports = exported_endpoints(&earlier[service]);
                    let endpoint = exports.position(|cap| cap.name == export);
                    endpoint
                        .map(|endpoint| imported(service, endpoint, cap))
                        .ok_or_else(|| format!("imports {from}.{export}, which is not exported"))
                }
                Some(CapSource::Kernel(source)) => Ok(kernel(plan, held, *source, &cap.name)),
                _ => Err(format!("imports {from}.{export}, which cannot be had")),
            }
        }
    }
}

/// Interface and badge of a calling side.
fn labels(cap: &CapRef) -> (u64, u64) {
    let interface_id = match cap.expected_interface_id {
        0 => ENDPOINT_INTERFACE_ID,
        id => id,
    };
    let badge = match cap.badge {
        0 => PRESERVE_CLIENT_ENDPOINT_BADGE,
        badge => badge,
    };
    (interface_id, badge)
}

fn calling_office(office: usize, cap: &CapRef) -> Source {
    let (interface_id, badge) = labels(cap);
    Source::Office {
        office,
        interface_id,
        badge,
    }
}

fn imported(service: usize, endpoint: usize, cap: &CapRef) -> Source {
    let (interface_id, badge) = labels(cap);
    Source::Import {
        service,
        endpoint,
        interface_id,
        badge,
    }
}

/// What init holds of a kernel source is passed on, so that it stays one
/// authority; the rest is made for the child. Sources that are made anew for
/// each holder, or that only their holder may use, are never passed on.
fn kernel(
    plan: &ManifestBootstrapPlan,
    held: &CapSet,
    source: KernelCapSource,
    name: &str,
) -> Source {
    let shared = matches!(
        source,
        KernelCapSource::Console
            | KernelCapSource::BootPackage
            | KernelCapSource::Timer
            | KernelCapSource::TerminalSession
            | KernelCapSource::SshDevelopmentHostKey
            | KernelCapSource::TcpListenAuthority
            | KernelCapSource::AuthorizedKeyStore
    );
    let mut same = plan.init.caps.iter().filter(|cap| cap.source == source);
    let own = same
        .clone()
        .find(|cap| cap.name == name)
        .or_else(|| same.next());
    let own = own
        .filter(|_| shared)
        .and_then(|cap| held.get(cap.name.as_bytes()).ok());
    own.map_or(Source::Fresh(source), Source::Forwarded)
}
