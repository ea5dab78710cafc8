//! A service that speaks and reads on every terminal it is given.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;

use capos::prelude::*;
use capos::{
    Endpoint, RuntimeRingClient, StdIOClient, StdIOReadMode, StdIOReadRequest, StdIOStream,
};
use service::{Call, FOREVER, Refusal, Reply, Server, Service};

const BORROW: u16 = 0;
const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;

struct Borrower;

impl Service for Borrower {
    fn has_method(&self, _endpoint: usize, method: u16) -> bool {
        method == BORROW
    }

    fn call(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &mut Call,
    ) -> Result<Reply, Refusal> {
        let lent = call.take::<Endpoint>(ring, 0)?;
        let mut stdio = StdIOClient::new(lent.capability());
        let text = "words of another session\n";
        let _ = stdio.write_wait(&mut **ring, StdIOStream::Stdout, text, FOREVER);
        let request = StdIOReadRequest {
            prompt: String::from("password of another session: "),
            mode: StdIOReadMode::Hidden,
            max_bytes: 64,
            allow_empty: true,
        };
        if let Ok(read) = stdio.read(&mut **ring, &request) {
            let _ = ring.wait(read, FOREVER);
        }
        Ok(Reply::void())
    }
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let Ok(endpoint) = capset.get_typed::<Endpoint>(b"borrower") else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let served = Server::new(&mut ring, &[endpoint], 1, 256)
        .and_then(|server| service::serve(&mut ring, server, &mut Borrower));
    match served {
        Ok(never) => match never {},
        Err(_) => EXIT_SERVING,
    }
}

entry_point!(main);
