//! Programs this shell started.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use capos::{CallId, Client, OwnedCapability, ProcessHandle, ProcessHandleClient};
use service::FOREVER;
use shell_core::printable;

use crate::Shell;
use crate::errors::{Trouble, describe};

/// Most programs at one time: each has a call that waits for its end.
pub(crate) const CHILDREN_MAX: usize = 8;

/// How a program stands.
pub(crate) enum State {
    /// It runs; this call waits for its end.
    Runs(CallId),
    /// It ended with this code.
    Ended(i64),
    /// Its end cannot be learned any more.
    Lost(String),
}

/// A program.
pub(crate) struct Child {
    pub(crate) name: String,
    pub(crate) binary: String,
    pub(crate) handle: OwnedCapability<ProcessHandle>,
    pub(crate) state: State,
}

impl Child {
    pub(crate) fn client(&self) -> ProcessHandleClient {
        ProcessHandleClient::from_capability(self.handle.capability())
    }

    fn state_text(&self) -> String {
        match &self.state {
            State::Runs(_) => "runs".to_string(),
            State::Ended(code) => format!("exit {code}"),
            State::Lost(reason) => format!("lost: {reason}"),
        }
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct Children(pub(crate) Vec<Child>);

impl Children {
    pub(crate) fn place(&self, name: &str) -> Result<usize, Trouble> {
        let place = self.0.iter().position(|child| child.name == name);
        place.ok_or_else(|| Trouble::Text(format!("this shell started no ${name}")))
    }
}

impl Shell<'_> {
    /// Learns which programs ended.
    pub(crate) fn look_after_children(&mut self) {
        for child in &mut self.children.0 {
            let State::Runs(wait) = child.state else {
                continue;
            };
            child.state = match self.ring.try_complete(wait) {
                Ok(None) => continue,
                Ok(Some(completed)) => match child.client().finish_wait(completed) {
                    Ok(code) => State::Ended(code),
                    Err(error) => State::Lost(describe(&error)),
                },
                Err(error) => State::Lost(format!("{error:?}")),
            };
        }
    }

    pub(crate) fn ps(&mut self) -> String {
        let _ = self.ring.cap_enter(0, 0);
        self.look_after_children();
        if self.children.0.is_empty() {
            return "no programs".to_string();
        }
        let lines = self.children.0.iter().map(|child| {
            let (name, binary) = (printable(&child.name), printable(&child.binary));
            format!("${name:<16} {binary:<24} {}", child.state_text())
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn inspect_child(&mut self, name: &str) -> Result<String, Trouble> {
        self.look_after_children();
        let child = &self.children.0[self.children.place(name)?];
        Ok(format!(
            "${}: ProcessHandle of {}\nlocal number: {}\nstate: {}",
            printable(name),
            printable(&child.binary),
            child.handle.cap_id(),
            child.state_text()
        ))
    }

    pub(crate) fn stop(&mut self, name: &str) -> Result<String, Trouble> {
        let place = self.children.place(name)?;
        let mut client = self.children.0[place].client();
        client.terminate_wait(&mut self.ring, FOREVER)?;
        Ok(format!("${name} was stopped"))
    }

    /// Ends the programs that run: nobody could stop them once the shell has gone.
    pub(crate) fn stop_all(&mut self) {
        self.look_after_children();
        for child in &self.children.0 {
            if matches!(child.state, State::Runs(_)) {
                // One that ended meanwhile takes it none ill.
                let _ = child.client().terminate_wait(&mut self.ring, FOREVER);
            }
        }
    }

    /// Gives up the handle of a program that ended: as long as one runs, a call
    /// waits with it.
    pub(crate) fn release_child(&mut self, name: &str) -> Result<String, Trouble> {
        self.look_after_children();
        let place = self.children.place(name)?;
        if matches!(self.children.0[place].state, State::Runs(_)) {
            return Err(Trouble::Text(format!(
                "${name} runs; `wait` for it or `stop` it first"
            )));
        }
        self.children.0.remove(place);
        Ok(format!("released ${name}"))
    }
}
