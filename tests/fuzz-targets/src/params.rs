//! Params of every method of every kernel object, as hostile messages.
//!
//! The short decoder of the core is compared with the `capnp` crate on the way.

use capos_config::capos_capnp::{console, timer};
use capos_config::ring::{CAP_OP_CALL, CapCqe, CapSqe};
use ring_server_core::{Tid, decode};
use ring_server_model::{Client, sqe};

use crate::input::Input;
use crate::world::World;

const CALLS_MAX: usize = 24;
const RESULT: u64 = Client::DATA + 0x2_0000;

/// Interfaces of the kernel objects, in the order inputs choose them.
const INTERFACES: [u64; 11] = [
    capos_config::CONSOLE_INTERFACE_ID,
    capos_config::TIMER_INTERFACE_ID,
    capos_config::CAPABILITY_MANAGER_INTERFACE_ID,
    capos_config::PROCESS_SPAWNER_INTERFACE_ID,
    capos_config::PROCESS_HANDLE_INTERFACE_ID,
    capos_config::BOOT_PACKAGE_INTERFACE_ID,
    capos_config::PIPE_INTERFACE_ID,
    capos_config::WALL_CLOCK_INTERFACE_ID,
    capos_config::ENTROPY_SOURCE_INTERFACE_ID,
    sel4_capos_schema::NOTIFICATION_INTERFACE_ID,
    sel4_capos_schema::SIGNALLER_INTERFACE_ID,
];
/// Stands for the method that makes a notification.
const CREATE_NOTIFICATION: u8 = 4;

/// Calls methods with the params in `data`: object, method, length, bytes.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    for call in 0..CALLS_MAX as u64 {
        let Some(object) = input.step() else { break };
        let method = match input.u8() % 5 {
            CREATE_NOTIFICATION => sel4_capos_schema::method::CREATE_NOTIFICATION,
            method => method.into(),
        };
        let result_len = input.pick(&[512, 0, 24, 56, 4096, 0x1_0000]);
        let len = usize::from(input.u16()) % 4097;
        let params = input.bytes(len);
        compare_decoders(params);
        // The first process holds every kind of object, or comes to.
        if world.clients.is_empty() {
            break;
        }
        let interface = INTERFACES[usize::from(object) % INTERFACES.len()];
        let held = world
            .holds(0)
            .filter(|(_, hold)| hold.interface_id == interface);
        let held: Vec<u32> = held.map(|(id, _)| id.raw()).collect();
        let Some(&cap_id) = held.get(usize::from(object) / INTERFACES.len() % held.len().max(1))
        else {
            continue;
        };
        world.poke(0, Client::DATA, params);
        let entry = CapSqe {
            cap_id,
            method_id: method,
            addr: Client::DATA,
            len: params.len() as u32,
            result_addr: RESULT,
            result_len,
            ..sqe(CAP_OP_CALL, call + 1)
        };
        let before = world.holds(0).count();
        world.clients[0].submit(&entry);
        let (pid, system) = (world.clients[0].pid, &mut world.system);
        system
            .server
            .cap_enter(&mut system.machine, pid, Tid::MAIN, 0, 0);
        let completions = world.clients[0].completions();
        check_answer(&world, &entry, &completions, before);
        world.settle();
        world.system.pass(1 << 30);
        if let Some(client) = world.clients.first_mut() {
            client.completions();
        }
        world.settle();
    }
    world.finish();
}

/// What comes back stays in its buffer, and announced capabilities are held.
fn check_answer(world: &World, entry: &CapSqe, completions: &[CapCqe], before: usize) {
    for cqe in completions
        .iter()
        .filter(|cqe| cqe.user_data == entry.user_data)
    {
        let records = u32::from(cqe.cap_count) * 16;
        if cqe.result >= 0 {
            let used = cqe.result as u32 + records;
            assert!(
                used <= entry.result_len,
                "{used} bytes in {}",
                entry.result_len
            );
        }
        let after = world.holds(0).count();
        assert_eq!(
            after,
            before + usize::from(cqe.cap_count),
            "announced is held"
        );
    }
}

/// What the short decoder accepts, the crate accepts and reads alike.
fn compare_decoders(bytes: &[u8]) {
    let mut words = capnp::Word::allocate_zeroed_vec(bytes.len().div_ceil(8));
    let aligned = &mut capnp::Word::words_to_bytes_mut(&mut words)[..bytes.len()];
    aligned.copy_from_slice(bytes);
    let mut slice = &*aligned;
    let options = capos_config::default_reader_options();
    let message = capnp::serialize::read_message_from_flat_slice_no_alloc(&mut slice, options);
    let message = message.as_ref();
    if let Some(value) = decode::root_u64(bytes) {
        let root = message.expect("the crate accepts it").get_root();
        let root: timer::sleep_params::Reader<'_> = root.expect("a struct");
        assert_eq!(root.get_duration_ns(), value);
    }
    if let Some(data) = decode::root_data(bytes) {
        let root = message.expect("the crate accepts it").get_root();
        let root: console::write_params::Reader<'_> = root.expect("a struct");
        assert_eq!(root.get_data().expect("a data"), data);
    }
    if let Some(text) = decode::root_text(bytes) {
        let root = message.expect("the crate accepts it").get_root();
        let root: console::write_line_params::Reader<'_> = root.expect("a struct");
        assert_eq!(root.get_text().expect("a text").as_bytes(), text);
    }
}
