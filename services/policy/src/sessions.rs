//! Who may open a session, and what a session is entitled to.
//!
//! Accounts, profiles, keys and lifetimes are the manifest's; they are read
//! with `capos-config`'s own account store.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use capos_abi::{
    ENDPOINT_SESSION_PROFILE_ANONYMOUS, ENDPOINT_SESSION_PROFILE_GUEST,
    ENDPOINT_SESSION_PROFILE_OPERATOR,
};
use capos_config::account_store::{
    AccountRecord, AccountStatus, CONSOLE_PASSWORD_CREDENTIAL_REF, RamAccountStore,
    bootstrap_account_store_from_system_config,
};
use capos_config::{AuthorizedSshKey, ManifestBootstrapPlan, PrincipalKind, SessionLifetimeConfig};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

/// The program a login leads to. It is started by the shell launcher alone.
pub const SHELL: &str = "capos-shell";
/// Most programs of a launcher.
pub const BINARIES_MAX: usize = 64;
/// What SSH calls Ed25519.
const SSH_ED25519: &str = "ssh-ed25519";
/// The operator there is when the manifest names none: otherwise a system
/// whose password is made at first boot could not be entered.
const OPERATOR: &str = "operator";

/// How much a session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A person who proved who they are.
    Operator,
    /// A guest the manifest has an account for.
    Guest,
    /// Anybody.
    Anonymous,
}

impl Profile {
    const fn of(kind: PrincipalKind) -> Option<Self> {
        match kind {
            PrincipalKind::Human | PrincipalKind::Operator => Some(Self::Operator),
            PrincipalKind::Guest => Some(Self::Guest),
            PrincipalKind::Anonymous | PrincipalKind::Pseudonymous => Some(Self::Anonymous),
            PrincipalKind::Service => None,
        }
    }

    /// Its name, as sessions and requests give it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Guest => "guest",
            Self::Anonymous => "anonymous",
        }
    }

    /// The profile of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Operator, Self::Guest, Self::Anonymous];
        all.into_iter().find(|profile| profile.name() == name)
    }

    /// Its class in what endpoints are told of callers.
    #[must_use]
    pub const fn class(self) -> u16 {
        match self {
            Self::Operator => ENDPOINT_SESSION_PROFILE_OPERATOR,
            Self::Guest => ENDPOINT_SESSION_PROFILE_GUEST,
            Self::Anonymous => ENDPOINT_SESSION_PROFILE_ANONYMOUS,
        }
    }
}

/// How an account is named in a login.
#[derive(Clone, Copy, Debug)]
pub enum Selector<'a> {
    /// By account name; the empty one stands for the owner of the console
    /// password.
    Account(&'a str),
    /// By principal.
    Principal(&'a [u8]),
}

/// A session that may be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Whose it is. `None`: nobody's, so an identity of its own.
    pub principal_id: Option<Vec<u8>>,
    /// What kind of principal that is.
    pub kind: PrincipalKind,
    /// Their name for people.
    pub display_name: String,
    /// What it may do.
    pub profile: Profile,
    /// How long it lasts.
    pub lifetime_ns: u64,
}

/// What a shell in a session gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entitlement {
    /// Programs it may start.
    pub binaries: Vec<String>,
    /// Whether it gets the service endpoints.
    pub endpoints: bool,
}

/// The accounts, and what goes with them.
#[derive(Debug)]
pub struct Accounts {
    store: RamAccountStore,
    guest: Option<Vec<u8>>,
    keys: Vec<AuthorizedSshKey>,
    lifetimes: SessionLifetimeConfig,
    interactive: Vec<String>,
    has_console_owner: bool,
}

impl Accounts {
    /// As the manifest has them.
    ///
    /// # Errors
    /// The manifest's accounts contradict each other.
    pub fn new(plan: &ManifestBootstrapPlan) -> Result<Self, capos_config::Error> {
        let config = plan.kernel_params.as_ref();
        let store = match config {
            Some(config) => bootstrap_account_store_from_system_config(config)?,
            None => RamAccountStore::new(),
        };
        let seeds = config.map_or(&[][..], |config| &config.seed_accounts);
        let guest = seeds.iter().find(|seed| seed.kind == PrincipalKind::Guest);
        let guest = guest.map(|seed| seed.principal_id.clone());
        let has_console_owner = seeds.iter().any(|seed| {
            let record = store.lookup_by_principal(&seed.principal_id).account;
            record.is_some_and(|record| owns_console_password(&record))
        });
        Ok(Self {
            store,
            guest,
            keys: config.map_or_else(Vec::new, |config| config.authorized_ssh_keys.clone()),
            lifetimes: config.map_or_else(SessionLifetimeConfig::default, |c| c.session_lifetimes),
            interactive: interactive(plan),
            has_console_owner,
        })
    }

    /// The account a login by console password is for, if there is one. The
    /// password is to be checked in either case, so that nobody learns which
    /// accounts there are.
    #[must_use]
    pub fn by_console_password(&self, selector: Selector<'_>) -> Option<Opening> {
        let record = match selector {
            Selector::Account("") => return self.console_owner(),
            Selector::Account(name) => self.store.lookup_by_manifest_account_name(name).account,
            Selector::Principal(id) => self.store.lookup_by_principal(id).account,
        };
        match record {
            Some(record) if self.may_use_console_password(&record) => self.opening(&record),
            None if self.is_built_in(selector) => Some(self.built_in_operator()),
            _ => None,
        }
    }

    fn console_owner(&self) -> Option<Opening> {
        let named = self.store.lookup_by_manifest_account_name(OPERATOR).account;
        let by_name = named.filter(|record| self.may_use_console_password(record));
        if let Some(record) = by_name {
            return self.opening(&record);
        }
        self.has_built_in().then(|| self.built_in_operator())
    }

    /// An account that refers to the password, or, as long as none does, the
    /// operator called `operator`.
    fn may_use_console_password(&self, record: &AccountRecord) -> bool {
        let named = self.store.lookup_by_manifest_account_name(OPERATOR).account;
        let is_operator = named.is_some_and(|named| named.principal_id == record.principal_id)
            && record.kind == PrincipalKind::Operator;
        owns_console_password(record) || (!self.has_console_owner && is_operator)
    }

    fn is_built_in(&self, selector: Selector<'_>) -> bool {
        let meant = match selector {
            Selector::Account(name) => name.trim().eq_ignore_ascii_case(OPERATOR),
            Selector::Principal(id) => id == built_in_principal(),
        };
        meant && self.has_built_in()
    }

    /// Whether the operator is nobody's account: an account of that name takes
    /// its place even where it may not log in.
    fn has_built_in(&self) -> bool {
        let named = self.store.lookup_by_manifest_account_name(OPERATOR).account;
        named.is_none() && !self.has_console_owner
    }

    fn built_in_operator(&self) -> Opening {
        Opening {
            principal_id: Some(built_in_principal()),
            kind: PrincipalKind::Operator,
            display_name: OPERATOR.to_string(),
            profile: Profile::Operator,
            lifetime_ns: self.lifetime_ns(Profile::Operator),
        }
    }

    /// A guest session, if the manifest has an account for guests.
    #[must_use]
    pub fn guest(&self) -> Option<Opening> {
        let record = self
            .store
            .lookup_by_principal(self.guest.as_ref()?)
            .account?;
        self.opening(&record)
    }

    /// A session of nobody.
    #[must_use]
    pub fn anonymous(&self) -> Opening {
        Opening {
            principal_id: None,
            kind: PrincipalKind::Anonymous,
            display_name: Profile::Anonymous.name().to_string(),
            profile: Profile::Anonymous,
            lifetime_ns: self.lifetime_ns(Profile::Anonymous),
        }
    }

    /// Whether accounts have keys at all.
    #[must_use]
    pub const fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The session of whoever signed `signed` with the key `public_key` of the
    /// account `username`.
    #[must_use]
    pub fn by_ssh_key(
        &self,
        username: &str,
        (algorithm, public_key): (&str, &[u8]),
        signed: &[u8],
        signature: &[u8],
    ) -> Option<Opening> {
        let account = self
            .store
            .lookup_by_manifest_account_name(username)
            .account?;
        let opening = self.opening(&account)?;
        let authorized = self.keys.iter().any(|key| {
            key.principal_id == account.principal_id
                && key.algorithm == algorithm
                && key.public_key == public_key
                && key.disabled_at_ms == 0
                && key
                    .allowed_shell_profiles
                    .iter()
                    .any(|name| name == opening.profile.name())
        });
        (authorized && algorithm == SSH_ED25519 && signed_by(public_key, signed, signature))
            .then_some(opening)
    }

    fn opening(&self, record: &AccountRecord) -> Option<Opening> {
        let profile = Profile::of(record.kind)?;
        (record.status == AccountStatus::Active).then(|| Opening {
            principal_id: Some(record.principal_id.clone()),
            kind: record.kind,
            display_name: record.display_name.clone(),
            profile,
            lifetime_ns: self.lifetime_ns(profile),
        })
    }

    fn lifetime_ns(&self, profile: Profile) -> u64 {
        let ms = match profile {
            Profile::Operator => self.lifetimes.operator_ms,
            Profile::Guest => self.lifetimes.guest_ms,
            Profile::Anonymous => self.lifetimes.anonymous_ms,
        };
        ms.saturating_mul(1_000_000)
    }

    /// What a session of this principal and profile gets: by its account's
    /// launcher profile, or by the profile.
    #[must_use]
    pub fn entitlement(&self, principal_id: &[u8], profile: Profile) -> Entitlement {
        let launcher = self.launcher_profile(principal_id);
        let everything = || Entitlement {
            binaries: self.interactive.clone(),
            endpoints: true,
        };
        match (launcher.as_str(), profile) {
            ("bootstrap-operator", _) | ("", Profile::Operator) => everything(),
            ("bootstrap-guest" | "none" | "", _) => Entitlement::default(),
            (names, _) => {
                let named: BTreeSet<&str> = names.split(',').map(str::trim).collect();
                let listed = self.interactive.iter();
                let listed = listed.filter(|name| named.contains(name.as_str()));
                Entitlement {
                    binaries: listed.cloned().collect(),
                    endpoints: false,
                }
            }
        }
    }

    fn launcher_profile(&self, principal_id: &[u8]) -> String {
        let record = self.store.lookup_by_principal(principal_id).account;
        let profile = record.and_then(|record| {
            let name = &record.resource_profile;
            let found = self
                .store
                .get_resource_profile(&name.profile_id, &name.version_id);
            found.profile
        });
        profile.map_or_else(String::new, |profile| profile.launcher_profile)
    }
}

fn owns_console_password(record: &AccountRecord) -> bool {
    let mut refs = record.credential_refs.iter();
    refs.any(|credential| credential == CONSOLE_PASSWORD_CREDENTIAL_REF)
}

/// The principal of the built-in operator: the same at each boot.
fn built_in_principal() -> Vec<u8> {
    Sha256::digest(b"sel4-capos built-in operator").to_vec()
}

/// Programs that people start: those that init does not, without the shell.
fn interactive(plan: &ManifestBootstrapPlan) -> Vec<String> {
    let started: BTreeSet<&str> = plan.services.iter().map(|s| s.binary.as_str()).collect();
    let names = plan.binaries.iter().map(|binary| binary.name.as_str());
    names
        .filter(|name| *name != SHELL && !started.contains(name) && *name != plan.init.binary)
        .take(BINARIES_MAX)
        .map(ToString::to_string)
        .collect()
}

fn signed_by(public_key: &[u8], signed: &[u8], signature: &[u8]) -> bool {
    let key = <[u8; 32]>::try_from(public_key).ok();
    let key = key.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
    let signature = Signature::from_slice(signature).ok();
    match (key, signature) {
        (Some(key), Some(signature)) => key.verify_strict(signed, &signature).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
