//! An `EntropySource` that can be guessed: 16 bytes of text, repeated, with the
//! badge of whoever asks and how often that was. A proof that must find an
//! identity or a salt in the output knows what to look for.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use capos::capos_capnp::{EntropyStatus, entropy_source};
use capos::prelude::*;
use capos::{Endpoint, RuntimeRingClient};
use service::{Call, Refusal, Reply, Server, Service, empty_message, serve};

const RECEIVES: usize = 2;
const PARAMS_BYTES: usize = 64;
/// Most bytes of one call, as with the real one.
const BYTES_MAX: u32 = 256;
const FILL: u16 = 0;

const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;

/// How often each badge asked.
#[derive(Default)]
struct Known(BTreeMap<u64, u32>);

impl Service for Known {
    fn has_method(&self, _endpoint: usize, method: u16) -> bool {
        method == FILL
    }

    fn call(
        &mut self,
        _ring: &mut RuntimeRingClient<'_>,
        call: &mut Call,
    ) -> Result<Reply, Refusal> {
        let params = call.message()?;
        let params: entropy_source::fill_params::Reader<'_> = params.get_root()?;
        let bytes = params.get_bytes();
        let mut message = empty_message();
        let mut results: entropy_source::fill_results::Builder<'_> = message.init_root();
        if bytes > BYTES_MAX {
            results.set_status(EntropyStatus::Unavailable);
        } else {
            let times = self.0.entry(call.badge).or_default();
            *times += 1;
            let text = format!("known-{:03}-{:06}", call.badge, times);
            let text: Vec<u8> = text.bytes().cycle().take(bytes as usize).collect();
            results.set_status(EntropyStatus::Ok);
            results.set_data(&text);
        }
        Ok(Reply::message(&message))
    }
}

fn main(mut runtime: Runtime) -> i64 {
    let Ok(endpoint) = runtime.capset().get_typed::<Endpoint>(b"entropy") else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let Ok(server) = Server::new(&mut ring, &[endpoint], RECEIVES, PARAMS_BYTES) else {
        return EXIT_SERVING;
    };
    let Err(_) = serve(&mut ring, server, &mut Known::default());
    EXIT_SERVING
}

entry_point!(main);
