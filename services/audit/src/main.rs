//! Writes audit records to the console, one line each: `AuditLog` as a service.
//!
//! Who a record is about is shown by names that only hold until the next boot
//! ([`policy::audit`]). A record is written before its call is answered.
//!
//! Holds: `audit_log` (the endpoint it serves), `console`, `entropy_source`.
#![no_std]
#![no_main]

extern crate alloc;

use capos::capos_capnp::{AuditEventType, AuditReasonClass, AuditResultClass, audit_log};
use capos::prelude::*;
use capos::{Endpoint, EntropyStatus, ExceptionType, RuntimeRingClient};
use policy::audit::{KEY_BYTES, Record, Redactor};
use service::{Call, FOREVER, Refusal, Reply, Server, Service, refuse, serve};

const RECEIVES: usize = 4;
/// Three identities of 32 bytes, two words, and their framing.
const PARAMS_BYTES: usize = 512;
/// Longest identity of a record.
const ID_BYTES_MAX: usize = 64;

const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;
const EXIT_ENTROPY: i64 = 4;

const RECORD: u16 = 0;

struct Audit {
    redactor: Redactor,
    console: ConsoleClient,
}

const fn event(event: AuditEventType) -> &'static str {
    match event {
        AuditEventType::Auth => "auth",
        AuditEventType::Setup => "setup",
        AuditEventType::Session => "session",
        AuditEventType::Broker => "broker",
        AuditEventType::ShellLaunch => "shellLaunch",
    }
}

const fn result(result: AuditResultClass) -> &'static str {
    match result {
        AuditResultClass::Ok => "ok",
        AuditResultClass::Denied => "denied",
        AuditResultClass::Unavailable => "unavailable",
        AuditResultClass::Failed => "failed",
    }
}

const fn reason(reason: AuditReasonClass) -> &'static str {
    match reason {
        AuditReasonClass::None => "none",
        AuditReasonClass::Password => "password",
        AuditReasonClass::SetupRequired => "setupRequired",
        AuditReasonClass::SetupCreate => "setupCreate",
        AuditReasonClass::DevelopmentShell => "developmentShell",
        AuditReasonClass::Policy => "policy",
        AuditReasonClass::Spawn => "spawn",
        AuditReasonClass::Wait => "wait",
    }
}

impl Service for Audit {
    fn has_method(&self, _endpoint: usize, method: u16) -> bool {
        method == RECORD
    }

    fn call(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &mut Call,
    ) -> Result<Reply, Refusal> {
        let message = call.message()?;
        let params: audit_log::record_params::Reader<'_> = message.get_root()?;
        let record = Record {
            event: event(params.get_event_type()?),
            result: result(params.get_result_class()?),
            reason: reason(params.get_reason_class()?),
            terminal_event_id: params.get_terminal_event_id()?,
            session_id: params.get_session_id()?,
            principal_id: params.get_principal_id()?,
            profile: params.get_profile()?.to_str()?,
            auth_method: params.get_auth_method()?.to_str()?,
            volatile: params.get_volatile(),
        };
        let ids = [
            record.terminal_event_id,
            record.session_id,
            record.principal_id,
        ];
        if ids.iter().any(|id| id.len() > ID_BYTES_MAX) {
            return Err(refuse(
                ExceptionType::InvalidArgument,
                "identity is too long",
            ));
        }
        let line = self.redactor.line(&record);
        self.console
            .write_line_wait(ring, &line, FOREVER)
            .map_err(|_| refuse(ExceptionType::Failed, "record was not written"))?;
        Ok(Reply::void())
    }
}

fn key(
    entropy: &mut EntropySourceClient,
    ring: &mut RuntimeRingClient<'_>,
) -> Option<[u8; KEY_BYTES]> {
    let filled = entropy.fill_wait(ring, KEY_BYTES as u32, FOREVER).ok()?;
    let filled = (filled.status == EntropyStatus::Ok).then_some(filled.data)?;
    <[u8; KEY_BYTES]>::try_from(&filled[..]).ok()
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let (Ok(endpoint), Ok(console), Ok(mut entropy)) = (
        capset.get_typed::<Endpoint>(b"audit_log"),
        capset.get_client::<ConsoleClient>(b"console"),
        capset.get_client::<EntropySourceClient>(b"entropy_source"),
    ) else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let Some(key) = key(&mut entropy, &mut ring) else {
        return EXIT_ENTROPY;
    };
    let Ok(server) = Server::new(&mut ring, &[endpoint], RECEIVES, PARAMS_BYTES) else {
        return EXIT_SERVING;
    };
    let redactor = Redactor::new(key);
    let Err(_) = serve(&mut ring, server, &mut Audit { redactor, console });
    EXIT_SERVING
}

entry_point!(main);
