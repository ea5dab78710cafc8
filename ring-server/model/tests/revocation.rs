//! What a revocation does to calls that wait already.

mod support;

use capnp::message::Builder;
use capnp::serialize::write_message_to_words;
use capos_config::KernelCapSource;
use capos_config::capos_capnp::{ExceptionType, pipe, process_spawner};
use capos_config::ring::*;
use ring_server_core::{CapId, Grant, Passing};
use ring_server_model::{Client, System, call, cap_records};
use sel4_capos_schema::method::{CREATE_NOTIFICATION, WAIT};

const REVOKE: u16 = 1;
const RESULT: u64 = Client::DATA + 0x3_0000;

fn with_result(entry: CapSqe) -> CapSqe {
    CapSqe {
        result_addr: RESULT,
        result_len: 1024,
        ..entry
    }
}

fn with_params(system: &mut System, client: &Client, params: &[u8], entry: CapSqe) -> CapSqe {
    system.poke(client, Client::DATA, params);
    CapSqe {
        addr: Client::DATA,
        len: params.len() as u32,
        ..entry
    }
}

/// Revokes what `of` holds as `cap`, through a manager of its own.
fn revoke(system: &mut System, of: &Client, cap: u32) {
    let mut judge = system.spawn(&[Grant::manager("manager", of.pid)]);
    let manager = judge.cap("manager");
    let entry = with_result(call(1, manager, REVOKE));
    let entry = with_params(system, &judge, &support::revoke_params(cap), entry);
    assert!(system.result(&mut judge, &entry) > 0, "revoked");
    system.kill(judge);
}

fn disconnected(system: &System, client: &mut Client) {
    let cqe = client.completion().expect("answered");
    assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);
    let (kind, _) = support::decode_exception(&system.peek(client, RESULT, 192));
    assert_eq!(kind, ExceptionType::Disconnected);
    assert!(client.completion().is_none(), "once");
}

fn caller_of(system: &mut System, owner: &Client) -> Client {
    system.spawn(&[Grant::client("service", owner.pid, owner.cap_id("own"))])
}

fn start_call(system: &mut System, caller: &mut Client) {
    let entry = with_result(call(9, caller.cap("service"), 0));
    assert!(system.run(caller, &entry).is_none(), "it waits");
}

#[test]
fn an_owner_that_loses_its_endpoint_leaves_nobody_waiting() {
    let mut system = System::new();
    let mut owner = system.spawn(&[Grant::kernel("own", KernelCapSource::Endpoint)]);
    let (mut served, mut queued) = (
        caller_of(&mut system, &owner),
        caller_of(&mut system, &owner),
    );
    let own = owner.cap("own");
    start_call(&mut system, &mut served);
    let recv = System::recv_sqe(own, 3);
    let cqe = system.run(&mut owner, &recv).expect("a call is there");
    let message = system.message(&owner, &recv, &cqe);
    start_call(&mut system, &mut queued);
    revoke(&mut system, &owner, own);
    disconnected(&system, &mut served);
    disconnected(&system, &mut queued);
    let answer = System::return_sqe(own, 4, message.call_id, 0);
    assert_eq!(system.result(&mut owner, &answer), CAP_ERR_INVOKE_FAILED);
    // What is revoked can still be given back, and then the endpoint goes.
    assert_eq!(system.result(&mut owner, &System::release_sqe(own, 5)), 0);
    for client in [owner, served, queued] {
        system.kill(client);
    }
    assert!(system.server.is_idle());
}

#[test]
fn a_receive_ends_with_the_authority_to_receive() {
    let mut system = System::new();
    let mut owner = system.spawn(&[Grant::kernel("own", KernelCapSource::Endpoint)]);
    let own = owner.cap("own");
    assert!(system.run(&mut owner, &System::recv_sqe(own, 3)).is_none());
    revoke(&mut system, &owner, own);
    let cqe = owner.completion().expect("answered");
    assert_eq!((cqe.user_data, cqe.result), (3, CAP_ERR_INVOKE_FAILED));
    let mut caller = caller_of_revoked(&mut system, &owner);
    assert!(caller.completion().is_none());
    system.kill(caller);
    system.kill(owner);
    assert!(system.server.is_idle());
}

/// A facet of a revoked owner cannot be had; the process exists without.
fn caller_of_revoked(system: &mut System, owner: &Client) -> Client {
    let grant = Grant::client("service", owner.pid, owner.cap_id("own"));
    let refused = system.try_spawn(&[grant], ring_server_core::Limits::CEILING, None);
    assert!(refused.is_err(), "no facet of what was revoked");
    system.spawn(&[])
}

#[test]
fn a_second_owner_goes_on_where_the_first_was_stopped() {
    let mut system = System::new();
    let mut first = system.spawn(&[Grant::kernel("own", KernelCapSource::Endpoint)]);
    let own = first.cap_id("own");
    let shared = Grant::held("own", first.pid, own, Passing::Raw);
    let mut second = system.spawn(&[shared]);
    let (mut served, mut queued) = (
        caller_of(&mut system, &first),
        caller_of(&mut system, &first),
    );
    start_call(&mut system, &mut served);
    let cap = second.cap("own");
    let recv = System::recv_sqe(cap, 3);
    assert!(
        system.run(&mut second, &recv).is_some(),
        "served by the second"
    );
    start_call(&mut system, &mut queued);
    // The second's hold lies below the first's: revoking it leaves the first.
    revoke(&mut system, &second, cap);
    disconnected(&system, &mut served);
    assert!(queued.completion().is_none(), "still in the queue");
    let recv = System::recv_sqe(own.raw(), 6);
    let cqe = system.run(&mut first, &recv).expect("the queued call");
    let message = system.message(&first, &recv, &cqe);
    let answer = System::return_sqe(own.raw(), 7, message.call_id, 0);
    assert_eq!(system.result(&mut first, &answer), 0);
    assert_eq!(queued.completion().expect("answered").result, 0);
}

fn make(system: &mut System, maker: &mut Client, method: u16, params: &[u8]) -> Vec<u32> {
    let entry = with_result(call(2, maker.cap("spawner"), method));
    let entry = with_params(system, maker, params, entry);
    let cqe = system.run(maker, &entry).expect("at once");
    assert!(cqe.result > 0, "made: {}", cqe.result);
    let at = RESULT + cqe.result as u64;
    let records = cap_records(&system.peek(maker, at, usize::from(cqe.cap_count) * 16));
    records.into_iter().map(|record| record.0).collect()
}

#[test]
fn a_pipe_end_that_nobody_may_use_any_more_is_closed() {
    let mut system = System::new();
    let mut maker = system.spawn(&[Grant::kernel("spawner", KernelCapSource::ProcessSpawner)]);
    let mut message = Builder::new_default();
    let mut params: process_spawner::create_pipe_params::Builder<'_> = message.init_root();
    params.set_buffer_bytes(64);
    let params = write_message_to_words(&message);
    let ends = make(&mut system, &mut maker, 1, &params);
    let (reader, writer) = (CapId::from_raw(ends[0]), CapId::from_raw(ends[1]));
    let mut child = system.spawn(&[
        Grant::held("in", maker.pid, reader, Passing::Raw),
        Grant::held("out", maker.pid, writer, Passing::Move),
    ]);
    let mut message = Builder::new_default();
    let mut params: pipe::read_params::Builder<'_> = message.init_root();
    params.set_max_len(8);
    let params = write_message_to_words(&message);
    // The child's reading hold goes while it waits; the maker's stays.
    let entry = with_result(call(3, child.cap("in"), 0));
    let entry = with_params(&mut system, &child, &params, entry);
    assert!(system.run(&mut child, &entry).is_none());
    let cap = child.cap("in");
    revoke(&mut system, &child, cap);
    disconnected(&system, &mut child);
    // The only writing hold goes while the maker reads: end of file.
    let entry = with_result(call(4, ends[0], 0));
    let entry = with_params(&mut system, &maker, &params, entry);
    assert!(system.run(&mut maker, &entry).is_none());
    let cap = child.cap("out");
    revoke(&mut system, &child, cap);
    let cqe = maker.completion().expect("told");
    assert!(cqe.result > 0, "a result: {}", cqe.result);
    let bytes = system.peek(&maker, RESULT, cqe.result as usize);
    let message =
        capnp::serialize::read_message(&mut &bytes[..], capos_config::default_reader_options())
            .expect("a result");
    let root: pipe::read_results::Reader<'_> = message.get_root().unwrap();
    assert!(root.get_eof());
    system.kill(child);
    system.kill(maker);
    assert!(system.server.is_idle());
}

#[test]
fn a_waiter_that_loses_its_notification_is_disconnected_and_others_are_not() {
    let mut system = System::new();
    let mut maker = system.spawn(&[Grant::kernel("spawner", KernelCapSource::ProcessSpawner)]);
    let cap = make(&mut system, &mut maker, CREATE_NOTIFICATION, &[])[0];
    let copy = Grant::held("n", maker.pid, CapId::from_raw(cap), Passing::Copy);
    let (mut one, mut two) = (system.spawn(&[copy]), system.spawn(&[copy]));
    for waiter in [&mut one, &mut two] {
        let entry = with_result(call(5, waiter.cap("n"), WAIT));
        assert!(system.run(waiter, &entry).is_none());
    }
    let n = one.cap("n");
    revoke(&mut system, &one, n);
    disconnected(&system, &mut one);
    assert!(two.completion().is_none());
    // The maker's own: everything that came from it.
    revoke(&mut system, &maker, cap);
    disconnected(&system, &mut two);
    for client in [one, two, maker] {
        system.kill(client);
    }
    assert!(system.server.is_idle());
}
