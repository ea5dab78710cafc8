//! Ring discipline: hostile ring pages, entries of every shape, any order of
//! entry, time, faults and ends.

use capos_config::ring::*;
use ring_server_core::{Protection, Tid, WAIT_FOREVER};
use ring_server_model::{Client, sqe};

use crate::input::Input;
use crate::world::World;

/// Steps per input; longer inputs only repeat themselves.
const STEPS_MAX: usize = 400;

/// Interprets `data` as steps of hostile clients.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    let mut user_data = 1;
    for _ in 0..STEPS_MAX {
        let Some(step) = input.step() else { break };
        let Some(who) = world.who(step >> 4) else {
            world.spawn(step);
            continue;
        };
        act(&mut world, &mut input, who, step & 15, &mut user_data);
        world.settle();
    }
    world.finish();
}

fn act(world: &mut World, input: &mut Input<'_>, who: usize, step: u8, user_data: &mut u64) {
    match step {
        0..=3 => enter(world, input, who),
        4..=7 => {
            *user_data += 1;
            let entry = shaped(world, input, who, *user_data);
            world.clients[who].submit_unchecked(&entry);
        }
        8 => {
            let entry = raw(input);
            world.clients[who].submit_unchecked(&entry);
        }
        9 => {
            let offset = (usize::from(input.u16()) % 4096) & !3;
            world.clients[who].ring.store_at(offset, input.u32());
        }
        10 => {
            let client = &mut world.clients[who];
            if input.u8() & 1 == 0 {
                client.resynchronise();
            } else {
                let _ = (0..64).map_while(|_| client.completion()).count();
            }
        }
        11 => {
            let addr = Client::DATA + u64::from(input.u16()) * 4;
            let len = usize::from(input.u8());
            world.poke(who, addr, input.bytes(len));
        }
        12 => {
            let page = input.u8();
            let access = input.pick(&[None, Some(Protection::READ), Some(Protection::READ_WRITE)]);
            world.remap(who, page, access);
        }
        13 => world.system.pass(pick_time(input)),
        14 => threads(world, input, who),
        _ => ends(world, input, who),
    }
}

fn pick_time(input: &mut Input<'_>) -> u64 {
    match input.u8() {
        0xff => input.u64() >> 8,
        short => 1 << (short % 40),
    }
}

fn enter(world: &mut World, input: &mut Input<'_>, who: usize) {
    let tid = match input.u8() {
        0..=199 => Tid::MAIN,
        other => Tid::from_raw(u32::from(other) - 198),
    };
    let min_complete = input.pick(&[0, 0, 1, 1, 2, 16, 32, 33, u64::MAX]);
    let timeout = match input.u8() & 3 {
        0 => 0,
        1 => WAIT_FOREVER,
        _ => pick_time(input),
    };
    let pid = world.clients[who].pid;
    let system = &mut world.system;
    system
        .server
        .cap_enter(&mut system.machine, pid, tid, min_complete, timeout);
}

fn threads(world: &mut World, input: &mut Input<'_>, who: usize) {
    let pid = world.clients[who].pid;
    let system = &mut world.system;
    let (server, machine) = (&mut system.server, &mut system.machine);
    match input.u8() {
        choice @ 0..=127 => {
            let _ = (choice, server.create_thread(pid));
        }
        choice => {
            let tid = Tid::from_raw(u32::from(choice) % 5);
            server.exit_thread(machine, pid, tid, i64::from(choice));
        }
    }
}

fn ends(world: &mut World, input: &mut Input<'_>, who: usize) {
    match input.u8() {
        choice @ 0..=99 => world.spawn(choice),
        100..=199 => {
            let pid = world.clients[who].pid;
            let system = &mut world.system;
            system.server.exit(&mut system.machine, pid, Tid::MAIN, 3);
        }
        _ => {
            let client = world.clients.swap_remove(who);
            world.system.kill(client);
        }
    }
}

/// 64 bytes as they come.
fn raw(input: &mut Input<'_>) -> CapSqe {
    CapSqe {
        opcode: input.u8() & 15,
        flags: input.u8(),
        method_id: input.u16(),
        cap_id: input.u32(),
        user_data: input.u64(),
        addr: input.u64(),
        len: input.u32(),
        result_len: input.u32(),
        result_addr: input.u64(),
        pipeline_dep: input.u64(),
        pipeline_field: input.u16(),
        xfer_cap_count: input.u16(),
        call_id: input.u32(),
        session_disclosure: input.u64(),
    }
}

fn address(input: &mut Input<'_>) -> u64 {
    let page = u64::from(input.u8()) * 1024;
    let base = match input.u8() & 15 {
        0 => Client::RODATA,
        1 => Client::NOWHERE,
        2 => u64::MAX,
        3 => return input.u64(),
        _ => Client::DATA,
    };
    base.wrapping_add(page) & !u64::from(input.u8() & 7 == 7)
}

fn length(input: &mut Input<'_>) -> u32 {
    let lengths = [
        0, 8, 16, 24, 56, 64, 88, 100, 512, 4096, 0x8000, 0x1_0000, 0x1_0001,
    ];
    match input.u8() {
        0xff => input.u32(),
        choice => lengths[usize::from(choice) % lengths.len()],
    }
}

/// An entry that passes the wire rules, or nearly.
fn shaped(world: &World, input: &mut Input<'_>, who: usize, user_data: u64) -> CapSqe {
    const OPCODES: [u8; 12] = [
        CAP_OP_CALL,
        CAP_OP_CALL,
        CAP_OP_CALL,
        CAP_OP_RECV,
        CAP_OP_RECV,
        CAP_OP_RETURN,
        CAP_OP_RETURN,
        CAP_OP_RELEASE,
        CAP_OP_CANCEL,
        CAP_OP_PARK,
        CAP_OP_UNPARK,
        CAP_OP_NOP,
    ];
    let opcode = input.pick(&OPCODES);
    let cap_id = world.cap(who, input);
    let base = CapSqe {
        cap_id,
        ..sqe(opcode, user_data)
    };
    match opcode {
        CAP_OP_CALL => {
            let owner = match input.u8() {
                0..=239 => 0,
                other => u32::from(other) - 239,
            };
            CapSqe {
                flags: if owner == 0 { 0 } else { CAP_SQE_THREAD_OWNED },
                call_id: owner,
                method_id: u16::from(input.u8() % 4),
                addr: address(input),
                len: length(input),
                result_addr: address(input),
                result_len: length(input),
                xfer_cap_count: transfers(input),
                session_disclosure: u64::from(input.u8() & 7),
                ..base
            }
        }
        CAP_OP_RECV => CapSqe {
            result_addr: address(input),
            result_len: length(input).max(56),
            ..base
        },
        CAP_OP_RETURN => {
            let exception = input.u8() & 3 == 3;
            CapSqe {
                flags: if exception {
                    CAP_SQE_RETURN_APPLICATION_EXCEPTION
                } else {
                    0
                },
                call_id: call_id(world, input, who),
                addr: address(input),
                len: length(input),
                xfer_cap_count: if exception { 0 } else { transfers(input) },
                ..base
            }
        }
        CAP_OP_CANCEL => CapSqe {
            pipeline_dep: user_data.saturating_sub(1 + u64::from(input.u8() & 3)),
            ..base
        },
        CAP_OP_PARK => CapSqe {
            flags: CAP_SQE_THREAD_OWNED,
            call_id: 1 + u32::from(input.u8() & 1),
            addr: address(input) & !3,
            len: u32::from(input.u8() & 1),
            pipeline_dep: pick_time(input),
            ..base
        },
        CAP_OP_UNPARK => CapSqe {
            addr: address(input) & !3,
            len: u32::from(input.u8()),
            ..base
        },
        CAP_OP_NOP => sqe(opcode, user_data),
        _ => base,
    }
}

fn transfers(input: &mut Input<'_>) -> u16 {
    match input.u8() {
        0..=127 => 0,
        few @ 128..=250 => u16::from(few & 3),
        _ => input.u16(),
    }
}

/// A call id the client was told in some completion, or any.
fn call_id(world: &World, input: &mut Input<'_>, who: usize) -> u32 {
    let slot = u32::from(input.u8());
    if slot == 0xff {
        return input.u32();
    }
    let ring = &world.clients[who].ring;
    let told = (0..CQ_ENTRIES)
        .map(|at| ring.read_cqe((slot + at) % CQ_ENTRIES).call_id)
        .find(|&id| id != 0);
    told.unwrap_or(slot)
}
