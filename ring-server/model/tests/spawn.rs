//! Processes that start processes: requests, results, refusals, ends.

mod support;

use capnp::message::Builder;
use capnp::serialize::write_message_to_words;
use capos_config::capos_capnp::{
    CapGrantMode, ExceptionType, KernelCapSource as Wire, process_handle, process_spawner,
};
use capos_config::ring::*;
use capos_config::{KernelCapSource, PRESERVE_CLIENT_ENDPOINT_BADGE};
use ring_server_core::{
    Books, BootSecret, Capacity, EXIT_FAULT, EXIT_TERMINATED, Entry, Grant, Hold, HoldOrigin,
    Limits, PROCESS_SLOTS, SPAWNED_PROCESSES_MAX, Server, Tid, TransferMode, WAIT_FOREVER,
};
use ring_server_model::{Client, System, call, cap_records};

const SPAWN: u16 = 0;
const WAIT: u16 = 0;
const TERMINATE: u16 = 1;
const RESULT: u64 = Client::DATA + 0x8000;

/// Names to tell many grants apart.
const NAMES: [&str; 16] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p",
];

/// One requested grant.
#[derive(Clone, Copy)]
struct Request<'a> {
    name: &'a str,
    mode: CapGrantMode,
    /// A kernel source, or a capability with its interface.
    source: Result<Wire, (u32, u64)>,
    badge: u64,
}

fn kernel(name: &str, source: Wire) -> Request<'_> {
    Request {
        name,
        mode: CapGrantMode::Raw,
        source: Ok(source),
        badge: 0,
    }
}

fn held<'a>(name: &'a str, mode: CapGrantMode, cap: u32, interface: u64) -> Request<'a> {
    Request {
        name,
        mode,
        source: Err((cap, interface)),
        badge: 0,
    }
}

fn spawn_params(program: &str, requests: &[Request<'_>]) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: process_spawner::spawn_params::Builder<'_> = message.init_root();
    params.set_name("child");
    params.set_binary_name(program);
    let mut grants = params.init_grants(requests.len() as u32);
    for (index, request) in requests.iter().enumerate() {
        let mut grant = grants.reborrow().get(index as u32);
        grant.set_name(request.name);
        grant.set_mode(request.mode);
        grant.set_badge(request.badge);
        match request.source {
            Ok(source) => grant.init_source().set_kernel(source),
            Err((cap, interface)) => {
                grant.set_cap_id(cap);
                grant.set_interface_id(interface);
                grant.init_source().set_capability(());
            }
        }
    }
    write_message_to_words(&message)
}

/// A parent that may spawn, and its system.
struct Family {
    system: System,
    parent: Client,
    next: u64,
}

/// What a spawn gave: the child, its handle, its manager, facets.
struct Spawned {
    child: Client,
    handle: u32,
    manager: u32,
    facets: Vec<(u32, u64)>,
}

impl Family {
    fn new() -> Self {
        Self::limited(Limits::CEILING)
    }

    fn limited(limits: Limits) -> Self {
        let mut system = System::new();
        system.machine.programs.names = vec!["prog".into(), "bad".into()];
        let parent = system.spawn_limited(
            &[
                Grant::kernel("spawner", KernelCapSource::ProcessSpawner),
                Grant::kernel("console", KernelCapSource::Console),
                Grant::kernel("park", KernelCapSource::ParkSpace),
                Grant::kernel("endpoint", KernelCapSource::Endpoint),
            ],
            limits,
        );
        Self {
            system,
            parent,
            next: 1,
        }
    }

    fn entry(&mut self, params: &[u8], result_len: u32) -> CapSqe {
        self.system.poke(&self.parent, Client::DATA, params);
        self.next += 1;
        CapSqe {
            addr: Client::DATA,
            len: params.len() as u32,
            result_addr: RESULT,
            result_len,
            ..call(self.next, self.parent.cap("spawner"), SPAWN)
        }
    }

    fn request(&mut self, program: &str, requests: &[Request<'_>]) -> CapCqe {
        let entry = self.entry(&spawn_params(program, requests), 1024);
        let held = self.system.server.holds(self.parent.pid).count();
        let cqe = self.system.run(&mut self.parent, &entry).expect("at once");
        let moved = |request: &&Request<'_>| request.mode == CapGrantMode::Move;
        let lost = match cqe.result {
            1.. => requests.iter().filter(moved).count(),
            _ => 0,
        };
        let now = self.system.server.holds(self.parent.pid).count();
        let gained = usize::from(cqe.cap_count);
        assert_eq!(now + lost, held + gained, "what is held is told");
        cqe
    }

    fn spawn(&mut self, requests: &[Request<'_>]) -> Spawned {
        let cqe = self.request("prog", requests);
        assert!(cqe.result > 0, "spawned: {}", cqe.result);
        assert_eq!(cqe.flags, CAP_CQE_TRANSFER_RESULT_CAPS);
        let bytes = self.system.peek(&self.parent, RESULT, 1024);
        let message =
            capnp::serialize::read_message(&mut &bytes[..], capos_config::default_reader_options())
                .expect("a result message");
        let root: process_spawner::spawn_results::Reader<'_> = message.get_root().unwrap();
        let at = cqe.result as usize;
        let records = cap_records(&bytes[at..at + usize::from(cqe.cap_count) * 16]);
        let handle = records[usize::from(root.get_handle_index())];
        let manager = records[usize::from(root.get_capability_manager_index())];
        assert_eq!(handle.1, capos_config::PROCESS_HANDLE_INTERFACE_ID);
        assert_eq!(manager.1, capos_config::CAPABILITY_MANAGER_INTERFACE_ID);
        Spawned {
            child: self
                .system
                .machine
                .programs
                .launched
                .pop()
                .expect("it runs"),
            handle: handle.0,
            manager: manager.0,
            facets: records[2..].to_vec(),
        }
    }

    /// Kind and message of a refused spawn.
    fn refusal(&mut self, program: &str, requests: &[Request<'_>]) -> (ExceptionType, String) {
        let cqe = self.request(program, requests);
        assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);
        assert!(self.system.machine.programs.launched.is_empty());
        support::decode_exception(&self.system.peek(&self.parent, RESULT, 512))
    }

    fn handle_call(&mut self, handle: u32, method: u16, result_len: u32) -> Option<CapCqe> {
        self.next += 1;
        let entry = CapSqe {
            result_addr: RESULT,
            result_len,
            ..call(self.next, handle, method)
        };
        self.system.run(&mut self.parent, &entry)
    }

    fn exit_code(&self) -> i64 {
        let bytes = self.system.peek(&self.parent, RESULT, 64);
        let message =
            capnp::serialize::read_message(&mut &bytes[..], capos_config::default_reader_options())
                .expect("a result message");
        let root: process_handle::wait_results::Reader<'_> = message.get_root().unwrap();
        root.get_exit_code()
    }

    fn exit(&mut self, child: &Client, code: i64) {
        let system = &mut self.system;
        let told = system
            .server
            .exit(&mut system.machine, child.pid, Tid::MAIN, code);
        assert_eq!(told, Some(code));
        system.server.check();
    }
}

#[test]
fn a_child_starts_with_its_grants_and_its_parent_gets_handle_manager_and_facets() {
    let mut family = Family::new();
    let console = family.parent.cap("console");
    let endpoint = family.parent.cap("endpoint");
    let spawned = family.spawn(&[
        kernel("timer", Wire::Timer),
        kernel("park", Wire::ParkSpace),
        kernel("boot", Wire::BootPackage),
        kernel("spawner", Wire::ProcessSpawner),
        kernel("served", Wire::Endpoint),
        held(
            "stdout",
            CapGrantMode::Raw,
            console,
            capos_config::CONSOLE_INTERFACE_ID,
        ),
        Request {
            badge: 42,
            ..held("parent", CapGrantMode::ClientEndpoint, endpoint, 0x77)
        },
    ]);
    let child = &spawned.child;
    assert_eq!(
        child.interface("stdout"),
        capos_config::CONSOLE_INTERFACE_ID
    );
    assert_eq!(child.interface("parent"), 0x77, "the owner labels a facet");
    assert_eq!(spawned.facets.len(), 1, "one facet of the child's endpoint");
    let holds: Vec<_> = family.system.server.holds(child.pid).collect();
    assert!(holds.iter().any(|(_, hold)| hold.badge == 42));
    let facet = family
        .system
        .server
        .holds(family.parent.pid)
        .find(|(id, _)| id.raw() == spawned.facets[0].0);
    assert_eq!(facet.unwrap().1.origin, HoldOrigin::SpawnedEndpoint);
    assert_eq!(spawned.facets[0].1, capos_config::ENDPOINT_INTERFACE_ID);
}

#[test]
fn refused_spawns_leave_nothing() {
    let mut family = Family::new();
    let console = family.parent.cap("console");
    let park = family.parent.cap("park");
    let endpoint = family.parent.cap("endpoint");
    let console_id = capos_config::CONSOLE_INTERFACE_ID;
    let park_id = capos_config::PARK_SPACE_INTERFACE_ID;
    let many: Vec<_> = (0..200).map(|_| kernel("n", Wire::Timer)).collect();
    let long = "n".repeat(200);
    use CapGrantMode as Mode;
    use ExceptionType::{Failed, InvalidArgument, Overloaded, Unimplemented};
    let cases: Vec<(&str, Vec<Request<'_>>, ExceptionType, &str)> = vec![
        ("nowhere", vec![], InvalidArgument, "no such program"),
        ("", vec![], InvalidArgument, "no such program"),
        (&long, vec![], InvalidArgument, "no such program"),
        ("bad", vec![], InvalidArgument, "the program was refused"),
        ("prog", many, InvalidArgument, "too many grants"),
        (
            "prog",
            vec![kernel(&long, Wire::Timer)],
            InvalidArgument,
            "bad grant name",
        ),
        (
            "prog",
            vec![kernel("n", Wire::NetworkManager)],
            Unimplemented,
            "no such method",
        ),
        // Not the parent's, so not its to give.
        (
            "prog",
            vec![kernel("n", Wire::SchedulingContext)],
            Failed,
            "not yours to give: you hold none",
        ),
        (
            "prog",
            vec![kernel("n", Wire::SchedulingPolicy)],
            Failed,
            "not yours to give: you hold none",
        ),
        (
            "prog",
            vec![Request {
                mode: Mode::Move,
                ..kernel("n", Wire::Timer)
            }],
            InvalidArgument,
            "kernel sources are granted raw",
        ),
        (
            "prog",
            vec![held("n", Mode::Raw, console, park_id)],
            InvalidArgument,
            "a raw grant cannot relabel",
        ),
        (
            "prog",
            vec![Request {
                badge: 1,
                ..held("n", Mode::Raw, console, console_id)
            }],
            InvalidArgument,
            "a raw grant cannot relabel",
        ),
        (
            "prog",
            vec![held("n", Mode::Raw, 77, console_id)],
            InvalidArgument,
            "no such capability",
        ),
        (
            "prog",
            vec![held("n", Mode::Move, 77, console_id)],
            InvalidArgument,
            "no such capability",
        ),
        (
            "prog",
            vec![held("n", Mode::Move, park, park_id)],
            Failed,
            "capability cannot be passed on",
        ),
        (
            "prog",
            vec![held("n", Mode::ClientEndpoint, console, console_id)],
            InvalidArgument,
            "not an endpoint",
        ),
        (
            "prog",
            vec![held("n", Mode::ServiceObject, endpoint, 0)],
            InvalidArgument,
            "not a receiver cookie",
        ),
        (
            "prog",
            NAMES[..15]
                .iter()
                .map(|name| kernel(name, Wire::Endpoint))
                .collect(),
            Overloaded,
            "too many result capabilities",
        ),
        (
            "prog",
            vec![kernel("", Wire::Timer)],
            InvalidArgument,
            "bad grant name",
        ),
        (
            "prog",
            vec![kernel("n", Wire::Timer), kernel("n", Wire::Console)],
            InvalidArgument,
            "bad grant name",
        ),
        (
            "prog",
            vec![
                held("a", Mode::Move, console, console_id),
                held("b", Mode::Move, console, console_id),
            ],
            Failed,
            "capability cannot be passed on",
        ),
    ];
    for (program, requests, kind, message) in cases {
        let told = family.refusal(program, &requests);
        assert_eq!((told.0, &told.1[..]), (kind, message));
    }
    assert_eq!(
        family.system.server.holds(family.parent.pid).count(),
        4,
        "the parent has what it had"
    );
    family.spawn(&[held("n", Mode::Move, console, console_id)]);
    assert_eq!(
        family.system.server.holds(family.parent.pid).count(),
        4 - 1 + 2,
        "a move takes the source, a spawn gives handle and manager"
    );
}

#[test]
fn spawns_that_fail_late_are_undone() {
    let mut family = Family::new();
    let entry = family.entry(&spawn_params("prog", &[]), 24 + 16);
    let result = family.system.result(&mut family.parent, &entry);
    assert_eq!(
        result, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED,
        "no room for records, nor for saying so"
    );
    family.system.machine.programs.room = Some(0);
    let (kind, message) = family.refusal("prog", &[kernel("own", Wire::Endpoint)]);
    assert_eq!(kind, ExceptionType::Overloaded);
    assert_eq!(message, "out of memory");
    family.system.machine.programs.room = None;
    // Memory behind the result goes away: the child is taken back.
    let entry = family.entry(
        &spawn_params("prog", &[kernel("own", Wire::Endpoint)]),
        1024,
    );
    let memory = family.system.machine.memory.get_mut(&family.parent.pid);
    memory.unwrap().unmap(RESULT, 4096);
    let result = family.system.result(&mut family.parent, &entry);
    assert_eq!(result, CAP_ERR_INVALID_RESULT_BUFFER);
    assert_eq!(family.system.server.holds(family.parent.pid).count(), 4);
    let child = family.system.machine.programs.launched.pop().unwrap();
    assert!(!family.system.server.is_live(child.pid));
    let buried = &family.system.machine.programs.buried;
    assert_eq!(buried.last(), Some(&(child.pid, EXIT_FAULT)));
}

#[test]
fn a_parent_without_slots_or_a_full_system_is_overloaded() {
    let limits = Limits {
        cap_slots: 5,
        ..Limits::CEILING
    };
    let mut family = Family::limited(limits);
    let (kind, message) = family.refusal("prog", &[]);
    assert_eq!(kind, ExceptionType::Overloaded);
    assert_eq!(message, "capability slots exhausted");
    let mut family = Family::new();
    let mut children = Vec::new();
    for _ in 1..PROCESS_SLOTS {
        children.push(family.spawn(&[]));
    }
    let (kind, message) = family.refusal("prog", &[]);
    assert_eq!(kind, ExceptionType::Overloaded);
    assert_eq!(message, "too many processes");
    let gone = children.pop().unwrap();
    family.exit(&gone.child, 0);
    family.spawn(&[]);
}

#[test]
fn malformed_requests_are_invalid_arguments() {
    let mut family = Family::new();
    for params in [&b""[..], &[0xff; 8], &[0; 16], &[0, 0, 0, 0, 9, 0, 0, 0]] {
        let entry = family.entry(params, 1024);
        let result = family.system.result(&mut family.parent, &entry);
        assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION);
        let (kind, _) = support::decode_exception(&family.system.peek(&family.parent, RESULT, 512));
        assert_eq!(kind, ExceptionType::InvalidArgument);
    }
    for method in [2, 99, 0x8002] {
        let entry = CapSqe {
            method_id: method,
            ..family.entry(&[], 1024)
        };
        let result = family.system.result(&mut family.parent, &entry);
        assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION);
        let (kind, _) = support::decode_exception(&family.system.peek(&family.parent, RESULT, 512));
        assert_eq!(kind, ExceptionType::Unimplemented);
    }
}

#[test]
fn waiting_ends_with_the_exit_code_whenever_it_is_asked_for() {
    let mut family = Family::new();
    let spawned = family.spawn(&[]);
    assert!(family.handle_call(spawned.handle, WAIT, 64).is_none());
    let second = family.handle_call(spawned.handle, WAIT, 64).unwrap();
    assert_eq!(second.result, CAP_ERR_APPLICATION_EXCEPTION);
    let (kind, _) = support::decode_exception(&family.system.peek(&family.parent, RESULT, 512));
    assert_eq!(kind, ExceptionType::Failed, "one waiter at a time");
    family.exit(&spawned.child, -7);
    let cqe = family.parent.completion().expect("the wait is over");
    assert_eq!(cqe.result, 24);
    assert_eq!(family.exit_code(), -7);
    let again = family.handle_call(spawned.handle, WAIT, 64).unwrap();
    assert_eq!(again.result, 24, "the code stays");
    assert_eq!(family.exit_code(), -7);
    let small = family.handle_call(spawned.handle, WAIT, 16).unwrap();
    assert_eq!(small.result, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED);
    let unknown = family.handle_call(spawned.handle, 9, 512).unwrap();
    assert_eq!(unknown.result, CAP_ERR_APPLICATION_EXCEPTION);
    let buried = &family.system.machine.programs.buried;
    assert_eq!(buried[..], [(spawned.child.pid, -7)]);
}

#[test]
fn terminating_ends_a_process_once_and_tells_its_waiter() {
    let mut family = Family::new();
    let spawned = family.spawn(&[kernel("own", Wire::Endpoint)]);
    let facet = spawned.facets[0].0;
    assert!(family.handle_call(spawned.handle, WAIT, 64).is_none());
    // A blocked parent is resumed with what comes of it.
    let entry = family.system.enter(&family.parent, 2, WAIT_FOREVER);
    assert_eq!(entry, Entry::Block);
    family.next += 1;
    let terminate = call(family.next, spawned.handle, TERMINATE);
    family.parent.submit(&terminate);
    let entry = family.system.enter(&family.parent, 2, WAIT_FOREVER);
    assert_eq!(entry, Entry::Resume(2));
    let codes: Vec<i32> = family
        .parent
        .completions()
        .iter()
        .map(|c| c.result)
        .collect();
    assert_eq!(codes, [24, 0], "the wait, then the termination");
    assert_eq!(family.exit_code(), EXIT_TERMINATED);
    let again = family.handle_call(spawned.handle, TERMINATE, 0).unwrap();
    assert_eq!(again.result, 0, "nothing happens to the dead");
    family.next += 1;
    let entry = CapSqe {
        result_addr: RESULT,
        result_len: 512,
        ..call(family.next, facet, 0)
    };
    let result = family.system.result(&mut family.parent, &entry);
    assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION);
    let (kind, _) = support::decode_exception(&family.system.peek(&family.parent, RESULT, 512));
    assert_eq!(kind, ExceptionType::Disconnected);
}

#[test]
fn a_released_handle_answers_its_waiter_and_the_child_goes_on() {
    let mut family = Family::new();
    let spawned = family.spawn(&[]);
    assert!(family.handle_call(spawned.handle, WAIT, 512).is_none());
    family.next += 1;
    let release = System::release_sqe(spawned.handle, family.next);
    family.parent.submit(&release);
    family.system.enter(&family.parent, 0, 0);
    let mut codes: Vec<i32> = family
        .parent
        .completions()
        .iter()
        .map(|c| c.result)
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [CAP_ERR_APPLICATION_EXCEPTION, 0]);
    let (kind, message) =
        support::decode_exception(&family.system.peek(&family.parent, RESULT, 512));
    assert_eq!(kind, ExceptionType::Disconnected);
    assert_eq!(message, "handle released");
    assert!(family.system.server.is_live(spawned.child.pid));
    let release = System::release_sqe(spawned.manager, 900);
    assert_eq!(family.system.result(&mut family.parent, &release), 0);
    assert!(family.system.server.is_live(spawned.child.pid));
    family.exit(&spawned.child, 1);
}

#[test]
fn a_parent_that_ends_leaves_its_child_and_takes_its_wait_along() {
    let mut family = Family::new();
    let spawned = family.spawn(&[]);
    assert!(family.handle_call(spawned.handle, WAIT, 64).is_none());
    let Family {
        mut system, parent, ..
    } = family;
    system.kill(parent);
    assert!(system.server.is_live(spawned.child.pid));
    system.kill(spawned.child);
    assert!(system.server.is_idle());
}

/// H2: a wait is an outstanding operation until it ends.
#[test]
fn waits_are_charged_and_given_back() {
    let mut family = Family::limited(Limits {
        outstanding_calls: 1,
        ..Limits::CEILING
    });
    let first = family.spawn(&[]);
    let second = family.spawn(&[]);
    assert!(family.handle_call(first.handle, WAIT, 512).is_none());
    let refused = family.handle_call(second.handle, WAIT, 512).unwrap();
    assert_eq!(refused.result, CAP_ERR_APPLICATION_EXCEPTION);
    let (kind, _) = support::decode_exception(&family.system.peek(&family.parent, RESULT, 512));
    assert_eq!(kind, ExceptionType::Overloaded);
    family.exit(&first.child, 0);
    family.parent.completions();
    assert!(family.handle_call(second.handle, WAIT, 512).is_none());
}

#[test]
fn a_delegated_facet_keeps_its_badge_at_spawn() {
    let mut family = Family::new();
    let endpoint = family.parent.cap("endpoint");
    let id = capos_config::ENDPOINT_INTERFACE_ID;
    let middle = family.spawn(&[
        kernel("spawner", Wire::ProcessSpawner),
        Request {
            badge: 5,
            ..held("up", CapGrantMode::ClientEndpoint, endpoint, id)
        },
    ]);
    let up = middle.child.cap("up");
    let mut lower = Family {
        system: family.system,
        parent: middle.child,
        next: 1,
    };
    let relabel = Request {
        badge: 6,
        ..held("up", CapGrantMode::ClientEndpoint, up, id)
    };
    let (kind, message) = lower.refusal("prog", &[relabel]);
    assert_eq!(kind, ExceptionType::Failed);
    assert_eq!(message, "a delegated facet cannot be relabelled");
    let preserve = Request {
        badge: PRESERVE_CLIENT_ENDPOINT_BADGE,
        ..relabel
    };
    let leaf = lower.spawn(&[preserve]);
    let mut badges = lower
        .system
        .server
        .holds(leaf.child.pid)
        .map(|(_, hold)| hold.badge);
    assert_eq!(badges.next(), Some(5));
}

/// What a spawn gives its parent is the parent's to label, once.
#[test]
fn the_facet_of_a_childs_own_endpoint_is_labelled_by_its_parent() {
    let mut family = Family::new();
    let server = family.spawn(&[kernel("endpoint", Wire::Endpoint)]);
    let id = capos_config::ENDPOINT_INTERFACE_ID;
    let given = server.facets[0].0;
    let client = family.spawn(&[
        kernel("spawner", Wire::ProcessSpawner),
        Request {
            badge: 6,
            ..held("up", CapGrantMode::ClientEndpoint, given, 0xfeed)
        },
    ]);
    let holds = family.system.server.holds(client.child.pid);
    let labels: Vec<_> = holds
        .map(|(_, hold)| (hold.interface_id, hold.badge))
        .collect();
    assert!(labels.contains(&(0xfeed, 6)), "{labels:?}");
    let up = client.child.cap("up");
    let mut lower = Family {
        system: family.system,
        parent: client.child,
        next: 1,
    };
    for (badge, interface_id) in [(7, 0xfeed), (6, id)] {
        let again = Request {
            badge,
            ..held("up", CapGrantMode::ClientEndpoint, up, interface_id)
        };
        let (kind, message) = lower.refusal("prog", &[again]);
        assert_eq!(kind, ExceptionType::Failed);
        assert_eq!(message, "a delegated facet cannot be relabelled");
    }
}

#[test]
fn every_endpoint_made_for_a_child_is_counted_before_anything_is_made() {
    for source in [Wire::Endpoint, Wire::ChatEndpoint] {
        let mut family = Family::new();
        let requests = [kernel("a", source), kernel("b", source)];
        let entry = family.entry(&spawn_params("prog", &requests), 24 + 3 * 16);
        let beyond = RESULT + u64::from(entry.result_len);
        family.system.poke(&family.parent, beyond, &[0xa5; 16]);
        let result = family.system.result(&mut family.parent, &entry);
        assert_eq!(
            family.system.peek(&family.parent, beyond, 16),
            [0xa5; 16],
            "nothing is written beyond the result buffer"
        );
        assert!(result < 0, "four do not fit: {result}");
        let requests = NAMES[..15].iter().map(|name| kernel(name, source));
        let requests: Vec<_> = requests.collect();
        let (kind, _) = family.refusal("prog", &requests);
        assert_eq!(kind, ExceptionType::Overloaded, "17 records are too many");
    }
}

#[test]
fn a_wait_is_written_only_where_the_client_still_has_memory() {
    let mut family = Family::new();
    let spawned = family.spawn(&[]);
    assert!(family.handle_call(spawned.handle, WAIT, 64).is_none());
    let pid = family.parent.pid;
    let gone = RESULT..RESULT + 4096;
    let removed = family
        .system
        .server
        .change_address_space(pid, |space| space.remove(gone.start, gone.end, |_| ()));
    assert_eq!(removed, Some(Ok(())));
    let before = family.system.peek(&family.parent, RESULT, 64);
    family.exit(&spawned.child, -7);
    assert_eq!(
        family.parent.completion().expect("it completes").result,
        CAP_ERR_INVALID_RESULT_BUFFER
    );
    assert_eq!(
        family.system.peek(&family.parent, RESULT, 64),
        before,
        "the server's own map decides"
    );
}

const TOO_MANY_OF_ONE: &str = "too many processes of one program";

/// L1: whoever is started is on the account of whoever started it.
#[test]
fn a_spawned_program_meets_its_own_quota_of_processes_before_the_system_is_full() {
    let mut family = Family::new();
    let spawned = family.spawn(&[kernel("spawner", Wire::ProcessSpawner)]);
    let grandparent = core::mem::replace(&mut family.parent, spawned.child);
    let mut children = Vec::new();
    for _ in 0..SPAWNED_PROCESSES_MAX {
        children.push(family.spawn(&[]));
    }
    let (kind, message) = family.refusal("prog", &[]);
    assert_eq!(kind, ExceptionType::Overloaded);
    assert_eq!(message, TOO_MANY_OF_ONE);
    let breeder = core::mem::replace(&mut family.parent, grandparent);
    children.push(family.spawn(&[]));
    let grandparent = core::mem::replace(&mut family.parent, breeder);
    let gone = children.remove(0);
    family.exit(&gone.child, 0);
    family.spawn(&[]);
    let breeder = core::mem::replace(&mut family.parent, grandparent);
    family.system.kill(breeder);
    family.spawn(&[]);
    family.system.server.check();
}

/// L1: a program's children are on the account of those above it, and stay
/// there when it ends.
#[test]
fn nobody_escapes_the_account_it_was_started_on() {
    let mut family = Family::limited(Limits {
        processes: 3,
        ..Limits::CEILING
    });
    let spawned = family.spawn(&[kernel("spawner", Wire::ProcessSpawner)]);
    let grandparent = core::mem::replace(&mut family.parent, spawned.child);
    let first = family.spawn(&[]);
    family.spawn(&[]);
    let (_, message) = family.refusal("prog", &[]);
    assert_eq!(message, TOO_MANY_OF_ONE, "the grandparent's quota");
    let parent = core::mem::replace(&mut family.parent, grandparent);
    let (_, message) = family.refusal("prog", &[]);
    assert_eq!(message, TOO_MANY_OF_ONE, "grandchildren count");
    family.system.kill(parent);
    family.spawn(&[]);
    let (_, message) = family.refusal("prog", &[]);
    assert_eq!(message, TOO_MANY_OF_ONE, "orphans count");
    family.exit(&first.child, 0);
    family.spawn(&[]);
}

/// What the root task compares while programs come and go.
#[test]
fn the_books_tell_a_child_and_are_the_same_when_it_is_gone() {
    let mut family = Family::new();
    let before = family.system.server.books();
    assert_eq!(before.processes, 1);
    let spawned = family.spawn(&[kernel("served", Wire::Endpoint)]);
    let during = family.system.server.books();
    assert_eq!(during.processes, 2);
    assert_eq!(during.threads, before.threads + 1);
    // The child's endpoint; handle, manager and facet of the parent.
    assert_eq!(during.caps, before.caps + 4);
    assert_eq!(during.endpoints, before.endpoints + 1);
    assert_eq!(during.handles, before.handles + 1);
    family.exit(&spawned.child, 0);
    for cap in [spawned.handle, spawned.manager, spawned.facets[0].0] {
        let release = System::release_sqe(cap, 1000 + u64::from(cap));
        assert_eq!(family.system.result(&mut family.parent, &release), 0);
    }
    assert_eq!(family.system.server.books(), before);
}

/// What must be as before: the books, and what the parent holds under which
/// number.
fn accounts(family: &Family) -> (Books, Vec<(u32, Hold)>) {
    let server = &family.system.server;
    let holds = server.holds(family.parent.pid);
    let holds = holds.map(|(id, hold)| (id.raw(), *hold)).collect();
    let books = Books {
        // A refusal may have opened the window that limits diagnostics.
        deadlines: 0,
        ..server.books()
    };
    (books, holds)
}

#[test]
fn whichever_step_fails_everything_before_it_is_undone() {
    let mut family = Family::new();
    let console = family.parent.cap("console");
    let endpoint = family.parent.cap("endpoint");
    let requests = [
        kernel("served", Wire::Endpoint),
        kernel("timer", Wire::Timer),
        held(
            "moved",
            CapGrantMode::Move,
            console,
            capos_config::CONSOLE_INTERFACE_ID,
        ),
        held("facet", CapGrantMode::ClientEndpoint, endpoint, 0x55),
    ];
    let params = spawn_params("prog", &requests);
    let before = accounts(&family);
    let mut step = 0;
    let cqe = loop {
        let entry = family.entry(&params, 1024);
        family.system.machine.steps_left = Some(step);
        let cqe = family
            .system
            .run(&mut family.parent, &entry)
            .expect("at once");
        let spared = family.system.machine.steps_left.take().is_some();
        if spared {
            break cqe;
        }
        assert!(cqe.result < 0, "step {step} failed and was not noticed");
        assert_eq!(cqe.cap_count, 0);
        // What the failure interrupted may have started.
        family.system.machine.programs.launched.clear();
        assert_eq!(accounts(&family), before, "step {step}");
        step += 1;
    };
    assert!(
        step >= 5,
        "reading, loading, starting, writing twice: {step}"
    );
    assert!(cqe.result > 0, "and without a failure it works");
    let gone = family
        .system
        .result(&mut family.parent, &call(1, console, 0));
    assert_eq!(gone, CAP_ERR_INVOKE_FAILED, "what moved is gone");
    let child = family
        .system
        .machine
        .programs
        .launched
        .pop()
        .expect("it runs");
    family.exit(&child, 0);
}

#[test]
fn a_move_survives_a_parent_without_room_for_results() {
    // The stores are small enough for each to run out at some point.
    let mut refusals = 0;
    for objects in 7..20 {
        let mut family = Family::new();
        let capacity = Capacity {
            objects,
            epochs: 2 * objects,
            ..Capacity::DEFAULT
        };
        let secret = BootSecret::new([2; 32]);
        family.system.server = Server::with_capacity(&capacity, Some(secret));
        let grants = [
            Grant::kernel("spawner", KernelCapSource::ProcessSpawner),
            Grant::kernel("console", KernelCapSource::Console),
            Grant::kernel("endpoint", KernelCapSource::Endpoint),
        ];
        let parent = family.system.try_spawn(&grants, Limits::CEILING, None);
        let Ok(parent) = parent else { continue };
        family.parent = parent;
        let console = family.parent.cap("console");
        let requests = [
            held(
                "moved",
                CapGrantMode::Move,
                console,
                capos_config::CONSOLE_INTERFACE_ID,
            ),
            kernel("one", Wire::Endpoint),
            kernel("two", Wire::Endpoint),
        ];
        let before = accounts(&family);
        let cqe = family.request("prog", &requests);
        if cqe.result < 0 {
            assert_eq!(accounts(&family), before, "{objects} objects");
            refusals += 1;
        }
    }
    assert!(
        refusals >= 3,
        "objects ran out at several points: {refusals}"
    );
}

#[test]
fn a_service_object_is_a_facet_with_a_receiver_cookie() {
    let mut family = Family::new();
    let endpoint = family.parent.cap("endpoint");
    let cookie = capos_config::service_object::service_receiver_cookie(7, 3);
    let request = |badge| Request {
        badge,
        ..held("object", CapGrantMode::ServiceObject, endpoint, 0x1234)
    };
    let spawned = family.spawn(&[request(cookie)]);
    let child = &spawned.child;
    assert_eq!(child.interface("object"), 0x1234);
    let (_, hold) = family.system.server.holds(child.pid).next().expect("one");
    assert_eq!(hold.badge, cookie);
    assert_eq!(hold.transfer_mode, TransferMode::Copy);
    for forged in [0, 1, cookie ^ (1 << 60), 0x51c0 << 48, u64::MAX] {
        let (kind, message) = family.refusal("prog", &[request(forged)]);
        assert_eq!(kind, ExceptionType::InvalidArgument);
        assert_eq!(message, "not a receiver cookie", "{forged:#x}");
    }
}

/// L2: two generations on one account: when the first ends, what it was allowed
/// and did not use is all that the second may still start.
#[test]
fn an_account_does_not_grow_when_its_first_program_ends() {
    let mut family = Family::new();
    let breeder = family.spawn(&[kernel("spawner", Wire::ProcessSpawner)]);
    let grandparent = core::mem::replace(&mut family.parent, breeder.child);
    let heirs: Vec<_> = (0..3)
        .map(|_| family.spawn(&[kernel("spawner", Wire::ProcessSpawner)]))
        .collect();
    let breeder = core::mem::replace(&mut family.parent, grandparent);
    family.system.kill(breeder);
    let mut living = heirs.len();
    for heir in heirs {
        family.parent = heir.child;
        while family.request("prog", &[]).result > 0 {
            living += 1;
            assert!(living < PROCESS_SLOTS, "it goes on and on");
        }
    }
    assert_eq!(living as u32, SPAWNED_PROCESSES_MAX + 1);
}

/// Handles on programs that ended take slots of whoever keeps them, and
/// nothing from anybody else.
#[test]
fn hoarded_handles_stop_nobody_else() {
    let mut family = Family::new();
    for _ in 0..6 {
        let hoarder = family
            .system
            .spawn(&[Grant::kernel("spawner", KernelCapSource::ProcessSpawner)]);
        family.parent = hoarder;
        let mut kept = 1;
        loop {
            let cqe = family.request("prog", &[]);
            if cqe.result < 0 {
                let reason = family.system.peek(&family.parent, RESULT, 512);
                let (_, message) = support::decode_exception(&reason);
                assert_eq!(message, "capability slots exhausted", "after {kept}");
                break;
            }
            let child = family.system.machine.programs.launched.pop().unwrap();
            family.exit(&child, 0);
            let bytes = family.system.peek(&family.parent, RESULT, 1024);
            let at = cqe.result as usize;
            let manager = cap_records(&bytes[at..at + 32])[1].0;
            let release = System::release_sqe(manager, 1);
            assert_eq!(family.system.result(&mut family.parent, &release), 0);
            kept += 1;
        }
        assert_eq!(kept, Limits::CEILING.cap_slots - 1, "all but one slot");
    }
}
