//! The kernel's configuration, from `gen_config.json`.

use serde_json::Value;

use crate::{Failure, prefix::Prefix};

const FILE: &str = "kernel/gen_config.json";

/// Options without their `CONFIG_` prefix, in file order.
pub struct Config {
    pub options: Vec<(String, Value)>,
}

impl Config {
    pub fn read(prefix: &Prefix) -> Result<Self, Failure> {
        let text = prefix.read(FILE)?;
        let value: Value = serde_json::from_str(&text).map_err(|error| {
            Failure::new(format!("{}/{FILE}: {error}", prefix.include.display()))
        })?;
        let Value::Object(options) = value else {
            return Err(Failure::new(format!(
                "{}/{FILE} is not one flat object",
                prefix.include.display()
            )));
        };
        let config = Self {
            options: options.into_iter().collect(),
        };
        if !config.is_on("ARCH_X86_64") && config.text("SEL4_ARCH") != Some("x86_64") {
            return Err(Failure::new(format!(
                "SEL4_PREFIX={} is a kernel for another architecture than x86_64",
                prefix.root.display()
            )));
        }
        Ok(config)
    }

    /// Names of the options that are switched on.
    pub fn enabled(&self) -> impl Iterator<Item = &str> {
        self.options
            .iter()
            .filter(|(_, value)| is_true(value))
            .map(|(name, _)| name.as_str())
    }

    /// The instruction by which user code enters this kernel.
    pub fn entry(&self) -> Result<&'static str, Failure> {
        match (self.is_on("SYSCALL"), self.is_on("SYSENTER")) {
            (true, false) => Ok("syscall"),
            (false, true) => Ok("sysenter"),
            _ => Err(Failure::new(format!(
                "{FILE} must switch on exactly one of SYSCALL and SYSENTER"
            ))),
        }
    }

    fn is_on(&self, name: &str) -> bool {
        self.enabled().any(|option| option == name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.options.iter().find(|(option, _)| option == name)?;
        value.as_str()
    }
}

fn is_true(value: &Value) -> bool {
    matches!(value, Value::Bool(true))
}
