//! Descriptions that must be refused, each with the words it is refused with,
//! and those that must not.
//!
//! `tests/fixtures/sdf/RULE.system` breaks one rule and is refused with the
//! contents of `RULE.expected`. With `SEL4_COMPOSE_BLESS` in the environment
//! the expected texts are written instead; read them before committing.

use std::fs;
use std::path::{Path, PathBuf};

use capos_domains::{Source, decode, encode};
use proptest::prelude::*;
use system_description::{Description, Error, grammar};

/// Fixtures there are to be at least.
const FIXTURES_MIN: usize = 80;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn fixtures() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests/fixtures/sdf")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut fixtures: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "system"))
        .collect();
    fixtures.sort();
    fixtures
}

#[test]
fn each_bad_description_is_refused_with_its_words() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= FIXTURES_MIN, "{}", fixtures.len());
    let bless = std::env::var_os("SEL4_COMPOSE_BLESS").is_some();
    let mut wrong = Vec::new();
    for path in fixtures {
        let text = fs::read_to_string(&path).unwrap();
        let name = PathBuf::from(path.file_name().unwrap());
        let said = match Description::parse(&name, &text) {
            Ok(_) => panic!("{} is accepted", path.display()),
            Err(refusal) => format!("{refusal}\n"),
        };
        let expected = path.with_extension("expected");
        if bless {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).ok().as_ref() != Some(&said) {
            wrong.push(said);
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{}", wrong.concat());
}

#[test]
fn a_file_that_is_not_there_is_an_error_of_its_own() {
    let error = Description::read(Path::new("no-such.system")).unwrap_err();
    assert!(matches!(error, Error::Read(..)));
}

const GOOD: &str = r#"<system>
    <memory_region name="ring" size="0x2_000" page_size="0x1000" />
    <protection_domain name="driver" priority="200" stack_size="0x4000" passive="false">
        <program_image path="driver.elf" />
        <map mr="ring" vaddr="0x4000000" perms="rw" setvar_vaddr="ring_vaddr" setvar_size="ring_size" />
        <irq id="0" pin="4" vector="4" trigger="edge" />
        <irq id="1" pcidev="00:1f.7" handle="2" vector="5" setvar_id="message" />
        <ioport id="0" addr="0x3f8" size="8" setvar_addr="base" />
        <protection_domain name="child" id="7">
            <program_image path="child.elf" />
        </protection_domain>
    </protection_domain>
    <protection_domain name="client" priority="10" budget="100" period="200">
        <program_image path="client.elf" />
        <map mr="ring" vaddr="0x4000000" perms="r" />
    </protection_domain>
    <channel>
        <end pd="driver" id="2" notify="false" />
        <end pd="client" id="61" pp="true" setvar_id="driver_id" />
    </channel>
</system>"#;

#[test]
fn a_good_description_is_lowered_whole() {
    let description = Description::parse(Path::new("good.system"), GOOD).expect("it is good");
    let system = &description.system;
    assert_eq!(decode(&encode(system).unwrap()).as_ref(), Ok(system));
    let [driver, child, client] = &system.domains[..] else {
        panic!("{system:?}");
    };
    assert_eq!((driver.priority, driver.stack_pages), (200, 4));
    assert_eq!(
        child.parent.map(|parent| (parent.domain, parent.id)),
        Some((0, 7))
    );
    assert!(driver.maps[0].writable && !client.maps[0].writable);
    let edge = Source::Pin {
        ioapic: 0,
        pin: 4,
        level: false,
        low: false,
    };
    let message = Source::Message {
        bus: 0,
        device: 31,
        function: 7,
        handle: 2,
    };
    assert_eq!(
        driver
            .interrupts
            .iter()
            .map(|irq| irq.source)
            .collect::<Vec<_>>(),
        [edge, message]
    );
    assert_eq!(
        (driver.ports[0].first, driver.ports[0].last),
        (0x3f8, 0x3ff)
    );
    assert_eq!(client.call_mask(), 1 << 61);
    assert_eq!(driver.notify_mask(), 0);
    assert_eq!(system.incoming_mask(driver), 0b111);
    let set: Vec<(&str, u64)> = description.images[0]
        .setvars
        .iter()
        .map(|setvar| (setvar.symbol.as_str(), setvar.value))
        .collect();
    let expected = [
        ("ring_vaddr", 0x400_0000),
        ("ring_size", 0x2000),
        ("message", 1),
        ("base", 0x3f8),
    ];
    assert_eq!(set, expected);
    assert_eq!(description.images[2].setvars[0].value, 61);
    assert_eq!(description.notes.len(), 3, "{:?}", description.notes);
}

#[test]
fn the_reference_is_what_the_grammar_says() {
    let path = root().join("docs/reference/system-xml.md");
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(committed == grammar::reference(), "run `make reference`");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any text is answered with a description or a refusal with a place.
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        if let Err(refusal) = Description::parse(Path::new("any"), &text) {
            prop_assert!(refusal.place.row > 0 && refusal.place.column > 0);
        }
    }

    /// A good description with some of it replaced is refused, or lowers to
    /// something that survives packing.
    #[test]
    fn no_change_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..30, "[a-z0-9x\"<>/= _.:-]{0,12}"), 1..4),
    ) {
        let mut text = GOOD.to_owned();
        for (at, length, with) in changes {
            let at = at.index(text.len());
            let end = (at + length).min(text.len());
            text.replace_range(at..end, &with);
        }
        match Description::parse(Path::new("any"), &text) {
            Ok(description) => {
                let bytes = encode(&description.system).expect("a checked system");
                prop_assert_eq!(decode(&bytes), Ok(description.system));
            }
            Err(refusal) => prop_assert!(refusal.place.row > 0 && refusal.place.column > 0),
        }
    }
}
