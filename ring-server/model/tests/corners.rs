//! Stores that run out, parts that a machine leaves out, and objects that few
//! programs use.

mod support;

use capnp::message::Builder;
use capnp::serialize::{read_message, write_message_to_words};
use capos_config::KernelCapSource;
use capos_config::capos_capnp::{
    CapGrantMode, ExceptionType, KernelCapSource as Wire, boot_package, console, process_spawner,
};
use capos_config::ring::*;
use ring_server_core::{
    AddressMap, BootSecret, CAPSET_PAGE_BYTES, CapId, CapSetError, CapSetPage, Capacity,
    CreateError, Embryo, Entry, Grant, Limits, Machine, Passing, Pid, PrepareError, ProcessSpec,
    Protection, ROOT_OBJECTS, Server, SessionInfo, ThreadRef, Tid, UnsupportedSource, WAIT_FOREVER,
};
use ring_server_model::{Client, Model, ModelRing, System, call, sqe};

const RESULT: u64 = Client::DATA + 0x8000;

fn system_with(capacity: Capacity) -> System {
    System {
        server: Server::with_capacity(&capacity, Some(BootSecret::new([1; 32]))),
        machine: Model::default(),
    }
}

fn call_with(system: &mut System, client: &Client, cap: u32, method: u16, params: &[u8]) -> CapSqe {
    system.poke(client, Client::DATA, params);
    CapSqe {
        addr: Client::DATA,
        len: params.len() as u32,
        result_addr: RESULT,
        result_len: 8192,
        ..call(1, cap, method)
    }
}

fn exception(system: &System, client: &Client) -> (ExceptionType, String) {
    support::decode_exception(&system.peek(client, RESULT, 512))
}

#[test]
fn the_boot_manifest_comes_in_pieces() {
    let mut system = System::new();
    let manifest: Vec<u8> = (0..10_000_u32).map(|n| (n * 7) as u8).collect();
    system.machine.manifest = manifest.clone();
    let mut client = system.spawn(&[Grant::kernel("boot", KernelCapSource::BootPackage)]);
    let boot = client.cap("boot");
    let size = call_with(&mut system, &client, boot, 0, &[]);
    let len = system.result(&mut client, &size) as usize;
    let bytes = system.peek(&client, RESULT, len);
    let message = read_message(&mut &bytes[..], capos_config::default_reader_options()).unwrap();
    let root: boot_package::manifest_size_results::Reader<'_> = message.get_root().unwrap();
    assert_eq!(root.get_size(), 10_000);
    let mut read = Vec::new();
    for (offset, wanted, expected) in [
        (0, 4096, 4096),
        (4096, u32::MAX, 4096),
        (8192, 4096, 1808),
        (10_000, 4096, 0),
        (u64::MAX, 1, 0),
        (5, 0, 0),
    ] {
        let mut message = Builder::new_default();
        let mut params: boot_package::read_manifest_params::Builder<'_> = message.init_root();
        params.set_offset(offset);
        params.set_max_bytes(wanted);
        let params = write_message_to_words(&message);
        let piece = call_with(&mut system, &client, boot, 1, &params);
        let len = system.result(&mut client, &piece);
        assert!(len > 0, "{len}");
        let bytes = system.peek(&client, RESULT, len as usize);
        let options = capos_config::default_reader_options();
        let message = read_message(&mut &bytes[..], options).unwrap();
        let root: boot_package::read_manifest_results::Reader<'_> = message.get_root().unwrap();
        let data = root.get_data().unwrap();
        assert_eq!(data.len(), expected, "at {offset}");
        read.extend_from_slice(data);
    }
    assert_eq!(read, manifest);
    let malformed = call_with(&mut system, &client, boot, 1, &[0xff; 8]);
    assert_eq!(
        system.result(&mut client, &malformed),
        CAP_ERR_APPLICATION_EXCEPTION
    );
    assert_eq!(
        exception(&system, &client).0,
        ExceptionType::InvalidArgument
    );
    let unknown = call_with(&mut system, &client, boot, 2, &[]);
    system.result(&mut client, &unknown);
    assert_eq!(exception(&system, &client).0, ExceptionType::Unimplemented);
}

/// A message in two segments, as a builder with a short first segment sends.
#[test]
fn messages_of_any_shape_are_read() {
    let mut system = System::new();
    let mut client = system.spawn(&[
        Grant::kernel("console", KernelCapSource::Console),
        Grant::kernel("timer", KernelCapSource::Timer),
    ]);
    let allocator = capnp::message::HeapAllocator::new()
        .first_segment_words(2)
        .allocation_strategy(capnp::message::AllocationStrategy::FixedSize);
    let mut message = Builder::new(allocator);
    let mut params: console::write_line_params::Builder<'_> = message.init_root();
    params.set_text("a line in a segment of its own");
    let params = write_message_to_words(&message);
    assert_ne!(params[..4], [0; 4], "more than one segment");
    for method in [0, 1] {
        let line = call_with(&mut system, &client, client.cap("console"), method, &params);
        assert_eq!(system.result(&mut client, &line), 0);
    }
    let shown = system.console();
    assert!(
        shown.ends_with("a line in a segment of its own\n"),
        "{shown:?}"
    );
    let allocator = capnp::message::HeapAllocator::new()
        .first_segment_words(1)
        .allocation_strategy(capnp::message::AllocationStrategy::FixedSize);
    let mut message = Builder::new(allocator);
    let mut params: capos_config::capos_capnp::timer::sleep_params::Builder<'_> =
        message.init_root();
    params.set_duration_ns(0);
    let params = write_message_to_words(&message);
    let sleep = call_with(&mut system, &client, client.cap("timer"), 1, &params);
    assert_eq!(system.result(&mut client, &sleep), 0, "nothing to wait for");
}

#[test]
fn a_park_space_has_no_methods() {
    let mut system = System::new();
    let mut client = system.spawn(&[Grant::kernel("park", KernelCapSource::ParkSpace)]);
    let any = call_with(&mut system, &client, client.cap("park"), 0, &[]);
    system.result(&mut client, &any);
    assert_eq!(exception(&system, &client).0, ExceptionType::Unimplemented);
}

/// A machine that can prepare a program and nothing else.
#[derive(Default)]
struct Bare {
    prepares: bool,
    model: Model,
}

impl Machine for Bare {
    type Ring = ModelRing;

    fn prepare(&mut self, program: &str) -> Result<Embryo<ModelRing>, PrepareError> {
        match program {
            "absent" => Err(PrepareError::NoSuchProgram),
            _ if !self.prepares => Err(PrepareError::NoMemory),
            _ => Ok(Embryo {
                ring: ModelRing::new(),
                space: AddressMap::new(0),
            }),
        }
    }

    fn now_ns(&mut self) -> u64 {
        0
    }

    fn console_write(&mut self, _: &[u8]) {}

    fn read(
        &mut self,
        pid: Pid,
        at: u64,
        out: &mut [u8],
    ) -> Result<(), ring_server_core::AccessFault> {
        self.model.read(pid, at, out)
    }

    fn write(
        &mut self,
        pid: Pid,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), ring_server_core::AccessFault> {
        self.model.write(pid, at, bytes)
    }

    fn resume(&mut self, thread: ThreadRef, rax: u64) {
        self.model.resume(thread, rax);
    }
}

fn spawn_params(program: &str, grants: &[(&str, Result<Wire, u32>, CapGrantMode)]) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: process_spawner::spawn_params::Builder<'_> = message.init_root();
    params.set_binary_name(program);
    let mut list = params.init_grants(grants.len() as u32);
    for (index, (name, source, mode)) in grants.iter().enumerate() {
        let mut grant = list.reborrow().get(index as u32);
        grant.set_name(name);
        grant.set_mode(*mode);
        match source {
            Ok(source) => grant.init_source().set_kernel(*source),
            Err(cap) => {
                grant.set_cap_id(*cap);
                grant.init_source().set_capability(());
            }
        }
    }
    write_message_to_words(&message)
}

#[test]
fn a_machine_may_leave_out_programs_and_reports() {
    let mut server = Server::<Bare>::with_boot_secret(BootSecret::new([2; 32]));
    let mut machine = Bare::default();
    let mut memory = ring_server_model::Memory::default();
    memory.map(Client::DATA, 0x10_000, Protection::READ_WRITE);
    let ring = ModelRing::new();
    let grants = [
        Grant::kernel("spawner", KernelCapSource::ProcessSpawner),
        Grant::kernel("boot", KernelCapSource::BootPackage),
        Grant::kernel("own", KernelCapSource::Endpoint),
    ];
    let mut capset = Box::new([0; CAPSET_PAGE_BYTES]);
    let spec = ProcessSpec::new(ring.clone(), memory.address_space()).grants(&grants);
    let pid = server.create_process(spec, &mut capset).unwrap();
    machine.model.memory.insert(pid, memory);
    let mut published = 0;
    let mut run = |server: &mut Server<Bare>, machine: &mut Bare, entry: CapSqe| {
        ring.write_sqe(published % 16, &entry);
        published += 1;
        ring_server_core::RingPage::store(&ring, ring_server_core::RingWord::SqTail, published);
        server.cap_enter(machine, pid, Tid::MAIN, 0, 0);
        server.check();
        ring.read_cqe((published - 1) % 32).result
    };
    for (prepares, program) in [(false, "absent"), (false, "any"), (true, "any")] {
        machine.prepares = prepares;
        let params = spawn_params(program, &[]);
        let memory = machine.model.memory.get_mut(&pid).unwrap();
        memory.write(Client::DATA, &params).unwrap();
        let entry = CapSqe {
            addr: Client::DATA,
            len: params.len() as u32,
            result_addr: RESULT,
            result_len: 512,
            ..call(1, 0, 0)
        };
        let result = run(&mut server, &mut machine, entry);
        assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION, "{program}");
    }
    // A grant that fails after the program was prepared: it is discarded.
    let params = spawn_params("any", &[("n", Err(77), CapGrantMode::Move)]);
    let memory = machine.model.memory.get_mut(&pid).unwrap();
    memory.write(Client::DATA, &params).unwrap();
    let entry = CapSqe {
        addr: Client::DATA,
        len: params.len() as u32,
        result_addr: RESULT,
        result_len: 512,
        ..call(2, 0, 0)
    };
    let result = run(&mut server, &mut machine, entry);
    assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION);
    let size = CapSqe {
        result_addr: RESULT,
        result_len: 64,
        ..call(3, 1, 0)
    };
    assert_eq!(
        run(&mut server, &mut machine, size),
        24,
        "an empty manifest"
    );
    assert_eq!(
        run(&mut server, &mut machine, sqe(0xee, 4)),
        CAP_ERR_INVALID_REQUEST,
        "refused without a report"
    );
    // A process that calls itself and waits is handed its own call.
    let recv = CapSqe {
        result_addr: RESULT,
        result_len: 64,
        ..System::recv_sqe(2, 5)
    };
    run(&mut server, &mut machine, recv);
    server.destroy_process(&mut machine, pid);
    server.check();
    assert!(server.is_idle());
}

#[test]
fn grants_fail_whole_when_a_store_is_full() {
    let endpoint = Grant::kernel("e", KernelCapSource::Endpoint);
    let timer = Grant::kernel("t", KernelCapSource::Timer);
    let full = Err(CreateError::ObjectsExhausted);
    for capacity in [
        Capacity {
            epochs: 1,
            ..Capacity::DEFAULT
        },
        Capacity {
            objects: ROOT_OBJECTS + 1,
            ..Capacity::DEFAULT
        },
        Capacity {
            endpoints: 1,
            ..Capacity::DEFAULT
        },
    ] {
        let mut system = system_with(capacity);
        let refused = system.try_spawn(&[endpoint, endpoint], Limits::CEILING, None);
        assert_eq!(refused.map(|_| ()), full, "{capacity:?}");
        assert!(system.server.is_idle(), "{capacity:?}");
        system.spawn(&[endpoint]);
    }
    let mut system = system_with(Capacity {
        objects: 3,
        ..Capacity::DEFAULT
    });
    let missing = Grant::kernel("s", KernelCapSource::ProcessSpawner);
    let refused = system.try_spawn(&[missing], Limits::CEILING, None);
    assert_eq!(refused.map(|_| ()), full, "a root that did not fit");
    // Facets: no cell below the owner's, then no object for facets.
    for capacity in [
        Capacity {
            epochs: 1,
            ..Capacity::DEFAULT
        },
        Capacity {
            objects: ROOT_OBJECTS + 1,
            ..Capacity::DEFAULT
        },
    ] {
        let mut system = system_with(capacity);
        let owner = system.spawn(&[endpoint]);
        let facet = Grant::client("f", owner.pid, owner.cap_id("e"));
        let refused = system.try_spawn(&[facet], Limits::CEILING, None);
        assert_eq!(refused.map(|_| ()), full, "{capacity:?}");
        assert_eq!(system.server.holds(owner.pid).count(), 1);
    }
    // A move whose cell does not fit goes back.
    let mut system = system_with(Capacity {
        epochs: 1,
        ..Capacity::DEFAULT
    });
    let mut owner = system.spawn(&[timer]);
    let taken = Grant::held("t", owner.pid, owner.cap_id("t"), Passing::Move);
    let refused = system.try_spawn(&[taken], Limits::CEILING, None);
    assert_eq!(refused.map(|_| ()), full);
    let release = System::release_sqe(owner.cap("t"), 1);
    assert_eq!(system.result(&mut owner, &release), 0, "not reserved");
    // Chains of grants from grants have a bound.
    let mut system = System::new();
    let mut last = system.spawn(&[timer]);
    let mut depth = 0;
    let refused = loop {
        let copy = Grant::held("t", last.pid, last.cap_id("t"), Passing::Copy);
        match system.try_spawn(&[copy], Limits::CEILING, None) {
            Ok(next) => last = next,
            Err(error) => break error,
        }
        depth += 1;
    };
    assert_eq!((depth, refused), (16, CreateError::ObjectsExhausted));
}

#[test]
fn grants_are_refused_for_what_they_name() {
    let mut system = System::new();
    let info = SessionInfo::new(b"other").unwrap();
    let other = system.server.open_session(info).unwrap();
    let owner = system.spawn(&[
        Grant::kernel("console", KernelCapSource::Console),
        Grant::kernel("park", KernelCapSource::ParkSpace),
    ]);
    let console = owner.cap_id("console");
    let pid = owner.pid;
    let mut refused = |grant: Grant<'_>, session| {
        let refused = system.try_spawn(&[grant], Limits::CEILING, session);
        refused.map(|_| ()).unwrap_err()
    };
    let copy = Grant::held("t", pid, console, Passing::Copy);
    assert_eq!(refused(copy, Some(other)), CreateError::CrossesSession);
    let nobody = Pid::from_raw(40);
    let gone = Grant::held("t", nobody, console, Passing::Copy);
    assert_eq!(refused(gone, None), CreateError::NoSuchHold);
    assert_eq!(
        refused(Grant::manager("m", nobody), None),
        CreateError::NoSuchHold
    );
    let park = Grant::held("p", pid, owner.cap_id("park"), Passing::Copy);
    assert_eq!(refused(park, None), CreateError::NotTransferable);
    let facet = Grant::client("f", pid, console);
    assert_eq!(refused(facet, None), CreateError::NotAnEndpoint);
    let long = "n".repeat(100);
    let named = Grant::held(&long, pid, console, Passing::Move);
    assert_eq!(
        refused(named, None),
        CreateError::CapSet(CapSetError::NameTooLong)
    );
    let source = KernelCapSource::NetworkManager;
    assert_eq!(
        refused(Grant::kernel("n", source), None),
        CreateError::Unsupported(UnsupportedSource(source))
    );
    let mut owner = owner;
    let release = System::release_sqe(console.raw(), 1);
    assert_eq!(system.result(&mut owner, &release), 0, "the move went back");
}

#[test]
fn capset_pages_fill_up() {
    let mut bytes = Box::new([0xff; CAPSET_PAGE_BYTES]);
    let mut page = CapSetPage::new(&mut bytes);
    assert!(page.is_empty());
    let id = CapId::from_raw(3);
    while page.push("name", id, 7).is_ok() {}
    assert_eq!(page.push("name", id, 7), Err(CapSetError::Full));
    assert_eq!(page.len(), capos_config::capset::CAPSET_MAX_ENTRIES);
}

#[test]
fn spawning_from_a_full_or_foreign_world_says_why() {
    let program = |system: &mut System| system.machine.programs.names.push("p".into());
    let spawner = Grant::kernel("spawner", KernelCapSource::ProcessSpawner);
    let endpoint = Grant::kernel("e", KernelCapSource::Endpoint);
    let told = |system: &mut System, parent: &mut Client, params: &[u8]| {
        let entry = call_with(system, parent, parent.cap("spawner"), 0, params);
        let held = system.server.holds(parent.pid).count();
        let result = system.result(parent, &entry);
        assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION);
        assert_eq!(system.server.holds(parent.pid).count(), held);
        exception(system, parent)
    };
    // One object or cell short at every point of a spawn.
    for objects in 6..9 {
        let mut system = system_with(Capacity {
            objects,
            ..Capacity::DEFAULT
        });
        program(&mut system);
        let mut parent = system.spawn(&[spawner]);
        let params = spawn_params("p", &[("own", Ok(Wire::Endpoint), CapGrantMode::Raw)]);
        let (kind, message) = told(&mut system, &mut parent, &params);
        assert_eq!(
            (kind, &message[..]),
            (ExceptionType::Overloaded, "objects exhausted")
        );
        system.kill(parent);
        assert!(system.server.is_idle(), "{objects} objects");
    }
    for epochs in 2..5 {
        let mut system = system_with(Capacity {
            epochs,
            ..Capacity::DEFAULT
        });
        program(&mut system);
        let mut parent = system.spawn(&[spawner]);
        let params = spawn_params("p", &[("own", Ok(Wire::Endpoint), CapGrantMode::Raw)]);
        let (kind, _) = told(&mut system, &mut parent, &params);
        assert_eq!(kind, ExceptionType::Overloaded, "{epochs} cells");
        system.kill(parent);
        assert!(system.server.is_idle(), "{epochs} cells");
    }
    // The session ended; no boot secret.
    let mut system = System::new();
    program(&mut system);
    let info = SessionInfo::new(b"s").unwrap();
    let session = system.server.open_session(info).unwrap();
    let mut parent = system.spawn_in(session, &[spawner, endpoint]);
    system.end_session(session);
    let (kind, message) = told(&mut system, &mut parent, &spawn_params("p", &[]));
    assert_eq!(
        (kind, &message[..]),
        (ExceptionType::Disconnected, "session is not live")
    );
    let mut system = System {
        server: Server::default(),
        machine: Model::default(),
    };
    program(&mut system);
    let mut parent = system.spawn(&[spawner]);
    let params = spawn_params("p", &[("own", Ok(Wire::Endpoint), CapGrantMode::Raw)]);
    let (_, message) = told(&mut system, &mut parent, &params);
    assert_eq!(message, "no boot secret");
}

#[test]
fn calls_fail_whole_when_a_store_is_full() {
    let tight = Capacity {
        calls: 1,
        pins: 1,
        params_kib: 4,
        recvs: 1,
        ..Capacity::DEFAULT
    };
    let mut system = system_with(tight);
    let owner_grants = [
        Grant::kernel("own", KernelCapSource::Endpoint),
        Grant::kernel("console", KernelCapSource::Console),
    ];
    let mut owner = system.spawn(&owner_grants);
    let facet = Grant::client("peer", owner.pid, owner.cap_id("own"));
    let mut client = system.spawn(&[facet, Grant::kernel("console", KernelCapSource::Console)]);
    let console = client.cap("console");
    let peer = client.cap("peer");
    system.put_descriptors(&client, 8, &[(console, 1), (console, 1)]);
    let mut with_two = call_with(&mut system, &client, peer, 0, &[0; 8]);
    with_two.xfer_cap_count = 2;
    assert_eq!(
        system.result(&mut client, &with_two),
        CAP_ERR_TRANSFER_ABORTED,
        "one pin is there"
    );
    let long = CapSqe {
        len: 5000,
        ..call_with(&mut system, &client, peer, 0, &[])
    };
    let long = CapSqe {
        addr: Client::DATA,
        ..long
    };
    system.result(&mut client, &long);
    assert_eq!(exception(&system, &client).1, "message storage exhausted");
    let first = call_with(&mut system, &client, peer, 0, &[0; 8]);
    assert!(system.run(&mut client, &first).is_none());
    let second = CapSqe {
        user_data: 2,
        ..first
    };
    system.result(&mut client, &second);
    assert_eq!(
        exception(&system, &client).1,
        "too many calls in the system"
    );
    let recv = System::recv_sqe(owner.cap("own"), 1);
    assert!(system.run(&mut owner, &recv).unwrap().result >= 56);
    assert!(
        system
            .run(
                &mut owner,
                &CapSqe {
                    user_data: 2,
                    ..recv
                }
            )
            .is_none()
    );
    let refused = system.result(
        &mut owner,
        &CapSqe {
            user_data: 3,
            ..recv
        },
    );
    assert_eq!(
        refused, CAP_ERR_APPLICATION_EXCEPTION,
        "one receive is there"
    );
    system.kill(client);
    system.kill(owner);
    assert!(system.server.is_idle());
}

#[test]
fn results_do_not_cross_sessions_and_stay_with_the_server() {
    let mut system = System::new();
    let info = SessionInfo::new(b"guest").unwrap();
    let guests = system.server.open_session(info).unwrap();
    let mut owner = system.spawn(&[
        Grant::kernel("own", KernelCapSource::Endpoint),
        Grant::kernel("console", KernelCapSource::Console),
    ]);
    let facet = Grant::client("peer", owner.pid, owner.cap_id("own"));
    let mut guest = system.spawn_in(guests, &[facet]);
    let ask = call_with(&mut system, &guest, guest.cap("peer"), 0, &[]);
    assert!(system.run(&mut guest, &ask).is_none());
    let recv = System::recv_sqe(owner.cap("own"), 1);
    let id = system.run(&mut owner, &recv).unwrap().call_id;
    system.put_descriptors(&owner, 0, &[(owner.cap("console"), 2)]);
    let ret = CapSqe {
        xfer_cap_count: 1,
        ..System::return_sqe(owner.cap("own"), 2, id, 0)
    };
    assert_eq!(
        system.result(&mut owner, &ret),
        CAP_ERR_TRANSFER_NOT_SUPPORTED
    );
    assert!(guest.completion().is_none(), "the call is still in flight");
    let plain = CapSqe {
        xfer_cap_count: 0,
        user_data: 3,
        ..ret
    };
    assert_eq!(system.result(&mut owner, &plain), 0);
    assert_eq!(guest.completion().unwrap().result, 0);
    system.kill(guest);
    system.end_session(guests);
    let again = system.server.open_session(info);
    assert_eq!(again, Some(guests), "the handle is free again");
}

#[test]
fn pending_moves_die_with_their_sender() {
    let mut system = System::new();
    let owner = system.spawn(&[Grant::kernel("own", KernelCapSource::Endpoint)]);
    let facet = Grant::client("peer", owner.pid, owner.cap_id("own"));
    let client = system.spawn(&[facet]);
    let peer = client.cap("peer");
    let mut client = client;
    // The facet moves through itself: the pin is its last reference.
    system.put_descriptors(&client, 0, &[(peer, 2)]);
    let entry = CapSqe {
        xfer_cap_count: 1,
        ..call_with(&mut system, &client, peer, 0, &[])
    };
    let entry = CapSqe {
        addr: Client::DATA,
        ..entry
    };
    assert!(system.run(&mut client, &entry).is_none());
    system.kill(client);
    system.kill(owner);
    assert!(system.server.is_idle());
}

#[test]
fn a_server_can_be_printed_with_all_it_holds() {
    let mut system = System::new();
    let mut client = system.spawn(&[Grant::kernel("timer", KernelCapSource::Timer)]);
    let params = support::sleep_params(1000);
    let sleep = call_with(&mut system, &client, client.cap("timer"), 1, &params);
    assert!(system.run(&mut client, &sleep).is_none());
    for user_data in 0..32 {
        client.submit_unchecked(&sqe(CAP_OP_NOP, user_data));
        system.enter(&client, 0, 0);
    }
    system.pass(2000);
    let text = format!("{:?}", system.server);
    assert!(
        text.contains("user_data: 1"),
        "the deferred completion is there"
    );
    assert!(text.contains("BootSecret(..)"), "the secret is not");
    assert!(!text.contains("[7, 7"), "nor its bytes");
}

#[test]
fn threads_are_bounded_and_their_waits_end_with_them() {
    let mut system = System::new();
    let client = system.spawn(&[]);
    let mut threads = Vec::new();
    while let Some(tid) = system.server.create_thread(client.pid) {
        threads.push(tid);
    }
    assert_eq!(threads.len(), ring_server_core::THREADS_MAX - 1);
    let last = *threads.last().unwrap();
    let entry = system.enter_as(&client, last, 1, WAIT_FOREVER);
    assert_eq!(entry, Entry::Block);
    for _ in 0..2 {
        let System { server, machine } = &mut system;
        let process_over = server.exit_thread(machine, client.pid, last, 0);
        assert_eq!(process_over, None, "others are left");
        server.check();
        assert_eq!(machine.ended.len(), 1, "a thread ends once");
    }
    assert_eq!(system.server.create_thread(Pid::from_raw(50)), None);
    let entry = system.enter(&client, 1, WAIT_FOREVER);
    assert_eq!(entry, Entry::Block, "the place of the waiter is free");
    let system = &mut system;
    let nobody = system.server.exit(&mut system.machine, client.pid, last, 0);
    assert_eq!(nobody, None, "a thread that ended exits nothing");
}
