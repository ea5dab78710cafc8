//! `SessionMint`: what is asked of it, decoded and checked as far as a request
//! alone can be wrong. `sessions` carries it out, and `launcher`.

use arrayvec::{ArrayString, ArrayVec};
use capos_abi::{ENDPOINT_SESSION_DISCLOSURE_ALLOWED_MASK, ENDPOINT_SESSION_PROFILE_OTHER};
use capos_config::capos_capnp::{AuthStrength, PrincipalKind};
use capos_config::ring::CapSqe;
use sel4_capos_schema::method::{CALLER_CAPABILITY, FACET, OPEN};
use sel4_capos_schema::session_capnp::session_mint::{
    caller_capability_params, facet_params, open_params,
};

use super::{Refusal, malformed, message};
use crate::cap_table::CapId;
use crate::exception::Exception;
use crate::session::{Details, SessionInfo};

/// A request of one of the methods that make one capability.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on the stack; dispatch takes no heap storage"
)]
pub(crate) enum Request {
    /// A session.
    Open(SessionInfo, Details),
    /// A copy of what a caller holds.
    CallerCapability {
        call_id: u32,
        cap: CapId,
        interface_id: u64,
    },
    /// A calling side.
    Facet {
        endpoint: CapId,
        /// Interface and badge.
        labels: (u64, u64),
        disclosure_scope: u64,
    },
}

/// Decodes a call whose params are in `params`, made at `now_ns`.
pub(crate) fn decode(params: &[u8], sqe: &CapSqe, now_ns: u64) -> Result<Request, Refusal> {
    match sqe.method_id {
        OPEN => opening(params, sqe, now_ns),
        CALLER_CAPABILITY => caller_capability(params, sqe),
        FACET => facet(params, sqe),
        _ => Err(Exception::unimplemented().into()),
    }
}

fn opening(params: &[u8], sqe: &CapSqe, now_ns: u64) -> Result<Request, Refusal> {
    let message = message(params, sqe)?;
    let request: open_params::Reader<'_> = message.get_root().map_err(malformed)?;
    let id = request.get_session_id().map_err(malformed)?;
    let lifetime = request.get_lifetime_ns();
    if lifetime == 0 {
        return Err(bad("a session without a lifetime"));
    }
    let (kind, auth_strength) = (request.get_kind(), request.get_auth_strength());
    let mut info = SessionInfo::new(id).ok_or(bad("session identity"))?;
    info.principal_kind = disclosed_kind(kind)?;
    info.auth_strength = disclosed_strength(auth_strength)?;
    info.profile_class = profile_class(request.get_profile_class())?;
    // A lifetime without end never comes to one by addition.
    info.expires_at_ns = now_ns.saturating_add(lifetime);
    let principal_id = request.get_principal_id().map_err(malformed)?;
    let details = Details {
        principal_id: ArrayVec::try_from(principal_id).map_err(|_| bad("principal identity"))?,
        kind,
        auth_strength,
        display_name: bounded(request.get_display_name())?,
        profile: bounded(request.get_profile())?,
        created_at_ns: now_ns,
    };
    Ok(Request::Open(info, details))
}

fn bounded<const N: usize>(
    text: capnp::Result<capnp::text::Reader<'_>>,
) -> Result<ArrayString<N>, Refusal> {
    let text = text.map_err(malformed)?.to_str();
    let text = text.map_err(|_| bad("text is not UTF-8"))?;
    ArrayString::from(text).map_err(|_| bad("text is too long"))
}

/// What endpoints are told of a kind of principal.
fn disclosed_kind(kind: u16) -> Result<u16, Refusal> {
    let kind = PrincipalKind::try_from(kind).map_err(|_| bad("kind of principal"))?;
    Ok(match kind {
        PrincipalKind::Human => capos_abi::ENDPOINT_SESSION_PRINCIPAL_HUMAN,
        PrincipalKind::Operator => capos_abi::ENDPOINT_SESSION_PRINCIPAL_OPERATOR,
        PrincipalKind::Service => capos_abi::ENDPOINT_SESSION_PRINCIPAL_SERVICE,
        PrincipalKind::Guest => capos_abi::ENDPOINT_SESSION_PRINCIPAL_GUEST,
        PrincipalKind::Anonymous => capos_abi::ENDPOINT_SESSION_PRINCIPAL_ANONYMOUS,
        PrincipalKind::Pseudonymous => capos_abi::ENDPOINT_SESSION_PRINCIPAL_PSEUDONYMOUS,
    })
}

/// What endpoints are told of an authentication; the ABI has no word for the
/// other strengths.
fn disclosed_strength(strength: u16) -> Result<u16, Refusal> {
    match AuthStrength::try_from(strength) {
        Ok(AuthStrength::None) => Ok(capos_abi::ENDPOINT_SESSION_AUTH_NONE),
        Ok(AuthStrength::Password) => Ok(capos_abi::ENDPOINT_SESSION_AUTH_PASSWORD),
        Ok(AuthStrength::PublicKey) => Ok(capos_abi::ENDPOINT_SESSION_AUTH_PUBLIC_KEY),
        _ => Err(bad("strength of authentication")),
    }
}

fn profile_class(class: u16) -> Result<u16, Refusal> {
    match class {
        0..=capos_abi::ENDPOINT_SESSION_PROFILE_SYSTEM | ENDPOINT_SESSION_PROFILE_OTHER => {
            Ok(class)
        }
        _ => Err(bad("profile class")),
    }
}

fn caller_capability(params: &[u8], sqe: &CapSqe) -> Result<Request, Refusal> {
    let message = message(params, sqe)?;
    let request: caller_capability_params::Reader<'_> = message.get_root().map_err(malformed)?;
    Ok(Request::CallerCapability {
        call_id: request.get_call_id(),
        cap: CapId::from_raw(request.get_cap_id()),
        interface_id: request.get_interface_id(),
    })
}

fn facet(params: &[u8], sqe: &CapSqe) -> Result<Request, Refusal> {
    let message = message(params, sqe)?;
    let request: facet_params::Reader<'_> = message.get_root().map_err(malformed)?;
    let disclosure_scope = request.get_disclosure_scope();
    if disclosure_scope & !ENDPOINT_SESSION_DISCLOSURE_ALLOWED_MASK != 0 {
        return Err(bad("disclosure scope"));
    }
    Ok(Request::Facet {
        endpoint: CapId::from_raw(request.get_endpoint_cap_id()),
        labels: (request.get_interface_id(), request.get_badge()),
        disclosure_scope,
    })
}

fn bad(message: &'static str) -> Refusal {
    Exception::invalid_argument(message).into()
}
