//! A short way to the one field that frequent methods take.
//!
//! The `capnp` crate accepts every shape a message can have, at some 700
//! instructions per message. Clients send one shape: a single segment, the root
//! struct right behind its pointer, direct pointers. This module reads that
//! shape and answers `None` for anything else, which the caller then hands to
//! the crate. It never accepts what the crate refuses, and never reads it
//! differently (tested against it).
//!
//! Format: <https://capnproto.org/encoding.html>.

const WORD_BYTES: usize = 8;
/// Word of the root pointer, behind the segment table of a single segment.
const ROOT_WORD: usize = 1;
const OFFSET_AND_KIND: u64 = 0xffff_ffff;
const LIST_OF_BYTES: u64 = 2;

/// The first data word of the root struct.
pub fn root_u64(message: &[u8]) -> Option<u64> {
    let (data_words, _) = root_struct(message)?;
    if data_words == 0 {
        return None;
    }
    word(message, ROOT_WORD + 1)
}

/// The bytes of the root struct's first pointer, a `Data`.
pub fn root_data(message: &[u8]) -> Option<&[u8]> {
    let (data_words, pointers) = root_struct(message)?;
    if pointers == 0 {
        return None;
    }
    let at = ROOT_WORD + 1 + data_words;
    let pointer = word(message, at)?;
    let (low, high) = (pointer as u32, pointer >> 32);
    let is_forward_list = low & 3 == 1 && low >> 31 == 0;
    if !is_forward_list || high & 7 != LIST_OF_BYTES {
        return None;
    }
    let start = (at + 1 + (low >> 2) as usize) * WORD_BYTES;
    let end = start + (high >> 3) as usize;
    if end.next_multiple_of(WORD_BYTES) > segment_end(message)? {
        return None;
    }
    message.get(start..end)
}

/// The bytes of the root struct's first pointer, a `Text`, without its
/// terminator.
pub fn root_text(message: &[u8]) -> Option<&[u8]> {
    match root_data(message)?.split_last()? {
        (0, text) => Some(text),
        _ => None,
    }
}

/// Data words and pointers of a root struct right behind its pointer, wholly
/// inside the only segment.
fn root_struct(message: &[u8]) -> Option<(usize, usize)> {
    let pointer = word(message, ROOT_WORD)?;
    if pointer == 0 || pointer & OFFSET_AND_KIND != 0 {
        return None;
    }
    let (data, pointers) = ((pointer >> 32) as u16, (pointer >> 48) as u16);
    let (data, pointers) = (usize::from(data), usize::from(pointers));
    let end = (ROOT_WORD + 1 + data + pointers) * WORD_BYTES;
    (end <= segment_end(message)?).then_some((data, pointers))
}

/// End of the only segment in bytes, if there is one segment and it is here.
fn segment_end(message: &[u8]) -> Option<usize> {
    let table = word(message, 0)?;
    let end = (1 + (table >> 32) as usize) * WORD_BYTES;
    (table as u32 == 0 && end <= message.len()).then_some(end)
}

fn word(message: &[u8], index: usize) -> Option<u64> {
    let bytes = message.get(index * WORD_BYTES..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use capnp::serialize::read_message_from_flat_slice_no_alloc;
    use capos_config::capos_capnp::{console, timer};

    fn random(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    /// Compares with the crate; returns how many of the three were accepted.
    fn compare(words: &[capnp::Word], len: usize) -> u32 {
        let bytes = &capnp::Word::words_to_bytes(words)[..len];
        let mut slice = bytes;
        let options = capos_config::default_reader_options();
        let message = read_message_from_flat_slice_no_alloc(&mut slice, options);
        let mut accepted = 0;
        if let Some(value) = root_u64(bytes) {
            let message = message.as_ref().expect("the crate accepts it");
            let root = message.get_root::<timer::sleep_params::Reader<'_>>();
            assert_eq!(root.expect("a struct").get_duration_ns(), value);
            accepted += 1;
        }
        if let Some(data) = root_data(bytes) {
            let message = message.as_ref().expect("the crate accepts it");
            let root = message.get_root::<console::write_params::Reader<'_>>();
            let theirs = root.expect("a struct").get_data();
            assert_eq!(theirs.expect("a data"), data);
            accepted += 1;
        }
        if let Some(text) = root_text(bytes) {
            let message = message.as_ref().expect("the crate accepts it");
            let root = message.get_root::<console::write_line_params::Reader<'_>>();
            let theirs = root.expect("a struct").get_text().expect("a text");
            assert_eq!(theirs.as_bytes(), text);
            accepted += 1;
        }
        accepted
    }

    #[test]
    fn never_reads_otherwise_than_the_crate() {
        let mut seed = 0x1234_5678_9abc_def1;
        let mut accepted = 0;
        for _ in 0..200_000 {
            let mut words = capnp::Word::allocate_zeroed_vec(8);
            let bytes = capnp::Word::words_to_bytes_mut(&mut words);
            let (data, pointers) = (random(&mut seed) % 3, random(&mut seed) % 3);
            let offset = random(&mut seed) % 3;
            let count = random(&mut seed) % 24;
            let list = 1 | (offset << 2) | ((2 | (count << 3)) << 32);
            let shape = [
                (random(&mut seed) % 9) << 32,
                (data << 32) | (pointers << 48),
            ];
            let mut all: Vec<u64> = shape.into_iter().collect();
            all.extend((0..data).map(|_| random(&mut seed)));
            all.push(list);
            all.resize_with(8, || random(&mut seed) & (random(&mut seed) << 8));
            if random(&mut seed).is_multiple_of(4) {
                let at = random(&mut seed) as usize % 8;
                all[at] ^= 1 << (random(&mut seed) % 64);
            }
            for (word, out) in all.iter().zip(bytes.chunks_exact_mut(8)) {
                out.copy_from_slice(&word.to_le_bytes());
            }
            let len = (64 - random(&mut seed) % 20) as usize;
            accepted += compare(&words, len);
        }
        assert!(accepted > 50_000, "the short way is taken: {accepted}");
    }

    #[test]
    fn what_clients_send_takes_the_short_way() {
        let mut message = capnp::message::Builder::new_default();
        let mut params = message.init_root::<console::write_line_params::Builder<'_>>();
        params.set_text("hello");
        let bytes = capnp::serialize::write_message_to_words(&message);
        assert_eq!(root_text(&bytes), Some(&b"hello"[..]));
        let mut message = capnp::message::Builder::new_default();
        let mut params = message.init_root::<timer::sleep_params::Builder<'_>>();
        params.set_duration_ns(77);
        let bytes = capnp::serialize::write_message_to_words(&message);
        assert_eq!(root_u64(&bytes), Some(77));
    }
}
