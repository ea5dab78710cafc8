//! Helpers of the integration tests: message coding, and the published client
//! library over a server in the same process.

#![allow(dead_code, reason = "each test file uses a part")]

use capnp::message::Builder;
use capnp::serialize;
use capos_config::capos_capnp::{ExceptionType, cap_exception, capability_manager, console, timer};
use capos_config::ring::CapCqe;
use capos_rt::{CallId, CompletedCall, CopyTransfer, RingClient, RingClientError, Transport};
use ring_server_core::{
    AddressMap, CAPSET_PAGE_BYTES, Entry, Grant, Pid, ProcessSpec, Protection, Server, Tid,
};
use ring_server_model::{HostMachine, ModelRing, anonymous};

/// Params of `Console.writeLine`.
pub fn write_line_params(text: &str) -> Vec<u8> {
    let mut message = Builder::new_default();
    message
        .init_root::<console::write_line_params::Builder<'_>>()
        .set_text(text);
    serialize::write_message_to_words(&message)
}

/// Params of `Timer.sleep`.
pub fn sleep_params(duration_ns: u64) -> Vec<u8> {
    let mut message = Builder::new_default();
    message
        .init_root::<timer::sleep_params::Builder<'_>>()
        .set_duration_ns(duration_ns);
    serialize::write_message_to_words(&message)
}

/// Kind and message of an exception at the start of a result buffer.
pub fn decode_exception(bytes: &[u8]) -> (ExceptionType, String) {
    let mut slice = bytes;
    let message = serialize::read_message(&mut slice, capos_config::default_reader_options())
        .expect("a CapException message");
    let root = message.get_root::<cap_exception::Reader<'_>>().unwrap();
    let text = root.get_message().unwrap().to_string().unwrap();
    (root.get_type().unwrap(), text)
}

/// The published client library, entered through a server in this process
/// instead of a trap. Time passes only while the client waits.
pub struct PublishedClient {
    server: Server<HostMachine>,
    machine: HostMachine,
    pid: Pid,
    capset: Box<[u8; CAPSET_PAGE_BYTES]>,
    client: RingClient,
    _ring: ModelRing,
}

impl PublishedClient {
    pub fn new(grants: &[Grant<'_>]) -> Self {
        let mut server = Server::new();
        let ring = ModelRing::new();
        let mut capset = Box::new([0; CAPSET_PAGE_BYTES]);
        let mut space = AddressMap::new(1);
        space
            .insert(anonymous(0x1000, 0x7fff_ffff_e000, Protection::READ_WRITE))
            .expect("all of user space; the host refuses what is not there");
        let spec = ProcessSpec::new(ring.clone(), space).grants(grants);
        let pid = server.create_process(spec, &mut capset).unwrap();
        // SAFETY: the page is a valid ring page, outlives the client (the
        // field order keeps a handle), and this is its only client.
        let client = unsafe { RingClient::from_raw_ring(ring.as_ptr()) };
        Self {
            server,
            machine: HostMachine::default(),
            pid,
            capset,
            client: client.unwrap_or_else(|_| panic!("the header is valid")),
            _ring: ring,
        }
    }

    pub fn cap(&self, name: &str) -> u32 {
        // SAFETY: the page is a whole CapSet page the server filled.
        let entry = unsafe { capos_config::capset::find(self.capset.as_ptr(), name.as_bytes()) };
        entry.expect("name is in the CapSet").cap_id
    }

    pub fn console(&self) -> &[u8] {
        &self.machine.console
    }

    /// One `cap_enter(1, forever)`: time jumps to each next deadline until
    /// the thread continues.
    fn enter(&mut self) {
        let entry = self
            .server
            .cap_enter(&mut self.machine, self.pid, Tid::MAIN, 1, u64::MAX);
        self.server.check();
        if entry != Entry::Block {
            return;
        }
        while self.machine.resumed.is_empty() {
            let due = self.server.next_deadline();
            let now = due.expect("something will end the wait");
            self.machine.now_ns = now;
            self.server.advance(&mut self.machine, now);
            self.server.check();
        }
        self.machine.resumed.clear();
    }
}

impl Transport for PublishedClient {
    fn submit_call(
        &mut self,
        cap_id: u32,
        method_id: u16,
        params: Box<[u8]>,
        result: Box<[u8]>,
    ) -> Result<CallId, RingClientError> {
        self.client.submit_call(cap_id, method_id, params, result)
    }

    fn submit_call_with_copy_transfers(
        &mut self,
        cap_id: u32,
        method_id: u16,
        params: Box<[u8]>,
        result: Box<[u8]>,
        transfers: &[CopyTransfer],
    ) -> Result<CallId, RingClientError> {
        self.client
            .submit_call_with_copy_transfers(cap_id, method_id, params, result, transfers)
    }

    fn submit_call_borrowed_wait_forever(
        &mut self,
        _: u32,
        _: u16,
        _: &[u8],
        _: &mut [u8],
    ) -> Result<CapCqe, RingClientError> {
        Err(RingClientError::SyscallRejected)
    }

    fn wait(&mut self, call: CallId, _: u64) -> Result<CompletedCall, RingClientError> {
        loop {
            self.enter();
            if let Some(completed) = self.client.try_complete(call)? {
                return Ok(completed);
            }
        }
    }

    fn try_complete(&mut self, call: CallId) -> Result<Option<CompletedCall>, RingClientError> {
        self.client.try_complete(call)
    }

    fn release_wait(&mut self, cap_id: u32, timeout_ns: u64) -> Result<i32, RingClientError> {
        let call = self.client.submit_release(cap_id)?;
        Ok(self.wait(call, timeout_ns)?.cqe().result)
    }
}

/// Params of `CapabilityManager.revoke`.
pub fn revoke_params(cap: u32) -> Vec<u8> {
    let mut message = Builder::new_default();
    message
        .init_root::<capability_manager::revoke_params::Builder<'_>>()
        .set_cap_id(cap);
    serialize::write_message_to_words(&message)
}

/// Rows of `CapabilityManager.list`, decoded as the published client does.
pub fn decode_list(bytes: &[u8]) -> Vec<(u32, u64, String)> {
    let mut slice = bytes;
    let message = serialize::read_message(&mut slice, capos_config::default_reader_options())
        .expect("a list message");
    let root = message
        .get_root::<capability_manager::list_results::Reader<'_>>()
        .unwrap();
    let rows = root.get_capabilities().unwrap();
    rows.iter()
        .map(|row| {
            let label = row.get_label().unwrap().to_string().unwrap();
            (row.get_id(), row.get_interface_id(), label)
        })
        .collect()
}

/// The empty result of `CapabilityManager.revoke`.
pub fn decode_revoke(bytes: &[u8]) {
    let mut slice = bytes;
    let message = serialize::read_message(&mut slice, capos_config::default_reader_options())
        .expect("an empty-struct message");
    message
        .get_root::<capability_manager::revoke_results::Reader<'_>>()
        .expect("a struct at the root");
}
