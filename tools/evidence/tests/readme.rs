//! What the README shows of a session is what was recorded.

use evidence::root;

#[test]
fn the_session_shown_is_the_one_recorded() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).expect(name);
    let (readme, recorded) = (read("README.md"), read("docs/first-session.txt"));
    let blocks = readme.split("```").skip(1).step_by(2);
    let shown: Vec<&str> = blocks
        .filter_map(|block| block.strip_prefix('\n'))
        .filter(|block| block.contains("operator> "))
        .collect();
    assert!(!shown.is_empty(), "the README shows no session");
    for block in shown {
        assert!(recorded.contains(block), "not in the recording:\n{block}");
    }
}
