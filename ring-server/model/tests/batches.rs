//! Several submissions taken at one entry: each sees the effects of those
//! before it, and what one of them ends is over before the next begins.

mod support;

use capnp::message::Builder;
use capnp::serialize::write_message_to_words;
use capos_config::KernelCapSource;
use capos_config::capos_capnp::{CapGrantMode, ExceptionType, process_spawner};
use capos_config::ring::*;
use ring_server_core::{Entry, Grant, WAIT_FOREVER};
use ring_server_model::{Client, System, call, cap_records, sqe};

const SPAWN: u16 = 0;
const CREATE_PIPE: u16 = 1;
const HANDLE_WAIT: u16 = 0;
const LABEL: u64 = 0x77;
const RESULT: u64 = Client::DATA + 0x8000;

/// Params of a spawn of `program` with facets of the `endpoints`, under these
/// names.
fn spawn_params(program: &str, endpoints: &[(&str, u32)]) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: process_spawner::spawn_params::Builder<'_> = message.init_root();
    params.set_name("child");
    params.set_binary_name(program);
    let mut grants = params.init_grants(endpoints.len() as u32);
    for (index, &(name, cap)) in endpoints.iter().enumerate() {
        let mut grant = grants.reborrow().get(index as u32);
        grant.set_name(name);
        grant.set_mode(CapGrantMode::ClientEndpoint);
        grant.set_cap_id(cap);
        grant.set_interface_id(LABEL);
        grant.init_source().set_capability(());
    }
    write_message_to_words(&message)
}

fn create_pipe_params() -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: process_spawner::create_pipe_params::Builder<'_> = message.init_root();
    params.set_buffer_bytes(1024);
    write_message_to_words(&message)
}

fn parent(system: &mut System) -> Client {
    system.machine.programs.names = vec!["prog".into()];
    system.spawn(&[
        Grant::kernel("spawner", KernelCapSource::ProcessSpawner),
        Grant::kernel("endpoint", KernelCapSource::Endpoint),
    ])
}

/// A call to the parent's spawner whose params are put at `at`.
fn spawner_call(
    system: &mut System,
    parent: &Client,
    at: u64,
    method: u16,
    params: &[u8],
) -> CapSqe {
    system.poke(parent, at, params);
    CapSqe {
        addr: at,
        len: params.len() as u32,
        result_addr: RESULT,
        result_len: 1024,
        ..call(u64::from(method) + 1000, parent.cap("spawner"), method)
    }
}

/// A spawn that is refused only when its grants are turned into holds.
fn refused_spawn(system: &mut System, parent: &Client) -> CapSqe {
    let long = "n".repeat(200);
    let params = spawn_params("prog", &[(&long, parent.cap("endpoint"))]);
    spawner_call(system, parent, Client::DATA + 0x4000, SPAWN, &params)
}

/// Publishes all entries, enters once, and returns what completed.
fn batch(system: &mut System, client: &mut Client, entries: &[CapSqe]) -> Vec<CapCqe> {
    for entry in entries {
        client.submit(entry);
    }
    system.enter(client, 0, 0);
    client.completions()
}

fn caps_of(system: &System, client: &Client, cqe: &CapCqe) -> Vec<u32> {
    assert!(cqe.result > 0, "made: {}", cqe.result);
    let records = system.peek(
        client,
        RESULT + cqe.result as u64,
        usize::from(cqe.cap_count) * 16,
    );
    cap_records(&records).iter().map(|&(cap, _)| cap).collect()
}

fn disconnected(system: &System, client: &Client, result: u64) {
    let bytes = system.peek(client, result, 256);
    let (kind, _) = support::decode_exception(&bytes);
    assert_eq!(kind, ExceptionType::Disconnected);
}

#[test]
fn calls_that_wait_end_with_the_owner_although_a_spawn_fails_behind_it() {
    let mut system = System::new();
    let mut parent = parent(&mut system);
    let owner = parent.cap("endpoint");
    let mut peer = system.spawn(&[Grant::client(
        "server",
        parent.pid,
        parent.cap_id("endpoint"),
    )]);
    peer.submit(&CapSqe {
        result_addr: RESULT,
        result_len: 256,
        ..call(7, peer.cap("server"), 0)
    });
    let blocked = system.enter(&peer, 1, WAIT_FOREVER);
    assert_eq!(blocked, Entry::Block, "nobody receives");

    let refused = refused_spawn(&mut system, &parent);
    let done = batch(
        &mut system,
        &mut parent,
        &[System::release_sqe(owner, 1), refused],
    );
    assert_eq!(done[0].result, 0);
    assert!(done[1].result < 0, "no such endpoint any more");
    let cqe = peer.completion().expect("the call is over");
    assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);
    disconnected(&system, &peer, RESULT);
}

/// A second endpoint owner that outlives the first and makes a spawn fail
/// after a hold was minted.
#[test]
fn an_endpoint_released_before_a_refused_spawn_is_closed_properly() {
    let mut system = System::new();
    system.machine.programs.names = vec!["prog".into()];
    let mut parent = system.spawn(&[
        Grant::kernel("spawner", KernelCapSource::ProcessSpawner),
        Grant::kernel("endpoint", KernelCapSource::Endpoint),
        Grant::kernel("other", KernelCapSource::Endpoint),
    ]);
    let mut peer = system.spawn(&[Grant::client("server", parent.pid, parent.cap_id("other"))]);
    peer.submit(&CapSqe {
        result_addr: RESULT,
        result_len: 256,
        ..call(7, peer.cap("server"), 0)
    });
    // The call is in flight and its facet gone: the record alone names the
    // endpoint.
    peer.submit(&System::release_sqe(peer.cap("server"), 8));
    let recv = System::recv_sqe(parent.cap("other"), 3);
    batch(&mut system, &mut parent, &[recv]);
    system.enter(&peer, 0, 0);
    assert_eq!(peer.completion().expect("released").user_data, 8);
    system.enter(&parent, 0, 0);
    assert_eq!(parent.completion().expect("received").user_data, 3);

    let refused = refused_spawn(&mut system, &parent);
    let other = parent.cap("other");
    let done = batch(
        &mut system,
        &mut parent,
        &[System::release_sqe(other, 1), refused],
    );
    assert!(done[1].result < 0, "the name is too long");
    let cqe = peer.completion().expect("the call is over");
    assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);

    // Whoever takes the endpoint's place is not charged for its call.
    let victim = system.spawn(&[Grant::kernel("endpoint", KernelCapSource::Endpoint)]);
    system.kill(peer);
    system.kill(victim);
}

#[test]
fn a_pipe_end_released_before_a_refused_spawn_wakes_the_other_end() {
    let mut system = System::new();
    let mut parent = parent(&mut system);
    let create = spawner_call(
        &mut system,
        &parent,
        Client::DATA,
        CREATE_PIPE,
        &create_pipe_params(),
    );
    let done = batch(&mut system, &mut parent, &[create]);
    let ends = caps_of(&system, &parent, &done[0]);
    let mut params = Builder::new_default();
    params
        .init_root::<capos_config::capos_capnp::pipe::read_params::Builder<'_>>()
        .set_max_len(64);
    let params = write_message_to_words(&params);
    system.poke(&parent, Client::DATA, &params);
    let read = CapSqe {
        addr: Client::DATA,
        len: params.len() as u32,
        result_addr: RESULT + 0x2000,
        result_len: 256,
        ..call(50, ends[0], 0)
    };
    assert!(batch(&mut system, &mut parent, &[read]).is_empty(), "waits");

    let refused = refused_spawn(&mut system, &parent);
    let done = batch(
        &mut system,
        &mut parent,
        &[System::release_sqe(ends[1], 51), refused],
    );
    let read = done.iter().find(|cqe| cqe.user_data == 50);
    assert!(read.is_some_and(|cqe| cqe.result > 0), "end of file");
}

#[test]
fn a_handle_released_before_a_refused_spawn_ends_the_wait_through_it() {
    let mut system = System::new();
    let mut parent = parent(&mut system);
    let spawn = spawn_params("prog", &[]);
    let spawn = spawner_call(&mut system, &parent, Client::DATA, SPAWN, &spawn);
    let done = batch(&mut system, &mut parent, &[spawn]);
    let handle = caps_of(&system, &parent, &done[0])[0];
    let wait = CapSqe {
        result_addr: RESULT + 0x2000,
        result_len: 256,
        ..call(60, handle, HANDLE_WAIT)
    };
    assert!(batch(&mut system, &mut parent, &[wait]).is_empty(), "waits");
    let refused = refused_spawn(&mut system, &parent);
    let done = batch(
        &mut system,
        &mut parent,
        &[System::release_sqe(handle, 61), refused],
    );
    let wait = done.iter().find(|cqe| cqe.user_data == 60);
    assert!(wait.is_some_and(|cqe| cqe.result < 0), "over");
    disconnected(&system, &parent, RESULT + 0x2000);
}

/// The last facet of an endpoint goes and a new one is made at the same entry:
/// it names that endpoint, not whatever took the old facet's place.
#[test]
fn a_facet_made_after_the_last_one_went_names_the_endpoint() {
    let mut system = System::new();
    let mut parent = parent(&mut system);
    let owner = parent.cap("endpoint");
    // A child with a facet, which comes back to the parent by a call, would do;
    // the parent calls itself with less ado: it is granted a facet at start.
    let mut holder = system.spawn(&[
        Grant::kernel("spawner", KernelCapSource::ProcessSpawner),
        Grant::client("facet", parent.pid, parent.cap_id("endpoint")),
    ]);
    // The holder hands its facet over, so that the parent has owner and facet.
    system.put_descriptors(&holder, 0, &[(holder.cap("facet"), CAP_TRANSFER_MODE_COPY)]);
    let recv = System::recv_sqe(owner, 1);
    batch(&mut system, &mut parent, &[recv]);
    let give = CapSqe {
        addr: Client::DATA,
        xfer_cap_count: 1,
        result_addr: RESULT,
        result_len: 256,
        ..call(2, holder.cap("facet"), 0)
    };
    let release = System::release_sqe(holder.cap("facet"), 3);
    batch(&mut system, &mut holder, &[give, release]);
    let cqe = parent.completion().expect("received");
    let message = system.message(&parent, &recv, &cqe);
    let facet = message.caps[0].0;

    // Three objects are freed, the facet's first, so that its place is still
    // free when the spawn is over.
    let create = spawner_call(
        &mut system,
        &parent,
        Client::DATA,
        CREATE_PIPE,
        &create_pipe_params(),
    );
    let made = batch(&mut system, &mut parent, &[create]);
    let ends = caps_of(&system, &parent, &made[0]);
    let params = spawn_params("prog", &[("server", owner)]);
    let spawn = spawner_call(&mut system, &parent, Client::DATA, SPAWN, &params);
    let releases = [facet, ends[0], ends[1]].map(|cap| System::release_sqe(cap, 9));
    let entries: Vec<_> = releases.into_iter().chain([spawn]).collect();
    let done = batch(&mut system, &mut parent, &entries);
    assert!(done[3].result > 0, "spawned");
    let mut child = system.machine.programs.launched.pop().expect("it runs");

    // Somebody else's process gets the places that are free now.
    let victim = system.spawn(&[Grant::kernel("secret", KernelCapSource::Endpoint)]);
    let objects = |client: &Client| -> Vec<_> {
        let holds = system.server.holds(client.pid);
        holds.map(|(_, hold)| hold.object).collect()
    };
    let theirs = objects(&victim);
    assert!(
        objects(&child)
            .iter()
            .all(|object| !theirs.contains(object)),
        "the child holds what is the victim's"
    );
    let as_owner = sqe(CAP_OP_RECV, 1);
    let as_owner = CapSqe {
        cap_id: child.cap("server"),
        result_addr: RESULT,
        result_len: 512,
        ..as_owner
    };
    let received = system.result(&mut child, &as_owner);
    assert_eq!(received, CAP_ERR_INVOKE_FAILED, "a facet does not receive");
}
