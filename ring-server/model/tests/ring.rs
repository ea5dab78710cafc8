//! Ring discipline under honest and hostile clients.

mod support;

use capos_config::KernelCapSource;
use capos_config::ring::*;
use ring_server_core::{
    Diagnostic, ENTER_REJECTED, ENTER_THREAD_OWNED_HEAD, Entry, Grant, Limits, RingPage, RingWord,
    Tid, WAIT_FOREVER,
};
use ring_server_model::{Client, System, call, sqe};
use support::{decode_exception, sleep_params, write_line_params};

const CONSOLE: Grant<'static> = Grant::kernel("console", KernelCapSource::Console);
const TIMER: Grant<'static> = Grant::kernel("timer", KernelCapSource::Timer);

fn nop(user_data: u64) -> CapSqe {
    sqe(CAP_OP_NOP, user_data)
}

#[test]
fn a_full_queue_is_drained_in_order_in_one_entry() {
    let mut system = System::new();
    let mut client = system.spawn(&[]);
    for n in 0..16 {
        client.submit(&nop(n));
    }
    assert_eq!(system.enter(&client, 16, WAIT_FOREVER), Entry::Resume(16));
    let data: Vec<u64> = client.completions().iter().map(|c| c.user_data).collect();
    assert_eq!(data, (0..16).collect::<Vec<_>>());
}

#[test]
fn indices_wrap_around() {
    let mut system = System::new();
    let mut client = system.spawn(&[]);
    for round in 0..1000 {
        for n in 0..7 {
            client.submit(&nop(round * 7 + n));
        }
        assert_eq!(system.enter(&client, 0, 0), Entry::Resume(7));
        assert_eq!(client.completions().len(), 7);
    }
}

#[test]
fn entry_arguments_are_checked() {
    let mut system = System::new();
    let client = system.spawn(&[]);
    let rejected = Entry::Resume(ENTER_REJECTED);
    assert_eq!(system.enter(&client, 33, 0), rejected);
    assert_eq!(system.enter(&client, u64::MAX, WAIT_FOREVER), rejected);
    assert_eq!(system.enter(&client, 1 << 32, 0), rejected, "not truncated");
    assert_eq!(system.enter(&client, 32, 0), Entry::Resume(0));
    let stranger = Tid::from_raw(9);
    assert_eq!(system.enter_as(&client, stranger, 0, 0), rejected);
}

#[test]
fn every_opcode_answers_as_the_abi_says() {
    let mut system = System::new();
    let mut client = system.spawn(&[]);
    for opcode in 0..=u8::MAX {
        let expected = match opcode {
            CAP_OP_NOP => 0,
            CAP_OP_FINISH => CAP_ERR_UNSUPPORTED_OPCODE,
            // An all-zero entry of these names capability 0, which is absent.
            CAP_OP_CALL | CAP_OP_RETURN | CAP_OP_RECV | CAP_OP_UNPARK => CAP_ERR_INVOKE_FAILED,
            // RELEASE of an absent capability; malformed CANCEL and PARK; rest.
            _ => CAP_ERR_INVALID_REQUEST,
        };
        let result = system.result(&mut client, &sqe(opcode, opcode.into()));
        assert_eq!(result, expected, "opcode {opcode}");
    }
}

#[test]
fn a_corrupted_tail_discards_and_the_process_goes_on() {
    let mut system = System::new();
    let mut client = system.spawn(&[]);
    for wild in [17, 1000, u32::MAX] {
        client.submit(&nop(1));
        client.ring.store(RingWord::SqTail, wild);
        assert_eq!(system.enter(&client, 0, 0), Entry::Resume(0));
        assert_eq!(client.ring.load(RingWord::SqHead), wild, "head follows");
        client.resynchronise();
        assert_eq!(system.result(&mut client, &nop(2)), 0, "usable again");
    }
}

#[test]
fn a_corrupted_completion_head_recovers() {
    let mut system = System::new();
    let mut client = system.spawn(&[]);
    client.submit(&nop(1));
    system.enter(&client, 0, 0);
    client.ring.store(RingWord::CqHead, 77);
    assert_eq!(system.enter(&client, 0, 0), Entry::Resume(0));
    assert_eq!(
        client.ring.load(RingWord::CqHead),
        client.ring.load(RingWord::CqTail)
    );
    client.resynchronise();
    assert_eq!(system.result(&mut client, &nop(2)), 0);
}

#[test]
fn header_constants_in_the_page_are_not_trusted() {
    let mut system = System::new();
    let mut client = system.spawn(&[]);
    for offset in (0..128).step_by(4) {
        let word = RingWord::SqTail.offset();
        let head = RingWord::CqHead.offset();
        if offset != word && offset != head {
            client.ring.store_at(offset, 0xdead_beef);
        }
    }
    client.ring.store(RingWord::SqHead, 0);
    client.ring.store(RingWord::CqTail, 0);
    client.ring.store(RingWord::CqHead, 0);
    assert_eq!(system.result(&mut client, &nop(5)), 0);
    assert_eq!(client.ring.load(RingWord::SqHead), 1, "rewritten");
}

#[test]
fn a_full_completion_queue_stops_consumption_and_loses_nothing() {
    let mut system = System::new();
    let mut client = system.spawn(&[]);
    for n in 0..48 {
        client.submit(&nop(n));
        if n % 16 == 15 {
            system.enter(&client, 0, 0);
        }
    }
    assert_eq!(client.ring.load(RingWord::SqHead), 32, "the rest waits");
    assert_eq!(system.enter(&client, 32, WAIT_FOREVER), Entry::Resume(32));
    let mut seen: Vec<u64> = client.completions().iter().map(|c| c.user_data).collect();
    assert_eq!(system.enter(&client, 0, 0), Entry::Resume(16));
    seen.extend(client.completions().iter().map(|c| c.user_data));
    assert_eq!(seen, (0..48).collect::<Vec<_>>());
    assert_eq!(client.ring.load(RingWord::CqOverflow), 0);
}

#[test]
fn late_completions_wait_for_room_and_come_before_new_work() {
    let mut system = System::new();
    let mut client = system.spawn(&[TIMER]);
    let params = sleep_params(1_000);
    system.poke(&client, Client::DATA, &params);
    let sleep = CapSqe {
        addr: Client::DATA,
        len: params.len() as u32,
        ..call(100, client.cap("timer"), 1)
    };
    client.submit(&sleep);
    system.enter(&client, 0, 0);
    for n in 0..32 {
        client.submit(&nop(n));
        system.enter(&client, 0, 0);
    }
    system.pass(2_000);
    client.submit(&nop(33));
    assert_eq!(system.enter(&client, 0, 0), Entry::Resume(32));
    assert_eq!(client.completions().len(), 32);
    assert_eq!(system.enter(&client, 0, 0), Entry::Resume(2));
    let data: Vec<u64> = client.completions().iter().map(|c| c.user_data).collect();
    assert_eq!(data, [100, 33], "the late completion is first");
}

#[test]
fn waiting_ends_with_enough_completions_or_the_timeout() {
    let mut system = System::new();
    let mut client = system.spawn(&[TIMER]);
    assert_eq!(system.enter(&client, 1, 5_000), Entry::Block);
    system.pass(4_999);
    assert!(system.machine.resumed.is_empty());
    system.pass(1);
    let resumed: Vec<u64> = system
        .machine
        .resumed
        .drain(..)
        .map(|(_, rax)| rax)
        .collect();
    assert_eq!(resumed, [0], "a timeout answers the count");

    let params = sleep_params(100);
    system.poke(&client, Client::DATA, &params);
    let timer = client.cap("timer");
    for n in 0..2 {
        client.submit(&CapSqe {
            addr: Client::DATA,
            len: params.len() as u32,
            ..call(n, timer, 1)
        });
    }
    assert_eq!(system.enter(&client, 2, WAIT_FOREVER), Entry::Block);
    system.pass(100);
    let resumed: Vec<u64> = system
        .machine
        .resumed
        .drain(..)
        .map(|(_, rax)| rax)
        .collect();
    assert_eq!(resumed, [2]);
    assert_eq!(system.server.next_deadline(), None, "nothing is left armed");
}

#[test]
fn a_process_has_one_waiter() {
    let mut system = System::new();
    let client = system.spawn(&[]);
    let second = system.server.create_thread(client.pid).unwrap();
    assert_eq!(system.enter(&client, 1, WAIT_FOREVER), Entry::Block);
    let other = system.enter_as(&client, second, 1, WAIT_FOREVER);
    assert_eq!(other, Entry::Resume(0), "the second gets the count at once");
}

#[test]
fn another_threads_work_wakes_the_waiter() {
    let mut system = System::new();
    let mut client = system.spawn(&[]);
    let second = system.server.create_thread(client.pid).unwrap();
    assert_eq!(system.enter(&client, 1, WAIT_FOREVER), Entry::Block);
    client.submit(&nop(1));
    assert_eq!(system.enter_as(&client, second, 0, 0), Entry::Resume(1));
    assert_eq!(system.machine.resumed.len(), 1);
    assert_eq!(system.machine.resumed[0].0.tid, Tid::MAIN);
}

#[test]
fn a_thread_owned_head_stays_for_its_owner() {
    let mut system = System::new();
    let mut client = system.spawn(&[CONSOLE]);
    let second = system.server.create_thread(client.pid).unwrap();
    let owned = CapSqe {
        flags: CAP_SQE_THREAD_OWNED,
        call_id: second.raw(),
        ..call(1, client.cap("console"), 99)
    };
    client.submit(&owned);
    let entry = system.enter(&client, 1, WAIT_FOREVER);
    assert_eq!(entry, Entry::Resume(ENTER_THREAD_OWNED_HEAD));
    assert_eq!(client.ring.load(RingWord::SqHead), 0, "not consumed");
    let entry = system.enter_as(&client, second, 1, WAIT_FOREVER);
    assert_eq!(entry, Entry::Resume(1));
    client.completions();
    client.submit(&nop(2));
    client.submit(&owned);
    let entry = system.enter(&client, 1, WAIT_FOREVER);
    assert_eq!(entry, Entry::Resume(1), "what is there is not hidden");
}

#[test]
fn hostile_pointers_are_transport_errors() {
    let mut system = System::new();
    let mut client = system.spawn(&[CONSOLE, TIMER]);
    let (console, timer) = (client.cap("console"), client.cap("timer"));
    for addr in [
        0,
        Client::NOWHERE,
        u64::MAX - 4,
        1 << 47,
        0xffff_8000_0000_0000,
    ] {
        let bad_params = CapSqe {
            addr,
            len: 64,
            ..call(1, console, 0)
        };
        let result = system.result(&mut client, &bad_params);
        assert_eq!(result, CAP_ERR_INVALID_PARAMS_BUFFER, "{addr:#x}");
        let bad_result = CapSqe {
            result_addr: addr,
            result_len: 64,
            ..call(2, timer, 0)
        };
        let result = system.result(&mut client, &bad_result);
        assert_eq!(result, CAP_ERR_INVALID_RESULT_BUFFER, "{addr:#x}");
    }
    let read_only = CapSqe {
        result_addr: Client::RODATA,
        result_len: 64,
        ..call(3, timer, 0)
    };
    let result = system.result(&mut client, &read_only);
    assert_eq!(result, CAP_ERR_INVALID_RESULT_BUFFER);
    let too_long = CapSqe {
        addr: Client::DATA,
        len: 64 * 1024 + 1,
        ..call(4, console, 0)
    };
    let result = system.result(&mut client, &too_long);
    assert_eq!(result, CAP_ERR_INVALID_PARAMS_BUFFER);
    let too_long = CapSqe {
        result_addr: Client::DATA,
        result_len: 64 * 1024 + 1,
        ..call(5, timer, 0)
    };
    let result = system.result(&mut client, &too_long);
    assert_eq!(result, CAP_ERR_INVALID_RESULT_BUFFER);
}

#[test]
fn memory_that_goes_away_is_a_transport_error() {
    let mut system = System::new();
    let mut client = system.spawn(&[CONSOLE, TIMER]);
    let memory = system.machine.memory.get_mut(&client.pid).unwrap();
    memory.unmap(Client::DATA, 4096);
    let write = CapSqe {
        addr: Client::DATA,
        len: 64,
        ..call(1, client.cap("console"), 0)
    };
    let result = system.result(&mut client, &write);
    assert_eq!(result, CAP_ERR_INVALID_PARAMS_BUFFER);
    let now = CapSqe {
        result_addr: Client::DATA,
        result_len: 64,
        ..call(2, client.cap("timer"), 0)
    };
    let result = system.result(&mut client, &now);
    assert_eq!(result, CAP_ERR_INVALID_RESULT_BUFFER);
}

#[test]
fn exceptions_are_whole_or_truncated() {
    let mut system = System::new();
    let mut client = system.spawn(&[CONSOLE, TIMER]);
    let unknown = CapSqe {
        result_addr: Client::DATA,
        ..call(1, client.cap("console"), 99)
    };
    for len in [0, 8, 40] {
        system.poke(&client, Client::DATA, &[0xaa; 64]);
        let short = CapSqe {
            result_len: len,
            ..unknown
        };
        let result = system.result(&mut client, &short);
        assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED);
        let bytes = system.peek(&client, Client::DATA, 64);
        assert!(bytes.iter().all(|&b| b == 0xaa), "nothing was written");
    }
    let small = CapSqe {
        result_addr: Client::DATA,
        result_len: 24,
        ..call(2, client.cap("timer"), 0)
    };
    let result = system.result(&mut client, &small);
    assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED);
    let malformed = CapSqe {
        result_len: 512,
        addr: Client::DATA + 0x1000,
        len: 40,
        method_id: 0,
        ..unknown
    };
    system.poke(&client, Client::DATA + 0x1000, &[0xff; 40]);
    let result = system.result(&mut client, &malformed);
    assert_eq!(result, CAP_ERR_APPLICATION_EXCEPTION);
    let (kind, _) = decode_exception(&system.peek(&client, Client::DATA, 512));
    assert_eq!(
        kind,
        capos_config::capos_capnp::ExceptionType::InvalidArgument
    );
}

#[test]
fn sleeps_are_bounded_and_end_in_order() {
    let mut system = System::new();
    let mut client = system.spawn(&[TIMER]);
    let timer = client.cap("timer");
    for n in 0..9_u64 {
        let params = sleep_params(1_000 - n * 100);
        let addr = Client::DATA + n * 0x100;
        system.poke(&client, addr, &params);
        client.submit(&CapSqe {
            addr,
            len: params.len() as u32,
            result_addr: Client::DATA + 0x1000,
            result_len: 512,
            ..call(n, timer, 1)
        });
    }
    system.enter(&client, 0, 0);
    let refused = client.completions();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].user_data, 8, "the ninth");
    assert_eq!(refused[0].result, CAP_ERR_APPLICATION_EXCEPTION);
    let (kind, _) = decode_exception(&system.peek(&client, Client::DATA + 0x1000, 512));
    assert_eq!(kind, capos_config::capos_capnp::ExceptionType::Overloaded);
    let mut order = Vec::new();
    while let Some(due) = system.server.next_deadline() {
        let wait = due - system.machine.now_ns;
        system.pass(wait);
        order.extend(client.completions().iter().map(|c| (c.user_data, c.result)));
    }
    let expected: Vec<(u64, i32)> = (0..8).rev().map(|n| (n, 0)).collect();
    assert_eq!(order, expected);
    let zero = sleep_params(0);
    system.poke(&client, Client::DATA, &zero);
    let at_once = CapSqe {
        addr: Client::DATA,
        len: zero.len() as u32,
        ..call(9, timer, 1)
    };
    assert_eq!(system.result(&mut client, &at_once), 0);
}

#[test]
fn a_profile_narrows_sleeps_and_buffers() {
    let mut system = System::new();
    let limits = Limits {
        sleeps: 1,
        ring_scratch_bytes: 128,
        ..Limits::CEILING
    };
    let mut client = system.spawn_limited(&[CONSOLE, TIMER], limits);
    let params = sleep_params(1_000);
    system.poke(&client, Client::DATA, &params);
    let sleep = CapSqe {
        addr: Client::DATA,
        len: params.len() as u32,
        ..call(1, client.cap("timer"), 1)
    };
    client.submit(&sleep);
    client.submit(&sleep);
    system.enter(&client, 0, 0);
    let refused = client.completion().expect("the second is refused");
    assert_eq!(refused.result, CAP_ERR_APPLICATION_EXCEPTION_TRUNCATED);
    let long = write_line_params(&"x".repeat(200));
    system.poke(&client, Client::DATA, &long);
    let write = CapSqe {
        addr: Client::DATA,
        len: long.len() as u32,
        ..call(2, client.cap("console"), 1)
    };
    let result = system.result(&mut client, &write);
    assert_eq!(result, CAP_ERR_INVALID_PARAMS_BUFFER);
}

/// A queue of calls, NOPs and refused submissions, and how many of each entry
/// are taken when time is up after each dispatch.
#[test]
fn a_drain_stops_when_time_is_up_and_goes_on_at_the_next_entry() {
    let run = |hurried: bool| {
        let mut system = System::new();
        let mut client = system.spawn(&[CONSOLE]);
        system.machine.hurried = hurried;
        let params = write_line_params("x");
        system.poke(&client, Client::DATA, &params);
        let write = |user_data| CapSqe {
            addr: Client::DATA,
            len: params.len() as u32,
            ..call(user_data, client.cap("console"), 1)
        };
        let batch: Vec<CapSqe> = (0..16)
            .map(|n| match n % 4 {
                0 | 2 => write(n),
                1 => nop(n),
                _ => call(n, 999, 0),
            })
            .collect();
        batch.iter().for_each(|sqe| client.submit(sqe));
        let mut heads = Vec::new();
        let entry = loop {
            let entry = system.enter(&client, 16, 1_000);
            heads.push(client.ring.load(RingWord::SqHead));
            if entry != Entry::Again {
                break entry;
            }
        };
        let completions = client.completions();
        let seen: Vec<_> = completions
            .iter()
            .map(|c| (c.user_data, c.result))
            .collect();
        (entry, heads, seen, system.machine.console.clone())
    };
    let (entry, heads, seen, console) = run(true);
    assert_eq!(heads, [1, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16]);
    let whole = run(false);
    assert_eq!(whole.1, [16], "one entry takes all");
    assert_eq!((entry, seen, console), (whole.0, whole.2, whole.3));
    assert_eq!(entry, Entry::Resume(16), "the last one is not cut short");
}

#[test]
fn out_of_time_and_completion_room_a_drain_ends() {
    let mut system = System::new();
    let mut client = system.spawn(&[]);
    system.machine.hurried = true;
    let refused = |n| call(n, 999, 0);
    let mut entries = 0;
    for n in 0..48 {
        client.submit(&refused(n));
        if n % 16 == 15 {
            while system.enter(&client, 0, 0) == Entry::Again {
                entries += 1;
            }
        }
    }
    assert_eq!(entries, 15 + 15, "without room it does not try again");
    let mut seen: Vec<u64> = client.completions().iter().map(|c| c.user_data).collect();
    while system.enter(&client, 0, 0) == Entry::Again {}
    seen.extend(client.completions().iter().map(|c| c.user_data));
    assert_eq!(seen, (0..48).collect::<Vec<_>>());
}

#[test]
fn forged_and_stale_capabilities_name_nothing() {
    let mut system = System::new();
    let mut client = system.spawn(&[CONSOLE]);
    let console = client.cap("console");
    for forged in [console + 1, console | 1 << 24, 0x00ff_ffff, u32::MAX] {
        let result = system.result(&mut client, &call(1, forged, 0));
        assert_eq!(result, CAP_ERR_INVOKE_FAILED, "{forged:#x}");
        let result = system.result(&mut client, &System::release_sqe(forged, 2));
        assert_eq!(result, CAP_ERR_INVALID_REQUEST, "{forged:#x}");
    }
}

#[test]
fn floods_of_errors_are_summed() {
    let mut system = System::new();
    let mut client = system.spawn(&[]);
    for n in 0..100 {
        system.result(&mut client, &sqe(200, n));
    }
    assert_eq!(system.machine.diagnostics.len(), 4);
    assert_eq!(
        system.machine.diagnostics[0],
        Diagnostic::Invalid {
            pid: client.pid,
            error: CAP_ERR_INVALID_REQUEST,
            opcode: 200,
            cap_id: 0
        }
    );
    system.pass(1_000_000_000);
    assert_eq!(
        system.machine.diagnostics[4],
        Diagnostic::Suppressed {
            pid: client.pid,
            count: 96,
            last_error: CAP_ERR_INVALID_REQUEST
        }
    );
    assert_eq!(system.server.next_deadline(), None);
}

#[test]
fn a_forged_entry_of_a_blocked_thread_replaces_its_wait() {
    let mut system = System::new();
    let client = system.spawn(&[]);
    assert_eq!(system.enter(&client, 1, 1_000), Entry::Block);
    assert_eq!(system.enter(&client, 0, 0), Entry::Resume(0));
    system.pass(10_000);
    assert!(system.machine.resumed.is_empty(), "the wait is gone");
}

#[test]
fn ended_processes_leave_nothing_and_numbers_are_not_reused() {
    let mut system = System::new();
    let mut pids = Vec::new();
    for _ in 0..200 {
        let mut client = system.spawn(&[CONSOLE, TIMER]);
        let params = sleep_params(1_000);
        system.poke(&client, Client::DATA, &params);
        client.submit(&CapSqe {
            addr: Client::DATA,
            len: params.len() as u32,
            ..call(1, client.cap("timer"), 1)
        });
        assert_eq!(system.enter(&client, 1, 500), Entry::Block);
        pids.push(client.pid);
        system.kill(client);
        assert_eq!(system.server.next_deadline(), None);
    }
    pids.dedup();
    assert_eq!(pids.len(), 200);
    let rejected = system
        .server
        .cap_enter(&mut system.machine, pids[0], Tid::MAIN, 0, 0);
    assert_eq!(rejected, Entry::Resume(ENTER_REJECTED));
}

#[test]
fn the_servers_own_map_decides_whatever_the_machine_would_allow() {
    let mut system = System::new();
    let mut client = system.spawn(&[CONSOLE, TIMER]);
    let gone = Client::DATA..Client::DATA + 0x1000;
    let removed = system.server.change_address_space(client.pid, |space| {
        space.remove(gone.start, gone.end, |_| ())
    });
    assert_eq!(removed, Some(Ok(())));
    let params = write_line_params("secret");
    system.poke(&client, Client::DATA, &params);
    let write = CapSqe {
        addr: Client::DATA,
        len: params.len() as u32,
        ..call(1, client.cap("console"), 1)
    };
    let result = system.result(&mut client, &write);
    assert_eq!(result, CAP_ERR_INVALID_PARAMS_BUFFER);
    assert_eq!(system.console(), "");
    let now = CapSqe {
        result_addr: Client::DATA,
        result_len: 64,
        ..call(2, client.cap("timer"), 0)
    };
    let result = system.result(&mut client, &now);
    assert_eq!(result, CAP_ERR_INVALID_RESULT_BUFFER);
    let bytes = system.peek(&client, Client::DATA, params.len());
    assert_eq!(bytes, params, "nothing was written");
}

#[test]
fn deferred_completions_keep_their_order() {
    let mut system = System::new();
    let mut client = system.spawn(&[TIMER]);
    let timer = client.cap("timer");
    for (data, ns) in [(100, 1_000), (101, 2_000), (102, 3_000)] {
        let params = sleep_params(ns);
        let addr = Client::DATA + (data - 100) * 0x100;
        system.poke(&client, addr, &params);
        client.submit(&CapSqe {
            addr,
            len: params.len() as u32,
            ..call(data, timer, 1)
        });
    }
    system.enter(&client, 0, 0);
    for n in 0..32 {
        client.submit(&nop(n));
        system.enter(&client, 0, 0);
    }
    system.pass(1_000);
    system.pass(1_000);
    assert_eq!(client.completions().len(), 32, "two are deferred");
    system.pass(1_000);
    let data: Vec<u64> = client.completions().iter().map(|c| c.user_data).collect();
    assert_eq!(data, [100, 101, 102], "oldest first, and not held back");
}
