//! Notifications: bits coalesce, the first waiter takes the word, a signaller
//! sets what it is for; and what release, revocation and exit do to waiters.

mod support;

use std::collections::VecDeque;

use capnp::message::Builder;
use capnp::serialize::write_message_to_words;
use capos_config::KernelCapSource;
use capos_config::capos_capnp::ExceptionType;
use capos_config::ring::*;
use ring_server_core::{CapId, Grant, Limits, NOTIFICATION_WAITS_MAX, NOTIFICATIONS_MAX, Passing};
use ring_server_model::{Client, System, call, cap_records};
use sel4_capos_schema::method::{CREATE_NOTIFICATION, POLL, SIGNAL, SIGNALLER, WAIT};
use sel4_capos_schema::notification_capnp::notification;
use sel4_capos_schema::{NOTIFICATION_INTERFACE_ID, SIGNALLER_INTERFACE_ID};

const SPAWNER: u32 = 0;
const RESULT: u64 = Client::DATA + 0x3_0000;

fn word_params(word: u64) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: notification::signal_params::Builder<'_> = message.init_root();
    params.set_bits(word);
    write_message_to_words(&message)
}

fn entry(user_data: u64, cap: u32, method: u16) -> CapSqe {
    CapSqe {
        result_addr: RESULT,
        result_len: 256,
        ..call(user_data, cap, method)
    }
}

fn with_word(system: &mut System, client: &Client, word: u64, entry: CapSqe) -> CapSqe {
    let params = word_params(word);
    system.poke(client, Client::DATA, &params);
    CapSqe {
        addr: Client::DATA,
        len: params.len() as u32,
        ..entry
    }
}

fn maker(system: &mut System) -> Client {
    system.spawn(&[Grant::kernel("spawner", KernelCapSource::ProcessSpawner)])
}

/// The only capability of a result.
fn given(system: &System, client: &Client, cqe: &CapCqe) -> (u32, u64) {
    assert!(cqe.result > 0, "given: {}", cqe.result);
    assert_eq!(cqe.cap_count, 1);
    let at = RESULT + cqe.result as u64;
    cap_records(&system.peek(client, at, 16))[0]
}

fn create(system: &mut System, client: &mut Client) -> u32 {
    let made = entry(1, SPAWNER, CREATE_NOTIFICATION);
    let cqe = system.run(client, &made).expect("at once");
    let (cap, interface) = given(system, client, &cqe);
    assert_eq!(interface, NOTIFICATION_INTERFACE_ID);
    cap
}

fn signaller(system: &mut System, client: &mut Client, cap: u32, badge: u64) -> u32 {
    let made = with_word(system, client, badge, entry(2, cap, SIGNALLER));
    let cqe = system.run(client, &made).expect("at once");
    let (cap, interface) = given(system, client, &cqe);
    assert_eq!(interface, SIGNALLER_INTERFACE_ID);
    cap
}

/// Signals; the exception if it is refused.
fn signal(
    system: &mut System,
    client: &mut Client,
    cap: u32,
    bits: u64,
) -> Result<(), ExceptionType> {
    let sqe = with_word(system, client, bits, entry(3, cap, SIGNAL));
    client.submit(&sqe);
    system.enter(client, 0, 0);
    // A wait of the same process may complete first.
    let mut cqes = client.completions();
    let at = cqes.iter().position(|cqe| cqe.user_data == 3);
    let cqe = cqes.remove(at.expect("at once"));
    assert!(cqes.is_empty(), "nothing else waits here");
    match cqe.result {
        0 => Ok(()),
        result => {
            assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION);
            Err(support::decode_exception(&system.peek(client, RESULT, 192)).0)
        }
    }
}

fn bits_at(system: &System, client: &Client, cqe: &CapCqe) -> u64 {
    assert_eq!(cqe.result, 24, "a word");
    let bytes = system.peek(client, RESULT, 24);
    let message =
        capnp::serialize::read_message(&mut &bytes[..], capos_config::default_reader_options())
            .expect("a result");
    let root: notification::wait_results::Reader<'_> = message.get_root().unwrap();
    root.get_bits()
}

fn poll(system: &mut System, client: &mut Client, cap: u32) -> u64 {
    let cqe = system.run(client, &entry(4, cap, POLL)).expect("at once");
    bits_at(system, client, &cqe)
}

fn wait(system: &mut System, client: &mut Client, cap: u32) -> Option<CapCqe> {
    system.run(client, &entry(5, cap, WAIT))
}

fn kind_at(system: &System, client: &Client, cqe: &CapCqe) -> ExceptionType {
    assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);
    support::decode_exception(&system.peek(client, RESULT, 192)).0
}

/// A process that holds a copy of `cap`.
fn with_copy(system: &mut System, of: &Client, cap: u32, passing: Passing) -> (Client, u32) {
    let grant = Grant::held("n", of.pid, CapId::from_raw(cap), passing);
    let client = system.spawn(&[grant]);
    let cap = client.cap("n");
    (client, cap)
}

#[test]
fn bits_coalesce_and_are_taken_once() {
    let mut system = System::new();
    let mut client = maker(&mut system);
    let cap = create(&mut system, &mut client);
    assert_eq!(poll(&mut system, &mut client, cap), 0);
    for bits in [1, 8, 1 << 63, 8] {
        assert_eq!(signal(&mut system, &mut client, cap, bits), Ok(()));
    }
    let cqe = wait(&mut system, &mut client, cap).expect("there are bits");
    assert_eq!(bits_at(&system, &client, &cqe), 9 | 1 << 63);
    assert!(
        wait(&mut system, &mut client, cap).is_none(),
        "the word is taken"
    );
    system.kill(client);
    assert!(system.server.is_idle());
}

#[test]
fn waiters_are_served_in_order_one_for_each_signal() {
    let mut system = System::new();
    let mut client = maker(&mut system);
    let cap = create(&mut system, &mut client);
    let mut waiters: VecDeque<_> = (0..4)
        .map(|_| {
            let (mut waiter, n) = with_copy(&mut system, &client, cap, Passing::Copy);
            assert!(wait(&mut system, &mut waiter, n).is_none());
            waiter
        })
        .collect();
    // One in the middle goes: the others keep their places.
    let gone = waiters.remove(2).unwrap();
    system.kill(gone);
    for round in 1..=3_u64 {
        assert_eq!(signal(&mut system, &mut client, cap, round), Ok(()));
        let mut served = waiters.pop_front().unwrap();
        let cqe = served.completion().expect("its turn");
        assert_eq!(bits_at(&system, &served, &cqe), round);
        for waiter in &mut waiters {
            assert!(waiter.completion().is_none(), "not its turn");
        }
    }
    assert_eq!(signal(&mut system, &mut client, cap, 64), Ok(()));
    assert_eq!(poll(&mut system, &mut client, cap), 64, "nobody waits");
}

#[test]
fn a_signaller_sets_its_bits_and_can_do_nothing_else() {
    let mut system = System::new();
    let mut client = maker(&mut system);
    let cap = create(&mut system, &mut client);
    let invalid = Err(ExceptionType::InvalidArgument);
    assert_eq!(signal(&mut system, &mut client, cap, 0), invalid);
    let badged = signaller(&mut system, &mut client, cap, 0b110);
    assert_eq!(signal(&mut system, &mut client, badged, 0), Ok(()));
    assert_eq!(poll(&mut system, &mut client, cap), 0b110, "its badge");
    assert_eq!(signal(&mut system, &mut client, badged, 0b010), Ok(()));
    assert_eq!(signal(&mut system, &mut client, badged, 0b011), invalid);
    assert_eq!(poll(&mut system, &mut client, cap), 0b010);
    let any = signaller(&mut system, &mut client, cap, 0);
    assert_eq!(signal(&mut system, &mut client, any, 0), invalid);
    assert_eq!(signal(&mut system, &mut client, any, 77), Ok(()));
    for method in [WAIT, POLL, SIGNALLER, 9] {
        let cqe = system.run(&mut client, &entry(6, badged, method)).unwrap();
        let kind = kind_at(&system, &client, &cqe);
        assert_eq!(kind, ExceptionType::Unimplemented, "method {method}");
    }
    // The badge goes along and cannot be changed.
    let (mut other, n) = with_copy(&mut system, &client, badged, Passing::Copy);
    assert_eq!(signal(&mut system, &mut other, n, 0b100), Ok(()));
    assert_eq!(signal(&mut system, &mut other, n, 1), invalid);
    assert_eq!(poll(&mut system, &mut client, cap), 77 | 0b100);
    system.kill(other);
    system.kill(client);
    assert!(system.server.is_idle());
}

#[test]
fn the_last_holder_to_go_disconnects_who_waits() {
    let mut system = System::new();
    let mut client = maker(&mut system);
    let cap = create(&mut system, &mut client);
    assert!(wait(&mut system, &mut client, cap).is_none());
    client.submit(&System::release_sqe(cap, 7));
    system.enter(&client, 0, 0);
    let cqes = client.completions();
    let waited = cqes
        .iter()
        .find(|cqe| cqe.user_data == 5)
        .expect("answered");
    let kind = kind_at(&system, &client, waited);
    assert_eq!(kind, ExceptionType::Disconnected);
    assert_eq!(system.server.books().notifications, 0);
    system.kill(client);
    assert!(system.server.is_idle());
}

#[test]
fn a_result_that_cannot_be_written_loses_no_bit() {
    let mut system = System::new();
    let mut client = maker(&mut system);
    let cap = create(&mut system, &mut client);
    let (mut waiter, n) = with_copy(&mut system, &client, cap, Passing::Copy);
    let short = CapSqe {
        result_len: 8,
        ..entry(5, n, WAIT)
    };
    assert!(system.run(&mut waiter, &short).is_none());
    assert_eq!(signal(&mut system, &mut client, cap, 5), Ok(()));
    let cqe = waiter.completion().expect("told");
    assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED);
    let lost = CapSqe {
        result_addr: Client::RODATA,
        ..entry(5, cap, POLL)
    };
    let result = system.result(&mut client, &lost);
    assert_eq!(result, CAP_ERR_INVALID_RESULT_BUFFER);
    assert_eq!(poll(&mut system, &mut client, cap), 5);
}

#[test]
fn making_and_waiting_have_quotas_that_are_given_back() {
    let mut system = System::new();
    let mut client = maker(&mut system);
    for _ in 0..2 {
        let made: Vec<u32> = (0..NOTIFICATIONS_MAX)
            .map(|_| create(&mut system, &mut client))
            .collect();
        let more = entry(1, SPAWNER, CREATE_NOTIFICATION);
        let cqe = system.run(&mut client, &more).expect("at once");
        let kind = kind_at(&system, &client, &cqe);
        assert_eq!(kind, ExceptionType::Overloaded);
        for cap in made {
            let released = System::release_sqe(cap, 8);
            assert_eq!(system.result(&mut client, &released), 0);
        }
    }
    let cap = create(&mut system, &mut client);
    for _ in 0..NOTIFICATION_WAITS_MAX {
        assert!(wait(&mut system, &mut client, cap).is_none());
    }
    let cqe = wait(&mut system, &mut client, cap).expect("refused");
    let kind = kind_at(&system, &client, &cqe);
    assert_eq!(kind, ExceptionType::Overloaded);
    // A process that ends while others hold what it made is not in the way.
    let (mut heir, n) = with_copy(&mut system, &client, cap, Passing::Copy);
    system.kill(client);
    assert_eq!(signal(&mut system, &mut heir, n, 1), Ok(()));
    assert_eq!(poll(&mut system, &mut heir, n), 1);
    system.kill(heir);
    assert!(system.server.is_idle());
}

#[test]
fn a_notification_that_does_not_fit_leaves_nothing() {
    let mut system = System::new();
    let grants = [Grant::kernel("spawner", KernelCapSource::ProcessSpawner)];
    let limits = Limits {
        cap_slots: 2,
        ..Limits::CEILING
    };
    let mut client = system.spawn_limited(&grants, limits);
    let before = system.server.books();
    for len in [0, 16, 39] {
        let short = CapSqe {
            result_len: len,
            ..entry(1, SPAWNER, CREATE_NOTIFICATION)
        };
        assert!(system.result(&mut client, &short) < 0);
        assert_eq!(system.server.books(), before);
    }
    let cap = create(&mut system, &mut client);
    let before = system.server.books();
    let made = with_word(&mut system, &client, 1, entry(2, cap, SIGNALLER));
    let cqe = system.run(&mut client, &made).expect("at once");
    let kind = kind_at(&system, &client, &cqe);
    assert_eq!(kind, ExceptionType::Overloaded, "no slot for a signaller");
    assert_eq!(system.server.books(), before);
}
