//! Starting programs with requests the published clients would never make.

use alloc::string::String;
use alloc::vec::Vec;

use capos::capos_capnp::{ExceptionType, process_spawner};
use capos::syscall::cap_enter;
use capos_config::ring::CAP_ERR_APPLICATION_EXCEPTION;

use crate::proof::{Failure, Process, equal, no_params};
use crate::{Mailbox, Sqe, call, exception, release};

const SPAWN: u16 = 0;
const WAIT: u16 = 0;
const TERMINATE: u16 = 1;
/// Room for a result with all the records there can be.
const RESULT_BYTES: usize = 512;
/// What a child that was not expected to run may take to end.
const CHILD_NS: u64 = 2_000_000_000;
/// Where `exitCode` lies in its message.
const EXIT_CODE_AT: usize = 16;

/// What became of a request.
#[derive(Debug)]
pub enum Answer {
    /// The system raised this exception.
    Refused(ExceptionType, String),
    /// The system refused the request itself.
    Rejected(i32),
    /// A program was started.
    Started(Started),
}

/// A program that was started, and what came with it.
#[derive(Debug)]
pub struct Started {
    caps: Vec<u32>,
}

/// A `ProcessSpawner` and a buffer for its answers.
pub struct Spawner {
    cap: u32,
    result: Mailbox,
}

impl Spawner {
    /// The spawner granted as `spawner`.
    ///
    /// # Errors
    /// There is none.
    pub fn new(process: &Process) -> Result<Self, Failure> {
        Ok(Self {
            cap: process.cap("spawner")?,
            result: Mailbox::new(RESULT_BYTES),
        })
    }

    /// Asks with `params`, whatever they are.
    ///
    /// # Errors
    /// An answer that is none.
    pub fn ask(&mut self, process: &mut Process, params: &[u8]) -> Result<Answer, Failure> {
        let entry = call(self.cap, SPAWN)
            .params(params)
            .result(self.result.bytes_mut());
        let cqe = process.ring.perform(entry)?;
        if cqe.result == CAP_ERR_APPLICATION_EXCEPTION {
            let (kind, text) = exception::parse(self.result.bytes())?;
            return Ok(Answer::Refused(kind, text));
        }
        if cqe.result < 0 {
            return Ok(Answer::Rejected(cqe.result));
        }
        let records = self.result.records(&cqe)?;
        let caps = records.iter().map(|record| record.cap_id).collect();
        Ok(Answer::Started(Started { caps }))
    }

    /// Waits for a program to end, ends it if that takes too long, and gives
    /// back all that came with it. Returns its exit code.
    ///
    /// # Errors
    /// It cannot be ended, or something cannot be given back.
    pub fn finish(&mut self, process: &mut Process, started: Started) -> Result<i64, Failure> {
        let handle = *started.caps.first().ok_or(Failure::new("no handle"))?;
        let nothing = no_params();
        let wait = call(handle, WAIT)
            .params(&nothing)
            .result(self.result.bytes_mut());
        let user_data = process.ring.start(wait)?;
        let mut done = process.ring.find(user_data);
        if done.is_none() {
            let entered = cap_enter(1, CHILD_NS);
            entered.map_err(|_| Failure::new("cap_enter"))?;
            done = process.ring.find(user_data);
        }
        let done = match done {
            Some(done) => done,
            None => {
                let terminate = call(handle, TERMINATE).params(&nothing);
                process.ring.expect("terminate", terminate, 0)?;
                process.ring.wait(user_data)?
            }
        };
        let written = self.result.written(&done)?;
        let code = written.get(EXIT_CODE_AT..EXIT_CODE_AT + 8);
        let code = code.and_then(|bytes| bytes.try_into().ok());
        let code = code.map(i64::from_le_bytes);
        for cap in started.caps {
            process.ring.expect("RELEASE", release(cap), 0)?;
        }
        equal("stray completions", process.ring.unclaimed(), 0)?;
        code.ok_or(Failure::new("no exit code"))
    }
}

/// A request for `program` without grants.
pub fn request(program: &str) -> Vec<u8> {
    let mut message = capnp::message::Builder::new_default();
    let mut params: process_spawner::spawn_params::Builder<'_> = message.init_root();
    params.set_name("child");
    params.set_binary_name(program);
    capnp::serialize::write_message_to_words(&message)
}
