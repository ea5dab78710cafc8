//! Makes the bindings in `services/schema/src/generated` anew from
//! `services/schema/*.capnp`.
//!
//! The bindings are committed, so that building needs no schema compiler; this
//! program does (Debian package `capnproto`). What `capnpc-rust` makes relies
//! on the standard library's prelude in its interfaces; the names it takes from
//! there are imported instead.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

const SCHEMAS: [&str; 6] = [
    "bridge",
    "notification",
    "password",
    "session",
    "supervisor",
    "terminal",
];
/// What every generated module begins with.
const MODULE_HEAD: &str = "#![allow(unused_variables)]\n";
const IMPORTS: &str =
    "  #[allow(unused_imports)]\n  use ::alloc::{boxed::Box, string::ToString};\n";

fn schema_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../services/schema")
}

fn file_name(schema: &str) -> String {
    format!("{schema}_capnp.rs")
}

/// The bindings of a schema.
fn generate(schema: &str) -> io::Result<String> {
    let directory = schema_directory();
    let out = tempfile::tempdir()?;
    capnpc::CompilerCommand::new()
        .src_prefix(&directory)
        .file(directory.join(format!("{schema}.capnp")))
        .output_path(out.path())
        .run()
        .map_err(|error| io::Error::other(error.to_string()))?;
    let text = fs::read_to_string(out.path().join(file_name(schema)))?;
    Ok(text.replace(MODULE_HEAD, &format!("{MODULE_HEAD}{IMPORTS}")))
}

fn main() -> ExitCode {
    for schema in SCHEMAS {
        let place = schema_directory()
            .join("src/generated")
            .join(file_name(schema));
        if let Err(error) = generate(schema).and_then(|text| fs::write(&place, text)) {
            eprintln!("{schema}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Without what names the versions of the tools.
    fn body(text: &str) -> Vec<&str> {
        let version = |line: &&str| line.starts_with("// capnp");
        text.lines().filter(|line| !version(line)).collect()
    }

    #[test]
    fn the_committed_bindings_are_what_the_schema_says() {
        if Command::new("capnp").arg("--version").output().is_err() {
            println!("not compared: there is no `capnp` tool");
            return;
        }
        for schema in SCHEMAS {
            let place = schema_directory()
                .join("src/generated")
                .join(file_name(schema));
            let committed = fs::read_to_string(place).expect("the bindings");
            let made = generate(schema).expect("the schema compiles");
            assert!(
                body(&committed) == body(&made),
                "{schema} changed: run `cargo run --manifest-path tools/schema-gen/Cargo.toml`"
            );
        }
    }
}
