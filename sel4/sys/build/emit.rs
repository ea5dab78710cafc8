//! Turns what was read into Rust.

use std::fmt::Write as _;

use serde_json::Value;

use crate::Failure;
use crate::config::Config;
use crate::headers::Facts;
use crate::interfaces::{Interfaces, Method, Param, Struct};

/// Names whose presence differs between kernels and that the typed layer asks
/// about with `cfg(sel4_has = "...")`: a constant, a method label, or
/// `owner.part` for a structure's member or a method's parameter.
pub const FEATURES: &[&str] = &[
    "CNodeRotate",
    "CNodeSaveCaller",
    "SchedContextBind",
    "TCBConfigure.fault_ep",
    "TCBConfigure.priority",
    "TCBSetAffinity",
    "TCBSetPriority.authority",
    "TCBSetSchedParams",
    "TCBSetSchedParams.fault_ep",
    "TCBSetTLSBase",
    "X86IOPortControlIssue",
    "X86PageRemap",
    "seL4_BootInfo.archInfo",
    "seL4_BootInfo.schedcontrol",
    "seL4_CNode_CapData.guard",
    "seL4_CapIOPort",
    "seL4_CapIOPortControl",
    "seL4_CapRights.capAllowGrantReply",
    "seL4_Fault_DebugException",
    "seL4_Fault_Timeout",
    "seL4_ReplyObject",
    "seL4_SchedContextObject",
    "seL4_SysWait",
    "seL4_UserContext.fs_base",
    "seL4_UserContext.tls_base",
    "seL4_X64_HugePageObject",
    "seL4_X86_IOPageTableObject",
    "seL4_X86_VCPUObject",
];

const WORD_BITS: i64 = 64;
/// Message registers that travel in machine registers on x86_64.
const REGISTER_WORDS: usize = 4;

/// The members of [`FEATURES`] this kernel has.
pub fn features(facts: &Facts, interfaces: &Interfaces) -> Vec<&'static str> {
    FEATURES
        .iter()
        .copied()
        .filter(|name| match name.split_once('.') {
            None => {
                facts.constants.contains_key(*name) || present(facts, interfaces, name).is_some()
            }
            Some((owner, part)) => has_part(facts, interfaces, owner, part),
        })
        .collect()
}

fn has_part(facts: &Facts, interfaces: &Interfaces, owner: &str, part: &str) -> bool {
    let key = (owner.to_owned(), part.to_owned());
    facts.members.contains_key(&key)
        || facts.fields.contains_key(&key)
        || interfaces
            .structure(owner)
            .is_some_and(|item| item.members.iter().any(|member| member == part))
        || present(facts, interfaces, owner)
            .is_some_and(|method| method.inputs.iter().any(|param| param.name == part))
}

fn present<'a>(facts: &Facts, interfaces: &'a Interfaces, id: &str) -> Option<&'a Method> {
    interfaces
        .methods
        .iter()
        .enumerate()
        .find(|(index, method)| method.id == id && facts.methods.contains_key(index))
        .map(|(_, method)| method)
}

/// `config.rs`: one constant per option that is a truth value or a number.
pub fn config(config: &Config) -> String {
    let mut out = String::new();
    for (name, value) in &config.options {
        let rust = match value {
            Value::Bool(value) => format!("bool = {value}"),
            Value::Number(value) => format!("u64 = {value}"),
            Value::String(text) => match text.parse::<u64>() {
                Ok(value) => format!("u64 = {value}"),
                Err(_) => format!("&str = {text:?}"),
            },
            _ => continue,
        };
        put(&mut out, &format!("/// `CONFIG_{name}`."));
        put(&mut out, &format!("pub const {name}: {rust};"));
    }
    out
}

/// `constants.rs`: every enumerator and numeric macro, under its C name.
/// System call numbers are signed as in C, the rest are words.
pub fn constants(facts: &Facts) -> String {
    let mut out = String::new();
    for (name, value) in &facts.constants {
        let ty = if *value < 0 { "i64" } else { "u64" };
        put(&mut out, &format!("/// `{name}`."));
        put(&mut out, &format!("pub const {name}: {ty} = {value};"));
    }
    for ((item, member), (offset, size)) in &facts.members {
        put(
            &mut out,
            &format!("/// Offset of `{item}.{member}` in bytes."),
        );
        put(
            &mut out,
            &format!("pub const {item}_{member}_OFFSET: usize = {offset};"),
        );
        put(
            &mut out,
            &format!("/// Size of `{item}.{member}` in bytes."),
        );
        put(
            &mut out,
            &format!("pub const {item}_{member}_SIZE: usize = {size};"),
        );
    }
    for ((item, field), (shift, mask)) in &facts.fields {
        put(
            &mut out,
            &format!("/// Lowest bit of field `{field}` of `{item}`."),
        );
        put(
            &mut out,
            &format!("pub const {item}_{field}_SHIFT: u32 = {shift};"),
        );
        put(
            &mut out,
            &format!("/// Largest value of field `{field}` of `{item}`."),
        );
        put(
            &mut out,
            &format!("pub const {item}_{field}_MASK: u64 = {:#x};", *mask as u64),
        );
    }
    out
}

/// `types.rs`: the IPC buffer and the structures that travel word by word.
pub fn types(facts: &Facts, interfaces: &Interfaces) -> Result<String, Failure> {
    let mut out = ipc_buffer(facts)?;
    for item in &interfaces.structs {
        put(
            &mut out,
            &format!("/// `{}`, in the order in which it travels.", item.name),
        );
        put(&mut out, "#[repr(C)]");
        put(
            &mut out,
            "#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]",
        );
        put(&mut out, &format!("pub struct {} {{", item.name));
        for member in &item.members {
            put(&mut out, &format!("    /// `{member}`."));
            put(&mut out, &format!("    pub {member}: u64,"));
        }
        put(&mut out, "}");
        put(&mut out, &format!("impl {} {{", item.name));
        put(&mut out, "    /// How many words it has.");
        put(
            &mut out,
            &format!("    pub const WORDS: usize = {};", item.members.len()),
        );
        put(
            &mut out,
            "    /// Its words, in the order in which they travel.",
        );
        let list = |form: &dyn Fn(&str) -> String| {
            item.members
                .iter()
                .map(|member| form(member))
                .collect::<Vec<_>>()
                .join(", ")
        };
        put(
            &mut out,
            &format!(
                "    pub const fn to_words(&self) -> [u64; Self::WORDS] {{ [{}] }}",
                list(&|member| format!("self.{member}"))
            ),
        );
        put(&mut out, "    /// Assembles it from its words.");
        put(
            &mut out,
            &format!(
                "    pub const fn from_words([{}]: [u64; Self::WORDS]) -> Self {{ Self {{ {} }} }}",
                list(&str::to_owned),
                list(&str::to_owned)
            ),
        );
        put(&mut out, "}");
    }
    Ok(out)
}

fn ipc_buffer(facts: &Facts) -> Result<String, Failure> {
    let item = "seL4_IPCBuffer";
    let mut members: Vec<(&str, i64, i64)> = facts
        .members
        .iter()
        .filter(|((owner, _), _)| owner == item)
        .map(|((_, member), (offset, size))| (member.as_str(), *offset, *size))
        .collect();
    members.sort_by_key(|(_, offset, _)| *offset);

    let mut out = String::new();
    put(
        &mut out,
        "/// `seL4_IPCBuffer`: the words the kernel and its caller share.",
    );
    put(&mut out, "#[repr(C)]");
    put(&mut out, &format!("pub struct {item} {{"));
    for (member, _, size) in &members {
        let words = size * 8 / WORD_BITS;
        let ty = if words == 1 {
            "u64".to_owned()
        } else {
            format!("[u64; {words}]")
        };
        put(&mut out, &format!("    /// `{member}`."));
        put(&mut out, &format!("    pub {member}: {ty},"));
    }
    put(&mut out, "}");
    for (member, offset, _) in &members {
        put(
            &mut out,
            &format!("const _: () = assert!(core::mem::offset_of!({item}, {member}) == {offset});"),
        );
    }
    let size = fact(facts, "seL4_IPCBuffer_SIZE")?;
    put(
        &mut out,
        &format!("const _: () = assert!(size_of::<{item}>() <= {size});"),
    );
    Ok(out)
}

fn fact(facts: &Facts, name: &str) -> Result<i64, Failure> {
    facts
        .constants
        .get(name)
        .copied()
        .ok_or_else(|| Failure::new(format!("the headers do not define {name}")))
}

/// `invocations.rs`: one function per method this kernel has.
pub fn invocations(facts: &Facts, interfaces: &Interfaces) -> Result<String, Failure> {
    let mut out = String::new();
    for (index, method) in interfaces.methods.iter().enumerate() {
        if let Some(label) = facts.methods.get(&index) {
            let stub = Stub::plan(facts, interfaces, method)?;
            stub.emit(&mut out, *label);
        }
    }
    Ok(out)
}

/// Where one argument or result travels.
enum Place<'a> {
    /// In extra capability `index`.
    Capability(usize),
    /// In part of message word `word`.
    Bits { word: usize, shift: i64, bits: i64 },
    /// In whole message words from `word` on.
    Words { word: usize, structure: &'a Struct },
}

struct Stub<'a> {
    method: &'a Method,
    inputs: Vec<(&'a Param, Place<'a>)>,
    outputs: Vec<(&'a Param, Place<'a>)>,
    capabilities: usize,
    /// Words of the request, without a trailing structure.
    fixed_words: usize,
}

impl<'a> Stub<'a> {
    fn plan(
        facts: &Facts,
        interfaces: &'a Interfaces,
        method: &'a Method,
    ) -> Result<Self, Failure> {
        let mut capabilities = 0;
        let mut inputs = Vec::new();
        let mut packer = Packer::default();
        for param in &method.inputs {
            if facts.capability_types.contains(&param.ty) {
                inputs.push((param, Place::Capability(capabilities)));
                capabilities += 1;
            } else {
                inputs.push((param, packer.place(facts, interfaces, param)?));
            }
        }
        let structure_words: usize = inputs
            .iter()
            .map(|(_, place)| match place {
                Place::Words { structure, .. } => structure.members.len(),
                _ => 0,
            })
            .sum();
        let fixed_words = packer.words() - structure_words;

        let mut packer = Packer::default();
        let outputs = method
            .outputs
            .iter()
            .map(|param| Ok((param, packer.place(facts, interfaces, param)?)))
            .collect::<Result<_, Failure>>()?;
        Ok(Self {
            method,
            inputs,
            outputs,
            capabilities,
            fixed_words,
        })
    }

    fn emit(&self, out: &mut String, label: i64) {
        let method = self.method;
        let c_name = format!("{}_{}", method.interface, method.name);
        put(
            out,
            &format!("/// `{c_name}`, invocation label `{}`.", method.id),
        );
        put(out, "///");
        put(
            out,
            "/// Errors are `seL4_Error` values; the details are then in the first message",
        );
        put(out, "/// registers of the IPC buffer.");
        put(out, "///");
        put(out, "/// # Safety");
        put(
            out,
            "/// `ipc` is the calling thread's IPC buffer, and nothing else uses it meanwhile.",
        );
        put(out, "#[inline]");
        put(
            out,
            &format!(
                "pub unsafe fn {c_name}({}) -> Result<{}, u64> {{",
                self.parameters(),
                self.result_type()
            ),
        );
        put(out, "    // SAFETY: the caller vouches for `ipc`.");
        put(out, "    unsafe {");
        self.emit_request(out, label);
        self.emit_reply(out);
        put(out, "    }");
        put(out, "}");
    }

    fn parameters(&self) -> String {
        let mut list = vec![
            "ipc: *mut seL4_IPCBuffer".to_owned(),
            "service: u64".to_owned(),
        ];
        for (param, place) in &self.inputs {
            let ty = match place {
                Place::Words { structure, .. } => format!("&{}", structure.name),
                Place::Bits { bits: 1, .. } => "bool".to_owned(),
                _ => "u64".to_owned(),
            };
            list.push(format!("{}: {ty}", identifier(&param.name)));
        }
        list.join(", ")
    }

    fn result_type(&self) -> String {
        let types: Vec<String> = self
            .outputs
            .iter()
            .map(|(_, place)| match place {
                Place::Words { structure, .. } => structure.name.clone(),
                _ => "u64".to_owned(),
            })
            .collect();
        tuple(types)
    }

    fn emit_request(&self, out: &mut String, label: i64) {
        let mut words = vec![Vec::new(); self.fixed_words];
        for (param, place) in &self.inputs {
            let name = identifier(&param.name);
            match place {
                Place::Capability(index) => {
                    put(out, &format!("        set_cap(ipc, {index}, {name});"));
                }
                Place::Bits { word, shift, bits } => words[*word].push(pack(&name, *shift, *bits)),
                Place::Words { .. } => {}
            }
        }
        let words: Vec<String> = words.into_iter().map(|terms| terms.join(" | ")).collect();
        for (index, word) in words.iter().enumerate().skip(REGISTER_WORDS) {
            put(out, &format!("        set_mr(ipc, {index}, {word});"));
        }
        let registers: Vec<&str> = (0..REGISTER_WORDS)
            .map(|index| words.get(index).map_or("0", String::as_str))
            .collect();
        let registers = format!("[{}]", registers.join(", "));

        let (registers, length) = match self.trailing_structure() {
            None => (registers, words.len().to_string()),
            Some(name) => {
                put(out, &format!("        let mut registers = {registers};"));
                put(
                    out,
                    &format!(
                        "        let length = put_words(ipc, &mut registers, {}, &{name}.to_words(), {});",
                        words.len(),
                        self.count()
                    ),
                );
                ("registers".to_owned(), "length".to_owned())
            }
        };
        put(
            out,
            &format!(
                "        let reply = invoke(ipc, service, {label}, {}, {length}, {registers})?;",
                self.capabilities
            ),
        );
    }

    /// The structure argument; the interfaces have at most one, and it is last.
    fn trailing_structure(&self) -> Option<String> {
        self.inputs.iter().find_map(|(param, place)| match place {
            Place::Words { .. } => Some(identifier(&param.name)),
            _ => None,
        })
    }

    /// How many words of a structure travel: `count`, where the method has it.
    fn count(&self) -> &'static str {
        let counted = self.method.inputs.iter().any(|param| param.name == "count");
        if counted { "count" } else { "u64::MAX" }
    }

    fn emit_reply(&self, out: &mut String) {
        let values: Vec<String> = self
            .outputs
            .iter()
            .map(|(_, place)| match place {
                Place::Bits { word, shift, bits } => unpack(*word, *shift, *bits),
                Place::Words { word, structure } => format!(
                    "{}::from_words(get_words(ipc, &reply, {word}, {}))",
                    structure.name,
                    self.count()
                ),
                Place::Capability(_) => unreachable!("results are planned as words"),
            })
            .collect();
        if values.is_empty() {
            put(out, "        let _ = reply;");
        }
        put(out, &format!("        Ok({})", tuple(values)));
    }
}

/// Places arguments one after another, each aligned to its own size.
#[derive(Default)]
struct Packer {
    bits_used: i64,
}

impl Packer {
    fn place<'a>(
        &mut self,
        facts: &Facts,
        interfaces: &'a Interfaces,
        param: &Param,
    ) -> Result<Place<'a>, Failure> {
        if let Some(structure) = interfaces.structure(&param.ty) {
            let word = self.words();
            self.bits_used = (word + structure.members.len()) as i64 * WORD_BITS;
            return Ok(Place::Words { word, structure });
        }
        let bits = match (param.ty.as_str(), facts.sizes.get(&param.ty)) {
            // A truth value is one bit on the wire whatever C stores it in.
            ("seL4_Bool", _) => 1,
            (_, Some(bytes)) if *bytes * 8 <= WORD_BITS => bytes * 8,
            (ty, _) => {
                return Err(Failure::new(format!(
                    "the interface XML uses type {ty}, which does not fit a word or is not in \
                     the headers"
                )));
            }
        };
        let start = (self.bits_used + bits - 1) / bits * bits;
        self.bits_used = start + bits;
        Ok(Place::Bits {
            word: (start / WORD_BITS) as usize,
            shift: start % WORD_BITS,
            bits,
        })
    }

    fn words(&self) -> usize {
        ((self.bits_used + WORD_BITS - 1) / WORD_BITS) as usize
    }
}

fn pack(name: &str, shift: i64, bits: i64) -> String {
    let value = match bits {
        WORD_BITS => name.to_owned(),
        1 => format!("u64::from({name})"),
        _ => format!("({name} & {:#x})", low_bits(bits)),
    };
    if shift == 0 {
        value
    } else {
        format!("({value} << {shift})")
    }
}

fn unpack(word: usize, shift: i64, bits: i64) -> String {
    let value = if word < REGISTER_WORDS {
        format!("reply[{word}]")
    } else {
        format!("crate::get_mr(ipc, {word})")
    };
    match (shift, bits) {
        (0, WORD_BITS) => value,
        _ => format!("({value} >> {shift}) & {:#x}", low_bits(bits)),
    }
}

fn low_bits(bits: i64) -> u64 {
    (1 << bits) - 1
}

fn tuple(mut items: Vec<String>) -> String {
    match items.len() {
        1 => items.remove(0),
        _ => format!("({})", items.join(", ")),
    }
}

/// Argument names that Rust reserves.
fn identifier(name: &str) -> String {
    match name {
        "type" | "ref" | "in" | "move" => format!("r#{name}"),
        _ => name.to_owned(),
    }
}

fn put(out: &mut String, line: &str) {
    writeln!(out, "{line}").expect("writing to a String does not fail");
}
