use super::*;
use alloc::vec;

use capos_config::{
    InitBootstrapConfig, ManifestResourceProfile, ManifestSeedAccount, NamedBlobInfo,
    RestartPolicy, ServiceEntry, SystemConfig,
};
use ed25519_dalek::{Signer, SigningKey};

fn seed(name: &str, kind: PrincipalKind, id: u8, profile: &str) -> ManifestSeedAccount {
    ManifestSeedAccount {
        name: name.into(),
        principal_id: vec![id; 32],
        kind,
        display_name: alloc::format!("The {name}"),
        credential_refs: Vec::new(),
        resource_profile: profile.into(),
        policy_profile: String::new(),
        service_binary: String::new(),
        direct_caps: Vec::new(),
    }
}

fn profile(name: &str, launcher: &str) -> ManifestResourceProfile {
    ManifestResourceProfile {
        name: name.into(),
        home_quota_bytes: 0,
        temp_quota_bytes: 0,
        process_limit: 8,
        thread_limit: 16,
        cap_limit: 64,
        memory_commit_limit_bytes: 1 << 26,
        frame_grant_limit_pages: 256,
        endpoint_queue_limit: 32,
        in_flight_call_limit: 16,
        ring_scratch_limit_bytes: 65_536,
        reply_scratch_limit_bytes: 65_536,
        log_quota_bytes_per_window: 0,
        network_profile: String::new(),
        cpu_budget_us_per_window: 0,
        cpu_window_us: 0,
        timer_waiter_limit: 8,
        launcher_profile: launcher.into(),
    }
}

fn config(seeds: Vec<ManifestSeedAccount>) -> SystemConfig {
    let empty = capos_config::CueValue::struct_(Vec::new());
    let mut config: SystemConfig =
        capos_config::manifest::FromCueValue::from_cue_value(&empty).expect("defaults");
    config.seed_accounts = seeds;
    config.resource_profiles = vec![
        profile("plain", ""),
        profile("open", "bootstrap-operator"),
        profile("closed", "bootstrap-guest"),
        profile("one", "paper, other"),
    ];
    config
}

fn plan(config: Option<SystemConfig>) -> ManifestBootstrapPlan {
    let names = ["capos-shell", "chat-client", "paper", "chat-server"];
    let binary = |name: &&str| NamedBlobInfo {
        name: (*name).into(),
        data_len: 1,
    };
    ManifestBootstrapPlan {
        schema_version: 1,
        binaries: names.iter().map(binary).collect(),
        init: InitBootstrapConfig {
            binary: "init".into(),
            caps: Vec::new(),
        },
        services: vec![ServiceEntry {
            name: "chat".into(),
            binary: "chat-server".into(),
            caps: Vec::new(),
            restart: RestartPolicy::Never,
            exports: Vec::new(),
        }],
        exit_when_service_exits: None,
        kernel_params: config,
        extension_points: None,
    }
}

fn accounts(seeds: Vec<ManifestSeedAccount>) -> Accounts {
    Accounts::new(&plan(Some(config(seeds)))).expect("accounts")
}

#[test]
fn an_operator_is_there_without_a_manifest_account() {
    for accounts in [
        Accounts::new(&plan(None)).expect("accounts"),
        accounts(vec![]),
    ] {
        for selector in [
            Selector::Account(""),
            Selector::Account("operator"),
            Selector::Account(" Operator "),
            Selector::Principal(&built_in_principal()),
        ] {
            let opening = accounts.by_console_password(selector).expect("an operator");
            assert_eq!(opening.profile, Profile::Operator);
            assert_eq!(opening.lifetime_ns, 15 * 60 * 1_000_000_000);
        }
        assert_eq!(
            accounts.by_console_password(Selector::Account("root")),
            None
        );
        assert_eq!(
            accounts.by_console_password(Selector::Principal(&[0; 32])),
            None
        );
        assert_eq!(accounts.guest(), None, "guests need an account");
    }
}

#[test]
fn the_console_password_is_its_owners() {
    let mut owner = seed("ann", PrincipalKind::Operator, 1, "plain");
    owner.credential_refs = vec![CONSOLE_PASSWORD_CREDENTIAL_REF.to_vec()];
    let other = seed("operator", PrincipalKind::Operator, 2, "plain");
    let accounts = accounts(vec![owner, other]);
    let by = |name| accounts.by_console_password(Selector::Account(name));
    assert_eq!(by("ann").expect("the owner").display_name, "The ann");
    assert_eq!(by("operator"), None, "another operator");
    assert_eq!(by(""), None, "nobody in particular");
    let by_id = |id: u8| accounts.by_console_password(Selector::Principal(&[id; 32]));
    assert!(by_id(1).is_some());
    assert!(by_id(2).is_none());
    assert!(by_id(3).is_none());
}

#[test]
fn an_account_called_operator_takes_the_built_in_ones_place() {
    let accounts = accounts(vec![seed("operator", PrincipalKind::Guest, 1, "plain")]);
    for selector in [
        Selector::Account(""),
        Selector::Account("operator"),
        Selector::Principal(&[1; 32]),
        Selector::Principal(&built_in_principal()),
    ] {
        assert_eq!(accounts.by_console_password(selector), None);
    }
}

#[test]
fn guests_and_services_do_not_log_in_by_password() {
    let accounts = accounts(vec![
        seed("visitor", PrincipalKind::Guest, 1, "plain"),
        seed("daemon", PrincipalKind::Service, 2, "plain"),
        seed("operator", PrincipalKind::Operator, 3, "plain"),
    ]);
    let by = |name| accounts.by_console_password(Selector::Account(name));
    assert!(by("visitor").is_none());
    assert!(by("daemon").is_none());
    assert!(by("operator").is_some());
    let guest = accounts.guest().expect("a guest account");
    assert_eq!(guest.profile, Profile::Guest);
    assert_eq!(guest.lifetime_ns, 5 * 60 * 1_000_000_000);
}

#[test]
fn entitlements_follow_the_launcher_profile() {
    let accounts = accounts(vec![
        seed("a", PrincipalKind::Operator, 1, "plain"),
        seed("b", PrincipalKind::Guest, 2, "plain"),
        seed("c", PrincipalKind::Guest, 3, "open"),
        seed("d", PrincipalKind::Guest, 4, "one"),
        seed("e", PrincipalKind::Operator, 5, "closed"),
    ]);
    let names = |id: u8, profile| {
        let entitled = accounts.entitlement(&[id; 32], profile);
        (entitled.binaries, entitled.endpoints)
    };
    let all = vec![String::from("chat-client"), String::from("paper")];
    assert_eq!(names(1, Profile::Operator), (all.clone(), true));
    assert_eq!(names(2, Profile::Guest), (vec![], false));
    assert_eq!(names(3, Profile::Guest), (all.clone(), true));
    assert_eq!(names(4, Profile::Guest), (vec!["paper".into()], false));
    assert_eq!(names(5, Profile::Operator), (vec![], false));
    assert_eq!(names(9, Profile::Anonymous), (vec![], false));
    assert_eq!(
        names(9, Profile::Operator),
        (all, true),
        "the built-in operator"
    );
}

#[test]
fn a_key_opens_its_accounts_session_and_no_other() {
    let secret = SigningKey::from_bytes(&[7; 32]);
    let public = secret.verifying_key().to_bytes();
    let mut config = config(vec![
        seed("ann", PrincipalKind::Operator, 1, "plain"),
        seed("bob", PrincipalKind::Operator, 2, "plain"),
    ]);
    config.authorized_ssh_keys = vec![AuthorizedSshKey {
        key_id: vec![1; 32],
        principal_id: vec![1; 32],
        algorithm: SSH_ED25519.into(),
        public_key: public.to_vec(),
        fingerprint_sha256: vec![2; 32],
        allowed_shell_profiles: vec!["operator".into()],
        disabled_at_ms: 0,
        source: String::new(),
        comment: String::new(),
    }];
    let accounts = Accounts::new(&plan(Some(config.clone()))).expect("accounts");
    let signature = secret.sign(b"exchange").to_bytes();
    let by = |accounts: &Accounts, user, algorithm, signed: &[u8], signature: &[u8]| {
        accounts
            .by_ssh_key(user, (algorithm, &public), signed, signature)
            .is_some()
    };
    assert!(by(&accounts, "ann", SSH_ED25519, b"exchange", &signature));
    assert!(!by(&accounts, "bob", SSH_ED25519, b"exchange", &signature));
    assert!(!by(&accounts, "ann", "ssh-rsa", b"exchange", &signature));
    assert!(!by(&accounts, "ann", SSH_ED25519, b"another", &signature));
    assert!(!by(
        &accounts,
        "ann",
        SSH_ED25519,
        b"exchange",
        &signature[..63]
    ));
    assert!(!by(&accounts, "ann", SSH_ED25519, b"exchange", &[0; 64]));
    config.authorized_ssh_keys[0].disabled_at_ms = 1;
    let accounts = Accounts::new(&plan(Some(config))).expect("accounts");
    assert!(!by(&accounts, "ann", SSH_ED25519, b"exchange", &signature));
}
