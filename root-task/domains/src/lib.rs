//! The compiled form of a system description.
//!
//! The host checks `system.xml`, lowers it to a [`System`] and packs that into
//! the boot archive with [`encode`]; the root task reads it with [`decode`]
//! and makes the protection domains. What is decoded is checked again, so that
//! no index leads anywhere else and no number is outside what the runtime's
//! slot layout ([`slot`]) and badges ([`badge`]) have room for.
//!
//! # Invariants
//! - **D1** A decoded [`System`] passed [`System::check`].
//! - **D2** A parent comes before its children, so its index is smaller.
//! - **D3** Each channel is in both its ends' lists, and says the same.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

/// Most protection domains of a system.
pub const DOMAINS_MAX: usize = 63;
/// Largest number of a channel, an interrupt, a child or a port range.
pub const ID_MAX: u8 = 61;
/// Most bytes of a domain's name, its closing zero included.
pub const NAME_BYTES: usize = 64;
/// Largest priority of a domain.
pub const PRIORITY_MAX: u8 = 254;
/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// Least and most bytes of a stack.
pub const STACK_BYTES: core::ops::RangeInclusive<u64> = 0x1000..=0x100_0000;
/// Bytes of a stack where nothing is said.
pub const STACK_DEFAULT: u64 = 0x2000;
/// Address of a domain's IPC buffer: the highest page a user may have here.
/// The last page below the canonical boundary stays unused.
pub const IPC_BUFFER: u64 = 0x7fff_ffff_e000;
/// First address past a domain's stack; the page between is its guard.
pub const STACK_TOP: u64 = IPC_BUFFER - PAGE_BYTES;
/// Vectors that can be asked for.
pub const VECTOR_MAX: u8 = 107;
/// Inputs of one I/O APIC.
pub const PIN_MAX: u8 = 23;
/// The domain that stands for the root task itself.
pub const ROOT_TASK: &str = "root-task";
/// Archive entry of the compiled form.
pub const ENTRY: &str = "domains.bin";
/// Directory of the archive that holds the domains' programs.
pub const DIRECTORY: &str = "domains";

/// Where capabilities lie in a domain's CSpace: Microkit 2.3's layout, which
/// its runtime library has compiled in.
pub mod slot {
    /// Where messages and signals arrive: an endpoint with the notification
    /// bound where there are protected calls or children, else the
    /// notification.
    pub const INPUT: u64 = 1;
    /// Where the domain's own faults go.
    pub const FAULT: u64 = 2;
    /// The reply object, on kernels that have them.
    pub const REPLY: u64 = 4;
    /// First notification of a peer, by channel.
    pub const OUTPUT_NOTIFICATION: u64 = 10;
    /// First endpoint of a peer, by channel.
    pub const ENDPOINT: u64 = 74;
    /// First interrupt handler, by number.
    pub const IRQ: u64 = 138;
    /// First TCB of a child, by number.
    pub const CHILD_TCB: u64 = 202;
    /// First range of I/O ports, by number.
    pub const IO_PORT: u64 = 394;
    /// Bits of a slot's number: the radix of the CNode.
    pub const BITS: u8 = 9;
    const _: () = assert!(IO_PORT + (super::ID_MAX as u64) < 1 << BITS);
}

/// What badges say who speaks, by how many bits a kernel's badges have.
///
/// With 64 bits this is Microkit's layout: the highest bit marks a protected
/// call, the next a fault, and the others are the numbers that signalled. Where
/// badges are narrower the two marks are still the highest bits, and the others
/// stand for the numbers that can signal a domain, in their order
/// ([`System::incoming_mask`](super::System::incoming_mask)).
pub mod badge {
    /// Bits of a badge of the narrowest kernel, seL4 5.0.0.
    pub const NARROW_BITS: u32 = 28;
    /// Most numbers that can signal one domain there.
    pub const SIGNALS_MAX: u32 = NARROW_BITS - 2;

    /// Marks a protected call; the low six bits are the channel.
    pub const fn call(bits: u32) -> u64 {
        1 << (bits - 1)
    }

    /// Marks a fault; the low eight bits are the child.
    pub const fn fault(bits: u32) -> u64 {
        1 << (bits - 2)
    }

    /// The bit of number `id` of a domain that `incoming` can signal.
    pub const fn signal(bits: u32, incoming: u64, id: u8) -> u64 {
        if bits == u64::BITS {
            1 << id
        } else {
            1 << (incoming & ((1 << id) - 1)).count_ones()
        }
    }
}

/// A system of protection domains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// Memory that domains map.
    pub regions: Vec<Region>,
    /// The domains, parents first.
    pub domains: Vec<Domain>,
}

/// A memory region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Its pages.
    pub pages: u32,
}

/// A protection domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Whether it stands for the root task, which is there already.
    pub is_root_task: bool,
    /// Its priority.
    pub priority: u8,
    /// Budget and period in microseconds, where the description says either:
    /// for kernels that limit a thread's time.
    pub time: Option<(u64, u64)>,
    /// Pages of its stack.
    pub stack_pages: u16,
    /// Its parent, and the number it is known by there.
    pub parent: Option<Parent>,
    /// The regions it maps.
    pub maps: Vec<Map>,
    /// Its interrupts.
    pub interrupts: Vec<Interrupt>,
    /// Its I/O ports.
    pub ports: Vec<Ports>,
    /// Its channels.
    pub channels: Vec<Channel>,
}

/// Whose child a domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Index of the parent.
    pub domain: u8,
    /// Number of the child.
    pub id: u8,
}

/// A region in a domain's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// Index of the region.
    pub region: u16,
    /// Where it begins.
    pub vaddr: u64,
    /// Whether the domain may write.
    pub writable: bool,
}

/// An interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupt {
    /// The bit it sets, and its handler's place.
    pub id: u8,
    /// The vector, counted from the kernel's first for users.
    pub vector: u8,
    /// What raises it.
    pub source: Source,
}

/// What raises an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// An input of an I/O APIC.
    Pin {
        /// Which I/O APIC.
        ioapic: u8,
        /// Which input.
        pin: u8,
        /// Level-triggered, else by edge.
        level: bool,
        /// Active low, else high.
        low: bool,
    },
    /// A message of a PCI device.
    Message {
        /// Its bus.
        bus: u8,
        /// Its device number.
        device: u8,
        /// Its function.
        function: u8,
        /// Which of its messages.
        handle: u32,
    },
}

/// A range of I/O ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The capability's place.
    pub id: u8,
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// One end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its number here.
    pub id: u8,
    /// Index of the domain at the other end.
    pub peer: u8,
    /// The channel's number there.
    pub peer_id: u8,
    /// Whether this end may notify the other.
    pub notify: bool,
    /// Whether this end may call the other.
    pub call: bool,
    /// Whether the other end may call this one.
    pub called: bool,
}

/// Why bytes are no system. Build the image again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes end early, or a value cannot be.
    Encoding,
    /// Bytes are left over.
    Trailing,
    /// The named rule is broken.
    Rule(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding => f.write_str("not the encoding of a system"),
            Self::Trailing => f.write_str("bytes are left over"),
            Self::Rule(rule) => write!(f, "broken rule: {rule}"),
        }
    }
}

impl core::error::Error for Malformed {}

/// The bytes for the boot archive.
///
/// # Errors
/// [`Malformed::Rule`] for a system that [`decode`] would refuse.
pub fn encode(system: &System) -> Result<Vec<u8>, Malformed> {
    system.check()?;
    postcard::to_allocvec(system).map_err(|_| Malformed::Encoding)
}

/// The system in `bytes` (D1).
///
/// # Errors
/// [`Malformed`]
pub fn decode(bytes: &[u8]) -> Result<System, Malformed> {
    let (system, rest) =
        postcard::take_from_bytes::<System>(bytes).map_err(|_| Malformed::Encoding)?;
    if !rest.is_empty() {
        return Err(Malformed::Trailing);
    }
    system.check()?;
    Ok(system)
}

/// Names the rule where it does not hold.
macro_rules! require {
    ($holds:expr, $rule:literal) => {
        if !$holds {
            return Err(Malformed::Rule($rule));
        }
    };
}

impl System {
    /// The domain that stands for the root task.
    pub fn root_task(&self) -> Option<usize> {
        self.domains.iter().position(|domain| domain.is_root_task)
    }

    /// Whether anything maps the region beside `domain`.
    pub fn is_shared(&self, region: u16, domain: usize) -> bool {
        let maps_it = |other: &Domain| other.maps.iter().any(|map| map.region == region);
        let mut others = self.domains.iter().enumerate();
        others.any(|(index, other)| index != domain && maps_it(other))
    }

    /// The numbers that can signal a domain: its interrupts, and channels
    /// whose other end may notify.
    pub fn incoming_mask(&self, domain: &Domain) -> u64 {
        let notified = domain.channels.iter().filter(|channel| {
            let peer = self.domains.get(usize::from(channel.peer));
            let mut ends = peer.into_iter().flat_map(|peer| &peer.channels);
            ends.any(|end| end.notify && end.id == channel.peer_id && end.peer_id == channel.id)
        });
        domain.interrupt_mask() | mask(notified.map(|channel| channel.id))
    }

    /// The rules [`decode`] relies on.
    ///
    /// # Errors
    /// [`Malformed::Rule`]
    pub fn check(&self) -> Result<(), Malformed> {
        require!(self.domains.len() <= DOMAINS_MAX, "at most 63 domains");
        require!(self.regions.len() <= u16::MAX.into(), "regions are counted");
        require!(
            self.regions.iter().all(|region| region.pages > 0),
            "a region has pages"
        );
        let roots = self.domains.iter().filter(|domain| domain.is_root_task);
        require!(roots.count() <= 1, "there is one root task");
        for (index, domain) in self.domains.iter().enumerate() {
            self.check_domain(index, domain)?;
        }
        Ok(())
    }

    fn check_domain(&self, index: usize, domain: &Domain) -> Result<(), Malformed> {
        require!(domain.name.len() < NAME_BYTES, "a name has a bound");
        require!(domain.priority <= PRIORITY_MAX, "a priority has a bound");
        let stack = u64::from(domain.stack_pages) * PAGE_BYTES;
        require!(STACK_BYTES.contains(&stack), "a stack has bounds");
        if let Some(parent) = domain.parent {
            require!(usize::from(parent.domain) < index, "parents come first");
            require!(parent.id <= ID_MAX, "a child's number has a bound");
            let root = &self.domains[usize::from(parent.domain)];
            require!(
                !root.is_root_task && !domain.is_root_task,
                "the root task is nobody's relative"
            );
        }
        let pins = domain.interrupts.iter();
        require!(
            pins.clone()
                .all(|irq| irq.id <= ID_MAX && irq.vector <= VECTOR_MAX),
            "an interrupt's numbers have bounds"
        );
        require!(
            domain
                .ports
                .iter()
                .all(|ports| ports.id <= ID_MAX && ports.first <= ports.last),
            "a port range has bounds"
        );
        self.check_maps(domain)?;
        domain
            .channels
            .iter()
            .try_for_each(|channel| self.check_channel(index, channel))?;
        require!(
            self.incoming_mask(domain).count_ones() <= badge::SIGNALS_MAX,
            "at most 26 numbers signal a domain"
        );
        Ok(())
    }

    fn check_maps(&self, domain: &Domain) -> Result<(), Malformed> {
        let stack_base = STACK_TOP - u64::from(domain.stack_pages) * PAGE_BYTES;
        let mut ranges = Vec::with_capacity(domain.maps.len());
        for map in &domain.maps {
            let region = self.regions.get(usize::from(map.region));
            let region = region.ok_or(Malformed::Rule("a map names a region"))?;
            require!(map.vaddr.is_multiple_of(PAGE_BYTES), "a map is aligned");
            let bytes = u64::from(region.pages) * PAGE_BYTES;
            let end = map.vaddr.checked_add(bytes);
            let end = end.filter(|&end| end <= stack_base);
            let end = end.ok_or(Malformed::Rule("a map lies below the stack"))?;
            ranges.push((map.vaddr, end));
        }
        ranges.sort_unstable();
        let apart = ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        require!(apart, "maps do not overlap");
        Ok(())
    }

    fn check_channel(&self, index: usize, channel: &Channel) -> Result<(), Malformed> {
        require!(
            channel.id <= ID_MAX && channel.peer_id <= ID_MAX,
            "a channel's numbers have bounds"
        );
        let peer = self.domains.get(usize::from(channel.peer));
        let peer = peer.ok_or(Malformed::Rule("a channel has two ends"))?;
        let back = peer.channels.iter().find(|other| {
            usize::from(other.peer) == index
                && other.id == channel.peer_id
                && other.peer_id == channel.id
        });
        let back = back.ok_or(Malformed::Rule("a channel has two ends"))?;
        require!(
            channel.call == back.called && channel.called == back.call,
            "both ends agree who calls"
        );
        require!(!(channel.call && channel.called), "one end calls");
        let caller = &self.domains[index];
        require!(
            !channel.call || (caller.priority < peer.priority && !peer.is_root_task),
            "calls go to a higher priority"
        );
        Ok(())
    }
}

impl Domain {
    /// Whether messages can arrive: from callers, or faults of children.
    pub fn receives(&self, system: &System) -> bool {
        let is_child = |other: &Domain| {
            let parent = other.parent.map(|parent| usize::from(parent.domain));
            parent.is_some_and(|parent| core::ptr::eq(&system.domains[parent], self))
        };
        self.channels.iter().any(|channel| channel.called) || system.domains.iter().any(is_child)
    }

    /// The mask of its interrupts' numbers.
    pub fn interrupt_mask(&self) -> u64 {
        mask(self.interrupts.iter().map(|irq| irq.id))
    }

    /// The mask of the channels it may notify.
    pub fn notify_mask(&self) -> u64 {
        mask(self.channels.iter().filter(|c| c.notify).map(|c| c.id))
    }

    /// The mask of the channels it may call.
    pub fn call_mask(&self) -> u64 {
        mask(self.channels.iter().filter(|c| c.call).map(|c| c.id))
    }

    /// The mask of its port ranges' numbers.
    pub fn port_mask(&self) -> u64 {
        mask(self.ports.iter().map(|ports| ports.id))
    }
}

fn mask(ids: impl Iterator<Item = u8>) -> u64 {
    ids.fold(0, |mask, id| mask | 1 << id)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn domain(name: &str, priority: u8) -> Domain {
        Domain {
            name: name.into(),
            is_root_task: false,
            priority,
            time: None,
            stack_pages: 2,
            parent: None,
            maps: vec![],
            interrupts: vec![],
            ports: vec![],
            channels: vec![],
        }
    }

    fn end(peer: u8, call: bool, called: bool) -> Channel {
        Channel {
            id: 3,
            peer,
            peer_id: 3,
            notify: true,
            call,
            called,
        }
    }

    fn pair() -> System {
        let mut system = System {
            regions: vec![Region {
                name: "shared".into(),
                pages: 2,
            }],
            domains: vec![domain("low", 1), domain("high", 2)],
        };
        system.domains[0].channels.push(end(1, true, false));
        system.domains[1].channels.push(end(0, false, true));
        system.domains[0].maps.push(Map {
            region: 0,
            vaddr: 0x40_0000,
            writable: true,
        });
        system
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = encode(&pair()).expect("a good system");
        assert_eq!(decode(&bytes), Ok(pair()));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode(&longer), Err(Malformed::Trailing));
    }

    #[test]
    fn each_broken_rule_is_found() {
        type Damage = fn(&mut System);
        let broken: [(&str, Damage); 9] = [
            ("a channel has two ends", |s| {
                s.domains[0].channels[0].peer = 7
            }),
            ("both ends agree who calls", |s| {
                s.domains[1].channels[0].called = false
            }),
            ("calls go to a higher priority", |s| {
                s.domains[0].priority = 2
            }),
            ("a map names a region", |s| s.domains[0].maps[0].region = 1),
            ("a map is aligned", |s| s.domains[0].maps[0].vaddr += 8),
            ("a map lies below the stack", |s| {
                s.domains[0].maps[0].vaddr = STACK_TOP - PAGE_BYTES;
            }),
            ("maps do not overlap", |s| {
                let first = s.domains[0].maps[0];
                s.domains[0].maps.push(Map {
                    vaddr: first.vaddr + PAGE_BYTES,
                    ..first
                });
            }),
            ("parents come first", |s| {
                s.domains[0].parent = Some(Parent { domain: 1, id: 0 });
            }),
            ("a stack has bounds", |s| s.domains[0].stack_pages = 0),
        ];
        for (rule, damage) in broken {
            let mut system = pair();
            damage(&mut system);
            assert_eq!(system.check(), Err(Malformed::Rule(rule)));
            assert_eq!(encode(&system), Err(Malformed::Rule(rule)));
        }
    }

    #[test]
    fn masks_and_inputs_follow_from_the_channels() {
        let system = pair();
        assert_eq!(system.domains[0].call_mask(), 1 << 3);
        assert_eq!(system.domains[1].call_mask(), 0);
        assert!(!system.domains[0].receives(&system));
        assert!(system.domains[1].receives(&system));
    }

    #[test]
    fn narrow_badges_number_those_that_can_signal() {
        let incoming = 1 << 3 | 1 << 40 | 1 << 61;
        let bits = [3, 40, 61].map(|id| badge::signal(badge::NARROW_BITS, incoming, id));
        assert_eq!(bits, [1, 2, 4]);
        assert_eq!(badge::signal(64, incoming, 40), 1 << 40);
        assert_eq!(badge::call(64), 1 << 63);
        assert_eq!(badge::fault(badge::NARROW_BITS), 1 << 26);
    }

    proptest! {
        /// What decodes passed every rule; nothing panics.
        #[test]
        fn damaged_bytes_are_refused_or_good(at in any::<prop::sample::Index>(), value: u8) {
            let mut bytes = encode(&pair()).expect("a good system");
            let at = at.index(bytes.len());
            bytes[at] = value;
            if let Ok(system) = decode(&bytes) {
                prop_assert_eq!(system.check(), Ok(()));
            }
        }
    }
}
