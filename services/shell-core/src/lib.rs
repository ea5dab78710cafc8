//! The shell as pure logic: what a line means, and what a typed call is made of.
//!
//! - [`token`] cuts a line into tokens, each with its column.
//! - [`command`] makes a [`command::Command`] of them, or an error that points
//!   at a column. No line makes it panic; nothing in here trusts a line.
//! - [`interface`] is the table of interfaces a shell can hold, with their
//!   methods. Parameter and result types are not in the table: they are read
//!   from the schema itself, by reflection.
//! - [`message`] builds parameters from what was typed and prints results.
//! - [`history`] keeps earlier lines within bounds.
//!
//! Nothing here makes a call: the program around it does.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod command;
pub mod history;
pub mod interface;
pub mod message;
pub mod token;

/// Why a line was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// Characters of the line before the place.
    pub column: usize,
    /// What is wrong, for the person who typed it.
    pub reason: alloc::string::String,
}

impl LineError {
    pub(crate) fn new(column: usize, reason: impl Into<alloc::string::String>) -> Self {
        let reason = reason.into();
        Self { column, reason }
    }

    /// The reason below a caret at its column, for a line typed after `indent`
    /// characters of prompt.
    #[must_use]
    pub fn pointing(&self, indent: usize) -> alloc::string::String {
        let column = indent.saturating_add(self.column);
        alloc::format!("{:column$}^\nerror: {}", "", self.reason)
    }
}

impl core::fmt::Display for LineError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "column {}: {}", self.column + 1, self.reason)
    }
}

impl core::error::Error for LineError {}

/// `text` with everything a terminal could act on made visible: a service that
/// is shown to a person cannot move their cursor.
#[must_use]
pub fn printable(text: &str) -> alloc::string::String {
    let escape = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    let mut out = alloc::string::String::with_capacity(text.len());
    for character in text.chars() {
        if escape(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}
