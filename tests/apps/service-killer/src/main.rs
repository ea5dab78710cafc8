//! Run by a person's shell: has one service after the other ended, and calls
//! each before and after through the same capability.
//!
//! What it finds it says on the person's terminal; it ends with 0 if all of it
//! is as it should be.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use alloc::vec;

use capnp::message::Builder;
use capos::prelude::*;
use capos::{
    AuditEventType, AuditLogClient, AuditReasonClass, AuditRecord, AuditResultClass, CallId,
    CapSet, Capability, CapabilityRef, CapabilityType, Client, CredentialStoreClient, Endpoint,
    ExceptionType, LogReaderClient, LogSeverity, LogSinkClient, RuntimeRingClient, StdIOClient,
    StdIOStream, SystemInfoClient, decode_completed_call,
};
use chat_api::ChatClient;
use raw_ring::proof::{Failure, Proof, equal, that};
use sel4_capos_schema::method;
use sel4_capos_schema::password_capnp::password_hasher;
use sel4_capos_schema::supervisor_capnp::supervisor;

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const LOBBY: &str = "#lobby";
const RESULT_BYTES: usize = 1024;

struct Tester<'a, 'b> {
    ring: &'a mut RuntimeRingClient<'b>,
    capset: CapSet,
    stdio: StdIOClient,
}

fn failed(what: &str) -> impl Fn(ClientError) -> Failure + '_ {
    move |error| Failure::new(format!("{what}: {error:?}"))
}

fn is_disconnected<T>(outcome: &Result<T, ClientError>) -> bool {
    refusal(outcome) == Some(ExceptionType::Disconnected)
}

fn refusal<T>(outcome: &Result<T, ClientError>) -> Option<ExceptionType> {
    match outcome {
        Err(ClientError::Application(exception)) => Some(exception.exception_type()),
        _ => None,
    }
}

impl Tester<'_, '_> {
    fn endpoint(&self, name: &str) -> Result<Capability<Endpoint>, Failure> {
        let endpoint = self.capset.get_typed::<Endpoint>(name.as_bytes());
        endpoint.map_err(|_| Failure::new(format!("no {name}")))
    }

    /// A client of the endpoint granted as `name`.
    fn client<C: Client>(&self, name: &str) -> Result<C, Failure> {
        let endpoint = self.endpoint(name)?;
        let interface_id = <C::Capability as CapabilityType>::INTERFACE_ID;
        let capability = CapabilityRef::new(endpoint.cap_id(), interface_id).typed();
        let capability = capability.ok_or_else(|| Failure::new("no such type"))?;
        Ok(C::from_capability(capability))
    }

    fn say(&mut self, text: &str) -> Proof {
        let line = format!("{text}\n");
        self.stdio
            .write_wait(self.ring, StdIOStream::Stdout, &line, FOREVER)
            .map_err(failed("write"))
    }

    fn submit(
        &mut self,
        name: &str,
        method: u16,
        params: &Builder<capnp::message::HeapAllocator>,
    ) -> Result<CallId, Failure> {
        let capability = self.capset.get(name.as_bytes());
        let capability = capability.map_err(|_| Failure::new(format!("no {name}")))?;
        let params = capnp::serialize::write_message_to_words(params).into_boxed_slice();
        let result: Box<[u8]> = vec![0; RESULT_BYTES].into();
        self.ring
            .submit_call(capability.cap_id(), method, params, result)
            .map_err(|error| Failure::new(format!("{name}: {error:?}")))
    }

    fn finish(&mut self, call: CallId) -> Result<usize, ClientError> {
        let completion = self.ring.wait(call, FOREVER).map_err(ClientError::Ring)?;
        decode_completed_call(&completion)
    }

    fn restart(&mut self, service: &str) -> Proof {
        let mut message = Builder::new_default();
        let mut params: supervisor::restart_params::Builder<'_> = message.init_root();
        params.set_service(service);
        let call = self.submit("supervisor", method::RESTART, &message)?;
        self.finish(call).map(drop).map_err(failed(service))
    }

    fn hash(&mut self) -> Result<CallId, Failure> {
        let mut message = Builder::new_default();
        let mut params: password_hasher::derive_params::Builder<'_> = message.init_root();
        params.set_password(b"some password");
        params.set_salt(b"sixteen bytes ok");
        self.submit("hasher", method::DERIVE, &message)
    }

    fn system_info(&mut self) -> Proof {
        let mut info: SystemInfoClient = self.client("info")?;
        let hostname = info.hostname_wait(self.ring, FOREVER);
        equal("hostname", &*hostname.map_err(failed("hostname"))?, "capos")
    }

    fn audit(&mut self) -> Proof {
        let mut audit: AuditLogClient = self.client("journal")?;
        let record = AuditRecord {
            event_type: AuditEventType::Session,
            result_class: AuditResultClass::Ok,
            reason_class: AuditReasonClass::None,
            terminal_event_id: &[],
            session_id: &[],
            principal_id: &[],
            profile: "operator",
            auth_method: "none",
            volatile: false,
        };
        audit
            .record_wait(self.ring, record, FOREVER)
            .map_err(failed("record"))
    }

    /// Writes a record; how many there were before.
    fn log(&mut self) -> Result<usize, Failure> {
        let mut reader: LogReaderClient = self.client("log_reader")?;
        let read = reader.read_wait(self.ring, 0, 16, LogSeverity::Debug, "", FOREVER);
        let count = read.map_err(failed("read"))?.records.len();
        let mut sink: LogSinkClient = self.client("log_sink")?;
        let error = LogSeverity::Error;
        let written = sink.write_wait(self.ring, error, "killer", 1, "a record", FOREVER);
        that(written.map_err(failed("log"))?, "a record is kept")?;
        Ok(count)
    }

    fn password_is_made(&mut self) -> Proof {
        let mut store: CredentialStoreClient = self.client("store")?;
        let status = store.console_password_status_wait(self.ring, FOREVER);
        let status = status.map_err(failed("status"))?;
        equal(
            "password",
            (status.configured, status.volatile),
            (true, true),
        )
    }

    /// Members of the lobby; none if there is no lobby.
    fn members(&mut self) -> Result<usize, Failure> {
        let chat = ChatClient::new(self.endpoint("chat")?);
        match chat.who_wait(self.ring, LOBBY, FOREVER) {
            Ok(members) => Ok(members.len()),
            Err(ClientError::Application(exception))
                if exception.exception_type() != ExceptionType::Disconnected =>
            {
                Ok(0)
            }
            Err(error) => Err(failed("who")(error)),
        }
    }

    fn join(&mut self) -> Proof {
        let chat = ChatClient::new(self.endpoint("chat")?);
        let joined = chat.join_wait(self.ring, LOBBY, "killer", FOREVER);
        joined.map(drop).map_err(failed("join"))?;
        equal("members", self.members()?, 1)
    }

    /// Every service at rest.
    fn at_rest(&mut self) -> Proof {
        self.system_info()?;
        self.restart("system-info")?;
        self.system_info()?;
        self.say("system-info: the next instance answers")?;
        self.audit()?;
        self.restart("audit")?;
        self.audit()?;
        self.say("audit: the next instance answers")?;
        self.log()?;
        equal("records", self.log()?, 1)?;
        self.restart("logs")?;
        equal("records of the next instance", self.log()?, 0)?;
        self.say("logs: the next instance answers, and has no records")?;
        let hash = self.hash()?;
        self.finish(hash).map_err(failed("hash"))?;
        self.restart("password-hash")?;
        let hash = self.hash()?;
        self.finish(hash).map_err(failed("hash"))?;
        self.say("password-hash: the next instance answers")?;
        self.password_is_made()?;
        self.restart("credentials")?;
        self.password_is_made()?;
        self.say("credentials: the next instance answers, and has the password")?;
        self.join()?;
        self.restart("chat-server")?;
        equal("members of the next instance", self.members()?, 0)?;
        self.join()?;
        self.say("chat-server: the next instance answers, and has no members")
    }

    /// Services that end in the middle of a call, which takes long here: a hash.
    fn in_progress(&mut self) -> Proof {
        let mut store: CredentialStoreClient = self.client("store")?;
        let attempt = store.verify_console_password(self.ring, b"a wrong password");
        let attempt = attempt.map_err(failed("verify"))?;
        self.restart("credentials")?;
        that(
            is_disconnected(&self.finish(attempt)),
            "an attempt with a store that ended is disconnected",
        )?;
        self.password_is_made()?;
        self.say("credentials: a call in progress was answered disconnected")?;
        let hash = self.hash()?;
        self.restart("password-hash")?;
        that(
            is_disconnected(&self.finish(hash)),
            "a hash of a program that ended is disconnected",
        )?;
        self.say("password-hash: a call in progress was answered disconnected")?;
        let mut store: CredentialStoreClient = self.client("store")?;
        let attempt = store.verify_console_password(self.ring, b"a wrong password");
        let attempt = attempt.map_err(failed("verify"))?;
        self.restart("password-hash")?;
        // It was being hashed, or waited and was the next instance's.
        let outcome = self.finish(attempt);
        let refused = refusal(&outcome) == Some(ExceptionType::Failed);
        that(refused || outcome.is_ok(), "an attempt is answered")?;
        self.say("credentials: an attempt survives the hasher")
    }
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let Ok(stdio) = capset.get_typed::<Endpoint>(b"stdio") else {
        return 2;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return 2;
    };
    let mut tester = Tester {
        ring: &mut ring,
        capset,
        stdio: StdIOClient::new(stdio),
    };
    let outcome = tester.at_rest().and_then(|()| tester.in_progress());
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            let _ = tester.say(&format!("FAILED: {failure:?}"));
            1
        }
    }
}

entry_point!(main);
