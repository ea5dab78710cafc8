//! Sessions in transport: who a caller is, as far as an endpoint may know.
//!
//! Every process runs in exactly one session for its whole life. An endpoint
//! owner sees a reference that is stable within its own service scope and
//! tells nothing across scopes: a keyed digest of the session identity. Named
//! fields are disclosed only where the caller's request and the capability's
//! scope agree. How sessions come and go is in `sessions`.

use arrayvec::{ArrayString, ArrayVec};
use capos_abi::{
    ENDPOINT_CALLER_SESSION_LIVE, ENDPOINT_SESSION_DISCLOSE_AUTH_STRENGTH,
    ENDPOINT_SESSION_DISCLOSE_PRINCIPAL_KIND, ENDPOINT_SESSION_DISCLOSE_PROFILE_CLASS,
    ENDPOINT_SESSION_DISCLOSURE_ALLOWED_MASK, EndpointCallerSession,
};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::ids::Pid;

/// Longest session identity in bytes.
pub const SESSION_ID_BYTES_MAX: usize = 32;
/// Longest identity of a principal in bytes.
pub const PRINCIPAL_ID_BYTES_MAX: usize = 32;
/// Longest name of a principal for people, in bytes.
pub const DISPLAY_NAME_BYTES_MAX: usize = 96;
/// Longest name of a profile in bytes.
pub const PROFILE_BYTES_MAX: usize = 64;
const REFERENCE_DOMAIN: &[u8] = b"capos:endpoint-caller-session-ref:v2";
const EPOCH_DOMAIN: &[u8] = b"capos:endpoint-caller-session-epoch:v2";

/// Key of all caller references of one boot; from the CPU's random source.
#[derive(Clone, Copy)]
pub struct BootSecret([u8; 32]);

impl BootSecret {
    /// Wraps 32 random bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl core::fmt::Debug for BootSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("BootSecret(..)")
    }
}

/// Handle of a session the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub(crate) u32);

/// What a session is, fixed when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    id: [u8; SESSION_ID_BYTES_MAX],
    id_len: u8,
    /// `ENDPOINT_SESSION_PRINCIPAL_*`.
    pub principal_kind: u16,
    /// `ENDPOINT_SESSION_AUTH_*`.
    pub auth_strength: u16,
    /// `ENDPOINT_SESSION_PROFILE_*`.
    pub profile_class: u16,
    /// Monotonic nanoseconds after which it is over; `u64::MAX` for never.
    pub expires_at_ns: u64,
}

impl SessionInfo {
    /// A session that never expires and discloses "none" for every field.
    ///
    /// Returns `None` if `id` is empty or longer than
    /// [`SESSION_ID_BYTES_MAX`].
    pub fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; SESSION_ID_BYTES_MAX];
        if id.is_empty() {
            return None;
        }
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self {
            id: bytes,
            id_len: id.len() as u8,
            principal_kind: capos_abi::ENDPOINT_SESSION_PRINCIPAL_NONE,
            auth_strength: capos_abi::ENDPOINT_SESSION_AUTH_NONE,
            profile_class: capos_abi::ENDPOINT_SESSION_PROFILE_NONE,
            expires_at_ns: u64::MAX,
        })
    }

    /// The identity that references are derived from.
    pub fn id(&self) -> &[u8] {
        &self.id[..usize::from(self.id_len)]
    }
}

/// What a session's holder can read about it, and nobody else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Details {
    pub(crate) principal_id: ArrayVec<u8, PRINCIPAL_ID_BYTES_MAX>,
    /// Ordinal of the schema's `PrincipalKind`.
    pub(crate) kind: u16,
    /// Ordinal of the schema's `AuthStrength`.
    pub(crate) auth_strength: u16,
    pub(crate) display_name: ArrayString<DISPLAY_NAME_BYTES_MAX>,
    pub(crate) profile: ArrayString<PROFILE_BYTES_MAX>,
    /// Monotonic nanoseconds.
    pub(crate) created_at_ns: u64,
}

/// A session, whether it was ended, and what names it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) info: SessionInfo,
    pub(crate) details: Details,
    pub(crate) ended: bool,
    /// The machine opened it and has not ended it.
    pub(crate) kept: bool,
    /// Processes that run in it.
    pub(crate) processes: u32,
    /// Launchers that start programs in it.
    pub(crate) launchers: u32,
    /// Whether a `UserSession` object stands for it.
    pub(crate) named: bool,
    /// Who is charged for it.
    pub(crate) payer: Option<Pid>,
}

impl Session {
    /// A session that nothing names yet.
    pub(crate) const fn new(info: SessionInfo, details: Details) -> Self {
        Self {
            info,
            details,
            ended: false,
            kept: false,
            processes: 0,
            launchers: 0,
            named: false,
            payer: None,
        }
    }

    /// Whether anything still needs the record.
    pub(crate) const fn is_used(&self) -> bool {
        self.kept || self.named || self.processes > 0 || self.launchers > 0
    }

    /// Whether calls on its behalf are accepted at `now`.
    pub(crate) fn is_live(&self, now_ns: impl FnOnce() -> u64) -> bool {
        let expiry = self.info.expires_at_ns;
        !self.ended && (expiry == u64::MAX || now_ns() < expiry)
    }
}

/// The opaque part of a caller's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionReference {
    /// Low word; never zero.
    pub scoped_ref: u64,
    /// High word; never zero.
    pub scoped_ref_hi: u64,
    /// Epoch word; never zero.
    pub epoch: u64,
}

/// Derives what endpoint scope `scope_id` sees of session `id`.
pub fn derive_reference(secret: &BootSecret, scope_id: u64, id: &[u8]) -> SessionReference {
    let reference = digest(secret, REFERENCE_DOMAIN, scope_id, id);
    let epoch = digest(secret, EPOCH_DOMAIN, scope_id, id);
    SessionReference {
        scoped_ref: nonzero_word(&reference, 0),
        scoped_ref_hi: nonzero_word(&reference, 1),
        epoch: nonzero_word(&epoch, 0),
    }
}

fn digest(secret: &BootSecret, domain: &[u8], scope_id: u64, id: &[u8]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&secret.0) else {
        // HMAC takes a key of any length.
        return [0; 32];
    };
    mac.update(domain);
    mac.update(&scope_id.to_le_bytes());
    mac.update(&(id.len() as u64).to_le_bytes());
    mac.update(id);
    mac.finalize().into_bytes().into()
}

fn nonzero_word(digest: &[u8; 32], index: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&digest[index * 8..index * 8 + 8]);
    u64::from_le_bytes(word).max(1)
}

/// What an endpoint owner is told: the reference, and each field that `request`
/// asks for and `scope` allows.
pub(crate) fn describe(
    info: &SessionInfo,
    reference: SessionReference,
    request: u64,
    scope: u64,
) -> EndpointCallerSession {
    let disclosed = request & scope & ENDPOINT_SESSION_DISCLOSURE_ALLOWED_MASK;
    let field = |bit: u64, value: u16| if disclosed & bit != 0 { value } else { 0 };
    EndpointCallerSession {
        scoped_ref: reference.scoped_ref,
        scoped_ref_hi: reference.scoped_ref_hi,
        epoch: reference.epoch,
        flags: ENDPOINT_CALLER_SESSION_LIVE,
        disclosed_fields: disclosed as u32,
        principal_kind: field(
            ENDPOINT_SESSION_DISCLOSE_PRINCIPAL_KIND,
            info.principal_kind,
        ),
        auth_strength: field(ENDPOINT_SESSION_DISCLOSE_AUTH_STRENGTH, info.auth_strength),
        profile_class: field(ENDPOINT_SESSION_DISCLOSE_PROFILE_CLASS, info.profile_class),
        _reserved0: 0,
    }
}

/// Remembers recent derivations; deriving takes thousands of instructions.
#[derive(Clone, Debug)]
pub(crate) struct ReferenceCache {
    entries: [Option<(SessionId, u64, SessionReference)>; Self::ENTRIES],
}

impl ReferenceCache {
    const ENTRIES: usize = 64;

    pub(crate) const fn new() -> Self {
        Self {
            entries: [None; Self::ENTRIES],
        }
    }

    /// The reference of a session at a scope, derived at most once in a while.
    pub(crate) fn get(
        &mut self,
        secret: &BootSecret,
        scope_id: u64,
        session: SessionId,
        info: &SessionInfo,
    ) -> SessionReference {
        let slot = (scope_id as usize ^ (session.0 as usize) << 3) % Self::ENTRIES;
        if let Some((cached, scope, reference)) = self.entries[slot]
            && cached == session
            && scope == scope_id
        {
            return reference;
        }
        let reference = derive_reference(secret, scope_id, info.id());
        self.entries[slot] = Some((session, scope_id, reference));
        reference
    }

    /// Forgets a session whose handle may be reused.
    pub(crate) fn forget(&mut self, session: SessionId) {
        for entry in &mut self.entries {
            if entry.is_some_and(|(cached, ..)| cached == session) {
                *entry = None;
            }
        }
    }
}
