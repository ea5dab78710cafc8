//! The login prompt: all that happens before somebody is authenticated.
//!
//! A login leads to a shell in a process of its own, which the shell launcher
//! starts; what the operator may do goes from the broker to that shell and never
//! through here. This program holds a terminal, a way to have sessions opened, a
//! way to have a shell started in one, and what first boot needs to make a
//! password. When the shell ends, its session is ended, and the next person
//! finds a fresh prompt.
//!
//! At the prompt, `guest` and `anonymous` ask for sessions without a password,
//! `setup` makes the first password, and `halt` ends this program with 0: who
//! stands at the machine's own terminal can stop it.
//!
//! Holds: `terminal`, `session_manager`, `restricted_shell_launcher`;
//! `credential_store` for `setup`, `system_info` for the greeting; `manual` and
//! `timer`, which shells are given, the latter also to wait while another reads.
#![no_std]
#![no_main]

extern crate alloc;

mod desk;
mod door;

use alloc::format;
use alloc::string::String;

use capos::prelude::*;
use capos::{
    CredentialStore, Manual, RestrictedShellLauncher, SessionManager, SystemInfo, TerminalSession,
    Timer,
};

use desk::{Answer, Desk};
use door::{Door, Entered, Refused};

/// It lacks what it works with.
const EXIT_BUNDLE: i64 = 2;
/// The terminal does not answer any more.
const EXIT_TERMINAL: i64 = 3;

/// Longest account name.
const NAME_BYTES: u32 = 64;
/// Longest password.
const PASSWORD_BYTES: u32 = 256;
/// Lengths of passwords that can be made.
const NEW_PASSWORD_BYTES_MIN: usize = 8;

/// The terminal is gone: there is nobody to talk to.
struct TerminalGone;

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let (Ok(terminal), Ok(sessions), Ok(launcher)) = (
        capset.get_typed::<TerminalSession>(b"terminal"),
        capset.get_typed::<SessionManager>(b"session_manager"),
        capset.get_typed::<RestrictedShellLauncher>(b"restricted_shell_launcher"),
    ) else {
        return EXIT_BUNDLE;
    };
    let door = Door {
        terminal,
        sessions,
        launcher,
        credentials: capset
            .get_typed::<CredentialStore>(b"credential_store")
            .ok(),
        system: capset.get_typed::<SystemInfo>(b"system_info").ok(),
        timer: capset.get_typed::<Timer>(b"timer").ok(),
        manual: capset.get_typed::<Manual>(b"manual").ok(),
    };
    let Ok(ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let mut desk = Desk::new(terminal, door.timer, ring);
    match receive(&mut desk, &door) {
        Ok(()) => 0,
        Err(TerminalGone) => EXIT_TERMINAL,
    }
}

/// Serves one person after the other, until one halts the system.
fn receive(desk: &mut Desk<'_>, door: &Door) -> Result<(), TerminalGone> {
    loop {
        let hostname = door.hostname(desk);
        greet(desk, door, &hostname)?;
        loop {
            match desk.ask(&format!("{hostname} login: "), NAME_BYTES)? {
                Answer::Nothing => {}
                Answer::Line(name) => match &*name {
                    "halt" => {
                        desk.say("The system is going down.")?;
                        return Ok(());
                    }
                    "help" => help(desk, door)?,
                    "setup" => setup(desk, door)?,
                    name => {
                        if admit(desk, door, name)? {
                            break;
                        }
                    }
                },
            }
        }
    }
}

fn greet(desk: &mut Desk<'_>, door: &Door, hostname: &str) -> Result<(), TerminalGone> {
    desk.say("")?;
    desk.say(&format!("capOS on seL4, {hostname}"))?;
    if let Some(motd) = door.motd(desk) {
        desk.say(&motd)?;
    }
    match door.has_password(desk) {
        Some(false) => desk.say("No password is set. `setup` makes one; `help` says more."),
        _ => desk.say("`help` says what can be entered here."),
    }
}

fn help(desk: &mut Desk<'_>, door: &Door) -> Result<(), TerminalGone> {
    desk.say("An account name, then its password: a shell with that account's capabilities.")?;
    desk.say("  anonymous  a shell that can do next to nothing")?;
    desk.say("  guest      the guest account, if there is one")?;
    if door.credentials.is_some() {
        desk.say("  setup      make the operator's password, if there is none")?;
    }
    desk.say("  halt       stop the machine")
}

/// Lets somebody in and waits until they have left again; whether they were.
fn admit(desk: &mut Desk<'_>, door: &Door, name: &str) -> Result<bool, TerminalGone> {
    let entered = match name {
        "anonymous" => door.anonymous(desk),
        "guest" => door.guest(desk),
        name => {
            let Some(password) = desk.ask_secret("password: ", PASSWORD_BYTES)? else {
                return Ok(false);
            };
            door.password(desk, name, &password)
        }
    };
    match entered {
        Ok(entered) => {
            visit(desk, door, entered)?;
            Ok(true)
        }
        Err(refused) => {
            desk.say(explain(refused))?;
            Ok(false)
        }
    }
}

/// Runs a shell in a session, and ends the session with it.
fn visit(desk: &mut Desk<'_>, door: &Door, entered: Entered) -> Result<(), TerminalGone> {
    match door.shell(desk, &entered) {
        Ok(0) => {}
        Ok(code) => desk.say(&format!("The shell ended with {code}."))?,
        Err(refused) => desk.say(explain(refused))?,
    }
    door.leave(desk, entered);
    Ok(())
}

/// What a person is told: never why a password did not do.
const fn explain(refused: Refused) -> &'static str {
    match refused {
        Refused::Denied => "Login incorrect.",
        Refused::Busy => "Too many attempts; wait a little.",
        Refused::Away => "That service is not there at the moment; try again.",
    }
}

/// Makes the first password.
fn setup(desk: &mut Desk<'_>, door: &Door) -> Result<(), TerminalGone> {
    match door.has_password(desk) {
        None => return desk.say("Passwords cannot be made here."),
        Some(true) => return desk.say("There is a password already."),
        Some(false) => {}
    }
    let Some(first) = desk.ask_secret("new password: ", PASSWORD_BYTES)? else {
        return desk.say("Nothing was changed.");
    };
    if first.len() < NEW_PASSWORD_BYTES_MIN {
        return desk.say("Too short: at least 8 bytes. Nothing was changed.");
    }
    let again = desk.ask_secret("again: ", PASSWORD_BYTES)?;
    if again.is_none_or(|again| *again != *first) {
        return desk.say("They differ. Nothing was changed.");
    }
    match door.make_password(desk, &first) {
        Ok(volatile) => {
            desk.say("The password is set. Log in as `operator`.")?;
            match volatile {
                true => desk.say("It is volatile: kept in memory, and gone when the system stops."),
                false => Ok(()),
            }
        }
        Err(Refused::Denied) => desk.say("It was refused. Nothing was changed."),
        Err(refused) => desk.say(explain(refused)),
    }
}

/// The name of this system where nobody says another.
fn default_hostname() -> String {
    String::from("capos")
}

entry_point!(main);
