//! `capos-shell`: what a person does with capabilities from a terminal.
//!
//! It is started in one of two ways, and tells them apart by what it holds:
//!
//! - *in a session* (`terminal`, `session`, `launcher`, what else the session's
//!   bundle has): the person has logged in already;
//! - *by itself* (`terminal`, `session_manager`, `authority_broker`, and if there
//!   are any `credential_store`, `audit_log`): it opens an anonymous session and
//!   takes its bundle. `login` and `setup` exchange the bundle in place; the
//!   process's own session stays what it was.
//!
//! `stdio`, an endpoint that the shell owns, is what programs are given as their
//! terminal; the shell serves it while it waits for one of them.
//!
//! Exit codes: 0 after `exit` or when the terminal is closed, 2 without a
//! terminal, 3 when the terminal or the ring fails.
#![no_std]
#![no_main]

extern crate alloc;

mod calls;
mod children;
mod errors;
mod holdings;
mod identity;
mod launch;
mod terminal;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use capos::prelude::*;
use capos::{Endpoint, ManualClient, RuntimeRingClient, SystemInfoClient, TerminalSession};
use service::{FOREVER, Server};
use shell_core::command::{self, Command, Manual, Target};
use shell_core::history::History;
use shell_core::{interface, printable};

use children::Children;
use errors::Trouble;
use holdings::{Holdings, Origin};
use terminal::{Line, Terminal};

const EXIT_BUNDLE: i64 = 2;
const EXIT_TERMINAL: i64 = 3;

/// Calls of programs that are taken from the endpoint ahead of time.
const STDIO_RECEIVES: usize = 2;
/// Longest usual call of a program: a line and its framing.
const STDIO_PARAMS_BYTES: usize = 1024;

/// The shell.
pub(crate) struct Shell<'r> {
    pub(crate) ring: RuntimeRingClient<'r>,
    pub(crate) terminal: Terminal,
    pub(crate) holdings: Holdings,
    pub(crate) children: Children,
    /// Serves `stdio`, if the shell was given one.
    pub(crate) stdio: Option<Server>,
    history: History,
    prompt: String,
    is_over: bool,
    /// Its own session is over, and the terminal answers it no more.
    is_logged_out: bool,
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let Ok(terminal) = capset.get_typed::<TerminalSession>(b"terminal") else {
        return EXIT_BUNDLE;
    };
    let stdio = capset.get_typed::<Endpoint>(b"stdio").ok();
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let stdio = stdio.and_then(|stdio| {
        Server::new(&mut ring, &[stdio], STDIO_RECEIVES, STDIO_PARAMS_BYTES).ok()
    });
    let mut shell = Shell {
        ring,
        terminal: Terminal::new(terminal),
        holdings: Holdings::at_start(capset),
        children: Children::default(),
        stdio,
        history: History::default(),
        prompt: String::new(),
        is_over: false,
        is_logged_out: false,
    };
    match shell.work() {
        Ok(()) => 0,
        Err(_) => EXIT_TERMINAL,
    }
}

impl Shell<'_> {
    /// Reads and carries out commands until it is over. Fails when the terminal
    /// does: nobody could be told.
    fn work(&mut self) -> Result<(), ClientError> {
        self.begin()?;
        while !self.is_over {
            let prompt = self.prompt.clone();
            let line = self
                .terminal
                .command(&mut self.ring, &prompt, &self.history)?;
            let Line::Submitted(line) = line else {
                if matches!(line, Line::Closed) {
                    break;
                }
                continue;
            };
            let line = terminal::text(&line);
            self.history.push(&line);
            self.line(&line)?;
        }
        if self.is_logged_out {
            return Ok(());
        }
        self.stop_all();
        self.say("[shell] exit")
    }

    fn begin(&mut self) -> Result<(), ClientError> {
        if self.is_by_itself()
            && let Err(trouble) = self.become_anonymous()
        {
            self.complain(&trouble)?;
        }
        self.name_prompt();
        self.say("[shell] ready; `help` lists the commands")
    }

    /// The prompt names whoever the session is of.
    pub(crate) fn name_prompt(&mut self) {
        let name = self.session_info().map(|info| info.principal_display_name);
        let name = name.unwrap_or_else(|_| String::from("nobody"));
        self.prompt = format!("{}> ", printable(&name));
    }

    pub(crate) fn say(&mut self, text: &str) -> Result<(), ClientError> {
        self.terminal.say(&mut self.ring, text)
    }

    pub(crate) fn complain(&mut self, trouble: &Trouble) -> Result<(), ClientError> {
        let text = match trouble {
            Trouble::Line(error) => error.pointing(self.prompt.chars().count()),
            Trouble::Text(text) => format!("error: {text}"),
        };
        self.say(&text)
    }

    fn line(&mut self, line: &str) -> Result<(), ClientError> {
        let outcome = match command::parse(line) {
            Ok(None) => return Ok(()),
            Ok(Some(command)) => self.carry_out(command),
            Err(error) => Err(Trouble::Line(error)),
        };
        if let Err(trouble) = outcome {
            self.complain(&trouble)?;
        }
        // What was given up is released before the next command.
        let _ = self.ring.flush_releases();
        Ok(())
    }

    fn carry_out(&mut self, command: Command) -> Result<(), Trouble> {
        let text = match command {
            Command::Help(command) => command::help(command.as_deref())
                .ok_or_else(|| Trouble::Text("there is no such command".to_string()))?,
            Command::Caps => self.caps(),
            Command::Inspect(Target::Capability(name)) => self.inspect(&name)?,
            Command::Inspect(Target::Process(name)) => self.inspect_child(&name)?,
            Command::Session => self.session()?,
            Command::Login(name) => return self.login(name.as_deref()),
            Command::Setup => return self.setup(),
            Command::Logout => return self.logout(),
            Command::Run(launch) => return self.run(&launch),
            Command::Spawn(launch, name) => return self.spawn(&launch, name),
            Command::Wait(name) => return self.wait(&name),
            Command::Stop(name) => self.stop(&name)?,
            Command::Release(Target::Capability(name)) => self.release(&name)?,
            Command::Release(Target::Process(name)) => self.release_child(&name)?,
            Command::Call(call) => self.call(&call)?,
            Command::TypedCall { capability, method } => self.typed_call(&capability, method)?,
            Command::Ps => self.ps(),
            Command::Motd => self.motd()?,
            Command::Man(manual) => self.man(&manual)?,
            Command::History => self.history(),
            Command::Clear => {
                self.terminal.show(&mut self.ring, "\u{1b}[2J\u{1b}[H")?;
                return Ok(());
            }
            Command::Exit => {
                self.is_over = true;
                return Ok(());
            }
        };
        Ok(self.say(&text)?)
    }

    pub(crate) fn end_with_session(&mut self) {
        self.is_over = true;
        self.is_logged_out = true;
    }

    fn caps(&self) -> String {
        let lines = self.holdings.iter().map(|holding| {
            let interface = interface::display(holding.capability.interface_id());
            let origin = match holding.origin {
                Origin::Start => "start",
                Origin::Bundle => "bundle",
            };
            format!("@{:<20} {interface:<24} {origin}", printable(&holding.name))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Gives a capability up. Without its terminal and the endpoint it serves it
    /// would be no shell.
    fn release(&mut self, name: &str) -> Result<String, Trouble> {
        if matches!(name, "terminal" | "stdio") {
            return Err(Trouble::Text(format!(
                "the shell works with @{name}; `exit` ends it"
            )));
        }
        let holding = self.holdings.remove(name);
        let holding = holding.ok_or_else(|| Trouble::held(name))?;
        if holding.origin == Origin::Start {
            let released = self.ring.release_wait(holding.capability.cap_id(), FOREVER);
            if released != Ok(0) {
                return Err(Trouble::Text(format!("@{name} was released already")));
            }
        }
        Ok(format!("released @{name}"))
    }

    fn history(&self) -> String {
        let lines = self.history.iter().enumerate();
        let lines = lines.map(|(place, line)| format!("{:>3}  {}", place + 1, printable(line)));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn motd(&mut self) -> Result<String, Trouble> {
        let info = self.holdings.service("system_info");
        let info = info.ok_or_else(|| Trouble::held("system_info"))?;
        let text = SystemInfoClient::from_capability(info).motd_wait(&mut self.ring, FOREVER)?;
        Ok(printable(&text))
    }

    fn man(&mut self, manual: &Manual) -> Result<String, Trouble> {
        let capability = self.holdings.service("manual");
        let capability = capability.ok_or_else(|| Trouble::held("manual"))?;
        let mut client = ManualClient::from_capability(capability);
        match manual {
            Manual::Page { name, section } => {
                let page = client.page_wait(&mut self.ring, name, *section, FOREVER)?;
                let head = format!("{}({})  {}", page.name, page.section, page.title);
                Ok(printable(&format!("{head}\n\n{}", page.body)))
            }
            Manual::Keyword(word) => {
                let pages = client.apropos_wait(&mut self.ring, word, FOREVER)?;
                if pages.is_empty() {
                    return Ok(format!("nothing about `{}`", printable(word)));
                }
                let pages = pages
                    .iter()
                    .map(|page| format!("{}({})", page.name, page.section));
                Ok(printable(&pages.collect::<Vec<_>>().join("\n")))
            }
        }
    }
}

entry_point!(main);
