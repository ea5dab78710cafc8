//! What the shell holds: what it was started with, and the bundle of its
//! session.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::any::Any;

use capos::{
    CapSet, Capability, CapabilityRef, CapabilityType, Endpoint, OwnedCapability, ShellBundleResult,
};

/// Where a capability comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The shell was started with it.
    Start,
    /// It is part of the session's bundle, and goes with it.
    Bundle,
}

/// A capability and its name.
pub(crate) struct Holding {
    pub(crate) name: String,
    pub(crate) capability: CapabilityRef,
    pub(crate) origin: Origin,
    /// Releases it when dropped; what the shell was started with is its own as
    /// long as it runs.
    _owned: Option<Box<dyn Any>>,
}

/// All capabilities by name.
pub(crate) struct Holdings(Vec<Holding>);

impl Holdings {
    /// What the shell was started with.
    pub(crate) fn at_start(capset: CapSet) -> Self {
        let entries = capset.iter().map(|entry| Holding {
            name: String::from_utf8_lossy(entry.name_bytes()).into_owned(),
            capability: CapabilityRef::new(entry.cap_id, entry.interface_id),
            origin: Origin::Start,
            _owned: None,
        });
        Self(entries.collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Holding> {
        self.0.iter()
    }

    /// The capability called `name`. What a bundle brings comes first.
    pub(crate) fn find(&self, name: &str) -> Option<&Holding> {
        let mut named = self.0.iter().filter(|holding| holding.name == name);
        let first = named.next()?;
        let bundled = named.find(|holding| holding.origin == Origin::Bundle);
        Some(bundled.unwrap_or(first))
    }

    pub(crate) fn get<T: CapabilityType>(&self, name: &str) -> Option<Capability<T>> {
        self.find(name)?.capability.typed()
    }

    /// The calling side of a standard service: under its interface, or as the
    /// plain endpoint that a bundle passes on.
    pub(crate) fn service<T: CapabilityType>(&self, name: &str) -> Option<Capability<T>> {
        let capability = self.find(name)?.capability;
        capability.typed().or_else(|| {
            let endpoint = capability.typed::<Endpoint>()?;
            CapabilityRef::new(endpoint.cap_id(), T::INTERFACE_ID).typed()
        })
    }

    /// Gives the bundle up and takes another.
    pub(crate) fn exchange(&mut self, bundle: ShellBundleResult) {
        self.drop_bundle();
        self.add("session", bundle.session);
        self.add("launcher", bundle.launcher);
        self.add("system_info", bundle.system_info);
        for service in bundle.service_endpoints {
            self.add(&service.name, service.endpoint);
        }
    }

    /// Gives the bundle up.
    pub(crate) fn drop_bundle(&mut self) {
        self.0.retain(|holding| holding.origin == Origin::Start);
    }

    fn add<T: CapabilityType + 'static>(&mut self, name: &str, owned: OwnedCapability<T>) {
        let capability = CapabilityRef::new(owned.cap_id(), T::INTERFACE_ID);
        self.0.push(Holding {
            name: name.to_string(),
            capability,
            origin: Origin::Bundle,
            _owned: Some(Box::new(owned)),
        });
    }

    /// Takes a capability out, with its origin.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Holding> {
        let wanted = self.find(name)?.capability.cap_id();
        let place = self
            .0
            .iter()
            .position(|one| one.capability.cap_id() == wanted)?;
        Some(self.0.remove(place))
    }
}
