//! The protection domains of the system description.
//!
//! [`Domains::start`] makes them out of the boot archive. What outlives a
//! domain belongs to its place: the notification and the endpoint others hold
//! capabilities to, interrupts, ports, memory regions. A domain itself is a
//! [`Life`], made again after a fault from the program as packed.
//!
//! # Theory of operation
//! A domain with a parent faults to its parent, one without faults here. Its
//! fault ends it together with its children and with those that call it, who
//! may wait for an answer that will not come. Then all of them are made again,
//! with private memory regions cleared and shared ones as they are, unless the
//! domain has had [`RESTARTS_MAX`] new lives within [`RESTARTS_WITHIN_NS`].
//!
//! The domain called `root-task` is this program: its channels end at the
//! notification bound to the event loop's thread, and the regions it maps are
//! seen through the broker's window.
//!
//! # Invariants
//! - **P1** The badge of a fault names the domain's index ([`fault_badge`]);
//!   what the message says is a claim.
//! - **P2** Nothing here waits for a domain.

use core::fmt;
use core::ptr::NonNull;

use alloc::vec::Vec;

use cap_broker::{
    Broker, BrokerError, DeviceError, FrameId, ObjectKind, OwnedObject, Pin, PortRange, Trigger,
};
use capos_domains::{Domain, Source, System, badge, slot};
use sel4::{
    CapRights, FAST_MESSAGE_REGISTERS, FAULT_HANDLER_IN_TCB, Fault, MessageInfo, Word, cap,
    init_thread,
};

use crate::archive::Package;
use crate::domain::{CALLER, Life, MakeError, Parts};
use crate::gate::{DOMAIN_BIT, SIGNAL_BADGE};
use crate::log;
use crate::means::Means;
use crate::window::Page;

/// Marks the badge of a domain's fault; the index is below.
pub const FAULT_BADGE: u64 = 1 << 26;
/// New lives a domain has, within [`RESTARTS_WITHIN_NS`].
const RESTARTS_MAX: usize = 3;
/// A minute.
const RESTARTS_WITHIN_NS: u64 = 60_000_000_000;
/// Channels that end at the root task: the badge's bits above those of interrupts.
pub const CHANNELS_MAX: usize = 16;
/// Signals of a channel nobody here listens to that the log tells of.
const SIGNALS_TOLD: u32 = 16;
/// Frames of a region that the root task sees as one piece, as a power of two.
const RUN_BITS_MAX: u32 = 8;
/// Bits of this kernel's badges.
const BADGE_BITS: u32 = sel4::BADGE_MAX.trailing_ones();

/// The badge of the faults of the domain at `index` (P1).
const fn fault_badge(index: usize) -> u64 {
    FAULT_BADGE | index as u64
}

/// The badge of the root task's channel at `index` among its channels.
const fn signal_badge(index: usize) -> u64 {
    SIGNAL_BADGE | 1 << (DOMAIN_BIT as usize + index)
}

/// Why the domains could not be made.
#[derive(Debug)]
pub enum DomainsError {
    /// A domain.
    Make(usize, MakeError),
    /// An interrupt or ports of a domain.
    Device(usize, DeviceError),
    /// Memory for what outlives domains.
    Broker(BrokerError),
    /// The kernel refused something.
    Kernel(sel4::Error),
    /// The archive lacks the program of a domain.
    Program(usize),
    /// A region for the root task is larger than it can see at once, or it has
    /// too many channels.
    RootTask,
}

impl fmt::Display for DomainsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make(index, error) => write!(f, "domain {index}: {error}"),
            Self::Device(index, error) => write!(f, "domain {index}: device: {error}"),
            Self::Broker(error) => write!(f, "domains: {error}"),
            Self::Kernel(error) => write!(f, "domains: seL4: {error:?}"),
            Self::Program(index) => write!(f, "domain {index}: its program is not packed"),
            Self::RootTask => {
                f.write_str("the root task has too large regions or too many channels")
            }
        }
    }
}

impl From<BrokerError> for DomainsError {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl From<sel4::Error> for DomainsError {
    fn from(error: sel4::Error) -> Self {
        Self::Kernel(error)
    }
}

/// Ports the root task has and a domain may use.
pub type Lent = (PortRange, cap::IoPort);

pub const fn range_of(ports: &capos_domains::Ports) -> PortRange {
    PortRange {
        first: ports.first,
        last: ports.last,
    }
}

/// The place of a domain: what outlives it.
struct Place {
    program: &'static [u8],
    notification: OwnedObject,
    endpoint: Option<OwnedObject>,
    interrupts: Vec<(u8, cap::IrqHandler)>,
    ports: Vec<(u8, cap::IoPort)>,
    life: Option<Life>,
    /// When it got its last new lives, oldest first.
    restarts: Vec<u64>,
}

/// An end of a channel at the root task.
struct Line {
    /// Index of the domain at the other end.
    peer: usize,
    /// The channel's number here.
    id: u8,
    /// The other end's notification, with the badge of this channel.
    notification: Option<cap::Notification>,
    told: u32,
}

/// A serial port that a domain drives.
pub struct DrivenPort {
    /// Index of the domain.
    pub domain: usize,
    /// The ring towards it.
    pub output: NonNull<[u8]>,
    /// The ring from it.
    pub input: NonNull<[u8]>,
    /// Tells it that there is something new, or room again.
    pub signal: cap::Notification,
    /// The badge of its own signals.
    pub badge: u64,
}

/// The domains.
pub struct Domains {
    system: System,
    regions: Vec<Vec<FrameId>>,
    places: Vec<Option<Place>>,
    lines: Vec<Line>,
    fault_endpoint: cap::Endpoint,
    own_notification: cap::Notification,
}

/// A message that arrived with the badge of a domain's fault.
pub struct DomainFault<'a> {
    /// The badge.
    pub badge: u64,
    /// Label and length.
    pub info: MessageInfo,
    /// Its words in registers.
    pub words: &'a [Word; FAST_MESSAGE_REGISTERS],
}

impl Domains {
    /// Makes every domain and lets them run once this thread waits.
    ///
    /// # Errors
    /// [`DomainsError`]; the system does not start then, so what was made
    /// stays.
    pub fn start(
        broker: &mut Broker,
        package: &Package,
        system: System,
        fault_endpoint: cap::Endpoint,
        own_notification: cap::Notification,
        lent: &[Lent],
        means: &Means,
    ) -> Result<Self, DomainsError> {
        let mut domains = Self {
            regions: Vec::with_capacity(system.regions.len()),
            places: Vec::with_capacity(system.domains.len()),
            lines: Vec::new(),
            fault_endpoint,
            own_notification,
            system,
        };
        domains.make_regions(broker)?;
        for index in 0..domains.system.domains.len() {
            let place = domains.make_place(broker, package, index, lent)?;
            domains.places.push(place);
        }
        domains.connect_root_task(broker)?;
        let all: Vec<usize> = (0..domains.places.len()).collect();
        domains.enliven(broker, means, &all)?;
        Ok(domains)
    }

    fn make_regions(&mut self, broker: &mut Broker) -> Result<(), DomainsError> {
        let root_task = self
            .system
            .root_task()
            .map(|index| &self.system.domains[index]);
        for (index, region) in self.system.regions.iter().enumerate() {
            let mut maps = root_task.into_iter().flat_map(|domain| &domain.maps);
            let is_seen = maps.any(|map| usize::from(map.region) == index);
            let mut frames = Vec::with_capacity(region.pages as usize);
            if is_seen {
                let bits = region.pages.next_power_of_two().trailing_zeros();
                if bits > RUN_BITS_MAX {
                    return Err(DomainsError::RootTask);
                }
                let run = broker.allocate_frame_run(bits as u8)?;
                frames.extend((0..region.pages).map(|page| run.at(page)));
            } else {
                for _ in 0..region.pages {
                    frames.push(broker.allocate_frame()?);
                }
            }
            self.regions.push(frames);
        }
        Ok(())
    }

    fn make_place(
        &self,
        broker: &mut Broker,
        package: &Package,
        index: usize,
        lent: &[Lent],
    ) -> Result<Option<Place>, DomainsError> {
        let domain = &self.system.domains[index];
        if domain.is_root_task {
            return Ok(None);
        }
        let program = package
            .domain(&domain.name)
            .ok_or(DomainsError::Program(index))?;
        let object = |kind| broker.sizes().object(kind);
        let (notification, endpoint) = (
            object(ObjectKind::Notification),
            object(ObjectKind::Endpoint),
        );
        let endpoint = match domain.receives(&self.system) {
            true => Some(broker.create_object(endpoint)?),
            false => None,
        };
        let mut place = Place {
            program,
            notification: broker.create_object(notification)?,
            endpoint,
            interrupts: Vec::new(),
            ports: Vec::new(),
            life: None,
            restarts: Vec::with_capacity(RESTARTS_MAX),
        };
        let device = |error| DomainsError::Device(index, error);
        for ports in &domain.ports {
            let range = range_of(ports);
            let lent = lent.iter().find(|(lent, _)| *lent == range);
            let ports_cap = match lent {
                Some((_, ports)) => *ports,
                None => broker.request_ports(range).map_err(device)?,
            };
            place.ports.push((ports.id, ports_cap));
        }
        for irq in &domain.interrupts {
            let handler = match irq.source {
                Source::Pin {
                    ioapic,
                    pin,
                    level,
                    low,
                } => broker.request_irq_at(Pin { ioapic, pin }, trigger(level, low), irq.vector),
                Source::Message {
                    bus,
                    device,
                    function,
                    handle,
                } => broker.request_message((bus, device, function), handle, irq.vector),
            };
            let handler = handler.map_err(device)?;
            let badge = badge::signal(BADGE_BITS, self.system.incoming_mask(domain), irq.id);
            let badged = mint(broker, place.signal(), badge)?;
            handler.irq_handler_set_notification(badged)?;
            place.interrupts.push((irq.id, handler));
        }
        Ok(Some(place))
    }

    /// Gives the root task its ends of channels.
    fn connect_root_task(&mut self, broker: &mut Broker) -> Result<(), DomainsError> {
        let Some(root_task) = self.system.root_task() else {
            return Ok(());
        };
        let channels = &self.system.domains[root_task].channels;
        if channels.len() > CHANNELS_MAX {
            return Err(DomainsError::RootTask);
        }
        for channel in channels {
            let peer = usize::from(channel.peer);
            let domain = &self.system.domains[peer];
            let notification = match (&self.places[peer], channel.notify) {
                (Some(place), true) => {
                    let incoming = self.system.incoming_mask(domain);
                    let badge = badge::signal(BADGE_BITS, incoming, channel.peer_id);
                    Some(mint(broker, place.signal(), badge)?)
                }
                _ => None,
            };
            self.lines.push(Line {
                peer,
                id: channel.id,
                notification,
                told: 0,
            });
        }
        Ok(())
    }

    /// Makes lives for the domains at `indices`, parents first, and starts
    /// them. Where one cannot be made, none of them lives.
    fn enliven(
        &mut self,
        broker: &mut Broker,
        means: &Means,
        indices: &[usize],
    ) -> Result<(), DomainsError> {
        let made = indices
            .iter()
            .try_for_each(|&index| self.make_life(broker, means, index));
        let started = made.and_then(|()| indices.iter().try_for_each(|&index| self.resume(index)));
        if started.is_err() {
            self.end(broker, indices);
        }
        started
    }

    fn resume(&self, index: usize) -> Result<(), DomainsError> {
        let life = self.places[index]
            .as_ref()
            .and_then(|place| place.life.as_ref());
        if let Some(tcb) = life.and_then(Life::tcb) {
            tcb.tcb_resume()?;
        }
        Ok(())
    }

    fn make_life(
        &mut self,
        broker: &mut Broker,
        means: &Means,
        index: usize,
    ) -> Result<(), DomainsError> {
        self.clear_private_regions(broker, index);
        let Some(place) = &self.places[index] else {
            return Ok(());
        };
        let parts = Parts {
            domain: &self.system.domains[index],
            program: place.program,
            regions: &self.regions,
            notification: place.signal(),
            faults: self.faults_of(index),
            means,
        };
        let life = Life::make(broker, &parts).map_err(|error| DomainsError::Make(index, error))?;
        let granted = self.grant_all(index, place, &life);
        if let Some(place) = &mut self.places[index] {
            place.life = Some(life);
        }
        Ok(granted?)
    }

    /// Regions only this domain maps begin as zeroes again.
    fn clear_private_regions(&self, broker: &Broker, index: usize) {
        for map in &self.system.domains[index].maps {
            if self.system.is_shared(map.region, index) {
                continue;
            }
            let frames = &self.regions[usize::from(map.region)];
            for window in frames
                .iter()
                .filter_map(|&frame| broker.window_address(frame))
            {
                // SAFETY: the broker maps every allocated frame at its window
                // address, read-write, for as long as the frame lives.
                let page = unsafe { Page::at(window) };
                page.copy_in(0, &[0; capos_domains::PAGE_BYTES as usize]);
            }
        }
    }

    /// Fills a CSpace in Microkit's layout.
    fn grant_all(&self, index: usize, place: &Place, life: &Life) -> sel4::Result<()> {
        let domain = &self.system.domains[index];
        match &place.endpoint {
            Some(_) => life.grant(slot::INPUT, place.input(), CapRights::read_only(), 0)?,
            None => life.grant(slot::INPUT, place.signal(), CapRights::read_only(), 0)?,
        }
        self.grant_to_parent(index, life)?;
        if let Some(reply) = life.reply() {
            life.grant(slot::REPLY, reply, CapRights::all(), 0)?;
        }
        for (id, handler) in &place.interrupts {
            life.grant(slot::IRQ + u64::from(*id), *handler, CapRights::all(), 0)?;
        }
        for (id, ports) in &place.ports {
            life.grant(slot::IO_PORT + u64::from(*id), *ports, CapRights::all(), 0)?;
        }
        domain
            .channels
            .iter()
            .try_for_each(|channel| self.grant_channel(index, channel, life))
    }

    /// Where the faults of the domain at `index` go, and their badge.
    fn faults_of(&self, index: usize) -> (cap::Endpoint, u64) {
        let parent = self.system.domains[index].parent;
        let place = |domain: u8| self.places[usize::from(domain)].as_ref();
        match parent.and_then(|parent| Some((parent.id, place(parent.domain)?))) {
            Some((id, parent)) => (parent.input(), badge::fault(BADGE_BITS) | u64::from(id)),
            None => (self.fault_endpoint, fault_badge(index)),
        }
    }

    /// The fault endpoint where the kernel looks for it in the CSpace, and the
    /// thread for its parent.
    fn grant_to_parent(&self, index: usize, life: &Life) -> sel4::Result<()> {
        if !FAULT_HANDLER_IN_TCB {
            let (endpoint, badge) = self.faults_of(index);
            life.grant(slot::FAULT, endpoint, CALLER, badge)?;
        }
        let Some(parent) = self.system.domains[index].parent else {
            return Ok(());
        };
        let place = self.places[usize::from(parent.domain)].as_ref();
        match (place.and_then(|place| place.life.as_ref()), life.tcb()) {
            (Some(above), Some(tcb)) => {
                let slot = slot::CHILD_TCB + u64::from(parent.id);
                above.grant(slot, tcb, CapRights::all(), 0)
            }
            _ => Ok(()),
        }
    }

    fn grant_channel(
        &self,
        index: usize,
        channel: &capos_domains::Channel,
        life: &Life,
    ) -> sel4::Result<()> {
        let peer = usize::from(channel.peer);
        let number = u64::from(channel.id);
        if channel.notify {
            let place = slot::OUTPUT_NOTIFICATION + number;
            let (notification, badge) = match &self.places[peer] {
                Some(other) => {
                    let incoming = self.system.incoming_mask(&self.system.domains[peer]);
                    let badge = badge::signal(BADGE_BITS, incoming, channel.peer_id);
                    (other.signal(), badge)
                }
                None => {
                    let line = |line: &Line| line.peer == index && line.id == channel.peer_id;
                    let line = self.lines.iter().position(line).unwrap_or_default();
                    (self.own_notification, signal_badge(line))
                }
            };
            life.grant(place, notification, CapRights::write_only(), badge)?;
        }
        if let (true, Some(other)) = (channel.call, &self.places[peer]) {
            let badge = badge::call(BADGE_BITS) | u64::from(channel.peer_id);
            life.grant(slot::ENDPOINT + number, other.input(), CALLER, badge)?;
        }
        Ok(())
    }

    /// A domain without a parent faulted: reports it, and gives it and those
    /// that depend on it new lives within the limit. Returns who has one.
    pub fn on_fault(
        &mut self,
        broker: &mut Broker,
        means: &Means,
        now: u64,
        fault: &DomainFault<'_>,
    ) -> Vec<usize> {
        let index = (fault.badge & !FAULT_BADGE) as usize;
        let lives =
            |place: &Option<Place>| place.as_ref().is_some_and(|place| place.life.is_some());
        if !self.places.get(index).is_some_and(lives) {
            return Vec::new();
        }
        let cause = Cause::of(fault);
        let name = &self.system.domains[index].name;
        log::line(format_args!("fault: domain={name} {cause}"));
        let group = self.group(index);
        self.end(broker, &group);
        if !self.may_restart(index, now) {
            let name = &self.system.domains[index].name;
            log!("domain {name} stays down: {RESTARTS_MAX} restarts within a minute");
            return Vec::new();
        }
        match self.enliven(broker, means, &group) {
            Ok(()) => {
                let name = &self.system.domains[index].name;
                log!("domain {name} is restarted, {} domains in all", group.len());
                group
            }
            Err(error) => {
                log!("a domain stays down: {error}");
                Vec::new()
            }
        }
    }

    /// Whether the domain has a restart left, which is counted then.
    fn may_restart(&mut self, index: usize, now: u64) -> bool {
        let Some(place) = &mut self.places[index] else {
            return false;
        };
        let recent = |&at: &u64| now.saturating_sub(at) < RESTARTS_WITHIN_NS;
        place.restarts.retain(recent);
        let may = place.restarts.len() < RESTARTS_MAX;
        if may {
            place.restarts.push(now);
        }
        may
    }

    /// Those that go with the domain at `index`: its children, who calls it,
    /// and in turn theirs; parents first.
    fn group(&self, index: usize) -> Vec<usize> {
        let domains = &self.system.domains;
        let mut goes = alloc::vec![false; domains.len()];
        goes[index] = true;
        loop {
            let follows = |domain: &Domain| {
                let parent = domain
                    .parent
                    .is_some_and(|parent| goes[usize::from(parent.domain)]);
                let calls = |channel: &capos_domains::Channel| {
                    channel.call && goes[usize::from(channel.peer)]
                };
                parent || domain.channels.iter().any(calls)
            };
            let more = (0..domains.len()).find(|&other| !goes[other] && follows(&domains[other]));
            match more {
                Some(other) => goes[other] = true,
                None => return (0..domains.len()).filter(|&other| goes[other]).collect(),
            }
        }
    }

    fn end(&mut self, broker: &mut Broker, indices: &[usize]) {
        for &index in indices.iter().rev() {
            let life = self.places[index]
                .as_mut()
                .and_then(|place| place.life.take());
            if let Some(Err(error)) = life.map(|life| life.end(broker)) {
                let name = &self.system.domains[index].name;
                log!("domain {name} leaves something behind: {error}");
            }
        }
    }

    /// The domain that drives `ports`, if one has the ports, a channel to the
    /// root task, and shares two regions with it: in the root task's order, one
    /// for output and one for input.
    pub fn driver_of(&mut self, broker: &Broker, ports: PortRange) -> Option<DrivenPort> {
        let domains = &self.system.domains;
        let has_ports = |domain: &Domain| domain.ports.iter().any(|own| range_of(own) == ports);
        let domain = domains.iter().position(has_ports)?;
        let root_task = &domains[self.system.root_task()?];
        let maps = |region| domains[domain].maps.iter().any(|map| map.region == region);
        let mut shared = root_task.maps.iter().filter(|map| maps(map.region));
        let mut next = || self.memory_of(broker, shared.next()?.region);
        let (output, input) = (next()?, next()?);
        let line = self.lines.iter().position(|line| line.peer == domain)?;
        let signal = self.lines[line].notification?;
        // Its signals mean something from now on.
        self.lines[line].told = SIGNALS_TOLD;
        Some(DrivenPort {
            domain,
            output,
            input,
            signal,
            badge: signal_badge(line),
        })
    }

    /// A region that the root task maps, as it sees it.
    fn memory_of(&self, broker: &Broker, region: u16) -> Option<NonNull<[u8]>> {
        let frames = &self.regions[usize::from(region)];
        let start = broker.window_address(*frames.first()?)? as usize;
        let start = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(start))?;
        let bytes = frames.len() * capos_domains::PAGE_BYTES as usize;
        Some(NonNull::slice_from_raw_parts(start, bytes))
    }

    /// What the description says.
    pub const fn system(&self) -> &System {
        &self.system
    }

    /// The frames of each region.
    pub fn regions(&self) -> &[Vec<FrameId>] {
        &self.regions
    }

    /// The life of the domain at `index`, if it has one.
    pub fn life(&self, index: usize) -> Option<&Life> {
        self.places.get(index)?.as_ref()?.life.as_ref()
    }

    /// Whether the description gives a range of ports to a domain.
    pub fn declare(&self, range: PortRange) -> bool {
        let mut ports = self.system.domains.iter().flat_map(|domain| &domain.ports);
        ports.any(|ports| range_of(ports) == range)
    }

    /// Lets no domain run any more.
    pub fn stop(&self) {
        let lives = self
            .places
            .iter()
            .flatten()
            .filter_map(|place| place.life.as_ref());
        for tcb in lives.filter_map(Life::tcb) {
            if let Err(error) = tcb.tcb_suspend() {
                log!("a domain cannot be stopped: {error:?}");
            }
        }
    }

    /// Tells of signals at the root task's channels, some times for each.
    pub fn note_signals(&mut self, badge: u64) {
        for (index, line) in self.lines.iter_mut().enumerate() {
            if badge & 1 << (DOMAIN_BIT as usize + index) == 0 || line.told == SIGNALS_TOLD {
                continue;
            }
            line.told += 1;
            let (name, id) = (&self.system.domains[line.peer].name, line.id);
            log!("domain {name} notifies channel {id}");
        }
    }
}

impl Place {
    fn signal(&self) -> cap::Notification {
        cap::Notification::from_bits(self.notification.slot().0.into())
    }

    /// Where its messages arrive; whoever asks knows that there are some.
    fn input(&self) -> cap::Endpoint {
        let endpoint = self
            .endpoint
            .as_ref()
            .map_or(0, |endpoint| endpoint.slot().0);
        cap::Endpoint::from_bits(endpoint.into())
    }
}

/// A copy of a notification for those who signal it.
fn mint(
    broker: &mut Broker,
    notification: cap::Notification,
    badge: u64,
) -> Result<cap::Notification, DomainsError> {
    let own = init_thread::slot::CNODE.cap();
    let badged = cap::Notification::from_bits(broker.allocate_slot()?.0.into());
    own.absolute_cptr(badged.cptr()).mint(
        &own.absolute_cptr(notification.cptr()),
        CapRights::write_only(),
        badge,
    )?;
    Ok(badged)
}

const fn trigger(level: bool, low: bool) -> Trigger {
    match (level, low) {
        (false, false) => Trigger::Edge,
        (false, true) => Trigger::EdgeLow,
        (true, false) => Trigger::LevelHigh,
        (true, true) => Trigger::Level,
    }
}

/// What a domain did, for people.
enum Cause {
    Fault(Fault),
    /// A message that is no fault: it was forged.
    Malformed(MessageInfo),
}

impl Cause {
    /// Reads the message, before anything is invoked.
    fn of(fault: &DomainFault<'_>) -> Self {
        let decoded = Fault::decode(fault.info, fault.words);
        decoded.map_or(Self::Malformed(fault.info), Self::Fault)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(Fault::VmFault(fault)) => {
                let (addr, ip) = (fault.addr, fault.ip);
                write!(f, "type=page-fault addr={addr:#x} ip={ip:#x}")
            }
            Self::Fault(Fault::UserException(fault)) => {
                let (vector, ip) = (fault.number, fault.fault_ip);
                write!(f, "type=exception vector={vector} ip={ip:#x}")
            }
            Self::Fault(Fault::CapFault(fault)) => {
                write!(
                    f,
                    "type=cap-fault cptr={:#x} ip={:#x}",
                    fault.cptr, fault.ip
                )
            }
            Self::Fault(Fault::UnknownSyscall(fault)) => {
                write!(f, "type=syscall number={:#x}", fault.syscall)
            }
            Self::Fault(_) => f.write_str("type=malformed label=0x0"),
            Self::Malformed(info) => write!(f, "type=malformed label={:#x}", info.label()),
        }
    }
}
