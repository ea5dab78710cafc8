//! Calls between processes, transfers, sessions, revocation.

mod support;

use capos_config::KernelCapSource;
use capos_config::capos_capnp::ExceptionType;
use capos_config::ring::*;
use ring_server_core::{
    BootSecret, CreateError, Entry, Grant, Limits, Passing, SessionInfo, WAIT_FOREVER,
    derive_reference,
};
use ring_server_model::{Client, Message, System, call, cap_records, sqe};
use support::decode_exception;

const ENDPOINT: Grant<'static> = Grant::kernel("service", KernelCapSource::Endpoint);
const CONSOLE: Grant<'static> = Grant::kernel("console", KernelCapSource::Console);
const TIMER: Grant<'static> = Grant::kernel("timer", KernelCapSource::Timer);
const PARK: Grant<'static> = Grant::kernel("park", KernelCapSource::ParkSpace);
const RESULT: u64 = Client::DATA + 0x3_0000;

/// A service and a client of it.
struct Pair {
    system: System,
    owner: Client,
    client: Client,
    endpoint: u32,
    facet: u32,
}

impl Pair {
    fn new() -> Self {
        Self::with(&[CONSOLE, TIMER, PARK], Limits::CEILING)
    }

    fn with(client_grants: &[Grant<'_>], owner_limits: Limits) -> Self {
        let mut system = System::new();
        let owner = system.spawn_limited(&[ENDPOINT, CONSOLE, TIMER, PARK], owner_limits);
        let facet = Grant::client("service", owner.pid, owner.cap_id("service"));
        let mut grants = vec![facet];
        grants.extend_from_slice(client_grants);
        let client = system.spawn(&grants);
        let (endpoint, facet) = (owner.cap("service"), client.cap("service"));
        Self {
            system,
            owner,
            client,
            endpoint,
            facet,
        }
    }

    fn call_sqe(&self, user_data: u64) -> CapSqe {
        CapSqe {
            addr: Client::DATA,
            len: 8,
            result_addr: RESULT,
            result_len: 0x400,
            ..call(user_data, self.facet, 3)
        }
    }

    fn submit_call(&mut self, sqe: &CapSqe) -> Entry {
        self.client.submit(sqe);
        self.system.enter(&self.client, 0, 0)
    }

    /// The owner receives one call.
    fn receive(&mut self) -> Message {
        let recv = System::recv_sqe(self.endpoint, 1000);
        let cqe = self.system.run(&mut self.owner, &recv);
        let cqe = cqe.expect("a call is waiting");
        assert_eq!(cqe.user_data, 1000);
        self.system.message(&self.owner, &recv, &cqe)
    }

    fn answer(&mut self, call_id: u32, bytes: &[u8]) -> i32 {
        self.system.poke(&self.owner, Client::DATA, bytes);
        let sqe = System::return_sqe(self.endpoint, 1001, call_id, bytes.len() as u32);
        self.system.result(&mut self.owner, &sqe)
    }

    fn exception(&self) -> (ExceptionType, String) {
        decode_exception(&self.system.peek(&self.client, RESULT, 0x400))
    }
}

fn copies(count: u16) -> CapSqe {
    CapSqe {
        xfer_cap_count: count,
        ..sqe(CAP_OP_CALL, 0)
    }
}

#[test]
fn a_call_before_its_receive_is_queued_with_its_params() {
    let mut pair = Pair::new();
    pair.system.poke(&pair.client, Client::DATA, b"question");
    pair.submit_call(&pair.call_sqe(7));
    pair.system.poke(&pair.client, Client::DATA, b"changed!");
    let message = pair.receive();
    assert_eq!(
        message.params, b"question",
        "copied before the caller went on"
    );
    assert_eq!(message.header.method_id, 3);
    assert_eq!(
        message.header.interface_id,
        capos_config::ENDPOINT_INTERFACE_ID
    );
    assert_ne!(message.call_id, 0);
    assert_eq!(pair.answer(message.call_id, b"answer"), 0);
    let cqe = pair.client.completion().expect("the answer is there");
    assert_eq!((cqe.user_data, cqe.result, cqe.cap_count), (7, 6, 0));
    assert_eq!(pair.system.peek(&pair.client, RESULT, 6), b"answer");
    assert!(pair.client.completion().is_none(), "exactly once");
}

#[test]
fn a_waiting_server_is_handed_the_cpu() {
    let mut pair = Pair::new();
    let recv = System::recv_sqe(pair.endpoint, 5);
    pair.owner.submit(&recv);
    assert_eq!(
        pair.system.enter(&pair.owner, 1, WAIT_FOREVER),
        Entry::Block
    );
    pair.client.submit(&pair.call_sqe(7));
    let entry = pair.system.enter(&pair.client, 1, WAIT_FOREVER);
    assert_eq!(entry, Entry::Block);
    let handed: Vec<_> = pair.system.machine.handed_over.drain(..).collect();
    assert_eq!(handed.len(), 1);
    assert_eq!(handed[0].pid, pair.owner.pid);
    let cqe = pair.owner.completion().expect("the receive completed");
    let call_id = pair.system.message(&pair.owner, &recv, &cqe).call_id;
    pair.system.machine.resumed.clear();
    assert_eq!(pair.answer(call_id, b"done"), 0);
    let (thread, rax) = pair.system.machine.resumed[0];
    assert_eq!(
        (thread.pid, rax),
        (pair.client.pid, 1),
        "the caller resumes"
    );
}

#[test]
fn long_params_arrive_whole() {
    let mut pair = Pair::new();
    let long: Vec<u8> = (0..60_000_u32).map(|n| (n * 7) as u8).collect();
    pair.system.poke(&pair.client, Client::DATA, &long);
    let sqe = CapSqe {
        len: long.len() as u32,
        ..pair.call_sqe(1)
    };
    pair.submit_call(&sqe);
    let recv = CapSqe {
        result_len: 60_000 + 56,
        ..System::recv_sqe(pair.endpoint, 2)
    };
    let cqe = pair.system.run(&mut pair.owner, &recv).unwrap();
    let message = pair.system.message(&pair.owner, &recv, &cqe);
    assert_eq!(message.params, long);
}

#[test]
fn only_the_owner_receives_returns_and_cancels() {
    let mut pair = Pair::new();
    pair.submit_call(&pair.call_sqe(1));
    let message = pair.receive();
    let facet = pair.facet;
    let by_facet = [
        System::recv_sqe(facet, 2),
        System::return_sqe(facet, 3, message.call_id, 4),
        CapSqe {
            cap_id: facet,
            pipeline_dep: 1,
            ..sqe(CAP_OP_CANCEL, 4)
        },
    ];
    for sqe in by_facet {
        let result = pair.system.result(&mut pair.client, &sqe);
        assert_eq!(result, CAP_ERR_INVOKE_FAILED, "opcode {}", sqe.opcode);
    }
    assert_eq!(pair.answer(message.call_id, b"ok"), 0, "still in flight");
}

#[test]
fn call_ids_are_good_once_and_for_their_receiver() {
    let mut pair = Pair::new();
    let grants = [Grant::held(
        "service",
        pair.owner.pid,
        pair.owner.cap_id("service"),
        Passing::Raw,
    )];
    let mut second = pair.system.spawn(&grants);
    pair.submit_call(&pair.call_sqe(1));
    let message = pair.receive();
    for forged in [0, message.call_id + 1, message.call_id + 1024, u32::MAX] {
        assert_eq!(pair.answer(forged, b"x"), CAP_ERR_INVOKE_FAILED);
    }
    let theft = System::return_sqe(second.cap("service"), 9, message.call_id, 1);
    let result = pair.system.result(&mut second, &theft);
    assert_eq!(result, CAP_ERR_INVOKE_FAILED, "another owner's call");
    assert_eq!(pair.answer(message.call_id, b"x"), 0);
    assert_eq!(pair.answer(message.call_id, b"x"), CAP_ERR_INVOKE_FAILED);
    assert_eq!(pair.client.completions().len(), 1);
}

/// The header and the params together are longer than anything a service can
/// receive: the caller's fault, and nobody else's delay.
#[test]
fn a_call_that_no_receive_can_take_is_refused() {
    let mut pair = Pair::new();
    let longest = Limits::CEILING.ring_scratch_bytes;
    let too_long = CapSqe {
        len: longest - 55,
        ..pair.call_sqe(1)
    };
    pair.submit_call(&too_long);
    pair.submit_call(&pair.call_sqe(2));
    let message = pair.receive();
    assert_eq!(message.params.len(), 8, "the call behind it is delivered");
    let refused = pair.client.completion().expect("a completion");
    let expected = (1, CAP_ERR_INVALID_PARAMS_BUFFER);
    assert_eq!((refused.user_data, refused.result), expected);
}

#[test]
fn a_small_receive_is_refused_and_the_call_waits_on() {
    let mut pair = Pair::new();
    let tiny = CapSqe {
        result_len: 55,
        ..System::recv_sqe(pair.endpoint, 1)
    };
    let result = pair.system.result(&mut pair.owner, &tiny);
    assert_eq!(result, CAP_ERR_INVALID_RESULT_BUFFER);
    pair.submit_call(&pair.call_sqe(1));
    let short = CapSqe {
        result_len: 60,
        ..System::recv_sqe(pair.endpoint, 2)
    };
    let result = pair.system.result(&mut pair.owner, &short);
    assert_eq!(result, CAP_ERR_INVALID_RESULT_BUFFER);
    assert_eq!(pair.receive().params.len(), 8, "the call is still there");
}

#[test]
fn exceptions_travel_or_are_truncated() {
    let mut pair = Pair::new();
    pair.submit_call(&pair.call_sqe(1));
    let message = pair.receive();
    let payload = [0x55; 48];
    pair.system.poke(&pair.owner, Client::DATA, &payload);
    let raise = |call_id| CapSqe {
        flags: CAP_SQE_RETURN_APPLICATION_EXCEPTION,
        ..System::return_sqe(pair.endpoint, 2, call_id, 48)
    };
    let sqe = raise(message.call_id);
    assert_eq!(pair.system.result(&mut pair.owner, &sqe), 0);
    let cqe = pair.client.completion().unwrap();
    assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);
    assert_eq!(pair.system.peek(&pair.client, RESULT, 48), payload);

    let short = CapSqe {
        result_len: 40,
        ..pair.call_sqe(2)
    };
    pair.client.submit(&short);
    pair.system.enter(&pair.client, 0, 0);
    let message = pair.receive();
    pair.system.poke(&pair.owner, Client::DATA, &payload);
    let sqe = System::return_sqe(pair.endpoint, 2, message.call_id, 48);
    let sqe = CapSqe {
        flags: CAP_SQE_RETURN_APPLICATION_EXCEPTION,
        ..sqe
    };
    assert_eq!(pair.system.result(&mut pair.owner, &sqe), 0);
    let cqe = pair.client.completion().unwrap();
    assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED);
}

#[test]
fn a_result_that_does_not_fit_is_the_callers_error() {
    let mut pair = Pair::new();
    let short = CapSqe {
        result_len: 100,
        ..pair.call_sqe(1)
    };
    pair.submit_call(&short);
    let message = pair.receive();
    assert_eq!(
        pair.answer(message.call_id, &[1; 101]),
        0,
        "the call is over"
    );
    let cqe = pair.client.completion().unwrap();
    assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);
    assert_eq!(pair.exception().0, ExceptionType::Overloaded);

    pair.submit_call(&pair.call_sqe(2));
    let message = pair.receive();
    let pid = pair.client.pid;
    let memory = pair.system.machine.memory.get_mut(&pid).unwrap();
    memory.unmap(RESULT, 4096);
    assert_eq!(pair.answer(message.call_id, b"late"), 0);
    let cqe = pair.client.completion().unwrap();
    assert_eq!(cqe.result, CAP_ERR_INVALID_RESULT_BUFFER);
}

#[test]
fn a_bad_return_payload_is_the_servers_error() {
    let mut pair = Pair::new();
    pair.submit_call(&pair.call_sqe(1));
    let message = pair.receive();
    let bad = CapSqe {
        addr: Client::NOWHERE,
        ..System::return_sqe(pair.endpoint, 2, message.call_id, 8)
    };
    let result = pair.system.result(&mut pair.owner, &bad);
    assert_eq!(result, CAP_ERR_INVALID_PARAMS_BUFFER);
    assert!(pair.client.completion().is_none());
    assert_eq!(pair.answer(message.call_id, b"ok"), 0, "it may try again");
}

#[test]
fn queues_are_bounded_and_the_surplus_is_overloaded() {
    let limits = Limits {
        endpoint_queue: 3,
        in_flight_calls: 2,
        ..Limits::CEILING
    };
    let mut pair = Pair::with(&[], limits);
    for n in 0..5 {
        pair.submit_call(&pair.call_sqe(n));
    }
    let refused = pair.client.completions();
    assert_eq!(refused.len(), 2);
    assert!(
        refused
            .iter()
            .all(|c| c.result == CAP_ERR_APPLICATION_EXCEPTION)
    );
    assert_eq!(pair.exception().0, ExceptionType::Overloaded);
    let first = pair.receive();
    let _second = pair.receive();
    let recv = System::recv_sqe(pair.endpoint, 77);
    assert!(
        pair.system.run(&mut pair.owner, &recv).is_none(),
        "two calls in flight are the limit"
    );
    pair.system.poke(&pair.owner, Client::DATA, b"x");
    let ret = System::return_sqe(pair.endpoint, 78, first.call_id, 1);
    pair.owner.submit(&ret);
    pair.system.enter(&pair.owner, 0, 0);
    let done: Vec<u64> = pair
        .owner
        .completions()
        .iter()
        .map(|c| c.user_data)
        .collect();
    assert_eq!(
        done.len(),
        2,
        "the return, and the receive it made possible"
    );
    assert!(done.contains(&77) && done.contains(&78));
}

#[test]
fn outstanding_calls_and_queued_bytes_are_charged_and_given_back() {
    let mut pair = Pair::new();
    for n in 0..66 {
        pair.submit_call(&pair.call_sqe(n));
    }
    let refused = pair.client.completions();
    assert_eq!(refused.len(), 2, "64 may wait");
    pair.receive();
    let big = CapSqe {
        len: 64 * 1024,
        ..pair.call_sqe(100)
    };
    let mut other = Pair::new();
    for n in 0..5 {
        other.submit_call(&CapSqe {
            user_data: n,
            ..big
        });
    }
    let refused = other.client.completions();
    assert_eq!(refused.len(), 1, "256 KiB may wait");
    assert_eq!(refused[0].result, CAP_ERR_APPLICATION_EXCEPTION);
}

#[test]
fn a_cancelled_receive_and_its_cancel_both_complete() {
    let mut pair = Pair::new();
    let recv = System::recv_sqe(pair.endpoint, 50);
    assert!(pair.system.run(&mut pair.owner, &recv).is_none());
    let cancel = CapSqe {
        cap_id: pair.endpoint,
        pipeline_dep: 50,
        ..sqe(CAP_OP_CANCEL, 51)
    };
    pair.owner.submit(&cancel);
    pair.system.enter(&pair.owner, 0, 0);
    let done = pair.owner.completions();
    let results: Vec<_> = done.iter().map(|c| (c.user_data, c.result)).collect();
    assert_eq!(results, [(50, CAP_ERR_INVOKE_FAILED), (51, 0)]);
    let again = pair.system.result(&mut pair.owner, &cancel);
    assert_eq!(again, CAP_ERR_INVOKE_FAILED, "nothing to cancel");
    pair.submit_call(&pair.call_sqe(1));
    assert_eq!(pair.receive().params.len(), 8);
}

#[test]
fn the_owners_end_disconnects_everyone() {
    let mut pair = Pair::new();
    pair.submit_call(&pair.call_sqe(1));
    pair.receive();
    pair.submit_call(&pair.call_sqe(2));
    let Pair {
        mut system,
        owner,
        mut client,
        facet,
        ..
    } = pair;
    assert_eq!(system.enter(&client, 2, WAIT_FOREVER), Entry::Block);
    system.kill(owner);
    assert_eq!(system.machine.resumed.len(), 1, "the caller wakes");
    let mut done: Vec<_> = client
        .completions()
        .iter()
        .map(|c| (c.user_data, c.result))
        .collect();
    done.sort_unstable();
    let exception = CAP_ERR_APPLICATION_EXCEPTION;
    assert_eq!(done, [(1, exception), (2, exception)]);
    let late = CapSqe {
        result_addr: RESULT,
        result_len: 0x400,
        ..call(3, facet, 0)
    };
    assert_eq!(system.result(&mut client, &late), exception);
    let (kind, _) = decode_exception(&system.peek(&client, RESULT, 0x400));
    assert_eq!(kind, ExceptionType::Disconnected);
    let release = System::release_sqe(facet, 4);
    assert_eq!(system.result(&mut client, &release), 0);
}

#[test]
fn releasing_the_owner_capability_closes_the_endpoint() {
    let mut pair = Pair::new();
    pair.submit_call(&pair.call_sqe(1));
    let recv = System::recv_sqe(pair.endpoint, 9);
    pair.receive();
    pair.owner.submit(&recv);
    pair.owner.submit(&System::release_sqe(pair.endpoint, 10));
    pair.system.enter(&pair.owner, 0, 0);
    let done: Vec<_> = pair
        .owner
        .completions()
        .iter()
        .map(|c| (c.user_data, c.result))
        .collect();
    assert!(done.contains(&(9, CAP_ERR_INVOKE_FAILED)));
    assert!(done.contains(&(10, 0)));
    assert_eq!(pair.client.completions().len(), 1);
    assert_eq!(pair.exception().0, ExceptionType::Disconnected);
}

#[test]
fn dropping_a_facet_does_not_close_the_endpoint() {
    let mut pair = Pair::new();
    let grants = [Grant::client(
        "s",
        pair.owner.pid,
        pair.owner.cap_id("service"),
    )];
    let mut other = pair.system.spawn(&grants);
    let release = System::release_sqe(other.cap("s"), 1);
    assert_eq!(pair.system.result(&mut other, &release), 0);
    pair.submit_call(&pair.call_sqe(1));
    let message = pair.receive();
    assert_eq!(pair.answer(message.call_id, b"ok"), 0);
}

#[test]
fn the_callers_end_takes_its_calls_with_it() {
    let mut pair = Pair::new();
    pair.submit_call(&pair.call_sqe(1));
    let message = pair.receive();
    pair.submit_call(&pair.call_sqe(2));
    let Pair {
        mut system,
        mut owner,
        client,
        endpoint,
        ..
    } = pair;
    system.kill(client);
    let late = System::return_sqe(endpoint, 3, message.call_id, 0);
    assert_eq!(system.result(&mut owner, &late), CAP_ERR_INVOKE_FAILED);
    let recv = System::recv_sqe(endpoint, 4);
    assert!(system.run(&mut owner, &recv).is_none(), "nothing is queued");
}

#[test]
fn a_process_may_call_itself() {
    let mut system = System::new();
    let mut both = system.spawn(&[ENDPOINT]);
    let endpoint = both.cap("service");
    let recv = System::recv_sqe(endpoint, 1);
    both.submit(&recv);
    both.submit(&CapSqe {
        result_addr: RESULT,
        result_len: 64,
        ..call(2, endpoint, 0)
    });
    system.enter(&both, 0, 0);
    let cqe = both.completion().expect("the receive");
    let message = system.message(&both, &recv, &cqe);
    both.submit(&System::return_sqe(endpoint, 3, message.call_id, 4));
    system.enter(&both, 0, 0);
    let done: Vec<u64> = both.completions().iter().map(|c| c.user_data).collect();
    assert_eq!(done, [2, 3]);
}

#[test]
fn a_copy_gives_the_receiver_a_second_hold() {
    let mut pair = Pair::new();
    let console = pair.client.cap("console");
    let descriptor = [(console, CAP_TRANSFER_MODE_COPY)];
    pair.system.put_descriptors(&pair.client, 8, &descriptor);
    let sqe = CapSqe {
        xfer_cap_count: 1,
        ..pair.call_sqe(1)
    };
    pair.submit_call(&sqe);
    let message = pair.receive();
    assert_eq!(message.caps.len(), 1);
    let (id, interface) = message.caps[0];
    assert_eq!(interface, capos_config::CONSOLE_INTERFACE_ID);
    let release = System::release_sqe(id, 5);
    assert_eq!(pair.system.result(&mut pair.owner, &release), 0);
    let release = System::release_sqe(console, 6);
    let kept = pair.system.result(&mut pair.client, &release);
    assert_eq!(kept, 0, "the sender keeps its own");
}

#[test]
fn a_move_leaves_one_hold_and_its_replay_fails() {
    let mut pair = Pair::new();
    let timer = pair.client.cap("timer");
    let descriptor = [(timer, CAP_TRANSFER_MODE_MOVE)];
    pair.system.put_descriptors(&pair.client, 8, &descriptor);
    let sqe = CapSqe {
        xfer_cap_count: 1,
        ..pair.call_sqe(1)
    };
    pair.submit_call(&sqe);
    let reserved = System::release_sqe(timer, 2);
    let result = pair.system.result(&mut pair.client, &reserved);
    assert_eq!(result, CAP_ERR_INVALID_REQUEST, "a move is under way");
    pair.client.submit(&sqe);
    pair.system.enter(&pair.client, 0, 0);
    let replay = pair.client.completion().unwrap().result;
    assert_eq!(replay, CAP_ERR_TRANSFER_ABORTED, "reserved");
    let message = pair.receive();
    assert_eq!(message.caps.len(), 1);
    let gone = pair.system.result(&mut pair.client, &call(3, timer, 0));
    assert_eq!(gone, CAP_ERR_INVOKE_FAILED);
    let replay = pair.system.result(&mut pair.client, &sqe);
    assert_eq!(replay, CAP_ERR_INVALID_TRANSFER_DESCRIPTOR, "removed");
}

#[test]
fn malformed_descriptors_change_nothing() {
    let mut pair = Pair::new();
    let console = pair.client.cap("console");
    let cases: [(u32, u16, i32); 6] = [
        (console, 0, CAP_ERR_INVALID_TRANSFER_DESCRIPTOR),
        (console, 3, CAP_ERR_INVALID_TRANSFER_DESCRIPTOR),
        (console, 0x8001, CAP_ERR_INVALID_TRANSFER_DESCRIPTOR),
        (console + 999, 1, CAP_ERR_INVALID_TRANSFER_DESCRIPTOR),
        (console | 5 << 24, 1, CAP_ERR_INVALID_TRANSFER_DESCRIPTOR),
        (pair.client.cap("park"), 1, CAP_ERR_TRANSFER_NOT_SUPPORTED),
    ];
    for (cap, mode, expected) in cases {
        let descriptors = [(console, 2), (cap, mode)];
        pair.system.put_descriptors(&pair.client, 8, &descriptors);
        let sqe = CapSqe {
            xfer_cap_count: 2,
            ..pair.call_sqe(1)
        };
        let result = pair.system.result(&mut pair.client, &sqe);
        assert_eq!(result, expected, "cap {cap:#x} mode {mode:#x}");
    }
    let misaligned = CapSqe {
        len: 7,
        xfer_cap_count: 1,
        ..pair.call_sqe(1)
    };
    let too_many = CapSqe {
        xfer_cap_count: 17,
        ..pair.call_sqe(1)
    };
    let overflow = CapSqe {
        addr: u64::MAX - 7,
        len: 0,
        xfer_cap_count: 1,
        ..pair.call_sqe(1)
    };
    for sqe in [misaligned, too_many, overflow] {
        let result = pair.system.result(&mut pair.client, &sqe);
        assert_eq!(result, CAP_ERR_INVALID_TRANSFER_DESCRIPTOR);
    }
    let unmapped = CapSqe {
        addr: Client::NOWHERE,
        len: 0,
        xfer_cap_count: 1,
        ..pair.call_sqe(1)
    };
    let result = pair.system.result(&mut pair.client, &unmapped);
    assert_eq!(result, CAP_ERR_INVALID_PARAMS_BUFFER);
    let release = System::release_sqe(console, 6);
    let result = pair.system.result(&mut pair.client, &release);
    assert_eq!(result, 0, "no reservation is left behind");
}

#[test]
fn the_same_source_moves_once_per_call() {
    let mut pair = Pair::new();
    let timer = pair.client.cap("timer");
    let twice = [
        (timer, CAP_TRANSFER_MODE_MOVE),
        (timer, CAP_TRANSFER_MODE_MOVE),
    ];
    pair.system.put_descriptors(&pair.client, 8, &twice);
    let sqe = CapSqe {
        xfer_cap_count: 2,
        ..pair.call_sqe(1)
    };
    let result = pair.system.result(&mut pair.client, &sqe);
    assert_eq!(result, CAP_ERR_TRANSFER_ABORTED);
    let usable = pair.system.result(&mut pair.client, &call(2, timer, 99));
    assert_eq!(usable, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED);
}

#[test]
fn descriptors_that_change_after_submission_are_not_seen() {
    let mut pair = Pair::new();
    let (console, timer) = (pair.client.cap("console"), pair.client.cap("timer"));
    pair.system
        .put_descriptors(&pair.client, 8, &[(console, 1)]);
    let sqe = CapSqe {
        xfer_cap_count: 1,
        ..pair.call_sqe(1)
    };
    pair.submit_call(&sqe);
    pair.system.put_descriptors(&pair.client, 8, &[(timer, 2)]);
    let message = pair.receive();
    assert_eq!(message.caps[0].1, capos_config::CONSOLE_INTERFACE_ID);
}

#[test]
fn a_full_receiver_aborts_the_call_and_keeps_the_receive() {
    let limits = Limits {
        cap_slots: 5,
        ..Limits::CEILING
    };
    let mut pair = Pair::with(&[CONSOLE, TIMER], limits);
    let timer = pair.client.cap("timer");
    let two = [(timer, 2), (pair.client.cap("console"), 1)];
    pair.system.put_descriptors(&pair.client, 8, &two);
    let recv = System::recv_sqe(pair.endpoint, 20);
    assert!(pair.system.run(&mut pair.owner, &recv).is_none());
    let sqe = CapSqe {
        xfer_cap_count: 2,
        ..pair.call_sqe(1)
    };
    let result = pair.system.result(&mut pair.client, &sqe);
    assert_eq!(result, CAP_ERR_TRANSFER_ABORTED);
    let usable = pair.system.result(&mut pair.client, &call(2, timer, 99));
    assert_eq!(
        usable, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED,
        "given back"
    );
    pair.submit_call(&pair.call_sqe(3));
    assert_eq!(pair.owner.completion().unwrap().user_data, 20);
}

#[test]
fn result_capabilities_follow_the_payload() {
    let mut pair = Pair::new();
    pair.submit_call(&pair.call_sqe(1));
    let message = pair.receive();
    let (console, timer) = (pair.owner.cap("console"), pair.owner.cap("timer"));
    pair.system.poke(&pair.owner, Client::DATA, b"caps");
    let descriptors = [
        (console, CAP_TRANSFER_MODE_COPY),
        (timer, CAP_TRANSFER_MODE_MOVE),
    ];
    pair.system.put_descriptors(&pair.owner, 4, &descriptors);
    let ret = CapSqe {
        xfer_cap_count: 2,
        ..System::return_sqe(pair.endpoint, 2, message.call_id, 4)
    };
    assert_eq!(pair.system.result(&mut pair.owner, &ret), 0);
    let cqe = pair.client.completion().unwrap();
    assert_eq!((cqe.result, cqe.cap_count), (4, 2));
    assert_eq!(cqe.flags, CAP_CQE_TRANSFER_RESULT_CAPS);
    let records = cap_records(&pair.system.peek(&pair.client, RESULT + 4, 32));
    assert_eq!(records[0].1, capos_config::CONSOLE_INTERFACE_ID);
    assert_eq!(records[1].1, capos_config::TIMER_INTERFACE_ID);
    let gone = pair.system.result(&mut pair.owner, &call(3, timer, 0));
    assert_eq!(gone, CAP_ERR_INVOKE_FAILED, "moved away");
    for (id, _) in records {
        let release = System::release_sqe(id, 4);
        assert_eq!(pair.system.result(&mut pair.client, &release), 0);
    }
}

#[test]
fn result_capabilities_that_do_not_fit_stay_with_the_server() {
    let mut pair = Pair::new();
    let short = CapSqe {
        result_len: 90,
        ..pair.call_sqe(1)
    };
    pair.submit_call(&short);
    let message = pair.receive();
    let timer = pair.owner.cap("timer");
    let descriptors = [(timer, CAP_TRANSFER_MODE_MOVE)];
    pair.system.put_descriptors(&pair.owner, 80, &descriptors);
    let ret = CapSqe {
        xfer_cap_count: 1,
        ..System::return_sqe(pair.endpoint, 2, message.call_id, 80)
    };
    let result = pair.system.result(&mut pair.owner, &ret);
    assert_eq!(result, CAP_ERR_TRANSFER_ABORTED);
    let usable = pair.system.result(&mut pair.owner, &call(3, timer, 99));
    assert_eq!(usable, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED);
    assert_eq!(pair.client.completions().len(), 1, "the caller knows");
}

#[test]
fn moves_in_a_cancelled_call_come_back() {
    let mut pair = Pair::new();
    let timer = pair.client.cap("timer");
    pair.system.put_descriptors(&pair.client, 8, &[(timer, 2)]);
    let sqe = CapSqe {
        xfer_cap_count: 1,
        ..pair.call_sqe(1)
    };
    pair.submit_call(&sqe);
    let release = System::release_sqe(pair.endpoint, 2);
    assert_eq!(pair.system.result(&mut pair.owner, &release), 0);
    assert_eq!(pair.client.completions().len(), 1);
    let usable = pair.system.result(&mut pair.client, &call(3, timer, 99));
    assert_eq!(usable, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED);
}

#[test]
fn sessions_bound_transfers_and_hide_callers() {
    let mut system = System::new();
    let owner = system.spawn(&[ENDPOINT, ENDPOINT]);
    let mut alice = SessionInfo::new(b"alice").unwrap();
    alice.principal_kind = 1;
    alice.auth_strength = 1;
    alice.profile_class = 3;
    let alice = system.server.open_session(alice).unwrap();
    let labelled = Grant::held(
        "service",
        owner.pid,
        owner.cap_id("service"),
        Passing::Client {
            interface_id: Some(0xfeed),
            badge: Some(42),
            disclosure_scope: 0b011,
        },
    );
    let client = system.spawn_in(alice, &[labelled, CONSOLE]);
    let (endpoint, facet) = (owner.cap("service"), client.cap("service"));
    let mut pair = Pair {
        system,
        owner,
        client,
        endpoint,
        facet,
    };
    let asking = CapSqe {
        session_disclosure: 0b110,
        ..pair.call_sqe(1)
    };
    pair.submit_call(&asking);
    let message = pair.receive();
    assert_eq!(message.badge, 42);
    assert_eq!(message.header.interface_id, 0xfeed);
    assert_eq!(message.header.disclosed, 0b010, "asked for and allowed");
    assert_eq!(message.header.fields, [0, 1, 0]);
    assert_eq!(message.header.flags, 1, "live");
    let expected = derive_reference(&BootSecret::new([7; 32]), 1, b"alice");
    let oracle = capos_lib::cap_table::derive_endpoint_session_reference(&[7; 32], 1, b"alice");
    assert_eq!(expected.scoped_ref, oracle.scoped_ref);
    assert_eq!(expected.scoped_ref_hi, oracle.scoped_ref_hi);
    assert_eq!(expected.epoch, oracle.epoch);
    let seen = (expected.scoped_ref, expected.scoped_ref_hi);
    assert_eq!(message.header.reference, seen);
    assert_eq!(message.header.epoch, expected.epoch);

    let descriptor = [(pair.client.cap("console"), 1)];
    pair.system.put_descriptors(&pair.client, 8, &descriptor);
    let crossing = CapSqe {
        xfer_cap_count: 1,
        ..pair.call_sqe(2)
    };
    pair.submit_call(&crossing);
    let recv = System::recv_sqe(pair.endpoint, 60);
    assert!(pair.system.run(&mut pair.owner, &recv).is_none());
    let denied = pair.client.completion().unwrap();
    assert_eq!(denied.result, CAP_ERR_TRANSFER_NOT_SUPPORTED);

    pair.system.end_session(alice);
    let late = pair.call_sqe(3);
    let result = pair.system.result(&mut pair.client, &late);
    assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION);
    assert_eq!(pair.exception().0, ExceptionType::Disconnected);
    let refused = pair.system.try_spawn(&[], Limits::CEILING, Some(alice));
    assert_eq!(refused.err(), Some(CreateError::NoSuchSession));
}

#[test]
fn sessions_expire() {
    let mut system = System::new();
    let owner = system.spawn(&[ENDPOINT]);
    let mut info = SessionInfo::new(b"guest").unwrap();
    info.expires_at_ns = 1_000;
    let guest = system.server.open_session(info).unwrap();
    let grant = Grant::client("service", owner.pid, owner.cap_id("service"));
    let mut client = system.spawn_in(guest, &[grant]);
    let sqe = call(1, client.cap("service"), 0);
    assert!(system.run(&mut client, &sqe).is_none(), "live: queued");
    system.pass(1_000);
    let result = system.result(&mut client, &sqe);
    assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED);
}

#[test]
fn a_delegated_facet_keeps_its_labels() {
    let mut pair = Pair::new();
    let source = pair.client.cap_id("service");
    let relabel = |interface_id, badge| {
        Grant::held(
            "service",
            pair.client.pid,
            source,
            Passing::Client {
                interface_id,
                badge,
                disclosure_scope: 7,
            },
        )
    };
    for grant in [relabel(Some(1), None), relabel(None, Some(9))] {
        let refused = pair.system.try_spawn(&[grant], Limits::CEILING, None);
        assert_eq!(refused.err(), Some(CreateError::Relabel));
    }
    let mut child = pair.system.spawn(&[relabel(None, Some(0))]);
    let sqe = CapSqe {
        session_disclosure: 7,
        ..call(1, child.cap("service"), 0)
    };
    assert!(pair.system.run(&mut child, &sqe).is_none());
    let message = pair.receive();
    assert_eq!(message.header.disclosed, 0, "scope is not widened either");
}

#[test]
fn refused_grants_leave_nothing_behind() {
    let mut pair = Pair::new();
    let (owner, cap) = (pair.owner.pid, pair.owner.cap_id("timer"));
    let moving = Grant::held("t", owner, cap, Passing::Move);
    let parked = Grant::held("p", owner, pair.owner.cap_id("park"), Passing::Copy);
    let long = Grant::kernel(
        "a name that is longer than thirty-two bytes",
        KernelCapSource::Console,
    );
    let unsupported = Grant::kernel("x", KernelCapSource::NetworkManager);
    for last in [parked, long, unsupported, moving] {
        let refused = pair
            .system
            .try_spawn(&[ENDPOINT, moving, last], Limits::CEILING, None);
        assert!(refused.is_err());
    }
    let limits = Limits {
        cap_slots: 1,
        ..Limits::CEILING
    };
    let refused = pair.system.try_spawn(&[moving, CONSOLE], limits, None);
    assert_eq!(refused.err(), Some(CreateError::CapSlotsExhausted));
    let child = pair.system.spawn(&[moving]);
    assert_eq!(child.interface("t"), capos_config::TIMER_INTERFACE_ID);
    let timer = pair.owner.cap("timer");
    let gone = pair.system.result(&mut pair.owner, &call(1, timer, 0));
    assert_eq!(gone, CAP_ERR_INVOKE_FAILED, "moved at spawn");
}

#[test]
fn endpoints_need_a_boot_secret() {
    let mut system = System::new();
    system.server = ring_server_core::Server::new();
    let refused = system.try_spawn(&[ENDPOINT], Limits::CEILING, None);
    assert_eq!(refused.err(), Some(CreateError::NoBootSecret));
}

#[test]
fn a_manager_lists_and_revokes_what_its_child_holds() {
    let mut pair = Pair::new();
    let (source, cap) = (pair.owner.pid, pair.owner.cap_id("timer"));
    let mut child = pair.system.spawn(&[
        Grant::held("timer", source, cap, Passing::Copy),
        Grant::held("again", source, cap, Passing::Copy),
        CONSOLE,
    ]);
    let timer = child.cap("timer");
    let grandchild_grant = Grant::held("timer", child.pid, child.cap_id("timer"), Passing::Copy);
    let mut grandchild = pair.system.spawn(&[grandchild_grant]);
    let mut parent = pair.system.spawn(&[Grant::manager("manager", child.pid)]);
    let manager = parent.cap("manager");
    let list = CapSqe {
        result_addr: Client::DATA,
        result_len: 0x4000,
        ..call(1, manager, 0)
    };
    let len = pair.system.result(&mut parent, &list);
    let bytes = pair.system.peek(&parent, Client::DATA, len as usize);
    let rows = support::decode_list(&bytes);
    assert_eq!(rows.len(), 3);
    assert_eq!(
        rows[0],
        (timer, capos_config::TIMER_INTERFACE_ID, "timer".into())
    );
    let params = support::revoke_params(timer);
    pair.system.poke(&parent, Client::DATA, &params);
    let revoke = CapSqe {
        addr: Client::DATA,
        len: params.len() as u32,
        result_addr: RESULT,
        result_len: 1024,
        ..call(2, manager, 1)
    };
    let result = pair.system.result(&mut parent, &revoke);
    assert!(result > 0, "an empty struct is still a message");
    let bytes = pair.system.peek(&parent, RESULT, result as usize);
    support::decode_revoke(&bytes);

    let now = |cap| CapSqe {
        result_addr: RESULT,
        result_len: 0x400,
        ..call(3, cap, 0)
    };
    let again = child.cap("again");
    for cap in [timer, again] {
        let result = pair.system.result(&mut child, &now(cap));
        assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION);
        let (kind, _) = decode_exception(&pair.system.peek(&child, RESULT, 0x400));
        assert_eq!(kind, ExceptionType::Disconnected);
    }
    let derived = grandchild.cap("timer");
    let result = pair.system.result(&mut grandchild, &now(derived));
    assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION, "derived from it");
    let own = pair.owner.cap("timer");
    assert_eq!(
        pair.system.result(&mut pair.owner, &now(own)),
        32,
        "not its source"
    );
    let release = System::release_sqe(timer, 4);
    assert_eq!(pair.system.result(&mut child, &release), 0);

    let params = support::revoke_params(0xdead);
    pair.system.poke(&parent, Client::DATA, &params);
    let result = pair.system.result(&mut parent, &revoke);
    assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION, "no such capability");
    pair.system.kill(child);
    let result = pair.system.result(&mut parent, &list);
    assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION, "its process ended");
}

#[test]
fn parking_follows_the_word() {
    let mut system = System::new();
    let mut client = system.spawn(&[PARK, CONSOLE]);
    let (park, console) = (client.cap("park"), client.cap("console"));
    let second = system.server.create_thread(client.pid).unwrap();
    let third = system.server.create_thread(client.pid).unwrap();
    let word = Client::DATA + 0x100;
    system.poke(&client, word, &5_u32.to_le_bytes());
    let park_sqe = |user_data, tid: ring_server_core::Tid, expected, timeout| CapSqe {
        flags: CAP_SQE_THREAD_OWNED,
        call_id: tid.raw(),
        cap_id: park,
        addr: word,
        len: expected,
        pipeline_dep: timeout,
        ..sqe(CAP_OP_PARK, user_data)
    };
    let main = client.tid;
    let mismatch = system.result(&mut client, &park_sqe(1, main, 4, WAIT_FOREVER));
    assert_eq!(mismatch, PARK_VALUE_MISMATCH);
    let at_once = system.result(&mut client, &park_sqe(2, main, 5, 0));
    assert_eq!(at_once, PARK_TIMED_OUT);

    client.submit(&park_sqe(3, main, 5, 1_000));
    assert_eq!(system.enter(&client, 0, 0), Entry::Block, "PARK blocks");
    system.pass(1_000);
    let cqe = client.completion().unwrap();
    assert_eq!((cqe.user_data, cqe.result), (3, PARK_TIMED_OUT));
    assert_eq!(system.machine.resumed.len(), 1);
    system.machine.resumed.clear();

    for (data, tid) in [(4, main), (5, second)] {
        client.submit(&park_sqe(data, tid, 5, WAIT_FOREVER));
        assert_eq!(system.enter_as(&client, tid, 1, WAIT_FOREVER), Entry::Block);
    }
    let unpark = |user_data, count| CapSqe {
        cap_id: park,
        addr: word,
        len: count,
        ..sqe(CAP_OP_UNPARK, user_data)
    };
    client.submit(&unpark(6, 1));
    assert_eq!(system.enter_as(&client, third, 0, 0), Entry::Resume(2));
    let done: Vec<_> = client
        .completions()
        .iter()
        .map(|c| (c.user_data, c.result))
        .collect();
    assert_eq!(done, [(4, PARK_WOKEN), (6, 1)], "first come, first woken");
    client.submit(&unpark(7, 9));
    system.enter_as(&client, third, 0, 0);
    let done: Vec<_> = client
        .completions()
        .iter()
        .map(|c| (c.user_data, c.result))
        .collect();
    assert_eq!(done, [(5, PARK_WOKEN), (7, 1)]);
    let woken: Vec<_> = system
        .machine
        .resumed
        .drain(..)
        .map(|(t, _)| t.tid)
        .collect();
    assert_eq!(woken, [main, second]);

    let wrong_type = CapSqe {
        cap_id: console,
        ..park_sqe(8, main, 5, 0)
    };
    let misaligned = CapSqe {
        addr: word + 2,
        ..park_sqe(9, main, 5, 0)
    };
    let unreadable = CapSqe {
        addr: Client::NOWHERE,
        ..park_sqe(10, main, 5, 0)
    };
    for (sqe, expected) in [
        (wrong_type, CAP_ERR_INVOKE_FAILED),
        (misaligned, CAP_ERR_INVALID_REQUEST),
        (unreadable, CAP_ERR_INVALID_PARAMS_BUFFER),
        (unpark(11, 0), CAP_ERR_INVALID_REQUEST),
        (unpark(12, 1), 0),
    ] {
        assert_eq!(system.result(&mut client, &sqe), expected);
    }
}

#[test]
fn a_parked_threads_completion_has_room_whatever_else_happens() {
    let mut system = System::new();
    let mut client = system.spawn(&[PARK]);
    let second = system.server.create_thread(client.pid).unwrap();
    let park = CapSqe {
        flags: CAP_SQE_THREAD_OWNED,
        call_id: client.tid.raw(),
        cap_id: client.cap("park"),
        addr: Client::DATA,
        pipeline_dep: 100,
        ..sqe(CAP_OP_PARK, 500)
    };
    client.submit(&park);
    assert_eq!(system.enter(&client, 0, 0), Entry::Block);
    for n in 0..40 {
        if n == 16 || n == 32 {
            system.enter_as(&client, second, 0, 0);
        }
        if n < 36 {
            client.submit(&sqe(CAP_OP_NOP, n));
        }
    }
    let entry = system.enter_as(&client, second, 0, 0);
    assert_eq!(entry, Entry::Resume(31), "one slot is reserved");
    system.pass(100);
    let done = client.completions();
    assert_eq!(done.len(), 32);
    assert_eq!(done[31].user_data, 500);
}

#[test]
fn a_parked_thread_that_ends_gives_its_reservation_back() {
    let mut system = System::new();
    let mut client = system.spawn(&[PARK]);
    let second = system.server.create_thread(client.pid).unwrap();
    let park = |tid: ring_server_core::Tid| CapSqe {
        flags: CAP_SQE_THREAD_OWNED,
        call_id: tid.raw(),
        cap_id: client.cap("park"),
        addr: Client::DATA,
        pipeline_dep: 100,
        ..sqe(CAP_OP_PARK, 1)
    };
    let sqe = park(second);
    client.submit(&sqe);
    assert_eq!(system.enter_as(&client, second, 0, 0), Entry::Block);
    let System { server, machine } = &mut system;
    assert_eq!(server.exit_thread(machine, client.pid, second, 0), None);
    server.check();
    system.pass(1_000);
    assert!(client.completions().is_empty(), "nobody is told");
    let third = system.server.create_thread(client.pid).unwrap();
    assert_ne!(third, second, "thread numbers are not reused");
}

#[test]
fn a_forged_entry_of_a_parked_thread_interrupts_its_park() {
    let mut system = System::new();
    let mut client = system.spawn(&[PARK]);
    let park = CapSqe {
        flags: CAP_SQE_THREAD_OWNED,
        call_id: client.tid.raw(),
        cap_id: client.cap("park"),
        addr: Client::DATA,
        pipeline_dep: WAIT_FOREVER,
        ..sqe(CAP_OP_PARK, 1)
    };
    client.submit(&park);
    assert_eq!(system.enter(&client, 0, 0), Entry::Block);
    assert_eq!(system.enter(&client, 0, 0), Entry::Resume(1));
    assert_eq!(client.completion().unwrap().result, PARK_INTERRUPTED);
}

#[test]
fn descriptor_counts_alone_do_not_pass_for_kernel_objects() {
    let mut pair = Pair::new();
    let console = pair.client.cap("console");
    for count in [1, 16, 17, u16::MAX] {
        let sqe = CapSqe {
            cap_id: console,
            ..copies(count)
        };
        let result = pair.system.result(&mut pair.client, &sqe);
        assert_eq!(result, CAP_ERR_TRANSFER_NOT_SUPPORTED);
    }
}
