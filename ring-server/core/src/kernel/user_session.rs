//! `UserSession`: a session as its holder sees it.

use capnp::traits::HasStructSize;
use capos_config::capos_capnp::user_session::{
    audit_context_results, info_results, logout_results,
};
use capos_config::capos_capnp::{principal_info, session_info};

use crate::encode::{Emitter, NoRoom};
use crate::session::Session;

pub(crate) const INFO: u16 = 0;
pub(crate) const AUDIT_CONTEXT: u16 = 1;
/// The method that ends the session; the last there is.
pub(crate) const LOGOUT: u16 = 2;

const NS_PER_MS: u64 = 1_000_000;

/// The result of `info`. Times are monotonic; a session without an end says
/// 2^64 - 1.
pub(crate) fn emit_info(out: &mut [u8], session: &Session) -> Result<usize, NoRoom> {
    let size = <info_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let info_size = <session_info::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let principal_size = <principal_info::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let details = &session.details;
    let (mut message, root) = Emitter::new(out, size)?;
    let info = message.set_struct(root, 0, info_size)?;
    message.set_u16(info, 0, details.auth_strength)?;
    message.set_u64(info, 1, details.created_at_ns / NS_PER_MS)?;
    message.set_u64(info, 2, in_ms(session.info.expires_at_ns))?;
    message.set_bytes_field(info, 0, session.info.id())?;
    let principal = message.set_struct(info, 1, principal_size)?;
    message.set_text(info, 2, &details.profile)?;
    message.set_u16(principal, 0, details.kind)?;
    message.set_bytes_field(principal, 0, &details.principal_id)?;
    message.set_text(principal, 1, &details.display_name)?;
    message.finish()
}

/// A moment in milliseconds; the end of time stays what it is.
const fn in_ms(ns: u64) -> u64 {
    if ns == u64::MAX { ns } else { ns / NS_PER_MS }
}

/// The result of `auditContext`.
pub(crate) fn emit_audit_context(out: &mut [u8], session: &Session) -> Result<usize, NoRoom> {
    let size = <audit_context_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (mut message, root) = Emitter::new(out, size)?;
    message.set_bytes_field(root, 0, session.info.id())?;
    message.set_bytes_field(root, 1, &session.details.principal_id)?;
    message.finish()
}

/// The result of `logout`: a message, though there is nothing in it.
pub(crate) fn emit_logged_out(out: &mut [u8]) -> Result<usize, NoRoom> {
    let size = <logout_results::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    let (message, _) = Emitter::new(out, size)?;
    message.finish()
}
