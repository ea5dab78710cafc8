//! Transfer descriptors: hostile descriptors in a CALL or a RETURN change both
//! tables as a whole or not at all.

use std::collections::BTreeMap;

use capos_config::ring::{CAP_OP_CALL, CAP_OP_CANCEL, CAP_OP_RETURN, CapCqe, CapSqe};
use ring_server_core::{CapId, Hold, Protection, Tid};
use ring_server_model::{Client, System, sqe};

use crate::input::Input;
use crate::world::World;

const OWNER: usize = 0;
const ROUNDS_MAX: usize = 24;

type Holds = BTreeMap<CapId, String>;

/// Sends calls with descriptors, and answers with descriptors.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    let mut user_data = 1;
    for _ in 0..ROUNDS_MAX {
        let Some(step) = input.step() else { break };
        if world.clients.len() < 3 {
            break;
        }
        let who = 1 + usize::from(step & 1);
        user_data += 4;
        round(&mut world, &mut input, who, user_data);
        world.settle();
    }
    world.finish();
}

/// One call and its answer.
fn round(world: &mut World, input: &mut Input<'_>, who: usize, user_data: u64) {
    let Some(own) = endpoint(world, OWNER, false) else {
        return;
    };
    let Some(facet) = endpoint(world, who, true) else {
        // It gave its facet away: another takes its place.
        let client = world.clients.swap_remove(who);
        world.system.kill(client);
        world.spawn(0);
        return;
    };
    let len = u32::from(input.u8() & 63);
    let count = put_descriptors(world, input, who, len);
    let call = CapSqe {
        cap_id: facet,
        addr: Client::DATA,
        len,
        result_addr: Client::DATA + 0x1000,
        result_len: u32::from(input.u16()) & 0x1ff,
        xfer_cap_count: count,
        ..sqe(CAP_OP_CALL, user_data)
    };
    let recv = CapSqe {
        result_len: 56 + (u32::from(input.u16()) & 0x3ff),
        ..System::recv_sqe(own, user_data + 1)
    };
    let unreadable = input.u8() == 0xfe;
    if unreadable {
        world.remap(OWNER, 0x20, Some(Protection::READ));
    }
    let before = (snapshot(world, who), snapshot(world, OWNER));
    world.clients[OWNER].resynchronise();
    world.clients[who].resynchronise();
    world.clients[OWNER].submit(&recv);
    enter(world, OWNER);
    world.clients[who].submit(&call);
    enter(world, who);
    let received = last(world, OWNER, user_data + 1);
    let answered = last(world, who, user_data);
    let gained = world.holds(OWNER).count() - before.1.len();
    match received {
        Some(cqe) if cqe.result >= 56 => {
            assert_eq!(gained, usize::from(count), "every capability arrived");
            assert_eq!(cqe.cap_count, count, "and was announced");
            answer(world, input, who, (own, cqe.call_id), user_data);
        }
        _ => {
            assert_eq!(before.1, snapshot(world, OWNER), "nothing arrived");
            if answered.is_some() {
                assert_eq!(before.0, snapshot(world, who), "everything stayed");
            }
        }
    }
    if unreadable {
        world.remap(OWNER, 0x20, Some(Protection::READ_WRITE));
    }
    cancel(world, own, user_data + 1);
    clear(world, own, user_data + 3);
}

/// Takes what still waits out of the endpoint: the next round would meet it.
fn clear(world: &mut World, own: u32, user_data: u64) {
    let recv = System::recv_sqe(own, user_data);
    loop {
        world.clients[OWNER].submit(&recv);
        enter(world, OWNER);
        let Some(cqe) = last(world, OWNER, user_data) else {
            break;
        };
        assert!(cqe.result >= 56, "the buffer does: {}", cqe.result);
        let ret = CapSqe {
            cap_id: own,
            call_id: cqe.call_id,
            ..sqe(CAP_OP_RETURN, user_data)
        };
        world.clients[OWNER].submit(&ret);
        enter(world, OWNER);
        world.clients[OWNER].completions();
    }
    cancel(world, own, user_data);
}

fn answer(
    world: &mut World,
    input: &mut Input<'_>,
    who: usize,
    (own, call_id): (u32, u32),
    user_data: u64,
) {
    let len = u32::from(input.u8());
    let count = put_descriptors(world, input, OWNER, len);
    let ret = CapSqe {
        cap_id: own,
        call_id,
        addr: Client::DATA,
        len,
        xfer_cap_count: count,
        ..sqe(CAP_OP_RETURN, user_data + 2)
    };
    if input.u8() & 31 == 31 {
        world.remap(who, 1, None);
    }
    let before = (snapshot(world, who), snapshot(world, OWNER));
    world.clients[OWNER].submit(&ret);
    enter(world, OWNER);
    let code = last(world, OWNER, user_data + 2).map(|cqe| cqe.result);
    let answered = last(world, who, user_data);
    match (code, answered) {
        (Some(0), Some(cqe)) if cqe.result >= 0 => {
            let gained = world.holds(who).count() - before.0.len();
            assert_eq!(gained, usize::from(cqe.cap_count), "announced is given");
            assert_eq!(cqe.cap_count, count, "all of them");
        }
        _ => {
            assert_eq!(before.0, snapshot(world, who), "nothing arrived");
            assert_eq!(before.1, snapshot(world, OWNER), "everything stayed");
            let retry = CapSqe {
                len: 0,
                xfer_cap_count: 0,
                ..ret
            };
            world.clients[OWNER].submit(&retry);
            enter(world, OWNER);
        }
    }
    world.remap(who, 1, Some(Protection::READ_WRITE));
}

/// An endpoint capability of a client: a facet to call, or its own.
fn endpoint(world: &World, who: usize, facet: bool) -> Option<u32> {
    let interface = |hold: &Hold| hold.interface_id == capos_config::ENDPOINT_INTERFACE_ID;
    world
        .holds(who)
        .find(|(_, hold)| match facet {
            true => hold.badge != 0,
            false => interface(hold) && hold.badge == 0,
        })
        .map(|(id, _)| id.raw())
}

/// Descriptors from the input behind `len` bytes of data; mostly well-formed.
fn put_descriptors(world: &mut World, input: &mut Input<'_>, who: usize, len: u32) -> u16 {
    let count = match input.u8() {
        0xff => return input.u16(),
        few => u16::from(few % 6),
    };
    for index in 0..count {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&world.cap(who, input).to_le_bytes());
        let mode = match input.u8() {
            0xff => input.u16(),
            choice => 1 + u16::from(choice & 1),
        };
        bytes[4..6].copy_from_slice(&mode.to_le_bytes());
        bytes[6] = u8::from(input.u8() == 0xff);
        let at = Client::DATA + u64::from(len) + u64::from(index) * 8;
        world.poke(who, at, &bytes);
    }
    count
}

fn enter(world: &mut World, who: usize) {
    let (pid, system) = (world.clients[who].pid, &mut world.system);
    system
        .server
        .cap_enter(&mut system.machine, pid, Tid::MAIN, 0, 0);
    system.server.check();
}

fn last(world: &mut World, who: usize, user_data: u64) -> Option<CapCqe> {
    let mut found = None;
    for cqe in world.clients[who].completions() {
        if cqe.user_data == user_data {
            assert!(found.is_none(), "completed twice");
            found = Some(cqe);
        }
    }
    found
}

fn cancel(world: &mut World, own: u32, user_data: u64) {
    let cancel = CapSqe {
        cap_id: own,
        pipeline_dep: user_data,
        ..sqe(CAP_OP_CANCEL, u64::MAX)
    };
    world.clients[OWNER].submit(&cancel);
    enter(world, OWNER);
    world.clients[OWNER].completions();
}

fn snapshot(world: &World, who: usize) -> Holds {
    world
        .holds(who)
        .map(|(id, hold)| (id, format!("{hold:?}")))
        .collect()
}
