//! TOML and JSON as one tree that remembers where everything was written.

use capos_config::{CueField, CueValue};
use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::located::{Complaint, Span};

/// A value and where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where.
    pub span: Span,
    /// What.
    pub value: Value,
}

/// What can be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON's `null`.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number from 0.
    Uint(u64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys with values, in the order written.
    Table(Vec<Field>),
    /// Something manifests have no use for, in words.
    Other(&'static str),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The key.
    pub key: String,
    /// Where the key is written.
    pub key_span: Span,
    /// Its value.
    pub node: Node,
}

impl Field {
    /// A field that the file says at `span`, in other words.
    pub fn new(key: &str, span: &Span, node: Node) -> Self {
        Self {
            key: key.into(),
            key_span: span.clone(),
            node,
        }
    }
}

impl Node {
    /// A value at `span`.
    pub fn new(span: &Span, value: Value) -> Self {
        Self {
            span: span.clone(),
            value,
        }
    }

    /// A text at `span`.
    pub fn text(span: &Span, text: &str) -> Self {
        Self::new(span, Value::Text(text.into()))
    }

    /// A table at `span`.
    pub fn table(span: &Span, fields: Vec<Field>) -> Self {
        Self::new(span, Value::Table(fields))
    }

    /// Its fields, if it is a table.
    pub fn fields(&self) -> &[Field] {
        match &self.value {
            Value::Table(fields) => fields,
            _ => &[],
        }
    }

    /// Its elements, if it is a list.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let field = self.fields().iter().find(|field| field.key == key);
        field.map(|field| &field.node)
    }

    /// Its text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Its number, if it is one.
    pub const fn as_uint(&self) -> Option<u64> {
        match self.value {
            Value::Uint(number) => Some(number),
            _ => None,
        }
    }

    /// What kind of value it is, in words.
    pub const fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Uint(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }

    /// The node a path of capos-config names (`$.a.b[3].c`), or the nearest
    /// one around it.
    pub fn at(&self, path: &str) -> &Self {
        let steps = path.strip_prefix('$').unwrap_or(path);
        let mut node = self;
        for step in steps.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next = match step.strip_suffix(']').map(str::parse) {
                Some(Ok(index)) => node.items().get::<usize>(index),
                _ => node.get(step),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// The same as capos-config holds it. What it cannot hold becomes null; a
    /// checked tree has no such thing.
    pub fn to_cue(&self) -> CueValue {
        match &self.value {
            Value::Null | Value::Other(_) => CueValue::Null,
            Value::Bool(value) => CueValue::Bool(*value),
            Value::Uint(value) => CueValue::UInt(*value),
            Value::Text(value) => CueValue::text(value.as_str()),
            Value::List(items) => {
                CueValue::list(items.iter().map(Self::to_cue).collect::<Vec<_>>())
            }
            Value::Table(fields) => {
                let field = |field: &Field| CueField::new(field.key.as_str(), field.node.to_cue());
                CueValue::struct_(fields.iter().map(field).collect::<Vec<_>>())
            }
        }
    }
}

/// Reads TOML.
///
/// # Errors
/// The first place that is not TOML.
pub fn parse_toml(text: &str) -> Result<Node, Complaint> {
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        Complaint::new(
            &span,
            format!("not TOML: {}", error.message()),
            "see https://toml.io for how TOML is written",
        )
    })?;
    let span = table.span();
    Ok(Node::table(&span, toml_fields(table.get_ref())))
}

fn toml_fields(table: &DeTable<'_>) -> Vec<Field> {
    let mut fields: Vec<Field> = table
        .iter()
        .map(|(key, value)| Field::new(key.get_ref(), &key.span(), toml_node(value)))
        .collect();
    // The parser keeps keys sorted by name.
    fields.sort_by_key(|field| field.key_span.start);
    fields
}

fn toml_node(value: &Spanned<DeValue<'_>>) -> Node {
    let converted = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).map_or(
            Value::Other("a number below 0 or above 2^64 - 1"),
            Value::Uint,
        ),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::List(items.iter().map(toml_node).collect()),
        DeValue::Table(table) => Value::Table(toml_fields(table)),
    };
    Node::new(&value.span(), converted)
}

/// Reads JSON, the strict language without comments.
///
/// # Errors
/// The first place that is not JSON.
pub fn parse_json(text: &str) -> Result<Node, Complaint> {
    const STRICT: ParseOptions = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let advice = "give the output of `cue export` as it is";
    let parsed = parse_to_ast(text, &CollectOptions::default(), &STRICT).map_err(|error| {
        let range = error.range();
        let what = error.kind().to_string();
        let what = format!("not JSON: {}", lower_first(&what));
        Complaint::new(&(range.start..range.end), what, advice)
    })?;
    let empty = || Complaint::new(&(0..0), "not JSON: there is nothing", advice);
    parsed.value.as_ref().map(json_node).ok_or_else(empty)
}

fn json_node(value: &ast::Value<'_>) -> Node {
    let range = value.range();
    let converted = match value {
        ast::Value::StringLit(text) => Value::Text(text.value.to_string()),
        ast::Value::NumberLit(number) => match number.value.parse() {
            Ok(number) => Value::Uint(number),
            Err(_) if number.value.contains(['.', 'e', 'E']) => {
                Value::Other("a number with a fraction")
            }
            Err(_) => Value::Other("a number below 0 or above 2^64 - 1"),
        },
        ast::Value::BooleanLit(value) => Value::Bool(value.value),
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::Array(list) => Value::List(list.elements.iter().map(json_node).collect()),
        ast::Value::Object(object) => {
            Value::Table(object.properties.iter().map(json_field).collect())
        }
    };
    Node::new(&(range.start..range.end), converted)
}

fn json_field(property: &ast::ObjectProp<'_>) -> Field {
    let range = property.name.range();
    let key = match &property.name {
        ast::ObjectPropName::String(name) => name.value.as_ref(),
        ast::ObjectPropName::Word(name) => name.value,
    };
    Field::new(key, &(range.start..range.end), json_node(&property.value))
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_ascii_lowercase().to_string() + characters.as_str()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_and_json_give_the_same_tree() {
        let toml = "b = [1, 0xffff_ffff_ffff_ffff]\n[a]\nx = 'y'\nz = true\n";
        let json = r#"{"b": [1, 18446744073709551615], "a": {"x": "y", "z": true}}"#;
        let (toml, json) = (parse_toml(toml).unwrap(), parse_json(json).unwrap());
        assert_eq!(toml.to_cue(), json.to_cue());
    }

    #[test]
    fn a_path_finds_its_node_or_the_nearest_one() {
        let text = r#"{"a": [{"b": 1}, {"b": 2}]}"#;
        let tree = parse_json(text).unwrap();
        assert_eq!(tree.at("$.a[1].b").as_uint(), Some(2));
        assert_eq!(tree.at("$.a[1].c").span, tree.at("$.a[1]").span);
        assert_eq!(&text[tree.at("$.a[0]").span.clone()], r#"{"b": 1}"#);
    }

    #[test]
    fn what_is_neither_is_refused_with_its_place() {
        assert_eq!(parse_toml("a = \n").unwrap_err().span.start, 4);
        for text in [
            "",
            "{'a': 1}",
            "{\"a\": 1,}",
            "{\"a\": 0x1}",
            "// x\n{}",
            "{} {}",
        ] {
            let complaint = parse_json(text).unwrap_err();
            assert!(complaint.what.starts_with("not JSON: "), "{text}");
        }
    }
}
