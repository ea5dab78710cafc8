//! How urgent programs are: by who starts them, and nothing else.

mod support;

use capos_config::KernelCapSource;
use capos_config::capos_capnp::process_spawner::spawn_params;
use capos_config::ring::CapSqe;
use ring_server_core::{Class, Grant};
use ring_server_model::{Client, System, call};

fn spawn_request(grants: u32) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    let mut params = message.init_root::<spawn_params::Builder<'_>>();
    params.set_binary_name("child");
    let mut list = params.init_grants(grants);
    if grants > 0 {
        let mut grant = list.reborrow().get(0);
        grant.set_name("spawner");
        let source = capos_config::capos_capnp::KernelCapSource::ProcessSpawner;
        grant.init_source().set_kernel(source);
    }
    capnp::serialize::write_message_to_words(&message)
}

/// Starts a child that can start others; returns it.
fn start(system: &mut System, parent: &mut Client) -> Client {
    let params = spawn_request(1);
    system.poke(parent, Client::DATA, &params);
    let entry = CapSqe {
        addr: Client::DATA,
        len: params.len() as u32,
        result_addr: Client::DATA + 0x1000,
        result_len: 1024,
        ..call(1, parent.cap("spawner"), 0)
    };
    assert!(system.result(parent, &entry) > 0, "the child starts");
    system
        .machine
        .programs
        .launched
        .pop()
        .expect("it was launched")
}

#[test]
fn the_first_program_starts_services_and_those_start_applications() {
    let mut system = System::new();
    system.machine.programs.names = vec!["child".into()];
    let grant = Grant::kernel("spawner", KernelCapSource::ProcessSpawner);
    let mut init = system.spawn(&[grant]);
    let mut service = start(&mut system, &mut init);
    let mut application = start(&mut system, &mut service);
    start(&mut system, &mut application);
    start(&mut system, &mut init);
    let classes: Vec<Class> = system
        .machine
        .programs
        .classes
        .iter()
        .map(|&(_, c)| c)
        .collect();
    let expected = [
        Class::Service,
        Class::Application,
        Class::Application,
        Class::Service,
    ];
    assert_eq!(classes, expected);
}
