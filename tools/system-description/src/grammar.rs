//! What a system description can say: every element and attribute.
//!
//! The checker walks a document along these tables, and `docs/reference` is
//! printed from them. What only several values together can break is in
//! `rules`.

/// What a value must look like.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A name that other elements use.
    Name,
    /// Any text that is not empty.
    Text,
    /// A number, decimal or `0x` hexadecimal, `_` between digits allowed.
    Number {
        /// The least.
        min: u64,
        /// The largest.
        max: u64,
        /// What it must be a multiple of.
        multiple: u64,
    },
    /// `true` or `false`.
    Flag,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// `r`, `rw` and so on: each of `r`, `w`, `x` at most once, `w` not alone.
    Permissions,
    /// `BB:DD.F`, hexadecimal.
    PciDevice,
}

/// What becomes of an attribute or element that Microkit knows.
#[derive(Clone, Copy, Debug)]
pub enum Support {
    /// It is carried out.
    Full,
    /// It is checked; kernels without MCS have nothing it could change.
    WithoutEffect,
    /// It is refused, for this reason.
    NotSupported(&'static str),
}

/// An attribute.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// What it must look like.
    pub kind: Kind,
    /// What holds where it is left out; `None` where it may not be.
    pub default: Option<&'static str>,
    /// Whether it is carried out.
    pub support: Support,
    /// What it says.
    pub meaning: &'static str,
}

/// An element.
#[derive(Debug)]
pub struct Element {
    /// Its name.
    pub name: &'static str,
    /// The table's title in the reference.
    pub title: &'static str,
    /// Whether it is carried out.
    pub support: Support,
    /// What it can say about itself.
    pub attributes: &'static [Attribute],
    /// What can be inside.
    pub children: &'static [&'static Element],
}

/// Largest address of a page a domain may map at.
pub const ADDRESS_MAX: u64 = 0x7fff_ffff_f000;
/// Largest number of a channel, interrupt, child or port range.
pub const ID_MAX: u64 = capos_domains::ID_MAX as u64;
const PAGE: u64 = capos_domains::PAGE_BYTES;

const ID: Kind = Kind::Number {
    min: 0,
    max: ID_MAX,
    multiple: 1,
};
const MICROSECONDS: Kind = number(1, u64::MAX / 1000, 1);
const ADDRESS: Kind = number(0, ADDRESS_MAX, PAGE);
const VECTOR: Kind = number(0, capos_domains::VECTOR_MAX as u64, 1);

const fn number(min: u64, max: u64, multiple: u64) -> Kind {
    Kind::Number { min, max, multiple }
}

const fn required(name: &'static str, kind: Kind, meaning: &'static str) -> Attribute {
    Attribute {
        name,
        kind,
        default: None,
        support: Support::Full,
        meaning,
    }
}

const fn optional(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Attribute {
    Attribute {
        name,
        kind,
        default: Some(default),
        support: Support::Full,
        meaning,
    }
}

const fn without_effect(attribute: Attribute) -> Attribute {
    Attribute {
        support: Support::WithoutEffect,
        ..attribute
    }
}

const fn refused(name: &'static str, reason: &'static str) -> Attribute {
    Attribute {
        name,
        kind: Kind::Text,
        default: Some(""),
        support: Support::NotSupported(reason),
        meaning: reason,
    }
}

const fn not_supported(name: &'static str, reason: &'static str) -> Element {
    Element {
        name,
        title: name,
        support: Support::NotSupported(reason),
        attributes: &[],
        children: &[],
    }
}

const SETVAR_ID: Attribute = optional(
    "setvar_id",
    Kind::Name,
    "none",
    "symbol of 8 bytes that receives the `id`",
);

/// The document.
pub static SYSTEM: Element = Element {
    name: "system",
    title: "`system`, the document",
    support: Support::Full,
    attributes: &[],
    children: &[
        &DOMAIN,
        &MEMORY_REGION,
        &CHANNEL,
        &DOMAINS,
        &IO_ADDRESS_SPACE,
    ],
};

macro_rules! domain_attributes {
    ($($first:expr),*) => {
        &[
            $($first,)*
            required("name", Kind::Name, "the domain's name, at most 63 bytes"),
            optional(
                "priority",
                number(0, capos_domains::PRIORITY_MAX as u64, 1),
                "0",
                "seL4 priority",
            ),
            without_effect(optional("budget", MICROSECONDS, "1000", "scheduling budget in microseconds")),
            without_effect(optional("period", MICROSECONDS, "the budget", "scheduling period in microseconds, at least the budget")),
            without_effect(optional("passive", Kind::Flag, "false", "runs on its callers' time; nothing runs so here, with MCS or without")),
            optional(
                "stack_size",
                number(*capos_domains::STACK_BYTES.start(), *capos_domains::STACK_BYTES.end(), PAGE),
                "0x2000",
                "bytes of stack, between guard pages",
            ),
            optional("fpu", Kind::OneOf(&["true"]), "true", "the floating-point unit; it cannot be taken away here"),
            refused("cpu", "domains run on the first core"),
            refused("smc", "`smc` instructions are of Arm"),
            refused("domain", "there is no domain schedule"),
        ]
    };
}

/// A protection domain of the system.
pub static DOMAIN: Element = Element {
    name: "protection_domain",
    title: "`protection_domain` in `system`",
    support: Support::Full,
    attributes: domain_attributes!(),
    children: &INSIDE_DOMAIN,
};

/// A protection domain in another.
pub static CHILD: Element = Element {
    name: "protection_domain",
    title: "`protection_domain` in `protection_domain`",
    support: Support::Full,
    attributes: domain_attributes!(required("id", ID, "what its parent knows it by"), SETVAR_ID),
    children: &INSIDE_DOMAIN,
};

static INSIDE_DOMAIN: [&Element; 8] = [
    &PROGRAM_IMAGE,
    &MAP,
    &IRQ_IOAPIC,
    &SETVAR,
    &CHILD,
    &IOPORT,
    &VIRTUAL_MACHINE,
    &CSPACE,
];

/// The program of a domain.
pub static PROGRAM_IMAGE: Element = Element {
    name: "program_image",
    title: "`program_image` in `protection_domain`, exactly one",
    support: Support::Full,
    attributes: &[
        required(
            "path",
            Kind::Text,
            "ELF file beside the description, or the workspace program of that name without `.elf`",
        ),
        refused("path_for_symbols", "symbols come from the program itself"),
    ],
    children: &[],
};

/// A region a domain maps.
pub static MAP: Element = Element {
    name: "map",
    title: "`map` in `protection_domain`",
    support: Support::Full,
    attributes: &[
        required("mr", Kind::Name, "the memory region"),
        required("vaddr", ADDRESS, "first address, page-aligned"),
        optional(
            "perms",
            Kind::Permissions,
            "rw",
            "`r`, `w`, `x`; `w` not alone. x86-64 seL4 does not enforce `x`",
        ),
        optional(
            "cached",
            Kind::OneOf(&["true"]),
            "true",
            "write-back memory; regions of ordinary memory have no other kind here",
        ),
        optional(
            "setvar_vaddr",
            Kind::Name,
            "none",
            "symbol of 8 bytes that receives `vaddr`",
        ),
        optional(
            "setvar_size",
            Kind::Name,
            "none",
            "symbol of 8 bytes that receives the region's size",
        ),
        refused("setvar_prefill_size", "regions are not filled from files"),
    ],
    children: &[],
};

/// An interrupt by I/O APIC input; what decides is the attribute `pin`.
pub static IRQ_IOAPIC: Element = Element {
    name: "irq",
    title: "`irq` in `protection_domain`, by I/O APIC input",
    support: Support::Full,
    attributes: &[
        required("id", ID, "the bit it sets, shared with channels"),
        required(
            "pin",
            number(0, capos_domains::PIN_MAX as u64, 1),
            "input of the I/O APIC",
        ),
        required("vector", VECTOR, "vector, counted from the first for users"),
        optional("ioapic", number(0, 0, 1), "0", "which I/O APIC"),
        optional(
            "trigger",
            Kind::OneOf(&["level", "edge"]),
            "level",
            "how it signals",
        ),
        optional(
            "polarity",
            Kind::OneOf(&["high", "low"]),
            "high",
            "which level is active",
        ),
        SETVAR_ID,
    ],
    children: &[],
};

/// An interrupt by message; what decides is the attribute `pcidev`.
pub static IRQ_MSI: Element = Element {
    name: "irq",
    title: "`irq` in `protection_domain`, by message",
    support: Support::Full,
    attributes: &[
        required("id", ID, "the bit it sets, shared with channels"),
        required("pcidev", Kind::PciDevice, "bus, device and function"),
        required(
            "handle",
            number(0, u32::MAX as u64, 1),
            "which of the device's messages",
        ),
        required("vector", VECTOR, "vector, counted from the first for users"),
        SETVAR_ID,
    ],
    children: &[],
};

/// I/O ports of a domain.
pub static IOPORT: Element = Element {
    name: "ioport",
    title: "`ioport` in `protection_domain`",
    support: Support::Full,
    attributes: &[
        required("id", ID, "the capability's number, its own series"),
        required("addr", number(0, 0xffff, 1), "first port"),
        required("size", number(1, 0x1_0000, 1), "number of ports"),
        SETVAR_ID,
        optional(
            "setvar_addr",
            Kind::Name,
            "none",
            "symbol of 8 bytes that receives `addr`",
        ),
    ],
    children: &[],
};

/// A variable that receives an address.
pub static SETVAR: Element = Element {
    name: "setvar",
    title: "`setvar` in `protection_domain`",
    support: Support::Full,
    attributes: &[
        required("symbol", Kind::Name, "symbol of 8 bytes"),
        refused(
            "region_paddr",
            "regions have no physical address before boot",
        ),
    ],
    children: &[],
};

/// Memory that domains map.
pub static MEMORY_REGION: Element = Element {
    name: "memory_region",
    title: "`memory_region` in `system`",
    support: Support::Full,
    attributes: &[
        required("name", Kind::Name, "what maps call it"),
        required(
            "size",
            number(PAGE, 1 << 30, PAGE),
            "bytes, a multiple of the page size",
        ),
        optional(
            "page_size",
            Kind::OneOf(&["0x1000", "0x1_000", "4096"]),
            "0x1000",
            "4 KiB; large pages are not carried out",
        ),
        refused(
            "phys_addr",
            "device registers are mapped by the root task only",
        ),
        refused("prefill_path", "regions start as zeroes"),
        refused("prefill_bootinfo", "regions start as zeroes"),
    ],
    children: &[],
};

/// Two domains that may notify or call each other.
pub static CHANNEL: Element = Element {
    name: "channel",
    title: "`channel` in `system`",
    support: Support::Full,
    attributes: &[],
    children: &[&END],
};

/// One of a channel's two ends.
pub static END: Element = Element {
    name: "end",
    title: "`end` in `channel`, exactly two",
    support: Support::Full,
    attributes: &[
        required("pd", Kind::Name, "the domain"),
        required(
            "id",
            ID,
            "the channel's number there, shared with interrupts",
        ),
        optional(
            "pp",
            Kind::Flag,
            "false",
            "may call the other end, which must have a higher priority",
        ),
        optional("notify", Kind::Flag, "true", "may notify the other end"),
        SETVAR_ID,
    ],
    children: &[],
};

static DOMAINS: Element = not_supported("domains", "there is no domain schedule");
static IO_ADDRESS_SPACE: Element = not_supported(
    "io_address_space",
    "no device has an address space of its own",
);
static VIRTUAL_MACHINE: Element = not_supported("virtual_machine", "there are no virtual machines");
static CSPACE: Element = not_supported("cspace", "domains hold no capabilities but those listed");

/// The tables of the reference, in its order.
pub static ALL: &[&Element] = &[
    &SYSTEM,
    &DOMAIN,
    &CHILD,
    &PROGRAM_IMAGE,
    &MAP,
    &IRQ_IOAPIC,
    &IRQ_MSI,
    &IOPORT,
    &SETVAR,
    &MEMORY_REGION,
    &CHANNEL,
    &END,
];

impl Kind {
    /// The words for it.
    pub fn words(&self) -> String {
        match self {
            Self::Name => "name".into(),
            Self::Text => "text".into(),
            Self::Number { min, max, multiple } => {
                let bound = |number: u64| match number {
                    0..=9999 => number.to_string(),
                    _ => format!("{number:#x}"),
                };
                let (min, max) = (bound(*min), bound(*max));
                match multiple {
                    1 => format!("number {min} to {max}"),
                    _ => format!("number {min} to {max}, multiple of {}", bound(*multiple)),
                }
            }
            Self::Flag => "`true` or `false`".into(),
            Self::OneOf(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                words.join(" or ")
            }
            Self::Permissions => "permissions".into(),
            Self::PciDevice => "`BB:DD.F`, hexadecimal".into(),
        }
    }
}

/// `docs/reference/system-xml.md`.
pub fn reference() -> String {
    let mut out = String::from(
        "# What `system.xml` can say\n\n\
         Generated by `make reference` from the grammar the checker uses; a test fails when this\n\
         file is stale. [The guide](../protection-domains.md) explains what is listed here. Numbers\n\
         are decimal or `0x` hexadecimal, with `_` between digits.\n",
    );
    for element in ALL {
        out += &format!("\n## {}\n\n", element.title);
        if element.attributes.is_empty() {
            let inside: Vec<String> = element
                .children
                .iter()
                .map(|c| format!("`{}`", c.name))
                .collect();
            out += &format!("No attributes. Inside: {}.\n", inside.join(", "));
        } else {
            out += "| attribute | value | default | |\n|---|---|---|---|\n";
            for attribute in element.attributes {
                out += &row(attribute);
            }
        }
        for child in element.children {
            if let Support::NotSupported(reason) = child.support {
                out += &format!("\n`{}` inside is refused: {reason}.\n", child.name);
            }
        }
    }
    out
}

fn row(attribute: &Attribute) -> String {
    let Attribute { name, meaning, .. } = attribute;
    match attribute.support {
        Support::NotSupported(reason) => format!("| `{name}` | | | refused: {reason} |\n"),
        support => {
            let default = attribute.default.unwrap_or("required");
            let note = match support {
                Support::WithoutEffect => "; checked, without effect on kernels without MCS",
                _ => "",
            };
            let words = attribute.kind.words();
            format!("| `{name}` | {words} | {default} | {meaning}{note} |\n")
        }
    }
}
