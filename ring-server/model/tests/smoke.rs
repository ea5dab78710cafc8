//! What the published smoke program does, step by step, against the core:
//! first as raw ring entries, then with the published client library.

mod support;

use capos_config::KernelCapSource;
use capos_config::ring::{
    CAP_ERR_APPLICATION_EXCEPTION, CAP_ERR_INVALID_REQUEST, CAP_ERR_INVOKE_FAILED,
    CAP_ERR_TRANSFER_NOT_SUPPORTED, CAP_OP_RELEASE, CapSqe,
};
use capos_rt::{
    CapabilityRef, ClientError, ConsoleClient, CopyTransfer, ExceptionType, TimerClient,
    Transport as _, TransportError, decode_completed_call,
};
use ring_server_core::Grant;
use ring_server_model::{Client, System, call, sqe};
use support::PublishedClient;

const CONSOLE: Grant<'static> = Grant::kernel("console", KernelCapSource::Console);
const TIMER: Grant<'static> = Grant::kernel("timer", KernelCapSource::Timer);

#[test]
fn raw_entries_get_the_answers_the_smoke_program_expects() {
    let mut system = System::new();
    let mut client = system.spawn(&[CONSOLE]);
    let console = client.cap("console");

    let unknown_method = CapSqe {
        result_addr: Client::DATA,
        result_len: 512,
        ..call(1, console, 99)
    };
    let result = system.result(&mut client, &unknown_method);
    assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION);
    let bytes = system.peek(&client, Client::DATA, 512);
    let (kind, message) = support::decode_exception(&bytes);
    assert_eq!(
        kind,
        capos_config::capos_capnp::ExceptionType::Unimplemented
    );
    assert_eq!(message, "no such method");

    let params = support::write_line_params("hello");
    system.poke(&client, Client::DATA, &params);
    let write_line = CapSqe {
        addr: Client::DATA,
        len: params.len() as u32,
        ..call(2, console, 1)
    };
    assert_eq!(system.result(&mut client, &write_line), 0);
    assert_eq!(system.console(), "hello\n");

    let with_descriptor = CapSqe {
        xfer_cap_count: 1,
        user_data: 3,
        ..write_line
    };
    let result = system.result(&mut client, &with_descriptor);
    assert_eq!(result, CAP_ERR_TRANSFER_NOT_SUPPORTED);
    assert_eq!(system.console(), "", "a refused call has no effect");
    assert_eq!(system.result(&mut client, &write_line), 0);
    assert_eq!(system.console(), "hello\n", "the source stays live");

    let release = CapSqe {
        cap_id: console,
        ..sqe(CAP_OP_RELEASE, 4)
    };
    assert_eq!(system.result(&mut client, &release), 0);
    let again = system.result(&mut client, &release);
    assert_eq!(again, CAP_ERR_INVALID_REQUEST, "a stale release is -1");
    let stale = system.result(&mut client, &write_line);
    assert_eq!(stale, CAP_ERR_INVOKE_FAILED, "a stale call is -4");
    assert_eq!(system.console(), "");
}

#[test]
fn the_published_client_library_is_satisfied() {
    let mut client = PublishedClient::new(&[CONSOLE, TIMER]);
    let console_cap = CapabilityRef::new(client.cap("console"), capos_config::CONSOLE_INTERFACE_ID)
        .typed()
        .expect("interface matches");
    let mut console = ConsoleClient::new(console_cap);

    let call = client
        .submit_call(console_cap.cap_id(), 99, Box::new([]), vec![0; 512].into())
        .unwrap();
    let completion = client.wait(call, u64::MAX).unwrap();
    match decode_completed_call(&completion) {
        Err(ClientError::Application(exception)) => {
            assert_eq!(exception.exception_type(), ExceptionType::Unimplemented);
        }
        _ => panic!("an unknown method raises Unimplemented"),
    }

    console
        .write_line_wait(&mut client, "typed", u64::MAX)
        .unwrap();
    console
        .write_wait(&mut client, b"raw \xff bytes", u64::MAX)
        .unwrap();
    let transfer = [CopyTransfer::from_capability(console_cap)];
    let call = console
        .write_line_with_copy_transfers(&mut client, "no", &transfer)
        .unwrap();
    match console.wait(&mut client, call, u64::MAX) {
        Err(ClientError::Transport(TransportError::TransferNotSupported)) => {}
        _ => panic!("a kernel object takes no descriptors"),
    }
    console
        .write_line_wait(&mut client, "still live", u64::MAX)
        .unwrap();
    assert_eq!(client.console(), b"typed\nraw \xff bytesstill live\n");

    let timer_cap = CapabilityRef::new(client.cap("timer"), capos_config::TIMER_INTERFACE_ID)
        .typed()
        .expect("interface matches");
    let mut timer = TimerClient::new(timer_cap);
    let before = timer.now_wait(&mut client, u64::MAX).unwrap();
    timer.sleep_wait(&mut client, 20_000_000, u64::MAX).unwrap();
    let after = timer.now_wait(&mut client, u64::MAX).unwrap();
    assert!(after.monotonic_ns >= before.monotonic_ns + 20_000_000);
    assert!(after.tick >= before.tick + 2);

    let released = client.release_wait(console_cap.cap_id(), u64::MAX).unwrap();
    assert_eq!(released, 0);
    let released = client.release_wait(console_cap.cap_id(), u64::MAX).unwrap();
    assert_eq!(released, CAP_ERR_INVALID_REQUEST);
    match console.write_line_wait(&mut client, "gone", u64::MAX) {
        Err(ClientError::Transport(TransportError::InvokeFailed)) => {}
        _ => panic!("a released capability cannot be called"),
    }
}
