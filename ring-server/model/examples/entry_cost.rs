//! Instructions of one `cap_enter`, counted by callgrind.
//!
//! Run by `ring-server/model/measure.sh`, which divides the difference of two
//! run lengths by the number of entries, so that set-up cancels out.

use std::hint::black_box;

use capos_config::KernelCapSource;
use capos_config::ring::{CAP_OP_NOP, CapSqe};
use ring_server_core::{Entry, Grant};
use ring_server_model::{Client, System, call, sqe};

/// Only what runs below this function is counted.
#[inline(never)]
fn measured_enter(system: &mut System, client: &Client) -> Entry {
    let (pid, tid) = (client.pid, client.tid);
    black_box(
        system
            .server
            .cap_enter(&mut system.machine, pid, tid, black_box(1), u64::MAX),
    )
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_else(|| "nop".into());
    let mut number = || arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (entries, per_entry): (u32, u32) = (number(), number());
    if kind == "ipc" {
        return round_trips(entries);
    }
    let mut system = System::new();
    let mut client = system.spawn(&[
        Grant::kernel("console", KernelCapSource::Console),
        Grant::kernel("timer", KernelCapSource::Timer),
    ]);
    let sqe = submission(&mut system, &client, &kind);
    for _ in 0..entries {
        for _ in 0..per_entry {
            client.submit(&sqe);
        }
        measured_enter(&mut system, &client);
        system.machine.console.clear();
        let completions = client.completions();
        assert_eq!(completions.len() as u32, per_entry);
        assert!(completions.iter().all(|cqe| cqe.result >= 0));
    }
}

/// Endpoint CALL, RECV and RETURN across two processes: three entries each.
fn round_trips(count: u32) {
    let mut system = System::new();
    let mut owner = system.spawn(&[Grant::kernel("service", KernelCapSource::Endpoint)]);
    let endpoint = owner.cap("service");
    let facet = Grant::client("service", owner.pid, owner.cap_id("service"));
    let mut client = system.spawn(&[facet]);
    let recv = System::recv_sqe(endpoint, 1);
    for _ in 0..count {
        owner.submit(&recv);
        measured_enter(&mut system, &owner);
        client.submit(&CapSqe {
            addr: Client::DATA,
            len: 40,
            result_addr: Client::DATA + 0x1000,
            result_len: 512,
            ..call(2, client.cap("service"), 1)
        });
        measured_enter(&mut system, &client);
        let cqe = owner.completion().expect("a call");
        let call_id = system.message(&owner, &recv, &cqe).call_id;
        owner.submit(&System::return_sqe(endpoint, 3, call_id, 40));
        measured_enter(&mut system, &owner);
        assert_eq!(owner.completions().len(), 1);
        assert_eq!(client.completions().len(), 1);
        system.machine.resumed.clear();
        system.machine.handed_over.clear();
    }
}

fn submission(system: &mut System, client: &Client, kind: &str) -> CapSqe {
    match kind {
        "nop" => sqe(CAP_OP_NOP, 7),
        "now" => CapSqe {
            result_addr: Client::DATA,
            result_len: 512,
            ..call(7, client.cap("timer"), 0)
        },
        "console" => {
            let params = [
                0_u32,
                4,
                0,
                0x1_0000,
                1,
                11 << 3 | 2,
                0x6c6c_6568,
                0x6f77_206f,
                0x0064_6c72,
                0,
            ];
            let bytes: Vec<u8> = params.iter().flat_map(|w| w.to_le_bytes()).collect();
            system.poke(client, Client::DATA, &bytes);
            CapSqe {
                addr: Client::DATA,
                len: bytes.len() as u32,
                ..call(7, client.cap("console"), 0)
            }
        }
        other => panic!("unknown kind {other}"),
    }
}
