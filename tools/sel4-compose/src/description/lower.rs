//! From `system.toml` to the shape of a standard capOS manifest.
//!
//! The result is the tree `cue export` would have printed for the same system,
//! every node of it with the place in `system.toml` that says so. Everything
//! behind this module sees manifests only.

use ring_server_core::PROGRAM_PROFILE;

use super::interfaces;
use super::located::{Complaint, Span, nearest};
use super::tree::{Field, Node, Value};
use super::{Origin, ProgramFile};

/// What init holds where nothing is said: the bundle upstream boots it with.
pub const INIT_CAPS: [&str; 3] = ["console", "boot_package", "process_spawner"];
/// Name of the first program where nothing is said.
pub const INIT: &str = capos_config::RESERVED_INIT_BINARY_NAME;

/// A `system.toml` in the shape of a manifest.
pub struct Lowered {
    /// The manifest.
    pub manifest: Node,
    /// Where its programs come from.
    pub programs: Vec<ProgramFile>,
}

/// Lowers a tree that has the shape of a system.
///
/// # Errors
/// What the shape alone does not forbid.
pub fn lower(system: &Node) -> Result<Lowered, Vec<Complaint>> {
    let mut complaints = Vec::new();
    let empty = Node::table(&(0..0), Vec::new());
    let start = 0..0;
    let programs = lower_programs(system, &mut complaints);
    let binaries = Value::List(programs.iter().map(binary).collect());
    let init = system.get("init").unwrap_or(&empty);
    let mut init_config = vec![Field::new(
        "init",
        &init.span,
        lower_init(init, &mut complaints),
    )];
    if let Some(services) = system.get("services") {
        let lowered = services.items().iter();
        let lowered = lowered.map(|service| lower_service(service, &mut complaints));
        let list = Value::List(lowered.collect());
        init_config.push(Field::new(
            "services",
            &services.span,
            Node::new(&services.span, list),
        ));
    }
    init_config.extend(copied(system, "exitWhenServiceExits"));
    let version = system.get("schemaVersion").cloned();
    let version = version.unwrap_or_else(|| Node::new(&start, Value::Uint(1)));
    let mut root = vec![
        Field::new("schemaVersion", &version.span.clone(), version),
        Field::new("binaries", &start, Node::new(&start, binaries)),
        Field::new("initConfig", &start, Node::table(&start, init_config)),
    ];
    root.extend(lower_kernel_params(system, &mut complaints));
    root.extend(copied(system, "extensionPoints"));
    if complaints.is_empty() {
        return Ok(Lowered {
            manifest: Node::table(&system.span, root),
            programs,
        });
    }
    Err(complaints)
}

fn copied(node: &Node, key: &str) -> Option<Field> {
    node.fields().iter().find(|field| field.key == key).cloned()
}

/// The manifest's parameters, with a resource profile for each program that
/// has a budget.
fn lower_kernel_params(system: &Node, complaints: &mut Vec<Complaint>) -> Option<Field> {
    const PROFILES: &str = "resourceProfiles";
    let programs = system.get("programs").map_or(&[][..], Node::fields).iter();
    let budgets: Vec<Node> = programs
        .filter_map(|program| lower_budget(program, complaints))
        .collect();
    let params = copied(system, "kernelParams");
    let Some(first) = budgets.first().map(|first| first.span.clone()) else {
        return params;
    };
    let empty = || Node::table(&first, Vec::new());
    let mut params = params.unwrap_or_else(|| Field::new("kernelParams", &first, empty()));
    if let Value::Table(fields) = &mut params.node.value {
        let profiles = fields.iter_mut().find(|field| field.key == PROFILES);
        match profiles.map(|field| &mut field.node.value) {
            Some(Value::List(profiles)) => profiles.extend(budgets),
            _ => {
                let list = Node::new(&first, Value::List(budgets));
                fields.push(Field::new(PROFILES, &first, list));
            }
        }
    }
    Some(params)
}

/// The resource profile of a program that has a budget.
fn lower_budget(program: &Field, complaints: &mut Vec<Complaint>) -> Option<Node> {
    let field = |key| program.node.fields().iter().find(|field| field.key == key);
    let (given, absent) = match (field("budgetUs"), field("periodUs")) {
        (None, None) => return None,
        (Some(budget), Some(period)) => {
            let name = format!("{PROGRAM_PROFILE}{}", program.key);
            let name = Node::text(&program.key_span, &name);
            let fields = vec![
                Field::new("name", &program.key_span, name),
                Field::new(
                    "cpuBudgetUsPerWindow",
                    &budget.key_span,
                    budget.node.clone(),
                ),
                Field::new("cpuWindowUs", &period.key_span, period.node.clone()),
            ];
            return Some(Node::table(&program.node.span, fields));
        }
        (Some(given), None) => (given, "periodUs"),
        (None, Some(given)) => (given, "budgetUs"),
    };
    complaints.push(Complaint::new(
        &given.key_span,
        format!("`{}` without `{absent}`", given.key),
        format!("write `{absent}` as well: a budget is so much in every period"),
    ));
    None
}

fn binary(program: &ProgramFile) -> Node {
    let name = Node::text(&program.name_span, &program.name);
    Node::table(
        &program.name_span,
        vec![Field::new("name", &program.name_span, name)],
    )
}

fn lower_programs(system: &Node, complaints: &mut Vec<Complaint>) -> Vec<ProgramFile> {
    let programs = system.get("programs").map_or(&[][..], Node::fields);
    let mut lower = |field: &Field| {
        let origin = origin(&field.node).map_err(|complaint| complaints.push(complaint));
        Some(ProgramFile {
            name: field.key.clone(),
            name_span: field.key_span.clone(),
            origin: origin.ok()?,
            span: field.node.span.clone(),
        })
    };
    programs.iter().filter_map(&mut lower).collect()
}

fn origin(node: &Node) -> Result<Origin, Complaint> {
    if let Some(path) = node.as_text() {
        return Ok(Origin::Path {
            path: path.into(),
            bin: None,
        });
    }
    let text = |key| node.get(key).and_then(Node::as_text).map(str::to_owned);
    match (text("path"), text("crate"), text("bin")) {
        (Some(path), None, bin) => Ok(Origin::Path {
            path: path.into(),
            bin,
        }),
        (None, Some(_), None) => Ok(Origin::Published),
        (None, Some(_), Some(_)) => Err(Complaint::new(
            &node.span,
            "`bin` beside `crate`: the published crate has one program",
            "take `bin` out",
        )),
        _ => Err(Complaint::new(
            &node.span,
            "a program needs exactly one of `path` and `crate`",
            "give the path of an ELF file or of a Cargo package directory as `path`",
        )),
    }
}

fn lower_init(init: &Node, complaints: &mut Vec<Complaint>) -> Node {
    let binary = match copied(init, "binary") {
        Some(field) => field,
        None => Field::new("binary", &init.span, Node::text(&init.span, INIT)),
    };
    let caps = match init.get("caps") {
        Some(caps) => lower_caps(caps, complaints),
        None => default_caps(&init.span),
    };
    let caps = Field::new("caps", &caps.span.clone(), caps);
    Node::table(&init.span, vec![binary, caps])
}

fn default_caps(span: &Span) -> Node {
    let cap = |name: &&str| kernel_cap(span, span, name, name);
    Node::new(span, Value::List(INIT_CAPS.iter().map(cap).collect()))
}

fn lower_service(service: &Node, complaints: &mut Vec<Complaint>) -> Node {
    let mut fields: Vec<Field> = ["name", "binary", "exports", "restart"]
        .iter()
        .filter_map(|key| copied(service, key))
        .collect();
    if service.get("binary").is_none()
        && let Some(name) = service.get("name")
    {
        fields.push(Field::new("binary", &name.span, name.clone()));
    }
    if let Some(caps) = service.get("caps") {
        fields.push(Field::new("caps", &caps.span, lower_caps(caps, complaints)));
    }
    Node::table(&service.span, fields)
}

fn lower_caps(caps: &Node, complaints: &mut Vec<Complaint>) -> Node {
    let mut list = Vec::new();
    for item in caps.items() {
        list.extend(match item.as_text() {
            Some(name) => Some(kernel_cap(&item.span, &item.span, name, name)),
            None => lower_cap(item.get("name"), item, complaints),
        });
    }
    for field in caps.fields() {
        let name = Node::text(&field.key_span, &field.key);
        list.extend(match field.node.as_text() {
            Some(source) => Some(kernel_cap(
                &field.key_span,
                &field.node.span,
                &field.key,
                source,
            )),
            None => lower_cap(Some(&name), &field.node, complaints),
        });
    }
    Node::new(&caps.span, Value::List(list))
}

fn kernel_cap(name_span: &Span, source_span: &Span, name: &str, source: &str) -> Node {
    let source = Node::text(source_span, source);
    let source = Node::table(source_span, vec![Field::new("kernel", source_span, source)]);
    let fields = vec![
        Field::new("name", name_span, Node::text(name_span, name)),
        Field::new("source", source_span, source),
    ];
    Node::table(source_span, fields)
}

/// A capability written as a table.
fn lower_cap(name: Option<&Node>, cap: &Node, complaints: &mut Vec<Complaint>) -> Option<Node> {
    let name = name?;
    let source = match source(name, cap) {
        Ok(source) => source,
        Err(complaint) => {
            complaints.push(complaint);
            return None;
        }
    };
    let mut fields = vec![
        Field::new("name", &name.span, name.clone()),
        Field::new("source", &cap.span, source),
    ];
    fields.extend(copied(cap, "badge"));
    fields.extend(copied(cap, "disclosureScope"));
    if let Some(interface) = cap.get("interface") {
        match interface_number(interface) {
            Ok(number) => fields.push(Field::new("expectedInterfaceId", &interface.span, number)),
            Err(complaint) => complaints.push(complaint),
        }
    }
    Some(Node::table(&cap.span, fields))
}

fn source(name: &Node, cap: &Node) -> Result<Node, Complaint> {
    let one = |field: Field| Ok(Node::table(&cap.span, vec![field]));
    match (
        copied(cap, "kernel"),
        copied(cap, "service"),
        copied(cap, "export"),
    ) {
        (Some(kernel), None, None) => one(kernel),
        (Some(_), None, Some(export)) => Err(Complaint::new(
            &export.key_span,
            "`export` without `service`",
            "say which service exports it, or take `export` out",
        )),
        (None, Some(service), export) => {
            let exported = export.unwrap_or_else(|| Field::new("export", &name.span, name.clone()));
            let span = service.key_span.clone();
            let source = Node::table(&cap.span, vec![service, exported]);
            one(Field::new("service", &span, source))
        }
        (Some(_), Some(service), _) => Err(Complaint::new(
            &service.key_span,
            "a capability has one source, not both `kernel` and `service`",
            "take one of the two out",
        )),
        (None, None, _) => Err(Complaint::new(
            &cap.span,
            "a capability without a source",
            "say where it comes from: `kernel = \"...\"`, or `service = \"...\"` for what a service exports",
        )),
    }
}

fn interface_number(node: &Node) -> Result<Node, Complaint> {
    let number = match &node.value {
        Value::Uint(number) => Some(*number),
        Value::Text(text) => match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(&digits.replace('_', ""), 16).ok(),
            None => interfaces::number(text),
        },
        _ => None,
    };
    let number = number.ok_or_else(|| {
        let text = node.as_text().unwrap_or_default();
        let advice = match nearest(text, interfaces::names()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => {
                "name it as the capOS schema does, for example `Timer`, or write its number".into()
            }
        };
        Complaint::new(
            &node.span,
            format!("there is no interface `{text}`"),
            advice,
        )
    })?;
    Ok(Node::new(&node.span, Value::Uint(number)))
}
