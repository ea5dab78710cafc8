//! Two programs that make the same calls: one through our functions, one
//! through libsel4's. The crate's test compares what they would send.
//!
//! Every argument has its own value, so a swapped or misplaced one shows.

use std::fmt::Write as _;

use crate::headers::{Facts, PREAMBLE};
use crate::interfaces::{Interfaces, Method, Param};

/// Value of the service capability; the arguments count on from it.
const FIRST_VALUE: usize = 1001;

/// `marshalling.rs`: the calls through our functions, as a table.
pub fn rust(facts: &Facts, interfaces: &Interfaces) -> String {
    let mut out = String::from("pub const CALLS: &[Call] = &[\n");
    for method in present(facts, interfaces) {
        let name = c_name(method);
        let mut arguments = vec!["ipc".to_owned(), FIRST_VALUE.to_string()];
        for (param, value) in values(interfaces, method) {
            arguments.push(rust_argument(interfaces, param, value));
        }
        let arguments = arguments.join(", ");
        // SAFETY is argued where the table is used.
        writeln!(
            out,
            "(\"{name}\", |ipc| {{ let _ = unsafe {{ {name}({arguments}) }}; }}),"
        )
        .expect("writing to a String does not fail");
    }
    out.push_str("];\n");
    out
}

/// The arguments with their values. A `count` asks for all words of the
/// structure it is about.
fn values<'a>(
    interfaces: &'a Interfaces,
    method: &'a Method,
) -> impl Iterator<Item = (&'a Param, usize)> {
    let words = method
        .inputs
        .iter()
        .chain(&method.outputs)
        .find_map(|param| interfaces.structure(&param.ty))
        .map_or(0, |structure| structure.members.len());
    let value = move |(index, param): (usize, &'a Param)| match param.name.as_str() {
        "count" => (param, words),
        _ => (param, FIRST_VALUE + 1 + index),
    };
    method.inputs.iter().enumerate().map(value)
}

fn rust_argument(interfaces: &Interfaces, param: &Param, value: usize) -> String {
    if interfaces.structure(&param.ty).is_some() {
        let ty = &param.ty;
        return format!("&{ty}::from_words(core::array::from_fn(|word| {value}000 + word as u64))");
    }
    match param.ty.as_str() {
        "seL4_Bool" => "true".to_owned(),
        _ => value.to_string(),
    }
}

/// `marshalling.c`: the calls through libsel4, as a program that prints a line
/// for each.
pub fn c(facts: &Facts, interfaces: &Interfaces) -> String {
    let mut calls = String::new();
    for method in present(facts, interfaces) {
        let name = c_name(method);
        let mut arguments = vec![FIRST_VALUE.to_string()];
        for (param, value) in values(interfaces, method) {
            arguments.push(c_argument(interfaces, param, value));
        }
        for param in &method.outputs {
            if interfaces.structure(&param.ty).is_some() {
                arguments.push(format!("&({}){{0}}", param.ty));
            }
        }
        writeln!(calls, "    {name}({});", arguments.join(", "))
            .and_then(|()| writeln!(calls, "    print(\"{name}\");"))
            .expect("writing to a String does not fail");
    }
    let stubs = include_str!("marshalling.c.in");
    stubs
        .replace("@PREAMBLE@", &preamble())
        .replace("@CALLS@", &calls)
}

/// The headers without the stubs, which are included after their callees have
/// been replaced.
fn preamble() -> String {
    PREAMBLE.replace(
        "#include <sel4/sel4.h>\n",
        "#include <sel4/types.h>\n#include <sel4/syscalls.h>\n",
    )
}

fn c_argument(interfaces: &Interfaces, param: &Param, value: usize) -> String {
    let ty = &param.ty;
    match interfaces.structure(ty) {
        Some(structure) => {
            let words: Vec<String> = (0..structure.members.len())
                .map(|word| format!("{value}000 + {word}"))
                .collect();
            format!("&({ty}){{{}}}", words.join(", "))
        }
        None if ty == "seL4_Bool" => "1".to_owned(),
        // Some types are structures of one word.
        None => format!("((union {{ unsigned long word; {ty} value; }}){{{value}}}).value"),
    }
}

fn c_name(method: &Method) -> String {
    format!("{}_{}", method.interface, method.name)
}

fn present<'a>(facts: &'a Facts, interfaces: &'a Interfaces) -> impl Iterator<Item = &'a Method> {
    interfaces
        .methods
        .iter()
        .enumerate()
        .filter(|(index, _)| facts.methods.contains_key(index))
        .map(|(_, method)| method)
}
