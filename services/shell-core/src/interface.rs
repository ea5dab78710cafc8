//! The interfaces a shell can hold, and their methods.
//!
//! The table has names and numbers. Parameters and results are read from the
//! published schema, or this system's own, by reflection, so they cannot differ from it.

use alloc::format;
use alloc::string::{String, ToString};

use capnp::introspect::{Introspect, Type, TypeVariant};
use capnp::message::{self, Builder, HeapAllocator};
use capnp::schema::StructSchema;
use capnp::serialize::NoAllocSliceSegments;
use capnp::traits::HasTypeId;
use capnp::{dynamic_struct, dynamic_value};
use capos_config::capos_capnp;
use sel4_capos_schema::supervisor_capnp;

/// Parameters of one call, while they are built.
pub(crate) type Parameters = Builder<HeapAllocator>;
/// Results of one call, as they came.
pub(crate) type Results<'a> = message::Reader<NoAllocSliceSegments<'a>>;

/// A method of an interface.
#[derive(Clone, Copy)]
pub struct Method {
    /// Its name in the schema.
    pub name: &'static str,
    parameters: fn() -> Type,
    results: fn() -> Type,
    pub(crate) build: for<'a> fn(&'a mut Parameters) -> dynamic_value::Builder<'a>,
    pub(crate) read: for<'a> fn(&'a Results<'a>) -> capnp::Result<dynamic_value::Reader<'a>>,
}

/// An interface.
#[derive(Clone, Copy)]
pub struct Interface {
    /// Its name in the schema.
    pub name: &'static str,
    /// Its number.
    pub id: u64,
    /// Its methods; their place is their number.
    pub methods: &'static [Method],
}

macro_rules! interface {
    ($module:ident $name:literal { $($methods:tt)* }) => {
        interface!(capos_capnp::$module $name { $($methods)* })
    };
    ($schema:ident::$module:ident $name:literal {
        $($method:literal: $parameters:ident => $results:ident,)*
    }) => {
        Interface {
            name: $name,
            id: <$schema::$module::Client as HasTypeId>::TYPE_ID,
            methods: &[$(Method {
                name: $method,
                parameters: <$schema::$module::$parameters::Owned as Introspect>::introspect,
                results: <$schema::$module::$results::Owned as Introspect>::introspect,
                build: |message| {
                    let root: $schema::$module::$parameters::Builder<'_> = message.init_root();
                    root.into()
                },
                read: |message| {
                    let root: $schema::$module::$results::Reader<'_> = message.get_root()?;
                    Ok(root.into())
                },
            },)*],
        }
    };
}

/// All of them.
pub const INTERFACES: &[Interface] = &[
    interface!(console "Console" {
        "write": write_params => write_results,
        "writeLine": write_line_params => write_line_results,
    }),
    interface!(terminal_session "TerminalSession" {
        "write": write_params => write_results,
        "writeLine": write_line_params => write_line_results,
        "readLine": read_line_params => read_line_results,
    }),
    interface!(std_i_o "StdIO" {
        "write": write_params => write_results,
        "read": read_params => read_results,
        "close": close_params => close_results,
    }),
    interface!(entropy_source "EntropySource" {
        "fill": fill_params => fill_results,
    }),
    interface!(credential_store "CredentialStore" {
        "consolePasswordStatus": console_password_status_params => console_password_status_results,
        "verifyConsolePassword": verify_console_password_params => verify_console_password_results,
        "consoleBootstrapPolicy": console_bootstrap_policy_params => console_bootstrap_policy_results,
        "createConsolePassword": create_console_password_params => create_console_password_results,
    }),
    interface!(audit_log "AuditLog" {
        "record": record_params => record_results,
    }),
    interface!(user_session "UserSession" {
        "info": info_params => info_results,
        "auditContext": audit_context_params => audit_context_results,
        "logout": logout_params => logout_results,
    }),
    interface!(chat "Chat" {
        "join": join_params => join_results,
        "leave": leave_params => leave_results,
        "send": send_params => send_results,
        "who": who_params => who_results,
        "poll": poll_params => poll_results,
    }),
    interface!(session_manager "SessionManager" {
        "login": login_params => login_results,
        "guest": guest_params => guest_results,
        "anonymous": anonymous_params => anonymous_results,
        "sshPublicKey": ssh_public_key_params => ssh_public_key_results,
    }),
    interface!(authority_broker "AuthorityBroker" {
        "shellBundle": shell_bundle_params => shell_bundle_results,
        "remoteClientBundle": remote_client_bundle_params => remote_client_bundle_results,
    }),
    interface!(restricted_launcher "RestrictedLauncher" {
        "spawn": spawn_params => spawn_results,
        "listBinaries": list_binaries_params => list_binaries_results,
        "spawnWorker": spawn_worker_params => spawn_worker_results,
    }),
    interface!(restricted_shell_launcher "RestrictedShellLauncher" {
        "launchShell": launch_shell_params => launch_shell_results,
    }),
    interface!(system_info "SystemInfo" {
        "motd": motd_params => motd_results,
        "hostname": hostname_params => hostname_results,
    }),
    interface!(manual "Manual" {
        "page": page_params => page_results,
        "apropos": apropos_params => apropos_results,
        "topics": topics_params => topics_results,
        "section": section_params => section_results,
        "describe": describe_params => describe_results,
        "buildInfo": build_info_params => build_info_results,
    }),
    interface!(timer "Timer" {
        "now": now_params => now_results,
        "sleep": sleep_params => sleep_results,
    }),
    interface!(wall_clock "WallClock" {
        "wallTime": wall_time_params => wall_time_results,
    }),
    interface!(process_handle "ProcessHandle" {
        "wait": wait_params => wait_results,
        "terminate": terminate_params => terminate_results,
    }),
    interface!(log_sink "LogSink" {
        "write": write_params => write_results,
    }),
    interface!(log_reader "LogReader" {
        "read": read_params => read_results,
    }),
    interface!(boot_package "BootPackage" {
        "manifestSize": manifest_size_params => manifest_size_results,
        "readManifest": read_manifest_params => read_manifest_results,
    }),
    interface!(capability_manager "CapabilityManager" {
        "list": list_params => list_results,
        "revoke": revoke_params => revoke_results,
    }),
    interface!(memory_object "MemoryObject" {
        "info": info_params => info_results,
        "map": map_params => map_results,
        "unmap": unmap_params => unmap_results,
        "protect": protect_params => protect_results,
    }),
    interface!(frame_allocator "FrameAllocator" {
        "allocFrame": alloc_frame_params => alloc_frame_results,
        "allocContiguous": alloc_contiguous_params => alloc_contiguous_results,
    }),
    interface!(endpoint "Endpoint" {}),
    interface!(supervisor_capnp::supervisor "Supervisor" {
        "restart": restart_params => restart_results,
    }),
];

/// The interface with this number.
#[must_use]
pub fn by_id(id: u64) -> Option<&'static Interface> {
    INTERFACES.iter().find(|interface| interface.id == id)
}

/// The interface with this name in the schema.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Interface> {
    INTERFACES.iter().find(|interface| interface.name == name)
}

/// What a service speaks that a bundle names `name`: a bundle says of its
/// services that they are endpoints, and no more.
#[must_use]
pub fn by_bundle_name(name: &str) -> Option<&'static Interface> {
    let plain = |text: &str| {
        let letters = text.chars().filter(char::is_ascii_alphanumeric);
        letters.collect::<String>().to_ascii_lowercase()
    };
    let wanted = plain(name);
    let mut interfaces = INTERFACES.iter();
    interfaces.find(|interface| plain(interface.name) == wanted)
}

/// The name of an interface, or its number.
#[must_use]
pub fn display(id: u64) -> String {
    by_id(id).map_or_else(
        || format!("interface {id:#018x}"),
        |interface| interface.name.to_string(),
    )
}

impl Interface {
    /// The method with this name, and its number.
    #[must_use]
    pub fn method(&self, name: &str) -> Option<(u16, &'static Method)> {
        let place = self.methods.iter().position(|method| method.name == name)?;
        let number = u16::try_from(place).ok()?;
        Some((number, &self.methods[place]))
    }
}

impl Method {
    /// How it is called: `name(parameter: Type, ...) -> (result: Type, ...)`.
    #[must_use]
    pub fn signature(&self) -> String {
        let parameters = fields_text((self.parameters)());
        let results = fields_text((self.results)());
        format!("{}({parameters}) -> ({results})", self.name)
    }

    /// Whether a parameter is a secret, which must not stand in a line: lines
    /// are shown and kept.
    #[must_use]
    pub fn takes_secret(&self) -> bool {
        let TypeVariant::Struct(schema) = (self.parameters)().which() else {
            return false;
        };
        let secret = |name: &str| matches!(name, "password" | "proof");
        let Ok(fields) = StructSchema::from(schema).get_fields() else {
            return false;
        };
        fields.iter().any(|field| secret(field_name(field)))
    }
}

pub(crate) fn field_name(field: capnp::schema::Field) -> &'static str {
    let name = field.get_proto().get_name();
    name.ok()
        .and_then(|name| name.to_str().ok())
        .unwrap_or_default()
}

fn fields_text(ty: Type) -> String {
    let TypeVariant::Struct(schema) = ty.which() else {
        return String::new();
    };
    let Ok(fields) = StructSchema::from(schema).get_fields() else {
        return String::new();
    };
    let mut text = String::new();
    for field in fields {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(field_name(field));
        text.push_str(": ");
        text.push_str(&type_name(field.get_type()));
    }
    text
}

/// A type as the schema writes it.
pub(crate) fn type_name(ty: Type) -> String {
    let short = |name: capnp::Result<capnp::text::Reader<'static>>, prefix: u32| {
        let name = name.ok().and_then(|name| name.to_str().ok());
        let start = usize::try_from(prefix).unwrap_or_default();
        String::from(name.and_then(|name| name.get(start..)).unwrap_or("?"))
    };
    match ty.which() {
        TypeVariant::Struct(schema) => {
            let node = StructSchema::from(schema).get_proto();
            short(
                node.get_display_name(),
                node.get_display_name_prefix_length(),
            )
        }
        TypeVariant::Enum(schema) => {
            let node = capnp::schema::EnumSchema::from(schema).get_proto();
            short(
                node.get_display_name(),
                node.get_display_name_prefix_length(),
            )
        }
        TypeVariant::List(element) => format!("List({})", type_name(element)),
        plain => plain_name(&plain).to_string(),
    }
}

/// The name of a type that needs no other to be named.
pub(crate) fn plain_name(ty: &TypeVariant) -> &'static str {
    match ty {
        TypeVariant::Void => "Void",
        TypeVariant::Bool => "Bool",
        TypeVariant::Int8 => "Int8",
        TypeVariant::Int16 => "Int16",
        TypeVariant::Int32 => "Int32",
        TypeVariant::Int64 => "Int64",
        TypeVariant::UInt8 => "UInt8",
        TypeVariant::UInt16 => "UInt16",
        TypeVariant::UInt32 => "UInt32",
        TypeVariant::UInt64 => "UInt64",
        TypeVariant::Float32 => "Float32",
        TypeVariant::Float64 => "Float64",
        TypeVariant::Text => "Text",
        TypeVariant::Data => "Data",
        TypeVariant::AnyPointer => "AnyPointer",
        TypeVariant::Capability => "Capability",
        TypeVariant::Struct(_) | TypeVariant::Enum(_) | TypeVariant::List(_) => "?",
    }
}

/// The structure behind a dynamic value, which parameters and results are.
pub(crate) fn as_struct(value: dynamic_value::Builder<'_>) -> Option<dynamic_struct::Builder<'_>> {
    match value {
        dynamic_value::Builder::Struct(structure) => Some(structure),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_schema() {
        let signature = |interface: &str, method: &str| {
            let interface = by_name(interface).expect("it is in the table");
            interface.method(method).expect("it has it").1.signature()
        };
        assert_eq!(
            signature("TerminalSession", "readLine"),
            "readLine(request: LineRequest) -> (status: LineStatus, line: Data)"
        );
        assert_eq!(
            signature("Timer", "sleep"),
            "sleep(durationNs: UInt64) -> ()"
        );
        assert_eq!(
            signature("Chat", "who"),
            "who(channel: Text) -> (members: List(Text))"
        );
    }

    #[test]
    fn numbers_are_places() {
        let chat = by_name("Chat").expect("it is in the table");
        assert_eq!(chat.method("poll").expect("it has it").0, 4);
        assert!(chat.method("shout").is_none());
        assert_eq!(by_id(chat.id).expect("it is there").name, "Chat");
    }

    #[test]
    fn names_and_numbers_are_unique() {
        for (place, one) in INTERFACES.iter().enumerate() {
            for other in &INTERFACES[..place] {
                assert_ne!(one.id, other.id, "{} and {}", one.name, other.name);
                assert_ne!(one.name, other.name);
            }
        }
    }

    #[test]
    fn a_bundle_name_tells_the_interface() {
        for (name, interface) in [
            ("chat", "Chat"),
            ("stdio", "StdIO"),
            ("log_reader", "LogReader"),
            ("manual", "Manual"),
            ("supervisor", "Supervisor"),
        ] {
            let found = by_bundle_name(name).map(|interface| interface.name);
            assert_eq!(found, Some(interface));
        }
        assert!(by_bundle_name("").is_none());
        assert!(by_bundle_name("pizza").is_none());
    }

    #[test]
    fn secrets_are_known() {
        let secret = |interface: &str, method: &str| {
            let interface = by_name(interface).expect("it is in the table");
            interface
                .method(method)
                .expect("it has it")
                .1
                .takes_secret()
        };
        assert!(secret("CredentialStore", "verifyConsolePassword"));
        assert!(secret("SessionManager", "login"));
        assert!(!secret("CredentialStore", "consolePasswordStatus"));
    }
}
