//! The terminal: who reads, what a line is, and that nothing typed reaches
//! someone it was not meant for.

use capnp::message::Builder;
use capnp::serialize::write_message_to_words;
use capos_config::KernelCapSource;
use capos_config::capos_capnp::{LineEcho, LineStatus, terminal_session};
use capos_config::ring::*;
use ring_server_core::{Grant, SessionInfo, TYPED_AHEAD_MAX};
use ring_server_model::{Client, System, call};
use sel4_capos_schema::method::READ_EDITED;
use sel4_capos_schema::terminal_capnp::terminal_extension;

const WRITE: u16 = 0;
const WRITE_LINE: u16 = 1;
const READ_LINE: u16 = 2;
const PARAMS: u64 = Client::DATA;
const RESULT: u64 = Client::DATA + 0x1_0000;
const RESULT_BYTES: u32 = 1024;

fn reader(system: &mut System) -> Client {
    system.spawn(&[Grant::kernel("terminal", KernelCapSource::TerminalSession)])
}

fn line_params(prompt: &str, max: u32, echo: LineEcho, allow_empty: bool) -> Vec<u8> {
    let mut message = Builder::new_default();
    let params: terminal_session::read_line_params::Builder<'_> = message.init_root();
    let mut request = params.init_request();
    request.set_prompt(prompt);
    request.set_max_bytes(max);
    request.set_echo(echo);
    request.set_allow_empty(allow_empty);
    write_message_to_words(&message)
}

fn edited_params(prompt: &str, history: &[&str]) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut params: terminal_extension::read_edited_params::Builder<'_> = message.init_root();
    let mut request = params.reborrow().init_request();
    request.set_prompt(prompt);
    request.set_max_bytes(64);
    let mut lines = params.init_history(history.len() as u32);
    for (index, line) in history.iter().enumerate() {
        lines.set(index as u32, *line);
    }
    write_message_to_words(&message)
}

fn request(system: &mut System, client: &mut Client, method: u16, params: &[u8]) -> Option<CapCqe> {
    system.poke(client, PARAMS, params);
    let entry = CapSqe {
        addr: PARAMS,
        len: params.len() as u32,
        result_addr: RESULT,
        result_len: RESULT_BYTES,
        ..call(u64::from(method) + 1, client.cap("terminal"), method)
    };
    let cqe = system.run(client, &entry);
    system.server.check();
    cqe
}

fn read(system: &mut System, client: &mut Client, echo: LineEcho) -> Option<CapCqe> {
    request(
        system,
        client,
        READ_LINE,
        &line_params("> ", 64, echo, false),
    )
}

fn input(system: &mut System, bytes: &[u8]) -> usize {
    let taken = system.server.terminal_input(&mut system.machine, bytes);
    system.server.check();
    taken
}

/// Status and line of a completed read.
fn line(system: &mut System, client: &mut Client, cqe: &CapCqe) -> (LineStatus, Vec<u8>) {
    assert!(cqe.result > 0, "a line: {}", cqe.result);
    let bytes = system.peek(client, RESULT, RESULT_BYTES as usize);
    let mut bytes = &bytes[..cqe.result as usize];
    let options = capos_config::default_reader_options();
    let message = capnp::serialize::read_message(&mut bytes, options).expect("a result");
    let root: terminal_session::read_line_results::Reader<'_> = message.get_root().unwrap();
    (root.get_status().unwrap(), root.get_line().unwrap().into())
}

/// The line that is there now.
fn taken(system: &mut System, client: &mut Client) -> (LineStatus, Vec<u8>) {
    let cqe = client.completion().expect("a completion");
    line(system, client, &cqe)
}

fn submitted(text: &str) -> (LineStatus, Vec<u8>) {
    (LineStatus::Submitted, text.into())
}

fn shown(system: &mut System) -> String {
    String::from_utf8(std::mem::take(&mut system.machine.terminal)).expect("text")
}

#[test]
fn output_goes_out_as_it_is_and_lines_end_as_terminals_want_it() {
    let mut system = System::new();
    let mut client = reader(&mut system);
    let mut message = Builder::new_default();
    let mut params: terminal_session::write_params::Builder<'_> = message.init_root();
    params.set_data(b"a\nb");
    let cqe = request(
        &mut system,
        &mut client,
        WRITE,
        &write_message_to_words(&message),
    );
    assert_eq!(cqe.map(|cqe| (cqe.result, cqe.cap_count)), Some((0, 0)));
    assert_eq!(shown(&mut system), "a\nb");
    let mut message = Builder::new_default();
    let mut params: terminal_session::write_line_params::Builder<'_> = message.init_root();
    params.set_text("one\ntwo");
    let params = write_message_to_words(&message);
    let cqe = request(&mut system, &mut client, WRITE_LINE, &params);
    assert_eq!(cqe.map(|cqe| cqe.result), Some(0));
    assert_eq!(shown(&mut system), "one\r\ntwo\r\n");
}

#[test]
fn a_line_is_prompted_echoed_and_delivered() {
    let mut system = System::new();
    let mut client = reader(&mut system);
    assert!(
        read(&mut system, &mut client, LineEcho::Visible).is_none(),
        "it waits"
    );
    input(&mut system, b"hello\r");
    assert_eq!(taken(&mut system, &mut client), submitted("hello"));
    assert_eq!(shown(&mut system), "> hello\r\n");
}

#[test]
fn a_hidden_line_shows_nothing() {
    let mut system = System::new();
    let mut client = reader(&mut system);
    read(&mut system, &mut client, LineEcho::Hidden);
    input(&mut system, b"pass\x7f\x7f\x7f\x7fsesame\n");
    assert_eq!(taken(&mut system, &mut client), submitted("sesame"));
    assert_eq!(shown(&mut system), "> \r\n");
}

#[test]
fn cancellation_and_end_of_input_are_told_without_bytes() {
    let mut system = System::new();
    let mut client = reader(&mut system);
    for (key, status) in [(3, LineStatus::Cancelled), (4, LineStatus::Closed)] {
        read(&mut system, &mut client, LineEcho::Visible);
        if key == 3 {
            input(&mut system, b"half");
        }
        input(&mut system, &[key]);
        assert_eq!(taken(&mut system, &mut client), (status, Vec::new()));
    }
}

#[test]
fn one_call_reads_at_a_time() {
    let mut system = System::new();
    let (mut first, mut second) = (reader(&mut system), reader(&mut system));
    assert!(
        read(&mut system, &mut first, LineEcho::Visible).is_none(),
        "it waits"
    );
    for client in [&mut first, &mut second] {
        let refused = read(&mut system, client, LineEcho::Visible).expect("at once");
        assert_eq!(refused.result, CAP_ERR_APPLICATION_EXCEPTION);
    }
    input(&mut system, b"mine\r");
    assert_eq!(taken(&mut system, &mut first), submitted("mine"));
}

#[test]
fn what_is_typed_ahead_is_for_the_same_reader() {
    let mut system = System::new();
    let (mut first, mut second) = (reader(&mut system), reader(&mut system));
    read(&mut system, &mut first, LineEcho::Visible);
    input(&mut system, b"one\rtwo\rthree\r");
    assert_eq!(taken(&mut system, &mut first), submitted("one"));
    let cqe = read(&mut system, &mut first, LineEcho::Visible).expect("typed already");
    assert_eq!(line(&mut system, &mut first, &cqe), submitted("two"));
    assert!(
        read(&mut system, &mut second, LineEcho::Visible).is_none(),
        "it waits"
    );
    input(&mut system, b"four\r");
    assert_eq!(taken(&mut system, &mut second), submitted("four"));
}

#[test]
fn stale_input_is_scrubbed_around_secrets_and_cancellations() {
    let mut system = System::new();
    let mut client = reader(&mut system);
    read(&mut system, &mut client, LineEcho::Visible);
    input(&mut system, b"x\rstale\r");
    taken(&mut system, &mut client);
    assert!(
        read(&mut system, &mut client, LineEcho::Hidden).is_none(),
        "it waits"
    );
    input(&mut system, b"secret\rmore\r");
    assert_eq!(taken(&mut system, &mut client), submitted("secret"));
    assert!(
        read(&mut system, &mut client, LineEcho::Visible).is_none(),
        "it waits"
    );
    input(&mut system, b"half\x03stale\r");
    assert_eq!(taken(&mut system, &mut client).0, LineStatus::Cancelled);
    input(&mut system, b"fresh");
    read(&mut system, &mut client, LineEcho::Visible);
    assert!(client.completion().is_none(), "it waits");
}

#[test]
fn input_that_nobody_reads_is_bounded_and_the_sender_waits() {
    let mut system = System::new();
    let mut client = reader(&mut system);
    read(&mut system, &mut client, LineEcho::Visible);
    input(&mut system, b"\r\x1b");
    input(&mut system, b"[Cx\r");
    taken(&mut system, &mut client);
    let many = vec![b'y'; TYPED_AHEAD_MAX + 10];
    assert_eq!(input(&mut system, &many), TYPED_AHEAD_MAX);
    assert_eq!(system.server.terminal_room(), 0);
    read(&mut system, &mut client, LineEcho::Visible);
    assert_eq!(system.server.terminal_room(), TYPED_AHEAD_MAX);
}

/// Y1: a reader that is gone is charged for nothing.
#[test]
fn a_reader_that_goes_gives_everything_back() {
    let mut system = System::new();
    let mut first = reader(&mut system);
    read(&mut system, &mut first, LineEcho::Visible);
    input(&mut system, b"half a li");
    let release = System::release_sqe(first.cap("terminal"), 77);
    let ended = system.run(&mut first, &release).map(|cqe| cqe.result);
    system.server.check();
    assert_eq!(ended, Some(CAP_ERR_APPLICATION_EXCEPTION), "the read");
    let released = first.completion().map(|cqe| cqe.result);
    assert_eq!(released, Some(0), "the release");
    let mut second = reader(&mut system);
    read(&mut system, &mut second, LineEcho::Visible);
    system.kill(second);
    system.server.check();
    let mut third = reader(&mut system);
    assert!(
        read(&mut system, &mut third, LineEcho::Visible).is_none(),
        "it waits"
    );
}

#[test]
fn history_is_recalled_by_the_up_key() {
    let mut system = System::new();
    let mut client = reader(&mut system);
    let params = edited_params("$ ", &["first", "second"]);
    assert!(
        request(&mut system, &mut client, READ_EDITED, &params).is_none(),
        "it waits"
    );
    input(&mut system, b"\x1b[A\x1b[A\r");
    assert_eq!(taken(&mut system, &mut client), submitted("first"));
}

#[test]
fn history_is_there_for_keys_that_were_typed_ahead() {
    let mut system = System::new();
    let mut client = reader(&mut system);
    assert!(read(&mut system, &mut client, LineEcho::Visible).is_none());
    input(&mut system, b"first\r\x1b[A\r");
    assert_eq!(taken(&mut system, &mut client), submitted("first"));
    let params = edited_params("> ", &["old", "older"]);
    let cqe = request(&mut system, &mut client, READ_EDITED, &params).expect("typed ahead");
    assert_eq!(line(&mut system, &mut client, &cqe), submitted("older"));
}

#[test]
fn an_expired_session_neither_writes_nor_reads() {
    let mut system = System::new();
    let mut info = SessionInfo::new(b"guest").expect("an identity");
    info.expires_at_ns = 1_000;
    let session = system.server.open_session(info).expect("room");
    let grants = [Grant::kernel("terminal", KernelCapSource::TerminalSession)];
    let mut client = system.spawn_in(session, &grants);
    assert!(
        read(&mut system, &mut client, LineEcho::Visible).is_none(),
        "it waits"
    );
    system.machine.now_ns = 2_000;
    input(&mut system, b"x");
    let ended = client.completion().expect("the read ends");
    assert_eq!(ended.result, CAP_ERR_APPLICATION_EXCEPTION);
    for method in [WRITE, WRITE_LINE, READ_LINE] {
        let cqe = request(&mut system, &mut client, method, &[]).expect("at once");
        assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);
    }
}

#[test]
fn bad_requests_are_refused_and_leave_no_reader() {
    let mut system = System::new();
    let mut client = reader(&mut system);
    let long = "p".repeat(300);
    for params in [
        line_params(&long, 64, LineEcho::Visible, false),
        line_params("", 0, LineEcho::Visible, false),
        vec![0xff; 64],
    ] {
        let cqe = request(&mut system, &mut client, READ_LINE, &params).expect("at once");
        assert_eq!(cqe.result, CAP_ERR_APPLICATION_EXCEPTION);
    }
    let unknown = request(&mut system, &mut client, 99, &[]).expect("at once");
    assert_eq!(unknown.result, CAP_ERR_APPLICATION_EXCEPTION);
    assert!(
        read(&mut system, &mut client, LineEcho::Visible).is_none(),
        "it waits"
    );
}

#[test]
fn random_input_never_breaks_an_invariant() {
    let mut system = System::new();
    let mut client = reader(&mut system);
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut waiting = false;
    for _ in 0..50_000 {
        if !waiting {
            let echo = match next() % 2 {
                0 => LineEcho::Visible,
                _ => LineEcho::Hidden,
            };
            let max = 1 + (next() % 300) as u32;
            let params = line_params("> ", max, echo, next() % 2 == 0);
            waiting = request(&mut system, &mut client, READ_LINE, &params).is_none();
        }
        let byte = match next() % 4 {
            0 => {
                b"\r\n\x03\x04\x1b[ABCDOH~\x7f\x08\x15\x17\x0b\x0c\x01\x05"[(next() % 21) as usize]
            }
            _ => next() as u8,
        };
        system.server.terminal_input(&mut system.machine, &[byte]);
        if client.completion().is_some() {
            waiting = false;
        }
        system.machine.terminal.clear();
    }
    system.server.check();
}
