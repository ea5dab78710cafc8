//! The object invocations, from the interface XML.
//!
//! Two dialects are read: kernels up to 5 put a C expression in a `condition`
//! attribute, later ones nest `condition` elements. Both become one C
//! expression.

use roxmltree::{Document, Node};

use crate::{Failure, prefix::Prefix};

/// In the order in which the kernel numbers the methods.
const FILES: &[&str] = &[
    "interfaces/object-api.xml",
    "interfaces/object-api-sel4-arch.xml",
    "interfaces/object-api-arch.xml",
];

/// All methods and structures the prefix describes, wanted or not.
pub struct Interfaces {
    pub methods: Vec<Method>,
    pub structs: Vec<Struct>,
}

/// One invocation.
pub struct Method {
    /// C interface name, such as `seL4_Untyped`.
    pub interface: String,
    /// C method name, such as `Retype`.
    pub name: String,
    /// The invocation label, such as `UntypedRetype`.
    pub id: String,
    /// C expression that says whether this kernel has the method.
    pub condition: Option<String>,
    pub inputs: Vec<Param>,
    pub outputs: Vec<Param>,
}

/// One argument or result.
pub struct Param {
    pub name: String,
    /// C type name.
    pub ty: String,
}

/// A structure that travels word by word.
pub struct Struct {
    pub name: String,
    pub members: Vec<String>,
}

impl Interfaces {
    pub fn read(prefix: &Prefix) -> Result<Self, Failure> {
        let mut interfaces = Self {
            methods: Vec::new(),
            structs: Vec::new(),
        };
        for file in FILES {
            let text = prefix.read(file)?;
            let document = Document::parse(&text)
                .map_err(|error| located(prefix, file, &error.to_string()))?;
            interfaces
                .collect(document.root_element())
                .map_err(|message| located(prefix, file, &message))?;
        }
        Ok(interfaces)
    }

    pub fn structure(&self, name: &str) -> Option<&Struct> {
        self.structs.iter().find(|item| item.name == name)
    }

    fn collect(&mut self, api: Node) -> Result<(), String> {
        for node in api.children().filter(Node::is_element) {
            match node.tag_name().name() {
                "struct" => self.structs.push(structure(node)?),
                "interface" => {
                    let interface = attribute(node, "name")?;
                    for method in elements(node, "method") {
                        self.methods.push(read_method(&interface, method)?);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn located(prefix: &Prefix, file: &str, message: &str) -> Failure {
    Failure::new(format!("{}/{file}: {message}", prefix.include.display()))
}

fn elements<'a>(node: Node<'a, 'a>, name: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    node.children()
        .filter(move |child| child.has_tag_name(name))
}

fn attribute(node: Node, name: &str) -> Result<String, String> {
    node.attribute(name)
        .map(str::to_owned)
        .ok_or_else(|| format!("a `{}` has no `{name}`", node.tag_name().name()))
}

fn structure(node: Node) -> Result<Struct, String> {
    Ok(Struct {
        name: attribute(node, "name")?,
        members: elements(node, "member")
            .map(|member| attribute(member, "name"))
            .collect::<Result<_, _>>()?,
    })
}

fn read_method(interface: &str, node: Node) -> Result<Method, String> {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for param in elements(node, "param") {
        let value = Param {
            name: attribute(param, "name")?,
            ty: attribute(param, "type")?,
        };
        match attribute(param, "dir")?.as_str() {
            "in" => inputs.push(value),
            "out" => outputs.push(value),
            other => return Err(format!("parameter direction `{other}`")),
        }
    }
    Ok(Method {
        interface: interface.to_owned(),
        name: attribute(node, "name")?,
        id: attribute(node, "id")?,
        condition: method_condition(node)?,
        inputs,
        outputs,
    })
}

fn method_condition(node: Node) -> Result<Option<String>, String> {
    if let Some(expression) = node.attribute("condition") {
        return Ok(Some(expression.to_owned()));
    }
    let Some(condition) = elements(node, "condition").next() else {
        return Ok(None);
    };
    let terms = conditions(condition)?;
    Ok((!terms.is_empty()).then(|| terms.join(" && ")))
}

fn conditions(node: Node) -> Result<Vec<String>, String> {
    node.children()
        .filter(Node::is_element)
        .map(condition)
        .collect()
}

fn condition(node: Node) -> Result<String, String> {
    let terms = || conditions(node);
    match node.tag_name().name() {
        "config" => Ok(format!("defined({})", attribute(node, "var")?)),
        "not" => Ok(format!("!({})", terms()?.join(" && "))),
        "and" => Ok(format!("({})", terms()?.join(" && "))),
        "or" => Ok(format!("({})", terms()?.join(" || "))),
        other => Err(format!("condition element `{other}`")),
    }
}
