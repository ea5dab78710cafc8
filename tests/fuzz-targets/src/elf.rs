//! The program loader: a plan, if there is one, is sound.

use capos_loader::{AddressMap, LoadPlan, TlsSlot};

const PAGE: u64 = 4096;
/// Pages looked at in each segment.
const PAGES_MAX: u64 = 64;

/// Parses `data` as a program.
pub(crate) fn run(data: &[u8]) {
    let Ok(plan) = LoadPlan::parse(data) else {
        return;
    };
    let mut last_end = 0;
    for segment in plan.segments() {
        assert!(segment.start >= last_end, "segments are in order, disjoint");
        assert!(segment.start < segment.end, "a segment has pages");
        let protection = segment.protection;
        assert!(!(protection.write && protection.execute), "W^X");
        assert!(segment.data.of(data).is_some(), "data lies in the file");
        last_end = segment.end;
        let pages = (segment.start..segment.end).step_by(PAGE as usize);
        for page in pages.take(PAGES_MAX as usize) {
            let content = plan.page_content(page).expect("the page is planned");
            let end = content.offset_in_page + content.bytes.length;
            assert!(end <= PAGE, "content fits its page");
            assert!(content.bytes.of(data).is_some(), "content is in the file");
        }
    }
    assert!(
        plan.page_content(last_end).is_none(),
        "no page past the end"
    );
    for has_capset in [false, true] {
        let mut map = AddressMap::for_program(&plan, has_capset);
        map.check();
        for number in [0, 63] {
            let slot = TlsSlot::of(number);
            map.place_tls(slot);
            map.check();
            let fs_base = plan.entry_state(1, has_capset, slot).fs_base;
            assert_eq!(map.tls_fs_base().unwrap_or(0), fs_base, "one placement");
        }
    }
    let pages: u64 = plan.segments().iter().map(|segment| segment.pages()).sum();
    assert!(plan.demand_pages() <= pages, "no more pages than there are");
}
