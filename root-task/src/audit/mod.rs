//! What processes really hold, compared with the books (docs/audit.md).
//!
//! Runs only on systems whose boot archive has an `audit` entry: at the end of
//! boot, at the period the entry names, and at the end. The root task asks the
//! kernel and the hardware, and compares with the broker's records, the badges
//! it gave out, and the hardware it declares:
//!
//! | module | asks |
//! |---|---|
//! | `capabilities` | every slot of every CSpace, and of the root CNode |
//! | `domains` | the same of the protection domains, by the description |
//! | `memory` | every level of page tables, and every page of every table |
//! | `probe` | the thread through which the hardware is asked |
//! | `record` | nothing; writes what was found to the log |
//!
//! It allocates and takes long, so it is no part of answering anybody: no
//! message is pending while it runs.

mod capabilities;
mod domains;
mod memory;
#[cfg(feature = "plant")]
mod plant;
mod probe;
mod record;

use cap_broker::BrokerError;
use sel4::cap;

use crate::client::BuildError;
use crate::domains::Domains;
use crate::log;
use crate::world::World;
use probe::Probe;
use record::Record;

/// Name of the entry of the boot archive that asks for audits.
pub const ENTRY: &str = "audit";
/// Milliseconds between audits, in the entry.
const EVERY: &str = "every-ms=";
/// What to plant before the first audit, in the entry.
#[cfg(feature = "plant")]
const PLANT: &str = "plant=";

/// When to compare.
#[derive(Debug)]
pub struct Auditor {
    every_ns: Option<u64>,
    due: Option<u64>,
    #[cfg(feature = "plant")]
    plant: Option<alloc::string::String>,
}

/// Why an audit could not be carried out.
#[derive(Debug)]
pub enum AuditError {
    /// Memory or slots for it.
    Broker(BrokerError),
    /// An invocation the comparison itself needs.
    Kernel(sel4::Error),
    /// The probe did not run.
    Silence,
}

impl From<BrokerError> for AuditError {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl From<BuildError> for AuditError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Broker(error) => Self::Broker(error),
            BuildError::Kernel(error) => Self::Kernel(error),
            BuildError::NotPrepared => Self::Silence,
        }
    }
}

impl From<sel4::Error> for AuditError {
    fn from(error: sel4::Error) -> Self {
        Self::Kernel(error)
    }
}

impl Auditor {
    /// What the entry of the boot archive asks for.
    pub fn new(entry: &[u8]) -> Self {
        let text = core::str::from_utf8(entry).unwrap_or_default();
        let value = |key| text.lines().find_map(|line| line.strip_prefix(key));
        let every_ms = value(EVERY).and_then(|number: &str| number.parse::<u64>().ok());
        Self {
            every_ns: every_ms.filter(|&ms| ms > 0).map(|ms| ms * 1_000_000),
            due: None,
            #[cfg(feature = "plant")]
            plant: value(PLANT).map(alloc::string::String::from),
        }
    }

    /// When the next one is due.
    pub const fn next_due(&self) -> Option<u64> {
        self.due
    }

    /// Compares, and sets when to do so again. Returns the badges of signals that
    /// came meanwhile.
    #[must_use]
    pub fn run(
        &mut self,
        world: &mut World,
        domains: &Domains,
        timer: cap::IrqHandler,
        when: &str,
    ) -> u64 {
        #[cfg(feature = "plant")]
        if let Some(what) = self.plant.take() {
            plant::plant(world, domains, &what);
        }
        let mut record = Record::begin(when);
        let mut signals = 0;
        let outcome = compare(world, domains, timer, &mut record, &mut signals);
        record.end(outcome);
        let now = world.clock.now_ns();
        self.due = self.every_ns.map(|every| now + every);
        signals
    }
}

fn compare(
    world: &mut World,
    domains: &Domains,
    timer: cap::IrqHandler,
    record: &mut Record,
    signals: &mut u64,
) -> Result<(), AuditError> {
    let means = world.means().for_endpoint(world.endpoint());
    let probe = Probe::make(&mut world.broker, &means, timer)?;
    let outcome = compare_with(world, domains, &probe, record);
    *signals = probe.signals();
    let freed = probe.unmake(&mut world.broker);
    outcome.and(freed)
}

fn compare_with(
    world: &mut World,
    domains: &Domains,
    probe: &Probe,
    record: &mut Record,
) -> Result<(), AuditError> {
    capabilities::root_task(world, domains, probe, record)?;
    for slot in 0..world.client_slots() {
        let Some(client) = world.client_in(slot) else {
            continue;
        };
        let space = client.space;
        record.process(client);
        capabilities::cspace(world, probe, slot, record)?;
        memory::space(world, probe, space, record)?;
    }
    domains::living(world, domains, probe, record)?;
    record.root_task();
    capabilities::root_cnode(world, probe, record)
}

impl core::fmt::Display for AuditError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Broker(error) => write!(f, "{error}"),
            Self::Kernel(error) => write!(f, "seL4: {error:?}"),
            Self::Silence => f.write_str("the probe does not run"),
        }
    }
}

/// Says that the entry is there.
pub fn announce(auditor: &Auditor) {
    match auditor.every_ns {
        Some(every) => log!("audit: at boot, every {} ms, at the end", every / 1_000_000),
        None => log!("audit: at boot and at the end"),
    }
}
