//! From its first call on, has the right password checked without end: each
//! check takes a hash. The call is answered after the first one.
#![no_std]
#![no_main]

use capos::prelude::*;
use capos::{CredentialCheckStatus, CredentialStoreClient, Endpoint, ExceptionType};
use service::{Event, FOREVER, Reply, Server, ServerError, refuse};

const PASSWORD: &[u8] = b"battery staple";
const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;

fn hash(
    ring: &mut capos::RuntimeRingClient<'_>,
    store: &mut CredentialStoreClient,
    server: &mut Server,
) -> Result<core::convert::Infallible, ServerError> {
    let call = loop {
        if let Event::Call(call) = server.next(ring, &[])? {
            break call;
        }
    };
    let checked = store.verify_console_password_wait(&mut **ring, PASSWORD, FOREVER);
    let right = checked.is_ok_and(|checked| checked.status == CredentialCheckStatus::Success);
    let answer = match right {
        true => Ok(Reply::void()),
        false => Err(refuse(ExceptionType::Failed, "the password is wrong")),
    };
    server.answer(ring, call, answer)?;
    // What is submitted together: the answer goes out with the next attempt.
    loop {
        let _ = store.verify_console_password_wait(&mut **ring, PASSWORD, FOREVER);
    }
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let (Ok(endpoint), Ok(mut store)) = (
        capset.get_typed::<Endpoint>(b"hashing"),
        capset.get_client::<CredentialStoreClient>(b"credential_store"),
    ) else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let served = Server::new(&mut ring, &[endpoint], 1, 64)
        .and_then(|mut server| hash(&mut ring, &mut store, &mut server));
    match served {
        Ok(never) => match never {},
        Err(_) => EXIT_SERVING,
    }
}

entry_point!(main);
