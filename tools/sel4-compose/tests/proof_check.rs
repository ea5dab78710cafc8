//! `proof-check` on whole configurations, and on single deviations from the
//! proved one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sel4_compose::proof_check::{self, Class, Report, Status, compare};
use serde_json::{Map, Value, json};

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gen-config");
    fixtures.join(name).with_extension("json")
}

fn options(name: &str) -> Map<String, Value> {
    let text = std::fs::read_to_string(fixture(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The options of `name` that are outside, in the report's order.
fn outside(report: &Report) -> Vec<&str> {
    let outside = report.options.iter().filter(|finding| !finding.is_inside());
    outside.map(|finding| finding.option.as_str()).collect()
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sel4-compose"));
    command.arg("proof-check").args(arguments).output().unwrap()
}

#[test]
fn the_proved_option_set_is_inside_and_may_be_required() {
    let report = proof_check::check(&fixture("x64-verified")).unwrap();
    assert_eq!(outside(&report), [""; 0]);
    assert!(report.inside);
    let output = run(&[fixture("x64-verified").to_str().unwrap(), "--require"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("inside: exactly the X64_verified option set"),
        "{text}"
    );
    for property in [
        "fastpath",
        "integrity",
        "confidentiality",
        "binary",
        "boot code",
        "MCS",
        "SMP",
        "DMA",
    ] {
        assert!(
            text.contains(&format!("  no  {property}: ")),
            "{property}: {text}"
        );
    }
    assert!(
        text.contains("  yes functional correctness of the C code: "),
        "{text}"
    );
}

#[test]
fn a_kernel_for_the_emulator_is_outside_by_three_options() {
    let report = compare(&options("16-non-mcs"));
    assert_eq!(
        outside(&report),
        [
            "SUPPORT_PCID",
            "KERNEL_SKIM_WINDOW",
            "MAX_NUM_BOOTINFO_UNTYPED_CAPS"
        ]
    );
    assert_eq!(report.distance[&Class::Proved], 2);
    assert_eq!(report.distance[&Class::Boot], 1);
    assert!(report.verdict().contains("no proof covers this kernel"));
}

#[test]
fn an_mcs_kernel_is_outside_by_what_mcs_brings() {
    let report = compare(&options("16-mcs"));
    let outside = outside(&report);
    for option in [
        "KERNEL_MCS",
        "VERIFICATION_BUILD",
        "IOMMU",
        "TIMER_TICK_MS",
        "KERNEL_WCET_SCALE",
    ] {
        assert!(outside.contains(&option), "{option} in {outside:?}");
    }
    let tick = report
        .options
        .iter()
        .find(|f| f.option == "TIMER_TICK_MS")
        .unwrap();
    assert_eq!(tick.status, Status::Absent);
}

#[test]
fn the_bundled_kernel_is_older_than_the_proofs() {
    let report = compare(&options("bundled"));
    assert_eq!(report.version.as_deref(), Some("5.0.0"));
    assert!(!report.version_has_proofs && !report.inside);
    let text = report.to_string();
    assert!(
        text.contains("kernel 5.0.0: predates the x86_64 proofs altogether"),
        "{text}"
    );
    // Its options of the same value are recognised as such.
    let inside = |name: &str| {
        report
            .options
            .iter()
            .any(|f| f.option == name && f.is_inside())
    };
    assert!(inside("KERNEL_MCS") && inside("KERNEL_X86_SYSCALL") && inside("RESET_CHUNK_BITS"));
    assert!(!inside("KERNEL_X86_FPU") && !inside("KERNEL_SKIM_WINDOW"));
}

#[test]
fn an_old_kernel_is_outside_even_with_every_option_as_proved() {
    let mut config = options("x64-verified");
    config.insert("VERSION".into(), json!("9.0.1"));
    assert!(!compare(&config).inside);
    config.insert("VERSION".into(), json!("16.0.0"));
    assert!(compare(&config).inside);
}

#[test]
fn each_single_deviation_is_named_alone() {
    let deviations = [
        ("KERNEL_MCS", json!(true), Class::Proved),
        ("SUPPORT_PCID", json!(false), Class::Proved),
        ("HUGE_PAGE", json!(false), Class::Proved),
        ("KERNEL_SKIM_WINDOW", json!(false), Class::Proved),
        ("MAX_NUM_NODES", json!("2"), Class::Proved),
        (
            "KERNEL_X86_IBPB_ON_CONTEXT_SWITCH",
            json!(true),
            Class::Proved,
        ),
        ("IOMMU", json!(true), Class::Excluded),
        ("VTX", json!(true), Class::Excluded),
        ("PRINTING", json!(true), Class::Excluded),
        ("DEBUG_BUILD", json!(true), Class::Excluded),
        ("DANGEROUS_CODE_INJECTION", json!(true), Class::Excluded),
        ("EXPORT_PMC_USER", json!(true), Class::Excluded),
        ("HARDWARE_DEBUG_API", json!(true), Class::Excluded),
        ("RETYPE_FAN_OUT_LIMIT", json!("16"), Class::Constant),
        ("XSAVE_SIZE", json!("832"), Class::Constant),
        ("NUM_DOMAINS", json!("1"), Class::Robust),
        ("MAX_NUM_BOOTINFO_UNTYPED_CAPS", json!("230"), Class::Boot),
        ("ROOT_CNODE_SIZE_BITS", json!("18"), Class::Boot),
        ("FASTPATH", json!(false), Class::Unproved),
        ("KERNEL_FWHOLE_PROGRAM", json!(true), Class::Compiler),
        ("VERIFICATION_BUILD", json!(false), Class::Statement),
    ];
    for (option, value, class) in deviations {
        let mut config = options("x64-verified");
        let former = config.insert(option.into(), value);
        assert!(former.is_some(), "{option} is in the fixture");
        let report = compare(&config);
        assert_eq!(outside(&report), [option]);
        assert_eq!(
            report.distance.keys().collect::<Vec<_>>(),
            [&class],
            "{option}"
        );
        assert!(!report.inside);
    }
}

#[test]
fn a_choice_is_one_deviation_named_by_its_string() {
    let mut config = options("x64-verified");
    config.insert("KERNEL_X86_SYSCALL".into(), json!("sysenter"));
    config.insert("SYSCALL".into(), json!(false));
    config.insert("SYSENTER".into(), json!(true));
    let report = compare(&config);
    assert_eq!(outside(&report), ["KERNEL_X86_SYSCALL"]);
}

#[test]
fn a_choice_whose_booleans_disagree_is_outside() {
    let mut config = options("x64-verified");
    config.insert("SYSENTER".into(), json!(true));
    let report = compare(&config);
    assert_eq!(outside(&report), ["KERNEL_X86_SYSCALL"]);
    assert!(report.to_string().contains("contradicted by SYSENTER"));
}

#[test]
fn an_option_that_is_not_stated_is_not_taken_for_granted() {
    for option in options("x64-verified").keys() {
        let mut config = options("x64-verified");
        config.remove(option);
        let report = compare(&config);
        let is_alternative = !report.options.iter().any(|f| f.option == *option);
        assert_eq!(report.inside, is_alternative, "{option}");
    }
}

#[test]
fn an_option_the_set_does_not_know_is_outside_if_it_is_on() {
    let mut config = options("x64-verified");
    config.insert("NEW_FEATURE".into(), json!(false));
    config.insert("ARM_NEW_FEATURE".into(), json!(true));
    assert!(compare(&config).inside, "off, or for another architecture");
    config.insert("NEW_FEATURE".into(), json!(true));
    assert_eq!(outside(&compare(&config)), ["NEW_FEATURE"]);
}

#[test]
fn boot_options_alone_are_told_apart_and_still_refused() {
    let mut config = options("x64-verified");
    config.insert("MAX_NUM_BOOTINFO_UNTYPED_CAPS".into(), json!("230"));
    let report = compare(&config);
    assert!(
        report.verdict().contains("none in proved C code"),
        "{}",
        report.verdict()
    );
    assert!(!report.inside);
}

#[test]
fn requiring_fails_with_the_reason_and_json_says_the_same() {
    let path = fixture("16-non-mcs");
    let path = path.to_str().unwrap();
    assert!(
        run(&[path]).status.success(),
        "a report alone refuses nothing"
    );
    let output = run(&[path, "--require", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["inside"], json!(false));
    assert_eq!(report["distance"], json!({ "proved": 2, "boot": 1 }));
    let options = report["options"].as_array().unwrap();
    let pcid = options
        .iter()
        .find(|o| o["option"] == "SUPPORT_PCID")
        .unwrap();
    assert_eq!(pcid["status"], json!("differs"));
    assert_eq!(pcid["found"], json!("false"));
}

#[test]
fn a_file_that_is_no_configuration_is_refused_with_advice() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = run(&[manifest]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("one JSON object of options"));
    let output = run(&["/nowhere"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("name a gen_config.json"));
}
