//! The files of `docs/man`. A test compares them with the directory.

macro_rules! page {
    ($file:literal) => {
        include_str!(concat!("../../../docs/man/", $file))
    };
}

/// Their text.
pub(crate) const SOURCES: &[&str] = &[
    page!("capabilities.7.md"),
    page!("grants.7.md"),
    page!("intro.7.md"),
    page!("login.8.md"),
    page!("sessions.7.md"),
    page!("shell.1.md"),
    page!("terminal.7.md"),
];
