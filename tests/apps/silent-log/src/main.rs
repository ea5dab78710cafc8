//! An audit log that takes every record and answers none.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use capos::Endpoint;
use capos::prelude::*;
use service::{Call, Event, Server};

const RECEIVES: usize = 4;
const PARAMS_BYTES: usize = 512;

const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;

fn main(mut runtime: Runtime) -> i64 {
    let Ok(endpoint) = runtime.capset().get_typed::<Endpoint>(b"audit_log") else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let Ok(mut server) = Server::new(&mut ring, &[endpoint], RECEIVES, PARAMS_BYTES) else {
        return EXIT_SERVING;
    };
    // A call that is dropped is answered.
    let mut kept: Vec<Call> = Vec::new();
    while let Ok(event) = server.next(&mut ring, &[]) {
        if let Event::Call(call) = event {
            kept.push(call);
        }
    }
    EXIT_SERVING
}

entry_point!(main);
