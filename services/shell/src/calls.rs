//! `inspect`, `call` and `typed-call`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;

use capos::{CompletedCall, decode_completed_call};
use service::FOREVER;
use shell_core::command::Call;
use shell_core::interface::{self, Interface};
use shell_core::{LineError, message, printable};

use crate::Shell;
use crate::errors::Trouble;
use crate::holdings::{Holding, Origin};

/// Room for the results of any method.
const RESULT_BYTES: usize = 16 * 1024;

/// What a capability speaks: its interface, or for an endpoint of a bundle the
/// one it is named after.
fn spoken(holding: &Holding) -> Option<&'static Interface> {
    let own = interface::by_id(holding.capability.interface_id())?;
    match own.name {
        "Endpoint" => interface::by_bundle_name(&holding.name).or(Some(own)),
        _ => Some(own),
    }
}

impl Shell<'_> {
    pub(crate) fn inspect(&self, name: &str) -> Result<String, Trouble> {
        let holding = self.holdings.find(name);
        let holding = holding.ok_or_else(|| Trouble::held(name))?;
        let capability = holding.capability;
        let origin = match holding.origin {
            Origin::Start => "the shell was started with it",
            Origin::Bundle => "from the session's bundle",
        };
        let mut text = format!(
            "@{}: {} ({:#018x})\nlocal number: {}\norigin: {origin}",
            printable(name),
            interface::display(capability.interface_id()),
            capability.interface_id(),
            capability.cap_id()
        );
        let Some(interface) = spoken(holding) else {
            text.push_str("\nmethods: not known to this shell; `typed-call` takes numbers");
            return Ok(text);
        };
        if interface.id != capability.interface_id() {
            text.push_str(&format!("\nspeaks, by its name: {}", interface.name));
        }
        for (number, method) in interface.methods.iter().enumerate() {
            text.push_str(&format!("\n  {number}  {}", method.signature()));
        }
        Ok(text)
    }

    pub(crate) fn call(&mut self, call: &Call) -> Result<String, Trouble> {
        let unknown = |reason: String| {
            Trouble::Line(LineError {
                column: call.method_column,
                reason,
            })
        };
        let holding = self.holdings.find(&call.capability);
        let holding = holding.ok_or_else(|| Trouble::held(&call.capability))?;
        let interface = match &call.interface {
            Some(name) => interface::by_name(name)
                .ok_or_else(|| unknown(format!("there is no interface `{name}` in this shell")))?,
            None => spoken(holding).ok_or_else(|| {
                unknown(format!(
                    "@{} speaks an interface this shell does not know",
                    call.capability
                ))
            })?,
        };
        let found = interface.method(&call.method);
        let (number, method) = found.ok_or_else(|| {
            unknown(format!(
                "{} has no method `{}`",
                interface.name, call.method
            ))
        })?;
        if method.takes_secret() {
            return Err(unknown(String::from(
                "a secret does not belong in a line, which is shown and kept; use `login` or `setup`",
            )));
        }
        let cap_id = holding.capability.cap_id();
        let holdings = &self.holdings;
        let resolve = |name: &str| Some(holdings.find(name)?.capability.cap_id());
        let params = message::parameters(method, call.method_column, &call.arguments, &resolve)?;
        let completed = self.invoke(cap_id, number, params.into_boxed_slice())?;
        let written = decode_completed_call(&completed)?;
        let bytes = completed.result_buffer().get(..written);
        let mut text =
            message::results(method, bytes.unwrap_or_default()).map_err(Trouble::Text)?;
        let returned = self.let_go(&completed);
        if returned > 0 {
            text.push_str(&format!(
                "\n({returned} capabilities came with it and were released)"
            ));
        }
        Ok(text)
    }

    pub(crate) fn typed_call(&mut self, name: &str, method: u16) -> Result<String, Trouble> {
        let holding = self.holdings.find(name);
        let cap_id = holding
            .ok_or_else(|| Trouble::held(name))?
            .capability
            .cap_id();
        let completed = self.invoke(cap_id, method, Box::from([]))?;
        let written = decode_completed_call(&completed)?;
        self.let_go(&completed);
        Ok(format!("method {method} returned {written} bytes"))
    }

    /// Whether a call of this capability would wait for the shell.
    fn serves(&self, cap_id: u32) -> bool {
        let served = self.holdings.find("stdio");
        self.stdio.is_some() && served.is_some_and(|held| held.capability.cap_id() == cap_id)
    }

    fn invoke(
        &mut self,
        cap_id: u32,
        method: u16,
        params: Box<[u8]>,
    ) -> Result<CompletedCall, Trouble> {
        if self.serves(cap_id) {
            return Err(Trouble::text(
                "the shell serves this endpoint itself; programs call it",
            ));
        }
        let room = vec![0; RESULT_BYTES].into_boxed_slice();
        let failed = |error| Trouble::Text(format!("the call failed: {error:?}"));
        let call = self.ring.submit_call(cap_id, method, params, room);
        let call = call.map_err(failed)?;
        self.ring.wait(call, FOREVER).map_err(failed)
    }

    /// A call by hand has nowhere to put capabilities that come back.
    fn let_go(&mut self, completed: &CompletedCall) -> u16 {
        let count = completed.cqe().cap_count;
        for index in 0..count {
            if let Ok(capability) = completed.result_cap(usize::from(index)) {
                let _ = self.ring.release_wait(capability.cap_id(), FOREVER);
            }
        }
        count
    }
}
