//! What several values together can break, and the way to the compiled form.

use capos_domains::{
    Channel, DOMAINS_MAX, Domain, Interrupt, Map, PAGE_BYTES, Parent, Ports, ROOT_TASK, Region,
    STACK_DEFAULT, STACK_TOP, Source, System,
};

use crate::document::{Checked, pci_device};
use crate::grammar;
use crate::{Claim, Complaint, Description, Hardware, Image, Place, Setvar};

type Result<T> = core::result::Result<T, Complaint>;

/// Values the grammar has checked, so the narrower types hold them.
fn small<T: TryFrom<u64>>(element: &Checked, name: &str) -> Result<T> {
    let number = element
        .number(name)
        .and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| Complaint::new(element.place_of(name), format!("`{name}` is no number")))
}

fn text<'a>(element: &'a Checked, name: &str) -> &'a str {
    element.text(name).unwrap_or_default()
}

/// Lowers a checked document.
pub fn lower(document: &Checked) -> Result<Description> {
    let mut lowering = Lowering::default();
    lowering.regions(document)?;
    for domain in document.all(grammar::DOMAIN.name) {
        lowering.domain(domain, None)?;
    }
    for channel in document.all(grammar::CHANNEL.name) {
        lowering.channel(channel)?;
    }
    lowering.signals()?;
    lowering
        .system
        .check()
        .map_err(|rule| Complaint::new(document.place, format!("the system as a whole: {rule}")))?;
    Ok(Description {
        file: Default::default(),
        system: lowering.system,
        images: lowering.images,
        claims: lowering.claims,
        notes: lowering.notes,
    })
}

#[derive(Default)]
struct Lowering {
    system: System,
    images: Vec<Image>,
    claims: Vec<Claim>,
    notes: Vec<String>,
    /// Vectors that are taken, and by whom.
    vectors: Vec<(u8, String)>,
    /// Where each domain is named.
    places: Vec<Place>,
}

impl Lowering {
    fn regions(&mut self, document: &Checked) -> Result<()> {
        for region in document.all(grammar::MEMORY_REGION.name) {
            let name = text(region, "name");
            if self.system.regions.iter().any(|known| known.name == name) {
                let what = format!("there are two memory regions called `{name}`");
                return Err(Complaint::new(region.place_of("name"), what));
            }
            let bytes: u64 = small(region, "size")?;
            self.system.regions.push(Region {
                name: name.into(),
                pages: (bytes / PAGE_BYTES) as u32,
            });
        }
        Ok(())
    }

    fn domain(&mut self, element: &Checked, parent: Option<Parent>) -> Result<()> {
        let name = text(element, "name");
        let name_place = element.place_of("name");
        if self.system.domains.iter().any(|known| known.name == name) {
            let what = format!("there are two protection domains called `{name}`");
            return Err(Complaint::new(name_place, what));
        }
        if self.system.domains.len() == DOMAINS_MAX {
            let what =
                format!("`{name}` is one too many: at most {DOMAINS_MAX} protection domains");
            return Err(Complaint::new(name_place, what));
        }
        let time = self.scheduling(element)?;
        let index = self.system.domains.len();
        let is_root_task = name == ROOT_TASK;
        if is_root_task && parent.is_some() {
            let what = format!("`{ROOT_TASK}` stands for the root task and is nobody's child");
            return Err(Complaint::new(name_place, what));
        }
        self.system.domains.push(Domain {
            name: name.into(),
            is_root_task,
            priority: match element.has("priority") {
                true => small(element, "priority")?,
                false => 0,
            },
            time,
            stack_pages: (element.number("stack_size").unwrap_or(STACK_DEFAULT) / PAGE_BYTES)
                as u16,
            parent,
            maps: Vec::new(),
            interrupts: Vec::new(),
            ports: Vec::new(),
            channels: Vec::new(),
        });
        self.places.push(name_place);
        let image = program(element)?;
        self.images.push(image);
        for map in element.all(grammar::MAP.name) {
            self.map(index, map)?;
        }
        for irq in element.all(grammar::IRQ_IOAPIC.name) {
            self.interrupt(index, irq)?;
        }
        for ports in element.all(grammar::IOPORT.name) {
            self.ports(index, ports)?;
        }
        if is_root_task {
            self.only_channels_and_maps(index, element)?;
        }
        self.children(index, element)
    }

    /// The period is at least the budget; both mean nothing without MCS.
    fn scheduling(&mut self, element: &Checked) -> Result<Option<(u64, u64)>> {
        const BUDGET_DEFAULT: u64 = 1000;
        let budget = element.number("budget").unwrap_or(BUDGET_DEFAULT);
        let period = element.number("period").unwrap_or(budget);
        if period < budget {
            let what = format!("`period` is \"{period}\", less than the budget of {budget}");
            return Err(Complaint::new(element.place_of("period"), what));
        }
        let said = ["budget", "period", "passive"]
            .into_iter()
            .filter(|name| element.has(name));
        for attribute in said {
            let name = text(element, "name");
            self.notes.push(format!(
                "`{attribute}` of `{name}` has no effect on kernels without MCS"
            ));
        }
        let said = element.has("budget") || element.has("period");
        Ok(said.then_some((budget, period)))
    }

    fn only_channels_and_maps(&self, index: usize, element: &Checked) -> Result<()> {
        let domain = &self.system.domains[index];
        let child = element.all(grammar::CHILD.name).next();
        let holds = !domain.interrupts.is_empty() || !domain.ports.is_empty() || child.is_some();
        if holds {
            let what = format!(
                "`{ROOT_TASK}` stands for the root task: it can have maps and channels, and its hardware is its own"
            );
            return Err(Complaint::new(element.place, what));
        }
        Ok(())
    }

    fn children(&mut self, index: usize, element: &Checked) -> Result<()> {
        let mut ids = Vec::new();
        for child in element.all(grammar::CHILD.name) {
            let id: u8 = small(child, "id")?;
            if ids.contains(&id) {
                let what = format!(
                    "two children of `{}` have the id \"{id}\"",
                    text(element, "name")
                );
                return Err(Complaint::new(child.place_of("id"), what));
            }
            ids.push(id);
            self.set_id(index, child, id)?;
            let parent = Parent {
                domain: index as u8,
                id,
            };
            self.domain(child, Some(parent))?;
        }
        Ok(())
    }

    fn map(&mut self, index: usize, element: &Checked) -> Result<()> {
        let name = text(element, "mr");
        let region = self.system.regions.iter().position(|r| r.name == name);
        let region = region.ok_or_else(|| {
            let what = format!("`mr` is \"{name}\": there is no memory region of that name");
            Complaint::new(element.place_of("mr"), what)
        })?;
        let vaddr: u64 = small(element, "vaddr")?;
        let bytes = u64::from(self.system.regions[region].pages) * PAGE_BYTES;
        let domain = &self.system.domains[index];
        let stack_base = STACK_TOP - u64::from(domain.stack_pages) * PAGE_BYTES;
        let place = element.place_of("vaddr");
        let end = vaddr
            .checked_add(bytes)
            .filter(|&end| end <= stack_base - PAGE_BYTES);
        let end = end.ok_or_else(|| {
            let what = format!(
                "`vaddr` is \"{vaddr:#x}\": {bytes:#x} bytes from there reach into the stack or past the end"
            );
            Complaint::new(place, what)
        })?;
        for other in &domain.maps {
            let other_region = &self.system.regions[usize::from(other.region)];
            let other_end = other.vaddr + u64::from(other_region.pages) * PAGE_BYTES;
            if vaddr < other_end && other.vaddr < end {
                let what = format!(
                    "`{name}` at {vaddr:#x}..{end:#x} overlaps `{}` at {:#x}..{other_end:#x}",
                    other_region.name, other.vaddr
                );
                return Err(Complaint::new(place, what));
            }
        }
        self.system.domains[index].maps.push(Map {
            region: region as u16,
            vaddr,
            writable: element
                .text("perms")
                .is_none_or(|perms| perms.contains('w')),
        });
        self.set(index, element, "setvar_vaddr", vaddr)?;
        self.set(index, element, "setvar_size", bytes)
    }

    fn interrupt(&mut self, index: usize, element: &Checked) -> Result<()> {
        let (id, vector): (u8, u8) = (small(element, "id")?, small(element, "vector")?);
        self.new_id(index, element, id)?;
        let name = self.system.domains[index].name.clone();
        if let Some((_, holder)) = self.vectors.iter().find(|(taken, _)| *taken == vector) {
            let what = format!("`vector` is \"{vector}\", which `{holder}` has");
            return Err(Complaint::new(element.place_of("vector"), what));
        }
        let source = match element.text("pcidev").and_then(pci_device) {
            Some((bus, device, function)) => Source::Message {
                bus,
                device,
                function,
                handle: small(element, "handle")?,
            },
            None => self.pin(index, element)?,
        };
        self.vectors.push((vector, name));
        self.system.domains[index]
            .interrupts
            .push(Interrupt { id, vector, source });
        self.set_id(index, element, id)
    }

    fn pin(&mut self, index: usize, element: &Checked) -> Result<Source> {
        let pin: u8 = small(element, "pin")?;
        let place = element.place_of("pin");
        let is_it = |claim: &&Claim| claim.what == Hardware::Pin(pin);
        if let Some(claim) = self.claims.iter().find(is_it) {
            let holder = &self.system.domains[claim.domain].name;
            let what = format!("`pin` is \"{pin}\", which `{holder}` has");
            return Err(Complaint::new(place, what));
        }
        self.claims.push(Claim {
            domain: index,
            what: Hardware::Pin(pin),
            place,
        });
        Ok(Source::Pin {
            ioapic: 0,
            pin,
            level: element.text("trigger") != Some("edge"),
            low: element.text("polarity") == Some("low"),
        })
    }

    fn ports(&mut self, index: usize, element: &Checked) -> Result<()> {
        let id: u8 = small(element, "id")?;
        if self.system.domains[index]
            .ports
            .iter()
            .any(|ports| ports.id == id)
        {
            let what = format!("two port ranges have the id \"{id}\"");
            return Err(Complaint::new(element.place_of("id"), what));
        }
        let (first, count): (u16, u64) = (small(element, "addr")?, small(element, "size")?);
        let last = u16::try_from(u64::from(first) + count - 1).map_err(|_| {
            let what = format!("`size` is \"{count}\": ports from {first:#x} end at 0xffff");
            Complaint::new(element.place_of("size"), what)
        })?;
        let place = element.place_of("addr");
        for claim in &self.claims {
            if let Hardware::Ports(other_first, other_last) = claim.what
                && first <= other_last
                && other_first <= last
            {
                let holder = &self.system.domains[claim.domain].name;
                let what = format!(
                    "ports {first:#x}-{last:#x} overlap {other_first:#x}-{other_last:#x}, which `{holder}` has"
                );
                return Err(Complaint::new(place, what));
            }
        }
        self.claims.push(Claim {
            domain: index,
            what: Hardware::Ports(first, last),
            place,
        });
        self.system.domains[index]
            .ports
            .push(Ports { id, first, last });
        self.set_id(index, element, id)?;
        self.set(index, element, "setvar_addr", first.into())
    }

    /// Channels and interrupts of a domain are numbered together.
    fn new_id(&self, index: usize, element: &Checked, id: u8) -> Result<()> {
        let domain = &self.system.domains[index];
        let channels = domain.channels.iter().map(|channel| channel.id);
        let mut taken = channels.chain(domain.interrupts.iter().map(|irq| irq.id));
        if taken.any(|taken| taken == id) {
            let what = format!("`id` is \"{id}\", which `{}` uses already", domain.name);
            return Err(Complaint::new(element.place_of("id"), what));
        }
        Ok(())
    }

    fn channel(&mut self, element: &Checked) -> Result<()> {
        let ends: Vec<&Checked> = element.all(grammar::END.name).collect();
        let [one, other] = ends[..] else {
            let what = format!("a channel has two ends, not {}", ends.len());
            return Err(Complaint::new(element.place, what));
        };
        let (here, there) = (self.end(one)?, self.end(other)?);
        if here.domain == there.domain {
            let name = text(other, "pd");
            let what = format!("both ends of the channel are `{name}`");
            return Err(Complaint::new(other.place_of("pd"), what));
        }
        if here.call && there.call {
            let what = "only one end of a channel can have `pp=\"true\"`";
            return Err(Complaint::new(other.place_of("pp"), what));
        }
        self.may_call(one, &here, &there)?;
        self.may_call(other, &there, &here)?;
        for (end, (near, far)) in [(one, (&here, &there)), (other, (&there, &here))] {
            self.new_id(near.domain, end, near.id)?;
            self.system.domains[near.domain].channels.push(Channel {
                id: near.id,
                peer: far.domain as u8,
                peer_id: far.id,
                notify: near.notify,
                call: near.call,
                called: far.call,
            });
            self.set_id(near.domain, end, near.id)?;
        }
        Ok(())
    }

    fn end(&self, element: &Checked) -> Result<End> {
        let name = text(element, "pd");
        let domain = self.system.domains.iter().position(|d| d.name == name);
        let domain = domain.ok_or_else(|| {
            let what = format!("`pd` is \"{name}\": there is no protection domain of that name");
            Complaint::new(element.place_of("pd"), what)
        })?;
        Ok(End {
            domain,
            id: small(element, "id")?,
            call: element.flag("pp", false),
            notify: element.flag("notify", true),
        })
    }

    /// Calls go strictly upwards, so no circle of them can close.
    fn may_call(&self, element: &Checked, caller: &End, callee: &End) -> Result<()> {
        if !caller.call {
            return Ok(());
        }
        let (from, to) = (
            &self.system.domains[caller.domain],
            &self.system.domains[callee.domain],
        );
        let place = element.place_of("pp");
        if from.is_root_task || to.is_root_task {
            let what = format!("`{ROOT_TASK}` neither calls nor is called: it waits for nobody");
            return Err(Complaint::new(place, what));
        }
        if from.priority >= to.priority {
            let what = format!(
                "`{}` (priority {}) cannot call `{}` (priority {}): the one called needs a higher priority",
                from.name, from.priority, to.name, to.priority
            );
            return Err(Complaint::new(place, what));
        }
        Ok(())
    }

    /// Badges have room for so many numbers that can signal a domain.
    fn signals(&self) -> Result<()> {
        let max = capos_domains::badge::SIGNALS_MAX;
        for (domain, &place) in self.system.domains.iter().zip(&self.places) {
            let count = self.system.incoming_mask(domain).count_ones();
            if count > max {
                let what = format!(
                    "{count} channels and interrupts signal `{}`; badges have room for {max}",
                    domain.name
                );
                return Err(Complaint::not_supported(place, what));
            }
        }
        Ok(())
    }

    fn set_id(&mut self, index: usize, element: &Checked, id: u8) -> Result<()> {
        self.set(index, element, "setvar_id", id.into())
    }

    /// Notes that a variable receives `value`, if the attribute asks for it.
    fn set(&mut self, index: usize, element: &Checked, attribute: &str, value: u64) -> Result<()> {
        let Some(symbol) = element.text(attribute) else {
            return Ok(());
        };
        let place = element.place_of(attribute);
        let setvars = &mut self.images[index].setvars;
        if setvars.iter().any(|known| known.symbol == symbol) {
            let what = format!("`{attribute}` is \"{symbol}\", which is set already");
            return Err(Complaint::new(place, what));
        }
        setvars.push(Setvar {
            symbol: symbol.into(),
            value,
            place,
        });
        Ok(())
    }
}

/// An end of a channel.
struct End {
    domain: usize,
    id: u8,
    call: bool,
    notify: bool,
}

fn program(element: &Checked) -> Result<Image> {
    let mut programs = element.all(grammar::PROGRAM_IMAGE.name);
    let name = text(element, "name");
    let Some(program) = programs.next() else {
        let what = format!("`{name}` has no `program_image`");
        return Err(Complaint::new(element.place, what));
    };
    if let Some(second) = programs.next() {
        let what = format!("`{name}` has a second `program_image`");
        return Err(Complaint::new(second.place, what));
    }
    Ok(Image {
        path: text(program, "path").into(),
        place: program.place_of("path"),
        setvars: Vec::new(),
    })
}
