//! Methods in words, against what Cap'n Proto makes of `bridge.capnp`.

use capnp::message::Builder;
use capnp::traits::{HasTypeId, Owned};
use sel4_capos_schema::bridge_capnp::bridge;
use sel4_direct::messages::{ECHO, Method, Unknown};

/// The data section of the struct that `fill` sets.
fn data<T: Owned>(fill: impl FnOnce(T::Builder<'_>)) -> Vec<u8> {
    let mut message = Builder::new_default();
    fill(message.init_root::<T::Builder<'_>>());
    // One segment, behind a word with its size and the pointer to the root.
    capnp::serialize::write_message_to_words(&message)[16..].to_vec()
}

fn words(method: Method) -> Vec<u8> {
    let params = method.encode().1;
    params.map_or_else(Vec::new, |word| word.to_le_bytes().to_vec())
}

#[test]
fn params_are_the_data_sections_of_the_schema() {
    let number = 0x8765_4321;
    let cases = [
        (
            Method::OpenSession { parent: number },
            data::<bridge::open_session_params::Owned>(|mut params| params.set_parent(number)),
        ),
        (
            Method::CloseSession { session: number },
            data::<bridge::close_session_params::Owned>(|mut params| params.set_session(number)),
        ),
        (
            Method::RegisterQueue { queue: number },
            data::<bridge::register_queue_params::Owned>(|mut params| params.set_queue(number)),
        ),
        (
            Method::Kick {
                queue: number,
                head: 7,
            },
            data::<bridge::kick_params::Owned>(|mut params| {
                params.set_queue(number);
                params.set_head(7);
            }),
        ),
        (
            Method::PreGrantMemory { frames: number },
            data::<bridge::pre_grant_memory_params::Owned>(|mut params| params.set_frames(number)),
        ),
        (
            Method::UseMemory,
            data::<bridge::use_memory_params::Owned>(|_| ()),
        ),
        (
            Method::ReturnMemory,
            data::<bridge::return_memory_params::Owned>(|_| ()),
        ),
        (
            Method::RevokeSessions,
            data::<bridge::revoke_sessions_params::Owned>(|_| ()),
        ),
        (
            Method::CountCalls,
            data::<bridge::count_calls_params::Owned>(|_| ()),
        ),
    ];
    for (index, (method, bytes)) in cases.into_iter().enumerate() {
        assert_eq!(words(method), bytes, "{method:?}");
        // The order above is the schema's.
        assert_eq!(method.encode().0, index as u64 + 1, "{method:?}");
        assert_eq!(Method::decode(method.encode()), Ok(method));
    }
    assert_eq!(bridge::Client::TYPE_ID, 0xe1d4_b27c_60a3_985f);
}

#[test]
fn what_is_no_method_or_too_short_is_refused() {
    assert_eq!(Method::decode((ECHO, None)), Ok(Method::Echo));
    for ordinal in 1..=5 {
        assert_eq!(Method::decode((ordinal, None)), Err(Unknown), "{ordinal}");
    }
    for ordinal in [10, 0x100, u64::MAX] {
        assert_eq!(
            Method::decode((ordinal, Some(0))),
            Err(Unknown),
            "{ordinal}"
        );
    }
}
