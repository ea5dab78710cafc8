//! `CredentialStore` without and with a password of the manifest.
//!
//! Granted `expects-1`, there is one (`correct horse`); otherwise this program
//! makes one. Then it is right once, wrong in every way, and in a hurry: it
//! asks more than may wait, and asks for the status meanwhile.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use capos::prelude::*;
use capos::{
    CallId, CredentialCheckStatus, CredentialStoreClient, ExceptionType, RuntimeRingClient,
};
use raw_ring::proof::{self, Failure, Proof, equal, that};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const PASSWORD: &[u8] = b"correct horse";
const PASSWORD_MAX: usize = 256;
/// More than wait besides the one being checked.
const FLOOD: usize = 9;
const WAITING: usize = 5;
/// A check on a machine that is emulated.
const CHECK_NS_MAX: u64 = 4_000_000_000;

struct Tester<'a, 'b> {
    store: CredentialStoreClient,
    timer: TimerClient,
    ring: &'a mut RuntimeRingClient<'b>,
}

fn failed(what: &str, error: &ClientError) -> Failure {
    Failure::new(format!("{what}: {error:?}"))
}

/// The exception a call ended with.
fn refusal<T>(outcome: &Result<T, ClientError>) -> Option<ExceptionType> {
    match outcome {
        Err(ClientError::Application(exception)) => Some(exception.exception_type()),
        _ => None,
    }
}

impl Tester<'_, '_> {
    fn status(&mut self) -> Result<(bool, bool), Failure> {
        let status = self.store.console_password_status_wait(self.ring, FOREVER);
        let status = status.map_err(|error| failed("status", &error))?;
        Ok((status.configured, status.volatile))
    }

    fn verify(&mut self, password: &[u8]) -> Result<(CredentialCheckStatus, bool), Failure> {
        let checked = self
            .store
            .verify_console_password_wait(self.ring, password, FOREVER);
        let checked = checked.map_err(|error| failed("verify", &error))?;
        Ok((checked.status, checked.volatile))
    }

    fn create(&mut self, password: &[u8]) -> Result<(bool, bool), Option<ExceptionType>> {
        let created = self
            .store
            .create_console_password_wait(self.ring, password, FOREVER);
        let refused = refusal(&created);
        created
            .map(|status| (status.configured, status.volatile))
            .map_err(|_| refused)
    }

    fn now(&mut self) -> Result<u64, Failure> {
        let now = self.timer.now_wait(self.ring, FOREVER);
        now.map(|now| now.monotonic_ns)
            .map_err(|error| failed("now", &error))
    }

    fn without_password(&mut self) -> Proof {
        equal("status", self.status()?, (false, false))?;
        let unavailable = (CredentialCheckStatus::Unavailable, false);
        equal("verify", self.verify(PASSWORD)?, unavailable)?;
        let invalid = Err(Some(ExceptionType::InvalidArgument));
        equal("create with nothing", self.create(b""), invalid)?;
        let long = [b'x'; PASSWORD_MAX + 1];
        equal("create too long", self.create(&long), invalid)?;
        equal("status", self.status()?, (false, false))?;
        equal("create", self.create(PASSWORD), Ok((true, true)))?;
        equal("status", self.status()?, (true, true))
    }

    /// What holds wherever the password comes from.
    fn with_password(&mut self, volatile: bool) -> Proof {
        equal("status", self.status()?, (true, volatile))?;
        let again = Err(Some(ExceptionType::Failed));
        equal("create again", self.create(b"another"), again)?;
        let success = (CredentialCheckStatus::Success, volatile);
        let denied = (CredentialCheckStatus::Denied, volatile);
        let start = self.now()?;
        equal("right", self.verify(PASSWORD)?, success)?;
        let took = self.now()? - start;
        that(took < CHECK_NS_MAX, &format!("a check takes {took} ns"))?;
        equal("another", self.verify(b"another")?, denied)?;
        equal("nothing", self.verify(b"")?, denied)?;
        equal("right again", self.verify(PASSWORD)?, success)?;
        let padded = [PASSWORD, &[0]].concat();
        equal("with a zero after it", self.verify(&padded)?, denied)?;
        let start = self.now()?;
        equal("right after wrong", self.verify(PASSWORD)?, success)?;
        let waited = self.now()? - start;
        that(waited >= 250_000_000, "a wrong attempt makes the next wait")?;
        let mut long = vec![b'x'; 60_000];
        long[..PASSWORD.len()].copy_from_slice(PASSWORD);
        equal("far too long", self.verify(&long)?, denied)?;
        let once = vec![b'x'; PASSWORD_MAX + 1];
        equal("too long", self.verify(&once)?, denied)?;
        equal("right at last", self.verify(PASSWORD)?, success)?;
        let policy = self.store.console_bootstrap_policy_wait(self.ring, FOREVER);
        let policy = policy.map_err(|error| failed("policy", &error))?;
        equal("policy", policy.development_shell_allowed, false)
    }

    /// Too many attempts at a time: the status is known before any of them is
    /// checked, and those beyond the bound are refused at once.
    fn flood(&mut self) -> Proof {
        let calls = (0..FLOOD)
            .map(|_| self.store.verify_console_password(self.ring, PASSWORD))
            .collect::<Result<Vec<CallId>, ClientError>>()
            .map_err(|error| failed("flood", &error))?;
        let (configured, _) = self.status()?;
        that(configured, "the status is known meanwhile")?;
        let (mut checked, mut refused) = (0, 0);
        for (index, call) in calls.into_iter().enumerate() {
            let completion = self.ring.wait(call, FOREVER).map_err(ClientError::Ring);
            let completion = completion.map_err(|error| failed("wait", &error))?;
            let outcome = self.store.finish_verify_console_password(completion);
            match (&outcome, refusal(&outcome)) {
                (Ok(result), _) if result.status == CredentialCheckStatus::Success => checked += 1,
                (_, Some(ExceptionType::Overloaded)) => refused += 1,
                _ => return Err(Failure::new(format!("attempt {index} of a flood"))),
            }
        }
        that(checked >= WAITING - 1, &format!("{checked} were checked"))?;
        equal("all were answered", checked + refused, FLOOD)?;
        that(
            refused >= FLOOD - WAITING,
            &format!("{refused} were refused"),
        )
    }

    /// Params that are none, of every method and of some that are not there.
    fn malformed(&mut self) -> Proof {
        let cap_id = self.store.capability().cap_id();
        let garbage: [&[u8]; 5] = [&[], &[0xff; 7], &[0xff; 64], &[0; 8], &[0x41; 4096]];
        for method in [1, 3] {
            for params in garbage {
                let call = self
                    .ring
                    .submit_call(cap_id, method, params.into(), result());
                let call = call.map_err(|error| failed("submit", &ClientError::Ring(error)))?;
                let completion = self.ring.wait(call, FOREVER).map_err(ClientError::Ring);
                let completion = completion.map_err(|error| failed("wait", &error))?;
                let outcome = capos::decode_completed_call(&completion);
                // A message of zeroes is one, with an empty password.
                let is_empty_message = params.iter().all(|byte| *byte == 0) && !params.is_empty();
                if is_empty_message && method == 1 {
                    continue;
                }
                let invalid = Some(ExceptionType::InvalidArgument);
                equal(
                    &format!("{} bytes", params.len()),
                    refusal(&outcome),
                    invalid,
                )?;
            }
        }
        for method in [4, 99, u16::MAX] {
            let call = self
                .ring
                .submit_call(cap_id, method, [0xff; 64].into(), result());
            let call = call.map_err(|error| failed("submit", &ClientError::Ring(error)))?;
            let completion = self.ring.wait(call, FOREVER).map_err(ClientError::Ring);
            let completion = completion.map_err(|error| failed("wait", &error))?;
            let outcome = capos::decode_completed_call(&completion);
            let unimplemented = Some(ExceptionType::Unimplemented);
            equal(&method.to_string(), refusal(&outcome), unimplemented)?;
        }
        Ok(())
    }
}

fn result() -> Box<[u8]> {
    vec![0; 512].into_boxed_slice()
}

fn prove(runtime: &mut Runtime) -> Proof {
    let missing = |_| Failure::new("a capability is missing");
    let capset = runtime.capset();
    let store = capset.get_client(b"credential_store").map_err(missing)?;
    let timer = capset.get_client(b"timer").map_err(missing)?;
    let expects = capset.get(b"expects-1").is_ok();
    let mut ring = runtime
        .ring_client()
        .map_err(|_| Failure::new("no ring client"))?;
    let mut tester = Tester {
        store,
        timer,
        ring: &mut ring,
    };
    if !expects {
        tester.without_password()?;
    }
    tester.malformed()?;
    tester.with_password(!expects)?;
    tester.flood()
}

fn main(runtime: Runtime) -> i64 {
    proof::run_parent(runtime, "credential", prove)
}

entry_point!(main);
