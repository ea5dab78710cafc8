//! Says at `stdio`, if it has that, what it was started with. Its exit code is
//! the number of its capabilities, or 100 if it cannot say them.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use capos::prelude::*;
use capos::{Endpoint, StdIOClient, StdIOStream};
use service::FOREVER;

const EXIT_SAYING: i64 = 100;

fn say(runtime: &mut Runtime, text: &str) -> Result<(), i64> {
    let Ok(stdio) = runtime.capset().get_typed::<Endpoint>(b"stdio") else {
        return Ok(());
    };
    let mut ring = runtime.ring_client().map_err(|_| EXIT_SAYING)?;
    StdIOClient::new(stdio)
        .write_wait(&mut ring, StdIOStream::Stdout, text, FOREVER)
        .map_err(|_| EXIT_SAYING)
}

fn main(mut runtime: Runtime) -> i64 {
    let entries = runtime.capset().iter();
    let names: Vec<_> = entries
        .map(|entry| String::from_utf8_lossy(entry.name_bytes()).into_owned())
        .collect();
    let text = format!("it holds: {}\n", names.join(", "));
    match say(&mut runtime, &text) {
        Ok(()) => names.len() as i64,
        Err(code) => code,
    }
}

entry_point!(main);
