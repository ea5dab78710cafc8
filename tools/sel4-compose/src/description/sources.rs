//! Kernel sources: which there are, which this system serves, and which of
//! them a service may pass on.

use std::sync::LazyLock;

use capos_config::manifest::FromCueValue;
use capos_config::{CueValue, KernelCapSource};
use ring_server_core::{Object, TransferMode, transfer_mode};

/// A kernel source and the name manifests give it.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// The source.
    pub source: KernelCapSource,
}

/// Every source of capOS, in the order of its schema.
///
/// capos-config keeps the list to itself, but names all of it when it refuses
/// a name.
pub static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let refusal = KernelCapSource::from_cue_value(&CueValue::text("")).map_err(|e| e.to_string());
    let names = refusal.err().unwrap_or_default();
    let names = names.split('`').skip(1).step_by(2);
    names.filter_map(find).collect()
});

/// The source called `name`.
pub fn find(name: &str) -> Option<Source> {
    let source = KernelCapSource::from_cue_value(&CueValue::text(name)).ok()?;
    let name = name.to_owned();
    Some(Source { name, source })
}

/// Whether this source makes an endpoint for whoever it is granted to.
pub const fn is_endpoint(source: KernelCapSource) -> bool {
    matches!(
        source,
        KernelCapSource::Endpoint | KernelCapSource::ChatEndpoint
    )
}

/// Whether the personality has anything behind this source.
pub const fn is_served(source: KernelCapSource) -> bool {
    is_endpoint(source) || Object::from_source(source).is_ok()
}

/// Whether this source is what a service makes of it: a service that exports an
/// endpoint of this name provides the source to those behind it.
pub const fn is_provided(source: KernelCapSource) -> bool {
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

/// Whether this source is for measuring kernels only.
pub const fn is_for_measuring(source: KernelCapSource) -> bool {
    matches!(source, KernelCapSource::Null | KernelCapSource::ParkBench)
}

/// Whether a service that was granted this source may export it. Endpoints are
/// exported as their calling side; of the rest, what may be copied. The one
/// terminal stays with whom it was granted to: capos-config refuses to export
/// it.
pub const fn is_exportable(source: KernelCapSource) -> bool {
    if is_endpoint(source) {
        return true;
    }
    if matches!(source, KernelCapSource::TerminalSession) {
        return false;
    }
    match Object::from_source(source) {
        Ok(object) => matches!(transfer_mode(object), TransferMode::Copy),
        Err(_) => false,
    }
}

/// Names of the sources that are served.
pub fn served() -> Vec<&'static str> {
    let served = SOURCES.iter().filter(|source| is_served(source.source));
    served.map(|source| source.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_is_served_and_stays_where_it_is() {
        let terminal = find("terminal_session").expect("a source").source;
        assert!(is_served(terminal) && !is_exportable(terminal));
    }

    #[test]
    fn the_list_is_complete_and_in_order() {
        assert!(SOURCES.len() >= 50, "{}", SOURCES.len());
        assert_eq!(SOURCES[0].name, "console");
        for source in SOURCES.iter() {
            assert_eq!(source.source.to_string(), source.name);
        }
    }

    #[test]
    fn endpoints_and_what_can_be_copied_are_exported() {
        for (source, exportable) in [
            (KernelCapSource::Endpoint, true),
            (KernelCapSource::Console, true),
            (KernelCapSource::ProcessSpawner, false),
            (KernelCapSource::ParkSpace, false),
            (KernelCapSource::Store, false),
        ] {
            assert_eq!(is_exportable(source), exportable, "{source}");
        }
    }
}
