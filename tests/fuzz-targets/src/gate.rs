//! The gate packer: it rewrites the sites it reports and nothing else.

use sel4_compose::gate;

const SYSCALL: [u8; 2] = [0x0f, 0x05];
const GATE: [u8; 2] = [0xcd, 0xa0];

/// Inspects and rewrites `data` as a program.
pub(crate) fn run(data: &[u8]) {
    let inspected = gate::inspect(data);
    let mut rewritten = data.to_vec();
    let Ok(report) = gate::rewrite(&mut rewritten) else {
        assert_eq!(rewritten, data, "a refused file is untouched");
        return;
    };
    let inspected = inspected.expect("what is rewritten can be inspected");
    assert_eq!(inspected.sites, report.sites);
    let mut changed = 0;
    let mut at = 0;
    while at < data.len() {
        if data[at] == rewritten[at] {
            at += 1;
            continue;
        }
        assert_eq!(data.get(at..at + 2), Some(&SYSCALL[..]), "changed at {at}");
        assert_eq!(rewritten.get(at..at + 2), Some(&GATE[..]), "made at {at}");
        changed += 1;
        at += 2;
    }
    assert!(changed <= report.sites.len(), "only sites change");
    if let Ok(again) = gate::inspect(&rewritten) {
        assert!(again.sites.is_empty(), "no site is left");
    }
}
