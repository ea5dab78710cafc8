//! What a shell may be given besides what it always gets.

use alloc::vec::Vec;

use capos_config::{
    CONSOLE_INTERFACE_ID, ENDPOINT_INTERFACE_ID, LOG_SINK_INTERFACE_ID, MANUAL_INTERFACE_ID,
    STDIO_INTERFACE_ID, SYSTEM_INFO_INTERFACE_ID, TIMER_INTERFACE_ID, WALL_CLOCK_INTERFACE_ID,
};

/// Names of what every shell gets; no pass-through grant takes them.
pub const INJECTED: [&str; 5] = ["terminal", "session", "launcher", "system_info", "stdio"];
/// Most pass-through grants of a shell.
pub const GRANTS_MAX: usize = 8;
/// Longest name of a capability.
const NAME_BYTES_MAX: usize = 32;

/// Interfaces that may be passed through: what is read or written through them
/// is what the caller can read or write anyway, and nothing can be started,
/// reached or proved with them.
pub const HARMLESS: [u64; 8] = [
    CONSOLE_INTERFACE_ID,
    ENDPOINT_INTERFACE_ID,
    LOG_SINK_INTERFACE_ID,
    MANUAL_INTERFACE_ID,
    STDIO_INTERFACE_ID,
    SYSTEM_INFO_INTERFACE_ID,
    TIMER_INTERFACE_ID,
    WALL_CLOCK_INTERFACE_ID,
];

/// How a grant is to be made, as the schema's `CapGrantMode` orders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A copy.
    Raw,
    /// The calling side of an endpoint.
    ClientEndpoint,
    /// Anything else.
    Other,
}

/// A grant that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// What the shell would call it.
    pub name: &'a str,
    /// Its interface, as the caller says.
    pub interface_id: u64,
    /// It is something the caller holds, not something the system would make.
    pub is_held: bool,
    /// How.
    pub mode: Mode,
}

/// Why a grant is not passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// There are too many.
    Number,
    /// Its name is empty, too long, taken, or given twice.
    Name,
    /// It would be made by the system.
    Source,
    /// It would be moved, or served by the shell.
    Mode,
    /// Its interface gives authority.
    Interface,
}

/// Checks grants to be passed through, beside endpoints called `endpoints`.
///
/// # Errors
/// The first reason against one of them.
pub fn check(asked: &[Asked<'_>], endpoints: &[&str]) -> Result<(), Rejected> {
    if asked.len() > GRANTS_MAX {
        return Err(Rejected::Number);
    }
    let mut taken: Vec<&str> = INJECTED.iter().chain(endpoints).copied().collect();
    for grant in asked {
        if grant.name.is_empty() || grant.name.len() > NAME_BYTES_MAX || taken.contains(&grant.name)
        {
            return Err(Rejected::Name);
        }
        if !grant.is_held {
            return Err(Rejected::Source);
        }
        if grant.mode == Mode::Other {
            return Err(Rejected::Mode);
        }
        if !HARMLESS.contains(&grant.interface_id) {
            return Err(Rejected::Interface);
        }
        taken.push(grant.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use capos_config::{
        AUTHORIZED_KEY_STORE_INTERFACE_ID, NETWORK_MANAGER_INTERFACE_ID,
        PROCESS_SPAWNER_INTERFACE_ID, SESSION_MANAGER_INTERFACE_ID, SSH_HOST_KEY_INTERFACE_ID,
        TCP_LISTEN_AUTHORITY_INTERFACE_ID, TCP_LISTENER_INTERFACE_ID, TCP_SOCKET_INTERFACE_ID,
        TERMINAL_SESSION_INTERFACE_ID,
    };

    const TIMER: Asked<'static> = Asked {
        name: "timer",
        interface_id: TIMER_INTERFACE_ID,
        is_held: true,
        mode: Mode::Raw,
    };

    #[test]
    fn authority_is_not_passed_through() {
        for interface_id in [
            PROCESS_SPAWNER_INTERFACE_ID,
            NETWORK_MANAGER_INTERFACE_ID,
            TCP_LISTEN_AUTHORITY_INTERFACE_ID,
            TCP_LISTENER_INTERFACE_ID,
            TCP_SOCKET_INTERFACE_ID,
            SSH_HOST_KEY_INTERFACE_ID,
            AUTHORIZED_KEY_STORE_INTERFACE_ID,
            SESSION_MANAGER_INTERFACE_ID,
            TERMINAL_SESSION_INTERFACE_ID,
            0,
        ] {
            let asked = Asked {
                interface_id,
                ..TIMER
            };
            assert_eq!(check(&[asked], &[]), Err(Rejected::Interface));
        }
    }

    #[test]
    fn the_form_of_a_grant_is_checked() {
        assert_eq!(check(&[TIMER], &[]), Ok(()));
        assert_eq!(check(&[], &[]), Ok(()));
        assert_eq!(check(&[TIMER, TIMER], &[]), Err(Rejected::Name));
        assert_eq!(check(&[TIMER], &["timer"]), Err(Rejected::Name));
        for name in INJECTED
            .into_iter()
            .chain(["", "a name that is longer than 32 bytes"])
        {
            assert_eq!(check(&[Asked { name, ..TIMER }], &[]), Err(Rejected::Name));
        }
        let made = Asked {
            is_held: false,
            ..TIMER
        };
        assert_eq!(check(&[made], &[]), Err(Rejected::Source));
        let moved = Asked {
            mode: Mode::Other,
            ..TIMER
        };
        assert_eq!(check(&[moved], &[]), Err(Rejected::Mode));
        assert_eq!(check(&[TIMER; GRANTS_MAX + 1], &[]), Err(Rejected::Number));
    }
}
