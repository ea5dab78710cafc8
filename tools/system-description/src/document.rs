//! A document held against the grammar: afterwards every element and
//! attribute is known, present where it must be, and within its bounds.

use roxmltree::{Document, Node, ParsingOptions};

use crate::grammar::{self, Attribute, Element, Kind, Support};
use crate::{Complaint, Place};

/// An element that passed.
#[derive(Debug)]
pub struct Checked {
    /// What it is in the grammar.
    pub element: &'static Element,
    /// Where it begins.
    pub place: Place,
    attributes: Vec<Value>,
    children: Vec<Checked>,
}

/// An attribute that passed.
#[derive(Debug)]
struct Value {
    name: &'static str,
    text: String,
    place: Place,
}

impl Checked {
    /// The elements inside that are called `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Checked> {
        self.children.iter().filter(move |c| c.element.name == name)
    }

    /// The text of an attribute, or its default.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.value(name).map(|value| value.text.as_str())
    }

    /// The number an attribute says.
    pub fn number(&self, name: &str) -> Option<u64> {
        number(self.text(name)?)
    }

    /// Whether an attribute says `true`; `default` where it is left out.
    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.text(name).map_or(default, |text| text == "true")
    }

    /// Where an attribute's value is, or the element.
    pub fn place_of(&self, name: &str) -> Place {
        self.value(name).map_or(self.place, |value| value.place)
    }

    /// Whether any attribute has that name.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|value| value.name == name)
    }
}

/// Parses `text` and checks each element and attribute by itself.
pub fn parse(text: &str) -> Result<Checked, Complaint> {
    /// Elements and attributes one would believe.
    const NODES_MAX: u32 = 100_000;
    let options = ParsingOptions {
        nodes_limit: NODES_MAX,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options).map_err(|error| {
        let at = error.pos();
        let place = Place {
            row: at.row,
            column: at.col,
        };
        Complaint::new(place, format!("not XML: {error}"))
    })?;
    let root = document.root_element();
    let expected = &grammar::SYSTEM;
    if root.tag_name().name() != expected.name {
        let what = format!("the document is `{}`, not `system`", root.tag_name().name());
        return Err(Complaint::new(place(&root), what));
    }
    check(&root, expected)
}

fn place(node: &Node<'_, '_>) -> Place {
    at(node, node.range().start)
}

fn at(node: &Node<'_, '_>, offset: usize) -> Place {
    let at = node.document().text_pos_at(offset);
    Place {
        row: at.row,
        column: at.col,
    }
}

/// Two shapes of `irq`: the attributes tell them apart.
fn shape_of(node: &Node<'_, '_>, element: &'static Element) -> Result<&'static Element, Complaint> {
    if element.name != grammar::IRQ_IOAPIC.name {
        return Ok(element);
    }
    if node.has_attribute("irq") {
        let what = "an interrupt by its number alone: say `pin`, or `pcidev`";
        return Err(Complaint::not_supported(place(node), what));
    }
    match (node.has_attribute("pin"), node.has_attribute("pcidev")) {
        (true, true) => Err(Complaint::new(
            place(node),
            "`irq` has both `pin` and `pcidev`",
        )),
        (_, true) => Ok(&grammar::IRQ_MSI),
        _ => Ok(&grammar::IRQ_IOAPIC),
    }
}

fn check(node: &Node<'_, '_>, element: &'static Element) -> Result<Checked, Complaint> {
    let element = shape_of(node, element)?;
    if let Support::NotSupported(reason) = element.support {
        let what = format!("`{}`: {reason}", element.name);
        return Err(Complaint::not_supported(place(node), what));
    }
    let attributes = attributes(node, element)?;
    let mut children = Vec::new();
    for child in node.children().filter(Node::is_element) {
        let name = child.tag_name().name();
        let known = element.children.iter().find(|known| known.name == name);
        let known = known.ok_or_else(|| {
            let what = format!("`{}` cannot have a `{name}` inside", element.name);
            Complaint::new(place(&child), what)
        })?;
        children.push(check(&child, known)?);
    }
    Ok(Checked {
        element,
        place: place(node),
        attributes,
        children,
    })
}

fn attributes(node: &Node<'_, '_>, element: &Element) -> Result<Vec<Value>, Complaint> {
    let mut values = Vec::new();
    for attribute in node.attributes() {
        let (name, text) = (attribute.name(), attribute.value());
        let name_place = at(node, attribute.range().start);
        let known = element.attributes.iter().find(|known| known.name == name);
        let known = known.ok_or_else(|| {
            let what = format!("`{}` has no attribute `{name}` (\"{text}\")", element.name);
            Complaint::new(name_place, what)
        })?;
        if let Support::NotSupported(reason) = known.support {
            let what = format!("`{name}` (\"{text}\") of `{}`: {reason}", element.name);
            return Err(Complaint::not_supported(name_place, what));
        }
        let place = at(node, attribute.range_value().start);
        is_within(known, text).map_err(|want| {
            let what = format!("`{name}` of `{}` is \"{text}\", not {want}", element.name);
            Complaint::new(place, what)
        })?;
        values.push(Value {
            name: known.name,
            text: text.into(),
            place,
        });
    }
    let required = element.attributes.iter().filter(|a| a.default.is_none());
    for Attribute { name, .. } in required {
        if !node.has_attribute(*name) {
            let what = format!("`{}` lacks the attribute `{name}`", element.name);
            return Err(Complaint::new(place(node), what));
        }
    }
    Ok(values)
}

/// Whether `text` is what `attribute` asks for; else what that is.
fn is_within(attribute: &Attribute, text: &str) -> Result<(), String> {
    let holds = match attribute.kind {
        Kind::Name => is_name(text),
        Kind::Text => !text.is_empty(),
        Kind::Number { min, max, multiple } => {
            let number = number(text).filter(|number| (min..=max).contains(number));
            number.is_some_and(|number| number.is_multiple_of(multiple))
        }
        Kind::Flag => matches!(text, "true" | "false"),
        Kind::OneOf(words) => words.contains(&text),
        Kind::Permissions => is_permissions(text),
        Kind::PciDevice => pci_device(text).is_some(),
    };
    match (holds, attribute.kind) {
        (true, _) => Ok(()),
        (false, Kind::Name) => Err("a name of 1 to 63 printing characters".into()),
        (false, Kind::Permissions) => Err("`r`, `rw`, `rx`, `rwx`, `x` or `wx`".into()),
        (false, kind) => Err(kind.words()),
    }
}

fn is_name(text: &str) -> bool {
    let printing = text.bytes().all(|byte| byte.is_ascii_graphic());
    printing && (1..capos_domains::NAME_BYTES).contains(&text.len())
}

fn is_permissions(text: &str) -> bool {
    let once = |letter| text.bytes().filter(|&byte| byte == letter).count() <= 1;
    let letters = text.bytes().all(|byte| matches!(byte, b'r' | b'w' | b'x'));
    letters && !text.is_empty() && text != "w" && [b'r', b'w', b'x'].into_iter().all(once)
}

/// A decimal or `0x` hexadecimal number.
pub fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    if digits.starts_with(['_', '+']) || digits.ends_with('_') {
        return None;
    }
    u64::from_str_radix(&digits.replace('_', ""), radix).ok()
}

/// Bus, device and function.
pub fn pci_device(text: &str) -> Option<(u8, u8, u8)> {
    let (bus, rest) = text.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let digits = |text: &str, count: usize| {
        let hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let good = hexadecimal && text.len() == count;
        u8::from_str_radix(text, 16).ok().filter(|_| good)
    };
    let device = digits(device, 2).filter(|&device| device < 32)?;
    let function = digits(function, 1).filter(|&function| function < 8)?;
    Some((digits(bus, 2)?, device, function))
}
