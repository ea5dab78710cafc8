//! The grammar: which keys there are, what they hold, and how a file that
//! breaks it is refused. `docs/reference/system.md` is printed from here.

use super::located::{Complaint, Span, choose, listed, nearest};
use super::sources;
use super::tree::{Field, Node, Value};

/// A table with known keys.
#[derive(Debug)]
pub struct Shape {
    /// What such a table describes, with article.
    pub what: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// One key of a table.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Must it be there?
    pub required: bool,
    /// What it means, for the documents.
    pub meaning: &'static str,
}

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A whole number from 0 to this.
    Uint(u64),
    /// Text.
    Text,
    /// Text that stands for bytes: as it is, or `hex:` and digits.
    Bytes,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A list of such values.
    List(&'static Kind),
    /// A table.
    Table(&'static Shape),
    /// A table whose keys are names, all of them with such values.
    Named(&'static Kind),
    /// Whichever of these fits the value's type.
    Either(&'static [Kind]),
    /// An interface: its name, its number, or the number as `0x` text.
    Interface,
    /// The name of a kernel source.
    Source,
}

const fn required(name: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key {
        name,
        kind,
        required: true,
        meaning,
    }
}

const fn optional(name: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key {
        name,
        kind,
        required: false,
        meaning,
    }
}

const U8: Kind = Kind::Uint(u8::MAX as u64);
const U16: Kind = Kind::Uint(u16::MAX as u64);
const U32: Kind = Kind::Uint(u32::MAX as u64);
const U64: Kind = Kind::Uint(u64::MAX);

/// Fields of a caller's session that can be disclosed.
pub const DISCLOSURE: &[&str] = &["principal_kind", "auth_strength", "profile_class"];
/// What becomes of a service that ended.
pub const RESTART: &[&str] = &["never", "on-failure", "always"];

/// Memory of a machine in MiB: the kernel needs 32 to start.
pub const MEMORY_MIB: std::ops::RangeInclusive<u64> = 32..=65536;

/// A whole `system.toml`.
pub static SYSTEM: Shape = Shape {
    what: "a system",
    keys: &[
        optional("schemaVersion", U32, "1, the only version there is"),
        optional("system", Kind::Table(&MACHINE), "the machine it is for"),
        optional(
            "programs",
            Kind::Named(&Kind::Either(&[Kind::Text, Kind::Table(&PROGRAM)])),
            "programs of the boot archive by name: a path, or a table",
        ),
        optional(
            "init",
            Kind::Table(&INIT),
            "the first program; `init` unless said otherwise",
        ),
        optional(
            "services",
            Kind::List(&Kind::Table(&SERVICE)),
            "what init starts, in this order",
        ),
        optional(
            "exitWhenServiceExits",
            Kind::Text,
            "the system ends with this service; otherwise when all have ended",
        ),
        optional(
            "kernelParams",
            Kind::Table(&KERNEL_PARAMS),
            "as capOS manifests have it",
        ),
        optional(
            "extensionPoints",
            Kind::Table(&EXTENSION_POINTS),
            "as capOS manifests have it",
        ),
    ],
};

/// `[system]`
pub static MACHINE: Shape = Shape {
    what: "a machine",
    keys: &[
        optional("name", Kind::Text, "what the system is called in messages"),
        optional(
            "memoryMiB",
            U32,
            "memory of the machine, 32 to 65536; 512 unless given",
        ),
    ],
};

/// One of `[programs]`.
pub static PROGRAM: Shape = Shape {
    what: "a program",
    keys: &[
        optional(
            "path",
            Kind::Text,
            "ELF file or Cargo package directory, relative to this file",
        ),
        optional("bin", Kind::Text, "which program of a package with several"),
        optional(
            "crate",
            Kind::Choice(&["capos-rt"]),
            "instead of a path: the program inside the published runtime crate",
        ),
        optional(
            "budgetUs",
            U64,
            "microseconds of the processor that each process of it may have, all its threads together, in every `periodUs`; 500 at least. Kept on kernels with MCS",
        ),
        optional("periodUs", U64, "length of that period, 1000 to 1000000"),
    ],
};

/// `[init]`
pub static INIT: Shape = Shape {
    what: "the first program",
    keys: &[
        optional(
            "binary",
            Kind::Text,
            "`init` (supplied by the packer), or one of the programs",
        ),
        optional(
            "caps",
            Kind::Either(&[GRANT_LIST, GRANT_TABLE]),
            "what it holds; `console`, `boot_package` and `process_spawner` unless given",
        ),
    ],
};

/// One of `[[services]]`.
pub static SERVICE: Shape = Shape {
    what: "a service",
    keys: &[
        required("name", Kind::Text, "what it is called; unique"),
        optional(
            "binary",
            Kind::Text,
            "one of the programs; the one with its name unless given",
        ),
        optional(
            "caps",
            Kind::Either(&[GRANT_LIST, GRANT_TABLE]),
            "what it holds, in this order",
        ),
        optional(
            "exports",
            Kind::List(&Kind::Text),
            "names of its capabilities that later services may import",
        ),
        optional(
            "restart",
            Kind::Choice(RESTART),
            "what becomes of it when it ends; `never` unless given",
        ),
    ],
};

const GRANT_LIST: Kind = Kind::List(&Kind::Either(&[Kind::Text, Kind::Table(&GRANT)]));
const GRANT_TABLE: Kind = Kind::Named(&Kind::Either(&[Kind::Text, Kind::Table(&NAMED_GRANT)]));

/// A capability in a list.
pub static GRANT: Shape = Shape {
    what: "a capability",
    keys: &[
        required("name", Kind::Text, "name in the CapSet, at most 32 bytes"),
        GRANT_KERNEL,
        GRANT_SERVICE,
        GRANT_EXPORT,
        GRANT_BADGE,
        GRANT_INTERFACE,
        GRANT_DISCLOSURE,
    ],
};

/// A capability in a table, whose key is its name.
pub static NAMED_GRANT: Shape = Shape {
    what: "a capability",
    keys: &[
        GRANT_KERNEL,
        GRANT_SERVICE,
        GRANT_EXPORT,
        GRANT_BADGE,
        GRANT_INTERFACE,
        GRANT_DISCLOSURE,
    ],
};

const GRANT_KERNEL: Key = optional("kernel", Kind::Text, "kernel source it comes from");
const GRANT_SERVICE: Key = optional(
    "service",
    Kind::Text,
    "or the earlier service that exports it",
);
const GRANT_EXPORT: Key = optional(
    "export",
    Kind::Text,
    "its name there; the same name unless given",
);
const GRANT_BADGE: Key = optional(
    "badge",
    U64,
    "label its calls arrive with, for an imported endpoint",
);
const GRANT_INTERFACE: Key = optional(
    "interface",
    Kind::Interface,
    "interface it must have: its name in the capOS schema, or its number",
);
const GRANT_DISCLOSURE: Key = optional(
    "disclosureScope",
    Kind::List(&Kind::Choice(DISCLOSURE)),
    "session fields of callers it may disclose, for an endpoint of init",
);

/// The root of a standard capOS manifest.
pub static MANIFEST: Shape = Shape {
    what: "a manifest",
    keys: &[
        required("schemaVersion", U32, "1, the only version there is"),
        optional(
            "binaries",
            Kind::List(&Kind::Table(&BINARY)),
            "programs of the boot archive",
        ),
        required(
            "initConfig",
            Kind::Table(&INIT_CONFIG),
            "init and what it starts",
        ),
        optional("kernelParams", Kind::Table(&KERNEL_PARAMS), "see below"),
        optional(
            "extensionPoints",
            Kind::Table(&EXTENSION_POINTS),
            "see below",
        ),
    ],
};

static BINARY: Shape = Shape {
    what: "a binary",
    keys: &[
        required("name", Kind::Text, "its name"),
        optional(
            "path",
            Kind::Text,
            "ELF file or Cargo package directory, relative to the manifest",
        ),
        optional("data", Kind::Bytes, "the ELF file itself"),
    ],
};

static INIT_CONFIG: Shape = Shape {
    what: "initConfig",
    keys: &[
        required("init", Kind::Table(&INIT_REF), "the first program"),
        optional(
            "services",
            Kind::List(&Kind::Table(&SERVICE_REF)),
            "what init starts, in this order",
        ),
        optional(
            "exitWhenServiceExits",
            Kind::Text,
            "the system ends with this service",
        ),
    ],
};

static INIT_REF: Shape = Shape {
    what: "the first program",
    keys: &[
        required("binary", Kind::Text, "`init`, or one of the binaries"),
        optional("caps", Kind::List(&Kind::Table(&CAP_REF)), "what it holds"),
    ],
};

static SERVICE_REF: Shape = Shape {
    what: "a service",
    keys: &[
        required("name", Kind::Text, "what it is called; unique"),
        required("binary", Kind::Text, "one of the binaries"),
        optional("caps", Kind::List(&Kind::Table(&CAP_REF)), "what it holds"),
        optional(
            "restart",
            Kind::Choice(RESTART),
            "what becomes of it when it ends",
        ),
        optional(
            "exports",
            Kind::List(&Kind::Text),
            "names of its capabilities that others may import",
        ),
    ],
};

static CAP_REF: Shape = Shape {
    what: "a capability",
    keys: &[
        required("name", Kind::Text, "name in the CapSet, at most 32 bytes"),
        required("source", Kind::Table(&CAP_SOURCE), "where it comes from"),
        optional("expectedInterfaceId", U64, "interface it must have"),
        optional("badge", U64, "label its calls arrive with"),
        optional(
            "disclosureScope",
            Kind::List(&Kind::Choice(DISCLOSURE)),
            "session fields it may disclose",
        ),
    ],
};

static CAP_SOURCE: Shape = Shape {
    what: "a capability source",
    keys: &[
        optional("kernel", Kind::Text, "kernel source"),
        optional(
            "service",
            Kind::Table(&SERVICE_SOURCE),
            "export of a service",
        ),
    ],
};

static SERVICE_SOURCE: Shape = Shape {
    what: "an export of a service",
    keys: &[
        required("service", Kind::Text, "the service"),
        required("export", Kind::Text, "the name it exports"),
    ],
};

/// `kernelParams`
pub static KERNEL_PARAMS: Shape = Shape {
    what: "kernelParams",
    keys: &[
        optional(
            "logLevel",
            Kind::Choice(&["debug", "info", "warn", "error"]),
            "least level logged",
        ),
        optional(
            "consolePasswordVerifierPhc",
            Kind::Text,
            "Argon2id verifier of the console password",
        ),
        optional(
            "allowLocalDevelopmentShell",
            Kind::Bool,
            "a shell without login",
        ),
        optional("motd", Kind::Text, "message of the day, at most 4096 bytes"),
        optional("hostname", Kind::Text, "at most 255 bytes"),
        optional("consoleUart", Kind::Table(&UART), "UART of the console"),
        optional("terminalUart", Kind::Table(&UART), "UART of the terminal"),
        optional(
            "seedAccounts",
            Kind::List(&Kind::Table(&SEED_ACCOUNT)),
            "accounts there are at boot",
        ),
        optional(
            "resourceProfiles",
            Kind::List(&Kind::Table(&RESOURCE_PROFILE)),
            "quotas by name; the one called `system` limits init and all it starts",
        ),
        optional(
            "initialRoleBindings",
            Kind::List(&Kind::Table(&ROLE_BINDING)),
            "roles of accounts",
        ),
        optional(
            "sshDevelopmentHostKey",
            Kind::Table(&SSH_HOST_KEY),
            "development only",
        ),
        optional(
            "authorizedSshKeys",
            Kind::List(&Kind::Table(&SSH_KEY)),
            "keys that may log in",
        ),
        optional(
            "sessionLifetimes",
            Kind::Table(&SESSION_LIFETIMES),
            "how long sessions last",
        ),
        optional(
            "dmaBackendPolicy",
            Kind::Choice(&["enable-if-verified", "enable-unsafe", "bounce-buffer"]),
            "how devices reach memory",
        ),
        optional(
            "cpuIsolationPools",
            Kind::List(&Kind::Table(&CPU_POOL)),
            "processors set apart",
        ),
        optional(
            "cpuIsolationPoolGrants",
            Kind::List(&Kind::Table(&CPU_POOL_GRANT)),
            "who may use them",
        ),
        optional(
            "cpuIsolationGrantMinterAllowlist",
            Kind::List(&Kind::Table(&CPU_POOL_GRANT)),
            "who may be given them",
        ),
        optional(
            "keySourceBootstrap",
            Kind::Table(&KEY_SOURCE),
            "where keys come from",
        ),
        optional(
            "blockDeviceTarget",
            Kind::Table(&BLOCK_TARGET),
            "the disk that may be written",
        ),
    ],
};

static UART: Shape = Shape {
    what: "a UART",
    keys: &[
        optional("port", Kind::Choice(&["com1", "com2"]), "which"),
        optional("baud", U32, "rate"),
        optional("dataBits", U8, "bits of a character"),
        optional("stopBits", U8, "stop bits"),
        optional("parity", Kind::Choice(&["none", "even", "odd"]), "parity"),
    ],
};

static SEED_ACCOUNT: Shape = Shape {
    what: "a seed account",
    keys: &[
        required("name", Kind::Text, "login name"),
        required("principalId", Kind::Bytes, "32 bytes"),
        optional(
            "kind",
            Kind::Choice(&[
                "human",
                "operator",
                "service",
                "guest",
                "anonymous",
                "pseudonymous",
            ]),
            "what it stands for",
        ),
        optional("displayName", Kind::Text, "for people"),
        optional(
            "credentialRefs",
            Kind::List(&Kind::Bytes),
            "credentials it uses",
        ),
        required("resourceProfile", Kind::Text, "its quotas"),
        optional("policyProfile", Kind::Text, "its policy"),
        optional("serviceBinary", Kind::Text, "program of a service account"),
        optional(
            "directCaps",
            Kind::List(&Kind::Source),
            "kernel sources it gets",
        ),
        optional("caps", Kind::List(&Kind::Source), "the same"),
    ],
};

/// One of `kernelParams.resourceProfiles`.
pub static RESOURCE_PROFILE: Shape = Shape {
    what: "a resource profile",
    keys: &[
        required("name", Kind::Text, "its name"),
        optional("homeQuotaBytes", U64, "bytes at home"),
        optional("tempQuotaBytes", U64, "bytes in temporary storage"),
        optional("processLimit", U32, "processes"),
        optional("threadLimit", U32, "threads of a process"),
        optional("capLimit", U32, "capabilities of a process"),
        optional("memoryCommitLimitBytes", U64, "committed memory"),
        optional(
            "frameGrantLimitPages",
            U64,
            "pages through memory capabilities",
        ),
        optional("endpointQueueLimit", U32, "calls queued at an endpoint"),
        optional("inFlightCallLimit", U32, "calls delivered and not returned"),
        optional("ringScratchLimitBytes", U64, "longest message"),
        optional("replyScratchLimitBytes", U64, "longest exception"),
        optional("logQuotaBytesPerWindow", U64, "bytes logged"),
        optional("networkProfile", Kind::Text, "its network policy"),
        optional(
            "cpuBudgetUsPerWindow",
            U64,
            "processor time; kept for profiles called `program:` and a program's name",
        ),
        optional("cpuWindowUs", U64, "in this window"),
        optional("timerWaiterLimit", U32, "concurrent sleeps"),
        optional("launcherProfile", Kind::Text, "its launcher policy"),
    ],
};

static ROLE_BINDING: Shape = Shape {
    what: "a role binding",
    keys: &[
        required("principalId", Kind::Bytes, "who"),
        required("role", Kind::Text, "what"),
    ],
};

static SSH_HOST_KEY: Shape = Shape {
    what: "a development SSH host key",
    keys: &[
        required(
            "nonProductionLabel",
            Kind::Text,
            "`capos-development-only-ssh-host-key`",
        ),
        required("algorithm", Kind::Text, "`ssh-ed25519`"),
        required("privateKeySeed", Kind::Bytes, "32 bytes"),
        required("publicKey", Kind::Bytes, "32 bytes"),
        required("fingerprintSha256", Kind::Bytes, "32 bytes"),
    ],
};

static SSH_KEY: Shape = Shape {
    what: "an authorized SSH key",
    keys: &[
        required("keyId", Kind::Bytes, "32 bytes"),
        required("principalId", Kind::Bytes, "32 bytes"),
        required("algorithm", Kind::Text, "`ssh-ed25519`"),
        required("publicKey", Kind::Bytes, "32 bytes"),
        required("fingerprintSha256", Kind::Bytes, "32 bytes"),
        optional(
            "allowedShellProfiles",
            Kind::List(&Kind::Text),
            "shells it may get",
        ),
        optional("disabledAtMs", U64, "since when it is disabled"),
        optional("source", Kind::Text, "where it comes from"),
        optional("comment", Kind::Text, "for people"),
    ],
};

static SESSION_LIFETIMES: Shape = Shape {
    what: "session lifetimes",
    keys: &[
        optional("operatorMs", U64, "milliseconds"),
        optional("guestMs", U64, "milliseconds"),
        optional("anonymousMs", U64, "milliseconds"),
    ],
};

static CPU_POOL: Shape = Shape {
    what: "a CPU isolation pool",
    keys: &[
        required("poolId", U32, "its number"),
        required("poolCpuMask", Kind::Bytes, "its processors, little-endian"),
        optional("poolMaxLeases", U32, "leases at a time; 0 is without bound"),
        optional("poolMaxLeasesPerAccount", U32, "the same for one account"),
    ],
};

static CPU_POOL_GRANT: Shape = Shape {
    what: "a CPU isolation pool grant",
    keys: &[
        required("boundAccountId", U64, "who"),
        required("boundPoolId", U32, "which pool"),
    ],
};

static KEY_SOURCE: Shape = Shape {
    what: "a key source",
    keys: &[
        optional(
            "deploymentProfile",
            Kind::Choice(&[
                "local-development",
                "production",
                "public-ingress",
                "billable-cloud-proof",
            ]),
            "what the system is for",
        ),
        optional(
            "developmentSoftware",
            Kind::Table(&DEVELOPMENT_KEYS),
            "keys made in software",
        ),
    ],
};

static DEVELOPMENT_KEYS: Shape = Shape {
    what: "a development key source",
    keys: &[
        optional("enabled", Kind::Bool, "is there one?"),
        optional("identifier", Kind::Bytes, "16 bytes"),
        optional(
            "nonProductionLabel",
            Kind::Text,
            "`capos-development-only-key-source`",
        ),
        optional(
            "allowedPurposes",
            Kind::List(&Kind::Text),
            "`tls`, `acme-account`",
        ),
    ],
};

static BLOCK_TARGET: Shape = Shape {
    what: "a block device target",
    keys: &[required(
        "pci",
        Kind::Table(&PCI),
        "its place on the PCI bus",
    )],
};

static PCI: Shape = Shape {
    what: "a PCI place",
    keys: &[
        required("segment", U16, "segment"),
        required("bus", U8, "bus"),
        required("device", Kind::Uint(31), "device"),
        required("function", Kind::Uint(7), "function"),
    ],
};

/// `extensionPoints`
pub static EXTENSION_POINTS: Shape = Shape {
    what: "extension points",
    keys: &[
        optional(
            "allowAdditionalServices",
            Kind::Bool,
            "may an overlay add services?",
        ),
        optional("maxAdditionalServices", U32, "how many"),
        optional(
            "allowedServiceCaps",
            Kind::List(&Kind::Source),
            "kernel sources they may have",
        ),
        optional("minOverlayEpoch", U64, "oldest overlay accepted"),
        optional(
            "allowNetworkSettings",
            Kind::Bool,
            "may it set the network?",
        ),
        optional(
            "allowRuntimeSettings",
            Kind::Bool,
            "may it set the log level?",
        ),
        optional(
            "allowAccountStoreLocation",
            Kind::Bool,
            "may it move the accounts?",
        ),
    ],
};

/// Checks `node` against `shape`; what is wrong goes into `complaints`.
pub fn check(node: &Node, shape: &'static Shape, complaints: &mut Vec<Complaint>) {
    let Value::Table(fields) = &node.value else {
        complaints.push(wrong_type(&node.span, "it", shape.what, node));
        return;
    };
    check_duplicates(fields, shape.what, complaints);
    for field in fields {
        match shape.keys.iter().find(|key| key.name == field.key) {
            Some(key) => check_value(&field.node, &field.key, &key.kind, complaints),
            None => complaints.push(unknown_key(field, shape)),
        }
    }
    for key in shape.keys.iter().filter(|key| key.required) {
        if node.get(key.name).is_none() {
            let what = format!("{} lacks `{}`", shape.what, key.name);
            let advice = format!("add `{}`: {}", key.name, key.meaning);
            complaints.push(Complaint::new(&opening(node), what, advice));
        }
    }
}

/// A complaint about a kernel source that capOS does not have.
pub fn unknown_source(span: &Span, name: &str) -> Complaint {
    let known = sources::SOURCES.iter().map(|source| source.name.as_str());
    let advice = match nearest(name, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("this system serves {}", listed(&sources::served())),
    };
    Complaint::new(span, format!("there is no kernel source `{name}`"), advice)
}

/// The start of a node, for what is missing in it.
fn opening(node: &Node) -> Span {
    let first = node.fields().first().map(|field| field.key_span.clone());
    match first {
        Some(first) if first.start < node.span.start || node.span.is_empty() => first,
        _ => node.span.start..node.span.start + 1,
    }
}

fn check_duplicates(fields: &[Field], what: &str, complaints: &mut Vec<Complaint>) {
    for (index, field) in fields.iter().enumerate() {
        if fields[..index].iter().any(|prior| prior.key == field.key) {
            let what = format!("`{}` appears twice in {what}", field.key);
            complaints.push(Complaint::new(&field.key_span, what, "keep one of the two"));
        }
    }
}

fn unknown_key(field: &Field, shape: &Shape) -> Complaint {
    let known: Vec<&str> = shape.keys.iter().map(|key| key.name).collect();
    let what = format!("{} has no key `{}`", shape.what, field.key);
    let advice = match nearest(&field.key, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("its keys are {}", listed(&known)),
    };
    Complaint::new(&field.key_span, what, advice)
}

fn check_value(node: &Node, name: &str, kind: &'static Kind, complaints: &mut Vec<Complaint>) {
    let wrong = |expected: &str| wrong_type(&node.span, &format!("`{name}`"), expected, node);
    match (kind, &node.value) {
        (Kind::Bool, Value::Bool(_)) | (Kind::Text, Value::Text(_)) => {}
        (Kind::Uint(max), Value::Uint(number)) if number <= max => {}
        (Kind::Uint(max), Value::Uint(number)) => complaints.push(Complaint::new(
            &node.span,
            format!("`{name}` is {number}"),
            format!("it can be {max} at most"),
        )),
        (Kind::Bytes, Value::Text(text)) => complaints.extend(bad_bytes(node, name, text)),
        (Kind::Choice(choices), Value::Text(text)) if choices.contains(&text.as_str()) => {}
        (Kind::Choice(choices), Value::Text(text)) => complaints.push(Complaint::new(
            &node.span,
            format!("`{name}` cannot be `{text}`"),
            choose(text, choices, "leave it out"),
        )),
        (Kind::List(kind), Value::List(items)) => {
            for item in items {
                check_value(item, name, kind, complaints);
            }
        }
        (Kind::Table(shape), Value::Table(_)) => check(node, shape, complaints),
        (Kind::Named(kind), Value::Table(fields)) => {
            check_duplicates(fields, &format!("`{name}`"), complaints);
            for field in fields {
                check_value(&field.node, &field.key, kind, complaints);
            }
        }
        (Kind::Either(kinds), _) => match kinds.iter().find(|kind| fits(kind, &node.value)) {
            Some(kind) => check_value(node, name, kind, complaints),
            None => complaints.push(wrong(&expected(kind))),
        },
        (Kind::Source, Value::Text(text)) => {
            if sources::find(text).is_none() {
                complaints.push(unknown_source(&node.span, text));
            }
        }
        (Kind::Interface, Value::Text(_) | Value::Uint(_)) => {}
        _ => complaints.push(wrong(&expected(kind))),
    }
}

fn fits(kind: &Kind, value: &Value) -> bool {
    matches!(
        (kind, value),
        (
            Kind::Text | Kind::Choice(_) | Kind::Bytes | Kind::Interface,
            Value::Text(_)
        ) | (Kind::Uint(_) | Kind::Interface, Value::Uint(_))
            | (Kind::Bool, Value::Bool(_))
            | (Kind::List(_), Value::List(_))
            | (Kind::Table(_) | Kind::Named(_), Value::Table(_))
    )
}

/// What a value must be, in words.
pub fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::Uint(_) => "a whole number".into(),
        Kind::Text => "a text".into(),
        Kind::Source => "the name of a kernel source".into(),
        Kind::Bytes => "a text (`hex:` and digits for bytes)".into(),
        Kind::Choice(choices) => format!("one of {}", listed(choices)),
        Kind::List(_) => "a list".into(),
        Kind::Table(_) | Kind::Named(_) => "a table".into(),
        Kind::Either(kinds) => {
            let kinds: Vec<String> = kinds.iter().map(expected).collect();
            kinds.join(" or ")
        }
        Kind::Interface => "the name or the number of an interface".into(),
    }
}

fn wrong_type(span: &Span, subject: &str, expected: &str, node: &Node) -> Complaint {
    let what = format!("{subject} is {}, not {expected}", node.kind());
    Complaint::new(span, what, format!("write {expected}"))
}

fn bad_bytes(node: &Node, name: &str, text: &str) -> Option<Complaint> {
    let digits = text.strip_prefix("hex:")?;
    let good = digits.len() % 2 == 0 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (!good).then(|| {
        Complaint::new(
            &node.span,
            format!("`{name}` is not an even number of hexadecimal digits"),
            "write two digits for each byte behind `hex:`",
        )
    })
}

/// Tables for people, one for each shape, in the given order.
pub fn document(shapes: &[(&str, &Shape)]) -> String {
    let mut out = String::new();
    for (title, shape) in shapes {
        out.push_str(&format!(
            "### {title}\n\n| key | value | meaning |\n|---|---|---|\n"
        ));
        for key in shape.keys {
            let mark = if key.required { " (required)" } else { "" };
            let row = format!(
                "| `{}`{mark} | {} | {} |\n",
                key.name,
                expected(&key.kind),
                key.meaning
            );
            out.push_str(&row);
        }
        out.push('\n');
    }
    out
}
