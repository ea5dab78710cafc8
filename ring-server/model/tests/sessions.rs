//! Sessions: how they come to be, what their end ends, who may enter them.

mod support;

use capnp::message::Builder;
use capnp::serialize::{read_message, write_message_to_words};
use capos_config::capos_capnp::{
    CapGrantMode, ExceptionType, KernelCapSource as Wire, cap_grant, process_spawner,
    restricted_launcher, user_session,
};
use capos_config::ring::*;
use capos_config::{CONSOLE_INTERFACE_ID, ENDPOINT_INTERFACE_ID, TIMER_INTERFACE_ID};
use capos_config::{KernelCapSource, RESTRICTED_LAUNCHER_INTERFACE_ID, USER_SESSION_INTERFACE_ID};
use ring_server_core::{Class, Grant, Limits, SESSIONS_MAX, TransferMode, TransferScope};
use ring_server_model::{Client, System, call, cap_records};
use sel4_capos_schema::method;
use sel4_capos_schema::session_capnp::session_mint;

const RESULT: u64 = Client::DATA + 0x8000;
const NEVER: u64 = u64::MAX;
const INFO: u16 = 0;
const LOGOUT: u16 = 2;
const LIST_BINARIES: u16 = 1;
const SPAWN_WORKER: u16 = 2;

/// What an exception says it is.
type Refused = ExceptionType;
/// Bytes of a result, and its capabilities with their interfaces.
type Answer = (Vec<u8>, Vec<(u32, u64)>);

/// A call whose params are a message; its result bytes and capabilities.
fn invoke(
    system: &mut System,
    client: &mut Client,
    (cap, method): (u32, u16),
    params: &[u8],
) -> Result<Answer, Refused> {
    system.poke(client, Client::DATA, params);
    let entry = CapSqe {
        addr: Client::DATA,
        len: params.len() as u32,
        result_addr: RESULT,
        result_len: 0x3000,
        ..call(77, cap, method)
    };
    client.submit(&entry);
    system.enter(client, 0, 0);
    let mut cqes = client.completions();
    let at = cqes.iter().position(|cqe| cqe.user_data == 77);
    let cqe = cqes.remove(at.expect("completes at once"));
    if cqe.result == CAP_ERR_APPLICATION_EXCEPTION {
        return Err(support::decode_exception(&system.peek(client, RESULT, 192)).0);
    }
    assert!(cqe.result >= 0, "transport error {}", cqe.result);
    let len = cqe.result as usize;
    let bytes = system.peek(client, RESULT, len);
    let records = 16 * usize::from(cqe.cap_count);
    let records = system.peek(client, RESULT + len as u64, records);
    Ok((bytes, cap_records(&records)))
}

fn open_params(id: &[u8], lifetime: u64) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: session_mint::open_params::Builder<'_> = message.init_root();
    params.set_session_id(id);
    params.set_principal_id(b"principal");
    params.set_kind(1);
    params.set_auth_strength(2);
    params.set_display_name("The Operator");
    params.set_profile("operator");
    params.set_profile_class(3);
    params.set_lifetime_ns(lifetime);
    write_message_to_words(&message)
}

fn launcher_params(session: u32, names: &[&str]) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: session_mint::launcher_params::Builder<'_> = message.init_root();
    params.set_session_cap_id(session);
    let mut list = params.init_binaries(names.len() as u32);
    for (index, name) in names.iter().enumerate() {
        list.set(index as u32, name);
    }
    write_message_to_words(&message)
}

fn caller_capability_params(call_id: u32, cap: u32, interface: u64) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: session_mint::caller_capability_params::Builder<'_> = message.init_root();
    params.set_call_id(call_id);
    params.set_cap_id(cap);
    params.set_interface_id(interface);
    write_message_to_words(&message)
}

fn facet_params(endpoint: u32, interface: u64, badge: u64, scope: u64) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: session_mint::facet_params::Builder<'_> = message.init_root();
    params.set_endpoint_cap_id(endpoint);
    params.set_interface_id(interface);
    params.set_badge(badge);
    params.set_disclosure_scope(scope);
    write_message_to_words(&message)
}

/// A requested grant: name, and a kernel source or a raw capability.
type Wanted<'a> = (&'a str, Result<Wire, (u32, u64)>);

fn put_grants(mut list: capnp::struct_list::Builder<'_, cap_grant::Owned>, wanted: &[Wanted<'_>]) {
    for (index, &(name, source)) in wanted.iter().enumerate() {
        let mut grant = list.reborrow().get(index as u32);
        grant.set_name(name);
        grant.set_mode(CapGrantMode::Raw);
        match source {
            Ok(source) => grant.init_source().set_kernel(source),
            Err((cap, interface)) => {
                grant.set_cap_id(cap);
                grant.set_interface_id(interface);
                grant.init_source().set_capability(());
            }
        }
    }
}

fn spawn_params(program: &str, wanted: &[Wanted<'_>]) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: process_spawner::spawn_params::Builder<'_> = message.init_root();
    params.set_name("child");
    params.set_binary_name(program);
    put_grants(params.init_grants(wanted.len() as u32), wanted);
    write_message_to_words(&message)
}

fn spawn_in_params(session: u32, program: &str, wanted: &[Wanted<'_>]) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: session_mint::spawn_params::Builder<'_> = message.init_root();
    params.set_session_cap_id(session);
    params.set_name("child");
    params.set_binary_name(program);
    let grants = params.get_grants().initn_as(wanted.len() as u32);
    put_grants(grants, wanted);
    write_message_to_words(&message)
}

/// A process that opens sessions and serves an endpoint, and its system.
struct Service {
    system: System,
    mint: Client,
}

const MINT: u32 = 0;
const ENDPOINT: u32 = 1;
const CONSOLE: u32 = 2;
const TIMER: u32 = 3;

impl Service {
    fn new() -> Self {
        let mut system = System::new();
        system.machine.programs.names = vec!["prog".into(), "other".into()];
        let mint = system.spawn(&[
            Grant::kernel("mint", KernelCapSource::SessionManager),
            Grant::kernel("endpoint", KernelCapSource::Endpoint),
            Grant::kernel("console", KernelCapSource::Console),
            Grant::kernel("timer", KernelCapSource::Timer),
        ]);
        Self { system, mint }
    }

    fn mint(&mut self, method: u16, params: &[u8]) -> Result<(u32, u64), Refused> {
        let made = invoke(&mut self.system, &mut self.mint, (MINT, method), params);
        made.map(|(_, caps)| caps[0])
    }

    fn open(&mut self, id: &[u8], lifetime: u64) -> u32 {
        let made = self.mint(method::OPEN, &open_params(id, lifetime));
        let (cap, interface) = made.expect("a session");
        assert_eq!(interface, USER_SESSION_INTERFACE_ID);
        cap
    }

    fn launcher(&mut self, session: u32, names: &[&str]) -> u32 {
        let made = self.mint(method::LAUNCHER, &launcher_params(session, names));
        let (cap, interface) = made.expect("a launcher");
        assert_eq!(interface, RESTRICTED_LAUNCHER_INTERFACE_ID);
        cap
    }

    /// A program in a session, with the calling side of the endpoint.
    fn inhabitant(&mut self, session: u32) -> Client {
        let facet = facet_params(ENDPOINT, ENDPOINT_INTERFACE_ID, 5, 0);
        let facet = self.mint(method::FACET, &facet).expect("a facet");
        let wanted = [("service", Err((facet.0, facet.1)))];
        // The badge of a raw grant is the holder's own.
        let params = badged(spawn_in_params(session, "prog", &wanted), 5);
        let spawned = self.mint(method::SPAWN, &params);
        spawned.expect("a program in the session");
        self.system
            .machine
            .programs
            .launched
            .pop()
            .expect("it runs")
    }

    /// What a call on a capability of the mint's holder comes to.
    fn ask(&mut self, cap: u32, method: u16) -> Result<Vec<u8>, Refused> {
        let asked = invoke(&mut self.system, &mut self.mint, (cap, method), &[]);
        asked.map(|(bytes, _)| bytes)
    }

    fn receive(&mut self) -> (u32, CapCqe) {
        let recv = System::recv_sqe(ENDPOINT, 5);
        let cqe = self
            .system
            .run(&mut self.mint, &recv)
            .expect("a call waits");
        assert!(cqe.result > 0, "received: {}", cqe.result);
        (cqe.call_id, cqe)
    }
}

/// The same spawn request with a badge on its only grant.
fn badged(params: Vec<u8>, badge: u64) -> Vec<u8> {
    let options = capos_config::default_reader_options();
    let message = read_message(&mut &params[..], options).expect("a message");
    let root: session_mint::spawn_params::Reader<'_> = message.get_root().unwrap();
    let mut out = Builder::new_default();
    out.set_root(root).unwrap();
    let mut root: session_mint::spawn_params::Builder<'_> = out.get_root().unwrap();
    let grants = root.reborrow().get_grants();
    let grants: capnp::struct_list::Builder<'_, cap_grant::Owned> = grants.get_as().unwrap();
    grants.get(0).set_badge(badge);
    write_message_to_words(&out)
}

#[test]
fn a_session_says_what_it_was_opened_as() {
    let mut service = Service::new();
    service.system.pass(7_000_000);
    let session = service.open(b"alpha", 1_000_000_000);
    let bytes = service.ask(session, INFO).expect("it is live");
    let options = capos_config::default_reader_options();
    let message = read_message(&mut &bytes[..], options).expect("a message");
    let root: user_session::info_results::Reader<'_> = message.get_root().unwrap();
    let info = root.get_info().unwrap();
    assert_eq!(info.get_session_id().unwrap(), b"alpha");
    assert_eq!(info.get_profile().unwrap(), "operator");
    assert_eq!(info.get_created_at_ms(), 7);
    assert_eq!(info.get_expires_at_ms(), 1007);
    assert_eq!(u16::from(info.get_auth_strength().unwrap()), 2);
    let principal = info.get_principal().unwrap();
    assert_eq!(principal.get_id().unwrap(), b"principal");
    assert_eq!(u16::from(principal.get_kind().unwrap()), 1);
    assert_eq!(principal.get_display_name().unwrap(), "The Operator");
    let bytes = service.ask(session, 1).expect("auditContext");
    let message = read_message(&mut &bytes[..], options).expect("a message");
    let root: user_session::audit_context_results::Reader<'_> = message.get_root().unwrap();
    assert_eq!(root.get_session_id().unwrap(), b"alpha");
    assert_eq!(root.get_principal_id().unwrap(), b"principal");
    assert_eq!(service.ask(session, 3), Err(Refused::Unimplemented));
}

#[test]
fn a_logout_is_answered_with_a_message_and_once() {
    let mut service = Service::new();
    let session = service.open(b"alpha", NEVER);
    let bytes = service.ask(session, LOGOUT).expect("a message");
    let options = capos_config::default_reader_options();
    let message = read_message(&mut &bytes[..], options).expect("an empty struct");
    let _: user_session::logout_results::Reader<'_> = message.get_root().unwrap();
    for method in [INFO, 1, LOGOUT] {
        assert_eq!(service.ask(session, method), Err(Refused::Disconnected));
    }
    let late = launcher_params(session, &["prog"]);
    assert_eq!(
        service.mint(method::LAUNCHER, &late),
        Err(Refused::Disconnected)
    );
    let late = spawn_in_params(session, "prog", &[]);
    assert_eq!(
        service.mint(method::SPAWN, &late),
        Err(Refused::Disconnected)
    );
    assert_eq!(service.system.server.books().sessions, 2);
    let release = System::release_sqe(session, 9);
    assert_eq!(service.system.result(&mut service.mint, &release), 0);
    assert_eq!(service.system.server.books().sessions, 1, "it is forgotten");
    service.open(b"alpha", NEVER);
}

#[test]
fn what_cannot_be_a_session_is_refused() {
    let mut service = Service::new();
    service.open(b"alpha", NEVER);
    let refused = Err(Refused::InvalidArgument);
    for (id, lifetime) in [
        (&b"alpha"[..], NEVER),
        (b"system", NEVER),
        (b"", NEVER),
        (&[1; 33], NEVER),
        (b"beta", 0),
    ] {
        let made = service.mint(method::OPEN, &open_params(id, lifetime));
        assert_eq!(made, refused, "{id:?}");
    }
    let many = vec!["prog"; 65];
    let long = ["x"; 65].concat();
    for names in [&many[..], &[""], &[long.as_str()]] {
        let made = service.mint(method::LAUNCHER, &launcher_params(4, names));
        assert_eq!(made, refused);
    }
    let made = service.mint(method::LAUNCHER, &launcher_params(CONSOLE, &[]));
    assert_eq!(made, refused, "a console is no session");
}

#[test]
fn whoever_opens_sessions_is_charged_until_they_are_forgotten() {
    let mut service = Service::new();
    for number in 0..SESSIONS_MAX {
        service.open(&number.to_le_bytes(), NEVER);
    }
    let more = open_params(b"more", NEVER);
    assert_eq!(service.mint(method::OPEN, &more), Err(Refused::Overloaded));
    let first = 4;
    service.ask(first, LOGOUT).expect("it ends");
    assert_eq!(
        service.mint(method::OPEN, &more),
        Err(Refused::Overloaded),
        "still named"
    );
    service
        .system
        .result(&mut service.mint, &System::release_sqe(first, 9));
    service
        .mint(method::OPEN, &more)
        .expect("one was given back");
    service.system.kill(service.mint);
    assert!(service.system.server.is_idle(), "everything is forgotten");
}

#[test]
fn the_end_of_a_session_answers_its_calls_and_refuses_more() {
    for expires in [false, true] {
        let mut service = Service::new();
        let lifetime = if expires { 1000 } else { NEVER };
        let session = service.open(b"alpha", lifetime);
        let mut guest = service.inhabitant(session);
        let other = service.open(b"beta", NEVER);
        let mut visitor = service.inhabitant(other);
        let mut entry = call(1, 0, 0);
        (entry.result_addr, entry.result_len) = (RESULT, 256);
        // One call being served, one that waits, and one of somebody else.
        assert!(service.system.run(&mut guest, &entry).is_none());
        let (served, _) = service.receive();
        entry.user_data = 2;
        assert!(service.system.run(&mut guest, &entry).is_none());
        assert!(service.system.run(&mut visitor, &entry).is_none());
        if expires {
            service.system.pass(1000);
        } else {
            service.ask(session, LOGOUT).expect("it ends");
        }
        let answers: Vec<_> = guest.completions();
        assert_eq!(answers.len(), 2, "both calls are answered");
        let exception = CAP_ERR_APPLICATION_EXCEPTION;
        assert!(answers.iter().all(|cqe| cqe.result == exception));
        let said = support::decode_exception(&service.system.peek(&guest, RESULT, 192));
        assert_eq!(said.0, Refused::Disconnected);
        let late = System::return_sqe(ENDPOINT, 3, served, 0);
        let late = service.system.result(&mut service.mint, &late);
        assert_eq!(
            late, CAP_ERR_INVOKE_FAILED,
            "there is no such call any more"
        );
        let refused = service.system.result(&mut guest, &entry);
        assert_eq!(refused, exception, "refused before it enters the queue");
        let (call_id, _) = service.receive();
        let answer = System::return_sqe(ENDPOINT, 4, call_id, 0);
        assert_eq!(service.system.result(&mut service.mint, &answer), 0);
        service.system.enter(&visitor, 0, 0);
        assert_eq!(visitor.completions().len(), 1, "others are not disturbed");
        let dead = service.ask(session, INFO);
        assert_eq!(dead, Err(Refused::Disconnected));
    }
}

#[test]
fn a_server_of_an_ended_session_serves_nobody() {
    let mut service = Service::new();
    let session = service.open(b"alpha", NEVER);
    let wanted = [("own", Ok(Wire::Endpoint))];
    let spawn = spawn_in_params(session, "prog", &wanted);
    let spawned = invoke(
        &mut service.system,
        &mut service.mint,
        (MINT, method::SPAWN),
        &spawn,
    );
    let (_, caps) = spawned.expect("it starts");
    let facet = caps[2].0;
    let mut server = service.system.machine.programs.launched.pop().unwrap();
    let (first, second) = (System::recv_sqe(0, 1), System::recv_sqe(0, 2));
    assert!(service.system.run(&mut server, &first).is_none());
    assert!(service.system.run(&mut server, &second).is_none());
    let mut entry = call(3, facet, 0);
    (entry.result_addr, entry.result_len) = (RESULT + 0x4000, 256);
    assert!(service.system.run(&mut service.mint, &entry).is_none());
    assert_eq!(server.completions().len(), 1, "one receive is served");
    service.ask(session, LOGOUT).expect("it ends");
    let answered = service.system.peek(&service.mint, RESULT + 0x4000, 192);
    assert_eq!(
        support::decode_exception(&answered).0,
        Refused::Disconnected
    );
    service.system.enter(&server, 0, 0);
    let receive = server.completions();
    assert_eq!(receive.len(), 1, "the other receive is answered");
    assert_eq!(receive[0].result, CAP_ERR_INVOKE_FAILED);
    let again = service.system.result(&mut server, &first);
    assert_eq!(again, CAP_ERR_APPLICATION_EXCEPTION, "no more receives");
    let closed = service.ask(facet, 0);
    assert_eq!(closed, Err(Refused::Disconnected), "its endpoint is closed");
}

#[test]
fn a_launcher_starts_what_is_on_its_list_in_its_session() {
    let mut service = Service::new();
    let session = service.open(b"alpha", NEVER);
    let launcher = service.launcher(session, &["prog", "absent"]);
    let bytes = service.ask(launcher, LIST_BINARIES).expect("a list");
    let options = capos_config::default_reader_options();
    let message = read_message(&mut &bytes[..], options).expect("a message");
    let root: restricted_launcher::list_binaries_results::Reader<'_> = message.get_root().unwrap();
    let names: Vec<_> = root
        .get_names()
        .unwrap()
        .iter()
        .map(|name| name.unwrap())
        .collect();
    assert_eq!(names, ["prog", "absent"]);
    let own: [Wanted<'_>; 3] = [
        ("timer", Err((TIMER, TIMER_INTERFACE_ID))),
        ("memory", Ok(Wire::VirtualMemory)),
        ("endpoint", Ok(Wire::Endpoint)),
    ];
    let spawn = |service: &mut Service, method, program: &str, wanted: &[Wanted<'_>]| {
        let params = spawn_params(program, wanted);
        invoke(
            &mut service.system,
            &mut service.mint,
            (launcher, method),
            &params,
        )
    };
    let (_, caps) = spawn(&mut service, 0, "prog", &own).expect("it starts");
    assert_eq!(caps.len(), 1, "the handle alone");
    let child = service.system.machine.programs.launched.pop().unwrap();
    assert_eq!(child.interface("timer"), TIMER_INTERFACE_ID);
    let classes = &service.system.machine.programs.classes;
    assert_eq!(classes.last(), Some(&(child.pid, Class::Application)));
    let (_, caps) = spawn(&mut service, SPAWN_WORKER, "prog", &own).expect("a worker");
    let worker: Vec<_> = caps.iter().map(|cap| cap.1).collect();
    let handle = capos_config::PROCESS_HANDLE_INTERFACE_ID;
    assert_eq!(worker, [handle, ENDPOINT_INTERFACE_ID]);
    let lone = spawn(&mut service, SPAWN_WORKER, "prog", &own[..2]);
    assert_eq!(
        lone,
        Err(Refused::InvalidArgument),
        "a worker serves something"
    );
    for (program, refusal) in [
        ("other", Refused::Failed),
        ("pro", Refused::Failed),
        ("progprog", Refused::Failed),
        ("prog\0", Refused::Failed),
        ("", Refused::Failed),
        ("absent", Refused::InvalidArgument),
    ] {
        let started = spawn(&mut service, 0, program, &[]);
        assert_eq!(started, Err(refusal), "{program:?}");
    }
    for source in [
        Wire::Console,
        Wire::ProcessSpawner,
        Wire::BootPackage,
        Wire::SessionManager,
        Wire::EntropySource,
        Wire::TerminalSession,
    ] {
        let started = spawn(&mut service, 0, "prog", &[("it", Ok(source))]);
        assert_eq!(started, Err(Refused::Unimplemented), "{source:?}");
    }
    let console = [("console", Err((CONSOLE, CONSOLE_INTERFACE_ID)))];
    let crossed = spawn(&mut service, 0, "prog", &console);
    assert_eq!(
        crossed,
        Err(Refused::Failed),
        "a console stays in its session"
    );
    service.ask(session, LOGOUT).expect("it ends");
    let late = spawn(&mut service, 0, "prog", &[]);
    assert_eq!(late, Err(Refused::Disconnected));
    assert_eq!(
        service.ask(launcher, LIST_BINARIES),
        Err(Refused::Disconnected)
    );
}

#[test]
fn only_the_trusted_path_carries_anything_into_a_session() {
    let mut service = Service::new();
    let session = service.open(b"alpha", NEVER);
    let console = [("console", Err((CONSOLE, CONSOLE_INTERFACE_ID)))];
    let params = spawn_in_params(session, "prog", &console);
    service.mint(method::SPAWN, &params).expect("regranted");
    let mint = sel4_capos_schema::SESSION_MINT_INTERFACE_ID;
    for wanted in [
        ("mint", Err((MINT, mint))),
        ("mint", Ok(Wire::SessionManager)),
    ] {
        let params = spawn_in_params(session, "prog", &[wanted]);
        let spawned = service.mint(method::SPAWN, &params);
        assert!(spawned.is_err(), "the mint itself stays where it is");
    }
}

#[test]
fn what_is_minted_is_an_ordinary_capability_where_it_arrives() {
    let mut service = Service::new();
    let session = service.open(b"alpha", NEVER);
    let launcher = service.launcher(session, &["prog"]);
    let other = service.open(b"beta", NEVER);
    let mut guest = service.inhabitant(other);
    let mut entry = call(1, 0, 0);
    (entry.result_addr, entry.result_len) = (RESULT, 256);
    assert!(service.system.run(&mut guest, &entry).is_none());
    let (call_id, _) = service.receive();
    let copies = [(session, 1), (launcher, 1)];
    service.system.put_descriptors(&service.mint, 0, &copies);
    let answer = CapSqe {
        addr: Client::DATA,
        xfer_cap_count: 2,
        ..System::return_sqe(ENDPOINT, 3, call_id, 0)
    };
    assert_eq!(service.system.result(&mut service.mint, &answer), 0);
    service.system.enter(&guest, 0, 0);
    let cqe = guest.completion().expect("an answer");
    assert_eq!(cqe.cap_count, 2, "across sessions");
    let holds: Vec<_> = service
        .system
        .server
        .holds(guest.pid)
        .map(|(_, hold)| *hold)
        .collect();
    let arrived = |interface| *holds.iter().find(|h| h.interface_id == interface).unwrap();
    let copied = arrived(USER_SESSION_INTERFACE_ID);
    assert_eq!(copied.transfer_mode, TransferMode::Copy);
    assert_eq!(copied.transfer_scope, TransferScope::SameSession);
    let launches = arrived(RESTRICTED_LAUNCHER_INTERFACE_ID);
    assert_eq!(launches.transfer_mode, TransferMode::NonTransferable);
    // Its holder's own calls stay what they were: it is in session beta.
    service.ask(other, LOGOUT).expect("beta ends");
    entry.user_data = 2;
    let refused = service.system.result(&mut guest, &entry);
    assert_eq!(
        refused, CAP_ERR_APPLICATION_EXCEPTION,
        "alpha does not help"
    );
}

#[test]
fn a_callers_capability_is_had_while_the_call_is_served() {
    let mut service = Service::new();
    let session = service.open(b"alpha", NEVER);
    let mut guest = service.inhabitant(session);
    let mut entry = call(1, 0, 0);
    (entry.result_addr, entry.result_len) = (RESULT, 256);
    assert!(service.system.run(&mut guest, &entry).is_none());
    let (call_id, _) = service.receive();
    let ask = |service: &mut Service, call_id, cap, interface| {
        let params = caller_capability_params(call_id, cap, interface);
        service.mint(method::CALLER_CAPABILITY, &params)
    };
    let facet = ask(&mut service, call_id, 0, ENDPOINT_INTERFACE_ID);
    assert_eq!(facet.expect("its facet").1, ENDPOINT_INTERFACE_ID);
    let refused = Err(Refused::InvalidArgument);
    for (call_id, cap, interface) in [
        (call_id, 0, TIMER_INTERFACE_ID),
        (call_id, 1, ENDPOINT_INTERFACE_ID),
        (call_id, u32::MAX, ENDPOINT_INTERFACE_ID),
        (call_id + 1, 0, ENDPOINT_INTERFACE_ID),
        (0, 0, ENDPOINT_INTERFACE_ID),
    ] {
        assert_eq!(ask(&mut service, call_id, cap, interface), refused);
    }
    // Another holder of a mint cannot name this call.
    let mint = Grant::kernel("mint", KernelCapSource::SessionManager);
    let mut stranger = service.system.spawn(&[mint]);
    let params = caller_capability_params(call_id, 0, ENDPOINT_INTERFACE_ID);
    let target = (0, method::CALLER_CAPABILITY);
    let foreign = invoke(&mut service.system, &mut stranger, target, &params);
    assert_eq!(foreign.map(drop), Err(Refused::InvalidArgument));
    let answer = System::return_sqe(ENDPOINT, 3, call_id, 0);
    assert_eq!(service.system.result(&mut service.mint, &answer), 0);
    let late = ask(&mut service, call_id, 0, ENDPOINT_INTERFACE_ID);
    assert_eq!(late, refused, "the call was answered");
    // A call whose maker is gone.
    service.system.enter(&guest, 0, 0);
    guest.completions();
    assert!(service.system.run(&mut guest, &entry).is_none());
    let (call_id, _) = service.receive();
    service.system.kill(guest);
    let late = ask(&mut service, call_id, 0, ENDPOINT_INTERFACE_ID);
    assert_eq!(late, refused, "the caller is gone");
}

#[test]
fn only_copyable_capabilities_of_a_caller_can_be_had() {
    let mut service = Service::new();
    let session = service.open(b"alpha", NEVER);
    let facet = facet_params(ENDPOINT, ENDPOINT_INTERFACE_ID, 0, 0);
    let facet = service.mint(method::FACET, &facet).unwrap();
    let wanted = [("service", Err(facet)), ("memory", Ok(Wire::VirtualMemory))];
    let params = spawn_in_params(session, "prog", &wanted);
    service.mint(method::SPAWN, &params).expect("it starts");
    let mut guest = service.system.machine.programs.launched.pop().unwrap();
    let mut entry = call(1, 0, 0);
    (entry.result_addr, entry.result_len) = (RESULT, 256);
    assert!(service.system.run(&mut guest, &entry).is_none());
    let (call_id, _) = service.receive();
    let memory = capos_config::VIRTUAL_MEMORY_INTERFACE_ID;
    let params = caller_capability_params(call_id, 1, memory);
    let had = service.mint(method::CALLER_CAPABILITY, &params);
    assert_eq!(had, Err(Refused::Failed));
}

#[test]
fn an_endpoint_outlives_one_of_its_owners() {
    let mut system = System::new();
    system.machine.programs.names = vec!["prog".into()];
    let mut init = system.spawn(&[Grant::kernel("spawner", KernelCapSource::ProcessSpawner)]);
    let made = invoke(&mut system, &mut init, (0, method::CREATE_ENDPOINT), &[]);
    let endpoint = made.expect("an endpoint").1[0];
    let start = |system: &mut System, init: &mut Client| {
        let params = spawn_params("prog", &[("own", Err(endpoint))]);
        invoke(system, init, (0, 0), &params).expect("it starts");
        system.machine.programs.launched.pop().unwrap()
    };
    let mut first = start(&mut system, &mut init);
    let mut user = system.spawn(&[Grant::client("service", init.pid, cap(endpoint.0))]);
    let mut entry = call(1, 0, 0);
    (entry.result_addr, entry.result_len) = (RESULT, 256);
    assert!(system.run(&mut user, &entry).is_none());
    assert!(system.run(&mut first, &System::recv_sqe(0, 1)).is_some());
    entry.user_data = 2;
    assert!(system.run(&mut user, &entry).is_none());
    system.kill(first);
    let answers = user.completions();
    assert_eq!(answers.len(), 1, "the call being served is answered");
    assert_eq!(answers[0].user_data, 1);
    assert_eq!(answers[0].result, CAP_ERR_APPLICATION_EXCEPTION);
    let mut second = start(&mut system, &mut init);
    let taken = system
        .run(&mut second, &System::recv_sqe(0, 1))
        .expect("the other waits");
    let answer = System::return_sqe(0, 2, taken.call_id, 0);
    assert_eq!(system.result(&mut second, &answer), 0);
    system.enter(&user, 0, 0);
    assert_eq!(user.completions().len(), 1, "and is served by the next");
    // One that drops its side serves no more, although the endpoint is there.
    entry.user_data = 3;
    assert!(system.run(&mut user, &entry).is_none());
    assert!(system.run(&mut second, &System::recv_sqe(0, 3)).is_some());
    assert_eq!(system.result(&mut second, &System::release_sqe(0, 4)), 0);
    assert_eq!(user.completions().len(), 1, "answered by the release");
    entry.user_data = 4;
    assert!(
        system.run(&mut user, &entry).is_none(),
        "it waits for an owner"
    );
    assert_eq!(
        system.result(&mut init, &System::release_sqe(endpoint.0, 5)),
        0
    );
    assert_eq!(user.completions().len(), 1, "nobody is left to serve it");
    system.kill(user);
    system.kill(second);
    system.kill(init);
    assert!(system.server.is_idle());
}

fn cap(raw: u32) -> ring_server_core::CapId {
    ring_server_core::CapId::from_raw(raw)
}

#[test]
fn endpoints_for_others_are_charged_to_their_maker() {
    let mut system = System::new();
    let limits = Limits {
        endpoints: 2,
        ..Limits::CEILING
    };
    let spawner = Grant::kernel("spawner", KernelCapSource::ProcessSpawner);
    let mut maker = system.spawn_limited(&[spawner], limits);
    let create = |system: &mut System, maker: &mut Client| {
        invoke(system, maker, (0, method::CREATE_ENDPOINT), &[])
    };
    let first = create(&mut system, &mut maker).expect("one").1[0].0;
    create(&mut system, &mut maker).expect("two");
    assert_eq!(create(&mut system, &mut maker), Err(Refused::Overloaded));
    assert_eq!(system.result(&mut maker, &System::release_sqe(first, 9)), 0);
    create(&mut system, &mut maker).expect("one was given back");
    system.kill(maker);
    assert!(system.server.is_idle());
}

#[test]
fn a_process_leaves_the_services_for_good() {
    let mut system = System::new();
    let mut service = system.spawn(&[Grant::kernel("control", KernelCapSource::ThreadControl)]);
    let leave = call(1, 0, method::LEAVE_SERVICE_CLASS);
    assert_eq!(system.result(&mut service, &leave), 0);
    let classes = &system.machine.programs.classes;
    assert_eq!(classes.last(), Some(&(service.pid, Class::Application)));
}
