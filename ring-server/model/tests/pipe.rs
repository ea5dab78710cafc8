//! Pipes: what is written comes out once and in order; who waits, for what,
//! and what ends it; what a pipe costs and when that is given back.

mod support;

use std::collections::VecDeque;

use capnp::message::Builder;
use capnp::serialize::write_message_to_words;
use capos_config::capos_capnp::{ExceptionType, pipe, process_spawner};
use capos_config::ring::*;
use capos_config::{KernelCapSource, PIPE_INTERFACE_ID};
use ring_server_core::{
    BootSecret, CapId, Capacity, Grant, Limits, PIPE_BYTES_MAX, PIPE_KIB_MAX, Passing, Server,
};
use ring_server_model::{Client, System, call, cap_records};

const READ: u16 = 0;
const WRITE: u16 = 1;
const CLOSE: u16 = 2;
const IS_CLOSED: u16 = 3;
const CREATE_PIPE: u16 = 1;
const SPAWNER: u32 = 0;
/// Where params of a read and of a write lie, and their results.
const READ_AT: u64 = Client::DATA;
const WRITE_AT: u64 = Client::DATA + 0x1_0000;
const RESULT: u64 = Client::DATA + 0x3_0000;

fn create_params(bytes: u32) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: process_spawner::create_pipe_params::Builder<'_> = message.init_root();
    params.set_buffer_bytes(bytes);
    write_message_to_words(&message)
}

fn read_params(max_len: u32) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: pipe::read_params::Builder<'_> = message.init_root();
    params.set_max_len(max_len);
    write_message_to_words(&message)
}

fn write_params(data: &[u8]) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: pipe::write_params::Builder<'_> = message.init_root();
    params.set_data(data);
    write_message_to_words(&message)
}

fn parent(system: &mut System) -> Client {
    system.spawn(&[Grant::kernel("spawner", KernelCapSource::ProcessSpawner)])
}

/// Submits `entry` with `params` at `at`.
fn request(
    system: &mut System,
    client: &mut Client,
    (at, params): (u64, &[u8]),
    entry: CapSqe,
) -> Option<CapCqe> {
    system.poke(client, at, params);
    let entry = CapSqe {
        addr: at,
        len: params.len() as u32,
        ..entry
    };
    system.run(client, &entry)
}

fn with_result(entry: CapSqe) -> CapSqe {
    CapSqe {
        result_addr: RESULT,
        result_len: 8192,
        ..entry
    }
}

fn create(system: &mut System, client: &mut Client, bytes: u32) -> CapCqe {
    let entry = with_result(call(7, SPAWNER, CREATE_PIPE));
    request(system, client, (READ_AT, &create_params(bytes)), entry).expect("at once")
}

/// Reading and writing end.
fn ends(system: &mut System, client: &mut Client, bytes: u32) -> (u32, u32) {
    let cqe = create(system, client, bytes);
    assert!(cqe.result > 0, "created: {}", cqe.result);
    assert_eq!(
        (cqe.flags, cqe.cap_count),
        (CAP_CQE_TRANSFER_RESULT_CAPS, 2)
    );
    let bytes = system.peek(client, RESULT, 8192);
    let message =
        capnp::serialize::read_message(&mut &bytes[..], capos_config::default_reader_options())
            .expect("a result");
    let root: process_spawner::create_pipe_results::Reader<'_> = message.get_root().unwrap();
    let at = cqe.result as usize;
    let records = cap_records(&bytes[at..at + 32]);
    assert!(records.iter().all(|record| record.1 == PIPE_INTERFACE_ID));
    let (read, write) = (root.get_read_index(), root.get_write_index());
    assert_ne!(read, write);
    (records[usize::from(read)].0, records[usize::from(write)].0)
}

fn read(system: &mut System, client: &mut Client, cap: u32, max_len: u32) -> Option<CapCqe> {
    let entry = with_result(call(100, cap, READ));
    request(system, client, (READ_AT, &read_params(max_len)), entry)
}

fn write(system: &mut System, client: &mut Client, cap: u32, data: &[u8]) -> Option<CapCqe> {
    let entry = CapSqe {
        result_addr: RESULT + 0x4000,
        result_len: 64,
        ..call(200, cap, WRITE)
    };
    request(system, client, (WRITE_AT, &write_params(data)), entry)
}

fn simple(system: &mut System, client: &mut Client, cap: u32, method: u16) -> CapCqe {
    let entry = with_result(call(300, cap, method));
    system.run(client, &entry).expect("at once")
}

/// What a read that completed brought.
fn got(system: &System, client: &Client, cqe: Option<CapCqe>) -> (Vec<u8>, bool) {
    let cqe = cqe.expect("completed");
    assert!(cqe.result > 0, "read: {}", cqe.result);
    let bytes = system.peek(client, RESULT, cqe.result as usize);
    let message =
        capnp::serialize::read_message(&mut &bytes[..], capos_config::default_reader_options())
            .expect("a result");
    let root: pipe::read_results::Reader<'_> = message.get_root().unwrap();
    (root.get_data().unwrap().to_vec(), root.get_eof())
}

/// How many bytes a write that completed brought in.
fn put(system: &System, client: &Client, cqe: Option<CapCqe>) -> u32 {
    let cqe = cqe.expect("completed");
    assert!(cqe.result > 0, "write: {}", cqe.result);
    let bytes = system.peek(client, RESULT + 0x4000, cqe.result as usize);
    let message =
        capnp::serialize::read_message(&mut &bytes[..], capos_config::default_reader_options())
            .expect("a result");
    let root: pipe::write_results::Reader<'_> = message.get_root().unwrap();
    root.get_bytes_written()
}

fn exception(system: &System, client: &Client, cqe: &CapCqe, at: u64) -> ExceptionType {
    assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);
    support::decode_exception(&system.peek(client, at, 192)).0
}

fn closed(system: &mut System, client: &mut Client, cap: u32) -> bool {
    let cqe = simple(system, client, cap, IS_CLOSED);
    assert_eq!(cqe.result, 24);
    let bytes = system.peek(client, RESULT, 24);
    let message =
        capnp::serialize::read_message(&mut &bytes[..], capos_config::default_reader_options())
            .expect("a result");
    let root: pipe::is_closed_results::Reader<'_> = message.get_root().unwrap();
    root.get_closed()
}

fn release(system: &mut System, client: &mut Client, cap: u32) {
    assert_eq!(system.result(client, &System::release_sqe(cap, 900)), 0);
}

#[test]
fn bytes_come_out_in_order_across_every_wrap() {
    let mut system = System::new();
    let mut client = parent(&mut system);
    let (reader, writer) = ends(&mut system, &mut client, 1500);
    let (mut model, mut sent, mut seed) = (VecDeque::new(), 0_u32, 17_usize);
    for step in 0..2000 {
        seed = seed.wrapping_mul(25_214_903_917).wrapping_add(11) & 0xffff_ffff;
        let size = 1 + (seed >> 7) % 700;
        if step % 2 == 0 && model.len() < 1500 {
            let data: Vec<u8> = (0..size).map(|n| (sent + n as u32) as u8).collect();
            let cqe = write(&mut system, &mut client, writer, &data);
            let accepted = put(&system, &client, cqe) as usize;
            assert_eq!(accepted, size.min(1500 - model.len()), "what fits");
            model.extend(&data[..accepted]);
            sent += accepted as u32;
        } else if !model.is_empty() {
            let cqe = read(&mut system, &mut client, reader, size as u32);
            let (data, eof) = got(&system, &client, cqe);
            assert_eq!(data.len(), size.min(model.len()));
            assert!(!eof && data.iter().all(|&byte| model.pop_front() == Some(byte)));
        }
    }
    system.kill(client);
    assert!(system.server.is_idle());
}

#[test]
fn a_read_waits_for_the_first_byte_and_a_write_for_the_first_room() {
    let mut system = System::new();
    let mut client = parent(&mut system);
    let (reader, writer) = ends(&mut system, &mut client, 8);
    assert!(read(&mut system, &mut client, reader, 100).is_none());
    let cqe = write(&mut system, &mut client, writer, b"hello");
    assert_eq!(cqe.map(|cqe| cqe.user_data), Some(100), "the reader first");
    assert_eq!(got(&system, &client, cqe), (b"hello".to_vec(), false));
    let cqe = client.completion();
    assert_eq!(put(&system, &client, cqe), 5);
    let cqe = write(&mut system, &mut client, writer, b"12345678");
    assert_eq!(put(&system, &client, cqe), 8);
    assert!(write(&mut system, &mut client, writer, b"abcdefghij").is_none());
    let cqe = read(&mut system, &mut client, reader, 3);
    assert_eq!(put(&system, &client, cqe), 3, "the writer goes on");
    let cqe = client.completion();
    assert_eq!(got(&system, &client, cqe), (b"123".to_vec(), false));
    let cqe = read(&mut system, &mut client, reader, 100);
    assert_eq!(got(&system, &client, cqe), (b"45678abc".to_vec(), false));
    system.kill(client);
    assert!(system.server.is_idle());
}

#[test]
fn closing_ends_what_waits_on_both_sides() {
    for by_release in [false, true] {
        let mut system = System::new();
        let mut client = parent(&mut system);
        let (reader, writer) = ends(&mut system, &mut client, 4);
        let cqe = write(&mut system, &mut client, writer, b"last");
        assert_eq!(put(&system, &client, cqe), 4);
        // The writing end goes: what is there is read, then the end is told.
        if by_release {
            release(&mut system, &mut client, writer);
        } else {
            assert!(!closed(&mut system, &mut client, writer));
            assert_eq!(simple(&mut system, &mut client, writer, CLOSE).result, 0);
            assert_eq!(simple(&mut system, &mut client, writer, CLOSE).result, 0);
            assert!(closed(&mut system, &mut client, writer));
            let cqe = write(&mut system, &mut client, writer, b"x").expect("at once");
            let kind = exception(&system, &client, &cqe, RESULT + 0x4000);
            assert_eq!(kind, ExceptionType::Disconnected);
        }
        assert!(!closed(&mut system, &mut client, reader), "one's own end");
        let cqe = read(&mut system, &mut client, reader, 3);
        assert_eq!(got(&system, &client, cqe), (b"las".to_vec(), false));
        let cqe = read(&mut system, &mut client, reader, 3);
        assert_eq!(got(&system, &client, cqe), (b"t".to_vec(), false));
        for _ in 0..2 {
            let cqe = read(&mut system, &mut client, reader, 3);
            assert_eq!(got(&system, &client, cqe), (Vec::new(), true));
        }
        // The same with a reader that waits, and with a writer that waits.
        let (reader, writer) = ends(&mut system, &mut client, 4);
        assert!(read(&mut system, &mut client, reader, 3).is_none());
        if by_release {
            release(&mut system, &mut client, writer);
        } else {
            simple(&mut system, &mut client, writer, CLOSE);
        }
        let cqes = client.completions();
        let cqe = cqes.into_iter().find(|cqe| cqe.user_data == 100);
        if by_release || cqe.is_some() {
            assert_eq!(got(&system, &client, cqe), (Vec::new(), true));
        }
        let (reader, writer) = ends(&mut system, &mut client, 2);
        write(&mut system, &mut client, writer, b"ab");
        assert!(write(&mut system, &mut client, writer, b"cd").is_none());
        if by_release {
            release(&mut system, &mut client, reader);
        } else {
            client.submit(&with_result(call(300, reader, CLOSE)));
            system.enter(&client, 0, 0);
        }
        let cqe = client.completions();
        let cqe = cqe.into_iter().find(|cqe| cqe.user_data == 200);
        assert!(
            cqe.is_some() || by_release,
            "the write that waited is answered"
        );
        let cqe = write(&mut system, &mut client, writer, b"ef");
        assert_eq!(put(&system, &client, cqe), 0, "nobody reads");
        system.kill(client);
        assert!(system.server.is_idle());
    }
}

#[test]
fn an_end_gives_authority_over_its_own_direction() {
    let mut system = System::new();
    let mut client = parent(&mut system);
    let (reader, writer) = ends(&mut system, &mut client, 64);
    let cqe = read(&mut system, &mut client, writer, 1).expect("at once");
    let kind = exception(&system, &client, &cqe, RESULT);
    assert_eq!(kind, ExceptionType::Failed);
    let cqe = write(&mut system, &mut client, reader, b"x").expect("at once");
    let kind = exception(&system, &client, &cqe, RESULT + 0x4000);
    assert_eq!(kind, ExceptionType::Failed);
    let cqe = simple(&mut system, &mut client, reader, 4);
    let kind = exception(&system, &client, &cqe, RESULT);
    assert_eq!(kind, ExceptionType::Unimplemented);
    // One reader and one writer at a time.
    assert!(read(&mut system, &mut client, reader, 1).is_none());
    let cqe = read(&mut system, &mut client, reader, 1).expect("at once");
    let kind = exception(&system, &client, &cqe, RESULT);
    assert_eq!(kind, ExceptionType::Failed);
    system.kill(client);
    assert!(system.server.is_idle());
}

#[test]
fn ends_cross_to_children_and_die_with_their_last_holder() {
    let mut system = System::new();
    let mut maker = parent(&mut system);
    let (reader, writer) = ends(&mut system, &mut maker, 1024);
    let pass = |name, cap, passing| Grant::held(name, maker.pid, CapId::from_raw(cap), passing);
    let shared = [
        pass("in", reader, Passing::Raw),
        pass("out", writer, Passing::Move),
    ];
    let copied = [pass("in", reader, Passing::Copy)];
    let refused = system.try_spawn(&copied, Limits::CEILING, None);
    assert!(refused.is_err(), "an end is not copied");
    let mut child = system.spawn(&shared);
    assert_eq!(child.interface("out"), PIPE_INTERFACE_ID);
    let gone = system.result(&mut maker, &call(1, writer, WRITE));
    assert_eq!(gone, CAP_ERR_INVOKE_FAILED, "the writing end moved");
    let out = child.cap("out");
    let cqe = write(&mut system, &mut child, out, b"from the child");
    assert_eq!(put(&system, &child, cqe), 14);
    let cqe = read(&mut system, &mut maker, reader, 64);
    assert_eq!(got(&system, &maker, cqe).0, b"from the child");
    assert!(read(&mut system, &mut maker, reader, 64).is_none());
    system.kill(child);
    let cqe = maker.completion();
    assert_eq!(got(&system, &maker, cqe), (Vec::new(), true));
    system.kill(maker);
    assert!(system.server.is_idle());
}

#[test]
fn a_reader_that_ends_while_it_waits_is_forgotten() {
    let mut system = System::new();
    let mut maker = parent(&mut system);
    let (reader, writer) = ends(&mut system, &mut maker, 64);
    let grant = [Grant::held(
        "in",
        maker.pid,
        CapId::from_raw(reader),
        Passing::Raw,
    )];
    let mut child = system.spawn(&grant);
    let end = child.cap("in");
    assert!(read(&mut system, &mut child, end, 5).is_none());
    system.kill(child);
    let cqe = write(&mut system, &mut maker, writer, b"kept");
    assert_eq!(put(&system, &maker, cqe), 4);
    let cqe = read(&mut system, &mut maker, reader, 64);
    assert_eq!(got(&system, &maker, cqe).0, b"kept");
    system.kill(maker);
    assert!(system.server.is_idle());
}

#[test]
fn buffers_are_bounded_and_charged_to_their_maker() {
    let mut system = System::new();
    let mut client = parent(&mut system);
    let none = create(&mut system, &mut client, 0);
    let kind = exception(&system, &client, &none, RESULT);
    assert_eq!(kind, ExceptionType::InvalidArgument);
    let (reader, writer) = ends(&mut system, &mut client, u32::MAX);
    let data = vec![7; 40_000];
    let cqe = write(&mut system, &mut client, writer, &data);
    assert_eq!(put(&system, &client, cqe), PIPE_BYTES_MAX, "clamped");
    let cqe = read(&mut system, &mut client, reader, u32::MAX);
    assert_eq!(got(&system, &client, cqe).0.len(), 8192 - 32, "what fits");
    release(&mut system, &mut client, reader);
    release(&mut system, &mut client, writer);
    for _ in 0..3 {
        let mut made = Vec::new();
        let refused = loop {
            let cqe = create(&mut system, &mut client, PIPE_BYTES_MAX);
            if cqe.result < 0 {
                break cqe;
            }
            let at = RESULT + cqe.result as u64;
            made.extend(cap_records(&system.peek(&client, at, 32)));
        };
        let kind = exception(&system, &client, &refused, RESULT);
        assert_eq!(kind, ExceptionType::Overloaded);
        assert_eq!(made.len() as u32 / 2, PIPE_KIB_MAX * 1024 / PIPE_BYTES_MAX);
        for (cap, _) in made {
            release(&mut system, &mut client, cap);
        }
    }
    system.kill(client);
    assert!(system.server.is_idle());
}

#[test]
fn a_pipe_that_cannot_be_given_leaves_nothing() {
    let small = Capacity {
        pipes: 2,
        pipe_kib: 3,
        objects: ring_server_core::ROOT_OBJECTS + 3,
        ..Capacity::DEFAULT
    };
    let mut system = System::new();
    system.server = Server::with_capacity(&small, Some(BootSecret::new([1; 32])));
    let mut client = system.spawn_limited(
        &[Grant::kernel("spawner", KernelCapSource::ProcessSpawner)],
        Limits {
            cap_slots: 4,
            ..Limits::CEILING
        },
    );
    let used = |system: &System, client: &Client| system.server.holds(client.pid).count();
    let cqe = create(&mut system, &mut client, 4096);
    let kind = exception(&system, &client, &cqe, RESULT);
    assert_eq!(
        kind,
        ExceptionType::Overloaded,
        "more blocks than there are"
    );
    let short = CapSqe {
        result_len: 55,
        ..with_result(call(8, SPAWNER, CREATE_PIPE))
    };
    let params = create_params(10);
    let cqe = request(&mut system, &mut client, (READ_AT, &params), short);
    assert!(cqe.expect("at once").result < 0, "no room for the records");
    assert_eq!(used(&system, &client), 1);
    let (reader, writer) = ends(&mut system, &mut client, 1025);
    let cqe = create(&mut system, &mut client, 10);
    let kind = exception(&system, &client, &cqe, RESULT);
    assert_eq!(kind, ExceptionType::Overloaded, "no slots for two ends");
    assert_eq!(used(&system, &client), 3);
    // Objects run out between the first end and the second.
    release(&mut system, &mut client, reader);
    release(&mut system, &mut client, writer);
    let mut others = Vec::new();
    while let Ok(other) = system.try_spawn(
        &[Grant::kernel("endpoint", KernelCapSource::Endpoint)],
        Limits::CEILING,
        None,
    ) {
        others.push(other);
        let cqe = create(&mut system, &mut client, 10);
        let made = if cqe.result > 0 {
            let at = RESULT + cqe.result as u64;
            cap_records(&system.peek(&client, at, 32))
        } else {
            Vec::new()
        };
        assert_eq!(used(&system, &client), 1 + made.len());
        for (cap, _) in made {
            release(&mut system, &mut client, cap);
        }
    }
    for other in others {
        system.kill(other);
    }
    ends(&mut system, &mut client, 1025);
    system.kill(client);
    assert!(system.server.is_idle());
}

#[test]
fn bad_buffers_lose_no_byte() {
    let mut system = System::new();
    let mut client = parent(&mut system);
    let (reader, writer) = ends(&mut system, &mut client, 64);
    let cqe = write(&mut system, &mut client, writer, b"precious");
    assert_eq!(put(&system, &client, cqe), 8);
    for len in [0, 16, 39] {
        let entry = CapSqe {
            result_len: len,
            ..with_result(call(5, reader, READ))
        };
        let params = read_params(8);
        let cqe = request(&mut system, &mut client, (READ_AT, &params), entry);
        assert!(cqe.expect("at once").result < 0, "{len} bytes are too few");
    }
    let entry = CapSqe {
        result_addr: Client::RODATA,
        ..with_result(call(5, reader, READ))
    };
    let params = read_params(8);
    let cqe = request(&mut system, &mut client, (READ_AT, &params), entry);
    assert_eq!(cqe.unwrap().result, CAP_ERR_INVALID_RESULT_BUFFER);
    let entry = CapSqe {
        result_len: 8,
        result_addr: RESULT,
        ..call(5, writer, WRITE)
    };
    let params = write_params(b"lost");
    let cqe = request(&mut system, &mut client, (READ_AT, &params), entry);
    assert_eq!(cqe.unwrap().result, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED);
    let cqe = read(&mut system, &mut client, reader, 64);
    assert_eq!(got(&system, &client, cqe).0, b"precious");
    system.kill(client);
    assert!(system.server.is_idle());
}
