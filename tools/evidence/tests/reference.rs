//! The committed reference says what the code does.

use evidence::{reference, root};

#[test]
fn the_abi_reference_is_not_stale() {
    let committed = std::fs::read_to_string(root().join(reference::PATH));
    let generated = reference::generate(&root()).expect("it can be generated");
    assert!(
        committed.is_ok_and(|committed| committed == generated),
        "{} is stale: run `make reference`",
        reference::PATH
    );
}
