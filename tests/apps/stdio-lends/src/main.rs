//! Run by a person's shell: speaks on its terminal, then gives it to a service of
//! another session, and waits for what that does with it.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec;

use capos::prelude::*;
use capos::ring::CopyTransfer;
use capos::{Endpoint, StdIOClient, StdIOStream};

const FOREVER: u64 = capos::syscall::CAP_ENTER_WAIT_FOREVER;
const BORROW: u16 = 0;
const EXIT_BUNDLE: i64 = 2;
const EXIT_FAILED: i64 = 3;

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let (Ok(stdio), Ok(borrower)) = (
        capset.get_typed::<Endpoint>(b"stdio"),
        capset.get_typed::<Endpoint>(b"borrower"),
    ) else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let mut own = StdIOClient::new(stdio);
    let said = own.write_wait(&mut *ring, StdIOStream::Stdout, "lent\n", FOREVER);
    let result: Box<[u8]> = vec![0; 256].into();
    let lent = [CopyTransfer::from_capability(stdio)];
    let call = ring.submit_call_with_copy_transfers(
        borrower.cap_id(),
        BORROW,
        Box::from([]),
        result,
        &lent,
    );
    let (Ok(()), Ok(call)) = (said, call) else {
        return EXIT_FAILED;
    };
    match ring.wait(call, FOREVER) {
        Ok(_) => 0,
        Err(_) => EXIT_FAILED,
    }
}

entry_point!(main);
