//! The C headers' facts, asked through the C compiler.
//!
//! First the headers are preprocessed, which shows which names this kernel
//! has at all. Then one C function is compiled to assembly in which every
//! question is an `asm` statement with an immediate operand, so that the
//! compiler prints the answers; nothing is linked or run, and the host's
//! architecture does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::{Failure, interfaces::Interfaces, prefix::Prefix};

/// Includes both kernel families' headers; the assertion macro is disarmed because the
/// questions pass values that the accessors would object to.
pub const PREAMBLE: &str = "\
#include <sel4/macros.h>
#include <sel4/debug_assert.h>
#undef seL4_DebugAssert
#define seL4_DebugAssert(expr) ((void)0)
#include <sel4/sel4.h>
#include <sel4/invocation.h>
#include <sel4/sel4_arch/invocation.h>
#include <sel4/arch/invocation.h>
#include <sel4/bootinfo_types.h>
";

/// Structures that we lay out ourselves, and their members. A member this
/// kernel lacks is skipped.
const LAYOUTS: &[(&str, &[&str])] = &[
    (
        "seL4_IPCBuffer",
        &[
            "tag",
            "msg",
            "userData",
            "caps_or_badges",
            "receiveCNode",
            "receiveIndex",
            "receiveDepth",
        ],
    ),
    ("seL4_SlotRegion", &["start", "end"]),
    ("seL4_UntypedDesc", &["paddr", "sizeBits", "isDevice"]),
    ("seL4_BootInfoHeader", &["id", "len"]),
    (
        "seL4_BootInfo",
        &[
            "extraLen",
            "nodeID",
            "numNodes",
            "numIOPTLevels",
            "ipcBuffer",
            "empty",
            "sharedFrames",
            "userImageFrames",
            "userImagePaging",
            "ioSpaceCaps",
            "extraBIPages",
            "initThreadCNodeSizeBits",
            "initThreadDomain",
            "archInfo",
            "schedcontrol",
            "untyped",
            "untypedList",
        ],
    ),
];

/// Bitfield types with their fields. A field this kernel lacks is skipped.
const BITFIELDS: &[(&str, &[&str])] = &[
    (
        "seL4_MessageInfo",
        &["label", "capsUnwrapped", "extraCaps", "length"],
    ),
    (
        "seL4_CapRights",
        &[
            "capAllowGrantReply",
            "capAllowGrant",
            "capAllowRead",
            "capAllowWrite",
        ],
    ),
    ("seL4_CNode_CapData", &["guard", "guardSize"]),
    ("seL4_CapData_Guard", &["GuardBits", "GuardSize"]),
    ("seL4_PrioProps", &["mcp", "prio"]),
];

/// Macros that are numbers but do not end in `Bits`.
const MACROS: &[&str] = &[
    "IRQ_OFFSET",
    "VECTOR_MIN",
    "VECTOR_MAX",
    "SEL4_BOOTINFO_HEADER_PADDING",
    "SEL4_BOOTINFO_HEADER_X86_VBE",
    "seL4_CoreSchedContextBytes",
    "seL4_DataFault",
    "seL4_InstructionFault",
    "seL4_MsgMaxExtraCaps",
    "seL4_UntypedRetypeMaxObjects",
];

/// The preprocessed headers.
pub struct Headers {
    include: PathBuf,
    text: String,
    words: BTreeSet<String>,
}

/// What the compiler answered.
#[derive(Default)]
pub struct Facts {
    /// Enumerators and numeric macros by their C name.
    pub constants: BTreeMap<String, i64>,
    /// Whether the kernel has the method with that index in the XML.
    pub methods: BTreeMap<usize, i64>,
    /// Sizes of the argument types, in bytes.
    pub sizes: BTreeMap<String, i64>,
    /// Argument types that are capabilities.
    pub capability_types: BTreeSet<String>,
    /// `(structure, member)` to `(offset, size)`, in bytes.
    pub members: BTreeMap<(String, String), (i64, i64)>,
    /// `(bitfield, field)` to `(shift, mask of the unshifted value)`.
    pub fields: BTreeMap<(String, String), (i64, i64)>,
}

impl Headers {
    pub fn read(prefix: &Prefix) -> Result<Self, Failure> {
        let source = out_dir().join("headers.c");
        save(&source, PREAMBLE)?;
        let text = compile(&prefix.include, &source, &["-E", "-P", "-dD"])?;
        Ok(Self {
            include: prefix.include.clone(),
            words: words(&text),
            text,
        })
    }

    /// Asks everything at once.
    pub fn ask(&self, interfaces: &Interfaces) -> Result<Facts, Failure> {
        let mut questions = Questions::default();
        for name in self.constant_names(interfaces) {
            questions.ask(&format!("constant {name}"), &name);
        }
        for (index, method) in interfaces.methods.iter().enumerate() {
            if let Some(condition) = &method.condition {
                questions.line(&format!("#if {condition}"));
            }
            questions.ask(&format!("method {index}"), &method.id);
            if method.condition.is_some() {
                questions.line("#endif");
            }
        }
        for ty in self.argument_types(interfaces) {
            questions.ask(&format!("size {ty}"), &format!("sizeof({ty})"));
        }
        self.ask_layouts(&mut questions);
        self.ask_bitfields(&mut questions);

        let source = out_dir().join("probe.c");
        save(&source, &questions.program())?;
        let assembly = compile(&self.include, &source, &["-S", "-O2"])?;
        let mut facts = parse_answers(&assembly)?;
        facts.capability_types = self.capability_types();
        Ok(facts)
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(word)
    }

    fn constant_names(&self, interfaces: &Interfaces) -> BTreeSet<String> {
        let ids: BTreeSet<&str> = interfaces.methods.iter().map(|m| m.id.as_str()).collect();
        let enumerators = enumerators(&self.text).into_iter().filter(|name| {
            name.starts_with("seL4_") || name.starts_with("SEL4_") || ids.contains(name.as_str())
        });
        let macros = macros(&self.text)
            .into_iter()
            .filter(|name| MACROS.contains(&name.as_str()) || is_size_macro(name));
        enumerators.chain(macros).collect()
    }

    /// Argument types that are not structures of the XML and that exist here.
    fn argument_types(&self, interfaces: &Interfaces) -> BTreeSet<String> {
        interfaces
            .methods
            .iter()
            .flat_map(|method| method.inputs.iter().chain(&method.outputs))
            .map(|param| param.ty.clone())
            .filter(|ty| interfaces.structure(ty).is_none())
            .filter(|ty| self.has(ty) || ty == "int" || ty == "long")
            .collect()
    }

    /// `seL4_CPtr` and everything the headers make a synonym of it.
    fn capability_types(&self) -> BTreeSet<String> {
        let mut types = BTreeSet::from(["seL4_CPtr".to_owned()]);
        for statement in self.text.split([';', '\n']) {
            if let ["typedef", "seL4_CPtr", name] =
                statement.split_whitespace().collect::<Vec<_>>()[..]
            {
                types.insert(name.to_owned());
            }
        }
        types
    }

    fn ask_layouts(&self, questions: &mut Questions) {
        for (structure, members) in LAYOUTS {
            for member in members.iter().filter(|member| self.has(member)) {
                questions.ask(
                    &format!("offset {structure} {member}"),
                    &format!("__builtin_offsetof({structure}, {member})"),
                );
                questions.ask(
                    &format!("extent {structure} {member}"),
                    &format!("sizeof((({structure} *)0)->{member})"),
                );
            }
            questions.ask(
                &format!("constant {structure}_SIZE"),
                &format!("sizeof({structure})"),
            );
        }
    }

    /// A field's place is the bit that setting it to one sets; its width is
    /// what reading it from all ones returns.
    fn ask_bitfields(&self, questions: &mut Questions) {
        for (bitfield, fields) in BITFIELDS {
            // Members of a tagged union are accessed through the union.
            let carrier = bitfield.strip_suffix("_Guard").unwrap_or(bitfield);
            for field in *fields {
                let (get, set) = (
                    format!("{bitfield}_get_{field}"),
                    format!("{bitfield}_set_{field}"),
                );
                if !self.has(&get) || !self.has(&set) {
                    continue;
                }
                questions.ask(
                    &format!("bit {bitfield} {field}"),
                    &format!("{set}(({carrier}_t){{{{0}}}}, 1).words[0]"),
                );
                questions.ask(
                    &format!("mask {bitfield} {field}"),
                    &format!("{get}(({carrier}_t){{{{~0ul}}}})"),
                );
            }
        }
        // Later kernels keep a function of the name `seL4_CapData_Guard_new`
        // for old programs, but not the type.
        if self.has("seL4_CapData_Guard_get_GuardSize") {
            questions.ask(
                "constant seL4_CapData_Guard_EMPTY",
                "seL4_CapData_Guard_new(0, 0).words[0]",
            );
        }
    }
}

#[derive(Default)]
struct Questions(String);

/// Marks an answer in the assembly; no assembler ever sees it.
const MARK: &str = "@@answer";

impl Questions {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn ask(&mut self, key: &str, expression: &str) {
        writeln!(
            self.0,
            "asm volatile(\"\\n{MARK} {key} = %0\\n\" : : \"i\"((long)({expression})));"
        )
        .expect("writing to a String does not fail");
    }

    fn program(&self) -> String {
        format!("{PREAMBLE}\nvoid probe(void)\n{{\n{}}}\n", self.0)
    }
}

fn parse_answers(assembly: &str) -> Result<Facts, Failure> {
    let mut facts = Facts::default();
    let mut offsets = BTreeMap::new();
    let mut bits = BTreeMap::new();
    for line in assembly.lines() {
        let Some(answer) = line.trim().strip_prefix(MARK) else {
            continue;
        };
        let unreadable = || Failure::new(format!("the C compiler answered `{}`", line.trim()));
        let (key, value) = answer.split_once('=').ok_or_else(unreadable)?;
        // An immediate operand is printed as `$` and a number.
        let value = value.trim().trim_start_matches('$');
        let value: i64 = value.parse().map_err(|_| unreadable())?;
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        match key.split_whitespace().collect::<Vec<_>>()[..] {
            ["constant", name] => {
                facts.constants.insert(name.to_owned(), value);
            }
            ["method", index] => {
                let index = index.parse().map_err(|_| unreadable())?;
                facts.methods.insert(index, value);
            }
            ["size", ty] => {
                facts.sizes.insert(ty.to_owned(), value);
            }
            ["offset", item, member] => {
                offsets.insert(pair(item, member), value);
            }
            ["extent", item, member] => {
                let offset = offsets[&pair(item, member)];
                facts.members.insert(pair(item, member), (offset, value));
            }
            ["bit", item, field] => {
                bits.insert(pair(item, field), i64::from(value.trailing_zeros()));
            }
            ["mask", item, field] => {
                let shift = bits[&pair(item, field)];
                facts.fields.insert(pair(item, field), (shift, value));
            }
            _ => return Err(unreadable()),
        }
    }
    Ok(facts)
}

fn is_size_macro(name: &str) -> bool {
    name.starts_with("seL4_") && name.ends_with("Bits")
}

/// Names of object-like macros with a body.
fn macros(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .filter_map(|definition| definition.split_once(' '))
        .filter(|(name, body)| !name.contains('(') && !body.trim().is_empty())
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Names of all enumerators of all `enum` definitions.
fn enumerators(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut names = Vec::new();
    let mut rest = code.as_str();
    while let Some(at) = find_word(rest, "enum") {
        rest = &rest[at + "enum".len()..];
        let Some(open) = rest.find(['{', ';', ')', ',']) else {
            break;
        };
        if !rest[open..].starts_with('{') {
            continue;
        }
        let Some(length) = rest[open..].find('}') else {
            break;
        };
        for item in rest[open + 1..open + length].split(',') {
            let name = item
                .split(['=', '\n'])
                .map(str::trim)
                .find(|part| !part.is_empty());
            names.extend(name.map(str::to_owned));
        }
        rest = &rest[open + length..];
    }
    names
}

fn find_word(text: &str, word: &str) -> Option<usize> {
    text.match_indices(word).map(|(at, _)| at).find(|&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(|character| !is_word(character))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn out_dir() -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR"))
}

fn save(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

/// Runs the C compiler on `source` and returns what it prints.
fn compile(include: &Path, source: &Path, mode: &[&str]) -> Result<String, Failure> {
    let compiler = env::var("CC_x86_64_unknown_linux_gnu").unwrap_or_else(|_| "gcc".to_owned());
    let output = Command::new(&compiler)
        .args(mode)
        // `__thread`: later libsel4 keeps its buffer pointer in thread-local
        // storage, which we do not set up and do not use.
        .args([
            "-m64",
            "-ffreestanding",
            "-w",
            "-DNDEBUG",
            "-D__thread=",
            "-o",
            "-",
        ])
        .arg("-I")
        .arg(include)
        .arg(source)
        .output()
        .map_err(|error| {
            Failure::new(format!(
                "cannot run the C compiler `{compiler}`: {error}; install gcc, or name an \
                 x86_64 C compiler in CC_x86_64_unknown_linux_gnu"
            ))
        })?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        let first: Vec<&str> = messages.lines().take(12).collect();
        return Err(Failure::new(format!(
            "the headers in {} do not compile:\n{}",
            include.display(),
            first.join("\n")
        )));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| Failure::new(format!("`{compiler}` printed something other than text")))
}
