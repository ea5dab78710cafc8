//! `RestrictedLauncher`: some programs, in one session.
//!
//! A launcher starts programs from its list and no others, always in the session
//! it was made for. Grants are resolved in the table of whoever calls it, who can
//! pass on what they hold as with a `ProcessSpawner`; of what the system makes
//! for a child, only that can be had which reaches nobody else
//! ([`is_harmless`]).
//!
//! The list of a launcher does not change, and neither does its session.

use capnp::Word;
use capnp::traits::HasStructSize;
use capos_config::KernelCapSource;
use capos_config::capos_capnp::process_spawner::spawn_params;
use capos_config::capos_capnp::restricted_launcher::list_binaries_results;
use capos_config::ring::{CapCqe, CapSqe};
use sel4_capos_schema::session_capnp::session_mint;

use crate::blocks::{Blocks, Chain};
use crate::cap_table::{CapId, Hold};
use crate::dispatch::{Caller, Outcome};
use crate::encode::{Emitter, NoRoom};
use crate::exception::Exception;
use crate::grants::GrantSource;
use crate::ids::Pid;
use crate::kernel::{Refusal, malformed};
use crate::limits::{LAUNCHER_PROGRAMS_MAX, RESULT_BYTES_MAX};
use crate::machine::Machine;
use crate::objects::Object;
use crate::results::INDEX_RESULT_BYTES;
use crate::server::Server;
use crate::session::SessionId;
use crate::sessions::minted;
use crate::spawn::{
    Given, NAME_BYTES_MAX, Order, Request, bad, create_refused, is_endpoint, kernel_source, text,
};

mod method {
    pub const SPAWN: u16 = 0;
    pub const LIST_BINARIES: u16 = 1;
    pub const SPAWN_WORKER: u16 = 2;
}

/// How long a list of names is that lies in scratch.
#[derive(Clone, Copy)]
struct List {
    bytes: usize,
    count: u32,
}

/// Longest list in bytes: each name follows its length.
const LIST_BYTES_MAX: usize = LAUNCHER_PROGRAMS_MAX as usize * (1 + NAME_BYTES_MAX);
const _: () = assert!(
    LIST_BYTES_MAX <= RESULT_BYTES_MAX as usize,
    "scratch is enough"
);
const _: () = assert!(NAME_BYTES_MAX <= u8::MAX as usize, "a length is one byte");

/// What a `RestrictedLauncher` names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launcher {
    pub(crate) session: SessionId,
    /// Who is charged for it.
    pub(crate) payer: Pid,
    names: Chain,
    count: u32,
}

impl Launcher {
    /// Where the names are.
    pub(crate) const fn names(&self) -> Chain {
        self.names
    }

    /// Visits the names in order until `visit` says it saw enough.
    fn visit(&self, blocks: &Blocks, mut visit: impl FnMut(&str) -> bool) {
        let mut at = 0;
        for _ in 0..self.count {
            let (mut len, mut name) = ([0], [0; NAME_BYTES_MAX]);
            blocks.read_at(self.names, at, &mut len);
            let name = &mut name[..usize::from(len[0])];
            blocks.read_at(self.names, at + 1, name);
            at += 1 + u32::from(len[0]);
            if core::str::from_utf8(name).is_ok_and(&mut visit) {
                return;
            }
        }
    }

    fn starts(&self, blocks: &Blocks, program: &str) -> bool {
        let mut found = false;
        self.visit(blocks, |name| {
            found = name == program;
            found
        });
        found
    }
}

/// Whether a launcher may have this made for a child: what works on the child
/// alone, tells the time, or is an endpoint of its own.
const fn is_harmless(source: KernelCapSource) -> bool {
    matches!(
        source,
        KernelCapSource::VirtualMemory
            | KernelCapSource::FrameAllocator
            | KernelCapSource::ThreadControl
            | KernelCapSource::ThreadSpawner
            | KernelCapSource::ParkSpace
            | KernelCapSource::Timer
            | KernelCapSource::WallClock
            | KernelCapSource::Endpoint
            | KernelCapSource::ChatEndpoint
    )
}

impl<M: Machine> Server<M> {
    /// `SessionMint.launcher`.
    pub(crate) fn make_launcher(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<CapCqe, Refusal> {
        let pid = caller.thread.pid;
        self.fetch_params(machine, caller, sqe)?;
        let params = Word::words_to_bytes(&self.params);
        let request = params.get(..sqe.len as usize).unwrap_or_default();
        let scratch = Word::words_to_bytes_mut(&mut self.reply);
        let (session, list) = decode_list(request, scratch)?;
        let session = self.session_of(machine, pid, session)?;
        self.check_result_room(caller, sqe, INDEX_RESULT_BYTES, 1)?;
        let hold = self.insert_launcher(pid, session, list)?;
        self.give_one(machine, caller, sqe, hold)
    }

    /// A launcher of the programs whose names are in scratch.
    fn insert_launcher(
        &mut self,
        pid: Pid,
        session: SessionId,
        list: List,
    ) -> Result<Hold, Refusal> {
        let full = Exception::overloaded("too many launchers");
        let maker = self.process(pid).ok_or(full)?;
        if maker.made.launchers >= maker.limits.launchers {
            return Err(full.into());
        }
        if self.sessions.launchers.available() == 0 {
            return Err(full.into());
        }
        let names = self.sessions.names.allocate(list.bytes as u32);
        let names = names.ok_or(Exception::overloaded("launcher storage exhausted"))?;
        let bytes = &Word::words_to_bytes(&self.reply)[..list.bytes];
        self.sessions.names.write_at(names, 0, bytes);
        let launcher = Launcher {
            session,
            payer: pid,
            names,
            count: list.count,
        };
        let index = self.sessions.launchers.insert(launcher);
        let index = index.map_err(|_| full)?;
        if let Some(maker) = self.process_mut(pid) {
            maker.made.launchers += 1;
        }
        if let Some(session) = self.sessions.table.get_mut(session.0) {
            session.launchers += 1;
        }
        match self.mint_object(Object::RestrictedLauncher(index)) {
            Ok(hold) => Ok(minted(hold)),
            Err(error) => {
                self.drop_launcher(index);
                Err(create_refused(&error).into())
            }
        }
    }

    /// The last hold on a launcher is gone.
    pub(crate) fn drop_launcher(&mut self, index: u32) {
        let Some(launcher) = self.sessions.launchers.remove(index) else {
            return;
        };
        self.sessions.names.free(launcher.names);
        if let Some(payer) = self.process_mut(launcher.payer) {
            payer.made.launchers -= 1;
        }
        if let Some(session) = self.sessions.table.get_mut(launcher.session.0) {
            session.launchers -= 1;
        }
        self.free_unused_session(launcher.session);
    }

    /// CALL to a `RestrictedLauncher`.
    pub(crate) fn call_launcher(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
    ) -> Outcome {
        let Some(&launcher) = self.sessions.launchers.get(index) else {
            return Outcome::Pending;
        };
        let outcome = match sqe.method_id {
            method::SPAWN => self.launch(machine, caller, sqe, &launcher, Given::Handle),
            method::LIST_BINARIES => return self.list_binaries(machine, caller, sqe, &launcher),
            method::SPAWN_WORKER => self.launch(machine, caller, sqe, &launcher, Given::Worker),
            _ => Err(Exception::unimplemented().into()),
        };
        match outcome {
            Ok(cqe) => Outcome::Complete(cqe),
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    fn list_binaries(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        launcher: &Launcher,
    ) -> Outcome {
        if let Err(over) = self.check_session(machine, launcher.session) {
            return self.refuse(machine, caller, sqe, over.into());
        }
        let reply = Word::words_to_bytes_mut(&mut self.reply);
        let emitted = emit_list(reply, launcher, &self.sessions.names);
        self.answer(machine, caller, sqe, emitted)
    }

    /// `spawn` and `spawnWorker`.
    fn launch(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        launcher: &Launcher,
        given: Given,
    ) -> Result<CapCqe, Refusal> {
        self.check_session(machine, launcher.session)?;
        let params = self.copy_params(machine, caller, sqe)?;
        let message = params.message()?;
        let request: spawn_params::Reader<'_> = message.get_root().map_err(malformed)?;
        let request = Request {
            name: request.get_name(),
            program: request.get_binary_name(),
            grants: request.get_grants(),
        };
        let program = text(request.program.clone())?;
        if !launcher.starts(&self.sessions.names, program) {
            return Err(Exception::failed("this launcher does not start that program").into());
        }
        let grants = self.requested_grants(caller, request, |source| {
            kernel_source(source).filter(|&source| is_harmless(source))
        })?;
        let made = grants.iter().filter(|grant| match grant.source {
            GrantSource::Kernel(source) => is_endpoint(source),
            _ => false,
        });
        if given == Given::Worker && made.count() != 1 {
            return Err(bad("a worker is granted one endpoint of its own"));
        }
        let order = Order {
            program,
            grants: &grants,
            session: Some(launcher.session),
            regrant: false,
            given,
        };
        self.spawn_granted(machine, caller, sqe, &order)
    }

    /// `SessionMint.spawn`.
    pub(crate) fn spawn_in_session(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<CapCqe, Refusal> {
        let params = self.copy_params(machine, caller, sqe)?;
        let message = params.message()?;
        let spawn: session_mint::spawn_params::Reader<'_> =
            message.get_root().map_err(malformed)?;
        let session = CapId::from_raw(spawn.get_session_cap_id());
        let session = self.session_of(machine, caller.thread.pid, session)?;
        let request = Request {
            name: spawn.get_name(),
            program: spawn.get_binary_name(),
            grants: spawn.get_grants().get_as(),
        };
        let program = text(request.program.clone())?;
        let grants = self.requested_grants(caller, request, |source| {
            kernel_source(source).filter(|&source| source != KernelCapSource::SessionManager)
        })?;
        let order = Order {
            program,
            grants: &grants,
            session: Some(session),
            regrant: true,
            given: Given::Mediation,
        };
        self.spawn_granted(machine, caller, sqe, &order)
    }
}

/// The session capability of a request to make a launcher; the names go to
/// `scratch`.
fn decode_list(mut params: &[u8], scratch: &mut [u8]) -> Result<(CapId, List), Refusal> {
    let options = capos_config::default_reader_options();
    let message = capnp::serialize::read_message_from_flat_slice_no_alloc(&mut params, options);
    let message = message.map_err(malformed)?;
    let request: session_mint::launcher_params::Reader<'_> =
        message.get_root().map_err(malformed)?;
    let binaries = request.get_binaries().map_err(malformed)?;
    if binaries.len() > LAUNCHER_PROGRAMS_MAX {
        return Err(bad("too many programs"));
    }
    let mut list = List {
        bytes: 0,
        count: binaries.len(),
    };
    for name in binaries.iter() {
        let name = text(name)?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(bad("bad program name"));
        }
        let end = list.bytes + 1 + name.len();
        let place = scratch.get_mut(list.bytes..end);
        if let Some((len, bytes)) = place.and_then(|place| place.split_first_mut()) {
            *len = name.len() as u8;
            bytes.copy_from_slice(name.as_bytes());
        }
        list.bytes = end;
    }
    let session = CapId::from_raw(request.get_session_cap_id());
    Ok((session, list))
}

fn emit_list(out: &mut [u8], launcher: &Launcher, blocks: &Blocks) -> Result<usize, NoRoom> {
    let size = <list_binaries_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    let list = message.set_pointer_list(root, 0, launcher.count as usize)?;
    let (mut index, mut emitted) = (0, Ok(()));
    launcher.visit(blocks, |name| {
        emitted = message.set_text(list, index, name);
        index += 1;
        emitted.is_err()
    });
    emitted?;
    message.finish()
}
