//! Probes of the real dispatcher on the model machine.

use capos_config::KernelCapSource;
use capos_config::capos_capnp::cap_exception;
use capos_config::ring::*;
use ring_server_core::{CapId, Grant, Limits};
use ring_server_model::{Client, System, call, sqe};

/// Where results go in a probe.
const RESULT: u64 = Client::DATA + 0x1000;

/// What the dispatcher answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This completion code.
    Code(i32),
    /// An exception of this kind with this message.
    Exception(String, String),
    /// Nothing yet.
    Pending,
}

/// An owner of an endpoint and of one of everything; a client of it.
pub(crate) struct Probe {
    pub(crate) system: System,
    pub(crate) owner: Client,
    pub(crate) client: Client,
    next: u64,
}

impl Probe {
    pub(crate) fn new() -> Self {
        Self::limited(Limits::CEILING)
    }

    pub(crate) fn limited(limits: Limits) -> Self {
        let mut system = System::new();
        system.machine.programs.names = vec!["program".into()];
        let grants = [
            Grant::kernel("console", KernelCapSource::Console),
            Grant::kernel("timer", KernelCapSource::Timer),
            Grant::kernel("park", KernelCapSource::ParkSpace),
            Grant::kernel("boot", KernelCapSource::BootPackage),
            Grant::kernel("spawner", KernelCapSource::ProcessSpawner),
            Grant::kernel("own", KernelCapSource::Endpoint),
        ];
        let owner = system.spawn_limited(&grants, limits);
        let mut grants = grants.to_vec();
        grants.push(Grant::client("peer", owner.pid, owner.cap_id("own")));
        grants.push(Grant::manager("manager", owner.pid));
        let client = system.spawn_limited(&grants, limits);
        Self {
            system,
            owner,
            client,
            next: 1,
        }
    }

    /// Submits as the client and waits for nothing.
    pub(crate) fn run(&mut self, entry: &CapSqe) -> Answer {
        let cqe = self.system.run(&mut self.client, entry);
        self.answer(cqe.as_ref())
    }

    /// The client's next completion, after something else happened.
    pub(crate) fn later(&mut self) -> Answer {
        let cqe = self.client.completion();
        self.answer(cqe.as_ref())
    }

    fn answer(&self, cqe: Option<&CapCqe>) -> Answer {
        match cqe.map(|cqe| cqe.result) {
            None => Answer::Pending,
            Some(CAP_ERR_APPLICATION_EXCEPTION) => self.exception(),
            Some(code) => Answer::Code(code),
        }
    }

    fn exception(&self) -> Answer {
        let bytes = self.system.peek(&self.client, RESULT, 512);
        let options = capos_config::default_reader_options();
        let message = capnp::serialize::read_message(&mut &bytes[..], options);
        let message = message.expect("an exception is a message");
        let root: cap_exception::Reader<'_> = message.get_root().expect("a struct");
        let text = root.get_message().and_then(|text| Ok(text.to_string()?));
        let kind = root.get_type().expect("a kind the schema has");
        Answer::Exception(format!("{kind:?}"), text.expect("a text"))
    }

    /// A CALL by the client with room for an exception.
    pub(crate) fn call(&mut self, cap: &str, method: u16) -> CapSqe {
        self.next += 1;
        CapSqe {
            result_addr: RESULT,
            result_len: 512,
            ..call(self.next, self.client.cap(cap), method)
        }
    }

    /// A CALL with params.
    pub(crate) fn call_with(&mut self, cap: &str, method: u16, params: &[u8]) -> CapSqe {
        self.system.poke(&self.client, Client::DATA, params);
        CapSqe {
            addr: Client::DATA,
            len: params.len() as u32,
            ..self.call(cap, method)
        }
    }

    /// Another entry by the client.
    pub(crate) fn entry(&mut self, opcode: u8, cap: &str) -> CapSqe {
        self.next += 1;
        CapSqe {
            cap_id: self.client.cap(cap),
            ..sqe(opcode, self.next)
        }
    }

    /// Releases one of the client's capabilities.
    pub(crate) fn release(&mut self, cap: &str) {
        let release = self.entry(CAP_OP_RELEASE, cap);
        assert_eq!(self.run(&release), Answer::Code(0));
    }

    /// Ends the owner.
    pub(crate) fn end_owner(&mut self) {
        let pid = self.owner.pid;
        let system = &mut self.system;
        system.server.destroy_process(&mut system.machine, pid);
        system.server.check();
    }

    /// Revokes what the owner holds under `name`, through the client's manager.
    pub(crate) fn revoke_owners(&mut self, name: &str) {
        let mut message = capnp::message::Builder::new_default();
        let mut params: capos_config::capos_capnp::capability_manager::revoke_params::Builder<'_> =
            message.init_root();
        params.set_cap_id(self.owner.cap(name));
        let bytes = capnp::serialize::write_message_to_words(&message);
        let revoke = self.call_with("manager", 1, &bytes);
        assert!(matches!(self.run(&revoke), Answer::Code(_)));
    }

    /// Lets the owner receive one call; its id.
    pub(crate) fn receive(&mut self) -> u32 {
        self.next += 1;
        let recv = System::recv_sqe(self.owner.cap("own"), self.next);
        let cqe = self.system.run(&mut self.owner, &recv);
        cqe.expect("a call waits").call_id
    }

    /// RETURN by the owner; its completion code.
    pub(crate) fn answer_as_owner(&mut self, entry: &CapSqe) -> Answer {
        let cqe = self.system.run(&mut self.owner, entry);
        self.answer(cqe.as_ref())
    }

    /// A RETURN by the owner to `call_id`.
    pub(crate) fn return_entry(&mut self, call_id: u32) -> CapSqe {
        self.next += 1;
        System::return_sqe(self.owner.cap("own"), self.next, call_id, 0)
    }

    /// The client's number of a capability it was granted.
    pub(crate) fn cap_id(&self, name: &str) -> CapId {
        self.client.cap_id(name)
    }
}
