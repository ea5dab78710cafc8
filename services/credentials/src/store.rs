//! What is asked, what waits for a hash, and what is answered.

use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use capos::capos_capnp::{CredentialCheckStatus, credential_store};
use capos::prelude::*;
use capos::{CallId, CompletedCall, EntropyStatus, ExceptionType, RuntimeRingClient};
use capos_config::SystemConfig;
use capos_lib::credential::{ConsoleCredentialStateError, MAX_CONSOLE_PASSWORD_BYTES};
use policy::attempts::{Attempts, Step};
use policy::passwords::{Passwords, Status};
use service::{
    Call, Event, FOREVER, Refusal, Reply, Server, ServerError, empty_message, refuse,
    unknown_method,
};
use zeroize::Zeroizing;

use crate::hasher::{self, Hasher};
use crate::keepsake::{self, Keepsake};

const SALT_BYTES: u32 = 16;

mod ordinal {
    pub(super) const STATUS: u16 = 0;
    pub(super) const VERIFY: u16 = 1;
    pub(super) const POLICY: u16 = 2;
    pub(super) const CREATE: u16 = 3;
}

/// An attempt at the password, and who is to hear of it.
struct Attempt {
    call: Call,
    password: Zeroizing<Vec<u8>>,
    /// It is too long to be right.
    too_long: bool,
}

/// What a hash is being computed for.
enum Work {
    Attempt {
        call: Call,
        too_long: bool,
    },
    Creation {
        call: Call,
    },
    /// It was made, and is being put where the next instance finds it.
    Keeping {
        call: Call,
        verifier: Zeroizing<String>,
    },
}

/// The credentials and everything in progress.
pub(crate) struct Store {
    passwords: Passwords,
    development_shell: bool,
    attempts: Attempts<Attempt>,
    hasher: Hasher,
    keepsake: Option<Keepsake>,
    entropy: EntropySourceClient,
    timer: TimerClient,
    working: Vec<(CallId, Work)>,
    /// A sleep until the next attempt may be checked.
    sleep: Option<CallId>,
}

impl Store {
    pub(crate) fn new(
        passwords: Passwords,
        config: Option<&SystemConfig>,
        (hasher, keepsake): (Hasher, Option<Keepsake>),
        (entropy, timer): (EntropySourceClient, TimerClient),
    ) -> Self {
        Self {
            passwords,
            development_shell: config.is_some_and(|config| config.allow_local_development_shell),
            attempts: Attempts::default(),
            hasher,
            keepsake,
            entropy,
            timer,
            working: Vec::new(),
            sleep: None,
        }
    }

    /// Serves until that is no longer possible.
    pub(crate) fn serve(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
    ) -> Result<Infallible, ServerError> {
        loop {
            self.proceed(ring)?;
            let mut watched: Vec<CallId> = self.working.iter().map(|(id, _)| *id).collect();
            watched.extend(self.sleep);
            match server.next(ring, &watched)? {
                Event::Call(call) => self.call(ring, server, call)?,
                Event::Completed(id, _) if self.sleep == Some(id) => self.sleep = None,
                Event::Completed(id, completion) => {
                    self.worked(ring, server, id, &completion.0)?;
                }
            }
        }
    }

    fn now(&mut self, ring: &mut RuntimeRingClient<'_>) -> u64 {
        let now = self.timer.now_wait(ring, FOREVER);
        // Without a clock nothing is checked before its time.
        now.map_or(0, |now| now.monotonic_ns)
    }

    /// Starts the next check if its time has come.
    fn proceed(&mut self, ring: &mut RuntimeRingClient<'_>) -> Result<(), ServerError> {
        let now = self.now(ring);
        match self.attempts.step(now) {
            Step::Idle => Ok(()),
            Step::WaitUntil(at) => {
                if self.sleep.is_none() {
                    self.sleep = self.timer.sleep(ring, at - now).ok();
                }
                Ok(())
            }
            Step::Check(attempt) => self.check(ring, attempt),
        }
    }

    fn check(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        attempt: Attempt,
    ) -> Result<(), ServerError> {
        let Attempt {
            call,
            password,
            too_long,
        } = attempt;
        // A password that was there when the attempt came does not go.
        let verifier = self.passwords.verifier().unwrap_or_default();
        let id = self.hasher.verify(ring, verifier, &password)?;
        self.working.push((id, Work::Attempt { call, too_long }));
        Ok(())
    }

    /// Takes in a hash that was computed.
    fn worked(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
        id: CallId,
        completed: &CompletedCall,
    ) -> Result<(), ServerError> {
        let Some(index) = self.working.iter().position(|(known, _)| *known == id) else {
            return Ok(());
        };
        let (_, work) = self.working.swap_remove(index);
        match work {
            Work::Attempt { call, too_long } => {
                let right = hasher::matches(completed).map(|matches| matches && !too_long);
                let now = self.now(ring);
                self.attempts.checked(now, right);
                let volatile = self.passwords.status().volatile;
                let answer = right.map_or_else(
                    || Err(refuse(ExceptionType::Failed, "password was not checked")),
                    |right| {
                        let denied = CredentialCheckStatus::Denied;
                        let status = if right {
                            CredentialCheckStatus::Success
                        } else {
                            denied
                        };
                        Ok(checked(status, volatile))
                    },
                );
                server.answer(ring, call, answer)
            }
            Work::Creation { call } => {
                let verifier = hasher::verifier(completed).map(Zeroizing::new);
                match (verifier, &self.keepsake) {
                    (Some(verifier), Some(keepsake)) => {
                        let id = keepsake.keep(ring, &verifier)?;
                        self.working.push((id, Work::Keeping { call, verifier }));
                        Ok(())
                    }
                    (verifier, _) => self.made(ring, server, call, verifier),
                }
            }
            Work::Keeping { call, verifier } => {
                let kept = keepsake::is_kept(completed).then_some(verifier);
                self.made(ring, server, call, kept)
            }
        }
    }

    /// Ends a creation: with its verifier, or without one.
    fn made(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
        call: Call,
        verifier: Option<Zeroizing<String>>,
    ) -> Result<(), ServerError> {
        let verifier = verifier.as_ref().map(|verifier| verifier.as_str());
        let made = self.passwords.made(verifier);
        server.answer(ring, call, made.map(created).map_err(not_created))
    }

    fn call(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
        call: Call,
    ) -> Result<(), ServerError> {
        match call.method {
            ordinal::STATUS => {
                let status = self.passwords.status();
                server.answer(ring, call, Ok(status_reply(status)))
            }
            ordinal::POLICY => {
                let reply = policy_reply(self.development_shell);
                server.answer(ring, call, Ok(reply))
            }
            ordinal::VERIFY => self.verify(ring, server, call),
            ordinal::CREATE => self.create(ring, server, call),
            _ => server.answer(ring, call, Err(unknown_method())),
        }
    }

    fn verify(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
        mut call: Call,
    ) -> Result<(), ServerError> {
        let (password, too_long) = match attempted(&call) {
            Ok(attempted) => attempted,
            Err(refusal) => return server.answer(ring, call, Err(refusal)),
        };
        call.erase_params();
        if self.passwords.verifier().is_none() {
            let reply = checked(CredentialCheckStatus::Unavailable, false);
            return server.answer(ring, call, Ok(reply));
        }
        let attempt = Attempt {
            call,
            password,
            too_long,
        };
        match self.attempts.admit(attempt) {
            Ok(()) => Ok(()),
            Err(attempt) => {
                let refusal = refuse(ExceptionType::Overloaded, "too many passwords to check");
                server.answer(ring, attempt.call, Err(refusal))
            }
        }
    }

    fn create(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        server: &mut Server,
        mut call: Call,
    ) -> Result<(), ServerError> {
        let begun = begin_creation(&mut self.passwords, &call);
        call.erase_params();
        let password = match begun {
            Ok(password) => password,
            Err(refusal) => return server.answer(ring, call, Err(refusal)),
        };
        let salt = self.entropy.fill_wait(ring, SALT_BYTES, FOREVER);
        let salt = salt
            .ok()
            .filter(|filled| filled.status == EntropyStatus::Ok);
        let Some(salt) = salt.filter(|filled| filled.data.len() == SALT_BYTES as usize) else {
            let _ = self.passwords.made(None);
            let refusal = not_created(ConsoleCredentialStateError::EntropyUnavailable);
            return server.answer(ring, call, Err(refusal));
        };
        let id = self.hasher.derive(ring, &password, &salt.data)?;
        self.working.push((id, Work::Creation { call }));
        Ok(())
    }
}

/// The password of an attempt, cut to the length passwords may have, and
/// whether it was longer.
fn attempted(call: &Call) -> Result<(Zeroizing<Vec<u8>>, bool), Refusal> {
    let message = call.message()?;
    let params: credential_store::verify_console_password_params::Reader<'_> =
        message.get_root()?;
    let password = params.get_password()?;
    let too_long = password.len() > MAX_CONSOLE_PASSWORD_BYTES;
    let kept = &password[..password.len().min(MAX_CONSOLE_PASSWORD_BYTES)];
    Ok((Zeroizing::new(kept.to_vec()), too_long))
}

fn begin_creation(passwords: &mut Passwords, call: &Call) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let message = call.message()?;
    let params: credential_store::create_console_password_params::Reader<'_> =
        message.get_root()?;
    let password = params.get_password()?;
    passwords.begin(password).map_err(not_created)?;
    Ok(Zeroizing::new(password.to_vec()))
}

fn not_created(error: ConsoleCredentialStateError) -> Refusal {
    use ConsoleCredentialStateError as Refused;
    let (kind, message) = match error {
        Refused::EmptyPassword => (ExceptionType::InvalidArgument, "password is empty"),
        Refused::PasswordTooLong => (ExceptionType::InvalidArgument, "password is too long"),
        Refused::AlreadyConfigured => (ExceptionType::Failed, "there is a password already"),
        Refused::EntropyUnavailable => (ExceptionType::Failed, "no entropy for a salt"),
        Refused::DeriveFailed | Refused::BootstrapVerifier(_) => {
            (ExceptionType::Failed, "password was not hashed")
        }
    };
    refuse(kind, message)
}

fn checked(status: CredentialCheckStatus, volatile: bool) -> Reply {
    let mut message = empty_message();
    let mut results: credential_store::verify_console_password_results::Builder<'_> =
        message.init_root();
    results.set_status(status);
    results.set_volatile(volatile);
    Reply::message(&message)
}

fn status_reply(status: Status) -> Reply {
    let mut message = empty_message();
    let mut results: credential_store::console_password_status_results::Builder<'_> =
        message.init_root();
    results.set_configured(status.configured);
    results.set_volatile(status.volatile);
    Reply::message(&message)
}

fn created(status: Status) -> Reply {
    let mut message = empty_message();
    let mut results: credential_store::create_console_password_results::Builder<'_> =
        message.init_root();
    results.set_configured(status.configured);
    results.set_volatile(status.volatile);
    Reply::message(&message)
}

fn policy_reply(development_shell: bool) -> Reply {
    let mut message = empty_message();
    let mut results: credential_store::console_bootstrap_policy_results::Builder<'_> =
        message.init_root();
    results.set_development_shell_allowed(development_shell);
    Reply::message(&message)
}
