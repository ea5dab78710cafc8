//! How urgent programs are, by where they come from.
//!
//! The first program is trusted to start the services its manifest names;
//! what those start are applications. So the authority to start programs is
//! not the authority to outrank anybody: an application's children are
//! applications, however many there are and whatever they hold.

/// How urgent a program's threads are, most urgent first; a machine turns this
/// into priorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The first program, made by the machine.
    Init,
    /// Started by the first program.
    Service,
    /// Started by anything else.
    Application,
}

impl Class {
    /// The class of what a program of this class starts.
    #[must_use]
    pub const fn of_child(self) -> Self {
        match self {
            Self::Init => Self::Service,
            Self::Service | Self::Application => Self::Application,
        }
    }
}
