//! Reading the boot manifest without letting it cost more than its size.
//!
//! A Cap'n Proto list of structs without content takes one word on the wire
//! whatever its length, so a small message can name millions of elements, and
//! decoding makes a value of each. The published limit of 64 Mi words allows
//! gigabytes. Every element visited is charged one word at least, so a limit
//! in proportion to the message bounds the memory in proportion too.

use alloc::vec::Vec;

use capnp::Word;
use capnp::message::ReaderOptions;
use capos_config::manifest::KernelBootstrapManifest;
use capos_config::{DEFAULT_CAPNP_NESTING_LIMIT, Result};

/// Times the content of an honest manifest may be visited: decoding looks at
/// each word once, at some twice.
const VISITS: usize = 4;

/// Limits for reading a message of `bytes` bytes: [`VISITS`] times its words,
/// and the published nesting depth.
pub fn reader_options(bytes: usize) -> ReaderOptions {
    let words = bytes.div_ceil(size_of::<Word>()).saturating_mul(VISITS);
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(words));
    options.nesting_limit(DEFAULT_CAPNP_NESTING_LIMIT);
    options
}

/// Decodes a boot manifest and checks the rules the boot path relies on.
///
/// `bytes` may lie at any alignment: archive entries are 4-aligned, Cap'n
/// Proto words 8-aligned.
///
/// # Errors
/// The manifest does not decode, is too repetitive, or breaks a rule.
pub fn read_bootstrap_manifest(bytes: &[u8]) -> Result<KernelBootstrapManifest> {
    let words = aligned(bytes);
    let manifest = KernelBootstrapManifest::from_capnp_bytes_with_options(
        Word::words_to_bytes(&words),
        reader_options(bytes.len()),
    )?;
    manifest.validate_bootstrap_name_only()?;
    Ok(manifest)
}

fn aligned(bytes: &[u8]) -> Vec<Word> {
    let mut words = Word::allocate_zeroed_vec(bytes.len().div_ceil(size_of::<Word>()));
    Word::words_to_bytes_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_without_content_is_refused() {
        let bytes = amplified();
        let limit = VISITS * bytes.len() / size_of::<Word>();
        assert!(limit < ELEMENTS as usize, "the limit must be what refuses");
        let refused = read_bootstrap_manifest(&bytes).unwrap_err();
        let text = alloc::format!("{refused}");
        assert!(text.contains("limit"), "refused for another reason: {text}");
    }

    /// Elements the amplified list claims.
    const ELEMENTS: u32 = 1 << 20;
    /// Elements it has room for.
    const REAL: u32 = 1 << 4;

    /// A manifest whose list of programs claims a million elements of no size.
    fn amplified() -> Vec<u8> {
        use capos_config::capos_capnp::system_manifest;
        let mut message = capnp::message::Builder::new_default();
        let mut root = message.init_root::<system_manifest::Builder<'_>>();
        root.set_schema_version(1);
        root.init_binaries(REAL);
        let mut bytes = capnp::serialize::write_message_to_words(&message);
        // The tag of the list: element count in the upper 30 bits of the low
        // half; the element size behind it becomes nothing.
        let tag = tag_of_list(&bytes);
        let count = ELEMENTS << 2;
        bytes[tag..tag + 4].copy_from_slice(&count.to_le_bytes());
        bytes[tag + 4..tag + 8].fill(0);
        bytes
    }

    fn tag_of_list(bytes: &[u8]) -> usize {
        let want = REAL << 2;
        (0..bytes.len() - 8)
            .step_by(4)
            .find(|&at| bytes[at..at + 4] == want.to_le_bytes())
            .expect("the list has a tag")
    }
}
