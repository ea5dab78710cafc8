//! The service graph: where each capability of each service comes from.
//!
//! The manifest is valid as data when it gets here. What is left to check is
//! what only init can: that every import is of an *earlier* service, since
//! services start in the order of the manifest, and that init has what it is
//! to pass on.

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
    /// The calling side of an endpoint that an earlier service owns.
    Import {
        /// The owner, as its place among the services.
        service: usize,
        /// Which of the owner's endpoints, in the order it was granted them.
        endpoint: usize,
        /// Interface the importer sees.
        interface_id: u64,
        /// Badge its calls arrive with.
        badge: u64,
    },
}

/// What a service is granted, in the order of the manifest.
pub(crate) struct Recipe {
    pub(crate) grants: Vec<Source>,
    /// Whether a later service imports one of its endpoints.
    pub(crate) is_imported: bool,
}

/// Recipes for all services, or why there cannot be any.
pub(crate) fn recipes(plan: &ManifestBootstrapPlan, held: &CapSet) -> Result<Vec<Recipe>, Failure> {
    let mut recipes: Vec<Recipe> = Vec::with_capacity(plan.services.len());
    for (index, service) in plan.services.iter().enumerate() {
        let earlier = &plan.services[..index];
        let grants = service
            .caps
            .iter()
            .map(|cap| source(plan, held, earlier, cap))
            .collect::<Result<Vec<Source>, String>>()
            .map_err(|reason| Failure::Manifest(format!("service {}: {reason}", service.name)))?;
        check_restart(plan, service)?;
        for grant in &grants {
            if let Source::Import { service, .. } = grant {
                recipes[*service].is_imported = true;
            }
        }
        recipes.push(Recipe {
            grants,
            is_imported: false,
        });
    }
    Ok(recipes)
}

/// A service that starts again has new endpoints, and nobody left to give it
/// those of others.
fn check_restart(plan: &ManifestBootstrapPlan, service: &ServiceEntry) -> Result<(), Failure> {
    let imports = |cap: &CapRef| matches!(cap.source, CapSource::Service(_));
    let ends_the_system = plan.exit_when_service_exits.as_ref() == Some(&service.name);
    let stands_alone = service.exports.is_empty() && !service.caps.iter().any(imports);
    if service.restart == RestartPolicy::Never || (stands_alone && !ends_the_system) {
        return Ok(());
    }
    let reason = "cannot restart: it imports, exports, or ends the system";
    Err(Failure::Manifest(format!(
        "service {}: {reason}",
        service.name
    )))
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
        CapSource::Kernel(source) => Ok(kernel(plan, held, *source, &cap.name)),
        CapSource::Service(import) => {
            let (from, export) = (import.service.as_str(), import.export.as_str());
            let service = earlier.iter().position(|service| service.name == from);
            let service =
                service.ok_or_else(|| format!("imports from {from}, which starts later"))?;
            let exported = earlier[service].caps.iter().find(|cap| cap.name == export);
            match exported.map(|cap| &cap.source) {
                Some(CapSource::Kernel(source)) if is_endpoint(*source) => {
                    let endpoint = endpoint_index(&earlier[service], export);
                    Ok(imported(service, endpoint, cap))
                }
                Some(CapSource::Kernel(source)) => Ok(kernel(plan, held, *source, &cap.name)),
                _ => Err(format!("imports {from}.{export}, which cannot be had")),
            }
        }
    }
}

fn imported(service: usize, endpoint: usize, cap: &CapRef) -> Source {
    let interface_id = match cap.expected_interface_id {
        0 => ENDPOINT_INTERFACE_ID,
        id => id,
    };
    let badge = match cap.badge {
        0 => PRESERVE_CLIENT_ENDPOINT_BADGE,
        badge => badge,
    };
    Source::Import {
        service,
        endpoint,
        interface_id,
        badge,
    }
}

/// Which of a service's endpoints is called `name`.
fn endpoint_index(service: &ServiceEntry, name: &str) -> usize {
    let before = service.caps.iter().take_while(|cap| cap.name != name);
    let endpoints =
        before.filter(|cap| matches!(cap.source, CapSource::Kernel(s) if is_endpoint(s)));
    endpoints.count()
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
            | KernelCapSource::SystemInfo
            | KernelCapSource::TerminalSession
            | KernelCapSource::SshDevelopmentHostKey
            | KernelCapSource::TcpListenAuthority
            | KernelCapSource::AuthorizedKeyStore
            | KernelCapSource::RestrictedShellLauncher
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
