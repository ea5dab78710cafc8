//! Calls at the endpoints that init serves, and what they ask for.

use alloc::string::String;
use alloc::vec::Vec;

use capos::ExceptionType;
use sel4_capos_schema::method;
use sel4_capos_schema::supervisor_capnp::{keepsake, supervisor};
use service::{Call, Refusal, Reply, empty_message, refuse, unknown_method};
use zeroize::Zeroizing;

use crate::graph::Office;

/// Longest note.
const NOTE_BYTES_MAX: usize = 1024;
/// A note and its framing.
pub(crate) const PARAMS_BYTES: usize = NOTE_BYTES_MAX + 64;

/// What a call asks for.
pub(crate) enum Request {
    /// Of the supervisor: a new instance of the service of this name.
    Restart(String),
    /// Of a keepsake: that this is kept.
    Keep(Zeroizing<Vec<u8>>),
    /// Of a keepsake: what was kept.
    Kept,
}

impl Request {
    pub(crate) fn of(office: Office, call: &Call) -> Result<Self, Refusal> {
        match (office, call.method) {
            (Office::Supervisor, method::RESTART) => {
                let message = call.message()?;
                let params: supervisor::restart_params::Reader<'_> = message.get_root()?;
                Ok(Self::Restart(params.get_service()?.to_str()?.into()))
            }
            (Office::Keepsake, method::KEEP) => {
                let message = call.message()?;
                let params: keepsake::keep_params::Reader<'_> = message.get_root()?;
                let note = params.get_note()?;
                if note.len() > NOTE_BYTES_MAX {
                    let message = "note is too long";
                    return Err(refuse(ExceptionType::InvalidArgument, message));
                }
                Ok(Self::Keep(Zeroizing::new(note.to_vec())))
            }
            (Office::Keepsake, method::KEPT) => Ok(Self::Kept),
            _ => Err(unknown_method()),
        }
    }
}

/// The answer with a note.
pub(crate) fn kept(note: &[u8]) -> Reply {
    let mut message = empty_message();
    let mut results: keepsake::kept_results::Builder<'_> = message.init_root();
    results.set_note(note);
    Reply::message(&message)
}
