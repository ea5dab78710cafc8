//! Parameters from what was typed, results as text.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use capnp::introspect::{Type, TypeVariant};
use capnp::message::Builder;
use capnp::schema::{EnumSchema, Field as SchemaField};
use capnp::{Word, dynamic_list, dynamic_struct, dynamic_value};

use crate::LineError;
use crate::command::{Arguments, Field, Located, Value, unsigned};
use crate::interface::{self, Method};
use crate::printable;

/// How deep a result is shown.
const DEPTH_MAX: usize = 8;
/// How many elements of a list are shown.
const ELEMENTS_MAX: usize = 64;
/// How many bytes of a result's data are shown.
const DATA_BYTES_MAX: usize = 64;

/// Finds the local number of a capability by its name.
pub type Resolve<'a> = &'a dyn Fn(&str) -> Option<u32>;

/// The message that calls `method`, whose name stands at `column`.
///
/// # Errors
/// A value that is not of the type its place wants, a field that does not exist
/// or is there twice, too many values.
pub fn parameters(
    method: &Method,
    column: usize,
    arguments: &Arguments,
    resolve: Resolve<'_>,
) -> Result<Vec<u8>, LineError> {
    let broken = |_| LineError::new(column, "the schema of this method cannot be read");
    let mut message = Builder::new_default();
    let Some(mut root) = interface::as_struct((method.build)(&mut message)) else {
        return Err(LineError::new(column, "this method takes no structure"));
    };
    let fields = root.get_schema().get_fields().map_err(broken)?;
    for (place, value) in arguments.positional.iter().enumerate() {
        let field = u16::try_from(place)
            .ok()
            .filter(|place| *place < fields.len());
        let Some(place) = field else {
            let reason = format!("too many values: {}", method.signature());
            return Err(LineError::new(value.column, reason));
        };
        set(&mut root, fields.get(place), value, resolve)?;
    }
    let taken = arguments.positional.len();
    set_named(&mut root, &arguments.named, taken, resolve)?;
    Ok(capnp::serialize::write_message_to_words(&message))
}

/// Sets named fields; the first `taken` are set already.
fn set_named(
    root: &mut dynamic_struct::Builder<'_>,
    named: &[Field],
    taken: usize,
    resolve: Resolve<'_>,
) -> Result<(), LineError> {
    let schema = root.get_schema();
    for (place, field) in named.iter().enumerate() {
        let found = schema.find_field_by_name(&field.name).ok().flatten();
        let Some(found) = found else {
            let reason = format!("there is no `{}` here", field.name);
            return Err(LineError::new(field.column, reason));
        };
        let earlier = named[..place].iter().any(|other| other.name == field.name);
        if earlier || usize::from(found.get_index()) < taken {
            let reason = format!("`{}` has a value already", field.name);
            return Err(LineError::new(field.column, reason));
        }
        set(root, found, &field.value, resolve)?;
    }
    Ok(())
}

fn set(
    root: &mut dynamic_struct::Builder<'_>,
    field: SchemaField,
    value: &Located,
    resolve: Resolve<'_>,
) -> Result<(), LineError> {
    let column = value.column;
    let refused = || LineError::new(column, "this value cannot be put there");
    match (field.get_type().which(), &value.value) {
        (TypeVariant::Struct(_), Value::Struct(fields)) => {
            match root.reborrow().init(field).map_err(|_| refused())? {
                dynamic_value::Builder::Struct(mut inner) => {
                    set_named(&mut inner, fields, 0, resolve)
                }
                _ => Err(refused()),
            }
        }
        (TypeVariant::List(element), Value::List(values)) => {
            let length = u32::try_from(values.len()).map_err(|_| refused())?;
            match root.reborrow().initn(field, length) {
                Ok(dynamic_value::Builder::List(list)) => {
                    set_elements(list, element, values, resolve)
                }
                _ => Err(refused()),
            }
        }
        (ty, _) => {
            let plain = plain(&ty, value, resolve)?;
            root.set(field, plain).map_err(|_| refused())
        }
    }
}

fn set_elements(
    mut list: dynamic_list::Builder<'_>,
    element: Type,
    values: &[Located],
    resolve: Resolve<'_>,
) -> Result<(), LineError> {
    for (place, value) in (0u32..).zip(values) {
        let refused = || LineError::new(value.column, "this value cannot be put there");
        match (element.which(), &value.value) {
            (TypeVariant::Struct(_), Value::Struct(fields)) => {
                match list.reborrow().get(place).map_err(|_| refused())? {
                    dynamic_value::Builder::Struct(mut inner) => {
                        set_named(&mut inner, fields, 0, resolve)?;
                    }
                    _ => return Err(refused()),
                }
            }
            (TypeVariant::List(inner), Value::List(values)) => {
                let length = u32::try_from(values.len()).unwrap_or(u32::MAX);
                match list.reborrow().init(place, length).map_err(|_| refused())? {
                    dynamic_value::Builder::List(list) => {
                        set_elements(list, inner, values, resolve)?;
                    }
                    _ => return Err(refused()),
                }
            }
            (ty, _) => {
                let plain = plain(&ty, value, resolve)?;
                list.set(place, plain).map_err(|_| refused())?;
            }
        }
    }
    Ok(())
}

/// A value that is neither list nor structure.
fn plain<'a>(
    ty: &TypeVariant,
    located: &'a Located,
    resolve: Resolve<'_>,
) -> Result<dynamic_value::Reader<'a>, LineError> {
    let value = match &located.value {
        Value::Word(word) => from_word(ty, word),
        Value::Text(text) => match ty {
            TypeVariant::Text => Some(dynamic_value::Reader::Text(text.as_str().into())),
            TypeVariant::Data => Some(dynamic_value::Reader::Data(text.as_bytes())),
            _ => None,
        },
        Value::Bytes(bytes) => {
            matches!(ty, TypeVariant::Data).then_some(dynamic_value::Reader::Data(bytes))
        }
        Value::Capability(name) => {
            let Some(id) = resolve(name) else {
                let reason = format!("this shell holds no `@{name}`");
                return Err(LineError::new(located.column, reason));
            };
            matches!(ty, TypeVariant::UInt32).then_some(dynamic_value::Reader::UInt32(id))
        }
        Value::List(_) | Value::Struct(_) => None,
    };
    value.ok_or_else(|| {
        let reason = format!("here should be {}", wanted(ty));
        LineError::new(located.column, reason)
    })
}

/// A type as an error message names it.
fn wanted(ty: &TypeVariant) -> String {
    match ty {
        TypeVariant::Enum(schema) => {
            let names = enumerants(EnumSchema::from(*schema));
            format!("one of {}", names.join(", "))
        }
        TypeVariant::Text => String::from("text in quotes"),
        TypeVariant::Data => String::from("bytes: text in quotes, or hex \"...\""),
        TypeVariant::Bool => String::from("true or false"),
        TypeVariant::List(_) => String::from("a list, as [a, b]"),
        TypeVariant::Struct(_) => String::from("a structure, as {name: value}"),
        other => format!("a number of type {}", interface::plain_name(other)),
    }
}

fn enumerants(schema: EnumSchema) -> Vec<&'static str> {
    let names = schema.get_enumerants().into_iter().flatten();
    names
        .filter_map(|enumerant| enumerant.get_proto().get_name().ok()?.to_str().ok())
        .collect()
}

fn from_word<'a>(ty: &TypeVariant, word: &str) -> Option<dynamic_value::Reader<'a>> {
    use dynamic_value::Reader;
    let natural = || unsigned(word);
    Some(match ty {
        TypeVariant::Bool => Reader::Bool(word.parse().ok()?),
        TypeVariant::UInt8 => Reader::UInt8(natural()?.try_into().ok()?),
        TypeVariant::UInt16 => Reader::UInt16(natural()?.try_into().ok()?),
        TypeVariant::UInt32 => Reader::UInt32(natural()?.try_into().ok()?),
        TypeVariant::UInt64 => Reader::UInt64(natural()?),
        TypeVariant::Int8 => Reader::Int8(word.parse().ok()?),
        TypeVariant::Int16 => Reader::Int16(word.parse().ok()?),
        TypeVariant::Int32 => Reader::Int32(word.parse().ok()?),
        TypeVariant::Int64 => Reader::Int64(word.parse().ok()?),
        TypeVariant::Enum(schema) => {
            let schema = EnumSchema::from(*schema);
            let place = enumerants(schema).iter().position(|name| *name == word)?;
            dynamic_value::Enum::new(u16::try_from(place).ok()?, schema).into()
        }
        _ => return None,
    })
}

/// The results of `method` as text, one field a line. Nothing in it can act on
/// a terminal, and a session's identity is not in it.
///
/// # Errors
/// The results are not what the schema says they are, in words.
pub fn results(method: &Method, bytes: &[u8]) -> Result<String, String> {
    if bytes.is_empty() {
        return Ok(String::from("done"));
    }
    let mut words = Word::allocate_zeroed_vec(bytes.len().div_ceil(size_of::<Word>()));
    Word::words_to_bytes_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    let malformed = |error: capnp::Error| format!("the results are malformed: {:?}", error.kind);
    let message = capnp::serialize::read_message_from_flat_slice_no_alloc(
        &mut Word::words_to_bytes(&words),
        capos_config::default_reader_options(),
    )
    .map_err(malformed)?;
    let dynamic_value::Reader::Struct(root) = (method.read)(&message).map_err(malformed)? else {
        return Err(String::from("the results are no structure"));
    };
    let mut text = String::new();
    for field in root.get_schema().get_fields().map_err(malformed)? {
        let shown = show_field(root, field, DEPTH_MAX).map_err(malformed)?;
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{}: {shown}", interface::field_name(field)));
    }
    Ok(if text.is_empty() {
        String::from("done")
    } else {
        text
    })
}

fn show_field(
    root: dynamic_struct::Reader<'_>,
    field: SchemaField,
    depth: usize,
) -> capnp::Result<String> {
    match (interface::field_name(field), root.get(field)?) {
        ("sessionId", dynamic_value::Reader::Data(data)) => {
            Ok(format!("({} bytes, not shown)", data.len()))
        }
        (_, value) => show(value, depth),
    }
}

fn show(value: dynamic_value::Reader<'_>, depth: usize) -> capnp::Result<String> {
    use dynamic_value::Reader;
    Ok(match value {
        Reader::Void => String::from("void"),
        Reader::Bool(value) => value.to_string(),
        Reader::Int8(value) => value.to_string(),
        Reader::Int16(value) => value.to_string(),
        Reader::Int32(value) => value.to_string(),
        Reader::Int64(value) => value.to_string(),
        Reader::UInt8(value) => value.to_string(),
        Reader::UInt16(value) => value.to_string(),
        Reader::UInt32(value) => value.to_string(),
        Reader::UInt64(value) => value.to_string(),
        Reader::Float32(value) => value.to_string(),
        Reader::Float64(value) => value.to_string(),
        Reader::Enum(value) => show_enum(value)?,
        Reader::Text(text) => match text.to_str() {
            Ok(text) => format!("\"{}\"", printable(text)),
            Err(_) => String::from("(text that is not UTF-8)"),
        },
        Reader::Data(data) => show_data(data),
        Reader::Struct(_) | Reader::List(_) if depth == 0 => String::from("..."),
        Reader::Struct(structure) => show_struct(structure, depth - 1)?,
        Reader::List(list) => show_list(list, depth - 1)?,
        Reader::AnyPointer(_) => String::from("(a pointer)"),
        Reader::Capability(_) => String::from("(a capability)"),
    })
}

fn show_enum(value: dynamic_value::Enum) -> capnp::Result<String> {
    let number = value.get_value();
    Ok(match value.get_enumerant()? {
        Some(enumerant) => enumerant.get_proto().get_name()?.to_str()?.to_string(),
        None => format!("enumerant {number}"),
    })
}

fn show_data(data: &[u8]) -> String {
    let shown = &data[..data.len().min(DATA_BYTES_MAX)];
    let digits: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
    let rest = data.len() - shown.len();
    if rest == 0 {
        return format!("hex \"{digits}\"");
    }
    format!("hex \"{digits}\" and {rest} bytes more")
}

fn show_struct(structure: dynamic_struct::Reader<'_>, depth: usize) -> capnp::Result<String> {
    let active = structure.which()?.map(|field| field.get_index());
    let mut parts = Vec::new();
    for field in structure.get_schema().get_fields()? {
        let in_union = field.get_proto().get_discriminant_value() != u16::MAX;
        if in_union && active != Some(field.get_index()) {
            continue;
        }
        let shown = show_field(structure, field, depth)?;
        parts.push(format!("{}: {shown}", interface::field_name(field)));
    }
    Ok(format!("{{{}}}", parts.join(", ")))
}

fn show_list(list: dynamic_list::Reader<'_>, depth: usize) -> capnp::Result<String> {
    let length = list.len() as usize;
    let shown = length.min(ELEMENTS_MAX);
    let parts = (0u32..)
        .take(shown)
        .map(|place| show(list.get(place)?, depth));
    let mut parts = parts.collect::<capnp::Result<Vec<String>>>()?;
    if shown < length {
        parts.push(format!("{} more", length - shown));
    }
    Ok(format!("[{}]", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{self, Command};
    use capos_config::capos_capnp;
    use proptest::prelude::*;

    fn built(line: &str) -> Result<Vec<u8>, LineError> {
        let Ok(Some(Command::Call(call))) = command::parse(line) else {
            panic!("{line} is no call");
        };
        let interface = interface::by_name(call.interface.as_deref().expect("it names one"));
        let (_, method) = interface
            .expect("there is such an interface")
            .method(&call.method)
            .expect("there is such a method");
        let resolve = |name: &str| (name == "held").then_some(77);
        parameters(method, call.method_column, &call.arguments, &resolve)
    }

    fn read<T, R>(bytes: &[u8], with: impl FnOnce(T::Reader<'_>) -> R) -> R
    where
        T: capnp::traits::Owned,
    {
        let message = capnp::serialize::read_message(bytes, Default::default()).expect("readable");
        with(message.get_root().expect("it has a root"))
    }

    #[test]
    fn values_get_where_the_schema_wants_them() {
        let bytes = built(
            r#"call @t TerminalSession.readLine {prompt: "p> ", maxBytes: 0x10, echo: hidden}"#,
        )
        .expect("it is well formed");
        read::<capos_capnp::terminal_session::read_line_params::Owned, _>(&bytes, |params| {
            let request = params.get_request().expect("it is there");
            assert_eq!(request.get_prompt().unwrap().to_str().unwrap(), "p> ");
            assert_eq!(request.get_max_bytes(), 16);
            assert_eq!(request.get_echo(), Ok(capos_capnp::LineEcho::Hidden));
            assert!(!request.get_allow_empty());
        });
        let bytes = built(r##"call @c Chat.send text: "hi" channel: "#lobby""##).expect("it is");
        read::<capos_capnp::chat::send_params::Owned, _>(&bytes, |params| {
            assert_eq!(params.get_channel().unwrap().to_str().unwrap(), "#lobby");
            assert_eq!(params.get_text().unwrap().to_str().unwrap(), "hi");
        });
        let bytes = built(
            r#"call @l RestrictedLauncher.spawn "a" "b" [{name: "x", capId: @held, mode: clientEndpoint}]"#,
        )
        .expect("it is well formed");
        read::<capos_capnp::restricted_launcher::spawn_params::Owned, _>(&bytes, |params| {
            let grant = params.get_grants().unwrap().get(0);
            assert_eq!(grant.get_cap_id(), 77);
            assert_eq!(
                grant.get_mode(),
                Ok(capos_capnp::CapGrantMode::ClientEndpoint)
            );
        });
    }

    #[test]
    fn mistakes_are_where_they_are() {
        for (line, column, part) in [
            (
                r#"call @t Timer.sleep "soon""#,
                20,
                "a number of type UInt64",
            ),
            ("call @t Timer.sleep -1", 20, "a number"),
            (
                "call @t Timer.sleep 1 2",
                22,
                "too many values: sleep(durationNs: UInt64)",
            ),
            (
                "call @t Timer.sleep 1 durationNs: 2",
                22,
                "has a value already",
            ),
            ("call @t Timer.sleep ms: 2", 20, "no `ms`"),
            ("call @m Manual.section 256", 23, "UInt8"),
            ("call @c Chat.who lobby", 17, "text in quotes"),
            (
                r#"call @t TerminalSession.readLine {echo: loud}"#,
                40,
                "one of visible, hidden",
            ),
            ("call @l RestrictedLauncher.spawn x: 1", 33, "no `x`"),
            (
                r#"call @b AuthorityBroker.shellBundle @gone"#,
                36,
                "holds no `@gone`",
            ),
            (
                r#"call @b AuthorityBroker.shellBundle 1 @held"#,
                38,
                "text in quotes",
            ),
        ] {
            let error = built(line).expect_err(line);
            assert_eq!(error.column, column, "{line}: {error}");
            assert!(error.reason.contains(part), "{line}: {error}");
        }
    }

    fn shown(interface: &str, method: &str, bytes: &[u8]) -> Result<String, String> {
        let interface = interface::by_name(interface).expect("there is such an interface");
        let (_, method) = interface.method(method).expect("there is such a method");
        results(method, bytes)
    }

    #[test]
    fn results_are_shown_and_cannot_act() {
        let mut message = Builder::new_default();
        let root: capos_capnp::chat::who_results::Builder<'_> = message.init_root();
        let mut members = root.init_members(2);
        members.set(0, "member-1");
        members.set(1, "\u{1b}[2Jrun");
        let bytes = capnp::serialize::write_message_to_words(&message);
        assert_eq!(
            shown("Chat", "who", &bytes).expect("it is well formed"),
            r#"members: ["member-1", "\u{1b}[2Jrun"]"#
        );
        assert_eq!(shown("Timer", "sleep", &[]).expect("nothing"), "done");
    }

    #[test]
    fn a_session_identity_is_not_shown() {
        let mut message = Builder::new_default();
        let mut root: capos_capnp::user_session::audit_context_results::Builder<'_> =
            message.init_root();
        root.set_session_id(b"sixteen secrets!");
        root.set_principal_id(b"me");
        let bytes = capnp::serialize::write_message_to_words(&message);
        assert_eq!(
            shown("UserSession", "auditContext", &bytes).expect("it is well formed"),
            "sessionId: (16 bytes, not shown)\nprincipalId: hex \"6d65\""
        );
    }

    #[test]
    fn a_result_from_nowhere_is_an_error() {
        assert!(shown("Chat", "who", b"not a message").is_err());
    }

    proptest! {
        #[test]
        fn no_result_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for interface in interface::INTERFACES {
                for method in interface.methods {
                    let text = results(method, &bytes).unwrap_or_default();
                    prop_assert!(!text.contains(char::from(27)));
                }
            }
        }

        #[test]
        fn no_likely_result_makes_it_panic(
            mut words in proptest::collection::vec(any::<[u8; 8]>(), 1..30),
        ) {
            // A header for one segment, so that the reader gets to the rest.
            let length = u32::try_from(words.len() - 1).unwrap();
            words[0] = [[0; 4], length.to_le_bytes()].concat().try_into().unwrap();
            let bytes = words.concat();
            for interface in interface::INTERFACES {
                for method in interface.methods {
                    let _ = results(method, &bytes);
                }
            }
        }
    }
}
