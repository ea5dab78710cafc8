//! Sessions: how they come to be, end, and are forgotten.
//!
//! # Theory of operation
//! A process runs in one session for its whole life; a session is a record that
//! processes, launchers and its `UserSession` name. `SessionMint` makes such
//! records, a logout or the session's own deadline ends them, and a record goes
//! when nothing names it any more.
//!
//! The end of a session ends what its processes can reach: their calls that
//! wait or are being served are answered, so are their receives, what they read
//! of the terminal and the calls they were serving, and an endpoint that only they own is closed. From then on
//! their calls and receives are refused. What is their own they keep: memory,
//! threads, time. They can see that it is over and end.
//!
//! # Invariants
//! - **C1** A record counts the processes and launchers that name it, and knows
//!   whether a `UserSession` does.
//! - **C2** A record is there exactly while something names it.
//! - **C3** Its timer is armed exactly while it is live and has a deadline.
//! - **C4** Nothing of a session that ended waits at an endpoint or reads the
//!   terminal.
//! - **C5** Whoever made sessions and launchers is charged for them as long as
//!   they are there.
//! - **C6** No two records have one identity.

use capnp::Word;
use capos_config::ring::{CapCqe, CapSqe};
use sel4_capos_schema::method;

use crate::blocks::Blocks;
use crate::cap_table::{CapId, Hold, HoldOrigin, TransferKind, TransferMode, TransferScope};
use crate::dispatch::{Caller, Outcome};
use crate::endpoint::{CallState, Owners};
use crate::exception::Exception;
use crate::grants::Passing;
use crate::ids::Pid;
use crate::kernel::session_mint::{self, Request};
use crate::kernel::{Refusal, user_session};
use crate::launcher::Launcher;
use crate::limits::Capacity;
use crate::machine::Machine;
use crate::objects::Object;
use crate::pool::Pool;
use crate::process::session_timer;
use crate::results::INDEX_RESULT_BYTES;
use crate::server::Server;
use crate::session::{Details, Session, SessionId, SessionInfo};
use crate::spawn::create_refused;

/// All sessions, and the launchers that start programs in them.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    pub(crate) table: Pool<Session>,
    pub(crate) launchers: Pool<Launcher>,
    /// Names of the programs they start.
    pub(crate) names: Blocks,
}

impl Sessions {
    /// The system session, and room for more.
    pub(crate) fn new(capacity: &Capacity) -> Self {
        let mut table = Pool::with_capacity(capacity.sessions.max(1));
        if let Some(mut info) = SessionInfo::new(b"system") {
            info.principal_kind = capos_abi::ENDPOINT_SESSION_PRINCIPAL_SERVICE;
            info.profile_class = capos_abi::ENDPOINT_SESSION_PROFILE_SYSTEM;
            let system = Session {
                kept: true,
                ..Session::new(info, Details::default())
            };
            let first = table.insert(system);
            debug_assert!(matches!(first, Ok(0)), "the first place is its own");
        }
        Self {
            table,
            launchers: Pool::with_capacity(capacity.launchers),
            names: Blocks::new(capacity.launcher_kib),
        }
    }

    /// Whether only the system session is left.
    pub(crate) fn is_idle(&self) -> bool {
        self.table.used() == 1 && self.launchers.used() == 0
    }

    fn is_known(&self, id: &[u8]) -> bool {
        self.table
            .iter()
            .any(|(_, session)| session.info.id() == id)
    }

    /// What `pid` is charged for: sessions and launchers.
    fn charges(&self, pid: Pid) -> (u32, u32) {
        let sessions = self.table.iter().filter(|(_, s)| s.payer == Some(pid));
        let launchers = self.launchers.iter().filter(|(_, l)| l.payer == pid);
        (sessions.count() as u32, launchers.count() as u32)
    }
}

impl<M: Machine> Server<M> {
    /// The session of processes that are given none.
    pub const SYSTEM_SESSION: SessionId = SessionId(0);

    /// Opens a session that processes can be created in, until
    /// [`Server::end_session`] or its own end; `None` if there are too many.
    pub fn open_session(&mut self, info: SessionInfo) -> Option<SessionId> {
        let session = Session {
            kept: true,
            ..Session::new(info, Details::default())
        };
        self.insert_session(session)
    }

    fn insert_session(&mut self, session: Session) -> Option<SessionId> {
        let expiry = session.info.expires_at_ns;
        let index = self.sessions.table.insert(session).ok()?;
        if expiry != u64::MAX {
            self.deadlines.arm(session_timer(index), expiry);
        }
        Some(SessionId(index))
    }

    /// Ends a session. Its handle stays taken until nothing names it any more.
    /// The system session does not end.
    pub fn end_session(&mut self, machine: &mut M, id: SessionId) {
        if id != Self::SYSTEM_SESSION {
            self.finish_session(machine, id);
        }
    }

    /// As [`Server::end_session`], of any other session; nothing happens if it
    /// ended before.
    pub(crate) fn finish_session(&mut self, machine: &mut M, id: SessionId) {
        let Some(session) = self.sessions.table.get_mut(id.0) else {
            return;
        };
        session.kept = false;
        if !core::mem::replace(&mut session.ended, true) {
            self.deadlines.disarm(session_timer(id.0));
            self.end_calls_of(machine, id);
            self.disown(machine, id);
            self.end_terminal_read(machine, |server, pid| server.runs_in(pid, id));
            for index in 0..self.endpoints.table.capacity() {
                self.match_endpoint(machine, index);
            }
        }
        self.free_unused_session(id);
        self.reap(machine);
    }

    /// Answers every call that the processes of a session wait for.
    fn end_calls_of(&mut self, machine: &mut M, id: SessionId) {
        let over = Exception::disconnected("session ended");
        while let Some(index) = self.find_call(|call| call.session == id) {
            self.unqueue(index);
            self.finish_call(machine, index, Err(over));
        }
    }

    /// Takes endpoints away from the processes of a session that ended.
    fn disown(&mut self, machine: &mut M, id: SessionId) {
        self.survey_owners(id);
        for index in 0..self.endpoints.table.capacity() {
            let owners = self.endpoints.owners.get_mut(index as usize);
            match owners.map(core::mem::take) {
                Some(Owners {
                    ending: true,
                    live: false,
                }) => self.shut_endpoint(machine, index),
                Some(Owners {
                    ending: true,
                    live: true,
                }) => {
                    let lost = |server: &Self, pid| server.runs_in(pid, id);
                    self.drop_owners(machine, index, lost);
                }
                _ => {}
            }
        }
    }

    /// Whether a process runs in a session.
    fn runs_in(&self, pid: Pid, id: SessionId) -> bool {
        self.process(pid)
            .is_some_and(|process| process.session == id)
    }

    /// Finds out who owns each endpoint that a process of this session owns.
    fn survey_owners(&mut self, id: SessionId) {
        for process in self.processes.iter().flatten() {
            let ending = process.session == id;
            let session = self.sessions.table.get(process.session.0);
            let live = session.is_some_and(|session| !session.ended);
            for (_, hold) in process.caps.iter() {
                let current = self.objects.is_current(hold.epoch, hold.observed_epoch);
                let Some(Object::EndpointOwner(index)) = self.objects.get(hold.object) else {
                    continue;
                };
                if let Some(owners) = self.endpoints.owners.get_mut(index as usize) {
                    owners.ending |= ending;
                    owners.live |= live && current;
                }
            }
        }
    }

    /// Forgets a session that nothing names.
    pub(crate) fn free_unused_session(&mut self, id: SessionId) {
        let session = self.sessions.table.get(id.0);
        if session.is_none_or(Session::is_used) {
            return;
        }
        self.deadlines.disarm(session_timer(id.0));
        self.references.forget(id);
        let session = self.sessions.table.remove(id.0);
        let payer = session.and_then(|session| session.payer);
        if let Some(payer) = payer.and_then(|pid| self.process_mut(pid)) {
            payer.made.sessions -= 1;
        }
    }

    /// The last hold on a `UserSession` is gone.
    pub(crate) fn forget_user_session(&mut self, index: u32) {
        if let Some(session) = self.sessions.table.get_mut(index) {
            session.named = false;
        }
        self.free_unused_session(SessionId(index));
    }

    /// Checks that the caller may still reach others.
    ///
    /// # Errors
    /// A `disconnected` exception.
    #[inline]
    pub(crate) fn check_live_session(
        &self,
        machine: &mut M,
        caller: Caller,
    ) -> Result<(), Exception> {
        let process = self.processes[caller.slot].as_deref();
        let session = process.map_or(Self::SYSTEM_SESSION, |process| process.session);
        self.check_session(machine, session)
    }

    /// Checks that a session is live.
    ///
    /// # Errors
    /// A `disconnected` exception.
    #[inline]
    pub(crate) fn check_session(&self, machine: &mut M, id: SessionId) -> Result<(), Exception> {
        match self.sessions.table.get(id.0) {
            Some(session) if session.is_live(|| machine.now_ns()) => Ok(()),
            _ => Err(Exception::disconnected("session is not live")),
        }
    }

    /// CALL to a `UserSession`.
    pub(crate) fn call_user_session(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
        index: u32,
    ) -> Outcome {
        let id = SessionId(index);
        if sqe.method_id > user_session::LOGOUT {
            return self.refuse(machine, caller, sqe, Exception::unimplemented().into());
        }
        if let Err(over) = self.check_session(machine, id) {
            return self.refuse(machine, caller, sqe, over.into());
        }
        let reply = Word::words_to_bytes_mut(&mut self.reply);
        let Some(session) = self.sessions.table.get(index) else {
            return Outcome::Pending;
        };
        let emitted = match sqe.method_id {
            user_session::INFO => user_session::emit_info(reply, session),
            user_session::AUDIT_CONTEXT => user_session::emit_audit_context(reply, session),
            _ => user_session::emit_logged_out(reply),
        };
        let outcome = self.answer(machine, caller, sqe, emitted);
        if sqe.method_id == user_session::LOGOUT {
            self.finish_session(machine, id);
        }
        outcome
    }

    /// CALL to a `SessionMint`.
    pub(crate) fn call_mint(&mut self, machine: &mut M, caller: Caller, sqe: &CapSqe) -> Outcome {
        let made = match sqe.method_id {
            method::LAUNCHER => self.make_launcher(machine, caller, sqe),
            method::SPAWN => self.spawn_in_session(machine, caller, sqe),
            _ => self.mint_one(machine, caller, sqe),
        };
        match made {
            Ok(cqe) => Outcome::Complete(cqe),
            Err(refusal) => self.refuse(machine, caller, sqe, refusal),
        }
    }

    /// The methods that make one capability of what is there, or of a record.
    fn mint_one(
        &mut self,
        machine: &mut M,
        caller: Caller,
        sqe: &CapSqe,
    ) -> Result<CapCqe, Refusal> {
        let pid = caller.thread.pid;
        let now = machine.now_ns();
        let request = session_mint::decode(self.fetch_params(machine, caller, sqe)?, sqe, now)?;
        self.check_result_room(caller, sqe, INDEX_RESULT_BYTES, 1)?;
        let hold = match request {
            Request::Open(info, details) => self.open(pid, info, details)?,
            Request::CallerCapability {
                call_id,
                cap,
                interface_id,
            } => self.caller_capability(pid, call_id, cap, interface_id)?,
            Request::Facet {
                endpoint,
                labels,
                disclosure_scope,
            } => self.own_facet(pid, endpoint, labels, disclosure_scope)?,
        };
        self.give_one(machine, caller, sqe, hold)
    }

    /// `SessionMint.open`: a session and its `UserSession`.
    fn open(&mut self, pid: Pid, info: SessionInfo, details: Details) -> Result<Hold, Refusal> {
        let full = Exception::overloaded("too many sessions");
        if self.sessions.is_known(info.id()) {
            return Err(Exception::invalid_argument("there is such a session").into());
        }
        let maker = self.process(pid).ok_or(full)?;
        if maker.made.sessions >= maker.limits.sessions {
            return Err(full.into());
        }
        let session = Session {
            named: true,
            payer: Some(pid),
            ..Session::new(info, details)
        };
        let id = self.insert_session(session).ok_or(full)?;
        if let Some(maker) = self.process_mut(pid) {
            maker.made.sessions += 1;
        }
        match self.mint_object(Object::UserSession(id.0)) {
            Ok(hold) => Ok(minted(hold)),
            Err(error) => {
                self.forget_user_session(id.0);
                Err(create_refused(&error).into())
            }
        }
    }

    /// `SessionMint.callerCapability`: what the process whose call `pid` serves
    /// could have sent itself.
    fn caller_capability(
        &mut self,
        pid: Pid,
        call_id: u32,
        cap: CapId,
        interface_id: u64,
    ) -> Result<Hold, Refusal> {
        let none = Exception::invalid_argument("no such capability");
        let call = self.endpoints.call_index(call_id);
        let call = call.and_then(|index| self.endpoints.calls.get(index));
        let call = call.filter(|call| call.state == CallState::InFlight(pid));
        let from = call.ok_or(Exception::invalid_argument("no such call"))?;
        let from = from.caller.pid;
        let objects = &mut self.objects;
        let process = self.processes[from.slot()].as_deref_mut().ok_or(none)?;
        let hold = process.caps.lookup(cap, objects).map_err(|_| none)?;
        if hold.interface_id != interface_id {
            return Err(none.into());
        }
        let (kind, origin) = (TransferKind::Copy, HoldOrigin::IpcTransfer);
        let prepared = process.caps.prepare(cap, kind, origin, objects);
        let prepared = prepared.map_err(|error| create_refused(&error.into()))?;
        let is_session = matches!(
            objects.get(prepared.hold.object),
            Some(Object::UserSession(_))
        );
        match self.derive_hold(prepared.hold, Passing::Copy, false) {
            Ok(hold) if is_session => Ok(minted(hold)),
            Ok(hold) => Ok(hold),
            Err(error) => {
                self.release_hold(prepared.hold);
                Err(create_refused(&error).into())
            }
        }
    }

    /// `SessionMint.facet`: the calling side of an endpoint of `pid`.
    fn own_facet(
        &mut self,
        pid: Pid,
        endpoint: CapId,
        (interface_id, badge): (u64, u64),
        disclosure_scope: u64,
    ) -> Result<Hold, Refusal> {
        let process = self.process(pid);
        let hold = process.and_then(|p| p.caps.lookup(endpoint, &self.objects).ok());
        let object = hold.and_then(|hold| self.objects.get(hold.object));
        if !matches!(object, Some(Object::EndpointOwner(_))) {
            return Err(Exception::invalid_argument("not an endpoint of the caller").into());
        }
        let passing = Passing::Client {
            interface_id: Some(interface_id),
            badge: Some(badge),
            disclosure_scope,
        };
        match self.facet_of_owned(pid, endpoint, passing) {
            Ok(hold) => Ok(Hold {
                origin: HoldOrigin::ResultCap,
                ..hold
            }),
            Err(error) => Err(create_refused(&error).into()),
        }
    }

    /// The session of the caller's `UserSession` capability.
    ///
    /// # Errors
    /// An exception: there is no such capability, or the session is over.
    pub(crate) fn session_of(
        &self,
        machine: &mut M,
        pid: Pid,
        cap: CapId,
    ) -> Result<SessionId, Exception> {
        let process = self.process(pid);
        let hold = process.and_then(|p| p.caps.lookup(cap, &self.objects).ok());
        let object = hold.and_then(|hold| self.objects.get(hold.object));
        let Some(Object::UserSession(index)) = object else {
            return Err(Exception::invalid_argument("not a session"));
        };
        self.check_session(machine, SessionId(index))?;
        Ok(SessionId(index))
    }

    /// Charges whoever answers for a process that is gone with the sessions and
    /// launchers it made.
    pub(crate) fn inherit_sessions(&mut self, from: Pid, heir: Pid) {
        let (sessions, launchers) = self.sessions.charges(from);
        for session in self.sessions.table.values_mut() {
            if session.payer == Some(from) {
                session.payer = Some(heir);
            }
        }
        for launcher in self.sessions.launchers.values_mut() {
            if launcher.payer == from {
                launcher.payer = heir;
            }
        }
        if let Some(heir) = self.process_mut(heir) {
            heir.made.sessions += sessions;
            heir.made.launchers += launchers;
        }
    }

    /// Asserts C1 to C6.
    pub(crate) fn check_sessions(&self) {
        self.sessions.table.check();
        self.sessions.launchers.check();
        for (index, session) in self.sessions.table.iter() {
            let id = SessionId(index);
            let processes = self.processes.iter().flatten();
            let processes = processes.filter(|process| process.session == id).count();
            assert_eq!(processes as u32, session.processes, "C1: processes");
            let launchers = self.sessions.launchers.iter();
            let launchers = launchers.filter(|(_, launcher)| launcher.session == id);
            assert_eq!(launchers.count() as u32, session.launchers, "C1: launchers");
            let named = self.objects.iter();
            let named = named.filter(|&object| object == Object::UserSession(index));
            assert_eq!(named.count(), usize::from(session.named), "C1: named");
            assert!(session.is_used(), "C2: session {index}");
            let limited = !session.ended && session.info.expires_at_ns != u64::MAX;
            let armed = self.deadlines.is_armed(session_timer(index));
            assert_eq!(armed, limited, "C3: session {index}");
            if session.ended {
                self.check_ended(id);
            }
            let same = self.sessions.table.iter();
            let same = same.filter(|(_, other)| other.info.id() == session.info.id());
            assert!(same.count() == 1 || session.payer.is_none(), "C6: {index}");
        }
        for process in self.processes.iter().flatten() {
            let made = (process.made.sessions, process.made.launchers);
            assert_eq!(made, self.sessions.charges(process.pid), "C5: charges");
        }
        let launchers = self.sessions.launchers.iter();
        self.sessions
            .names
            .check(launchers.map(|(_, launcher)| launcher.names()));
    }

    /// Asserts C4 for one session.
    fn check_ended(&self, id: SessionId) {
        let calls = self.endpoints.calls.iter();
        let mut calls = calls.filter(|(_, call)| call.session == id);
        assert!(calls.next().is_none(), "C4: a call of {id:?} waits");
        let runs_in = |pid: Pid| self.runs_in(pid, id);
        let live = self.processes.iter().flatten().map(|process| process.pid);
        let reads = live.filter(|&pid| runs_in(pid) && self.terminal.reads_of(pid) > 0);
        assert_eq!(reads.count(), 0, "C4: {id:?} reads the terminal");
        let mut recvs = self.endpoints.recvs.iter();
        let waits = recvs.any(|(_, recv)| runs_in(recv.receiver.pid));
        assert!(!waits, "C4: a receive of {id:?} waits");
        let mut calls = self.endpoints.calls.iter();
        let serves = calls.any(|(_, call)| match call.state {
            CallState::InFlight(pid) => runs_in(pid),
            CallState::Queued(_) => false,
        });
        assert!(!serves, "C4: {id:?} serves a call");
    }
}

/// A hold that its holder can give into another session.
pub(crate) const fn minted(hold: Hold) -> Hold {
    Hold {
        origin: HoldOrigin::Minted,
        transfer_mode: TransferMode::Copy,
        transfer_scope: TransferScope::ServiceRegrantOnly,
        ..hold
    }
}
