//! Checks of the runtime: heap, memory functions, stack, archive.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::ensure;
use crate::report::Outcome;

/// A quarter of the heap, in bytes.
const BLOCK: usize = crate::HEAP_SIZE / 4;

/// Memory comes back: far more is allocated in turn than there is.
pub fn heap() -> Outcome {
    for round in 0..64_u8 {
        let block: Vec<u8> = alloc::vec![round; BLOCK];
        ensure!(block.iter().all(|byte| *byte == round), "round {round}");
    }
    let mut map = BTreeMap::new();
    for key in 0..500_u64 {
        map.insert(key * 7919 % 500, key);
    }
    ensure!(map.len() == 500, "{} entries", map.len());
    for (key, value) in map {
        ensure!(value * 7919 % 500 == key, "{key} became {value}");
    }
    Ok(())
}

/// Overlapping moves, fills and comparisons, in the image as linked.
pub fn memory_functions() -> Outcome {
    let pattern = || (0..255_u8).cycle().take(1000).collect::<Vec<u8>>();
    for (from, to) in [(0, 1), (1, 0), (0, 7), (7, 0), (3, 500)] {
        let mut moved = pattern();
        moved.copy_within(from..from + 400, to);
        let expected = pattern();
        ensure!(
            moved[to..to + 400] == expected[from..from + 400],
            "move from {from} to {to}"
        );
    }
    let mut filled = pattern();
    filled[3..997].fill(0xAA);
    ensure!(filled[3..997].iter().all(|byte| *byte == 0xAA), "fill");
    ensure!(
        filled[2] == 2 && filled[997] == (997 % 255) as u8,
        "fill beyond"
    );
    Ok(())
}

/// An image that was not packed has no archive; one that was has a CPIO.
pub fn archive() -> Outcome {
    let archive = sel4_root_task::boot_archive();
    ensure!(
        archive.is_empty() || archive.starts_with(b"070701"),
        "{} bytes that are no archive",
        archive.len()
    );
    Ok(())
}
