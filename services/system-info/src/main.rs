//! The message of the day and the hostname of the boot manifest: `SystemInfo`
//! as a service.
//!
//! Holds: `system_info` (the endpoint it serves) and `boot_package`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;

use capos::capos_capnp::system_info;
use capos::prelude::*;
use capos::{BootPackage, Endpoint, RuntimeRingClient};
use service::{Call, Refusal, Reply, Server, Service, empty_message, serve};

const RECEIVES: usize = 4;
/// Its methods take no params.
const PARAMS_BYTES: usize = 64;

const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;
const EXIT_MANIFEST: i64 = 4;

mod ordinal {
    pub(super) const MOTD: u16 = 0;
    pub(super) const HOSTNAME: u16 = 1;
}

struct Info {
    motd: String,
    hostname: String,
}

impl Service for Info {
    fn has_method(&self, _endpoint: usize, method: u16) -> bool {
        matches!(method, ordinal::MOTD | ordinal::HOSTNAME)
    }

    fn call(
        &mut self,
        _ring: &mut RuntimeRingClient<'_>,
        call: &mut Call,
    ) -> Result<Reply, Refusal> {
        let mut message = empty_message();
        if call.method == ordinal::MOTD {
            let mut results: system_info::motd_results::Builder<'_> = message.init_root();
            results.set_text(&self.motd);
        } else {
            let mut results: system_info::hostname_results::Builder<'_> = message.init_root();
            results.set_name(&self.hostname);
        }
        Ok(Reply::message(&message))
    }
}

fn main(mut runtime: Runtime) -> i64 {
    let capset = runtime.capset();
    let (Ok(endpoint), Ok(package)) = (
        capset.get_typed::<Endpoint>(b"system_info"),
        capset.get_typed::<BootPackage>(b"boot_package"),
    ) else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let Ok(config) = service::boot::read_config(&mut ring, package) else {
        return EXIT_MANIFEST;
    };
    let (motd, hostname) = config.map_or_else(Default::default, |c| (c.motd, c.hostname));
    let Ok(server) = Server::new(&mut ring, &[endpoint], RECEIVES, PARAMS_BYTES) else {
        return EXIT_SERVING;
    };
    let Err(_) = serve(&mut ring, server, &mut Info { motd, hostname });
    EXIT_SERVING
}

entry_point!(main);
