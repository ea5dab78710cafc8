//! From a program's plan to the question whether a machine can hold it: the
//! way a host tool asks before a boot.

mod common;

use cap_broker_core::ObjectSizes;
use cap_broker_core::sim::{Backing as Counted, Demand, MachineProfile, PageRun, simulate};
use capos_loader::{AddressMap, Backing, LoadPlan};
use common::Elf;

/// A program's pages as the simulation takes them.
fn runs(plan: &LoadPlan) -> Vec<PageRun> {
    let map = AddressMap::for_program(plan, true);
    let backed = map
        .regions()
        .iter()
        .filter(|region| region.backing != Backing::Reserved);
    backed
        .map(|region| PageRun {
            start: region.start,
            pages: region.pages(),
            eager: region.backing == Backing::Eager,
        })
        .collect()
}

fn system(copies: usize) -> Demand {
    let plan = LoadPlan::parse(&Elf::typical().build()).expect("a good program");
    let program = Demand::process("typical", runs(&plan), &ObjectSizes::SEL4_5_X86_64);
    Demand {
        programs: vec![program; copies],
        ..Demand::default()
    }
}

#[test]
fn twenty_programs_fit_a_small_pc_and_250_do_not() {
    let machine = MachineProfile::pc99(512, 2 << 20, 16);
    let report = simulate(&machine, &system(20), Counted::Everything);
    assert_eq!(report.shortfall, None);
    assert!(
        report.shares.iter().all(|share| share.bytes > 3 << 20),
        "3 MiB heap each"
    );
    let report = simulate(&machine, &system(250), Counted::Everything);
    let shortfall = report.shortfall.expect("800 MiB do not fit 512");
    assert!(
        shortfall.bytes > 200 << 20 && shortfall.slots > 0,
        "{shortfall}"
    );
    let text = shortfall.to_string();
    assert!(
        text.starts_with("typical: ") && text.contains("short of"),
        "{text}"
    );
}

#[test]
fn what_must_be_there_at_the_start_is_little() {
    let machine = MachineProfile::pc99(64, 2 << 20, 16);
    let report = simulate(&machine, &system(100), Counted::EagerOnly);
    assert_eq!(report.shortfall, None);
    let largest = report.shares.iter().map(|share| share.bytes).max();
    assert!(largest < Some(80 << 10), "{largest:?}");
}
