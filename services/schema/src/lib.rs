//! Interfaces of this system that the published capOS schema does not have.
//!
//! `*.capnp` beside this crate is the source; `src/generated` is what
//! `capnpc-rust` makes of it, committed so that building needs no schema
//! compiler. `cargo run --manifest-path tools/schema-gen/Cargo.toml` makes it
//! anew; a test of that program compares the two where the `capnp` tool is
//! installed.

#![no_std]

extern crate alloc;

/// Bindings of `bridge.capnp`.
#[allow(
    missing_docs,
    clippy::all,
    reason = "generated: the schema has the documentation"
)]
pub mod bridge_capnp {
    include!("generated/bridge_capnp.rs");
}

/// Bindings of `notification.capnp`.
#[allow(
    missing_docs,
    clippy::all,
    reason = "generated: the schema has the documentation"
)]
pub mod notification_capnp {
    include!("generated/notification_capnp.rs");
}

/// Bindings of `terminal.capnp`.
#[allow(
    missing_docs,
    clippy::all,
    reason = "generated: the schema has the documentation"
)]
pub mod terminal_capnp {
    include!("generated/terminal_capnp.rs");
}

/// Bindings of `password.capnp`.
#[allow(
    missing_docs,
    clippy::all,
    reason = "generated: the schema has the documentation"
)]
pub mod password_capnp {
    include!("generated/password_capnp.rs");
}

/// Bindings of `session.capnp`.
#[allow(
    missing_docs,
    clippy::all,
    reason = "generated: the schema has the documentation"
)]
pub mod session_capnp {
    include!("generated/session_capnp.rs");
}

/// Bindings of `supervisor.capnp`.
#[allow(
    missing_docs,
    clippy::all,
    reason = "generated: the schema has the documentation"
)]
pub mod supervisor_capnp {
    include!("generated/supervisor_capnp.rs");
}

/// Interface id of `Notification`.
pub const NOTIFICATION_INTERFACE_ID: u64 = 0xb73d_1b1a_541d_b607;
/// Interface id of `Signaller`.
pub const SIGNALLER_INTERFACE_ID: u64 = 0xbd80_397d_c421_708d;
/// Interface id of `SessionMint`.
pub const SESSION_MINT_INTERFACE_ID: u64 = 0xf9c6_9b73_0603_5225;

/// Added to the ordinal of a method of an extension interface, which is called
/// on a capability of a published one.
pub const EXTENSION_METHODS: u16 = 0x8000;

/// Method numbers, as CALL takes them.
pub mod method {
    use crate::EXTENSION_METHODS;

    /// `Notification.signal` and `Signaller.signal`.
    pub const SIGNAL: u16 = 0;
    /// `Notification.wait`.
    pub const WAIT: u16 = 1;
    /// `Notification.poll`.
    pub const POLL: u16 = 2;
    /// `Notification.signaller`.
    pub const SIGNALLER: u16 = 3;
    /// `PasswordHasher.derive`.
    pub const DERIVE: u16 = 0;
    /// `PasswordHasher.verify`.
    pub const VERIFY: u16 = 1;
    /// `SpawnerExtension.createNotification`, on a `ProcessSpawner`.
    pub const CREATE_NOTIFICATION: u16 = EXTENSION_METHODS;
    /// `TerminalExtension.readEdited`, on a `TerminalSession`.
    pub const READ_EDITED: u16 = EXTENSION_METHODS;
    /// `SpawnerExtension.createEndpoint`, on a `ProcessSpawner`.
    pub const CREATE_ENDPOINT: u16 = EXTENSION_METHODS + 1;
    /// `ThreadControlExtension.leaveServiceClass`, on a `ThreadControl`.
    pub const LEAVE_SERVICE_CLASS: u16 = EXTENSION_METHODS;
    /// `SessionMint.open`.
    pub const OPEN: u16 = 0;
    /// `SessionMint.launcher`.
    pub const LAUNCHER: u16 = 1;
    /// `SessionMint.callerCapability`.
    pub const CALLER_CAPABILITY: u16 = 2;
    /// `SessionMint.facet`.
    pub const FACET: u16 = 3;
    /// `SessionMint.spawn`.
    pub const SPAWN: u16 = 4;
    /// `Supervisor.restart`.
    pub const RESTART: u16 = 0;
    /// `Keepsake.keep`.
    pub const KEEP: u16 = 0;
    /// `Keepsake.kept`.
    pub const KEPT: u16 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use capnp::traits::HasTypeId;
    use notification_capnp::{notification, signaller};
    use session_capnp::session_mint;

    #[test]
    fn the_constants_are_the_generated_ones() {
        let ids = [
            <notification::Client as HasTypeId>::TYPE_ID,
            <signaller::Client as HasTypeId>::TYPE_ID,
            <session_mint::Client as HasTypeId>::TYPE_ID,
        ];
        let constants = [
            NOTIFICATION_INTERFACE_ID,
            SIGNALLER_INTERFACE_ID,
            SESSION_MINT_INTERFACE_ID,
        ];
        assert_eq!(ids, constants);
    }
}
